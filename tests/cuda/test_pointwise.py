"""Fused pointwise programs on the CUDA engine: random programs, spaces and strides against NumPy, interpreted and compiled."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import cogkit as C
from cogkit.engine import philox
from cogkit.engine.cuda import fused, images
from cogkit.engine.cuda.device import device
from cogkit.engine.cuda.driver import Commands
from cogkit.engine.cuda.pointwise import batches, made_of, opcodes, planned
from cogkit.engine.geometry import strides_of
from cogkit.engine.reference import POINTWISE
from cogkit.errors import DeviceError

TYPES = {"f4": np.float32, "f8": np.float64}
MEANING = {
    **POINTWISE,
    "copy": lambda x: x,
    "copysign": np.copysign,
    "fma": lambda x, y, z: x * y + z,
}
# Units of the last place; the others are exact.
UNITS = {"exp": 2, "log": 1, "rsqrt": 1.5, "sigmoid": 3, "tanh": 2, "softplus": 3, "logaddexp": 3, "sin": 2, "cos": 2, "tan": 4, "asin": 4,
         "acos": 2, "atan": 2, "sinh": 3, "cosh": 2, "asinh": 3, "acosh": 4, "atanh": 3, "pow": 4, "fma": 1}  # fmt: skip
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 2.5, -2.5, 1e-7, 1e-30, 1e-40, 88.0, 89.5, -87.0, -103.5, 65504.0, 65520.0, 3e-8, 1e30]
SPECIAL += [np.inf, -np.inf, np.nan]
SAFE = ["neg", "abs", "sign", "floor", "relu", "tanh", "sigmoid", "softplus", "not", "copy", "sin", "round", "half"]
SAFE_PAIRS = ["add", "sub", "mul", "max", "min", "gt", "le", "and", "xor", "copysign", "logaddexp", "add", "mul"]
FOLDS = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}


def in_orders(once):
    """What once() gives, the same bits in each order of threads."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for order in ("fwd", "rev"):
            patch.setenv("CUDACPU_ORDER", os.environ.get("CUDACPU_ORDER", order))
            found.append(once())
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)
    return found[0]


def run(dtype, kinds, outputs, program, segments, buffers, index=None, flow=None):
    """What the buffers hold after the program has run over them; the same in all orders of threads."""
    d = device()
    with d.active():
        p = planned(tuple(map(tuple, program)), tuple(kinds), tuple(outputs))
        index = index or [strides_of(dims)[1:] for dims, _ in segments]
        call = made_of(batches(p, segments, index, flow or [0] * len(segments), dtype), len(buffers))

        def once():
            memory = {id(b): d.alloc(max(b.nbytes, 1)) for b in buffers}
            for b in buffers:
                d.write(memory[id(b)].address, b)
            if call is not None:
                scratch = d.alloc(call.scratch)
                if call.scratch:
                    d.write(scratch.address, np.full(call.scratch, 255, np.uint8))
                call.set_buffers([memory[id(b)].address for b in buffers] + [scratch.address])
                Commands(call.items).run(d.stream_handle)
            return [d.read(memory[id(b)].address, b.shape, b.dtype) for b in buffers]

        return in_orders(once)


def elementwise(name, *arrays):
    """One instruction on arrays of one shape."""
    n, out = len(arrays), np.empty_like(arrays[0])
    dtype = arrays[0].dtype.str[1:]
    segment = ([out.size], [[1]] * (n + 1))
    return run(dtype, ["in"] * n + ["out"], [n], [(name, n, *range(n))], [segment], [*arrays, out])[-1]


