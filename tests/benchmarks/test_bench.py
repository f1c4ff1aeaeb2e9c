"""The benchmark runs, says what it could not run, and its tables say what was measured."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def bench():
    """The module of the command line; benchmarks/ is no part of the installed package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "__main__.py"
    spec = importlib.util.spec_from_file_location("benchmarks_main", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(repository, *arguments, **env):
    found = dict(os.environ, **env)
    found.pop("PYTHONSAFEPATH", None)
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, cwd=repository, env=found,
                          timeout=300, check=False)  # fmt: skip


@pytest.fixture(scope="module")
def workloads(bench):
    """The module of the workloads, which the command line put on the path."""
    return sys.modules["workloads"]


def record(ms, cpu=None, peak=100.0, imported=30.0):
    return {"ms": ms, "cpu_ms": cpu or 2 * ms, "samples": 64, "steps": 9, "loss_first": 2.3, "loss_last": 2.2, "ready_s": 1.0, "import_mib": imported,
            "peak_mib": peak, "version": "1"}  # fmt: skip


def cells(line):
    return [c.strip() for c in line.strip("|").split("|")]


def test_one_workload_from_the_command_line(repository):
    done = run(repository, "mlp", "--rounds", "1", "--seconds", "0.05", "--threads", "1", "--no-parts")
    assert done.returncode == 0, done.stderr
    (row,) = [cells(line) for line in done.stdout.splitlines() if line.startswith("| mlp") and "%" in line]
    assert float(row[1]) > 0 and row[2] == "-" and float(row[8]) > 0
    assert importlib.util.find_spec("torch") or "pip install torch==2.13.0" in done.stdout


def test_a_torch_that_is_not_there_is_told_and_the_rest_runs(repository):
    done = run(repository, "mlp", "--rounds", "1", "--seconds", "0.05", "--threads", "1", "--no-parts", "--torch", sys.executable)
    if importlib.util.find_spec("torch"):
        pytest.skip("this Python has torch")
    assert done.returncode == 0 and "| mlp" in done.stdout
    assert "mlp torch eager 1/1: ModuleNotFoundError: No module named 'torch'" in done.stdout


def test_an_unknown_workload_is_refused(repository):
    done = run(repository, "mnist")
    assert (
        done.returncode == 2
        and "expected workloads of mlp, resnet20, vgg13_fer, lstm_speech, rnn_past_value, embedding_sgd" in done.stderr
        and "got mnist" in done.stderr
    )


@pytest.mark.parametrize(
    "part", ["executor", "overhead mlp", "lowering mlp", "profile mlp", "profile rnn_past_value", "lengths rnn_past_value"]
)
def test_a_part(repository, part):
    script = repository / "benchmarks" / "parts.py"
    done = subprocess.run([sys.executable, str(script), *part.split()], capture_output=True, text=True, timeout=300, check=False,
                          env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONSAFEPATH="1"), cwd=repository)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if part == "executor":
        assert 0 < found["bare_us"] < 1 and 0 < found["plan_us"] < 1 and found["instructions"] == 400
    elif part == "profile mlp":
        layers = 784 * 512 + 512 * 512 + 512 * 10
        assert found["operations"] == 2 * 64 * (3 * layers - 784 * 512)  # forward and both gradients, none for the images
        assert all(r["ms"] >= 0 for r in found["rows"])
    elif part == "profile rnn_past_value":  # the loop too: a product of 256 x 256 a frame, its gradients for state and weights
        assert found["operations"] == 2 * 1920 * (2 * 40 * 256 + 3 * 256 * 256 + 3 * 256 * 50)
        assert any(r["what"] == "loop" and r["operations"] == 2 * 1920 * 256 * 256 for r in found["rows"])
    elif part == "lengths rnn_past_value":
        assert found.pop("lowered_before") == 2 and found.pop("lowered_again") == 0
        assert all(v > 0 for v in found.values()) and found["bind_again_ms"] < found["bind_new_ms"] < found["first_step_ms"]
    else:
        assert all(v > 0 for v in found.values())


