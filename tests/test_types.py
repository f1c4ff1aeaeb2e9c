"""Element types: half precision over the whole table of op cases, casts, whole numbers, training with half-precision parameters."""

import functools
import json
import pathlib

import numpy as np
import pytest
from cases import Built, values
from cases.ops import CASES
from test_goldens import here

import cogkit as C

F2, F4, F8 = np.float16, np.float32, np.float64
EVERY = ["reference", "cpu"]
FLIPS = {"network/residual"}  # a rounding takes a value over the kink of a relu


def everything(case, dtype, operands):
    """Outputs and gradients of a case for operands and a root gradient that half precision holds."""
    built = Built(C, case, dtype, case.rows, operands)
    for p in built.function.parameters:
        p.value = p.value.astype(F2)
    root = built.root
    built.root = lambda shape: root(shape).astype(F2).astype(dtype)
    found = {f"y{i}": y for i, y in enumerate(built.forward())}
    if case.diff or case.mode == "train":
        outs, grads = built.backward()
        found |= {f"t{i}": y for i, y in enumerate(outs)} | grads
    return found


def near(got, want, key, loose=1.0):
    """Equal up to a few roundings to half precision."""
    kept = key.startswith("dp") and got.dtype == F4  # parameters that a layer keeps in float32
    assert (got.dtype == F2 or kept) and got.shape == want.shape, f"{key}: {got.dtype}{got.shape}, wanted float16 {want.shape}"
    with np.errstate(all="ignore"):
        want = want.astype(F2).astype(F4)
    finite = np.isfinite(want)
    scale = max(1.0, float(np.max(np.abs(want[finite]), initial=0)))
    np.testing.assert_allclose(got[finite].astype(F4), want[finite], rtol=4e-3 * loose, atol=1e-3 * scale * loose, err_msg=key)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=key)


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_half_precision(case, engine):
    """Every op, values and gradients, in half precision: what float32 gives, but for roundings."""
    here(case)
    if case.name == "cast/same":
        pytest.skip("its result is float64")
    operands = [v.astype(F2).astype(F8) for v in values(case, case.rows)]
    with C.device.use_engine(engine):
        want = everything(case, F4, operands)
        got = everything(case, F2, operands)
    assert set(got) == set(want)
    for key in sorted(want):
        if case.name in FLIPS and np.max(np.abs(want[key])) < 65504:
            assert np.linalg.norm(got[key].astype(F4) - want[key]) < 0.15 * np.linalg.norm(want[key])
        elif case.name not in FLIPS:
            near(got[key], want[key], key)


@functools.cache
def goldens():
    """What CNTK 2.7 computes in half precision, by name (goldens/make_half_goldens.py)."""
    with np.load(pathlib.Path(__file__).parent / "goldens" / "half.npz", allow_pickle=False) as z:
        numbers, shapes, found = z["numbers"], json.loads(str(z["about"]))["shapes"], {}
    for key, shape in shapes.items():
        size = int(np.prod(shape))
        found[key], numbers = numbers[:size].reshape(shape), numbers[size:]
    return found


WRONG = {"times:vector_matrix", "argmin:ties"}  # CNTK's own results in float32 are others
RECORDED = {key.split("/")[0] for key in goldens()} - WRONG


@pytest.mark.parametrize("case", [c for c in CASES if c.name.replace("/", ":") in RECORDED], ids=repr)
def test_half_precision_as_in_cntk(case):
    """CNTK rounds after each primitive of a composite op, we after each op: the same up to a few roundings."""
    start = case.name.replace("/", ":") + "/"
    want = {k[len(start) :]: v for k, v in goldens().items() if k.startswith(start)}
    built = Built(C, case, F2, case.rows, [v.astype(F2).astype(F8) for v in values(case, case.rows)])
    got = {f"y{i}": y for i, y in enumerate(built.forward())}
    if any(key[0] == "d" for key in want):
        got |= built.backward()[1]
    for key, w in want.items():
        near(got[key], w, key, 4.0)


def test_batch_normalisation_of_half_precision_keeps_its_statistics_in_float32():
    """A sum over a minibatch does not end at 65504, and what is averaged over minibatches does not stop at half precision's steps."""
    x = C.input_variable(2, dtype=F2)
    mean, variance = C.constant(0, (2,), F4), C.constant(0, (2,), F4)
    scale, bias = C.parameter((2,), 1, F4), C.parameter((2,), 0, F4)
    f = C.batch_normalization(x, scale, bias, mean, variance, False, running_count=C.constant(0, (), F4))
    data = np.random.default_rng(0).uniform(900, 1100, (300, 2)).astype(F2)
    for _ in range(2):
        f.forward({x: data}, keep_for_backward=f.outputs)
    assert f.dtype == F2 and mean.dtype == F4
    np.testing.assert_allclose(mean.value, data.astype(F8).mean(0), rtol=1e-6)
    grads = f.grad({x: data}, wrt=[scale, bias])
    assert {g.dtype for g in grads.values()} == {np.dtype(F4)}
    np.testing.assert_allclose(f.eval({x: data}).astype(F8).std(0), 1, rtol=1e-2)


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("n", [5000, 70_000])
def test_sums_of_half_precision_are_made_in_float32(engine, n):
    x = C.input_variable(n, dtype=F2)
    data = np.full((1, n), 0.25, F2)
    with C.device.use_engine(engine):
        assert C.reduce_mean(x).eval({x: data}) == 0.25
        assert C.reduce_sum(x).eval({x: data}) == F2(n / 4)
        assert C.times(x, C.constant(np.ones((n, 1), F2))).eval({x: data}) == F2(n / 4)


