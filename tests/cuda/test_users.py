"""User functions on the CUDA engine: Python and C on the host, CUDA kernels given as text."""

import ctypes

import numpy as np
import pytest
from native import compiled

import cogkit as C
from cogkit.errors import DeviceError, Misfit, UserFunctionError

F4, F8 = np.float32, np.float64

RELU = """
#include "cogkit_user.cuh"

template <class T> __device__ void relu(const cogkit_call &c) {
    const T *x = c.x[0].as<T>();
    T *y = c.y[0].as<T>();
    CG_EACH(i, c.y[0].count()) y[i] = x[i] > 0 ? x[i] : 0;
}
template <class T> __device__ void relu_back(const cogkit_call &c) {
    const T *x = c.x[0].as<T>(), *dy = c.dy[0].as<T>();
    T *dx = c.dx[0].as<T>();
    CG_EACH(i, c.dx[0].count()) dx[i] = x[i] > 0 ? dy[i] : 0;
}
CG_KERNEL(forward, cogkit_call c) { c.y[0].type == 4 ? relu<float>(c) : relu<double>(c); }
CG_KERNEL(backward, cogkit_call c) { c.dx[0].type == 4 ? relu_back<float>(c) : relu_back<double>(c); }
"""

# y = x w + settings[0], x (rows, n), w (n, m); dx = dy w', dw = sum of x' dy
TIMES = """
#include "cogkit_user.cuh"
CG_KERNEL(forward, cogkit_call c) {
    const float *x = c.x[0].as<float>(), *w = c.x[1].as<float>();
    float *y = c.y[0].as<float>();
    const int64_t n = c.x[0].shape[0], m = c.x[1].shape[1];
    CG_EACH(i, c.y[0].count()) {
        float sum = (float)c.settings[0];
        for (int64_t k = 0; k < n; k++) sum += x[i / m * n + k] * w[k * m + i % m];
        y[i] = sum;
    }
}
CG_KERNEL(backward, cogkit_call c) {
    const float *x = c.x[0].as<float>(), *w = c.x[1].as<float>(), *dy = c.dy[0].as<float>();
    const int64_t n = c.x[0].shape[0], m = c.x[1].shape[1], rows = c.x[0].rows;
    if (float *dx = c.dx[0].as<float>()) CG_EACH(i, rows *n) {
        float sum = 0;
        for (int64_t j = 0; j < m; j++) sum += dy[i / n * m + j] * w[i % n * m + j];
        dx[i] = sum;
    }
    if (float *dw = c.dx[1].as<float>()) CG_EACH(i, n *m) {
        float sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += x[r * n + i / m] * dy[r * m + i % m];
        dw[i] = sum;
    }
}
"""


@pytest.fixture(scope="module", autouse=True)
def registered(cuda_environment, tmp_path_factory):
    lib = ctypes.CDLL(compiled())
    C.register_native_user_function("cuda relu", cuda=RELU)
    path = tmp_path_factory.mktemp("user") / "times.cu"
    path.write_text(TIMES)
    C.register_native_user_function(
        "cuda times",
        cuda=path,
        infer_outputs=lambda i, a: [C.output_variable(i[1].shape[1:], i[0].dtype, i[0].dynamic_axes)],
    )
    C.register_native_user_function("host relu", forward=lib.relu_forward, backward=lib.relu_backward)
    C.register_native_user_function(
        "host scales",
        forward=lib.scales_forward,
        backward=lib.scales_backward,
        infer_outputs=lambda i, a: [C.output_variable(i[0].shape, i[0].dtype, i[0].dynamic_axes, name=n) for n in ("a", "b")],
    )
    C.register_native_user_function("both", forward=lib.relu_forward, backward=lib.relu_backward, cuda=RELU)


@pytest.fixture(autouse=True)
def on_the_gpu():
    with C.device.use_engine("cuda"):
        yield


def drawn(*shape, dtype=F4):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


class Square(C.UserFunction):
    """x squared, in Python; what it keeps is x."""

    def infer_outputs(self):
        x = self.inputs[0]
        return [C.output_variable(x.shape, x.dtype, x.dynamic_axes)]

    def forward(self, x, device=None, outputs_to_retain=None):
        return x, [a * a for a in x] if isinstance(x, list) else x * x

    def backward(self, x, gradient):
        return [2 * a * g for a, g in zip(x, gradient, strict=True)] if isinstance(x, list) else 2 * x * gradient


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("name", ["cuda relu", "host relu", "both", "python"])
def test_values_and_gradients(name, dtype, rows):
    x = C.input_variable(5, dtype=dtype, needs_gradient=True)
    data = drawn(rows, 5, dtype=dtype)
    if name == "python":
        f, value, slope = C.user_function(Square([x])), data * data, 2 * data
    else:
        f, value, slope = C.native_user_function(name, [x]), np.maximum(data, 0), data > 0
    for _ in range(3):  # the third is a graph where there is one
        np.testing.assert_allclose(f.eval({x: data}), value, rtol=1e-6)
    np.testing.assert_allclose((3 * f).grad({x: data}), 3 * slope.astype(dtype), rtol=1e-6)


