"""The workflow from outside: a temporary place with the Snakefile and a fake paper, and what a user would type."""

import csv
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

pytest.importorskip("snakemake")

SHEET = "profile,run,group,data,seed,width,steps,pause\n" + "".join(
    f"quick,{group}-s{seed},{group},none,{seed},3,{steps},{pause}\n"
    for group, steps, pause in (("short-8", 8, 0.001), ("long-64", 64, 0.05))
    for seed in (1, 2)
)
CLAIMS = (
    "claim,profile,text,holds_if,test,confidence\n"
    "longer,quick,More steps fit better,error(short-8) > error(long-64) - 1,welch,90 %\n"
)


@pytest.fixture
def place(write_paper, tmp_path, repository):
    shutil.copy(repository / "Snakefile", tmp_path)
    write_paper(tmp_path / "papers" / "fake", runs_csv=SHEET.replace("0.05", "0.001"), claims_csv=CLAIMS)
    return tmp_path


def snakemake(place, *words, check=True, **environment):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *words]
    done = subprocess.run(command, cwd=place, env=os.environ | environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def jobs(place, *words) -> dict[str, int]:
    """Jobs that a dry run would start, by rule."""
    text = snakemake(place, "-n", "-q", "rules", *words)
    return {m[1]: int(m[2]) for m in re.finditer(r"^(\w+)\s+(\d+)$", text, re.M) if m[1] != "total"}


def records(place, profile="quick", paper="fake") -> dict[str, dict]:
    return {p.stem: json.loads(p.read_text()) for p in (place / "results" / paper / profile / "runs").glob("*.json")}


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags close."""

    VOID = {"meta", "br", "link", "img", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.loads, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loads += [given[k] for k in ("src", "href") if k in given and tag in ("img", "script", "link")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.ids += [v for k, v in attributes if k == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def test_from_nothing_to_a_report_and_nothing_left_to_do(place):
    snakemake(place)
    folder = place / "results" / "fake" / "quick"
    found = records(place)
    assert set(found) == {"short-8-s1", "short-8-s2", "long-64-s1", "long-64-s2"}
    assert jobs(place) == {}

    # each mean and deviation of the table is that of the records which its line names
    lines = list(csv.DictReader((folder / "table.csv").open()))
    markdown = (folder / "table.md").read_text()
    assert len(lines) == 4
    for line in lines:
        values = [json.loads((folder / f).read_text())["results"][line["metric"]] for f in line["files"].split()]
        assert len(values) == 2
        assert float(line["mean"]) == pytest.approx(statistics.mean(values))
        assert float(line["std"]) == pytest.approx(statistics.stdev(values))
        if line["metric"] == "error":
            row = next(x for x in markdown.splitlines() if x.startswith(f"| {line['group']} |"))
            mean, std = re.search(r"([\d.]+) ± ([\d.]+)", row).groups()
            assert math.isclose(float(mean), statistics.mean(values), abs_tol=0.006)
            assert math.isclose(float(std), statistics.stdev(values), abs_tol=0.006)
            assert all(f"({f})" in row for f in line["files"].split())
    assert "**holds**" in markdown and "unverified" in markdown

    page = Page()
    report = place / "results" / "quick" / "report.html"
    page.feed(report.read_text())
    page.close()
    assert page.open == [] and page.loads == [] and len(page.ids) == len(set(page.ids))
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) >= 8 and all((report.parent / link).is_file() for link in files)
    assert any("More steps fit better" in t for t in page.text)

    # what asks for new work, and how much of it
    paper = place / "papers" / "fake"
    (paper / "train.py").write_text("# said otherwise\n" + (paper / "train.py").read_text())
    assert jobs(place) == {}
    sheet = (paper / "runs.csv").read_text()
    (paper / "runs.csv").write_text(sheet + "quick,short-8-s7,short-8,none,7,3,8,0.001\n")
    assert jobs(place) == {"train": 1, "table": 1, "report": 1}
    (paper / "runs.csv").write_text(sheet.replace("long-64,none,1,3", "long-64,none,5,3"))
    assert jobs(place) == {"train": 1, "table": 1, "report": 1}
    (paper / "runs.csv").write_text(sheet)
    shutil.copytree(paper, place / "papers" / "twin")
    assert jobs(place) == {"train": 4, "table": 1, "report": 1}
    shutil.rmtree(place / "papers" / "twin")
    (paper / "train.py").write_text((paper / "train.py").read_text().replace("0.002", "0.003"))
    assert jobs(place) == {"train": 4, "table": 1, "report": 1}


@pytest.mark.heavy
def test_killed_in_the_middle_it_goes_on_with_the_same_numbers(place):
    (place / "papers" / "fake" / "runs.csv").write_text(SHEET)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    environment = os.environ | {"COGKIT_CHECKPOINT_SECONDS": "0"}
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(1200):
            if list(place.glob("build/papers/fake/quick/long-64-s1-*/at-*/out.json")):
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group that this test started: snakemake, its shell, the training
        process.wait()
    assert "long-64-s1" not in records(place)
    assert list((place / ".snakemake" / "locks").glob("*"))
    snakemake(place)
    again = records(place)
    assert len(again["long-64-s1"]["provenance"]["sittings"]) == 2
    shutil.rmtree(place / "results")
    (place / "papers" / "fake" / "runs.csv").write_text(SHEET.replace("0.05", "0.001"))
    snakemake(place)
    for name, record in records(place).items():
        assert (record["results"], record["curve"]) == (again[name]["results"], again[name]["curve"])


def test_a_data_set_that_is_not_there_is_a_finding(place):
    sheet = place / "papers" / "fake" / "runs.csv"
    row = "{},there-s1,there,{},1,3,8,0.001\n"
    sheet.write_text(
        SHEET.splitlines()[0] + "\n" + row.format("desk", "none") + row.format("desk", "cifar10:full").replace("there", "absent")
    )
    (place / "papers" / "fake" / "claims.csv").write_text(
        CLAIMS.splitlines()[0] + "\nlower,desk,It is lower,error(absent) < error(there),welch,95 %\n"
    )
    nowhere = {"COGKIT_DATA_CIFAR10": str(place / "nowhere"), "COGKIT_DATA": str(place / "cache")}
    snakemake(place, "--config", "profile=desk", **nowhere)
    found = records(place, "desk")
    assert (found["there-s1"]["status"], found["absent-s1"]["status"]) == ("done", "not run")
    assert "nowhere" in found["absent-s1"]["reason"]
    markdown = (place / "results" / "fake" / "desk" / "table.md").read_text()
    assert "| absent | cifar10:full | 0 of 1 | not run | not run |" in markdown and "**not run**" in markdown
    # in quick, which promises to need nothing that is not there, the same is an error
    sheet.write_text(sheet.read_text().replace("desk", "quick"))
    (place / "papers" / "fake" / "claims.csv").write_text(CLAIMS.splitlines()[0] + "\n")
    shutil.rmtree(place / "build")
    text = snakemake(place, check=False, **nowhere)
    assert "cifar10" in text and "nowhere" in text and "absent-s1" not in records(place)


def test_an_unknown_data_set_is_named(place):
    assert "data set 'nosuch': expected one of" in snakemake(place, "build/data/nosuch.full.json", check=False)


def test_a_faulty_sheet_stops_it_before_anything_runs(place):
    (place / "papers" / "fake" / "runs.csv").write_text(SHEET + "quick,x,y,none,one,3,8,0.1\n")
    text = snakemake(place, check=False)
    assert "runs.csv:6: column 'seed': expected a whole number from 0, got 'one'" in text
    assert not (place / "results").exists()


def test_a_profile_without_runs_is_named(place):
    assert "got 'weekend'" in snakemake(place, "--config", "profile=weekend", check=False)


def test_the_snakefile_names_no_paper_and_no_data_set(repository):
    text = re.sub(r"#.*", "", (repository / "Snakefile").read_text()).lower()
    papers = [p.parent.name for p in (repository / "papers").glob("*/runs.csv")]
    data = [p.stem for p in (repository / "data").glob("*.py")]
    assert not [name for name in papers + data if re.search(rf"\b{name}\b", text) and name not in ("source", "format", "recipe")]