def test_roundings_that_change_nothing_are_left_out():
    """Programs round where a result may have more bits, and not after a maximum of two numbers of half precision."""
    x = C.input_variable(3, dtype=F2)
    text = C.relu(C.element_max(x, -x)).explain({x: np.ones((1, 3), F2)})
    assert "half" not in text.split("fuse")[0]
    text = C.relu(x * x).explain({x: np.ones((1, 3), F2)}).split("fuse")[0]
    assert text.count("half(") == 1


def test_casts():
    x = C.input_variable(4)
    data = np.array([[1.9, -300.7, 70000, 1 + 2**-11]], F4)
    for dtype, want in [
        (F2, [1.9, -300.75, np.inf, 1]),
        (F8, data[0]),
        (np.int8, [1, -128, 127, 1]),
        (np.int16, [1, -300, 32767, 1]),
    ]:
        for engine in EVERY:
            with C.device.use_engine(engine), np.errstate(over="ignore"):
                got = C.cast(x, dtype).eval({x: data})
                assert got.dtype == dtype
                np.testing.assert_array_equal(got[0], np.asarray(want, dtype))
    # in one step: by way of float32 it would be 1
    y = C.input_variable(1, dtype=F8)
    just_above = np.array([[1 + 2.0**-11 + 2.0**-40]])
    assert C.cast(y, F2).eval({y: just_above}) == F2(1 + 2**-10)


def test_gradients_go_through_casts():
    x = C.input_variable(3, needs_gradient=True)
    half = C.cast(x, F2)
    data = np.array([[1, 2, 3]], F4)
    grad = C.cast(half * half, F4).grad({x: data})
    assert grad.dtype == F4
    np.testing.assert_array_equal(grad, 2 * data)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_whole_numbers_are_held_but_not_computed_with(dtype, tmp_path):
    w = C.parameter((2, 3), dtype=dtype)
    w.value = np.arange(6).reshape(2, 3)
    assert w.value.dtype == dtype
    with pytest.raises(
        ValueError, match=rf"Plus .*: expected operands of float16, float32 or float64, got {np.dtype(dtype).name}; convert"
    ):
        w + w
    f = C.cast(w, F4) * 2
    np.testing.assert_array_equal(f.eval(), 2.0 * np.arange(6).reshape(2, 3))
    f.save(str(tmp_path / "m"))
    again = C.load_model(str(tmp_path / "m"))
    assert again.parameters[0].dtype == dtype
    np.testing.assert_array_equal(again.eval(), f.eval())


def test_half_precision_models_are_saved(tmp_path):
    x = C.input_variable(3, dtype="float16")
    f = C.times(x, C.parameter((3, 5), dtype="float16", init=C.glorot_uniform()))
    f.save(str(tmp_path / "m"))
    data = np.array([[1, 2, 3]], F2)
    np.testing.assert_array_equal(C.load_model(str(tmp_path / "m")).eval(data), f.eval(data))


def test_initial_values_are_drawn_in_float32():
    init = C.glorot_uniform(seed=3)
    np.testing.assert_array_equal(
        C.parameter((4, 5), init, F2).value, C.parameter((4, 5), C.glorot_uniform(seed=3), F4).value.astype(F2)
    )


@pytest.mark.parametrize(
    ("dtype", "want"), [("float", F4), ("double", F8), (float, F8), (int, F4), ("float16", F2), (np.int8, np.int8)]
)
def test_names_of_types(dtype, want):
    assert C.input_variable(2, dtype=dtype).dtype == want


def test_types_that_no_value_has_are_refused():
    with pytest.raises(TypeError, match="expected float16, float32, float64, int8 or int16, got int32"):
        C.input_variable(2, dtype=np.int32)


# training ------------------------------------------------------------------------------------------------------------------------

