"""Ops of the user's own, in C++: values, gradients, row spaces, loops, errors, files, speed."""

import ctypes
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from native import compiled

import cogkit as C
from cogkit.engine.executable import Executable
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.seeding import Run
from cogkit.errors import ModelFileError, UserFunctionError

ENGINES = ["cpu", "reference"]
F4, F8 = np.float32, np.float64
INPUTS = {
    "none": (lambda d: C.input_variable(3, dtype=d, dynamic_axes=[], needs_gradient=True), (3,)),
    "batch": (lambda d: C.input_variable((3, 2), dtype=d, needs_gradient=True), (5, 3, 2)),
    "number": (lambda d: C.input_variable((), dtype=d, needs_gradient=True), (5,)),
    "sequence": (lambda d: C.sequence.input_variable(3, dtype=d, needs_gradient=True), [(3, 3), (1, 3), (4, 3)]),
}


def product(inputs, attributes):
    return [C.output_variable(inputs[0].shape[1:], inputs[0].dtype, inputs[1].dynamic_axes)]


def scales(inputs, attributes):
    x = inputs[0]
    return [C.output_variable(x.shape, x.dtype, x.dynamic_axes, name=n) for n in ("first", "second")]


@pytest.fixture(scope="module", autouse=True)
def library():
    """The functions of `native/user_ops.cpp`, registered."""
    lib = ctypes.CDLL(compiled())
    C.register_native_user_function("test relu", forward=lib.relu_forward, backward=lib.relu_backward)
    C.register_native_user_function("test times", compiled(), "create_times", infer_outputs=product)
    C.register_native_user_function("test scales", forward=lib.scales_forward, backward=lib.scales_backward, infer_outputs=scales)
    C.register_native_user_function("test one way", forward=lib.relu_forward)
    return lib


def relu(x, name=""):
    return C.native_user_function("test relu", [x], user_function_instance_name=name)


def drawn(shapes, dtype):
    rng = np.random.RandomState(3)
    if isinstance(shapes, list):
        return [rng.randn(*s).astype(dtype) for s in shapes]
    return rng.randn(*shapes).astype(dtype)


def equal(a, b):
    for p, q in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
        assert np.shape(p) == np.shape(q)
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_as_the_built_in_op(kind, dtype, engine):
    make, shapes = INPUTS[kind]
    with C.device.use_engine(engine):
        x = make(dtype)
        data = drawn(shapes, dtype)
        mine, theirs = (3 * op(C.tanh(x)) * x for op in (relu, C.relu))
        for feed in (data, data[:2], data):
            if kind == "none" and len(feed) != 3:
                continue
            equal(mine.eval({x: feed}), theirs.eval({x: feed}))
            equal(mine.grad({x: feed}), theirs.grad({x: feed}))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wrt", ["x", "w", "xw"])
def test_two_operands(wrt, engine):
    with C.device.use_engine(engine):
        w = C.parameter((3, 4), init=C.glorot_uniform())
        x = C.sequence.input_variable(3, needs_gradient="x" in wrt)
        data = drawn([(3, 3), (1, 3), (4, 3)], F4)
        mine, theirs = C.native_user_function("test times", [w, x]), C.times(x, w)
        equal(mine.eval({x: data}), theirs.eval({x: data}))
        asked = [v for v, c in ((x, "x"), (w, "w")) if c in wrt]
        a, b = (f.grad({x: data}, asked) for f in (mine, theirs))
        for v in asked:
            equal(*((s[v] if len(asked) > 1 else s) for s in (a, b)))


@pytest.mark.parametrize("engine", ENGINES)
def test_two_outputs_and_settings(engine):
    with C.device.use_engine(engine):
        x = C.input_variable(3, needs_gradient=True)
        data = drawn((5, 3), F4)
        f = C.native_user_function("test scales", [x], {"a": 2.0, "word": "none", "b": 3}, "mine")
        assert f.root_function.attributes == {"a": 2.0, "word": "none", "b": 3} and f.op_name == "test scales"
        found = f.eval({x: data})
        equal(found[f.first], 2 * data)
        equal(found[f.second], 3 * data)
        equal((f.first + 10 * f.second).grad({x: data}), np.full((5, 3), 32, F4))
        equal((10 * f.second).grad({x: data}), np.full((5, 3), 30, F4))


