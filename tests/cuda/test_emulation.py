"""The emulation itself: it runs kernels, streams and graphs as a GPU does, and finds what a GPU would not forgive."""

import numpy as np
import pytest

from cogkit.engine.cuda import device, driver, images

SCALE = """
#include "common.cuh"
CG_KERNEL(scale, const float *x, float *y, float a, int64_t n) { CG_EACH(i, n) y[i] = a * x[i]; }
"""


def kernel(name, text):
    """The handle of a kernel of a text, for the device whose context is current."""
    return driver.Module(images.compiled(name, text, device.current().arch), name).function(name)


@pytest.fixture
def gpu(fake):
    found = device.device()
    with found.active():
        yield found


def put(gpu, array):
    """A block of the device with an array's values."""
    memory = gpu.alloc(array.nbytes)
    gpu.write(memory.address, array)
    return memory


def test_a_kernel_runs_at_once_and_in_a_graph(gpu, fake):
    x = np.arange(1000, dtype=np.float32)
    a, b = put(gpu, x), gpu.alloc(x.nbytes)
    launch = driver.Launch(
        "scale", kernel("scale", SCALE), (4,), (64,), [driver.B(0), driver.B(1), np.float32(2), np.int64(x.size)]
    )
    launch.set_buffers([a.address, b.address])
    commands = driver.Commands([launch])
    commands.run(gpu.stream_handle)
    np.testing.assert_array_equal(gpu.read(b.address, x.shape, x.dtype), 2 * x)
    before = fake.counts()
    graph = driver.Graph(commands, gpu.stream_handle)
    gpu.write(a.address, x + 1)
    np.testing.assert_array_equal(gpu.read(b.address, x.shape, x.dtype), 2 * x)
    for _ in range(3):
        graph.run(gpu.stream_handle)
    np.testing.assert_array_equal(gpu.read(b.address, x.shape, x.dtype), 2 * x + 2)
    after = fake.counts()
    assert after["captured"] - before["captured"] == 1 and after["graph_launches"] - before["graph_launches"] == 3
