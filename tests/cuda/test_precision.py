"""Products in less than float32 on the CUDA engine: what operands are rounded to, by our own kernels and for libraries, and trainings."""

import itertools
from functools import partial

import numpy as np
import pytest
from cuda.plans import BATCH, LIBRARIES, alike, commands, explained, in_orders, libraries_in_use, lowered, normal

import cogkit as C
from cogkit.engine import precision
from cogkit.engine.cuda import convolution, cublaslt, cudnn_graphs, libraries, products
from cogkit.engine.cuda.driver import B
from cogkit.engine.cuda.plan import CudaPlan
from cogkit.engine.cuda.table import Call, i64, launch
from cogkit.engine.reference import ReferencePlan
from cogkit.engine.seeding import Run

F4 = np.float32
NAMES = ("tf32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def use(request, monkeypatch):
    """Whether libraries are used; by themselves tests are of our own kernels."""
    monkeypatch.setattr(precision, "_default", [])
    libraries_in_use(monkeypatch, getattr(request, "param", False))
    yield getattr(request, "param", False)
    libraries.forget()


def rounded(x, name):
    """Float32 numbers rounded, ties to even: NumPy's float16, and for the others the bits that are kept."""
    if name == "float32" or x.dtype != F4:
        return x
    if name == "float16":
        return x.astype(np.float16).astype(F4)
    drop = {"tf32": 13, "bfloat16": 16}[name]
    bits = np.ascontiguousarray(x).view(np.uint32)
    near = (bits.astype(np.uint64) + (1 << drop - 1) - 1 + (bits >> drop & 1)) >> drop << drop
    return np.where(np.isnan(x), x, near.astype(np.uint32).view(F4))


def same(build, name, *operands, rtol=2e-5, atol=2e-6, **lengths):
    """Checks outputs in a precision against the reference on operands that are rounded here; gives them and the plan."""
    with C.device.product_precision(name):
        graph, feeds, sizes = lowered(build, operands, **lengths)
        plan = CudaPlan(graph)
    found = in_orders(lambda: plan.run(feeds, sizes, Run(1, 0, 0)))
    short = [(rounded(x[0], name), x[1]) if isinstance(x, tuple) else rounded(x, name) for x in operands]
    graph, feeds, sizes = lowered(build, short, **lengths)
    for wish, fact in zip(ReferencePlan(graph).run(feeds, sizes, Run(1, 0, 0)), found, strict=True):
        assert fact.dtype == wish.dtype
        alike(fact, wish, rtol, atol)
    return found, plan


# what numbers are rounded to ----------------------------------------------------------------------------------------------------------

EXTREMES = np.concatenate([
    F4([0, -0.0, np.inf, -np.inf, np.nan, 1, 65504, 65519.996, 65520, 1e38, 3.4028235e38, 1e-40, -1e-45, 2**-14, 2**-24, 2**-25, 3 * 2**-25]),
    F4([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9, 6.1e-5, 5.9e-8, 2.9e-8]),
    np.random.default_rng(0).integers(0, 2**32, 4000, np.uint64).astype(np.uint32).view(F4),
    np.random.default_rng(1).normal(0, 1e-5, 999).astype(F4),
])  # fmt: skip


def rounding(kernel, x, kind):
    """What a kernel of products.cu makes of x, at places that are aligned and that are not, and whether it noted an overflow."""
    found = []
    for first in (0, 1):
        out = np.zeros(x.size, kind)
        arrays = [np.concatenate([np.zeros(first, F4), x]), out, np.zeros(1, np.int32)]
        call = lambda first=first: Call(3, [launch("products", kernel, 2, 64, [B(0, 4 * first), B(1), B(2), i64(x.size)])])  # noqa: E731
        found.append(commands(call, *arrays)[1:])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    return found[0][0], bool(found[0][1][0])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name, kind", [("float16", "f2"), ("bfloat16", "b2")])
def test_numbers(name, kind):
    """Each operand as NumPy rounds it: subnormal numbers, ties, infinities, NaN; as floats and in two bytes."""
    want = rounded(EXTREMES, name)
    bits, noted = rounding(f"narrowed_{kind}", EXTREMES, np.uint16)
    given = bits.view(np.float16).astype(F4) if kind == "f2" else (bits.astype(np.uint32) << 16).view(F4)
    floats, noted_too = rounding(f"rounded_{kind}", EXTREMES, F4)
    for found in (given, floats):
        np.testing.assert_array_equal(found, want)
        assert (np.signbit(found) == np.signbit(want))[~np.isnan(want)].all()
    assert noted and noted_too
    kept = EXTREMES[np.isinf(EXTREMES) | np.isnan(EXTREMES) | (np.abs(EXTREMES) < 65519)]
    assert not rounding(f"narrowed_{kind}", kept, np.uint16)[1]


def test_overflow_is_noted_only_for_numbers():
    for x, want in ((65504, False), (65520, True), (-1e9, True), (np.inf, False), (np.nan, False)):
        call = lambda: Call(2, [launch("products", "note_overflow", 1, 32, [B(0), B(1), i64(3)])])  # noqa: E731
        assert commands(call, F4([1, x, 2]), np.zeros(1, np.int32))[1][0] == want


# products and convolutions ------------------------------------------------------------------------------------------------------------


def node(*values, **attributes):
    return values[0].graph.node("matmul", list(values), **{"ta": False, "tb": False, "sum_rows": False, **attributes})


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("m, n, k", [(3, 5, 4), (1, 1, 40), (20, 33, 37), (3, 5, 0)])
def test_products(m, n, k, name, use):
    """With rows on either side, both, none; summed over them where there are some; results are not rounded."""
    rng = np.random.default_rng(m)
    tolerance = 1e-2 if use and name == "tf32" else 2e-5  # what stands in for the library does not round
    for ta, tb in ((False, False), (True, True)):
        for ra, rb in itertools.product((False, True), repeat=2):
            a = normal(rng, *([3] * ra), *((k, m) if ta else (m, k)))
            b = normal(rng, *([3] * rb), *((n, k) if tb else (k, n)))
            for total in (False, True) if ra or rb else (False,):
                build = lambda x, y, t=total, ta=ta, tb=tb: node(x, y, ta=ta, tb=tb, sum_rows=t)  # noqa: E731
                same(build, name, (a, BATCH) if ra else a, (b, BATCH) if rb else b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_bias_is_added_in_float32(name, use):
    rng = np.random.default_rng(1)
    a, b, bias = rounded(normal(rng, 9, 2, 20), name), rounded(normal(rng, 20, 7), name), normal(rng, 7)
    with C.device.product_precision(name):
        graph, feeds, sizes = lowered(lambda x, y, z: (node(x, y) + z).relu(), ((a, BATCH), b, bias))
        plan = CudaPlan(graph)
    found = plan.run(feeds, sizes, Run(1, 0, 0))[0]
    alike(found, np.maximum(a @ b + bias, 0))
    kind = {"bfloat16": "b2", "float16": "f2"}[name]
    text = explained(plan)[0]
    assert len(explained(plan)) == 1 and (f"cublaslt_{kind}_f4" in text and f"narrowed_{kind}" in text) == use


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
@pytest.mark.parametrize("tile", products.TILES["f4"], ids=str)
def test_tiles_of_products(tile, name, monkeypatch):
    monkeypatch.setitem(products.TILES, "f4", [tile])
    rng = np.random.default_rng(4)
    m, n, k = (5 if tile == products.THIN else tile[0] + 3), tile[1] + 5, 2 * tile[2] + 3
    a, b = normal(rng, m, k), normal(rng, k, n)
    with C.device.product_precision(name):
        found = commands(partial(products.own_product, B(0), B(1), B(2), m, n, k), a, b, np.zeros((m, n), F4))[2]
    alike(found, rounded(a, name) @ rounded(b, name), 1e-4, 1e-5)


CONVOLUTIONS = [
    ((2, 3, 6, 5), (4, 3, 3, 2), {"pads": ((1, 1), (0, 1))}),
    ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "pads": ((1, 1), (1, 1)), "strides": (2, 1)}),
    ((2, 20, 5, 5), (20, 1, 3, 3), {"groups": 20, "pads": ((1, 1), (1, 1))}),
    ((3, 10, 4), (9, 10, 2), {}),
]


