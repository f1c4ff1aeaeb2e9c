"""Random ops and samplers: distributions, seeds, what equals what; losses over samples of classes, and losses of ranks."""

import math

import numpy as np
import pytest
import scipy.sparse
from scipy import stats

import cogkit as C
from cogkit.engine import philox, sampling

R = C.random
ENGINES = ["reference", "cpu"]
F4 = np.float32
WEIGHTS = np.array([1, 3, 0, 5, 1, 2], F4)


def as_array(value):
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def drawn(weights, n, duplicates, seed=4, runs=1):
    """Numbers of the classes drawn, (runs, n)."""
    f = C.random_sample(weights, n, duplicates, seed=seed)
    return np.array([as_array(f.eval()).argmax(axis=1) for _ in range(runs)])


# ------------------------------------------------------------------------------------------------------------- distributions
DISTRIBUTIONS = {
    "uniform": (lambda **k: R.uniform((40, 50), low=-1.0, high=3.0, **k), stats.uniform(-1, 4)),
    "normal": (lambda **k: R.normal((40, 50), mean=2.0, scale=0.5, **k), stats.norm(2, 0.5)),
    "gumbel": (lambda **k: R.gumbel((40, 50), loc=1.0, scale=2.0, **k), stats.gumbel_r(1, 2)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name, engine):
    make, law = DISTRIBUTIONS[name]
    with C.device.use_engine(engine):
        f = make(seed=11)
        values = np.concatenate([f.eval().ravel() for _ in range(5)])
    assert stats.kstest(values, law.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_bernoulli(rate):
    values = R.bernoulli((100, 200), mean=rate, seed=3).eval()
    assert set(np.unique(values)) <= {0.0, 1.0} and abs(values.mean() - rate) < 0.015


def test_over_sequences():
    """The forms `_like` give each step of each sequence numbers of its own."""
    x = C.sequence.input_variable((2, 3))
    data = [np.zeros((n, 2, 3), F4) for n in (4, 1, 300)]
    for make in (R.uniform_like, R.normal_like, R.gumbel_like, R.bernoulli_like):
        found = make(x, seed=5).eval({x: data})
        assert [v.shape for v in found] == [d.shape for d in data]
        if make is not R.bernoulli_like:
            every = np.concatenate([v.ravel() for v in found])
            assert len(np.unique(every)) > 0.999 * every.size
    noisy = C.sequence.reduce_sum(R.uniform_like(x, seed=5))
    np.testing.assert_allclose(
        noisy.eval({x: data}), [v.sum(axis=0) for v in R.uniform_like(x, seed=5).eval({x: data})], rtol=1e-5
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [R.uniform, R.normal, R.gumbel, R.bernoulli])
def test_twice_n_is_once_2n(make, engine):
    C.set_seed(1)  # an earlier test may have gone on from a checkpoint's step
    for n in (1, 3, 256):
        with C.device.use_engine(engine):
            half, whole = make((n,), seed=7), make((2 * n,), seed=7)
            np.testing.assert_array_equal(np.concatenate([half.eval(), half.eval()]), whole.eval())


def test_streams_of_long_runs_do_not_repeat():
    """Beyond 2**32 numbers."""
    size = 2**20
    first = philox.stream_uniform(1, 2, 3, 64)
    assert not np.array_equal(philox.stream_uniform(1, 2 + 2**32 // 64, 3, 64), first)
    later = philox.stream_normal(1, 2**13, 3, size)  # 2**33 on
    assert not np.array_equal(later[:64], philox.stream_normal(1, 0, 3, 64)) and abs(later.mean()) < 0.01


# --------------------------------------------------------------------------------------------------------------------- seeds
def test_seeds_of_dropout():
    x = C.input_variable(400)
    ones = np.ones((2, 400), F4)

    def mask(f):
        return f.forward({x: ones}, f.outputs, f.outputs)[1][f.output]

    a, same, other = (C.dropout(x, 0.5, seed=s) for s in (1, 1, 2))
    first, again = mask(a), mask(a)
    assert not np.array_equal(first, again)  # each run draws anew
    np.testing.assert_array_equal(mask(same), first)  # equal seeds draw alike, run by run
    np.testing.assert_array_equal(mask(same), again)
    assert not np.array_equal(mask(other), first)
    assert not np.array_equal(first[0], first[1])
    C.set_seed(3)
    f, g = C.dropout(x, 0.5), C.dropout(x, 0.5)
    one, two = mask(f), mask(g)
    assert not np.array_equal(one, two)  # without seeds each node has its own
    C.set_seed(3)
    np.testing.assert_array_equal(mask(C.dropout(x, 0.5)), one)
    np.testing.assert_array_equal(mask(g), two)  # what is built already begins again too
    assert abs((one > 0).mean() - 0.5) < 0.06 and set(np.unique(one)) == {0.0, 2.0}


def test_gradients_see_the_mask_of_their_forward():
    x = C.input_variable(50, needs_gradient=True)
    f = C.dropout(x, 0.5)
    for _ in range(3):
        state, values = f.forward({x: np.ones((2, 50), F4)}, f.outputs, f.outputs)
        slope = f.backward(state, {f.output: np.ones((2, 50), F4)}, {x})[x]
        np.testing.assert_array_equal(slope, values[f.output])


def test_an_attribute_sets_the_seed():
    x = C.input_variable(30)
    f, g = C.dropout(x, 0.5), C.dropout(x, 0.5, seed=9)
    assert f.root_function.attributes["rngSeed"] != g.root_function.attributes["rngSeed"] == 9
    f.set_attribute("rngSeed", 9)
    mine, theirs = (h.forward({x: np.ones((1, 30), F4)}, h.outputs, h.outputs)[1][h.output] for h in (f, g))
    np.testing.assert_array_equal(mine, theirs)


# ------------------------------------------------------------------------------------------------------------------- samplers
@pytest.mark.parametrize("engine", ENGINES)
def test_draws_with_duplicates(engine):
    n, runs = (50, 20) if engine == "reference" else (1000, 20)
    with C.device.use_engine(engine):
        counts = np.bincount(drawn(WEIGHTS, n, True, runs=runs).ravel(), minlength=6)
    share = WEIGHTS / WEIGHTS.sum()
    assert counts[2] == 0
    assert stats.chisquare(counts[share > 0], (share * n * runs)[share > 0]).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 4])
def test_draws_without_duplicates(n):
    """Each class once; the first draw has the chances of the weights; how often a class is in is what the frequency says, nearly."""
    runs = 3000
    found = drawn(WEIGHTS, n, False, runs=runs)
    assert all(len(set(row)) == n for row in found)
    share = WEIGHTS / WEIGHTS.sum()
    first = np.bincount(found[:, 0], minlength=6) / runs
    assert np.abs(first - share).max() < 4 * 0.5 / math.sqrt(runs)
    often = C.random_sample_inclusion_frequency(WEIGHTS, n, False).eval()
    assert often.sum() == pytest.approx(n, rel=1e-5) and often[2] == 0
    assert np.abs(np.bincount(found.ravel(), minlength=6) / runs - often).max() < 0.05


def test_all_that_can_be_drawn():
    assert sorted(drawn(WEIGHTS, 5, False)[0]) == [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(C.random_sample_inclusion_frequency(WEIGHTS, 5, False).eval(), WEIGHTS > 0)


@pytest.mark.parametrize("duplicates", [True, False])
def test_samplers_are_their_twins(duplicates):
    """The kernel and its meaning in NumPy, over many weights, steps and both types."""
    for dtype in (np.float32, np.float64):
        for classes, n in ((1, 1), (7, 3), (1000, 40), (5, 5)):
            weights = np.arange(1, classes + 1, dtype=dtype)
            found = []
            for engine in ENGINES:
                with C.device.use_engine(engine):
                    C.set_seed(2)
                    f = C.random_sample(weights, n, duplicates, seed=8)
                    often = C.random_sample_inclusion_frequency(weights, n, duplicates)
                    found.append([as_array(f.eval()) for _ in range(3)] + [often.eval()])
            for a, b in zip(*found, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5)


def test_frequencies_of_weights_of_all_sizes():
    """The number of tries is found for weights that differ by many powers of ten."""
    for weights, n in (
        (np.r_[np.full(100, 100.0), np.full(100, 10.0), np.full(100, 0.1)], 200),
        (np.r_[1.0, np.full(3, 1e-9)], 2),
        (1.0 / np.arange(1, 2001), 1999),
        (np.ones(10), 9),
    ):
        often = sampling.inclusion_frequency(weights, n)
        assert often.sum() == pytest.approx(n, rel=1e-9) and (often > 0).all() and (often <= 1).all()


def test_weights_that_show_too_late():
    """Parameters may hold what are no weights: nothing is drawn."""
    w = C.parameter((3,), init=np.array([1, 2, 3], F4))
    f, often = C.random_sample(w, 2, False), C.random_sample_inclusion_frequency(w, 2, False)
    assert as_array(f.eval()).sum() == 2
    for bad in ([1, -1, 1], [1, 0, 0], [1, np.nan, 1]):
        w.value = np.array(bad, F4)
        for engine in ENGINES:
            with C.device.use_engine(engine):
                assert as_array(f.eval()).sum() == 0 and np.isnan(often.eval()).all()


# ---------------------------------------------------------------------------------------------------- losses over samples of classes
CLASSES, SIZE, BATCH = 40, 6, 5
rng = np.random.default_rng(0)
X, LABELS = rng.normal(size=(BATCH, SIZE)).astype(F4), np.array([0, 7, 39, 7, 20])
Y = np.eye(CLASSES, dtype=F4)[LABELS]
NOISE = np.arange(1, CLASSES + 1).astype(F4)
W0, B0 = rng.normal(size=(CLASSES, SIZE)).astype(F4), rng.normal(size=(CLASSES, 1)).astype(F4)


def loss_of(make, *args, **options):
    x, y = C.input_variable(SIZE, needs_gradient=True), C.input_variable(CLASSES)
    w, b = C.parameter(init=W0), C.parameter(init=B0)
    return make(w, b, x, y, NOISE, *args, **options), {x: X, y: Y}, (w, b, x)


@pytest.mark.parametrize("duplicates", [True, False])
def test_nce_on_average(duplicates):
    """The mean over many samples is the loss with the sum over all classes in the place of the drawn ones."""
    n = 10
    f, feed, _ = loss_of(C.nce_loss, n, duplicates, seed=1)
    k = n * NOISE / NOISE.sum()
    z = X @ W0.T + B0.ravel()
    own = z[np.arange(BATCH), LABELS]
    exact = np.logaddexp(own, np.log(k[LABELS])) - own + (k * np.logaddexp(0, z - np.log(k))).sum(axis=1)
    found = np.array([f.eval(feed) for _ in range(3000)])
    error = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact) < 5 * error + (0 if duplicates else 0.03 * exact)).all()


@pytest.mark.parametrize("make", [C.nce_loss, C.losses.sampled_softmax_loss])
def test_only_rows_of_drawn_classes_are_touched(make):
    f, feed, (w, b, x) = loss_of(make, 8, seed=21)
    for step in range(3):
        slopes = f.grad(feed, [w, b, x])
        sample = set(drawn(NOISE, 8, True, seed=21, runs=step + 1)[-1])
        for p in (w, b):
            touched = set(np.flatnonzero(np.abs(np.asarray(slopes[p])).reshape(CLASSES, -1).sum(axis=1)))
            assert touched <= sample | set(LABELS)
            assert set(LABELS) <= touched
        assert (slopes[x] != 0).all()
    plan = f.explain(feed)
    assert f"({BATCH}, {CLASSES})" not in plan
    widths = [line for line in plan.splitlines() if "matmul" in line and f"{CLASSES}" in line.split("=")[0]]
    assert not widths, "the outputs of all classes are computed"


@pytest.mark.parametrize("make", [C.nce_loss, C.losses.sampled_softmax_loss])
def test_sparse_labels_are_the_same_labels(make):
    """And stay sparse: no value of all rows and classes is made."""
    f, feed, (w, b, x) = loss_of(make, 8, seed=21)
    y = C.input_variable(CLASSES, is_sparse=True)
    g = make(w, b, x, y, NOISE, 8, seed=21)
    sparse = {x: X, y: scipy.sparse.csr_matrix(Y)}
    np.testing.assert_allclose(g.eval(sparse), f.eval(feed), rtol=1e-6)
    mine, theirs = g.grad(sparse, [w, x]), f.grad(feed, [w, x])
    for v in (w, x):
        np.testing.assert_allclose(as_array(mine[v]), as_array(theirs[v]), rtol=1e-5, atol=1e-7)
    assert "densify" not in g.explain(sparse)
    rows = C.times(C.random_sample(NOISE, 8, True, seed=21), w)
    assert "one_hot" not in rows.explain({}) and "gather" in rows.explain({})


def test_sampled_softmax_of_all_classes_is_the_softmax():
    f, feed, (w, b, x) = loss_of(C.losses.sampled_softmax_loss, CLASSES, False, seed=1)
    y = next(v for v in f.arguments if v.shape == (CLASSES,))
    full = C.cross_entropy_with_softmax(C.times_transpose(x, w) + C.reshape(b, (CLASSES,)), y)
    np.testing.assert_allclose(f.eval(feed), full.eval(feed).ravel(), rtol=1e-4)
    mine, theirs = f.grad(feed, [w, x]), full.grad(feed, [w, x])
    for v in (w, x):
        np.testing.assert_allclose(np.asarray(mine[v]), theirs[v], rtol=1e-3, atol=1e-5)


def test_a_model_learns_by_samples():
    """Many classes that are told apart by their features; the error over all classes falls though 16 of 200 are seen a step."""
    C.set_seed(1)
    classes = 200
    codes = np.random.default_rng(1).normal(size=(classes, 12)).astype(F4)
    x, y = C.input_variable(12), C.input_variable(classes)
    w, b = C.parameter((classes, C.InferredDimension), init=C.glorot_uniform()), C.parameter((classes,), init=-math.log(classes))
    loss = C.nce_loss(w, b, x, y, np.ones(classes, F4), 16)
    error = C.classification_error(C.times_transpose(x, w) + b, y)
    trainer = C.Trainer(
        C.times_transpose(x, w), (loss, error), [C.adam(loss.parameters, 0.02, 0.9, minibatch_size=C.learners.IGNORE)]
    )
    r = np.random.default_rng(2)
    for _ in range(300):
        labels = r.integers(classes, size=64)
        trainer.train_minibatch({x: codes[labels], y: np.eye(classes, dtype=F4)[labels]})
    assert error.eval({x: codes, y: np.eye(classes, dtype=F4)}).mean() < 0.2


def test_hierarchical_softmax_is_a_distribution():
    x, label = C.input_variable(SIZE), C.input_variable(1)
    p, of_groups, every = C.hierarchical_softmax_layer(x, label, 12, 3)
    for q in p.parameters:
        q.value = np.random.default_rng(4).normal(size=q.shape)
    whole = np.concatenate([f.eval({x: X}) for f in every], axis=1)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(of_groups.eval({x: X}), whole.reshape(BATCH, 3, 4).sum(axis=2), rtol=1e-5)
    numbers = np.array([0, 3, 4, 11, 7])
    np.testing.assert_allclose(
        p.eval({x: X, label: numbers[:, None].astype(F4)}).ravel(), whole[np.arange(BATCH), numbers], rtol=1e-5
    )


# ----------------------------------------------------------------------------------------------------------------------- ranks
def ranking():
    s, g, q = C.input_variable(1, needs_gradient=True), C.input_variable(1), C.input_variable(1)
    return C.losses.lambda_rank(s, g, q), C.metrics.ndcg_at_1(s, g, q), (s, g, q)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_do_not_depend_on_the_order_of_rows(engine):
    r = np.random.default_rng(5)
    score, gain = r.normal(size=(20, 1)).astype(F4), r.integers(5, size=(20, 1)).astype(F4)
    query = np.repeat([3, 1, 2, 9], 5).astype(F4)[:, None]
    with C.device.use_engine(engine):
        loss, best, inputs = ranking()
        shuffled = r.permutation(20)
        found = []
        for rows in (np.arange(20), shuffled):
            feed = dict(zip(inputs, (score[rows], gain[rows], query[rows]), strict=True))
            slope, value = loss.grad(feed, [inputs[0]], loss.outputs)
            found.append((value, slope, best.eval(feed)))
        np.testing.assert_allclose(found[0][1][shuffled], found[1][1], rtol=1e-5)
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-6) and found[0][2] == pytest.approx(found[1][2], rel=1e-6)
        np.testing.assert_allclose(found[0][1].reshape(4, 5).sum(axis=1), 0, atol=1e-6)


