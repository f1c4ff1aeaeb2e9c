"""Sparse values on the CUDA engine against the reference: products, lists of rows, updates of rows; what stays on the device."""

import numpy as np
import pytest
import scipy.sparse
from cases import sparse as s
from cuda.plans import in_orders

import cogkit as C
from cogkit.csr import CsrRows
from cogkit.engine import ENGINES
from cogkit.engine.cuda.lists import DeviceRows
from cogkit.engine.seeding import Run
from cogkit.engine.sparse import RowSparse
from cogkit.lowering.ir import Graph
from cogkit.op import Type

BATCH = C.input_variable(1).dynamic_axes
F4, F8 = np.float32, np.float64
TABLE = np.arange(28, dtype=F4).reshape(7, 4) / 7 - 2


@pytest.fixture(autouse=True)
def on_the_gpu(cuda_environment):
    with C.device.use_engine("cuda"):
        yield


def plain(x):
    """Arrays of a result: numbers and values of a list of rows, the array of a CSR matrix."""
    return [x.rows.copy(), x.values.copy()] if isinstance(x, RowSparse) else [x.toarray()] if scipy.sparse.issparse(x) else [x]


def same(build, *operands, sizes=None):
    """Checks outputs of build(graph, values ...) against the reference, in two orders of threads and for a run that is a replayed graph.

    operands: (data, shape of a row, axes), data a CSR matrix or an array.
    """
    found = []
    for engine in ("reference", "cuda"):
        graph, feeds, values, rows = Graph(), {}, [], dict(sizes or {})
        for data, shape, axes in operands:
            sparse = scipy.sparse.issparse(data)
            leaf = C.input_variable(shape, is_sparse=sparse, dtype=data.dtype.type, dynamic_axes=list(axes))
            feeds[leaf] = CsrRows(data, data.dtype) if sparse else data
            if axes:
                rows[axes] = data.shape[0] // (int(np.prod(shape[:-1])) if sparse else 1)
            values.append(graph.leaf(leaf, Type(shape, data.dtype, tuple(axes))))
        made = build(graph, *values)
        graph.outputs = made if isinstance(made, list) else [made]
        graph.prune()
        fed = {v: a for v, a in feeds.items() if any(n.leaf is v for n in graph.nodes)}
        plan = ENGINES[engine](graph)
        again = lambda plan=plan, fed=fed, rows=rows: [  # noqa: E731
            a for x in [plan.run(fed, rows, Run(1, 0, 0)) for _ in range(3)][-1] for a in plain(x)
        ]
        found.append(in_orders(again) if engine == "cuda" else again())
    tolerance = 1e-5 if found[0][-1].dtype == F4 else 1e-12
    for wish, fact in zip(*found, strict=True):
        assert wish.shape == fact.shape and wish.dtype == fact.dtype
        np.testing.assert_allclose(fact, wish, tolerance, tolerance)
    return found[1]


def csr(rows, width, density, dtype, seed=0):
    """A random matrix with an empty row and one that has an entry twice."""
    made = scipy.sparse.random(rows, width, density, "csr", dtype, random_state=seed)
    if rows > 2 and made.nnz > 2:
        made.indices[made.indptr[2] : made.indptr[3]] = made.indices[made.indptr[2] : made.indptr[2] + 1]
        keep = np.repeat(np.arange(rows), np.diff(made.indptr)) != 1
        indptr = np.concatenate(
            [[0], np.cumsum(np.bincount(np.repeat(np.arange(rows), np.diff(made.indptr))[keep], minlength=rows))]
        )
        made = scipy.sparse.csr_matrix((made.data[keep], made.indices[keep], indptr), made.shape)
    return made