def convolve(x, w, name, tolerance, **options):
    """A convolution and both gradients in a precision, against the reference on rounded operands; what has run."""
    rank = len(w) - 2
    a = {"strides": (1,) * rank, "dilation": (1,) * rank, "pads": ((0, 0),) * rank, "groups": 1, **options}
    rng = np.random.default_rng(5)
    vx, vw = normal(rng, *x), normal(rng, *w)
    check = partial(same, rtol=tolerance, atol=tolerance)
    _, plan = check(lambda v, u: v.graph.node("conv", [v, u], **a), name, (vx, BATCH), vw)
    names = explained(plan)
    dy = normal(rng, x[0], *plan.graph.outputs[0].type.shape)
    _, plan = check(lambda v, u: v.graph.node("conv_dx", [v, u], shape=x[1:], **a), name, (dy, BATCH), vw)
    names += explained(plan)
    _, plan = check(lambda v, u: v.graph.node("conv_dw", [v, u], shape=w, **a), name, (vx, BATCH), (dy, BATCH))
    return " ".join(names + explained(plan))


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x, w, options", CONVOLUTIONS)
def test_convolutions(x, w, options, name, use):
    names = convolve(x, w, name, 1e-2 if use and name == "tf32" else 2e-5, **options)
    assert names.count("cudnn_conv") == (3 if use else 0) and names.count("rounded_") == (6 if use and name != "tf32" else 0)
    assert names.count("_tf32") == (3 if use else 0)


