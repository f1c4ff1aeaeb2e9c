"""Graphs of many nodes: nothing recurses along a chain, no pass grows faster than the graph, start-up is short."""

import contextlib
import gc
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import cogkit as C
import cogkit.layers as L
from cogkit.inference import Typed

DEEP = 2 * sys.getrecursionlimit()
THRESHOLD = gc.get_threshold()
ONE = np.ones((1, 2), np.float32)


def chain(x, n, step=None):
    """Tanh of tanh of ..., n deep, with something added now and then."""
    for i in range(n):
        x = C.tanh(x) if i % 4 or step is None else x + step
    return x


def same(f, g, feed):
    np.testing.assert_array_equal(f.eval(feed), g.eval(feed))


def test_a_chain_is_evaluated_differentiated_copied_and_stored(tmp_path):
    x, w = C.input_variable(2), C.parameter(2, init=0.5)
    f = chain(x, DEEP, w)
    assert f.shape == (2,) and f.parameters == (w,) and f.needs_gradient
    assert np.isfinite(f.grad({x: ONE}, [w])).all()
    f.save(tmp_path / "m")
    for g in (f.clone("clone"), f.clone("freeze"), C.load_model(tmp_path / "m")):
        same(f, g, ONE)
    assert len(C.logging.graph.depth_first_search(f, lambda v: True)) == DEEP + 2
    assert f.find_by_name("nothing") is None and C.logging.plot(f).count("\n") == DEEP and str(f) and repr(f)


def test_a_chain_over_a_placeholder():
    p, c = C.placeholder(), C.constant(1.0)
    f = chain(p, DEEP)
    c.value = 2.0  # what was known of the types is asked for again
    assert f.output.shape == ()
    x = C.input_variable(2)
    same(f.replace_placeholder(x), chain(x, DEEP), ONE)


def test_a_chain_in_a_function_and_in_a_block(tmp_path):
    x = C.input_variable(2)
    made = [C.Function(lambda a: chain(a, DEEP))(x), C.layers.BlockFunction("Deep", "deep")(lambda a: chain(a, DEEP))(x)]
    made[1].save(tmp_path / "m")
    for f in (*made, made[1].clone("clone"), C.load_model(tmp_path / "m")):
        assert f.shape == (2,)
        same(f, chain(x, DEEP), ONE)


@pytest.mark.parametrize("known", [True, False])
def test_a_chain_in_a_cycle(known, tmp_path):
    x, p = C.sequence.input_variable(2), C.placeholder(2) if known else C.placeholder()
    f = chain(C.sequence.past_value(p), DEEP, x)
    f.replace_placeholders({p: f.output})
    assert f.shape == (2,) and f.output.has_sequence_axis()
    f.save(tmp_path / "m")
    want = np.asarray(f.eval([np.ones((2, 2), np.float32)]))
    for g in (f.clone("clone"), C.load_model(tmp_path / "m")):
        np.testing.assert_array_equal(want, np.asarray(g.eval([np.ones((2, 2), np.float32)])))


def test_the_work_of_recurrences_that_wait_for_their_input_grows_with_their_number(monkeypatch):
    calls, guess = [], Typed._guess_here
    monkeypatch.setattr(Typed, "_guess_here", lambda self, given: calls.append(self) or guess(self, given))

    def work(n):
        calls.clear()
        model = L.Sequential([L.Recurrence(L.RNNStep(2)) for _ in range(n)])
        unapplied = len(calls)
        assert model(C.sequence.input_variable(3)).shape == (2,)
        return unapplied

    work(1)
    assert work(24) < 2.5 * work(12)


def test_a_chain_of_delays():
    x = C.sequence.input_variable(1)
    f = x
    for _ in range(DEEP // 2):
        f = C.sequence.past_value(C.tanh(f))
    f = f + x
    assert f.shape == (1,) and f.clone("share").shape == (1,)
    np.testing.assert_array_equal(f.eval([np.ones((2, 1), np.float32)])[0], np.ones((2, 1), np.float32))


def test_the_collector_is_put_off_and_on_again(tmp_path):
    x = C.input_variable(2)
    f = chain(x, 10)
    seen = []
    gc.callbacks.append(lambda phase, info: seen.append(phase))
    try:
        gc.set_threshold(1)
        for use in (lambda: f.clone("clone"), lambda: f.save(tmp_path / "m"), lambda: f.eval({x: ONE}), lambda: f.eval({x: 3})):
            with contextlib.suppress(ValueError):
                use()
            assert gc.isenabled()
    finally:
        gc.callbacks.pop()
        gc.set_threshold(*THRESHOLD)
    assert seen


def test_a_value_around_itself_is_refused():
    x, p = C.input_variable(2), C.placeholder(2)
    f = chain(p, DEEP) + x
    with pytest.raises(ValueError, match="expected a delay in every cycle"):
        f.replace_placeholders({p: f.output})


def cells(x, n):
    for _ in range(n):
        x = L.Recurrence(L.RNNStep(2))(x)
    return x


def grow(n, tmp_path):
    """CPU seconds of each thing that is done to a graph of n nodes."""
    seconds = {}

    def lap(name, f):
        before = time.process_time()
        made = f()
        seconds[name] = time.process_time() - before
        return made

    x, s, w = C.input_variable(2), C.sequence.input_variable(2), C.parameter(2, init=0.5)
    f = lap("build", lambda: chain(x, n, w))
    lap("eval", lambda: f.eval({x: ONE}))
    lap("grad", lambda: f.grad({x: ONE}, [w]))
    lap("clone", lambda: f.clone("clone"))
    lap("save", lambda: f.save(tmp_path / "m"))
    lap("load", lambda: C.load_model(tmp_path / "m"))
    lap("wide", lambda: C.splice(*[C.tanh(x * float(i)) for i in range(n // 4)]).eval({x: ONE}))
    lap("layers", lambda: L.Sequential([L.Dense(2, activation=C.relu) for _ in range(n // 8)])(x).eval({x: ONE}))
    lap("cells", lambda: cells(s, n // 32).eval([ONE]))
    return seconds


@pytest.mark.heavy
def test_time_grows_with_the_number_of_nodes(tmp_path):
    grow(500, tmp_path)
    small, large = grow(2000, tmp_path), grow(32_000, tmp_path)
    factors = {k: round(large[k] / max(small[k], 0.01), 1) for k in small}
    assert max(factors.values()) < 64, factors  # 16 nodes for one; quadratic would be 256


START = """
import time
import cogkit as C, numpy as np
from cogkit.papers.resnet.model import network
imported = time.process_time()
x, y = C.input_variable((3, 32, 32)), C.input_variable(10)
z = network(x, 20, "projection", 10, 1)
learner = C.momentum_sgd(z.parameters, C.learning_parameter_schedule(0.1), C.momentum_schedule(0.9))
trainer = C.Trainer(z, (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)), [learner])
before = time.process_time()
trainer.train_minibatch({x: np.ones((2, 3, 32, 32), "f"), y: np.eye(10, dtype="f")[:2]})
print(imported, time.process_time() - before)
"""


@pytest.mark.heavy
def test_start_up_is_short(tmp_path):
    """CPU seconds of `import cogkit` and of the first minibatch of a residual net, which lowers it; with compiled Python."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True)
        for _ in range(4)
    ]
    imported, first = np.min([[float(t) for t in r.stdout.split()] for r in runs[1:]], axis=0)
    assert imported < 0.3 and first < 0.5, (imported, first)