RATE = C.learning_parameter_schedule(0.05)
MOMENTUM = C.momentum_schedule(0.9)
LEARNERS = {
    "sgd": lambda p: C.sgd(p, RATE),
    "momentum_sgd": lambda p: C.momentum_sgd(p, RATE, MOMENTUM),
    "nesterov": lambda p: C.nesterov(p, RATE, MOMENTUM),
    "adagrad": lambda p: C.adagrad(p, RATE),
    "adadelta": lambda p: C.adadelta(p, 1.0),
    "adam": lambda p: C.adam(p, RATE, MOMENTUM),
    "fsadagrad": lambda p: C.fsadagrad(p, RATE, MOMENTUM),
    "rmsprop": lambda p: C.rmsprop(p, RATE, 0.9, 1.2, 0.8, 10, 0.1),
}


def trained(dtype, make, engine="cpu", steps=20):
    """Losses of a small network, trained on the same numbers in every element type."""
    C.set_seed(3)
    rng = np.random.default_rng(0)
    with C.device.use_engine(engine), C.default_options(dtype=dtype):
        x, y = C.input_variable(8, dtype=dtype), C.input_variable(3, dtype=dtype)
        model = C.layers.Sequential([C.layers.Dense(16, activation=C.relu), C.layers.BatchNormalization(), C.layers.Dense(3)])(x)
        trainer = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [make(model.parameters)])
        true = rng.standard_normal((8, 3))
        losses = []
        for _ in range(steps):
            data = rng.standard_normal((64, 8)).astype(F2)
            labels = np.eye(3)[(data @ true).argmax(1)]
            trainer.train_minibatch({x: data.astype(dtype), y: labels.astype(dtype)})
            losses.append(trainer.previous_minibatch_loss_average)
    return losses, trainer


@pytest.mark.parametrize("name", LEARNERS)
def test_training_in_half_precision_follows_float32(name):
    want, _ = trained(F4, LEARNERS[name])
    for engine in EVERY:
        got, _ = trained(F2, LEARNERS[name], engine)
        np.testing.assert_allclose(got, want, atol=5e-3)


def small_steps(master):
    """100 steps of 1e-4 from 1, of which half precision's neighbours are 1e-3 apart."""
    w = C.parameter((1,), 1.0, F2)
    learner = C.sgd([w], C.learning_parameter_schedule(1e-4, minibatch_size=1))
    learner.master_weights = master
    for _ in range(100):
        learner.update({w: np.ones(1, F2)}, 1)
    return w, learner


def test_master_weights_add_up_small_steps():
    np.testing.assert_allclose(small_steps(True)[0].value, 0.99, atol=1e-3)
    assert small_steps(False)[0].value == 1


def test_master_weights_follow_a_parameter_that_is_set():
    w, learner = small_steps(True)
    w.value = np.array([2.0], F2)
    learner.update({w: np.zeros(1, F2)}, 1)
    assert w.value == 2


def test_master_weights_are_in_checkpoints():
    w, learner = small_steps(True)
    state = learner.create_checkpoint()
    master = learner.masters[w].value
    learner.update({w: np.ones(1, F2)}, 1)
    learner.restore_from_checkpoint(state)
    np.testing.assert_array_equal(learner.masters[w].value, master)
    assert learner.masters[w].dtype == F4


def test_sequences_in_half_precision():
    """A recurrence, over engines and against float32."""
    data = [np.random.default_rng(i).uniform(-1, 1, (n, 4)).astype(F2) for i, n in enumerate((3, 5, 1))]
    found = {}
    for dtype, engine in [(F4, "cpu"), (F2, "cpu"), (F2, "reference")]:
        C.set_seed(5)
        with C.device.use_engine(engine), C.default_options(dtype=dtype):
            x = C.sequence.input_variable(4, dtype=dtype, needs_gradient=True)
            z = C.layers.Recurrence(C.layers.LSTM(6))(x)
            for p in z.parameters:
                p.value = p.value.astype(F2)
            grads = z.grad({x: [a.astype(dtype) for a in data]}, wrt=[x, *z.parameters])
            values = z.eval({x: [a.astype(dtype) for a in data]})
            found[dtype, engine] = [*values, *(g for v in grads.values() for g in (v if isinstance(v, list) else [v]))]
    for engine in EVERY:
        for a, b in zip(found[F2, engine], found[F4, "cpu"], strict=True):
            near(a, b, engine, 2.0)


def test_sparse_values_of_half_precision_are_refused():
    with pytest.raises(
        TypeError, match=r"Input 'x' .*: expected float32 or float64 for sparse values, got float16; cast what is computed"
    ):
        C.input_variable(5, is_sparse=True, dtype=F2, name="x")


def test_layers_of_half_precision_normalise_with_float32():
    with C.default_options(dtype=F2):
        model = C.layers.Sequential([C.layers.Dense(3), C.layers.BatchNormalization()])(C.input_variable(4, dtype=F2))
    assert [p.dtype for p in model.parameters] == [F4, F4, F2, F2]
    assert {c.dtype for c in model.constants} == {F4}
    assert model.eval(np.ones((2, 4), F2)).dtype == F2
