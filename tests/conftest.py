"""What all tests share: no window, no wall-clock limit on examples, the same examples on every run."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
# many small calls on shared cores: threads that spin while they wait only take the cores from others
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
settings.register_profile("cogkit", deadline=None, derandomize=True)
settings.load_profile("cogkit")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds setup.py."""
    return Path(__file__).resolve().parents[1]
