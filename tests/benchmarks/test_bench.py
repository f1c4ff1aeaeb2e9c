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


def record(ms, cpu=None, peak=100.0, imported=30.0):
    return {"ms": ms, "cpu_ms": cpu or 2 * ms, "steps": 9, "loss_first": 2.3, "loss_last": 2.2, "ready_s": 1.0, "import_mib": imported,
            "peak_mib": peak, "version": "1"}  # fmt: skip


def cells(line):
    return [c.strip() for c in line.strip("|").split("|")]


def test_one_workload_from_the_command_line(repository):
    done = run(repository, "mlp", "--rounds", "1", "--seconds", "0.05", "--threads", "1", "--no-parts")
    assert done.returncode == 0, done.stderr
    (row,) = [cells(line) for line in done.stdout.splitlines() if line.startswith("| mlp") and "%" in line]
    assert float(row[1]) > 0 and row[2] == "-" and float(row[6]) > 0
    assert importlib.util.find_spec("torch") or "pip install torch==2.13.0" in done.stdout


def test_a_torch_that_is_not_there_is_told_and_the_rest_runs(repository):
    done = run(repository, "mlp", "--rounds", "1", "--seconds", "0.05", "--threads", "1", "--no-parts", "--torch", sys.executable)
    if importlib.util.find_spec("torch"):
        pytest.skip("this Python has torch")
    assert done.returncode == 0 and "| mlp" in done.stdout
    assert "mlp torch eager 1/1: ModuleNotFoundError: No module named 'torch'" in done.stdout


def test_an_unknown_workload_is_refused(repository):
    done = run(repository, "mnist")
    assert done.returncode == 2 and "expected workloads of mlp, resnet20, vgg13_fer, got mnist" in done.stderr


@pytest.mark.parametrize("part", ["executor", "overhead mlp", "lowering mlp", "profile mlp"])
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


def test_a_variant_that_failed_is_left_out(bench):
    _, _, row = bench.speed_table({"mlp": {"torch eager": record(8.0)}}, 100.0).splitlines()
    assert cells(row)[:2] == ["mlp", "failed"]
    _, _, row = bench.speed_table({"mlp": {"cogkit": record(2.0)}}, None).splitlines()
    assert cells(row)[2:8] == ["-"] * 6


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
    script += "for n in ('mlp', 'resnet20', 'vgg13_fer'): print(n, sum(p.value.size for p in workloads.build(C, n)[0].model.parameters))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(repository / "benchmarks")], capture_output=True, text=True, check=True
    )
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert counts["mlp"] == str(785 * 512 + 513 * 512 + 513 * 10)
    assert counts["resnet20"] == "272474"
    widths = [1, 64, 64, 128, 128, *[256] * 6]
    convolutions = sum((9 * a + 1) * b for a, b in zip(widths, widths[1:], strict=False))
    assert counts["vgg13_fer"] == str(convolutions + 4097 * 1024 + 1025 * 1024 + 1025 * 8)


LIVE = """
import sys
sys.path.insert(0, sys.argv[1])
import cogkit as C, workloads
from cogkit.engine.values import bind_feeds
for name in ("mlp", "resnet20", "vgg13_fer"):
    trainer, feeds = workloads.build(C, name)
    _, types, sizes = bind_feeds(feeds[0])
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
