"""The fused elementwise-and-reduce machine against NumPy: random programs, shapes, strides, both types, threads, segments."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cogkit.engine import philox
from cogkit.engine.cpu import pointwise
from cogkit.engine.cpu.pointwise import OPCODES, Pointwise, philox_uniform, select_isa

DTYPES = {"f4": np.float32, "f8": np.float64}


def truth(x):
    return x != 0


NUMPY = {
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))),
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "not": lambda x: x == 0,
    "copy": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": lambda x, y: truth(x) & truth(y),
    "or": lambda x, y: truth(x) | truth(y),
    "xor": lambda x, y: truth(x) ^ truth(y),
    "logaddexp": np.logaddexp,
    "copysign": np.copysign,
    "select": lambda c, a, b: np.where(c != 0, a, b),
    "fma": lambda a, b, c: a * b + c,
}
# Units of the last place, against float64 (f4) or against longer doubles (f8); the others are exact.
ULPS = {"exp": 1, "log": 1, "rsqrt": 1.5, "sin": 1.5, "cos": 1.5, "sigmoid": 2.5, "tanh": 3, "softplus": 2.5, "logaddexp": 2.5}
ULPS |= {name: 3 for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")} | {"pow": 1, "fma": 1}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 2.5, -2.5, 1e-7, 1e-30, 1e-40, 1e-45, 88.0, 89.5, -87.0, -100.0, -103.5, -150.0, 1e30]
SPECIAL += [np.inf, -np.inf, np.nan]


@pytest.fixture(params=["v4", "v3", "default"])
def instruction_set(request):
    select_isa(request.param)
    yield pointwise.isa()
    select_isa("best")


def dense(dims):
    strides, n = [], 1
    for d in reversed(dims):
        strides.insert(0, n)
        n *= max(d, 1)
    return strides


def elementwise(name, dtype, *arrays):
    n = len(arrays)
    out = np.empty_like(arrays[0])
    k = Pointwise(dtype, ["in"] * n + ["out"], [n], [(name, n, *range(n))], [((out.size,), [(1,)] * (n + 1))])
    k.bind([*arrays, out]).run()
    return out


def inputs_of(name, dtype, rng):
    wide = rng.normal(size=4000) * np.exp(rng.normal(size=4000) * 4)
    near = rng.uniform(-1, 1, 2000)
    return np.concatenate([wide, near, rng.uniform(-110, 95, 3000), rng.integers(-9, 9, 500), SPECIAL]).astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", [n for n in OPCODES if n in NUMPY])
def test_opcode(name, dtype, instruction_set):
    rng = np.random.default_rng(len(name))
    x = inputs_of(name, dtype, rng)
    count = 3 if name in ("select", "fma") else 2 if list(OPCODES).index(name) >= OPCODES["add"] else 1
    arrays = [x]
    for _ in range(count - 1):
        other = rng.permutation(x)
        half = len(x) // 2
        other[:half] = np.where(rng.random(half) < 0.3, x[:half], rng.normal(size=half) * 3)
        other[-len(SPECIAL) :] = rng.permutation(SPECIAL)
        arrays.append(other)
    if name == "fma":  # no cancellation in the expected value
        arrays[2] = np.abs(arrays[2]) * np.sign(arrays[0]) * np.sign(arrays[1])
    got = elementwise(name, dtype, *arrays)
    with np.errstate(all="ignore"):
        wider = [a.astype(np.float64 if dtype == "f4" else np.longdouble) for a in arrays]
        wanted = np.asarray(NUMPY[name](*wider))
        rounded = wanted.astype(DTYPES[dtype])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    finite = np.isfinite(rounded) & np.isfinite(got)
    # a result within its tolerance of the largest number may round to infinity
    edge = np.abs(wanted) > np.finfo(got.dtype).max * (1 - 1e-6)
    np.testing.assert_array_equal(got[~finite & ~edge], rounded[~finite & ~edge])
    size = np.abs(rounded[finite])
    if name == "logaddexp":  # its value may cancel: units of the largest number on the way
        size = np.maximum(size, np.where(np.isfinite(arrays[0] + arrays[1]), np.maximum(*np.abs(arrays)), 0)[finite]).clip(0.5)
    unit = np.spacing(size).astype(np.longdouble)
    error = np.abs(got[finite].astype(np.longdouble) - wanted[finite]) / unit
    worst = int(np.argmax(error)) if error.size else 0
    at = [a[finite][worst] for a in arrays]
    assert error.size and error[worst] <= ULPS.get(name, 0.5) + 0.01, f"{name}{at}: {error[worst]:.2f} units"


UNARY_SAFE = ["neg", "abs", "sign", "floor", "relu", "tanh", "sigmoid", "softplus", "not", "copy", "sin", "round"]
BINARY_SAFE = ["add", "sub", "mul", "max", "min", "gt", "le", "and", "xor", "copysign", "logaddexp"]
REDUCE = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}


def evaluate(program, outputs, inputs):
    """What the program means, in float64 of the inputs that were broadcast to the iteration shape."""
    registers = dict(enumerate(inputs))
    for name, dst, *operands in program:
        if name == "const":
            registers[dst] = np.full_like(inputs[0], operands[0]) if inputs else np.float64(operands[0])
        else:
            registers[dst] = np.asarray(NUMPY[name](*[registers[o] for o in operands]), dtype=np.float64)
    return [registers[o] for o in outputs]


def random_program(rng, n_in, n_out):
    program, registers = [], list(range(n_in))
    top = n_in
    for _ in range(int(rng.integers(1, 10))):
        pick = lambda: int(rng.choice(registers))  # noqa: E731
        reuse = [r for r in registers if r >= n_in]
        dst = int(rng.choice(reuse)) if reuse and rng.random() < 0.2 else top  # registers may be written again
        what = rng.random()
        if what < 0.15:
            program.append(("const", dst, float(rng.integers(-3, 4)) / 2))
        elif what < 0.4:
            program.append((str(rng.choice(UNARY_SAFE)), dst, pick()))
        elif what < 0.85:
            program.append((str(rng.choice(BINARY_SAFE)), dst, pick(), pick()))
        else:
            program.append((str(rng.choice(["select", "fma"])), dst, pick(), pick(), pick()))
        if dst == top:
            registers.append(top)
            top += 1
    return program, [int(rng.choice(registers)) for _ in range(n_out)]


def random_dims(rng):
    while True:
        rank = int(rng.integers(0, 6))
        dims = [
            int(rng.choice([0, 1, 2, 3, 5, 7, 10, 16, 17, 33, 64, 100, 300, 1030, 5000], p=[0.02] + [0.07] * 14))
            for _ in range(rank)
        ]
        if np.prod(np.maximum(dims, 1), dtype=float) <= 60000:  # padding of an empty shape must not explode either
            return dims


GUARD = 1234.5


def unaligned(rng, size, dtype):
    """An array that starts at any multiple of its item size, with guards before and behind it in its base."""
    shift = int(rng.integers(1, 16))
    return np.full(size + shift + 70, GUARD, DTYPES[dtype])[shift : shift + size]


def guards_hold(array):
    base = array.base
    start = (array.ctypes.data - base.ctypes.data) // base.itemsize
    return (base[:start] == GUARD).all() and (base[start + array.size :] == GUARD).all()


def make_input(rng, dims, dtype, mode):
    """(flat buffer, strides, view of the iteration shape)"""
    dims = list(dims)
    if mode == "dense":
        shape, order = dims, list(range(len(dims)))
    elif mode == "broadcast":
        shape, order = [d if rng.random() < 0.5 else 1 for d in dims], list(range(len(dims)))
    else:
        shape, order = dims, [int(i) for i in rng.permutation(len(dims))]
    memory = [shape[i] for i in order]
    if mode == "padded" and memory:
        memory = [m + int(rng.integers(0, 3)) for m in memory]
    flat = unaligned(rng, int(np.prod(memory)) if memory else 1, dtype)
    flat[:] = rng.normal(size=flat.size)
    flat[rng.random(flat.size) < 0.1] = 0
    steps = dense(memory)
    strides = [0] * len(dims)
    for place, i in enumerate(order):
        strides[i] = 0 if shape[i] == 1 and dims[i] != 1 else steps[place]
    view = np.lib.stride_tricks.as_strided(flat, dims, [s * flat.itemsize for s in strides])
    return flat, strides, view


def random_kernel(seed):
    """(arguments of Pointwise, buffers, expected arrays, views of the results)"""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(["f4", "f8"]))
    n_in, n_out = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    program, outputs = random_program(rng, n_in, n_out)
    kinds = [str(rng.choice(["out", "out", "sum", "max", "min"])) for _ in range(n_out)]
    segments, buffers, wanted, results = [], [], [], []
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        dims = random_dims(rng)
        reduced = [d for d in range(len(dims)) if rng.random() < 0.5]
        strides, views = [], []
        for _ in range(n_in):
            flat, s, view = make_input(rng, dims, dtype, rng.choice(["dense", "dense", "broadcast", "permuted", "padded"]))
            buffers.append(flat)
            strides.append(s)
            views.append(view.astype(np.float64))
        with np.errstate(all="ignore"):
            values = evaluate(program, outputs, views)
        for kind, value in zip(kinds, values, strict=True):
            value = np.broadcast_to(value, dims)
            if kind == "out":
                pad = rng.random() < 0.2
                memory = [d + int(rng.integers(0, 3)) if pad else d for d in dims]
                s, answer = dense(memory), value
            else:
                memory = [1 if d in reduced else dims[d] for d in range(len(dims))]
                s = [0 if d in reduced else step for d, step in enumerate(dense(memory))]
                ends = {} if kind == "sum" else {"initial": -np.inf if kind == "max" else np.inf}
                answer = REDUCE[kind](value, axis=tuple(reduced), keepdims=True, **ends) if reduced else value
            flat = unaligned(rng, max(int(np.prod(memory)) if memory else 1, 1), dtype)
            flat[:] = 77
            shape = dims if kind == "out" else memory
            buffers.append(flat)
            strides.append(s)
            wanted.append((kind, np.asarray(answer), int(np.prod(dims)) // max(int(np.asarray(answer).size), 1)))
            results.append(
                np.lib.stride_tricks.as_strided(
                    flat, shape, [x * flat.itemsize for x in (dense(memory) if shape is memory else s)]
                )
            )
        segments.append((tuple(dims), strides))
    return (dtype, ["in"] * n_in + kinds, outputs, program, segments), buffers, wanted, results


@pytest.mark.parametrize("seed", range(300))
def test_random_programs(seed):
    arguments, buffers, wanted, results = random_kernel(seed)
    rng = np.random.default_rng(seed)
    select_isa(str(rng.choice(["v4", "v4", "v3", "default"])))
    try:
        k = Pointwise(*arguments, block=int(rng.choice([0, 0, 64, 128])))
    finally:
        select_isa("best")
    k.bind(buffers).run()
    assert all(guards_hold(b) for b in buffers)
    eps = np.finfo(DTYPES[arguments[0]]).eps
    for (kind, answer, n), result in zip(wanted, results, strict=True):
        # a comparison of rounded numbers may fall on the other side; a value of 1 per element must not be hidden by that
        with np.errstate(invalid="ignore"):
            error = np.where(result == answer, 0, np.abs(result - answer) / (1 + np.abs(answer)))
        bad = error > eps * 64 * (1 + (np.sqrt(n) if kind == "sum" else 0))
        assert bad.mean() < 0.02 if bad.size else True, (arguments, kind, float(error.max()))


def test_one_thread_equals_two(tmp_path):
    """The same bits whatever the number of threads: each run is a process of its own."""
    code = """