def arity(name):
    """Operands of an instruction."""
    numbers = opcodes()
    return 3 if numbers[name] >= numbers["select"] else 2 if numbers[name] >= numbers["add"] else 1


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", sorted(MEANING))
def test_instructions(name, dtype):
    rng = np.random.default_rng(len(name))
    x = np.concatenate(
        [rng.normal(size=150) * np.exp(rng.normal(size=150) * 4), rng.uniform(-1, 1, 100), rng.uniform(-110, 95, 100)]
    )
    x = np.concatenate([x, rng.integers(-9, 9, 50), SPECIAL]).astype(TYPES[dtype])
    arrays = [x]
    for _ in range(arity(name) - 1):
        other = rng.permutation(x)
        other[:150] = np.where(rng.random(150) < 0.3, x[:150], rng.normal(size=150) * 3)
        arrays.append(other)
    if name == "fma":
        arrays[2] = np.abs(arrays[2]) * np.copysign(1, arrays[0]) * np.copysign(1, arrays[1])
    got = elementwise(name, *arrays)
    with np.errstate(all="ignore"):
        exact = np.asarray(MEANING[name](*[a.astype(np.float64 if dtype == "f4" else np.longdouble) for a in arrays]))
        exact = MEANING[name](*arrays) if name == "half" else exact
        wanted = exact.astype(TYPES[dtype])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    finite = np.isfinite(wanted) & np.isfinite(got)
    edge = np.abs(exact) > np.finfo(got.dtype).max * (1 - 1e-6)
    np.testing.assert_array_equal(got[~finite & ~edge], wanted[~finite & ~edge])
    size = np.abs(wanted[finite])
    if name == "logaddexp":
        size = np.maximum(size, np.where(np.isfinite(arrays[0] + arrays[1]), np.maximum(*np.abs(arrays)), 0)[finite]).clip(0.5)
    error = np.abs(got[finite].astype(np.longdouble) - exact[finite]) / np.spacing(size).astype(np.longdouble)
    assert error.max() <= UNITS.get(name, 0.5) + 0.01, [a[finite][int(np.argmax(error))] for a in arrays]


# random programs ---------------------------------------------------------------------------------------------------------------------


def drawn_program(rng, n_in, n_out, length=10):
    """A program of instructions that are smooth enough to be compared, and the registers of its outputs."""
    program, top = [], n_in
    for _ in range(int(rng.integers(1, length))):
        pick = lambda top=top: int(rng.integers(0, top))  # noqa: E731
        what = rng.random()
        if what < 0.15:
            program.append(("const", top, float(rng.integers(-3, 4)) / 2))
        elif what < 0.4:
            program.append((str(rng.choice(SAFE)), top, pick()))
        elif what < 0.9:
            program.append((str(rng.choice(SAFE_PAIRS)), top, pick(), pick()))
        else:
            program.append(("select", top, pick(), pick(), pick()))
        top += 1
    return program, [int(rng.integers(0, top)) for _ in range(n_out)]


def evaluate(program, outputs, inputs):
    """What a program means, in float64."""
    registers = dict(enumerate(inputs))
    for name, result, *operands in program:
        if name == "const":
            registers[result] = np.float64(operands[0])
        else:
            registers[result] = np.asarray(MEANING[name](*[np.asarray(registers[o]) for o in operands]), np.float64)
    return [registers[o] for o in outputs]


def drawn_input(rng, dims, dtype):
    """(buffer, strides, view over the dims): dense, broadcast, transposed or padded."""
    mode = rng.choice(["dense", "dense", "broadcast", "broadcast", "transposed", "padded"])
    shape = [1 if mode == "broadcast" and rng.random() < 0.5 else d for d in dims]
    order = [int(i) for i in rng.permutation(len(dims))] if mode == "transposed" else list(range(len(dims)))
    memory = [shape[i] + (int(rng.integers(0, 3)) if mode == "padded" else 0) for i in order]
    flat = rng.normal(size=max(int(np.prod(memory)), 1)).astype(TYPES[dtype])
    flat[rng.random(flat.size) < 0.1] = 0
    strides = [0] * len(dims)
    for i, step in zip(order, strides_of(memory), strict=True):
        strides[i] = 0 if shape[i] == 1 and dims[i] != 1 else step
    return flat, strides, np.lib.stride_tricks.as_strided(flat, dims, [s * flat.itemsize for s in strides])


