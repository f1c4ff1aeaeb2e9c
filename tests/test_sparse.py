"""Sparse inputs: CNTK 2.7 learns the same; sparse and dense learn the same with every learner; what stays sparse; wrong uses."""

import pathlib

import numpy as np
import pytest
import scipy.sparse
from cases import sparse as s
from engine.kernels import threads

import cogkit as C
import cogkit.layers as L
from cogkit.engine import use_engine
from cogkit.engine.executable import Executable
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.sparse import RowSparse

DTYPES = {"f4": np.float32, "f8": np.float64}
with np.load(pathlib.Path(__file__).parent / "goldens" / "sparse.npz", allow_pickle=False) as z:
    GOLDENS = {k: z[k] for k in z.files if k != "about"}
LAGGING = ["momentum", "nesterov", "adam", "adam/gain", "adamax", "fsadagrad", "adadelta"]
TABLE = np.arange(28, dtype=np.float32).reshape(7, 4) / 7 - 2


def close(got, want, dtype, loose=1.0):
    tolerance = loose * (3e-6 if dtype == "f4" else 1e-12)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("key", sorted(GOLDENS))
def test_cntk_learns_the_same(key):
    case, learner, dtype = key.split(":")
    got, _ = s.trajectory(C, case, learner.replace(".", "/"), DTYPES[dtype])
    assert got.dtype == dtype
    close(got, GOLDENS[key], dtype, 3)


@pytest.mark.parametrize("learner", sorted(s.LEARNERS))
@pytest.mark.parametrize("case", ["counts", "two_uses", "dense_use", "loop", "one_hot_tensor"])
def test_sparse_and_dense_learn_the_same(case, learner):
    for dtype in DTYPES:
        got, _ = s.trajectory(C, case, learner, DTYPES[dtype])
        want, _ = s.trajectory(C, case, learner, DTYPES[dtype], sparse=False)
        close(got, want, dtype, 10)


@pytest.mark.parametrize("case", sorted(s.CASES))
def test_the_reference_learns_the_same(case):
    for learner in ("sgd/norm", "adagrad/average", *LAGGING):
        with use_engine("reference"):
            want, _ = s.trajectory(C, case, learner, np.float64)
        got, _ = s.trajectory(C, case, learner, np.float64)
        close(got, want, "f8")


@pytest.mark.parametrize("learner", ["sgd", "adagrad/average", "adam"])
def test_threads_do_not_matter(learner):
    found = []
    for n in (1, 2):
        with threads(n):
            w, x, t = s.weights(C, np.float32, 500, 64), C.input_variable(500, is_sparse=True), C.input_variable(64)
            trainer = C.Trainer(None, C.squared_error(C.times(x, w), t), s.LEARNERS[learner](C, [w], 0.01))
            rng = np.random.RandomState(0)
            for _ in range(3):
                indices = np.minimum(rng.geometric(0.02, 4000), 499)
                csr = scipy.sparse.csr_matrix((rng.rand(4000).astype("f"), indices, np.arange(0, 4001, 5)), (800, 500))
                trainer.train_minibatch({x: csr, t: rng.rand(800, 64).astype("f")})
        found.append(w.value.tobytes())
    assert found[0] == found[1]


# what stays sparse ---------------------------------------------------------------------------------------------------------------


def lists(case, learner="sgd"):
    """Whether gradients come to the learner as lists of rows."""
    _, trainer = s.trajectory(C, case, learner, np.float32)
    return [isinstance(g, RowSparse) for g in trainer.parameter_learners[0].gradients.values()]


@pytest.mark.parametrize("case", [c for c in s.CASES if c not in ("dense_use", "loop")])
def test_gradients_are_lists_of_rows(case):
    assert lists(case) == [True]


def test_gradients_are_whole_where_they_must_be():
    assert lists("dense_use") == [False] and lists("loop") == [True, False]
    assert lists("counts", "sgd/l2") == lists("counts", "sgd/l1") == [False]


def plan_of(f, feed):
    """The text of what is lowered."""
    _, types, sizes = bind_feeds(feed)
    return str(Executable(list(f.outputs)).plan(types, sizes).graph)