import sys, zlib
sys.path.insert(0, "tests/engine")
import numpy as np
from test_pointwise import random_kernel, big_reductions
from cogkit.engine.cpu.pointwise import Pointwise
digest = 0
for seed in range(1000, 1040):
    arguments, buffers, wanted, results = random_kernel(seed)
    Pointwise(*arguments).bind(buffers).run()
    for b in buffers: digest = zlib.crc32(b.tobytes(), digest)
for arguments, buffers, results, wanted in big_reductions():
    Pointwise(*arguments).bind(buffers).run()
    for r in results: digest = zlib.crc32(r.tobytes(), digest)
print(digest)
"""
    answers = set()
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": threads}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    assert len(answers) == 1


def big_reductions():
    """The shapes that training meets: batch normalisation in both layouts, bias gradients, full sums, rows."""
    rng = np.random.default_rng(0)
    cases = []
    for dims, reduced in [
        ((16, 4, 1024, 16), (0, 2)),
        ((16, 4, 16, 16), (0, 2)),
        ((64, 2, 4, 16), (0, 2)),
        ((16, 64, 1024), (0, 2)),
        ((16, 70, 49), (0, 2)),
        ((3000, 10), (0,)),
        ((300, 4000), (0,)),
        ((700000,), (0,)),
        ((3000, 10), (1,)),
        ((100, 9000), (1,)),
        ((7, 300, 11, 13), (1, 3)),
    ]:
        x, y = (rng.normal(size=dims).astype("f4") for _ in range(2))
        shape = [1 if d in reduced else n for d, n in enumerate(dims)]
        strides = [0 if d in reduced else s for d, s in enumerate(dense(shape))]
        outs = [np.empty(shape, "f4") for _ in range(3)]
        whole = np.empty(dims, "f4")
        program = [("mul", 2, 0, 1), ("add", 3, 0, 1)]
        arguments = (
            "f4",
            ["in", "in", "out", "sum", "sum", "max"],
            [3, 2, 0, 1],
            program,
            [(dims, [dense(dims)] * 3 + [strides] * 3)],
        )
        wide = x.astype("f8"), y.astype("f8")
        wanted = [np.sum(wide[0] * wide[1], axis=reduced, keepdims=True), wide[0].sum(axis=reduced, keepdims=True)]
        wanted.append(wide[1].max(axis=reduced, keepdims=True))
        cases.append((arguments, [x, y, whole, *outs], outs, wanted))
    return cases


def test_big_reductions():
    for arguments, buffers, results, wanted in big_reductions():
        Pointwise(*arguments).bind(buffers).run()
        np.testing.assert_array_equal(buffers[2], buffers[0] + buffers[1])
        n = buffers[0].size / results[0].size
        for result, answer in zip(results, wanted, strict=True):
            np.testing.assert_allclose(result, answer, rtol=1e-6, atol=4e-7 * np.sqrt(n))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_empty_reductions(dtype):
    outs = [np.full(3, 5, DTYPES[dtype]) for _ in range(4)]
    x = np.empty(0, DTYPES[dtype])
    kinds = ["sum", "prod", "max", "min"]
    Pointwise(dtype, ["in", *kinds], [0] * 4, [], [((0, 3), [(3, 1)] + [(0, 1)] * 4)]).bind([x, *outs]).run()
    assert [o[0] for o in outs] == [0, 1, -np.inf, np.inf] and all((o == o[0]).all() for o in outs)
    kept = np.full(1, 5, DTYPES[dtype])
    Pointwise(dtype, ["in", "sum"], [0], [], [((0, 3), [(3, 1), (1, 0)])]).bind([x, kept]).run()
    assert kept[0] == 5


def test_nan_goes_on_through_reductions():
    x = np.zeros((40, 70), "f4")
    x[33, 55] = np.nan
    out = [np.empty(70, "f4") for _ in range(2)]
    Pointwise("f4", ["in", "max", "min"], [0, 0], [], [((40, 70), [(70, 1), (0, 1), (0, 1)])]).bind([x, *out]).run()
    for o in out:
        assert np.isnan(o[55]) and np.isnan(o).sum() == 1


@pytest.mark.parametrize("n", [5, 1000, 300000])
def test_in_place(n):
    """Outputs may lie upon inputs, though the inputs are read again afterwards."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n).astype("f4"), rng.normal(size=n).astype("f4")
    x, y = a.copy(), b.copy()
    k = Pointwise("f4", ["in", "in", "out", "out"], [1, 0], [], [((n,), [(1,)] * 4)])
    k.bind([x, y, x, y]).run()
    np.testing.assert_array_equal(x, b)
    np.testing.assert_array_equal(y, a)
    x, y = a.copy(), b.copy()
    program = [("add", 2, 0, 1), ("mul", 3, 0, 1), ("max", 4, 3, 0)]
    Pointwise("f4", ["in", "in", "out", "out"], [2, 4], program, [((n,), [(1,)] * 4)]).bind([x, y, x, y]).run()
    np.testing.assert_array_equal(x, a + b)
    np.testing.assert_array_equal(y, np.maximum(a * b, a))


