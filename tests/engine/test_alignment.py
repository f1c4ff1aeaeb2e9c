"""CTC and edit distance: against all alignments written out, CNTK 2.7, differences, the reference; one and two threads; edge cases."""

import functools
import itertools
import pathlib

import numpy as np
import pytest
from cases.alignment import CTC, EDITS
from engine.kernels import DTYPES, call

import cogkit as C
from cogkit.engine import reference
from cogkit.engine.cpu import alignment
from cogkit.engine.spaces import Space

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens" / "alignment.npz"
ENGINES = ["reference", "cpu"]


@functools.cache
def goldens():
    with np.load(GOLDENS, allow_pickle=False) as z:
        return {k: z[k] for k in z.files}


def packed(space, sequences):
    """Rows of sequences as they lie in a space."""
    return np.ascontiguousarray(np.concatenate(sequences)[space.flat])


def one_by_one(space, rows):
    """The sequences of packed rows."""
    return [rows[space.at(np.full(n, b), np.arange(n))] for b, n in enumerate(space.lengths)]


def run_ctc(logits, labels, blank, delay=-1, dtype="f4"):
    """Loss and slope of each sequence, by the CPU kernel with two threads and with one."""
    space, own = Space.of([len(x) for x in logits]), Space.of([len(y) for y in labels])
    x, y = packed(space, logits).astype(DTYPES[dtype]), packed(own, labels).astype(DTYPES[dtype])
    loss, slope = np.full(len(logits), 7, x.dtype), np.full_like(x, 7)
    call(alignment.Ctc(own, space, x.shape[1], blank, delay, dtype), y, x, loss, slope)
    return loss, one_by_one(space, slope)


def run_edits(a, b, penalties=(1, 1, 1), squash=False, ignored=()):
    spaces = [Space.of([len(x) for x in s]) for s in (a, b)]
    rows = [packed(s, x).astype(np.float32) for s, x in zip(spaces, (a, b), strict=True)]
    edits, length = np.full(len(a), 7, np.float32), np.full(len(a), 7, np.float32)
    call(alignment.EditDistance(*spaces, rows[0].shape[1], penalties, squash, ignored, "f4"), *rows, edits, length)
    return edits, length


def frames_of(symbols, starts, frames, classes):
    """Labels a frame: 2 where one begins, then 1."""
    y = np.zeros((frames, classes))
    y[:, 0] = 1
    for s, t in zip(symbols, starts, strict=True):
        y[t:] = 0
        y[t:, s] = 1
        y[t, s] = 2
    return y


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def all_paths(x, symbols, blank):
    """-log p by adding up every path of classes that shrinks to the labels."""
    p = softmax(x)
    total = 0.0
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        if [c for c, _ in itertools.groupby(path) if c != blank] == symbols:
            total += np.prod(p[np.arange(len(x)), path])
    return -np.log(total) if total else np.inf


def random_ctc(rng, lengths, classes, density=0.4):
    logits = [rng.normal(size=(n, classes)) * 2 for n in lengths]
    labels = []
    for n in lengths:
        starts = [t for t in range(n) if rng.uniform() < density]
        labels.append(frames_of(rng.integers(0, classes - 1, len(starts)), starts, n, classes))
    return logits, labels