def test_sequences():
    steps = [drawn(3, 4), drawn(1, 4), drawn(2, 4)]
    x = C.sequence.input_variable(4, needs_gradient=True)
    for f, value in ((C.native_user_function("cuda relu", [x]), np.maximum), (C.user_function(Square([x])), lambda a, _: a * a)):
        for got, want in zip(f.eval({x: steps}), steps, strict=True):
            np.testing.assert_allclose(got, value(want, 0), rtol=1e-6)


def test_in_a_recurrence():
    found = []
    for op in (lambda v: C.native_user_function("cuda relu", [v]), C.relu):
        x, p = C.sequence.input_variable(3), C.placeholder(shape=(3,))
        h = 0.5 * op(C.sequence.past_value(p) + x) + x
        found.append(h.replace_placeholders({p: h.output}).eval({x: [drawn(3, 3), drawn(1, 3), drawn(4, 3)]}))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("wrt", ["x", "w", "xw"])
def test_two_operands_and_settings(wrt, monkeypatch):
    data, x, w = drawn(6, 3), C.input_variable(3, needs_gradient=True), C.parameter(init=drawn(3, 4))
    f = C.native_user_function("cuda times", [x, w], {"bias": 0.5})
    found = []
    for order in ("fwd", "rev"):
        monkeypatch.setenv("CUDACPU_ORDER", order)
        found.append([f.eval({x: data}), f.grad({x: data}, [v for v, c in ((x, "x"), (w, "w")) if c in wrt])])
    assert repr(found[0]) == repr(found[1])
    with C.device.use_engine("cpu"):
        g = C.times(x, w) + 0.5
        wanted = [g.eval({x: data}), g.grad({x: data}, [v for v, c in ((x, "x"), (w, "w")) if c in wrt])]
    np.testing.assert_allclose(found[0][0], wanted[0], rtol=1e-5, atol=1e-6)
    for a, b in zip(*(list(v.values()) if isinstance(v, dict) else [v] for v in (found[0][1], wanted[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_learns_as_the_built_in_op_does():
    found = []
    for name in ("cuda relu", "host relu", None):
        C.set_seed(4)
        x, y = C.input_variable(4), C.input_variable(2)
        h = C.layers.Dense(5)(x)
        z = C.layers.Dense(2)(C.relu(h) if name is None else C.native_user_function(name, [h]))
        trainer = C.Trainer(z, C.squared_error(z, y), [C.sgd(z.parameters, 0.01)])
        for i in range(4):
            rng = np.random.default_rng(i)
            trainer.train_minibatch({x: rng.normal(size=(8, 4)).astype(F4), y: rng.normal(size=(8, 2)).astype(F4)})
        found.append([p.value for p in z.parameters])
    for got in found[:2]:
        for a, b in zip(got, found[2], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_errors(tmp_path):
    register, x = C.register_native_user_function, C.input_variable(3)
    with pytest.raises(ValueError, match="expected CUDA text with CG_KERNEL\\(forward, cogkit_call c\\), got none"):
        register("no kernel", cuda="int f;\n")
    with pytest.raises(OSError, match="nowhere"):
        register("no file", cuda=tmp_path / "nowhere.cu")
    with C.device.use_engine("cpu"), pytest.raises(Misfit, match="expected a C function as forward, got a CUDA kernel alone"):
        C.native_user_function("cuda relu", [x]).eval({x: drawn(2, 3)})
    register("not C++", cuda='#include "cogkit_user.cuh"\nCG_KERNEL(forward, cogkit_call c) { nonsense; }\n')
    with pytest.raises(DeviceError, match="to compile them, got(.|\\n)*nonsense"):
        C.native_user_function("not C++", [x]).eval({x: drawn(2, 3)})
    register("one way", cuda=RELU[: RELU.index("CG_KERNEL(backward")])
    x = C.input_variable(3, needs_gradient=True)
    with pytest.raises(ValueError, match="expected a backward"):
        C.native_user_function("one way", [x]).grad({x: drawn(2, 3)})
    many = C.native_user_function("cuda relu", [x], {f"n{i}": i for i in range(17)})
    with pytest.raises(ValueError, match="at most 16 numbers among its attributes for a CUDA kernel, got 17"):
        many.eval({x: drawn(2, 3)})
    fails = C.native_user_function("host scales", [C.input_variable(3, dtype=F8)], {"a": 1, "b": 2}, "fails")
    with pytest.raises(UserFunctionError, match=r"'fails' \(test_users.py:\d+\): expected the C function to return 0, got 7"):
        fails.eval(drawn(2, 3, dtype=F8))