def normal(*shape, dtype=F4, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def product(g, a, b, ta=False, tb=False, sum_rows=False):
    return g.node("matmul", [a, b], ta=ta, tb=tb, sum_rows=sum_rows)


SIZES = [(5, 7, 4, 0.3), (40, 3, 20, 0.9), (3, 300, 5, 0.1), (1, 1, 1, 1.0), (6, 5, 3, 0.0), (3, 70, 270, 0.2), (9, 4, 1, 0.5)]


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("rows, width, n, density", SIZES)
def test_products_and_gradients(rows, width, n, density, dtype):
    def build(g, x, w, wt, dy):
        x = x.reshape((1, width))
        list_ = product(g, x, dy, ta=True, sum_rows=True)
        return [product(g, x, w), product(g, x, wt, tb=True), list_, g.node("densify", [x]), g.node("densify", [list_])]

    same(build, (csr(rows, width, density, dtype), (width,), BATCH), (normal(width, n, dtype=dtype), (width, n), ()),
         (normal(n, width, dtype=dtype), (n, width), ()), (normal(rows, 1, n, dtype=dtype), (1, n), BATCH))  # fmt: skip


@pytest.mark.parametrize("n", [1, 6, 40])
def test_many_entries(n):
    """More than a block sorts, rows and entries, a row of a list that many entries have, keys of two digits."""
    rng, rows, width = np.random.default_rng(0), 1100, 700
    columns = np.where(rng.random(3300) < 0.3, 5, rng.integers(0, width, 3300))
    x = scipy.sparse.csr_matrix((rng.normal(size=3300).astype(F4), columns, np.arange(0, 3301, 3)), (rows, width))
    build = lambda g, x, dy: product(g, x.reshape((1, width)), dy, ta=True, sum_rows=True)  # noqa: E731
    numbers, _ = same(build, (x, (width,), BATCH), (normal(rows, 1, n), (1, n), BATCH))
    assert len(numbers) == len(np.unique(columns))


@pytest.mark.parametrize("dtype", [F4, F8])
def test_sums_by_index_and_of_lists(dtype):
    """Indices that come many times or never; one of no row."""
    index = np.array([3, 1, 3, 0, 3, 12, 1] + [7] * 50, dtype)
    dy = normal(len(index), 5, dtype=dtype)

    def build(g, i, j, dy):
        lists = [g.node("scatter_rows", [v, dy], shape=(13, 5)) for v in (i, j)]
        return [*lists, g.node("add", lists), g.node("add", lists[:1] * 2), g.node("densify", [g.node("add", lists)])]

    same(build, (index, (), BATCH), (index[::-1] // 2, (), BATCH), (dy, (5,), BATCH))
    graph = Graph()
    leaves = [C.input_variable((), dtype=dtype), C.input_variable(5, dtype=dtype)]
    values = [graph.leaf(v, Type(v.shape, np.dtype(dtype), BATCH)) for v in leaves]
    graph.outputs = [graph.node("scatter_rows", values, shape=(13, 5))]
    bad = index.copy()
    bad[[0, 2, 4, 5, 6]] = np.nan, -1, 13, 1e9, -np.inf
    with pytest.raises(ValueError, match=r"expected indices in \[0, 13\), got nan"):
        ENGINES["cuda"](graph).run(dict(zip(leaves, (bad, dy), strict=True)), {BATCH: len(bad)}, Run(1, 0, 0))


def test_parts_and_one_hot_rows():
    x = csr(6, 7, 0.4, F4)
    take = lambda g, v: g.node("take", [v], axis=0, first=1, stride=1, count=2)  # noqa: E731
    part, whole = same(
        lambda g, v, w: [g.node("densify", [take(g, v)]), product(g, take(g, v), w)], (x, (3, 7), BATCH), (TABLE, (7, 4), ())
    )
    np.testing.assert_allclose(part, x.toarray().reshape(2, 3, 7)[:, 1:])
    for dtype in (F4, F8):
        index = np.array([2, 0, 9, -1, np.nan, 3], dtype)
        (hot,) = same(lambda g, v: g.node("one_hot", [v], classes=4, axis=-1, sparse=True), (index, (), BATCH))
        assert hot.sum(1).tolist() == [1, 1, 0, 0, 0, 1]


def test_values_that_stay_sparse_are_given_as_csr():
    x, fed = C.sequence.input_variable(7, is_sparse=True), [csr(n, 7, 0.5, F4, n) for n in (3, 1, 2)]
    for a, b in zip(C.alias(x).eval({x: fed}), fed, strict=True):
        assert (a != b).nnz == 0
    last = C.sequence.last(x).eval({x: fed})
    assert scipy.sparse.issparse(last)
    np.testing.assert_array_equal(last.toarray(), np.stack([a.toarray()[-1] for a in fed]))


def test_constants():
    a, w = csr(3, 4, 0.6, F4), C.parameter(init=TABLE[:4])
    z = C.times(C.constant(a), w)
    for _ in range(3):
        np.testing.assert_allclose(z.eval(), a @ TABLE[:4], rtol=1e-6)
    np.testing.assert_allclose(z.grad({}, [w]), a.T @ np.ones((3, 4)), rtol=1e-6)


# updates -----------------------------------------------------------------------------------------------------------------------

RULES = ["sgd", "sgd/clipped", "sgd/norm", "momentum", "nesterov", "adagrad", "adagrad/average", "adagrad/clipped", "adadelta", "adam",
         "adam/gain", "adamax", "fsadagrad"]  # fmt: skip


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("learner", RULES)
def test_rules_mean_what_the_reference_says(learner, dtype):
    """Lists with other rows each time, an empty one, all rows."""
    lists = [[1, 4], [0, 4, 6], [], [2], list(range(7))]
    shape = (7, 2, 3)

    def trained(engine):
        with C.device.use_engine(engine):
            w = C.parameter(init=normal(*shape, dtype=dtype))
            made = s.LEARNERS[learner](C, [w], C.learning_parameter_schedule_per_sample(0.1))
            gradients = {w: RowSparse(np.zeros(0), np.zeros((0, 2, 3), dtype), shape)}
            made.use_buffers(gradients)
            for i, rows in enumerate(lists):
                gradients[w].point_to(RowSparse(rows, normal(len(rows), 2, 3, dtype=dtype, seed=i), shape))
                made.update(gradients, 2)
            return [w.value, *(v.value for v in made.states[w].values())]

    wish, fact = trained("reference"), in_orders(lambda: trained("cuda"))
    for a, b in zip(wish, fact, strict=True):
        np.testing.assert_allclose(b, a, *((1e-5, 1e-6) if dtype == F4 else (1e-12, 1e-13)))


def test_lists_and_arrays_are_taken_alike():
    """Gradients of the host for a learner whose own buffer is the host's or the device's list."""
    w = C.parameter(init=TABLE)
    listed = RowSparse([1, 4], np.ones((2, 4), F4), (7, 4))
    learner, want = C.sgd([w], 0.5), TABLE - 0.5 * listed.toarray()
    learner.update({w: listed}, 1)
    assert np.array_equal(w.value, want)
    learner.use_buffers({w: listed.copy()})
    learner.update({w: listed}, 1)
    assert np.array_equal(w.value, want - 0.5 * listed.toarray())

    x = C.input_variable(7, is_sparse=True)
    w = C.parameter(init=TABLE)
    learner = C.sgd([w], C.learning_parameter_schedule_per_sample(0.5))
    trainer = C.Trainer(None, C.reduce_sum(C.times(x, w)), learner)
    trainer.train_minibatch({x: scipy.sparse.csr_matrix(np.eye(7, dtype=F4)[[2]])})
    want = TABLE - 0.5 * np.eye(7, dtype=F4)[:, [2]]
    for g in (listed, listed.toarray()):
        learner.update({w: g}, 1)
        want -= 0.5 * listed.toarray()
    np.testing.assert_allclose(w.value, want, rtol=1e-6)
    own = learner.gradients[w]
    assert isinstance(own, DeviceRows) and np.array_equal(own.toarray(), listed.toarray())


@pytest.mark.parametrize("case", ["counts", "two_uses", "of_last", "of_slice", "loop"])
@pytest.mark.parametrize("learner", ["sgd", "adam"])
def test_learns_as_the_reference_does(case, learner):
    with C.device.use_engine("reference"):
        want, _ = s.trajectory(C, case, learner, F4)
    got, trainer = s.trajectory(C, case, learner, F4)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert any(isinstance(g, DeviceRows) for g in trainer.parameter_learners[0].gradients.values())


def words(rng, rows, each, width=90):
    """Rows of so many words each, some twice."""
    return scipy.sparse.csr_matrix((np.ones(rows * each, F4), rng.integers(0, width, rows * each), np.arange(0, rows * each + 1, each)),
                                   (rows, width))  # fmt: skip


def trainer_of(learner="sgd"):
    x, t, w = C.input_variable(90, is_sparse=True), C.input_variable(3), C.parameter(init=normal(90, 3))
    made = s.LEARNERS[learner](C, [w], C.learning_parameter_schedule_per_sample(0.01))
    return C.Trainer(None, C.squared_error(C.times(x, w), t), made), x, t, w


def test_more_entries_than_there_was_place_for():
    found = []
    for engine in ("reference", "cuda"):
        with C.device.use_engine(engine):
            rng, (trainer, x, t, w) = np.random.default_rng(4), trainer_of()
            for each in (2, 9, 30, 1):
                trainer.train_minibatch({x: words(rng, 10, each), t: normal(10, 3)})
            found.append([w.value, trainer.parameter_learners[0].gradients[w].toarray()])
    for wish, fact in zip(*found, strict=True):
        np.testing.assert_allclose(fact, wish, rtol=1e-5, atol=1e-6)


def test_gradients_stay_on_the_device(fake):
    rng, (trainer, x, t, w) = np.random.default_rng(4), trainer_of("adam")
    each = []
    for _ in range(6):
        before = fake.counts()["transfers"]
        trainer.train_minibatch({x: words(rng, 8, 3), t: normal(8, 3)})
        each.append(fake.counts()["transfers"] - before)
    g = trainer.parameter_learners[0].gradients[w]
    assert isinstance(g, DeviceRows) and g.ahead
    assert each[-1] == each[-2] <= 3  # two feeds there, the loss back
    rows = g.rows.copy()
    assert not g.ahead and (np.diff(rows) > 0).all()
    trainer.train_minibatch({x: words(rng, 8, 3), t: normal(8, 3)})
    assert g.ahead and g.rows.tolist() != rows.tolist()


@pytest.mark.parametrize("learner", ["momentum", "adam"])
def test_a_checkpoint_of_the_cpu_goes_on_here(learner, tmp_path):
    """The CPU's rows that are behind are brought up to date first."""
    found = []
    with C.device.use_engine("cpu"):
        rng, (trainer, x, t, w) = np.random.default_rng(4), trainer_of(learner)
        for _ in range(5):
            trainer.train_minibatch({x: words(rng, 4, 2), t: normal(4, 3)})
        trainer.save_checkpoint(str(tmp_path / "c"))
        later = [{0: words(rng, 4, 2), 1: normal(4, 3)} for _ in range(2)]
        for feed in later:
            trainer.train_minibatch({x: feed[0], t: feed[1]})
        found.append(w.value)
    trainer, x, t, w = trainer_of(learner)
    trainer.restore_from_checkpoint(str(tmp_path / "c"))
    for feed in later:
        trainer.train_minibatch({x: feed[0], t: feed[1]})
    np.testing.assert_allclose(w.value, found[0], rtol=1e-5, atol=1e-6)


def test_rows_that_the_cpu_has_left_for_later():
    x, w = C.input_variable(7, is_sparse=True), C.parameter(init=TABLE)
    z, feeds = C.times(x, w), [scipy.sparse.csr_matrix(np.eye(7, dtype=F4)[i]) for i in ([1, 3], [1], [1])]
    for _ in range(2):
        with C.device.use_engine("cpu"):
            trainer = C.Trainer(None, C.reduce_sum(z), C.momentum_sgd([w], 0.1, C.momentum_schedule(0.9)))
            for feed in feeds:
                trainer.train_minibatch({x: feed})
        found = z.eval({x: feeds[0]})
        np.testing.assert_array_equal(found, w.value[[1, 3]])
