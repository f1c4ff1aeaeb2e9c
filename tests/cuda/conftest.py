"""The CUDA engine on an emulated driver, so that its tests run on machines without a GPU (COGKIT_CUDA_TESTS=real: on the real one)."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REAL = os.environ.get("COGKIT_CUDA_TESTS") == "real"

# By its path: a package `cuda` is NVIDIA's.
_spec = importlib.util.spec_from_file_location("cuda_emulation", HERE / "emulation" / "build.py")
emulation = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(emulation)


@pytest.fixture(scope="session")
def cuda_driver():
    """The emulated driver, loaded before PyCUDA asks for libcuda.so.1, and the environment that it wants; (None, {}) for the real one."""
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("needs PyCUDA, which is not installed here (make .venv/pycuda says why)")
    if REAL:
        return None, {}
    try:
        fake = emulation.Fake(emulation.build())
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(f"the emulated CUDA driver cannot be built: {error}")
    return fake, emulation.environment(fake.path)


@pytest.fixture(scope="module", autouse=True)
def cuda_environment(cuda_driver):
    """What a process (this one and those that tests start) needs to use the driver; for tests of other folders there is no GPU."""
    fake, variables = cuda_driver
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables
        if fake:
            fake.set(DEVICES=0)


@pytest.fixture(autouse=True)
def _as_new(cuda_driver, cuda_environment):
    if cuda_driver[0]:
        cuda_driver[0].reset()


@pytest.fixture
def fake(cuda_driver):
    """The emulated driver: its counters and switches; a test that wants it does not run on the real driver."""
    if cuda_driver[0] is None:
        pytest.skip("of the emulated driver")
    return cuda_driver[0]


def pytest_collection_modifyitems(items):
    """What asks whether all kernels have been launched runs last, and only where all files of this folder run."""
    mine = {i.path.name for i in items if i.path.parent == HERE}
    last = [i for i in items if i.path.name == "test_every_kernel.py"]
    if last and mine >= {p.name for p in HERE.glob("test_*.py")}:
        items[:] = [i for i in items if i not in last] + last
    elif last:
        for i in last:
            i.add_marker(pytest.mark.skip(reason="asks about all files of tests/cuda"))
