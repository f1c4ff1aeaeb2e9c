"""Laws over the table of op cases: engines agree, gradients are slopes, any number of rows and threads, same bits again."""

import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest
from cases import Built, as_array, record, values
from cases.graphs import GRAPHS
from cases.ops import CASES as OPS
from cases.random_graphs import Drawn
from test_goldens import here

import cogkit as C
from cogkit.debugging import gradcheck

CASES = OPS + GRAPHS
F4, F8 = np.float32, np.float64
OTHERS = [name for name in C.device.engines() if name != "reference"] if hasattr(C.device, "engines") else ["cpu"]
EVERY = ["reference", *OTHERS]


def each(rows):
    return pytest.mark.parametrize("case", rows, ids=[c.name for c in rows])


def on(engine, case, dtype, rows=None, gradients=True):
    with C.device.use_engine(engine):
        return record(C, case, dtype, rows, gradients)


def agree(got, want, case, what, loose=1.0):
    """Every array of two records: equal up to the case's tolerance, in float64 up to that type's."""
    assert set(got) == set(want)
    for key in sorted(want):
        a, b = np.asarray(got[key]), np.asarray(want[key])
        assert a.shape == b.shape, f"{what} {key}: shape {a.shape} against {b.shape}"
        assert a.dtype == b.dtype, f"{what} {key}: {a.dtype} against {b.dtype}"
        if case.exact and key[0] != "d":
            np.testing.assert_array_equal(a, b, err_msg=f"{what} {key}")
            continue
        scale = max(1.0, float(np.max(np.abs(b[np.isfinite(b)]), initial=0)))
        shrink = 1e-7 if b.dtype == F8 else 1.0
        np.testing.assert_allclose(
            a, b, rtol=max(case.rtol * loose * shrink, 1e-11), atol=case.atol * scale * loose * shrink, err_msg=f"{what} {key}"
        )


@pytest.mark.parametrize("engine", OTHERS)
@each(CASES)
def test_engine_equals_reference(case, engine):
    here(case)
    for dtype in (F4, F8):
        agree(on(engine, case, dtype), on("reference", case, dtype), case, np.dtype(dtype).name)


FREE = [c for c in CASES if c.batched and all(s.value is None for s in c.specs if s.role == "batch")]


@pytest.mark.parametrize("engine", OTHERS)
@each(FREE)
def test_any_number_of_rows(case, engine):
    here(case)
    for rows in (1, 17) if case.mixes_rows else (0, 17):  # 1 row: test_rows_are_independent
        if case.mode == "train" and rows == 1:
            continue  # the variance of one row is 0: every rounding is blown up
        got, want = on(engine, case, F4, rows), on("reference", case, F4, rows)
        agree(got, want, case, f"{rows} rows", 4.0)


@each([c for c in FREE if not c.mixes_rows])
def test_rows_are_independent(case):
    """A row's values do not depend on the rows beside it, and gradients of parameters are sums over rows."""
    here(case)
    whole = Built(C, case, F4, 5)
    outs = whole.forward()
    for row in (0, 4):
        operands = [v[row : row + 1] if s.role == "batch" else v for s, v in zip(case.specs, values(case, 5), strict=True)]
        for a, b in zip(Built(C, case, F4, 1, operands).forward(), outs, strict=True):
            np.testing.assert_allclose(a[0], b[row], rtol=case.rtol * 4, atol=case.atol * 4)


@pytest.mark.parametrize("engine", EVERY)
@each([c for c in CASES if c.diff and c.fd])
def test_gradients_are_slopes(case, engine):
    """Central differences along random directions, in float64."""
    here(case)
    with C.device.use_engine(engine):
        built = Built(C, case, F8, case.rows)
        found = gradcheck(built.function, built.feed, built.wrt.values(), directions=1)
        assert found.count == len(built.wrt) and found.error <= 2e-6, str(found)