@pytest.mark.parametrize("engine", ENGINES)
def test_in_a_recurrence(engine):
    with C.device.use_engine(engine):
        x = C.sequence.input_variable(3, needs_gradient=True)
        data = drawn([(3, 3), (1, 3), (4, 3)], F4)
        found = []
        for op in (relu, C.relu):
            p = C.placeholder(shape=(3,))
            h = 0.5 * op(C.sequence.past_value(p) + x) + x
            h.replace_placeholders({p: h.output})
            found.append([h.eval({x: data}), h.grad({x: data}), h.eval({x: data[:2]})])
        for a, b in zip(*found, strict=True):
            equal(a, b)


def test_it_learns_as_the_built_in_op_does():
    found = []
    for op in (relu, C.relu):
        C.set_seed(4)
        x, y = C.input_variable(4), C.input_variable(2)
        z = C.layers.Dense(2)(op(C.layers.Dense(5)(x)))
        trainer = C.Trainer(z, C.squared_error(z, y), [C.sgd(z.parameters, 0.01)])
        rng = np.random.RandomState(0)
        for _ in range(20):
            trainer.train_minibatch({x: rng.randn(8, 4).astype(F4), y: rng.randn(8, 2).astype(F4)})
        found.append([p.value for p in z.parameters])
    for a, b in zip(*found, strict=True):
        equal(a, b)


def test_clones_and_files(tmp_path):
    x = C.input_variable(3)
    f = 1 + C.native_user_function("test scales", [x], {"a": 2.0, "b": 3.0, "table": np.ones((2, 2), F4)}, "kept").first
    data = drawn((5, 3), F4)
    equal(f.clone("clone").eval(data), f.eval({x: data}))
    f.save(tmp_path / "model")
    g = C.load_model(tmp_path / "model")
    equal(g.eval(data), f.eval({x: data}))
    assert (g.find_by_name("kept").attributes["table"] == 1).all()
    script = f"import cogkit as C; C.load_model({str(tmp_path / 'model')!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ModelFileError.__name__ in done.stderr and "user functions that are registered, got 'test scales'" in done.stderr


@pytest.mark.parametrize("form", ["number", "ctypes", "void", "capsule", "attribute"])
def test_forms_of_an_address(form, library):
    pointer = ctypes.cast(library.relu_forward, ctypes.c_void_p)
    made = ctypes.pythonapi.PyCapsule_New
    made.restype, made.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = b"int (cogkit_array const *, cogkit_array *, double const *)"
    given = {
        "number": pointer.value,
        "ctypes": library.relu_forward,
        "void": pointer,
        "capsule": made(pointer.value, name, None),
        "attribute": type("Compiled", (), {"address": pointer.value})(),
    }[form]
    C.register_native_user_function(f"test form {form}", forward=given)
    equal(C.native_user_function(f"test form {form}", [[-1.0, 2.0]]).eval(), np.array([0, 2], F4))


def test_cffi(library):
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    address = ctypes.cast(library.relu_forward, ctypes.c_void_p).value
    C.register_native_user_function("test cffi", forward=ffi.cast("int (*)(void *, void *, double *)", address))
    equal(C.native_user_function("test cffi", [[-1.0, 2.0]]).eval(), np.array([0, 2], F4))


CYTHON = """
cdef extern from "cogkit_user.h" nogil:
    ctypedef struct cogkit_array:
        void *data
        long rows
        long size

cdef api int twice(const cogkit_array *x, cogkit_array *y, const double *settings) noexcept nogil:
    cdef long i
    for i in range(x[0].rows * x[0].size):
        (<float *>y[0].data)[i] = 2 * (<float *>x[0].data)[i]
    return 0
"""


