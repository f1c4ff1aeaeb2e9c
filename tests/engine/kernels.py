"""Running a bound kernel on NumPy arrays, for the tests of the hand-written kernels."""

import contextlib

import numpy as np

from cogkit.engine.cpu import native

DTYPES = {"f4": np.float32, "f8": np.float64}


@contextlib.contextmanager
def threads(n):
    """Run the block with n OpenMP threads."""
    before = native.get_num_threads()
    native.set_num_threads(n)
    try:
        yield
    finally:
        native.set_num_threads(before)


def scratch_of(k):
    """64-byte aligned scratch full of NaN patterns."""
    raw = np.full(k.scratch + 64, 255, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + k.scratch]


def call(k, *buffers):
    """Bind the buffers (and scratch), run with two threads and with one: the same bytes; returns the buffers."""
    scratch = scratch_of(k)
    addresses = [b.ctypes.data for b in buffers] + ([scratch.ctypes.data] if k.scratch else [])
    before = [b.copy() for b in buffers]
    k.set_buffers(addresses)
    with threads(2):
        k.run()
    after = [b.tobytes() for b in buffers]
    for b, old in zip(buffers, before, strict=True):
        b[...] = old
    scratch[:] = 255
    with threads(1):
        k.run()
    assert after == [b.tobytes() for b in buffers]
    return buffers


def strides_of(a):
    """Strides of an array in elements."""
    return tuple(s // a.itemsize for s in a.strides)


def offset_of(view, base):
    """Where a view begins in its base, in elements."""
    return (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