@each([c for c in CASES if c.diff and (c.f8 or c.family == "graph")])
def test_gradient_alone_equals_gradient_beside_others(case):
    """Asking for one gradient gives the bits that asking for all gives, and `grad` gives them too."""
    here(case)
    built = Built(C, case, F4, case.rows)
    if len(built.wrt) < 2 or case.mode == "train":
        pytest.skip("one operand, or running statistics")
    _, together = built.backward()
    for key, operand in list(built.wrt.items()):
        built.wrt = {key: operand}
        np.testing.assert_allclose(built.backward()[1][key], together[key], rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("engine", OTHERS)
@each(CASES)
def test_same_bits_again(case, engine):
    """A second graph of the same case, and the same plan run again, give the same bits."""
    here(case)
    with C.device.use_engine(engine):
        one, two = Built(C, case, F4, case.rows), Built(C, case, F4, case.rows)
        before = one.forward()
        for other in (one, two):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(before, other.forward(), strict=True))
        if case.diff:
            (_, before), (_, after) = one.backward(), two.backward()
            for key, value in before.items():
                assert value.tobytes() == after[key].tobytes(), key


def random_graphs_agree(seed, engine):
    """A drawn graph on an engine and on the reference: two thirds in float32 (the formats of oneDNN), one in float64."""
    dtype, tolerance = (F8, 1e-9) if seed % 3 == 2 else (F4, 2e-3)
    found = []
    for name in (engine, "reference"):
        with C.device.use_engine(name):
            graph = Drawn(C, seed, dtype)
            found.append(graph.run())
    for got, want in zip(*found, strict=True):
        # gradients that are zeros but for rounding (before a normalisation) are small beside the others
        largest = max([1e-2, *(float(np.max(np.abs(w), initial=0)) for w in want)])
        for a, b in zip(got, want, strict=True):
            scale = max(1e-3 * largest, float(np.max(np.abs(b), initial=0)))
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg="; ".join(graph.story))


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed, engine):
    random_graphs_agree(seed, engine)


# ------------------------------------------------------------------------------------------------------------- threads
WIDE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import cogkit as C
from cases import record
from cases.graphs import GRAPHS
from cases.ops import CASES
HEAVY = ("convolution", "pooling", "layer", "graph")
found = {}
for case in CASES + GRAPHS:
    free = case.batched and all(s.value is None for s in case.specs if s.role == "batch")
    try:
        rows = (17 if case.family in HEAVY else 301) if free and not case.name.startswith(("network", "size")) else None
        record_ = record(C, case, np.float32, rows)
    except Exception:
        continue  # another test says so
    for k, v in record_.items():
        found[case.name + " " + k] = np.asarray(v)
