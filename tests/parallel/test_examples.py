"""The example of the README: alone, and on two ranks with each of the lines that it lists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "spirals.py"
TEXT = EXAMPLE.read_text(encoding="utf-8")
WRAPPERS = re.findall(r"^#   (C\..*?\))  +", TEXT, re.M)
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def run(*command):
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run([*map(str, command)], env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alone():
    assert re.search(r"^1 ranks: \d+\.\d % wrong$", run(sys.executable, EXAMPLE, 6400), re.M)


def test_six_lines_are_listed():
    assert len(WRAPPERS) == 6


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_one_line_makes_it_train_on_two_ranks(wrapper, tmp_path):
    if not MPIEXEC.exists():
        pytest.skip("no mpiexec beside this Python")
    script = tmp_path / "spirals.py"
    script.write_text(TEXT.replace("# On many ranks: wrap it, in\n", f"learner = {wrapper}\n"), encoding="utf-8")
    assert re.search(r"^2 ranks: \d+\.\d % wrong$", run(MPIEXEC, "-n", 2, sys.executable, "-m", "mpi4py", script, 16384), re.M)
