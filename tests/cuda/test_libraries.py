"""cuBLASLt, cuDNN and NCCL: our soft links on stand-ins of the libraries, against NumPy; where NVIDIA's packages are, against their headers."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cuda.conftest import REAL
from cuda.fakes import API, VARIABLES, build
from cuda.ranks import check

import cogkit as C
from cogkit.engine.cuda import cublaslt, cudnn, cudnn_graphs, cudnn_rnn, libraries, nccl
from cogkit.engine.cuda.device import device
from cogkit.engine.cuda.driver import B, Commands, Graph
from cogkit.errors import DeviceError, RankError

SCRATCH = B(-1)
FLOATS = {"f4": np.float32, "f8": np.float64, "f2": np.float16, "b2": np.uint16}
TOLERANCE = {"f4": 2e-6, "f8": 1e-14, "f2": 2e-3, "b2": 1e-2}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    """The stand-ins in the places of the libraries; on a machine with a GPU the libraries themselves."""
    with pytest.MonkeyPatch.context() as patch:
        if not REAL:
            folder = API.parents[2] / "build" / "cuda_fakes"
            for name, variable in VARIABLES.items():
                patch.setenv(variable, str(build(name, folder)))
        libraries.forget()
        yield
    libraries.forget()


@pytest.fixture(scope="module")
def gpu(fakes, cuda_driver):
    """The device, its context this thread's."""
    d = device()
    with d.active():
        yield d


def to_bytes(x, dtype):
    """An array in a type of the libraries; bfloat16 as its bits."""
    if dtype != "b2":
        return np.ascontiguousarray(x, FLOATS[dtype])
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_floats(x, dtype):
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) if dtype == "b2" else x.astype(np.float64)


class Buffers:
    """Buffers on the device: arrays in, then what they hold."""

    def __init__(self, gpu, arrays, scratch=0):
        self.gpu, self.arrays = gpu, arrays
        self.memory = [gpu.alloc(a.nbytes) for a in arrays]
        for m, a in zip(self.memory, arrays, strict=True):
            gpu.write(m.address, a)
        self.memory.append(gpu.alloc(max(scratch, 1)))
        self.addresses = [m.address for m in self.memory]

    def read(self, i):
        return self.gpu.read(self.addresses[i], self.arrays[i].shape, self.arrays[i].dtype)


def run(gpu, command, buffers, way="eager"):
    """Runs a command; 'graph': captured and replayed."""
    command.set_buffers(buffers.addresses)
    commands = Commands([command])
    if way == "graph":
        Graph(commands, gpu.stream_handle).run(gpu.stream_handle)
    else:
        commands.run(gpu.stream_handle)
    gpu.finish()


# where libraries are --------------------------------------------------------------------------------------------------------------


def python(code, **environment):
    """Output of a Python of its own, without the libraries and the driver of this one."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("COGKIT_LIB")}
    done = subprocess.run([sys.executable, "-c", code], env={**given, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["cublaslt", "cudnn", "nccl"])
def test_without_the_library(name):
    code = f"from cogkit.engine.cuda import {name} as m; print(m.available(), m.why_not())"
    known = libraries.KNOWN[name]
    assert python(code, **{known.variable: "none"}) == f"False {known.title}: not used, for ${known.variable} is none"
    said = python(code, **{known.variable: "/nowhere/lib.so"})
    assert said.startswith(f"False {known.title}: expected the library that ${known.variable} names, got none (/nowhere/lib.so")
    said = python(code, COGKIT_LIBCUDA="/nowhere")
    assert said.startswith(f"False {known.title}: expected ")


def test_search_order(tmp_path, fakes):
    """Packages beside Python's own, the newest CUDA that the driver runs; a library that is loaded already goes before them."""
    fake = build("cublaslt", API.parents[2] / "build" / "cuda_fakes")
    for package, name in (("cu12", "libcublasLt.so.12"), ("cu13", "libcublasLt.so.13")):
        (tmp_path / "nvidia" / package / "lib").mkdir(parents=True)
        (tmp_path / "nvidia" / package / "lib" / name).symlink_to(fake)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from cogkit.engine.cuda import libraries as l\n"
        "l.driver_version = lambda: VERSION\n"
        "print(l.find('cublaslt').path, l.find('cublaslt').version, l.versions()['cuBLASLt'])"
    )
    for version, name in (
        (0, "cu13/lib/libcublasLt.so.13"),
        (13000, "cu13/lib/libcublasLt.so.13"),
        (12080, "cu12/lib/libcublasLt.so.12"),
    ):
        path = str(tmp_path / "nvidia" / name)
        assert python(code.replace("VERSION", str(version))) == f"{path} 13.1.0 13.1.0 ({path})"


def test_library_for_a_newer_driver():
    library = libraries.Library(libraries.KNOWN["cublaslt"], "lib.so", ctypes.CDLL(None))
    with pytest.raises(DeviceError, match="expected a driver for CUDA 99 or later, got one for"):
        library.runs_on(99000)
    with pytest.raises(DeviceError, match=r"cuBLASLt \(lib.so\): expected a version with cublasLtNothing, got an older one"):
        library.address("cublasLtNothing")