@pytest.mark.parametrize("tile", [t for t in convolution.TILES["f4"] if t[0] < 128], ids=str)
def test_tiles_of_convolutions(tile, monkeypatch):
    """The largest is not taken: it does not round."""
    monkeypatch.setitem(convolution.TILES, "f4", [(128, 128, 8), tile])
    names = convolve((3, 5, 7, 8), (tile[0] + 3, 5, 3, 3), "bfloat16", 1e-4, pads=((1, 1), (1, 1)))
    assert f"gather_{tile[0]}x{tile[1]}_f4" in names and "gather_128" not in names


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_float64_is_not_rounded(name, use):
    rng = np.random.default_rng(6)
    same(node, name, normal(rng, 3, 4, dtype=np.float64), normal(rng, 4, 5, dtype=np.float64))


@pytest.mark.parametrize("use", [True], indirect=True)
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_scratch_of_libraries_lies_behind_the_operands(name, use, monkeypatch):
    """They fill it before they read."""
    monkeypatch.setenv("FAKE_CUBLASLT_SCRATCH", "4096")
    monkeypatch.setenv("FAKE_CUDNN_SCRATCH", "4096")
    monkeypatch.setattr(cudnn_graphs, "_kept", type(cudnn_graphs._kept)())
    rng = np.random.default_rng(8)
    same(node, name, normal(rng, 5, 7), normal(rng, 7, 6))
    convolve(*CONVOLUTIONS[0][:2], name, 2e-5, **CONVOLUTIONS[0][2])


@pytest.mark.parametrize("use", [True], indirect=True)
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_library_without_products_of_two_bytes(name, use, monkeypatch):
    """It multiplies numbers of ten bits, which these are; where it does not, our own kernels do."""
    whole = cublaslt.matmul
    rng = np.random.default_rng(9)
    a, b = normal(rng, 5, 7), normal(rng, 7, 6)
    monkeypatch.setattr(cublaslt, "matmul", lambda *x, **k: None if k.get("result") else whole(*x, **k))
    (text,) = explained(same(node, name, a, b)[1])
    assert text.count("products.rounded") == 2 and "cublaslt_f4" in text
    monkeypatch.setattr(cublaslt, "matmul", lambda *x, **k: None)
    (text,) = explained(same(node, name, a, b)[1])
    assert "cublaslt" not in text and "products.product_" in text


# the setting --------------------------------------------------------------------------------------------------------------------------


