"""What all tests share: no window, no wall-clock limit on examples, the same examples on every run."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # many small calls on shared cores: threads that spin only take them from others
settings.register_profile("cogkit", deadline=None, derandomize=True)
settings.load_profile("cogkit")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds setup.py."""
    return Path(__file__).resolve().parents[1]