@pytest.mark.parametrize("name, title", [("cublaslt", "cuBLASLt"), ("cudnn", "cuDNN")])
def test_without_a_gpu(name, title, fakes):
    """The library is there and no GPU: it says so once, and is not asked again."""
    fake = build(name, API.parents[2] / "build" / "cuda_fakes")
    code = f"from cogkit.engine.cuda import {name} as m; print(m.why_not()); assert m.why_not() and not m.available()"
    said = python(code, **{VARIABLES[name]: str(fake), "COGKIT_LIBCUDA": "/nowhere"})
    assert said.startswith(f"{title}: expected a handle on this GPU, got CU")


# cuBLASLt -------------------------------------------------------------------------------------------------------------------------

PRODUCTS = [  # m, n, k, batch, a transposed, b transposed
    (5, 7, 3, 1, False, False),
    (5, 7, 3, 1, True, False),
    (5, 7, 3, 1, False, True),
    (4, 6, 8, 1, True, True),
    (1, 9, 5, 1, False, False),
    (8, 1, 16, 3, False, True),
    (3, 4, 5, 4, True, False),
]


def product(a, b, bias, relu, added):
    y = a @ b
    y = y + bias if bias is not None else y
    y = y + added if added is not None else y
    return np.maximum(y, 0) if relu else y


@pytest.mark.parametrize("dtype", list(FLOATS))
@pytest.mark.parametrize("m, n, k, batch, ta, tb", PRODUCTS)
def test_matmul(gpu, dtype, m, n, k, batch, ta, tb):
    random = np.random.default_rng(m + n)
    a, b = random.standard_normal((batch, m, k)), random.standard_normal((batch, k, n))
    bias, added = random.standard_normal(n), random.standard_normal((batch, m, n))
    stored = [a.swapaxes(1, 2) if ta else a, b.swapaxes(1, 2) if tb else b, np.zeros((batch, m, n)), bias, added]
    arrays = [to_bytes(x, dtype) for x in stored]
    a, b, _, bias, added = (to_floats(x, dtype) for x in arrays)
    a, b = a.swapaxes(1, 2) if ta else a, b.swapaxes(1, 2) if tb else b
    buffers = Buffers(gpu, arrays)
    for with_bias, relu, with_added in itertools.product((False, True), repeat=3):
        call = cublaslt.matmul(B(0), B(1), B(2), m, n, k, dtype=dtype, batch=batch, transpose_a=ta, transpose_b=tb, relu=relu,
                               bias=B(3) if with_bias else None, added=B(4) if with_added else None)  # fmt: skip
        if dtype == "f8" and (with_bias or relu):  # not in the library
            assert call is None or REAL
            continue
        buffers.memory[-1] = gpu.alloc(max(call.scratch, 1))
        buffers.addresses[-1] = buffers.memory[-1].address
        want = product(a, b, bias if with_bias else None, relu, added if with_added else None)
        for way, command in (("eager", call), ("graph", call.clone())):
            run(gpu, command, buffers, way)
            np.testing.assert_allclose(to_floats(buffers.read(2), dtype), want, atol=TOLERANCE[dtype] * 8, rtol=TOLERANCE[dtype])


def test_matmul_inside_others(gpu):
    """Leading dimensions, an operand that all of a batch share, tf32, and operands at odd places: the way is chosen again for these."""
    random = np.random.default_rng(0)
    a, b, y = (random.standard_normal(s).astype("f4") for s in ((3, 4, 9), (7, 11), (3, 4, 8)))
    call = cublaslt.MatMul(
        B(0), B(1, 4), B(2, 8), 4, 5, 6, batch=3, lda=9, ldb=11, ldc=8, batch_a=36, batch_b=0, batch_c=32, tf32=True
    )
    assert repr(call) == "cublaslt_f4_4x5x6x3 tf32"
    buffers = Buffers(gpu, [a, b, y], call.scratch)
    run(gpu, call, buffers)
    want = y.copy()
    want[:, :, 2:7] = a[:, :, :6] @ b[:6, 1:6]
    np.testing.assert_allclose(buffers.read(2), want, rtol=1e-2 if REAL else 1e-5, atol=1e-2 if REAL else 1e-6)
    buffers.addresses[0] += 4  # a is aligned to 4 bytes only
    run(gpu, call, buffers, "graph")
    want[:, :, 2:7] = np.roll(a.reshape(-1), -1).reshape(a.shape)[:, :, :6] @ b[:6, 1:6]
    np.testing.assert_allclose(buffers.read(2), want, rtol=1e-2 if REAL else 1e-5, atol=1e-2 if REAL else 1e-6)