def test_an_unknown_part_is_refused(repository):
    script = repository / "benchmarks" / "parts.py"
    done = subprocess.run([sys.executable, str(script), "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "usage: parts.py peak | copy" in done.stderr


def test_the_ratio_is_to_the_best_variant(bench):
    results = {"mlp": {"cogkit": record(2.0, 3.0), "torch eager": record(8.0, 16.0, 300, 200), "torch compile": record(5.0, 12.0, 330, 200),
                       "operations": 4e8}}  # fmt: skip
    head, _, row = bench.speed_table(results, 100.0).splitlines()
    found = dict(zip(cells(head), cells(row), strict=True))
    assert found["torch best ms"] == "5.00" and found["(which)"] == "compile" and found["ratio"] == "2.50"
    assert found["ratio CPU"] == "4.00" and found["floor ms"] == "4.00" and found["of peak"] == "200%"
    assert found["peak MiB ours"] == "70 (+30)" and found["theirs"] == "100 (+200)" and found["samples/s"] == "32000"
    assert found["CNTK ms"] == found["CNTK ratio"] == "-"
    results["mlp"]["cntk"] = record(11.0)
    head, _, row = bench.speed_table(results, 100.0).splitlines()
    found = dict(zip(cells(head), cells(row), strict=True))
    assert found["CNTK ms"] == "11.00" and found["CNTK ratio"] == "5.50" and found["ratio"] == "2.50"


def test_a_variant_that_failed_is_left_out(bench):
    _, _, row = bench.speed_table({"mlp": {"torch eager": record(8.0)}}, 100.0).splitlines()
    assert cells(row)[:2] == ["mlp", "failed"]
    _, _, row = bench.speed_table({"mlp": {"cogkit": record(2.0)}}, None).splitlines()
    assert cells(row)[2:10] == ["-"] * 8


def test_a_workload_of_sequences_from_the_command_line(repository):
    done = run(repository, "rnn_past_value", "--rounds", "1", "--seconds", "0.05", "--threads", "1", "--no-parts", "--no-torch")
    assert done.returncode == 0, done.stderr
    (row,) = [cells(line) for line in done.stdout.splitlines() if line.startswith("| rnn_past_value") and "%" in line]
    assert float(row[1]) > 0 and float(row[8]) > 0  # milliseconds, floor
    assert float(row[12]) == pytest.approx(1920e3 / float(row[1]), rel=0.01)


@pytest.mark.parametrize(("name", "count", "low", "high"), [("lstm_speech", 16, 50, 200), ("rnn_past_value", 32, 20, 100)])
def test_minibatches_differ_in_lengths_but_not_in_frames(workloads, name, count, low, high):
    found = [workloads.lengths_of(name, i) for i in range(20)]
    assert len({lengths.tobytes() for lengths in found}) == 20
    assert all(len(lengths) == count and lengths.min() >= low and lengths.max() <= high for lengths in found)
    assert {int(lengths.sum()) for lengths in found} == {count * (low + high) // 2} == {workloads.samples_of(name)}
    frames, labels = workloads.data(name)(3)
    assert [len(a) for a in frames] == [len(a) for a in labels] == found[3].tolist()
    assert frames[0].shape[1:] == (workloads.SEQUENCES[name][1],)


def test_padding_grows_at_equal_frames(bench, workloads):
    points, shares = workloads.padding_points(), bench.padding_shares()
    assert [sum(lengths) for _, lengths in points] == [2048] * 7 + [512, 1024, 4096]
    assert shares[:4] == [0, 0.5, 0.75, 0.875] and shares[7:] == [0, 0, 0]
    assert 0.4 < shares[4] < shares[5] < shares[6] < 0.9
    assert all(min(lengths) > 0 for _, lengths in points)
    assert sorted(workloads.lengths_of("padding", 13)) == sorted(points[3][1])  # the points in turn


def test_padding_as_a_table_and_a_figure(bench, tmp_path):
    found = {
        "cogkit": record(20.0) | {"each_ms": [20.0 + i for i in range(10)]},
        "torch padded": record(99.0) | {"each_ms": [90.0] * 10},
    }
    head, _, *rows = bench.padding_table(found).splitlines()
    last = dict(zip(cells(head), cells(rows[3]), strict=True))
    assert last["lengths"] == "one long" and last["padding"] == "88%" and last["longest"] == "1024"
    assert last["cogkit ms"] == "23.0" and last["cogkit µs/frame"] == "11.2" and last["torch padded ms"] == "90.0"
    bench.padding_figure(found, tmp_path / "padding.svg")
    assert "</svg>" in (tmp_path / "padding.svg").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["padding.svg"]


def test_the_command_line_is_told_without_anybodys_paths(bench):
    said = bench._said(["--torch", "/home/a/bin/python", "--cntk=/home/b/cntk", "--rounds", "1", "mlp"])
    assert said == "--torch PYTHON --cntk=PYTHON --rounds 1 mlp"


def test_rounds_give_the_median_of_each_number(bench):
    rounds = [record(ms) | {"each_ms": [ms, 10 * ms]} for ms in (3.0, 1.0, 2.0)]
    found = bench._middle(rounds)
    assert found["ms"] == 2.0 and found["each_ms"] == [2.0, 20.0] and found["rounds_ms"] == [3.0, 1.0, 2.0]


def test_new_lengths_that_lower_again_are_told(bench):
    times = ["bind_new", "bind_first", "bind_again", "feed_new", "feed_again", "step_new", "step_again", "first_step"]
    found = dict.fromkeys((t + "_ms" for t in times), 1.0) | {"lowered_again": 0}
    assert "lowered again: no" in bench.parts_table({"lengths lstm_speech": found})
    assert "lowered again: YES, 3 times" in bench.parts_table({"lengths lstm_speech": found | {"lowered_again": 3}})


def test_parts_that_failed_are_named(bench):
    text = bench.parts_table({"peak": {"gflops": 99.6}, "executor": None})
    assert "100 GFLOP/s" in text and text.count("failed") >= 4


def test_results_are_written_under_machine_and_date(bench, tmp_path):
    machine = {"cpu": "Some(R) Xeon(R) CPU E5 @ 2.00GHz", "date": "2026-01-02"}
    path = bench.write("text\n", {"machine": machine}, tmp_path / "results")
    assert path.name == "some-xeon-e5-2026-01-02.md" and path.read_text() == "text\n"
    assert json.loads(path.with_suffix(".json").read_text())["machine"] == machine
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, path.with_suffix(".json").name])


def test_the_workloads_are_what_they_say(repository):
    """Parameters: ResNet-20 with two projections has 272,474."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); import workloads, cogkit as C\n"
    script += "for n in (*workloads.SIZES, *workloads.SEQUENCES): print(n, sum(p.value.size for p in workloads.build(C, n)[0].model.parameters))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(repository / "benchmarks")], capture_output=True, text=True, check=True
    )
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert counts["mlp"] == str(785 * 512 + 513 * 512 + 513 * 10)
    assert counts["resnet20"] == "272474"
    widths = [1, 64, 64, 128, 128, *[256] * 6]
    convolutions = sum((9 * a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
    assert counts["vgg13_fer"] == str(convolutions + 4097 * 1024 + 1025 * 1024 + 1025 * 8)
    assert counts["lstm_speech"] == str((80 + 512 + 2 * 1024 + 3) * 2048 + 513 * 500)
    assert counts["padding"] == str((80 + 512 + 1) * 2048 + 513 * 10)
    assert counts["rnn_past_value"] == str((40 + 256 + 1) * 256 + 257 * 50)


LIVE = """
import sys
sys.path.insert(0, sys.argv[1])
import cogkit as C, workloads
from cogkit.engine.feeds import bind_feeds
for name in ("mlp", "resnet20", "vgg13_fer"):
    trainer, feed = workloads.build(C, name)
    _, types, sizes = bind_feeds(feed(0))
    plan = trainer._make(()).executable.plan(types)
    arena = [b for b in plan.buffers if b.kind == "arena"]
    live = max(sum(b.bytes(sizes) for b in arena if b.first <= t <= b.last) for t in range(len(plan.steps)))
    print(name, plan.binding(sizes).scratch_at, live)
"""


def test_plans_take_what_lives_at_once_and_hardly_more(repository):
    done = subprocess.run(
        [sys.executable, "-c", LIVE, str(repository / "benchmarks")], capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines():
        name, arena, live = line.split()
        assert int(live) <= int(arena) <= 1.02 * int(live) + 4096, name