def test_what_is_compiled_keeps_its_precision():
    x = C.input_variable(4)
    w = C.parameter((4, 3), init=np.linspace(-1, 1, 12, dtype=F4).reshape(4, 3))
    z, a = C.times(x, w), normal(np.random.default_rng(7), 5, 4)
    found = {}
    with C.device.use_engine("cuda"):
        for name in ("float32", *NAMES, "float32"):
            with C.device.product_precision(name):
                assert C.device.current_product_precision().name == name
                found[name] = z.eval({x: a})
                alike(found[name], rounded(a, name) @ rounded(w.value, name))
        C.device.set_product_precision("bfloat16")
        np.testing.assert_array_equal(z.eval({x: a}), found["bfloat16"])
    assert len({v.tobytes() for v in found.values()}) == 3  # tf32 has the bits of float16
    np.testing.assert_array_equal(z.eval({x: a}), a @ w.value)  # the CPU engine has but one


def test_environment(monkeypatch):
    current = C.device.current_product_precision
    for variables, want in (({}, "float32"), ({"COGKIT_CUDA_TF32": "1"}, "tf32"),
                            ({"COGKIT_CUDA_TF32": "1", "COGKIT_CUDA_PRECISION": "bfloat16"}, "bfloat16")):  # fmt: skip
        precision._default[:] = []
        for name in ("COGKIT_CUDA_TF32", "COGKIT_CUDA_PRECISION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert current() == (want, 1)
    precision._default[:] = []
    monkeypatch.setenv("COGKIT_CUDA_PRECISION", "half")
    with pytest.raises(ValueError, match="COGKIT_CUDA_PRECISION: expected one of float32, tf32, bfloat16, float16, got 'half'"):
        current()


def test_wrong_settings():
    with pytest.raises(ValueError, match="set_product_precision: expected one of float32, tf32, bfloat16, float16, got 'int8'"):
        C.device.set_product_precision("int8")
    with pytest.raises(ValueError, match="product_precision: expected a loss_scale above 0, got 0"), \
            C.device.product_precision("float16", 0):  # fmt: skip
        pass
    with C.device.product_precision("float16"):
        assert C.device.current_product_precision() == ("float16", 1024)
    C.device.set_product_precision("float16", loss_scale=64)
    assert C.device.current_product_precision() == ("float16", 64)


# trainings ----------------------------------------------------------------------------------------------------------------------------


def learn(name, make, steps=16, **options):
    """(losses, parameters) of some minibatches in a precision."""
    with C.device.use_engine("cuda"), C.device.product_precision(name, **options):
        C.set_seed(3)
        x, y, model = make()
        trainer = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.momentum_sgd(model.parameters, 0.2, 0.9)])
        rng = np.random.RandomState(0)
        a, b = rng.randn(12, *x.shape).astype(F4), np.eye(3, dtype=F4)[rng.randint(0, 3, 12)]
        losses = []
        for _ in range(steps):
            trainer.train_minibatch({x: a, y: b})
            losses.append(trainer.previous_minibatch_loss_average)
        return np.array(losses), [p.value for p in model.parameters]


def mlp():
    x, y = C.input_variable(6), C.input_variable(3)
    return x, y, C.layers.Sequential([C.layers.Dense(16, activation=C.tanh), C.layers.Dense(3)])(x)


def convnet():
    x, y = C.input_variable((2, 6, 6)), C.input_variable(3)
    layers = [C.layers.Convolution2D((3, 3), 4, activation=C.relu, pad=True), C.layers.BatchNormalization(map_rank=1),
              C.layers.Convolution2D((3, 3), 4, strides=2, activation=C.relu), C.layers.Dense(3)]  # fmt: skip
    return x, y, C.layers.Sequential(layers)(x)


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("make", [mlp, convnet])
def test_trainings_follow_float32(make, use):
    """Losses fall as they do in float32, and are other numbers; master weights are float32."""
    want, _ = learn("float32", make)
    assert want[-1] < 0.7 * want[0]
    for name, tolerance in (("tf32", 5e-3), ("bfloat16", 4e-2), ("float16", 5e-3)):
        got, values = learn(name, make)
        np.testing.assert_allclose(got, want, atol=tolerance)
        assert all(v.dtype == F4 for v in values)
        assert (use and name == "tf32") or not np.array_equal(got, want)
        if name != "tf32":
            assert any(not np.array_equal(v, rounded(v, name)) for v in values)