def test_matmul_words(gpu):
    """The steps of a recurrence write addresses themselves, aligned as it comes; a bias's is kept by the library."""
    random = np.random.default_rng(0)
    a, b, y = (random.standard_normal(s).astype("f4") for s in ((5, 3), (3, 2), (5, 2)))
    call = cublaslt.MatMul(B(0), B(1), B(2), 1, 2, 3)
    buffers = Buffers(gpu, [a, b, y], call.scratch)
    commands = Commands([call])
    for t in range(5):
        for at, slot, offset in call.words:
            address = buffers.addresses[slot] + offset + {0: 12 * t, 2: 8 * t}.get(slot, 0)
            ctypes.c_uint64.from_address(at).value = address
        commands.run(gpu.stream_handle)
    gpu.finish()
    np.testing.assert_allclose(buffers.read(2), a @ b, rtol=1e-5, atol=1e-6)
    assert cublaslt.MatMul(B(0), B(1), B(2), 1, 2, 3, bias=B(1)).words is None


@pytest.mark.skipif(REAL, reason="asks the stand-in")
def test_matmul_scratch(gpu, monkeypatch):
    monkeypatch.setenv("FAKE_CUBLASLT_SCRATCH", "4096")
    a = np.eye(3, dtype="f4")
    call = cublaslt.MatMul(B(0), B(1), B(2), 3, 3, 3)
    assert call.scratch == 4096
    buffers = Buffers(gpu, [a, 2 * a, a], call.scratch)
    run(gpu, call.clone(), buffers)
    np.testing.assert_array_equal(buffers.read(2), 2 * a)
    assert cublaslt.matmul(B(0), B(1), B(2), 3, 3, 3, workspace=1024) is None
    with pytest.raises(
        DeviceError, match="cuBLASLt: expected a way to compute cublaslt_f4_3x3x3, got CUBLAS_STATUS_NOT_SUPPORTED"
    ):
        cublaslt.MatMul(B(0), B(1), B(2), 3, 3, 3, workspace=1024)


def test_matmul_refuses(gpu):
    with pytest.raises(ValueError, match="expected sizes of at least one, got m=0"):
        cublaslt.matmul(B(0), B(1), B(2), 0, 3, 3)
    with pytest.raises(ValueError, match="expected one of f4, f8, f2, b2, got i4"):
        cublaslt.matmul(B(0), B(1), B(2), 1, 3, 3, dtype="i4")
    call = cublaslt.MatMul(B(0), B(1), B(2), 3, 3, 3)
    assert "CUBLAS_STATUS_INVALID_VALUE" in call.explain(-7)
    with pytest.raises(DeviceError, match="expected a way to compute"):  # rows that overlap
        cublaslt.MatMul(B(0), B(1), B(2), 3, 3, 3, lda=2)


@pytest.mark.skipif(REAL, reason="the stand-in knows where memory of the device is")
def test_matmul_outside_memory(gpu):
    a = np.eye(3, dtype="f4")
    call = cublaslt.MatMul(B(0), B(1), B(2), 300, 3, 300)
    with pytest.raises(DeviceError, match="cublaslt_f4_300x3x300"):
        run(gpu, call, Buffers(gpu, [a, a, a]))


# cuDNN ----------------------------------------------------------------------------------------------------------------------------

IMAGES = {  # x, w (of one group), strides, dilation, lo, hi, groups
    "1d": ((2, 3, 9), (4, 3, 3), (2,), (1,), (1,), (1,), 1),
    "2d": ((2, 4, 6, 5), (6, 4, 3, 2), (1, 1), (1, 1), (1, 0), (1, 1), 1),
    "strided": ((2, 3, 8, 8), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1), (0, 0), 1),
    "groups": ((1, 6, 5, 5), (4, 3, 3, 3), (1, 1), (2, 2), (2, 2), (2, 2), 2),
    "depthwise": ((2, 4, 5, 5), (4, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 4),
    "3d": ((1, 2, 4, 5, 4), (3, 2, 2, 3, 3), (2, 1, 1), (1, 1, 1), (0, 1, 1), (0, 1, 1), 1),
}