def test_learner_update_over_many_segments():
    rng = np.random.default_rng(1)
    sizes = [int(s) for s in rng.choice([0, 1, 10, 64, 2304, 9216, 36864], 60)]
    w, v, g = ([rng.normal(size=s).astype("f4") for s in sizes] for _ in range(3))
    lr = np.array([0.1], "f4")
    want_v = [np.float32(0.9) * a + np.float32(0.1) * b for a, b in zip(v, g, strict=True)]
    want_w = [a - np.float32(0.1) * b for a, b in zip(w, want_v, strict=True)]
    program = [
        ("const", 4, 0.9),
        ("const", 5, 0.1),
        ("mul", 6, 1, 4),
        ("mul", 7, 2, 5),
        ("add", 8, 6, 7),
        ("mul", 9, 8, 3),
        ("sub", 10, 0, 9),
    ]
    segments = [((s,), [(1,), (1,), (1,), (0,), (1,), (1,)]) for s in sizes]
    k = Pointwise("f4", ["in"] * 4 + ["out"] * 2, [10, 8], program, segments)
    k.bind([array for a, b, c in zip(w, v, g, strict=True) for array in (a, b, c, lr, a, b)]).run()
    for a, b in zip(w + v, want_w + want_v, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_philox_known_answers():
    """The vectors that the authors of the generator publish."""
    for counter, key, words in [
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]:
        assert tuple(int(w) for w in philox.philox([np.asarray(c) for c in counter], key)) == words


def test_philox_twins_agree():
    for seed, step, purpose, row0 in [
        (0, 0, 0, 0),
        (2**63 + 5, 2**33 + 1, 7, 2**32 - 2),
        (1, -1, 4000000000, 12),
        (4, 1, 2, 3 << 32),
    ]:
        np.testing.assert_array_equal(
            philox_uniform(seed, step, purpose, row0, 4, 9), philox.uniform(seed, step, purpose, row0, 4, 9)
        )


@pytest.mark.parametrize("hw", [4, 25, 64])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_random_numbers(dtype, hw, instruction_set):
    rows, c = 6, 32
    out = np.empty((rows, c, hw), DTYPES[dtype])
    args = [((rows, c, hw), [dense(out.shape)])]
    for name, twin, tolerance in (("rand", philox.uniform, 0), ("randn", philox.normal, 3e-6 if dtype == "f4" else 1e-14)):
        k = Pointwise(dtype, ["out"], [0], [(name, 0, 9)], args).bind([out])
        k.run(seed=5, step=3, sample=(2 << 32) + 100)  # rank 2
        ranked = out.copy()
        np.testing.assert_allclose(
            ranked, twin(5, 3, 9, (2 << 32) + 100, rows, c * hw).reshape(out.shape), rtol=0, atol=tolerance
        )
        k.run(seed=5, step=3, sample=100)
        want = twin(5, 3, 9, 100, rows, c * hw).reshape(out.shape)
        assert not np.allclose(ranked, want)
        np.testing.assert_allclose(out, want, rtol=0, atol=tolerance)
        other = np.empty((rows, c // 16, hw, 16), DTYPES[dtype])  # the same numbers in the blocked layout
        k = Pointwise(dtype, ["out"], [0], [(name, 0, 9)], [(other.shape, [dense(other.shape)])], index_strides=[16 * hw, 1, hw])
        k.bind([other]).run(seed=5, step=3, sample=100)
        np.testing.assert_allclose(other.transpose(0, 1, 3, 2).reshape(out.shape), out, rtol=0, atol=tolerance)
    flat, size = np.empty((1, c, hw), DTYPES[dtype]), c * hw - 1
    for name, twin, tolerance in (
        ("rand", philox.stream_uniform, 0),
        ("randn", philox.stream_normal, 3e-6 if dtype == "f4" else 1e-14),
    ):
        shape = [((1, size), [dense((1, size))])]
        k = Pointwise(dtype, ["out"], [0], [(name, 0, 9)], shape, flow=[size]).bind([flat])
        for step in (0, 3, 2**32 // size, 2**33 + 5):  # the third one goes over the end of the lower half
            k.run(seed=5, step=step)
            np.testing.assert_allclose(flat.reshape(-1)[:size], twin(5, step, 9, size), rtol=0, atol=tolerance)
        np.testing.assert_allclose(np.concatenate([twin(5, s, 9, 6) for s in (0, 1)]), twin(5, 0, 9, 12), rtol=1e-15)
    big = np.empty((1000, 300), "f4")
    Pointwise("f4", ["out"], [0], [("rand", 0, 1)], [(big.shape, [dense(big.shape)])]).bind([big]).run(seed=1)
    assert big.min() > 0 and big.max() < 1 and abs(big.mean() - 0.5) < 3e-3 and abs(big.var() - 1 / 12) < 1e-3


def test_mistakes_are_named():
    good = ("f4", ["in", "out"], [1], [("neg", 1, 0)], [((4,), [(1,), (1,)])])
    for place, value, words in [
        (0, "f2", "expected dtype 'f4' or 'f8', got 'f2'"),
        (1, ["out", "in"], "all 'in' first"),
        (1, ["in", "mean"], "expected kinds from"),
        (2, [1, 1], "one register for each of 1 outputs"),
        (3, [("sine", 1, 0)], "no opcode 'sine'"),
        (3, [("add", 1, 0)], "'add' takes 2 operands"),
        (3, [("neg", 1, 7)], "register 7 is read before it is written"),
        (3, [("neg", 0, 0)], "register 0 is an input"),
        (4, [((4,), [(1,)])], "expected 2 lists of 1 strides"),
    ]:
        arguments = list(good)
        arguments[place] = value
        with pytest.raises(ValueError, match=".*" + words.replace("(", r"\(")):
            Pointwise(*arguments)
    with pytest.raises(ValueError, match="same dims"):
        Pointwise("f4", ["in", "sum", "sum"], [0, 0], [], [((4, 5), [(5, 1), (0, 1), (1, 0)])])
    with pytest.raises(ValueError, match="expected 3 buffers, got 1"):
        Pointwise(*good).set_buffers([0])