np.savez(sys.argv[2], **found)
"""


def test_one_thread_equals_two(tmp_path):
    """All cases on wide minibatches, so that kernels split their work."""
    found = []
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.npz"
        env = dict(os.environ, OMP_NUM_THREADS=threads, PYTHONSAFEPATH="1")
        subprocess.run(
            [sys.executable, "-c", WIDE, str(pathlib.Path(__file__).parent), str(out)], check=True, env=env, timeout=600
        )
        with np.load(out) as z:
            found.append({k: z[k] for k in z.files})
    one, two = found
    assert set(one) == set(two)
    cases = {c.name: c for c in CASES}
    different = []
    for key in sorted(one):
        a, b, case = one[key], two[key], cases[key.split(" ")[0]]
        scale = max(1.0, float(np.max(np.abs(a[np.isfinite(a)]), initial=0)))
        if not np.allclose(a, b, rtol=case.rtol, atol=case.atol * scale, equal_nan=True):
            different.append(key)
    assert not different


# ---------------------------------------------------------------------------------------------------------- randomness
@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean(rate, engine):
    with C.device.use_engine(engine):
        C.set_seed(3)
        x = C.input_variable(1000, needs_gradient=True)
        y = C.dropout(x, rate)
        ones = np.ones((100, 1000), F4)
        state, found = y.forward({x: ones}, [y.output], {y.output})
        v = as_array(found[y.output])
        kept = v != 0
        np.testing.assert_allclose(v[kept], 1 / (1 - rate), rtol=1e-6)
        assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / v.size) ** 0.5
        assert abs(np.corrcoef(kept[:-1].ravel(), kept[1:].ravel())[0, 1]) < 0.02  # rows do not share a mask
        root = np.full_like(v, 2.0)
        np.testing.assert_allclose(y.backward(state, {y.output: root}, {x})[x], np.where(kept, 2 / (1 - rate), 0), rtol=1e-6)
        _, again = y.forward({x: ones}, [y.output], {y.output})
        assert not np.array_equal(as_array(again[y.output]), v)  # another step, another mask
        np.testing.assert_array_equal(y.eval({x: ones}), ones)


def test_dropout_repeats_with_the_seed():
    def masks(engine):
        with C.device.use_engine(engine):
            C.set_seed(11)
            x = C.input_variable(200)
            y = C.dropout(x, 0.5)
            return [as_array(y.forward({x: np.ones((7, 200), F4)}, [y.output], {y.output})[1][y.output]) for _ in range(2)]

    a, b = masks("cpu"), masks("cpu")
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert all(np.array_equal(p, q) for p, q in zip(a, masks("reference"), strict=True))


EULER = 0.5772156649015329
DRAWS = {  # name: (made from shape and from a twin, mean, standard deviation, low, high)
    "uniform": (dict(low=-1.0, high=3.0), 1.0, 4 / 12**0.5, -1, 3),
    "normal": (dict(mean=1.0, scale=2.0), 1.0, 2.0, -np.inf, np.inf),
    "gumbel": (dict(loc=1.0, scale=2.0), 1 + 2 * EULER, 2 * np.pi / 6**0.5, -np.inf, np.inf),
    "bernoulli": (dict(mean=0.3), 0.3, 0.21**0.5, 0, 1),
}


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("kind", sorted(DRAWS))
def test_random_values(kind, dtype, engine):
    options, mean, deviation, low, high = DRAWS[kind]
    with C.device.use_engine(engine):
        C.set_seed(5)
        x = C.input_variable((40, 50), dtype=dtype)
        like = getattr(C.random, kind + "_like")(x, **options)
        alone = getattr(C.random, kind)((100, 200), dtype=dtype, **options)
        first = [as_array(like.eval({x: np.zeros((7, 40, 50), dtype)})), as_array(alone.eval())]
        assert [v.shape for v in first] == [(7, 40, 50), (100, 200)]
        for v in first:
            assert v.dtype == dtype
            assert abs(v.mean() - mean) < 5 * deviation / v.size**0.5
            assert abs(v.std() / deviation - 1) < 0.03
            assert np.all(np.isfinite(v)) and v.min() >= low and v.max() <= high
            flat = v.ravel() - v.mean()
            assert abs((flat[1:] * flat[:-1]).mean()) < 5 * deviation**2 / v.size**0.5  # neighbours have nothing in common
        assert not np.array_equal(as_array(alone.eval()), first[1])  # another run, other values
        C.set_seed(5)
        alone = getattr(C.random, kind)((100, 200), dtype=dtype, seed=9, **options)
        again = getattr(C.random, kind)((100, 200), dtype=dtype, seed=9, **options)
        assert not np.array_equal(as_array(alone.eval()), first[1])
        C.set_seed(5)
        one = as_array(alone.eval())
        C.set_seed(5)
        np.testing.assert_array_equal(as_array(again.eval()), one)


# -------------------------------------------------------------------------------------------------------------- memory
def test_ten_thousand_minibatches_take_no_more_memory():
    """Training, evaluation and odd batch sizes; the first thousand may fill caches."""
    z = C.layers.Sequential([C.layers.Dense(16, activation=C.relu), C.layers.Dropout(0.2), C.layers.Dense(3)])
    x, y = C.input_variable(8), C.input_variable(3)
    model = z(x)
    loss, error = C.cross_entropy_with_softmax(model, y), C.classification_error(model, y)
    trainer = C.Trainer(model, (loss, error), [C.adam(model.parameters, 0.01, 0.9)])
    rng = np.random.RandomState(0)
    sizes = (16, 7, 16, 1, 16)
    feeds = [{x: rng.randn(n, 8).astype(F4), y: np.eye(3, dtype=F4)[rng.randint(0, 3, n)]} for n in sizes]
    page, used = os.sysconf("SC_PAGE_SIZE"), []
    for step in range(10_000):
        trainer.train_minibatch(feeds[step % len(feeds)])
        if step % 100 == 0:
            model.eval({x: feeds[0][x]})
            trainer.test_minibatch(feeds[1])
        if step % 1000 == 999:
            used.append(int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * page)
    assert used[-1] - used[0] < 2**20, f"{(used[-1] - used[0]) / 2**20:.1f} MiB in nine thousand minibatches"


# ---------------------------------------------------------------------------------------------------- values known on paper
NEUTRAL = {
    "reduce_sum": 0.0, "reduce_mean": np.nan, "reduce_max": -np.inf, "reduce_min": np.inf, "reduce_prod": 1.0,
    "reduce_log_sum_exp": -np.inf, "reduce_l1": 0.0, "reduce_l2": 0.0, "reduce_sum_square": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("op", sorted(NEUTRAL))
def test_of_nothing_a_reduction_is_its_neutral_element(op, engine):
    """CNTK has no empty axes and takes no empty minibatch."""
    f, want = getattr(C, op), NEUTRAL[op]
    nothing, some = C.input_variable((0, 3)), C.input_variable(3)
    with C.device.use_engine(engine):
        for y in (f(nothing, 0), f(nothing), f(nothing, (0, 1)), f(nothing, 0, keepdims=False)):
            np.testing.assert_array_equal(y.eval({nothing: np.zeros((2, 0, 3), F4)}), np.full((2, *y.shape), want, F4))
        assert f(nothing, 1).eval({nothing: np.zeros((2, 0, 3), F4)}).shape == (2, 0, 1)
        for axis in (C.Axis.default_batch_axis(), C.Axis.all_axes()):
            y = f(some, axis)
            np.testing.assert_array_equal(y.eval({some: np.zeros((0, 3), F4)}), np.full(y.shape, want, F4))


# ------------------------------------------------------------------------------------------------------------ the table
NO_ROW = {  # what makes or edits graphs, random values (tested above), and names that others are made of
    "ForwardDeclaration", "Signature", "as_block", "as_composite", "assign", "associative_multi_arg", "bernoulli", "bernoulli_like",
    "getitem", "gumbel", "gumbel_like", "identity", "normal_like", "output_variable", "placeholder", "random_normal", "random_uniform",
    "uniform_like", "has_steps", "needs_steps", "spread",
    # tested in test_user_functions.py, test_native_functions.py
    "custom_proxy_op", "native_user_function", "native_user_include", "register_native_user_function", "user_function",
}  # fmt: skip


@pytest.mark.parametrize("module", ["ops", "layers", "losses", "metrics"])
def test_every_op_and_layer_has_a_row(module):
    text = "".join(p.read_text() for p in (pathlib.Path(__file__).parent / "cases").glob("*.py") if p.stem != "errors")
    words = set(re.findall(r"\w+", text))
    found = getattr(C, module)
    files = (
        [found]
        if hasattr(found, "__all__")
        else [importlib.import_module(m.name) for m in pkgutil.iter_modules(found.__path__, found.__name__ + ".")]
    )
    names = {n for f in files for n in getattr(f, "__all__", ()) if inspect.isfunction(getattr(f, n))}
    assert names
    assert not names - words - NO_ROW