def sparse_steps(n=2):
    return C.sequence.input_variable(7, is_sparse=True), [
        scipy.sparse.eye(7, format="csr", dtype="f")[i : i + 3] for i in range(n)
    ]


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: C.times(x, w),
        lambda x, w: C.times_transpose(x, C.constant(TABLE.T)),
        lambda x, w: L.Embedding(weights=TABLE)(x),
        lambda x, w: C.times(C.sequence.first(x), w),
        lambda x, w: C.times(C.sequence.past_value(x), w),
        lambda x, w: C.times(C.sequence.slice(x, 0, 2), w),
        lambda x, w: C.times(C.reshape(x, (1, 7)), w),
        lambda x, w: C.times(C.alias(x), w),
        lambda x, w: C.times(C.one_hot(C.sequence.reduce_sum(C.times(x, w[:, 0])), 7, sparse_output=True), w),
    ],
)
def test_nothing_is_made_dense(f):
    x, fed = sparse_steps()
    made = f(x, C.parameter(init=TABLE))
    text = plan_of(made, {x: fed})
    assert "densify" not in text and "one_hot" not in text
    d = C.sequence.input_variable(7)
    want = f(d, C.parameter(init=TABLE)).eval({d: [a.toarray() for a in fed]})
    got = made.eval({x: fed})
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_step_holds_no_array_of_the_vocabulary():
    def held(v):
        x, w, t = C.input_variable(v, is_sparse=True), C.parameter((v, 4)), C.input_variable(4)
        csr = scipy.sparse.csr_matrix((np.ones(3, "f"), [0, 5, 9], [0, 1, 2, 3]), (3, v))
        loss = C.squared_error(C.times(x, w), t)
        trainer = C.Trainer(None, loss, C.sgd([w], 0.1))
        feed = {x: csr, t: np.ones((3, 4), "f")}
        trainer.train_minibatch(feed)
        _, types, sizes = bind_feeds(feed)
        plan = trainer._main.executable.plan(types, sizes)
        return sum(b.bytes(sizes) for b in plan.buffers if b.kind != "variable")

    assert held(10) == held(100_000)


def test_values_that_stay_sparse_are_given_as_csr():
    x, fed = sparse_steps()
    for a, b in zip(C.alias(x).eval({x: fed}), fed, strict=True):
        assert scipy.sparse.issparse(a) and (a != b).nnz == 0
    last = C.sequence.last(x).eval({x: fed})
    assert scipy.sparse.issparse(last) and np.array_equal(last.toarray(), np.eye(7)[[2, 3]])
    i = C.input_variable(())
    hot = C.one_hot(i, 3, sparse_output=True).eval({i: np.array([2, 7, 1], "f")})
    assert np.array_equal(hot.toarray(), [[0, 0, 1], [0, 0, 0], [0, 1, 0]])  # 7: no class


def test_rows_of_a_static_axis():
    x, w = C.input_variable((3, 7), is_sparse=True), C.parameter(init=TABLE)
    z = C.times(C.slice(x, 0, 1, 3), w)
    csr = [scipy.sparse.csr_matrix(np.eye(7, dtype="f")[[1, 2, 3]]), scipy.sparse.csr_matrix(np.eye(7, dtype="f")[[4, 5, 6]])]
    assert "densify" not in plan_of(z, {x: csr})
    np.testing.assert_allclose(z.eval({x: csr}), TABLE[[[2, 3], [5, 6]]])
    assert z.grad({x: csr}, [w])[:, 0].tolist() == [0, 0, 1, 1, 0, 1, 1]


def test_gradients_by_value():
    x, w = C.input_variable(7, is_sparse=True), C.parameter(init=TABLE)
    csr = scipy.sparse.csr_matrix(np.eye(7, dtype="f")[[1, 3, 1]])
    z = C.times(x, w)
    whole = z.grad({x: csr}, [w])
    found = z.grad({x: csr}, [w], as_numpy=False)
    assert found.is_sparse and found.shape == (7, 4) and np.array_equal(found.asarray().toarray(), whole)
    assert whole[:, 0].tolist() == [0, 2, 0, 1, 0, 0, 0]
    mixed = C.times(x, w) + C.reduce_sum(w)
    assert not mixed.grad({x: csr}, [w], as_numpy=False).is_sparse
    needed = C.input_variable(7, is_sparse=True, needs_gradient=True)
    np.testing.assert_allclose(C.times(needed, w).grad({needed: csr}, [needed]), np.tile(TABLE.sum(1), (3, 1)), rtol=1e-6)


def chosen(C, z, sparse):
    """The class of the largest value, as a row."""
    return C.one_hot(C.reshape(C.argmax(z, 0), ()), 7, sparse_output=sparse)


