"""Every paper folder, found by its runs.csv: sheets in order, smoke runs that train, stop and continue, a table."""

import re
from pathlib import Path

import pytest

from cogkit.errors import DataError
from cogkit.papers.datasets import prepare_data
from cogkit.papers.report import make_report
from cogkit.papers.running import Out, Stopped, run_once
from cogkit.papers.sheets import find_papers, read_paper
from cogkit.papers.tables import make_table

FOLDER = Path(__file__).resolve().parents[2] / "papers"
SLUGS = find_papers(FOLDER)


def test_there_is_a_paper():
    assert SLUGS


@pytest.fixture(scope="session")
def stamps(tmp_path_factory):
    """The stamp of a data set in a size, made once; skips where it cannot be fetched."""
    folder, made = tmp_path_factory.mktemp("data"), {}

    def stamp(name: str, size: str) -> dict:
        if (name, size) not in made:
            try:
                made[name, size] = prepare_data(name, size, folder / f"{name}.{size}.json", must=True)
            except DataError as error:
                pytest.skip(f"no {name}: {error}")
        return made[name, size]

    return stamp


@pytest.mark.parametrize("slug", SLUGS)
def test_sheets_are_in_order(slug):
    paper = read_paper(FOLDER / slug)
    assert paper.profile("smoke") and paper.profile("quick"), "each paper has a smoke profile of a few steps and a quick one"
    assert paper.title and paper.summary
    assert {c.profile for c in paper.claims} >= {r.profile for r in paper.runs} - {"smoke"}, "each profile decides something"
    readme = (paper.folder / "README.md").read_text()
    assert re.search(r"^#+ Departures", readme, re.M), "its README lists its departures from the paper"


@pytest.mark.parametrize("slug", SLUGS)
def test_no_claim_rests_on_an_unverified_figure(slug):
    paper = read_paper(FOLDER / slug)
    hearsay = {p.value for p in paper.published if not p.verified} - {p.value for p in paper.published if p.verified}
    for claim in paper.claims:
        numbers = {float(n) for n in re.findall(r"(?<![\w.-])\d+\.?\d*", re.sub(r"\([^)]*\)", "", claim.condition))}
        assert not numbers & hearsay, claim.condition


@pytest.mark.parametrize("slug", SLUGS)
def test_smoke(slug, stamps, tmp_path, monkeypatch):
    paper = read_paper(FOLDER / slug)
    for row in paper.profile("smoke"):
        given = [stamps(*d) for d in row.data]
        record = run_once(paper, row, given, tmp_path / slug / "smoke" / "runs" / f"{row.name}.json", tmp_path / "work")
        assert record["status"] == "done" and record["curve"] and record["knobs_not_read"] == []
        assert list(record["data_sha256"].values()) == [s["sha256"] for s in given]

    # stopped after its first checkpoint and continued, the last row gives the same bits
    def stop(out):
        out.stopping = True
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Out, "due", stop)
        with pytest.raises(Stopped):
            run_once(paper, row, given, tmp_path / "again.json", tmp_path / "work")
    again = run_once(paper, row, given, tmp_path / "again.json", tmp_path / "work")
    assert len(again["provenance"]["sittings"]) == 2
    assert (again["results"], again["curve"]) == (record["results"], record["curve"])

    content = make_table(paper, "smoke", tmp_path)
    assert content["done"] == content["planned"] and content["figures"]
    assert make_report("smoke", [slug], tmp_path).read_text().count("<svg") == len(content["figures"])