# the loss ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_loss_is_the_sum_over_all_paths(frames, blank):
    rng = np.random.default_rng(frames)
    x = rng.normal(size=(frames, 3)).astype(np.float32)
    classes = [c for c in range(3) if c != blank]
    for count in range(frames + 1):
        for symbols in itertools.product(classes, repeat=count):
            starts = sorted(rng.choice(frames, count, replace=False))
            loss, slope = run_ctc([x], [frames_of(symbols, starts, frames, 3)], blank)
            want = all_paths(x.astype(np.float64), list(symbols), blank)
            np.testing.assert_allclose(loss[0], want, rtol=2e-6)
            if np.isinf(want):
                assert not slope[0].any()
            else:
                np.testing.assert_allclose(slope[0].sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("delay", [0, 1, 2, 4])
def test_a_delay_leaves_out_paths_that_are_late(delay):
    x = np.random.default_rng(delay).normal(size=(6, 3))
    symbols, starts = [0, 1, 1], [0, 2, 3]
    total, p = 0.0, softmax(x)
    states = [2, 0, 2, 1, 2, 1, 2]
    last = [starts[1] + delay - 1, starts[1] + delay, starts[2] + delay - 1, starts[2] + delay, 9, 9, 9]
    for path in itertools.product(range(7), repeat=6):
        steps = list(zip(path, path[1:], strict=False))
        fine = path[0] < 2 and path[-1] > 4 and all(t <= last[s] for t, s in enumerate(path))
        if fine and all(b - a in (0, 1) or (b - a == 2 and b % 2 and states[a] != states[b]) for a, b in steps):
            total += np.prod([p[t, states[s]] for t, s in enumerate(path)])
    loss, _ = run_ctc([x], [frames_of(symbols, starts, 6, 3)], 2, delay, "f8")
    np.testing.assert_allclose(loss[0], -np.log(total), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("lengths", [(1,), (1, 1, 1), (5, 5), (0, 3, 0), (2, 61, 1, 17, 0, 30), (400, 3, 90)], ids=str)
@pytest.mark.parametrize("delay", [-1, 3])
def test_kernel_equals_reference(lengths, dtype, delay):
    rng = np.random.default_rng(len(lengths))
    for density in (0.1, 0.5, 1.0):  # many labels: not all rows of states are kept
        logits, labels = random_ctc(rng, lengths, 6, density)
        logits = [x.astype(DTYPES[dtype]) for x in logits]
        loss, slope = run_ctc(logits, labels, 5, delay, dtype)
        loose = 1e-6 if dtype == "f4" else 1e-12
        for b, (x, y) in enumerate(zip(logits, labels, strict=True)):
            starts = [t for t, row in enumerate(y) if row.max() == 2]
            log_p = np.log(softmax(x.astype(np.float64))) if len(x) else x
            want, posterior = reference.ctc(log_p, [int(y[t].argmax()) for t in starts], starts, 5, delay)
            np.testing.assert_allclose(loss[b], want, rtol=loose)
            np.testing.assert_allclose(slope[b], np.exp(log_p) - posterior if np.isfinite(want) else 0 * x, atol=loose)


def test_gradient_is_the_slope():
    rng = np.random.default_rng(3)
    logits, labels = random_ctc(rng, (12, 4, 7), 4, 0.3)
    labels[1] = labels[1] * 0
    for delay in (-1, 1):
        _, slope = run_ctc(logits, labels, 3, delay, "f8")
        for b, x in enumerate(logits):
            v = rng.normal(size=x.shape)
            up, down = (
                run_ctc([*logits[:b], x + h * v, *logits[b + 1 :]], labels, 3, delay, "f8")[0].sum() for h in (1e-5, -1e-5)
            )
            np.testing.assert_allclose((up - down) / 2e-5, np.sum(slope[b] * v), rtol=1e-7, atol=1e-8)


def test_what_cannot_be_is_infinite_and_teaches_nothing():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 3))
    cannot = [frames_of([0, 0], [0, 1], 2, 3), np.tile([2.0, 0, 0], (3, 1))]  # a blank must stand between equal labels
    loss, slope = run_ctc([x[:2], x, x], [*cannot, frames_of([0], [1], 3, 3)], 2)
    assert np.isposinf(loss[:2]).all() and np.isfinite(loss[2])
    assert not slope[0].any() and not slope[1].any() and slope[2].any()
    never = x.copy()
    never[:, 0] = -np.inf  # a class of probability 0
    loss, slope = run_ctc([never, never], [frames_of([0], [1], 3, 3), frames_of([1], [1], 3, 3)], 2)
    assert np.isposinf(loss[0]) and not slope[0].any()
    np.testing.assert_allclose(loss[1], all_paths(never, [1], 2), rtol=1e-6)
    assert np.isfinite(slope[1]).all() and not slope[1][:, 0].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_stays_in_its_sequence(bad):
    rng = np.random.default_rng(5)
    logits, labels = random_ctc(rng, (4, 6, 3), 4, 0.3)
    want, slopes = run_ctc(logits, labels, 3)
    logits[1][5, 0] = bad
    loss, slope = run_ctc(logits, labels, 3)
    assert np.isnan(loss[1]) and np.isnan(slope[1]).all()
    for b in (0, 2):
        assert loss[b] == want[b]
        np.testing.assert_array_equal(slope[b], slopes[b])
    assert np.isnan(run_ctc([np.full((2, 3), -np.inf)], [np.zeros((2, 3))], 2)[0][0])


def test_far_logits_and_long_sequences():
    rng = np.random.default_rng(6)
    x = rng.uniform(-3000, 3000, size=(4000, 5))  # -log p is in the millions: far below the smallest number
    y = frames_of([0, 1, 2], [10, 2000, 3900], 4000, 5)
    loss, slope = run_ctc([x], [y], 4, dtype="f8")
    starts = [10, 2000, 3900]
    top = x - x.max(axis=1, keepdims=True)
    log_p = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    want, posterior = reference.ctc(log_p, [0, 1, 2], starts, 4, -1)
    assert want > 1e6
    np.testing.assert_allclose(loss[0], want, rtol=1e-12)
    np.testing.assert_allclose(slope[0], np.exp(log_p) - posterior, atol=1e-7)