def loop(what, C, x, w, r, sparse):
    """Loops that read sparse values: the choice of the step before, made in the loop or delayed; and one that others read too."""
    state = C.placeholder()
    back = C.sequence.past_value(state)
    if what == "delayed":
        z = C.times(C.tanh(C.times(x, w) + C.times(back, w)), r)
        return z.replace_placeholders({state: chosen(C, z, sparse).output})
    z = C.times(C.tanh(C.times(x, w) + C.times(chosen(C, back, sparse), w)), r)
    z = z.replace_placeholders({state: z.output})
    return z + C.times(chosen(C, z, sparse), C.times(w, r)) if what == "outside" else z


STEPS = {
    "last for all steps": lambda C, x, w: C.times(C.sequence.broadcast_as(C.sequence.last(x), x), w),
    "next": lambda C, x, w: C.times(C.sequence.future_value(x), w),
    "some": lambda C, x, w: C.times(C.sequence.gather(x, C.sequence.is_first(x)), w),
    "unpacked": lambda C, x, w: C.times(C.sequence.unpack(x, 0).outputs[0], w),
    "largest": lambda C, x, w: C.times(C.sequence.reduce_max(x), w),
}


@pytest.mark.parametrize("what", ["chosen", "delayed", "outside", *STEPS])
def test_over_steps_sparse_and_dense_are_the_same(what):
    fed = [np.eye(7, dtype=np.float32)[i] for i in ([1, 4, 2], [6], [0, 0, 5, 3])]
    found = []
    for sparse in (True, False):
        x, w, r = C.sequence.input_variable(7, is_sparse=sparse), C.parameter(init=TABLE), C.parameter(init=TABLE.T / 3)
        z = STEPS[what](C, x, w) if what in STEPS else loop(what, C, x, w, r, sparse)
        feed = {x: [scipy.sparse.csr_matrix(a) for a in fed] if sparse else fed}
        values = z.eval(feed)
        found.append([np.ravel(v) for v in values] + [np.ravel(C.reduce_sum(z * z).grad(feed, [w]))])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# feeds ---------------------------------------------------------------------------------------------------------------------------


def test_every_way_of_feeding():
    dense = np.eye(7, dtype=np.float32)[[1, 3, 1]] * [[2], [1], [0.5]]
    csr = scipy.sparse.csr_matrix(dense.astype(np.float32))
    x, w = C.input_variable(7, is_sparse=True), C.parameter(init=TABLE)
    z = C.times(x, w)
    ways = [
        csr,
        csr.astype(np.float64),
        csr.tocsc(),
        dense,
        dense.tolist(),
        [csr[0], csr[1:]],
        C.NDArrayView.from_csr(csr),
        C.Value(csr),
    ]
    for way in ways:
        np.testing.assert_allclose(z.eval({x: way}), dense @ TABLE, rtol=1e-6)
    twice = scipy.sparse.csr_matrix((np.ones(3, "f"), [2, 2, 0], [0, 2, 3]), (2, 7))  # an entry that comes twice counts twice
    np.testing.assert_allclose(z.eval({x: twice}), [2 * TABLE[2], TABLE[0]], rtol=1e-6)
    assert z.eval({x: csr[:0]}).shape == (0, 4)
    d = C.input_variable(7)
    np.testing.assert_allclose(C.times(d, w).eval({d: csr}), dense @ TABLE, rtol=1e-6)


def test_a_minibatch_without_entries_changes_nothing():
    x, w = C.input_variable(7, is_sparse=True), C.parameter(init=TABLE)
    trainer = C.Trainer(None, C.reduce_sum(C.times(x, w)), C.sgd([w], 0.1))
    trainer.train_minibatch({x: scipy.sparse.csr_matrix((2, 7), dtype="f")})
    assert np.array_equal(w.value, TABLE)


def test_checkpoints_of_learners_of_lists(tmp_path):
    def make():
        loss, parameters, feeds = s.CASES["counts"](C, np.float32, True)
        return parameters[0], C.Trainer(None, loss, s.LEARNERS["adagrad/average"](C, parameters, 0.05)), loss, feeds

    w, trainer, loss, _ = make()
    feeds = [dict(zip(loss.arguments, f.values(), strict=True)) for f in make()[3]]
    for f in feeds[:2]:
        trainer.train_minibatch(f)
    trainer.save_checkpoint(str(tmp_path / "c"))
    found = []
    for _ in range(2):
        for f in feeds[2:]:
            trainer.train_minibatch(f)
        found.append(w.value)
        trainer.restore_from_checkpoint(str(tmp_path / "c"))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_lists_and_arrays_are_taken_alike():
    w = C.parameter(init=TABLE)
    listed = RowSparse([1, 4], np.ones((2, 4), "f"), (7, 4))
    learner = C.sgd([w], 0.5)
    learner.update({w: listed}, 1)
    want = TABLE - 0.5 * listed.toarray()
    assert np.array_equal(w.value, want)
    learner.use_buffers({w: listed.copy()})
    learner.update({w: listed}, 1)
    learner.update({w: listed.toarray()}, 1)
    assert np.array_equal(w.value, want - listed.toarray())