def image_size(x, w, strides, dilation, lo, hi):
    sizes = zip(x[2:], w[2:], strides, dilation, lo, hi, strict=True)
    return tuple((n + a + b - (k - 1) * d - 1) // t + 1 for n, k, t, d, a, b in sizes)


def correlate(x, w, dy, strides, dilation, lo, hi, groups):
    """y = x * w, and the gradients of sum(y dy) to x and w."""
    padded = np.pad(x, [(0, 0), (0, 0), *zip(lo, hi, strict=True)])
    y, dpadded, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(w.shape)
    c, o = w.shape[1], w.shape[0] // groups
    for place in itertools.product(*map(range, w.shape[2:])):
        cut = tuple(
            slice(p * d, p * d + (n - 1) * t + 1, t) for p, d, t, n in zip(place, dilation, strides, dy.shape[2:], strict=True)
        )
        for g in range(groups):
            window = (slice(None), slice(g * c, (g + 1) * c), *cut)
            outs = slice(g * o, (g + 1) * o)
            weights = w[(outs, slice(None), *place)]
            y[:, outs] += np.einsum("nc...,oc->no...", padded[window], weights)
            dpadded[window] += np.einsum("no...,oc->nc...", dy[:, outs], weights)
            flat = [v.reshape(*v.shape[:2], -1) for v in (padded[window], dy[:, outs])]
            dw[(outs, slice(None), *place)] = np.einsum("ncs,nos->oc", *flat)
    inside = tuple(slice(a, a + n) for a, n in zip(lo, x.shape[2:], strict=True))
    return y, dpadded[(slice(None), slice(None), *inside)], dw


def lay(x, layout):
    return np.moveaxis(x, 1, -1) if layout == "last" else x


def unlay(x, shape, layout):
    return np.moveaxis(x.reshape(shape[0], *shape[2:], shape[1]), -1, 1) if layout == "last" else x.reshape(shape)


@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize("dtype", list(FLOATS))
@pytest.mark.parametrize("name", list(IMAGES))
def test_convolution(gpu, name, dtype, layout):
    xs, ws, *geometry, groups = IMAGES[name]
    ys = (xs[0], ws[0], *image_size(xs, ws, *geometry))
    random = np.random.default_rng(len(name))
    x, w, dy, bias = (to_bytes(random.standard_normal(s), dtype) for s in (xs, ws, ys, ws[:1]))
    values = [to_floats(v, dtype) for v in (x, w, dy)]
    y, dx, dw = correlate(*values, *geometry, groups)
    layouts = dict.fromkeys(("x_layout", "w_layout", "y_layout"), layout)
    b = to_floats(bias, dtype).reshape(-1, *[1] * (len(xs) - 2))
    cases = [
        ("forward", [x, w, dy], y, {}),
        ("forward", [x, w, bias, dy], y + b, {"bias": True}),
        ("forward", [x, w, bias, dy], np.maximum(y + b, 0), {"bias": True, "relu": True}),
        ("forward", [x, w, dy], np.maximum(y, 0), {"relu": True}),
        ("backward_data", [dy, w, x], dx, {}),
        ("backward_weights", [x, dy, w], dw, {}),
    ]
    for kind, arrays, want, options in cases:
        call = cudnn_graphs.convolution(kind, xs, ws, ys, *geometry, groups, dtype=dtype, **layouts, **options)
        if call is None and REAL:  # no engine for it
            continue
        arrays = [np.ascontiguousarray(lay(v, layout)) if v.ndim > 1 else v for v in arrays]
        buffers = Buffers(gpu, arrays, call.scratch)
        for way, command in (("eager", call), ("graph", call.clone())):
            buffers.gpu.write(buffers.addresses[len(arrays) - 1], np.full_like(arrays[-1], 1))
            run(gpu, command, buffers, way)
            got = unlay(to_floats(buffers.read(len(arrays) - 1), dtype), want.shape, layout)
            np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * 30, rtol=TOLERANCE[dtype])


SQUARE = ("forward", (1, 2, 4, 4), (2, 2, 3, 3), (1, 2, 4, 4), (1, 1), (1, 1), (1, 1), (1, 1))


@pytest.mark.skipif(REAL, reason="asks the stand-in for its engines")
def test_choice_of_engine(gpu, monkeypatch):
    """The same bits, no sums in half precision, tensor cores in float32 only where asked for; what this GPU has not goes by."""
    K = cudnn.NUMBERS

    def engines(**options):
        g = cudnn_graphs.Geometry(*SQUARE, **options)
        return [p.name.rsplit("_", 1)[1] for p in cudnn_graphs.convolution_plans(g, cudnn_graphs.Live(), 8)]

    assert engines() == ["1"]
    assert engines(tf32=True) == ["11", "1"]
    assert engines(deterministic=False) == ["10", "1"]
    assert engines(dtype="f2") == engines(dtype="b2") == ["14", "1"]
    monkeypatch.setenv("FAKE_CUDNN_SCRATCH", "8192")
    g = cudnn_graphs.Geometry(*SQUARE, dtype="f2", scratch=4096)
    assert cudnn_graphs.convolution_plans(g, cudnn_graphs.Live()) == []
    assert cudnn_graphs.convolution(*SQUARE, dtype="f2", scratch=4096) is None
    call = cudnn_graphs.convolution(*SQUARE, dtype="f2", scratch=8192, rank=1)
    assert (call.scratch, call.name, call.notes) == (8192, "cudnn_conv_f2_1", ())
    buffers = Buffers(gpu, [np.ones(s, "f2") for s in SQUARE[1:4]], call.scratch)
    run(gpu, call, buffers)
    assert buffers.read(2).max() == 18
    assert K.ATTR_TENSOR_UNIQUE_ID == 906