def test_cython(tmp_path, monkeypatch):
    """A `cdef api` function of a Cython module is a capsule in its `__pyx_capi__`."""
    pytest.importorskip("Cython")
    source = tmp_path / "cogkit_twice.pyx"
    source.write_text(CYTHON)
    subprocess.run([sys.executable, "-m", "cython", "-3", str(source)], check=True)
    library = tmp_path / ("cogkit_twice" + sysconfig.get_config_var("EXT_SUFFIX"))
    include = [f"-I{sysconfig.get_path('include')}", f"-I{C.native_user_include()}", f"-I{tmp_path}"]
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", *include, str(source.with_suffix(".c")), "-o", str(library)], check=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("cogkit_twice")
    C.register_native_user_function("test twice", forward=module.__pyx_capi__["twice"])
    equal(C.native_user_function("test twice", [[-1.0, 2.0]]).eval(), np.array([-2, 4], F4))


# ------------------------------------------------------------------------------------------------------------- errors
def test_errors(library, tmp_path):
    x = C.input_variable(3, needs_gradient=True)
    register = C.register_native_user_function
    with pytest.raises(ValueError, match="a registered op id .*test relu.*, got 'nothing'; use C.register_native_user_function"):
        C.native_user_function("nothing", [x])
    with pytest.raises(ValueError, match="an op id that is free, got 'test relu'"):
        register("test relu", forward=library.relu_forward)
    with pytest.raises(TypeError, match="forward as an address, a PyCapsule, a ctypes or cffi function pointer, got str"):
        register("other", forward="relu")
    with pytest.raises(ValueError, match="forward at an address, got a null pointer"):
        register("other", forward=0)
    with pytest.raises(ValueError, match="forward or the name of a library, got neither"):
        register("other")
    with pytest.raises(ValueError, match="a function create_nothing in .*, got none"):
        register("other", compiled(), "create_nothing")
    with pytest.raises(ValueError, match="a library and its factory, or functions, got neither or both"):
        register("other", compiled(), "create_times", forward=library.relu_forward)
    with pytest.raises(OSError, match="nowhere.so"):
        register("other", str(tmp_path / "nowhere.so"), "create")
    f = C.native_user_function("test one way", [x], user_function_instance_name="one")
    assert f.eval({x: -np.ones((1, 3))}).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match=r"test one way 'one' \(test_native_functions.py:\d+\): expected a backward"):
        f.grad({x: np.ones((1, 3))})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_that_fails(engine):
    x = C.input_variable(3, dtype=F8)
    f = C.native_user_function("test scales", [x], {"a": 1, "b": 2}, "fails")
    with (
        C.device.use_engine(engine),
        pytest.raises(
            UserFunctionError, match=r"'fails' \(test_native_functions.py:\d+\): expected the C function to return 0, got 7"
        ),
    ):
        f.eval({x: np.ones((2, 3))})


def test_sizes_must_follow_from_the_inputs():
    C.register_native_user_function(
        "test free",
        compiled(),
        "create_times",
        infer_outputs=lambda i, a: [C.output_variable(C.FreeDimension, F4, i[1].dynamic_axes)],
    )
    x = C.input_variable(3)
    f = C.native_user_function("test free", [C.parameter((3, 4)), x])
    with pytest.raises(ValueError, match="expected outputs of sizes that follow from those of its inputs"):
        f.eval({x: np.ones((2, 3))})


# -------------------------------------------------------------------------------------------------------------- speed
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_speed():
    """About as quick as the built-in op, back to back; wide bounds, since the machine has other things to do."""
    x = C.input_variable(4096, needs_gradient=True)
    arrays, types, sizes = bind_feeds({x: drawn((64, 4096), F4)})
    calls = []
    for op in (relu, C.relu):
        plan = Executable([op(x).output], reuse=True).plan(types, sizes)
        plan.run(arrays, sizes, Run(0, 0))
        calls.append(plan.binding(sizes).executor)
    times = [[], []]
    for _ in range(30):
        for e, t in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(5):
                e.run(0, 0, 0)
            t.append(time.perf_counter() - start)
    mine, theirs = (statistics.median(t) for t in times)
    assert mine < 4 * theirs


def test_the_header_is_installed():
    text = (Path(C.native_user_include()) / "cogkit_user.h").read_text()
    assert "cogkit_array" in text and "cogkit_forward" in text