def test_scratch_grows_slower_than_the_square():
    def scratch(n):
        return alignment.Ctc(Space.of([n]), Space.of([n]), 10, 9, -1, "f4").scratch

    assert scratch(16000) < 80 * scratch(1000)
    assert scratch(1000) < 2**21


# against CNTK --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("case", CTC, ids=str)
def test_forward_backward_is_cntks(case, dtype, engine):
    logits, labels = case.feed(DTYPES[dtype])
    with C.device.use_engine(engine):
        x = C.sequence.input_variable(case.shape, dtype=DTYPES[dtype], needs_gradient=True)
        y = C.sequence.input_variable(case.shape, dtype=DTYPES[dtype])
        f = C.forward_backward(C.labels_to_graph(y), x, case.blank, case.delay)
        assert f.shape == () and f.dynamic_axes == ()
        gradients, loss = f.grad({x: logits, y: labels}, wrt=[x], outputs=[f.output])
    want = {k: goldens()[f"{case.name}/{dtype}/{k}"] for k in "yd"}
    # CNTK adds up log-probabilities in the type itself
    loose = 3e-5 if dtype == "f4" else 1e-8
    np.testing.assert_allclose(loss, want["y"], rtol=loose)
    np.testing.assert_allclose(np.concatenate(gradients), want["d"], atol=3 * loose)


@pytest.mark.parametrize("engine", ENGINES)
def test_edit_distance_error_is_cntks(engine):
    for case, want in zip(EDITS, goldens()["edits"], strict=True):
        with C.device.use_engine(engine):
            a, b = C.sequence.input_variable(4), C.sequence.input_variable(4)
            f = C.edit_distance_error(a, b, *case.arguments)
            got = f.eval({a: [s.astype(np.float32) for s in case.a], b: [s.astype(np.float32) for s in case.b]})
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=str(case))


# edit distance -------------------------------------------------------------------------------------------------------------------


def one_hot(symbols, classes=4):
    return np.eye(classes)[np.asarray(symbols, int)].reshape(-1, classes)


PAIRS = [([0, 1, 2], [0, 1, 2], 0), ([0, 1, 2], [0, 2], 1), ([0], [1, 2, 3], 3), ([], [1, 2], 2), ([1, 2], [], 2), ([], [], 0)]


@pytest.mark.parametrize(("a", "b", "edits"), [*PAIRS, ([0, 1, 2, 3], [1, 2, 3, 0], 2)])
def test_edits_between_sequences_of_any_length(a, b, edits):
    found, length = run_edits([one_hot(a)], [one_hot(b)])
    assert found[0] == edits and length[0] == len(b)


def test_edits_equal_reference_on_ragged_pairs():
    rng = np.random.default_rng(7)
    for settings in [((1, 1, 1), False, ()), ((1, 2, 3), True, (3,)), ((3, 1, 1), False, (0, 2)), ((0.5, 1, 0.25), True, ())]:
        a, b = ([list(rng.integers(0, 4, n)) for n in rng.integers(0, 30, 9)] for _ in range(2))
        edits, length = run_edits([one_hot(s) for s in a], [one_hot(s) for s in b], *settings)
        penalties, squash, ignored = settings
        for k, pair in enumerate(zip(a, b, strict=True)):
            u, v = ([c for c in ([g for g, _ in itertools.groupby(s)] if squash else s) if c not in ignored] for s in pair)
            assert edits[k] == reference.edit_distance(u, v, *penalties)
            assert length[k] == len(v)


def test_a_symbol_is_the_first_largest_element():
    a = np.array([[1, 1, 0], [0, 0, 0], [-2, -1, -1]], float)
    edits, _ = run_edits([a], [one_hot([0, 0, 1], 3)])
    assert edits[0] == 0


