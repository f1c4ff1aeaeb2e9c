"""The tests of indices that name no row, on the CUDA engine."""

import pytest
from engine import test_indices as shared

import cogkit as C


@pytest.fixture
def engine():
    with C.device.use_engine("cuda"):
        yield "cuda"


for _name in dir(shared):
    if _name.startswith("test_") and "slices" not in _name:
        globals()[_name] = getattr(shared, _name)