def test_a_user_learner_is_given_arrays():
    loss, (w,), feeds = s.CASES["plain"](C, np.float32, True)

    class Own(C.UserLearner):
        def update(self, gradients, samples, sweep_end):
            assert isinstance(gradients[w], np.ndarray) and gradients[w].shape == w.shape
            return True

    C.Trainer(None, loss, Own([w], 0.1)).train_minibatch(feeds[0])


def test_equal_requests_share_what_they_compute():
    x, w = C.input_variable(7, is_sparse=True), C.parameter(init=TABLE)
    z = C.times(x, w)
    e = Executable([z.output, C.times(x, w).output])
    a, b = e.run({x: scipy.sparse.eye(7, format="csr", dtype="f")})
    assert np.array_equal(a, TABLE) and np.array_equal(b, TABLE)


WRONG = [
    (lambda x, z: z.eval({x: scipy.sparse.csr_matrix((2, 6))}), ValueError, "expected data of shape (batch, 7), got (2, 6)"),
    (
        lambda x, z: z.eval({x: scipy.sparse.csr_matrix((np.ones(1), np.array([9]), [0, 1]), (1, 7))}),
        ValueError,
        "expected columns in [0, 7), got 9 to 9",
    ),
    (
        lambda x, z: z.eval({x: scipy.sparse.csr_matrix((np.ones(2), np.array([1, 2]), np.array([0, 2, 1, 2])), (3, 7))}),
        ValueError,
        "expected rows that end after they begin",
    ),
    (
        lambda x, z: C.times(C.input_variable((2, 3, 7), is_sparse=True), C.parameter((3, 7, 2))),
        NotImplementedError,
        "one summed axis",
    ),
]


@pytest.mark.parametrize("wrong, kind, words", WRONG)
def test_wrong_uses(wrong, kind, words):
    x, w = C.input_variable(7, is_sparse=True, name="words"), C.parameter(init=TABLE)
    with pytest.raises(kind) as e:
        wrong(x, C.times(x, w))
    assert words in str(e.value)


# rules with momentum: rows whose gradient is 0 are brought up to date when they are wanted ----------------------------------------


class Run:
    """Training of an embedding of 60 rows by few words a minibatch, sparse or dense."""

    def __init__(self, learner, sparse, dtype=np.float64, scale=1.0):
        self.sparse, self.dtype, self.scale = sparse, dtype, scale
        self.rng = np.random.RandomState(0)
        self.w = C.parameter(init=self.rng.randn(60, 5).astype(dtype))
        self.x, self.t = C.input_variable(60, is_sparse=sparse, dtype=dtype), C.input_variable(5, dtype=dtype)
        self.z = C.times(self.x, self.w)
        self.learner = s.LEARNERS[learner](C, [self.w], C.learning_parameter_schedule_per_sample(0.01))
        self.trainer = C.Trainer(None, C.reduce_sum(self.z * self.t), self.learner)

    def words(self, n=2):
        rows = np.eye(60, dtype=self.dtype)[self.rng.randint(0, 60, n)]
        return scipy.sparse.csr_matrix(rows) if self.sparse else rows

    def steps(self, n):
        for _ in range(n):
            self.trainer.train_minibatch({self.x: self.words(), self.t: self.scale * self.rng.randn(2, 5).astype(self.dtype)})
        return self

    @property
    def states(self):
        return [v.value for v in self.learner.states[self.w].values()]


def both(learner, see, **settings):
    """What `see` gives of a sparse and of a dense run."""
    return [see(Run(learner, sparse, **settings)) for sparse in (True, False)]


@pytest.mark.parametrize("learner", LAGGING)
def test_rows_that_were_left_behind(learner):
    def see(run):
        assert run.steps(300).trainer.total_number_of_samples_seen == 600
        return [run.w.value, *run.states, run.steps(7).w.value]

    for got, want in zip(*both(learner, see), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)
    for got, want in zip(*both(learner, see, dtype=np.float32), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("learner", ["adam", "adamax"])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-6, 1e-3])