def test_the_same_bits_in_each_order_of_threads():
    in_orders(lambda: [learn("bfloat16", convnet, 2)[0]])


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
def test_a_recurrent_net(use):
    """The products inside a recurrence are rounded as well."""

    def run(name):
        with C.device.use_engine("cuda"), C.device.product_precision(name):
            C.set_seed(3)
            x = C.sequence.input_variable(4)
            model = C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(5)), C.sequence.last])(x)
            rng = np.random.RandomState(0)
            return model.eval({x: [rng.randn(n, 4).astype(F4) for n in (3, 1, 5)]})

    want = run("float32")
    for name in NAMES:
        got = run(name)
        np.testing.assert_allclose(got, want, atol=2e-2)
        assert (use and name == "tf32") or not np.array_equal(got, want)


@pytest.mark.parametrize("scale", [1, 1024, 2.0**40])
def test_a_power_of_two_as_loss_scale_changes_no_bit_of_float32(scale):
    """Of dense gradients, and of those that come as lists of rows otherwise."""
    index = C.input_variable(5, is_sparse=True)

    def embedding():
        y = C.input_variable(3)
        return index, y, C.layers.Dense(3)(C.layers.Embedding(4)(index))

    for make in (mlp, convnet):
        want, got = learn("float32", make, 3), learn("float32", make, 3, loss_scale=scale)
        for a, b in zip([want[0], *want[1]], [got[0], *got[1]], strict=True):
            np.testing.assert_array_equal(a, b)
    want, got = learn("float32", embedding, 3), learn("float32", embedding, 3, loss_scale=scale)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)


def test_small_gradients_survive_in_float16_by_the_loss_scale():
    x = C.input_variable(3)
    w = C.parameter((3, 2), init=np.ones((3, 2), F4))
    z = C.reduce_sum(C.times(x, w) * 2.0**-26)
    a = F4([[1, 2, 3]])
    with C.device.use_engine("cuda"):
        for scale, want in ((1, 0), (1024, 2.0**-26 * a)):
            with C.device.product_precision("float16", loss_scale=scale):
                np.testing.assert_array_equal(z.grad({x: a}, wrt=[w])[:, 0], np.ravel(want * np.ones(3)))


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("kind", ["product", "convolution", "recurrence"])
def test_an_overflow_is_an_error_before_any_parameter_is_updated(kind, use):
    """Forward, by an operand; backward, by the loss scale. What comes afterwards is computed as before."""
    x, y = C.input_variable((1, 3, 3)), C.input_variable(2)
    if kind == "product":
        model = C.layers.Dense(2)(x)
    elif kind == "recurrence":
        x = C.sequence.input_variable(3)
        model = C.sequence.last(C.layers.Recurrence(C.layers.RNNStep(2, activation=C.tanh))(x))
    else:
        model = C.layers.Sequential([C.layers.Convolution2D((3, 3), 2, name="window"), lambda v: C.reshape(v, 2)])(x)
    a, b = np.ones((4, 1, 3, 3), F4), np.eye(2, dtype=F4)[[0, 1, 0, 1]]
    if kind == "recurrence":
        a = a[:, 0]
    with C.device.use_engine("cuda"):
        for feed, scale in ((a * 1e5, 1), (a, 2.0**30)):
            with C.device.product_precision("float16", loss_scale=scale):
                trainer = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.sgd(model.parameters, 0.1)])
                before = [p.value for p in model.parameters]
                for _ in range(3):
                    with pytest.raises(
                        ValueError, match="expected operands within 65504, the range of float16 products, got a larger one"
                    ):
                        trainer.train_minibatch({x: feed, y: b})
                for p, w in zip(model.parameters, before, strict=True):
                    np.testing.assert_array_equal(p.value, w)
                if scale == 1:
                    trainer.train_minibatch({x: a, y: b})
                    assert np.isfinite(trainer.previous_minibatch_loss_average)