def test_convolution_at_odd_places(gpu):
    """Operands that begin where they are aligned to four bytes only: told by the buffers, or found when they are bound."""
    x, w = np.arange(33, dtype="f4").reshape(-1), np.ones((2, 2, 3, 3), "f4")
    want, *_ = correlate(x[1:].reshape(1, 2, 4, 4).astype("f8"), w.astype("f8"), np.zeros((1, 2, 4, 4)), *SQUARE[4:], 1)
    for first, moved in ((B(0, 4), 0), (B(0), 4)):
        call = cudnn_graphs.convolution(*SQUARE, buffers=[first, B(1), B(2)])
        buffers = Buffers(gpu, [x, w, np.zeros((1, 2, 4, 4), "f4")], call.scratch)
        buffers.addresses[0] += moved
        run(gpu, call, buffers)
        np.testing.assert_allclose(buffers.read(2), want)


def test_convolution_refuses(gpu):
    kind, x, w, y, *rest = SQUARE
    with pytest.raises(
        ValueError, match=r"expected an output \(1, 2, 4, 4\) of \(1, 2, 4, 4\) and \(2, 2, 3, 3\), got \(1, 2, 4, 5\)"
    ):
        cudnn_graphs.convolution(kind, x, w, (1, 2, 4, 5), *rest)
    with pytest.raises(ValueError, match="expected shapes of one to three spatial axes"):
        cudnn_graphs.convolution(kind, x, w[:3], y, *rest)
    with pytest.raises(ValueError, match="expected sizes of at least one and f4, f8, f2 or b2"):
        cudnn_graphs.convolution(kind, (0, *x[1:]), w, (0, *y[1:]), *rest)
    with pytest.raises(ValueError, match="bias and relu of 'forward' only"):
        cudnn_graphs.convolution("backward_data", x, w, y, *rest, relu=True)
    call = cudnn_graphs.convolution(*SQUARE)
    assert "CUDNN_STATUS_NOT_SUPPORTED" in call.explain(-cudnn.NUMBERS.STATUS_NOT_SUPPORTED)


@pytest.mark.skipif(REAL, reason="the stand-in knows where memory of the device is")
def test_convolution_outside_memory(gpu):
    call = cudnn_graphs.convolution("forward", (9, 2, 4, 4), (2, 2, 3, 3), (9, 2, 4, 4), (1, 1), (1, 1), (1, 1), (1, 1))
    with pytest.raises(DeviceError, match="cuDNN: cudnn_conv_f4_1: CUDNN_STATUS_EXECUTION_FAILED"):
        run(gpu, call, Buffers(gpu, [np.ones(s, "f4") for s in SQUARE[1:4]]))


def test_descriptors_refuse(gpu):
    K = cudnn.NUMBERS
    tensor = cudnn.Descriptor(K.BACKEND_TENSOR_DESCRIPTOR)
    with pytest.raises(DeviceError, match="cuDNN: expected attribute 906, got CUDNN_STATUS_BAD_PARAM"):
        tensor.set(K.ATTR_TENSOR_UNIQUE_ID, K.TYPE_FLOAT, 1.0)
    with pytest.raises(DeviceError, match="cuDNN: expected a tensor, got CUDNN_STATUS_BAD_PARAM"):
        tensor.finalize("a tensor")


@pytest.mark.skipif(REAL, reason="asks the stand-in")
def test_old_cudnn():
    fake = build("cudnn", API.parents[2] / "build" / "cuda_fakes")
    code = "from cogkit.engine.cuda import cudnn; print(cudnn.why_not())"
    said = python(code, COGKIT_LIBCUDNN=str(fake), FAKE_CUDNN_VERSION="8907")
    assert said == f"cuDNN ({fake}): expected version 9, got 8.9.7; install nvidia-cudnn-cu13"


LENGTHS = [5, 3, 3, 1]  # of sequences, as a plan sorts them


def packed(sequences):
    """Rows step by step, the sequences that are still there."""
    return np.concatenate([np.stack([s[t] for s in sequences if len(s) > t]) for t in range(len(sequences[0]))])


def recurrent(cell, x, w, dy, size, layers, bidirectional):
    """y, dx, dw of a stack by the CPU engine; x, dy: lists of sequences."""
    v = C.sequence.input_variable(x[0].shape[1], needs_gradient=True)
    weights = C.parameter(w.shape, init=w)
    operation = {"tanh": "rnnTanh", "relu": "rnnReLU"}.get(cell, cell)
    y = C.optimized_rnnstack(v, weights, size, layers, bidirectional, operation)
    slope = C.sequence.input_variable(dy[0].shape[1])
    loss = C.reduce_sum(y * slope)
    found = loss.grad({v: x, slope: dy}, wrt=[v, weights], outputs=[y.output])
    return packed(found[1]), packed(found[0][v]), np.asarray(found[0][weights])