def test_lambda_rank_ranks():
    """Scores that follow the slope end in the order of the gains."""
    loss, best, (s, g, q) = ranking()
    gain = np.array([0, 3, 1, 7, 2, 1, 0, 4], F4)[:, None]
    query = np.array([1, 1, 1, 1, 2, 2, 2, 2], F4)[:, None]
    score = np.random.default_rng(6).normal(size=(8, 1)).astype(F4)
    for _ in range(400):
        score -= loss.grad({s: score, g: gain, q: query}, [s])
    assert loss.eval({s: score, g: gain, q: query}) == pytest.approx(0, abs=1e-4)
    assert best.eval({s: score, g: gain, q: query}) == pytest.approx(800)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_at_their_edges(engine):
    with C.device.use_engine(engine):
        loss, best, inputs = ranking()

        def both(score, gain, query):
            feed = {v: np.asarray(x, F4).reshape(-1, 1) for v, x in zip(inputs, (score, gain, query), strict=True)}
            slope, value = loss.grad(feed, [inputs[0]], loss.outputs)
            return float(value), slope.ravel().tolist(), float(best.eval(feed))

        assert both([], [], []) == (0, [], 0)
        assert both([1, 2], [0, 0], [1, 1]) == (200, [0, 0], 0)
        assert both([1], [3], [1]) == (0, [0], 100)
        value, slope, top = both([1, np.nan], [1, 2], [1, 1])
        assert math.isnan(value) and math.isnan(top) and all(map(math.isnan, slope))