def drawn_dims(rng):
    while True:
        dims = [
            int(rng.choice([0, 1, 2, 3, 4, 7, 8, 16, 33, 64, 130], p=[0.02] + [0.098] * 10))
            for _ in range(int(rng.integers(1, 5)))
        ]
        if np.prod(np.maximum(dims, 1)) <= 3000:
            return dims


def drawn(seed, reductions):
    """(dtype, kinds, outputs, program, segments), buffers, and for each output (buffer, its array, kind, what it should hold, terms)."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(list(TYPES)))
    n_in, n_out = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    program, outputs = drawn_program(rng, n_in, n_out)
    kinds = [str(rng.choice(["out", "sum", "max", "min"])) if reductions else "out" for _ in range(n_out)]
    segments, buffers, results = [], [], []
    for _ in range(1 if reductions else int(rng.choice([1, 1, 2, 5]))):
        dims = drawn_dims(rng)
        gone = tuple(d for d in range(len(dims)) if rng.random() < 0.5)
        strides, views = [], []
        for _ in range(n_in):
            flat, s, view = drawn_input(rng, dims, dtype)
            buffers.append(flat)
            strides.append(s)
            views.append(view.astype(np.float64))
        with np.errstate(all="ignore"):
            values = evaluate(program, outputs, views)
        for kind, value in zip(kinds, values, strict=True):
            value = np.broadcast_to(value, dims)
            shape = dims
            if kind != "out":
                ends = {} if kind == "sum" else {"initial": -np.inf if kind == "max" else np.inf}
                value = FOLDS[kind](value, axis=gone, keepdims=True, **ends)
                shape = [1 if d in gone else n for d, n in enumerate(dims)]
            memory = [n + int(rng.integers(0, 3)) for n in shape] if kind == "out" and rng.random() < 0.2 else shape
            own = strides_of(memory)
            flat = np.full(max(int(np.prod(memory)), 1) + 3, 77, TYPES[dtype])
            results.append((len(buffers), shape, own, kind, value, max(int(np.prod(dims)) // max(value.size, 1), 1)))
            buffers.append(flat)
            strides.append([0 if kind != "out" and d in gone else s for d, s in enumerate(own)])
        segments.append((dims, strides))
    return (dtype, ["in"] * n_in + kinds, outputs, program, segments), buffers, results


def check(seed, reductions):
    arguments, buffers, results = drawn(seed, reductions)
    found = run(*arguments, buffers)
    eps = np.finfo(TYPES[arguments[0]]).eps
    for at, shape, own, kind, wanted, n in results:
        flat = found[at]
        got = np.lib.stride_tricks.as_strided(flat, shape, [s * flat.itemsize for s in own])
        with np.errstate(invalid="ignore"):
            error = np.where(got == wanted, 0, np.abs(got - wanted) / (1 + np.abs(wanted)))
        # a comparison, or a rounding to half, of numbers that were rounded may fall on the other side
        bad = error > eps * 64 * (1 + (np.sqrt(n) if kind == "sum" else 0))
        assert (bad.mean() < 0.02 if bad.size else True) or "half" in str(arguments[3]), (arguments, kind, float(error.max()))
        mine = np.zeros(flat.shape, bool)
        np.lib.stride_tricks.as_strided(mine, shape, own)[...] = True
        assert (flat[~mine] == 77).all()


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    check(seed, False)


@pytest.mark.parametrize("seed", range(100, 190))
def test_random_programs_with_reductions(seed):
    check(seed, True)


# reductions of the sizes that training meets -----------------------------------------------------------------------------------------------


def summed(kind, dims, gone, dtype, seed=0, program=(), extra=()):
    """A reduction of one array (or of what a program makes of it) over dims, beside NumPy's."""
    x = np.random.default_rng(seed).standard_normal(dims)
    x = (np.exp(x / 16) if kind == "prod" else x).astype(dtype)
    out = np.full([1 if d in gone else n for d, n in enumerate(dims)], 77, dtype)
    strides = [0 if d in gone else s for d, s in enumerate(strides_of(out.shape))]
    segment = (list(dims), [strides_of(dims), strides])
    found = run(x.dtype.str[1:], ["in", kind], [program[-1][1] if program else 0], list(program), [segment], [x, out])[-1]
    return x, found


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "dims,gone",
    [((3000, 3), (0,)), ((3000, 64), (0,)), ((20001,), (0,)), ((65536,), (0,)), ((7, 5000), (1,)), ((300, 8, 12), (0, 2)), ((40, 3, 50), (0, 2)),
     ((6, 500, 7), (1,)), ((200, 4, 2, 16), (0, 2)), ((1, 1), (0, 1)), ((5, 1), (1,)), ((2, 33000), (1,))],
)  # fmt: skip
def test_sums(dims, gone, dtype):
    for kind in FOLDS if np.prod(dims) < 9000 else ("sum", "max"):
        x, got = summed(kind, dims, gone, TYPES[dtype])
        wanted = FOLDS[kind](x.astype(np.longdouble), axis=gone, keepdims=True)
        eps = np.finfo(TYPES[dtype]).eps
        scale = 1 if kind != "sum" else np.sqrt(x.size / wanted.size)
        error = np.abs(got - wanted) / (scale * (1 if kind == "sum" else np.abs(wanted)))
        assert error.max() <= eps * (0 if kind in ("max", "min") else 8 if kind == "sum" else 16 * x.size / wanted.size)


