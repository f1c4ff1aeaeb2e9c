"""Tables of what a group does not have, of digests, and of figures that depend on no data."""

import json

from cogkit.papers.running import run_once
from cogkit.papers.sheets import read_paper
from cogkit.papers.tables import make_table


def made(folder, base):
    paper = read_paper(folder)
    for row in paper.profile("quick"):
        run_once(paper, row, [], base / "results" / paper.slug / "quick" / "runs" / f"{row.name}.json", base / "work")
    content = make_table(paper, "quick", base / "results")
    return content, (base / "results" / paper.slug / "quick" / "table.md").read_text()


def changed(folder, *pairs):
    path = folder / "train.py"
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_a_number_that_a_row_does_not_have(write_paper, tmp_path):
    folder = write_paper(tmp_path / "t1")
    changed(folder, ('"size": row.width', '"size": None if row.steps > 8 else row.width'))
    content, markdown = made(folder, tmp_path)
    rows = {(r["group"], r["metric"]): r for r in content["rows"]}
    assert rows["long-64", "size"]["status"] == "no such number" and rows["long-64", "size"]["mean"] is None
    assert rows["short-8", "size"]["status"] == rows["long-64", "error"]["status"] == "done"
    line = next(x for x in markdown.splitlines() if x.startswith("| long-64"))
    assert "diverged" not in line and "not run" not in line and "3 of 3" in line
    verdict = next(v for v in content["verdicts"] if v["claim"] == "same")
    assert verdict["verdict"] == "not run"


def test_digests_have_no_mean(write_paper, tmp_path):
    folder = write_paper(tmp_path / "t2")
    claim = "claim,profile,text,holds_if,test,confidence\nequal,quick,Equal,size(short-8) == size(long-64),exact,95 %\n"
    (folder / "claims.csv").write_text(claim)
    changed(folder, ('"size": "parameters"', '"size": "digest of the model"'))
    content, markdown = made(folder, tmp_path)
    assert "in the records" in markdown and content["verdicts"][0]["verdict"] == "holds"


def test_a_figure_that_depends_on_no_data_stands_beside_any(write_paper, tmp_path):
    folder = write_paper(tmp_path / "t3")
    content, _ = made(folder, tmp_path)
    line = next(p for p in content["published"] if p["metric"] == "error")
    assert line["data"] == "none" and line["ours"] is not None


def test_curves_over_ranks(write_paper, tmp_path):
    folder = write_paper(tmp_path / "t4")
    ranks = '    for n in (1, 2, 4):\n        out.point(ranks=n, size=row.width * n / 4)\n    return {"error": error'
    changed(folder, ('    return {"error": error', ranks))
    content, _ = made(folder, tmp_path)
    assert "curves" in content["figures"]
    svg = (tmp_path / "results" / "t4" / "quick" / "figures" / "curves.svg").read_text()
    assert ">ranks<" in svg and ">epoch<" in svg
    json.dumps(content)
