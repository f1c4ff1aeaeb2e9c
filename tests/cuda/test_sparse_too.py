"""All tests of sparse values once more, on the CUDA engine."""

import pytest
from test_sparse import *  # noqa: F403

import cogkit as C

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def on_the_gpu(cuda_environment):
    with C.device.use_engine("cuda"):
        yield