@pytest.mark.parametrize("kind,neutral", [("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf)])
def test_empty_spaces_give_the_neutral_number(kind, neutral):
    for dims, gone in (((0,), (0,)), ((0, 3), (0,)), ((5, 0), (1,)), ((4, 0, 3), (1,)), ((2, 0, 3), (0, 1))):
        _, got = summed(kind, dims, gone, np.float32)
        assert (got == neutral).all() and got.size == np.prod([n for d, n in enumerate(dims) if d not in gone])
    _, got = summed(kind, (0, 4), (1,), np.float32)
    assert got.size == 0


@pytest.mark.parametrize("kind", ["max", "min", "sum", "prod"])
def test_reductions_hand_nan_on(kind):
    for dims, gone in (((70, 5), (0,)), ((5, 70), (1,)), ((700,), (0,))):
        x = np.random.default_rng(0).standard_normal(dims).astype(np.float32)
        x.reshape(-1)[3] = np.nan
        out = np.zeros([1 if d in gone else n for d, n in enumerate(dims)], np.float32)
        strides = [0 if d in gone else s for d, s in enumerate(strides_of(out.shape))]
        got = run("f4", ["in", kind], [0], [], [(list(dims), [strides_of(dims), strides])], [x, out])[-1]
        np.testing.assert_array_equal(np.isnan(got), np.isnan(FOLDS[kind](x, axis=gone, keepdims=True)))


def test_results_may_be_stored_while_they_are_summed():
    rng = np.random.default_rng(1)
    x, top = rng.standard_normal((50, 12)).astype(np.float32), rng.standard_normal((50, 1)).astype(np.float32)
    e, total = np.zeros_like(x), np.zeros_like(top)
    strides = [[12, 1], [1, 0], [12, 1], [1, 0]]
    program = [("sub", 2, 0, 1), ("exp", 3, 2)]
    found = run("f4", ["in", "in", "out", "sum"], [3, 3], program, [([50, 12], strides)], [x, top, e, total])
    np.testing.assert_allclose(found[2], np.exp(x - top), rtol=1e-6)
    np.testing.assert_allclose(found[3], np.exp(x - top).sum(1, keepdims=True), rtol=1e-6)


# buffers that lie upon others, many segments, random numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_an_output_may_lie_upon_an_input(n):
    rng = np.random.default_rng(n)
    w, v, g = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
    program = [("const", 3, 0.9), ("mul", 4, 3, 1), ("add", 5, 4, 2), ("const", 6, -0.1), ("mul", 7, 6, 5), ("add", 8, 0, 7)]
    segment = ([n], [[1]] * 5)
    found = run("f4", ["in", "in", "in", "out", "out"], [5, 8], program, [segment], [w, v, g, v, w])
    wide = [a.astype(np.float64) for a in (w, v, g)]
    np.testing.assert_allclose(found[3], 0.9 * wide[1] + wide[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[4], wide[0] - 0.1 * (0.9 * wide[1] + wide[2]), rtol=1e-5, atol=1e-6)


def test_a_result_that_others_need_later_may_lie_upon_what_they_read():
    """The second output reads the input after the first one, which lies upon it, is known."""
    x = np.arange(50, dtype=np.float32)
    out = np.zeros_like(x)
    program = [("neg", 2, 0), ("exp", 3, 1), ("add", 4, 3, 0), ("add", 5, 4, 2)]
    y = np.linspace(-1, 1, 50).astype(np.float32)
    found = run("f4", ["in", "in", "out", "out"], [2, 5], program, [([50], [[1]] * 4)], [x, y, x, out])
    np.testing.assert_array_equal(found[2], -x)
    np.testing.assert_allclose(found[3], np.exp(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("step", [1, 2])
def test_many_segments_run_together(step, dtype):
    """step: from one gradient to the next."""
    rng = np.random.default_rng(3)
    sizes = [int(n) for n in rng.integers(2, 1500, 150)] + [0, 1]
    buffers, segments = [], []
    for n in sizes:
        w, g = (rng.standard_normal(m).astype(TYPES[dtype]) for m in (n, n * step))
        buffers += [w, g, w]
        segments.append(([n], [[1], [step], [1]]))
    program = [("const", 2, -0.5), ("mul", 3, 2, 1), ("add", 4, 0, 3)]
    p = planned(tuple(program), ("in", "in", "out"), (4,))
    with device().active():
        call = made_of(batches(p, segments, [[]] * len(sizes), [0] * len(sizes), dtype), len(buffers))
    assert len(call.items) == 2  # 165 segments of 3 operands fit into one; that of one element has a shape of its own
    found = run(dtype, ["in", "in", "out"], [4], program, segments, buffers)
    for i in range(0, len(buffers), 3):
        np.testing.assert_allclose(found[i + 2], buffers[i] - 0.5 * buffers[i + 1][::step], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (7,), (3, 5), (8, 4)])
def test_random_numbers(shape, normal, dtype):
    d = device()
    for rows in (0, 1, 6):  # 0: of no rows, they go on from step to step
        dims = [rows or 1, *shape]
        out, count = np.zeros(dims, TYPES[dtype]), int(np.prod(shape))
        with d.active():
            d.begin(np.array([2**40 + 9, 3, 2**33 + 5 if rows else 0], np.uint64))
        segment = (dims, [[count, *strides_of(shape)]])
        got = run(
            dtype,
            ["out"],
            [0],
            [("randn" if normal else "rand", 0, 11)],
            [segment],
            [out],
            [strides_of(shape)],
            [0 if rows else count],
        )[0]
        if rows:
            wanted = (philox.normal if normal else philox.uniform)(2**40 + 9, 3, 11, 2**33 + 5, rows, count)
        else:
            wanted = (philox.stream_normal if normal else philox.stream_uniform)(2**40 + 9, 3, 11, count)
        np.testing.assert_allclose(got.ravel(), wanted.ravel(), rtol=1e-6 if normal else 0, atol=1e-7 if normal else 0)


# compiled programs -----------------------------------------------------------------------------------------------------------------------------


def texts(arguments, buffers):
    """The texts of a drawn program."""
    dtype, kinds, outputs, program, segments = arguments
    p = planned(tuple(map(tuple, program)), tuple(kinds), tuple(outputs))
    index = [strides_of(dims)[1:] for dims, _ in segments]
    return [b.text() for b in batches(p, segments, index, [0] * len(segments), dtype)]


VARIED = [*range(5), *range(100, 107)]


@pytest.mark.parametrize("seed", VARIED)
def test_compiled_programs_give_the_same_bits(seed, monkeypatch):
    arguments, buffers, _ = drawn(seed, seed >= 100)
    found, compiled = [], []
    function_of = fused.function_of
    monkeypatch.setattr(fused, "function_of", lambda text: compiled.append(text) or function_of(text))
    for form in ("interpreted", "generated"):
        monkeypatch.setenv("COGKIT_CUDA_FUSED", form)
        found.append(run(*arguments, buffers))
        assert len(compiled) == (len(texts(arguments, buffers)) if form == "generated" else 0)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["rand", "randn"])
def test_compiled_programs_draw_the_same_numbers(name, dtype, monkeypatch):
    program = [(name, 1, 11), ("const", 2, 0.5), ("gt", 3, 1, 2), ("mul", 4, 3, 0), (name, 5, 12), ("add", 6, 5, 4)]
    x, y, total = np.linspace(1, 2, 60).astype(TYPES[dtype]), np.zeros(60, TYPES[dtype]), np.zeros(3, TYPES[dtype])
    segment = ([3, 20], [[20, 1], [20, 1], [1, 0]])
    found = []
    for form in ("interpreted", "generated"):
        monkeypatch.setenv("COGKIT_CUDA_FUSED", form)
        found.append(run(dtype, ["in", "out", "sum"], [6, 6], program, [segment], [x, y, total], [[1]]))
    assert found[0][1].tobytes() == found[1][1].tobytes() and found[0][2].tobytes() == found[1][2].tobytes()


def test_equal_programs_share_a_text():
    """Sizes, numbers and purposes are no part of a text; shapes of strides are."""
    one = lambda rate, n, k: texts(  # noqa: E731
        ("f4", ["in", "in", "out"], [4], [("const", 2, rate), ("mul", 3, 2, 1), ("add", 4, 0, 3)], [([n], [[1], [k], [1]])]), []
    )
    assert one(0.1, 1000, 1) == one(0.9, 64, 1) != one(0.1, 1000, 0)


def test_what_does_not_compile_is_interpreted(monkeypatch, tmp_path):
    monkeypatch.setenv("COGKIT_CUDA_FUSED", "generated")
    monkeypatch.setenv("COGKIT_CACHE", str(tmp_path))
    broken = lambda name, source, arch, *rest: (_ for _ in ()).throw(DeviceError("no compiler today"))  # noqa: E731
    x, out = np.arange(9, dtype=np.float32), np.zeros(9, np.float32)
    program = [("tanh", 1, 0), ("exp", 2, 1), ("neg", 3, 2), ("exp", 4, 3)]
    with device().active():
        images.module("pointwise")
    monkeypatch.setattr(images, "compiled", broken)
    monkeypatch.setattr(fused, "_compiles", [])
    with pytest.warns(RuntimeWarning, match="no compiler today; programs are interpreted"):
        found = run("f4", ["in", "out"], [4], program, [([9], [[1], [1]])], [x, out])
    np.testing.assert_allclose(found[1], np.exp(-np.exp(np.tanh(x))), rtol=1e-5)
    run("f4", ["in", "out"], [4], program, [([9], [[1], [1]])], [x, out])  # no second warning
    monkeypatch.delenv("COGKIT_CUDA_FUSED")
    monkeypatch.setattr(device(), "emulated", False)
    assert not fused.generates()  # by itself it does not try again
    fused._compiles[:] = [True]
    assert fused.generates()


def test_texts_of_a_plan_are_compiled_side_by_side(monkeypatch):
    """By the plan, before calls are made; the engine then gives what the reference does."""
    monkeypatch.setenv("COGKIT_CUDA_FUSED", "generated")
    taken = []
    monkeypatch.setattr(fused, "compile_all", lambda texts: taken.extend(texts))
    value = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    found = []
    for engine in ("cuda", "reference"):
        with C.device.use_engine(engine):
            x = C.input_variable(12)
            w = C.parameter(12, init=0.5)
            found.append(C.log_softmax(C.tanh(x * w) + 1).eval({x: value}))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert taken and all("struct Body" in text for _, text in taken)


def test_a_wish_that_is_none(monkeypatch):
    monkeypatch.setenv("COGKIT_CUDA_FUSED", "fast")
    with pytest.raises(ValueError, match="expected 'generated' or 'interpreted', got 'fast'"):
        run("f4", ["in", "out"], [0], [], [([9], [[1], [1]])], [np.zeros(9, np.float32), np.zeros(9, np.float32)])


NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_texts_compile_for_a_gpu(tmp_path):
    program = [("rand", 2, 7), ("const", 3, 0.25), ("gt", 4, 2, 3), ("mul", 5, 4, 0), ("pow", 6, 5, 1)]
    random = ("f4", ["in", "in", "out", "sum"], [5, 6], program, [([8, 64], [[64, 1], [0, 1], [64, 1], [0, 0]])])
    some = [text for seed in VARIED for text in texts(*drawn(seed, seed >= 100)[:2])]
    for name, text in dict([*some, *texts(random, [])]).items():
        source = tmp_path / f"{name}.cu"
        source.write_text(text)
        command = [
            NVCC,
            "-arch=sm_90",
            "-cubin",
            *images.FLAGS,
            "-Xptxas",
            "-v",
            "-I",
            str(images.FOLDER),
            "-o",
            str(tmp_path / "made"),
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"[1-9]\d* bytes spill", done.stderr), done.stderr


# wide programs ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n_in,n_out", [(5, 3), (60, 4), (100, 20)])
def test_wide_programs(n_in, n_out, dtype, monkeypatch):
    """All inputs are alive at once, over dims that do not merge: words of the space, and values of a block, find other places."""
    rng = np.random.default_rng(n_in)
    dims = [3, 4, 5]
    strides, buffers, views = [], [], []
    for _ in range(n_in):
        shape = [d if rng.random() < 0.7 else 1 for d in dims]
        own = [s if n > 1 else 0 for n, s in zip(shape, strides_of(shape), strict=True)]
        buffers.append(rng.standard_normal(shape).astype(TYPES[dtype]))
        strides.append(own)
        views.append(np.broadcast_to(buffers[-1], dims).astype(np.float64))
    # sums from both ends: the k-th with the k-th last, then all of them
    program = [("sub", n_in + k, k, n_in - 1 - k) for k in range(n_in)]
    top = 2 * n_in
    for k in range(n_in):
        program.append(("add" if k % 2 else "max", top, top - 1, 2 * n_in - 1 - k))
        top += 1
    outputs = [top - 1 - k for k in range(n_out - 1)] + [top - 1]
    kinds = ["in"] * n_in + ["out"] * (n_out - 1) + ["sum"]
    for _ in range(n_out - 1):
        buffers.append(np.zeros(dims, TYPES[dtype]))
        strides.append(strides_of(dims))
    buffers.append(np.zeros((3, 1, 1), TYPES[dtype]))
    strides.append([1, 0, 0])
    found = []
    for form in ("interpreted", "generated") if n_in > 5 else ("interpreted",):
        monkeypatch.setenv("COGKIT_CUDA_FUSED", form)
        found.append(run(dtype, kinds, outputs, program, [(dims, strides)], buffers))
    wanted = evaluate(program, outputs, views)
    wanted[-1] = wanted[-1].sum((1, 2), keepdims=True)
    for got, want in zip(found[0][n_in:], wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "f4" else 1e-12, atol=1e-4 if dtype == "f4" else 1e-12)
    assert len({tuple(x.tobytes() for x in f) for f in found}) == 1