# the public face -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_may_have_an_axis_of_their_own(engine):
    rng = np.random.default_rng(8)
    logits = [rng.normal(size=(n, 5)).astype(np.float32) for n in (7, 3, 9)]
    symbols = [[0, 1], [2], [3, 3, 0, 1]]
    x = C.sequence.input_variable(5, needs_gradient=True)
    own = C.sequence.input_variable(5, sequence_axis=C.Axis("labels"))
    same = C.sequence.input_variable(5)
    frames = [frames_of(s, range(len(s)), len(z), 5).astype(np.float32) for s, z in zip(symbols, logits, strict=True)]
    alone = [2 * one_hot(s, 5).astype(np.float32) for s in symbols]
    with C.device.use_engine(engine):
        f, g = C.forward_backward(C.labels_to_graph(own), x, 4), C.forward_backward(C.labels_to_graph(same), x, 4)
        a, da = f.grad({x: logits, own: alone}, wrt=[x], outputs=[f.output])[::-1]
        b, db = g.grad({x: logits, same: frames}, wrt=[x], outputs=[g.output])[::-1]
        assert a == b
        for u, v in zip(da, db, strict=True):
            np.testing.assert_array_equal(u, v)
        e = C.edit_distance_error(own, C.sequence.input_variable(5, sequence_axis=C.Axis("others")), 1, 1, 1, True, [4])
        own_, others = e.arguments
        got = e.eval({own_: [one_hot(s, 5) for s in ([0, 1], [2, 4, 2])], others: [one_hot(s, 5) for s in ([0], [2, 2, 1])]})
    np.testing.assert_allclose(got, 2 * 4 / 3, rtol=1e-6)
    with pytest.raises(ValueError, match="delayConstraint"):
        C.forward_backward(C.labels_to_graph(own), x, 4, 2)


def test_a_network_learns_to_spell():
    C.set_seed(1)
    rng = np.random.default_rng(9)
    x, y = C.sequence.input_variable(4), C.sequence.input_variable(4)
    z = C.layers.Dense(4)(C.layers.Recurrence(C.layers.LSTM(8))(x))
    loss = C.forward_backward(C.labels_to_graph(y), z, 3)
    errors = C.edit_distance_error(z, y, 1, 1, 1, True, [3])
    trainer = C.Trainer(z, (loss, errors), [C.adam(z.parameters, 0.02, 0.9, minibatch_size=C.learners.IGNORE)])
    first = last = None
    for _ in range(60):
        data, labels = [], []
        for n in rng.integers(4, 9, 8):
            symbols = rng.integers(0, 3, n // 2)
            seen = frames_of(symbols, range(0, 2 * len(symbols), 2), n, 4).astype(np.float32)
            labels.append(seen)
            data.append((seen > 0).astype(np.float32) + 0.1 * rng.normal(size=(n, 4)).astype(np.float32))
        trainer.train_minibatch({x: data, y: labels})
        last = trainer.previous_minibatch_loss_average
        first = first or last
    assert last < 0.5 * first


def test_face_and_errors():
    x, y, z = C.sequence.input_variable(4), C.sequence.input_variable(4), C.sequence.input_variable(5)
    assert C.forward_backward(C.labels_to_graph(y), x, 3, name="ctc").name == "ctc"
    assert C.labels_to_graph(y, name="graph").name == "graph"
    assert C.metrics.edit_distance_error is C.edit_distance_error
    for blank in (-1, 4, 1.5, None):
        with pytest.raises(ValueError, match="blankTokenId"):
            C.forward_backward(C.labels_to_graph(y), x, blank)
    with pytest.raises(ValueError, match="delayConstraint"):
        C.forward_backward(C.labels_to_graph(y), x, 3, -2)
    with pytest.raises(ValueError, match="one size"):
        C.forward_backward(C.labels_to_graph(y), z, 3)
    with pytest.raises(ValueError, match="one size"):
        C.edit_distance_error(y, z)
    with pytest.raises(ValueError, match="sequence axis"):
        C.edit_distance_error(y, C.parameter(4))
    with pytest.raises(ValueError, match="sequence axis"):
        C.labels_to_graph(C.input_variable(4))
    with pytest.raises(ValueError, match="tokensToIgnore"):
        C.edit_distance_error(y, x, tokensToIgnore=[-1])
    last = C.forward_backward(C.labels_to_graph(y), x, 2**64 - 1)  # CNTK's way to say: the last class
    feed = {v: [np.eye(4, dtype=np.float32)] for v in last.arguments}
    assert last.eval(feed) == C.forward_backward(C.labels_to_graph(y), x, 3).eval(feed)


def test_models_with_a_loss_are_saved_and_cloned(tmp_path):
    x, y = C.sequence.input_variable(4, name="x"), C.sequence.input_variable(4, name="y")
    rng = np.random.default_rng(10)
    both = C.combine(
        [C.forward_backward(C.labels_to_graph(y), C.layers.Dense(4)(x), 3, 2), C.edit_distance_error(x, y, 2, 1, 1, True, [3])]
    )
    both.save(str(tmp_path / "m.safetensors"))
    again = C.Function.load(str(tmp_path / "m.safetensors"))
    logits, labels = random_ctc(rng, (5, 8), 4, 0.2)
    data = {"x": [a.astype(np.float32) for a in logits], "y": [a.astype(np.float32) for a in labels]}
    results = [list(f.eval({v: data[v.name] for v in f.arguments}).values()) for f in (both, again, both.clone("share"))]
    for found in results[1:]:
        assert found == results[0]