def test_small_gradients_beside_epsilon(learner, dtype, scale):
    """The terms of the sum over updates do where epsilon is small; elsewhere the updates are done one by one."""
    got, want = both(learner, lambda run: run.steps(40).w.value, dtype=DTYPES[dtype], scale=scale)
    close(got, want, dtype)


def test_others_that_read_the_rows():
    """Other functions, by sparse inputs, by one-hot indices, whole; copies; a value that is set."""

    def see(run):
        i, x, found = C.input_variable(()), C.input_variable(60, is_sparse=run.sparse, dtype=np.float64), []
        by_rows, by_index, whole = C.times(x, run.w), C.gather(run.w, C.cast(i, np.float64)), C.reduce_sum(run.w)
        for _ in range(4):
            run.steps(11)
            found += [by_rows.eval({x: run.words(3)}), by_index.eval({i: [3, 4]}), whole.eval()]
            found += [run.steps(5).z.clone("clone").parameters[0].value, run.z.grad({run.x: run.words(1)}, [run.w])]
        run.w.value = run.w.value + 1
        return [*found, run.steps(20).w.value]

    for got, want in zip(*both("adam", see), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_a_second_learner_of_the_same_parameter():
    def see(run):
        other = C.Trainer(None, C.reduce_sum(run.z), s.LEARNERS["momentum"](C, [run.w], 0.01))
        for _ in range(10):
            run.steps(2)
            other.train_minibatch({run.x: run.words()})
        return run.w.value

    got, want = both("adam", see)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_a_learner_that_is_gone_leaves_the_rows_right():
    def see(run):
        run.steps(15)
        run.trainer = run.learner = None
        return run.w.value

    got, want = both("adam", see)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("learner", ["momentum", "adam"])
def test_checkpoints_of_rows_left_behind(learner, tmp_path):
    run = Run(learner, True).steps(20)
    run.trainer.save_checkpoint(str(tmp_path / "c"))
    state = run.rng.get_state()
    want = run.steps(20).w.value
    run.trainer.restore_from_checkpoint(str(tmp_path / "c"))
    run.rng.set_state(state)
    assert np.array_equal(run.steps(20).w.value, want)


def test_states_put_back_to_their_beginning():
    def see(run):
        run.steps(9)
        run.learner.reset_smoothed_gradients()
        return run.steps(9).w.value

    got, want = both("adam", see)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


# sparse constants ----------------------------------------------------------------------------------------------------------------


def test_sparse_constants(tmp_path):
    a = scipy.sparse.csr_matrix(np.diag([1.0, 2, 3]).astype("f")[:, [1, 0, 2, 1]])
    c, w, x = C.constant(a), C.parameter(init=TABLE[:4]), C.input_variable(3)
    assert c.is_sparse and c.shape == (3, 4) and (c.value != a).nnz == 0
    z = C.times(c, w)
    for engine in ("cpu", "reference"):
        with use_engine(engine):
            np.testing.assert_allclose(z.eval(), a @ TABLE[:4], rtol=1e-6)
            np.testing.assert_allclose(z.grad({}, [w]), a.T @ np.ones((3, 4)), rtol=1e-6)
    rows = np.array([[1, 2, 3], [0, 1, 0]], "f")
    np.testing.assert_allclose(C.times(x, c).eval({x: rows}), rows @ a.toarray(), rtol=1e-6)
    np.testing.assert_allclose((c + 1).eval(), a.toarray() + 1)
    np.testing.assert_allclose(L.Embedding(weights=TABLE[:4])(c).eval(), a @ TABLE[:4], rtol=1e-6)
    learner = C.sgd([w], 0.5)
    C.Trainer(None, C.reduce_sum(z * C.reduce_sum(x)), learner).train_minibatch({x: rows[:1]})
    assert isinstance(learner.gradients[w], RowSparse)
    z.save(str(tmp_path / "m"))
    again = C.Function.load(str(tmp_path / "m"))
    assert again.constants[0].is_sparse and z.clone("clone").constants[0].is_sparse
    np.testing.assert_array_equal(again.eval(), z.eval())
    z.restore(str(tmp_path / "m"))
    with pytest.raises(TypeError, match="no other value of a sparse constant"):
        c.value = a
    with pytest.raises(ValueError):
        C.constant(scipy.sparse.csr_matrix((np.ones(1, "f"), np.array([9]), [0, 1]), (1, 7)))
    with pytest.raises(ValueError, match="a shape of"):
        C.constant(a, shape=(4, 3))
    assert C.constant(C.NDArrayView.from_csr(a)).is_sparse
