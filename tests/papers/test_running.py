"""One run: its record, its checkpoints, what it refuses."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cogkit.papers.running import Out, Row, Stopped, run_once
from cogkit.papers.sheets import read_paper


def train(folder, name, base, every=0.0, **more):
    paper = read_paper(folder)
    return run_once(paper, paper.find("quick", name), [], base / f"{name}.json", base / "work", every=every, **more)


def numbers(record):
    return record["results"], record["curve"]


def test_a_record_says_where_it_comes_from(write_paper, tmp_path):
    record = train(write_paper(tmp_path / "p1"), "short-s1", tmp_path)
    assert record == json.loads((tmp_path / "short-s1.json").read_text())
    assert record["status"] == "done" and set(record["results"]) == {"error", "size"}
    assert (record["profile"], record["seed"], record["knobs"]["width"]) == ("quick", 1, 3)
    made = record["provenance"]
    for key in (
        "commit",
        "tree",
        "engine",
        "machine",
        "threads",
        "python",
        "packages",
        "wall_s",
        "cpu_s",
        "samples_per_second",
        "command",
    ):
        assert key in made
    assert made["samples"] == 8 * 64 and made["wall_s"] > 0 and "numpy" in made["packages"]
    assert not (tmp_path / "work" / "p1" / "quick").exists() or not list((tmp_path / "work" / "p1" / "quick").iterdir())


COMMAND = """
import sys
from pathlib import Path
from cogkit.papers.running import run_once
from cogkit.papers.sheets import read_paper
paper, base = read_paper(Path(sys.argv[1])), Path(sys.argv[2])
run_once(paper, paper.find("quick", "long-s1"), [], base / "long-s1.json", base / "work", every=0.0)
"""


def start(folder, base):
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(folder), str(base)], stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(base, process):
    for _ in range(400):
        if list((base / "work").glob("*/quick/*/at-*/out.json")):
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("no checkpoint came")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_continues_with_the_same_numbers(write_paper, tmp_path, number):
    folder = write_paper(tmp_path / f"p_{number}")
    sheet = folder / "runs.csv"
    sheet.write_text(sheet.read_text().replace(",64,0.001", ",64,0.02"))
    process = start(folder, tmp_path)
    wait_for_checkpoint(tmp_path, process)
    os.kill(process.pid, number)
    process.wait(timeout=20)
    assert process.returncode != 0 and not (tmp_path / "long-s1.json").exists()
    again = train(folder, "long-s1", tmp_path)
    whole = train(folder, "long-s1", tmp_path / "whole")
    assert len(again["provenance"]["sittings"]) == 2 and len(whole["provenance"]["sittings"]) == 1
    assert numbers(again) == numbers(whole)
    assert again["provenance"]["samples"] == whole["provenance"]["samples"] == 64 * 64


def test_changed_code_or_row_starts_anew(write_paper, tmp_path):
    folder = write_paper(tmp_path / "p3")
    process = start(folder, tmp_path)
    wait_for_checkpoint(tmp_path, process)
    process.kill()
    process.wait()
    (folder / "model.py").write_text("WIDTH = 4\n")
    assert len(train(folder, "long-s1", tmp_path)["provenance"]["sittings"]) == 1


def test_two_at_once_are_told_apart(write_paper, tmp_path):
    folder = write_paper(tmp_path / "p4")
    sheet = folder / "runs.csv"
    sheet.write_text(sheet.read_text().replace(",64,0.001", ",64,0.05"))
    process = start(folder, tmp_path)
    try:
        wait_for_checkpoint(tmp_path, process)
        with pytest.raises(RuntimeError, match="expected to be alone"):
            train(folder, "long-s1", tmp_path)
    finally:
        process.kill()
        process.wait()


def test_data_that_is_not_there(write_paper, tmp_path):
    paper = read_paper(write_paper(tmp_path / "p5"))
    stamp = {"data": "cifar10", "size": "full", "available": False, "reason": "no network"}
    record = run_once(paper, paper.find("quick", "short-s1"), [stamp], tmp_path / "r.json", tmp_path / "work")
    assert (record["status"], record["reason"], record["results"]) == ("not run", "cifar10: no network", {})


def test_a_wrong_result_is_named_and_leaves_no_record(write_paper, tmp_path):
    folder = write_paper(tmp_path / "p6")
    train_py = folder / "train.py"
    train_py.write_text(train_py.read_text().replace('return {"error": error, "size": row.width}', 'return {"error": error}'))
    with pytest.raises(ValueError, match="run\\(\\) of 'short-s1': expected a dict with error, size, got error"):
        train(folder, "short-s1", tmp_path)
    assert not (tmp_path / "short-s1.json").exists()


def test_a_diverged_number_is_null(write_paper, tmp_path):
    folder = write_paper(tmp_path / "p7")
    train_py = folder / "train.py"
    train_py.write_text(train_py.read_text().replace('return {"error": error', 'return {"error": float("nan")'))
    assert train(folder, "short-s1", tmp_path)["results"]["error"] is None


def test_a_knob_that_nobody_reads_is_told(write_paper, tmp_path):
    folder = write_paper(tmp_path / "p8")
    train_py = folder / "train.py"
    train_py.write_text(train_py.read_text().replace("time.sleep(row.pause)", "pass"))
    assert train(folder, "short-s1", tmp_path)["knobs_not_read"] == ["pause"]


def test_a_knob_that_is_not_there_is_named(write_paper, tmp_path):
    paper = read_paper(write_paper(tmp_path / "p9"))
    with pytest.raises(AttributeError, match="papers/p9/runs.csv:2: expected one of the columns .*, got row.depth"):
        _ = Row(paper.find("quick", "short-s1")).depth


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    out = Out(tmp_path, stream=io.StringIO())
    out.advance(10)
    out.save(lambda folder: (folder / "m").write_text("1"), step=1)
    out.advance(10)
    with pytest.raises(OSError, match="disk"):
        out.save(lambda folder: (_ for _ in ()).throw(OSError("disk full")), step=2)
    (tmp_path / "at-000009").mkdir()
    again = Out(tmp_path, stream=io.StringIO())
    folder, state = again.resume()
    assert (state, again.samples, (folder / "m").read_text()) == ({"step": 1}, 10, "1")


def test_asked_to_stop_it_saves_and_stops(tmp_path):
    out = Out(tmp_path, every=1e9, stream=io.StringIO())
    assert not out.due()
    out.stopping = True
    assert out.due()
    with pytest.raises(Stopped, match="stopped at 0 samples"):
        out.save(lambda folder: None)
    assert Out(tmp_path, stream=io.StringIO()).resume() is not None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_progress_line(tmp_path):
    stream = Terminal()
    out = Out(tmp_path, "fake run", stream=stream, log=tmp_path / "log")
    out.expect(100)
    out.advance(25, loss=1.5)
    out.point(epoch=1, error=12.5)
    out.close()
    assert "25 %" in stream.getvalue() and "loss 1.5" in stream.getvalue() and "samples/s" in stream.getvalue()
    assert "error 12.5" in (tmp_path / "log").read_text() and "\r" not in (tmp_path / "log").read_text()