@pytest.mark.parametrize("layers, bidirectional", [(1, False), (2, True), (3, False)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu"])
def test_recurrent_stack(gpu, cell, layers, bidirectional):
    """Forward and both passes back, against the same stack on the CPU, in a graph too."""
    inputs, size = 3, 4
    stack = cudnn_rnn.stack(cell, inputs, size, LENGTHS, layers=layers, bidirectional=bidirectional)
    random = np.random.default_rng(layers)
    width = size * (1 + bidirectional)
    x, dy = ([random.standard_normal((n, k)).astype("f4") for n in LENGTHS] for k in (inputs, width))
    w = (random.standard_normal(stack.weights) / 2).astype("f4")
    y, dx, dw = recurrent(cell, x, w, dy, size, layers, bidirectional)
    arrays = [packed(x), w, packed(dy), np.zeros_like(y), np.zeros_like(dx), np.full_like(dw, 0.5), np.zeros(stack.reserve, "u1")]
    commands = [
        stack.forward(B(0), B(1), B(3), B(6)),
        stack.backward_data(B(3), B(2), B(1), B(4), B(6)),
        stack.backward_weights(B(0), B(3), B(5), B(6)),
    ]
    for way in ("eager", "graph"):
        buffers = Buffers(gpu, arrays, stack.scratch)
        for c in commands:
            c.set_buffers(buffers.addresses)
        made = Commands(commands)
        (made if way == "eager" else Graph(made, gpu.stream_handle)).run(gpu.stream_handle)
        gpu.finish()
        for i, want in ((3, y), (4, dx), (5, dw + 0.5)):
            np.testing.assert_allclose(buffers.read(i), want, rtol=1e-4, atol=1e-5)
        commands = [c.clone() for c in commands]
    only = stack.forward(B(0), B(1), B(3))  # nothing kept
    run(gpu, only, buffers)
    np.testing.assert_allclose(buffers.read(3), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f8", "f2", "b2"])
def test_recurrent_stack_in_other_types(gpu, dtype):
    stack = cudnn_rnn.stack("lstm", 2, 3, [2, 1], dtype=dtype, persistent=dtype == "f2")
    if stack is None and REAL:
        pytest.skip(f"no stack in {dtype}")
    random = np.random.default_rng(0)
    x, w = random.standard_normal((3, 2)), random.standard_normal(stack.weights) / 2
    given = [to_bytes(v, dtype) for v in (x, w, np.zeros((3, 3)))]
    buffers = Buffers(gpu, given, stack.scratch)
    call = stack.forward(B(0), B(1), B(2))
    run(gpu, call, buffers)
    x, w = (to_floats(v, dtype) for v in given[:2])
    x, w = x.astype("f4"), w.astype("f4")
    want, *_ = recurrent("lstm", [x[[0, 2]], x[[1]]], w, [np.ones((n, 3), "f4") for n in (2, 1)], 3, 1, False)
    np.testing.assert_allclose(to_floats(buffers.read(2), dtype), want, rtol=1e-2 if dtype != "f8" else 1e-5, atol=1e-3)


def test_recurrent_stack_refuses(gpu, monkeypatch):
    with pytest.raises(ValueError, match=r"expected lengths of at least one, longest first, got \[1, 2\]"):
        cudnn_rnn.stack("lstm", 2, 3, [1, 2])
    with pytest.raises(ValueError, match="expected lstm, gru, tanh, relu, sizes of at least one and f4, f8, f2, b2, got lstm, 0"):
        cudnn_rnn.stack("lstm", 0, 3, [2, 1])
    if REAL:
        return
    assert cudnn_rnn.stack("lstm", 2, 3, [2, 1], dtype="f8", persistent=True) is None
    monkeypatch.setenv("FAKE_CUDNN_RNN_GAP", "64")
    assert cudnn_rnn.stack("lstm", 2, 3, [2, 1]) is None
    monkeypatch.delenv("FAKE_CUDNN_RNN_GAP")
    stack = cudnn_rnn.stack("lstm", 2, 3, [2, 1])
    monkeypatch.setenv("COGKIT_LIBCUDNN", "none")
    libraries.forget()
    assert cudnn_rnn.stack("lstm", 2, 3, [2, 1]) is None
    monkeypatch.undo()
    libraries.forget()
    with pytest.raises(DeviceError, match="cuDNN: cudnn_lstm_f4_2x3: CUDNN_STATUS_EXECUTION_FAILED"):
        run(gpu, stack.forward(B(0), B(1), B(2)), Buffers(gpu, [np.zeros(1, "f4")] * 3, stack.scratch))


def test_description_of_the_device(gpu):
    assert "deviceVer" in json.loads(cudnn.device_json())


def test_plans_of_the_zoo():
    """cuDNN itself finishes a plan for every convolution of the zoo, for a GPU that it knows by its description."""
    from cuda import zoo_plans

    if not libraries.packaged("libcudnn.so.9"):
        pytest.skip("needs cuDNN, which no package here brings (pip install nvidia-cudnn-cu13)")
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES.values() and k != "COGKIT_LIBCUDA"}
    done = subprocess.run([sys.executable, zoo_plans.__file__], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    made = {line.split(":")[0]: int(line.split()[1]) for line in done.stdout.splitlines()[1:]}
    assert set(made) == set(zoo_plans.MODELS) and sum(made.values()) > 400, done.stdout


# NCCL -----------------------------------------------------------------------------------------------------------------------------


def test_collectives_alone(gpu):
    assert check(gpu, nccl.unique_id(), 0, 1) == "ok"


def ranks(what, size, **environment):
    """What the ranks of a group say, each a process with a GPU."""
    from cuda import ranks as script

    identity = nccl.unique_id().hex()
    run = [
        subprocess.Popen([sys.executable, script.__file__, identity, str(r), str(size), what], env={**os.environ, **environment},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for r in range(size)
    ]  # fmt: skip
    done = [p.communicate(timeout=300) for p in run]
    assert [p.returncode for p in run] == [0] * size, "\n".join(err for _, err in done)
    return [out.strip() for out, _ in done]


@pytest.mark.skipif(REAL, reason="ranks share a GPU, which NCCL does not do")
@pytest.mark.parametrize("size", [2, 3])
def test_collectives(gpu, size):
    assert ranks("check", size) == ["ok"] * size


@pytest.mark.skipif(REAL, reason="ranks share a GPU, which NCCL does not do")
def test_a_rank_that_does_not_come(gpu):
    assert ranks("late", 2, FAKE_NCCL_TIMEOUT="3") == ["remote process exited or there was a network error", "gone"]


def test_nccl_refuses(gpu, monkeypatch):
    with pytest.raises(ValueError, match="expected 128 bytes and a rank below 2, got 3 bytes and rank 0"):
        nccl.Communicator(b"abc", 0, 2)
    group = nccl.Communicator(nccl.unique_id(), 0, 1)
    with pytest.raises(ValueError, match="NCCL: expected .* sum, prod, max, min, mean, got f4 and xor"):
        group.all_reduce(B(0), B(1), 3, "f4", "xor")
    with pytest.raises(ValueError, match="expected a rank below 1, got 1"):
        group.broadcast(B(0), B(1), 3, root=1)
    call = group.all_reduce(B(0), B(1), 3)
    assert call.explain(-4) == "NCCL: nccl_all_reduce_f4_3 on rank 0 of 1: invalid argument"
    group.abort()
    with pytest.raises(RankError, match="got one that was left"):
        group.all_gather(B(0), B(1), 3)
    if not REAL:
        monkeypatch.setenv("FAKE_NCCL_TIMEOUT", "0.2")
        with pytest.raises(RankError, match=r"NCCL: expected 2 ranks that meet \(this is rank 1\), got remote process exited"):
            nccl.Communicator(nccl.unique_id(), 1, 2)


@pytest.mark.skipif(REAL, reason="asks the stand-in")
def test_old_nccl():
    fake = build("nccl", API.parents[2] / "build" / "cuda_fakes")
    code = "from cogkit.engine.cuda import nccl; print(nccl.why_not())"
    said = python(code, COGKIT_LIBNCCL=str(fake), COGKIT_LIBCUDA=os.environ["COGKIT_LIBCUDA"], FAKE_NCCL_VERSION="2804")
    assert said == f"NCCL ({fake}): expected version 2.10 or later, got 2.8.4; install nvidia-nccl-cu13"


# our constants and prototypes -----------------------------------------------------------------------------------------------------


def headers(*needed):
    """Folders of NVIDIA's headers of this Python's packages and of the CUDA toolkit; skips where one is missing."""
    from pathlib import Path

    found = [p for f in sys.path for p in sorted(Path(f or ".").glob("nvidia/*/include"))]
    found += [p for p in (Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "include"),) if p.is_dir()]
    for name in needed:
        if not any((p / name).exists() for p in found):
            pytest.skip(f"needs NVIDIA's {name}, which no package here brings")
    return [f"-I{p}" for p in found]


CHECK = """
#include <type_traits>
#include <cstddef>
template <class T> struct shape;  // a function: its sizes, one by one
template <class R, class... A> struct shape<R (*)(A...)> {
    static constexpr size_t count = sizeof...(A);
    static constexpr bool same(const size_t *sizes) {
        size_t own[] = {sizeof(A)..., 0};
        for (size_t i = 0; i < count; i++) if (own[i] != sizes[i]) return false;
        return true;
    }
    static constexpr size_t sizes[] = {sizeof(A)..., 0};
};
template <class Ours, class Theirs> constexpr bool fits() {
    return shape<Ours>::count == shape<Theirs>::count && shape<Ours>::same(shape<Theirs>::sizes);
}
#define FITS(ours, theirs) static_assert(fits<ours, decltype(&theirs)>(), #theirs)
"""


def compile_check(tmp_path, api, includes, folders, lines):
    """Compiles assertions that our names, numbers and prototypes are NVIDIA's."""
    names = re.findall(r"^\s+CG_(\w+) = ", (API / api).read_text(), re.M) if api else []
    text = "".join(f'#include "{i}"\n' for i in includes) + CHECK + "\n".join(lines)
    text += "".join(f'\nstatic_assert(CG_{n} == (int){n}, "{n}");' for n in names)
    source = tmp_path / "check.cpp"
    source.write_text(text + "\n")
    done = subprocess.run(
        ["g++", "-std=c++17", "-fsyntax-only", "-w", f"-I{API}", *folders, str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[:4000]
    return len(names)


def test_cublaslt_is_as_in_the_headers(tmp_path):
    folders = headers("cublasLt.h", "cuda_runtime_api.h")
    functions = {"create": "Create", "version": "GetVersion", "text": "GetStatusString", "desc_create": "MatmulDescCreate", "matmul": "Matmul",
                 "layout_create": "MatrixLayoutCreate", "pref_create": "MatmulPreferenceCreate", "choose": "MatmulAlgoGetHeuristic"}  # fmt: skip
    lines = [f"FITS(cg_lt_{ours}_t, cublasLt{theirs});" for ours, theirs in functions.items()]
    for what in ("MatmulDesc", "MatrixLayout", "MatmulPreference"):
        lines += [f"FITS(cg_lt_set_t, cublasLt{what}SetAttribute);", f"FITS(cg_lt_destroy_t, cublasLt{what}Destroy);"]
    for ours, theirs in (("cg_lt_algo", "cublasLtMatmulAlgo_t"), ("cg_lt_heuristic", "cublasLtMatmulHeuristicResult_t")):
        lines.append(f"static_assert(sizeof({ours}) == sizeof({theirs}) && alignof({ours}) == alignof({theirs}));")
    for ours, theirs in (("workspace", "workspaceSize"), ("state", "state"), ("waves", "wavesCount")):
        lines.append(f"static_assert(offsetof(cg_lt_heuristic, {ours}) == offsetof(cublasLtMatmulHeuristicResult_t, {theirs}));")
    assert compile_check(tmp_path, "cublaslt_api.h", ["cublaslt_api.h", "cublasLt.h"], folders, lines) > 25


def test_cudnn_is_as_in_the_headers(tmp_path):
    folders = headers("cudnn.h", "cuda_runtime_api.h")
    functions = {"version": "GetVersion", "text": "GetErrorString", "last_error": "GetLastErrorString", "create": "Create",
                 "set_stream": "SetStream", "new": "BackendCreateDescriptor", "destroy": "BackendDestroyDescriptor",
                 "set": "BackendSetAttribute", "get": "BackendGetAttribute", "execute": "BackendExecute"}  # fmt: skip
    lines = [f"FITS(cg_cudnn_{ours}_t, cudnn{theirs});" for ours, theirs in functions.items()]
    lines += ["FITS(cg_cudnn_version_t, cudnnGetCudartVersion);", "FITS(cg_cudnn_destroy_t, cudnnBackendFinalize);"]
    lines += [f"static_assert({n} == CUDNN_{name});" for name, n in vars(cudnn.NUMBERS).items()]
    compile_check(tmp_path, None, ["cudnn_api.h", "cudnn.h"], folders, lines)
    assert len(lines) > 100


def test_nccl_is_as_in_the_header(tmp_path):
    folders = headers("nccl.h", "cuda_runtime.h")
    functions = {"version": ["GetVersion"], "text": ["GetErrorString"], "unique": ["GetUniqueId"], "init": ["CommInitRank"],
                 "end": ["CommDestroy", "CommAbort"], "last_error": ["GetLastError"], "failure": ["CommGetAsyncError"],
                 "reduce": ["AllReduce", "ReduceScatter", "Broadcast"], "gather": ["AllGather"]}  # fmt: skip
    lines = [f"FITS(cg_nccl_{ours}_t, nccl{theirs});" for ours, names in functions.items() for theirs in names]
    lines.append("static_assert(sizeof(cg_nccl_id) == sizeof(ncclUniqueId));")
    assert compile_check(tmp_path, "nccl_api.h", ["nccl_api.h", "nccl.h"], folders, lines) == 20


def test_recurrent_stacks_are_as_in_the_headers(tmp_path):
    folders = headers("cudnn.h", "cuda_runtime_api.h")
    functions = {"dropout": "SetDropoutDescriptor", "set": "SetRNNDescriptor_v8", "set_data": "SetRNNDataDescriptor",
                 "set_tensor": "SetTensorNdDescriptor", "spaces": "GetRNNTempSpaceSizes", "weights": "GetRNNWeightSpaceSize",
                 "part": "GetRNNWeightParams", "forward": "RNNForward", "data": "RNNBackwardData_v8",
                 "gradient": "RNNBackwardWeights_v8"}  # fmt: skip
    lines = [f"FITS(cg_rnn_{ours}_t, cudnn{theirs});" for ours, theirs in functions.items()]
    for what in ("Dropout", "RNN", "RNNData", "Tensor"):
        lines += [
            f"FITS(cg_rnn_create_t, cudnnCreate{what}Descriptor);",
            f"FITS(cg_rnn_destroy_t, cudnnDestroy{what}Descriptor);",
        ]
    compile_check(tmp_path, None, ["cudnn_rnn_api.h", "cudnn.h"], folders, lines)
