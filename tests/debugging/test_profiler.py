"""Times of instructions: the table, the trace, CNTK's four calls, the switches."""

import json
import statistics
import time

import numpy as np
import pytest

import cogkit as C
from cogkit import debugging
from cogkit.engine import watch

F4 = np.float32


def model():
    x, y = C.input_variable(32), C.input_variable(8)
    z = C.layers.Dense(8, name="last")(C.layers.Dense(64, activation=C.relu, name="first")(x))
    trainer = C.Trainer(z, C.cross_entropy_with_softmax(z, y), [C.sgd(z.parameters, 0.01)])
    return trainer, {x: np.random.randn(16, 32).astype(F4), y: np.eye(8, dtype=F4)[np.arange(16) % 8]}


def test_table():
    trainer, feed = model()
    trainer.train_minibatch(feed)
    with debugging.profile() as p:
        for _ in range(3):
            trainer.train_minibatch(feed)
    rows = p.rows()
    assert p.runs == 6  # the gradients' plan and the learner's
    assert all(r["calls"] == 3 and r["ms"] > 0 and r["MB"] > 0 for r in rows)
    assert sum(r["share"] for r in rows) == pytest.approx(1)
    assert [r["ms"] for r in rows] == sorted((r["ms"] for r in rows), reverse=True)
    products = [r for r in rows if r["op"] == "Times"]
    assert len(products) >= 4 and all(r["GFLOP/s"] > 0 and "matmul" in r["kernel"] for r in products)
    assert {r["pass"] for r in products} == {"forward", "backward"}
    assert any("test_profiler.py" in r["place"] for r in rows)
    first = next(r for r in products if r["pass"] == "forward" and r["GFLOP/s"] * r["ms"] * 1e6 > 3 * 2 * 16 * 32 * 64 * 0.99)
    assert first["GFLOP/s"] * first["ms"] * 1e6 == pytest.approx(3 * 2 * 16 * 32 * 64)
    text = p.table().splitlines()
    assert text[0].split() == ["name", "op", "pass", "kernel", "place", "calls", "ms", "share", "MB", "GFLOP/s"]
    assert len(text) == len(rows) + 1


def test_work_of_recurrences_and_convolutions():
    x = C.sequence.input_variable(8)
    f = C.layers.Recurrence(C.layers.RNNStep(8))(x)
    data = [np.random.randn(n, 8).astype(F4) for n in (5, 3)]
    with debugging.profile() as p:
        f.eval({x: data})
    (loop,) = (r for r in p.rows() if r["kernel"] == "loop")
    assert loop["GFLOP/s"] * loop["ms"] * 1e6 == pytest.approx(8 * 2 * 8 * 8)
    i = C.input_variable((3, 8, 8))
    g = C.layers.Convolution2D((3, 3), 4, pad=True, bias=False)(i)
    with debugging.profile() as p:
        g.eval({i: np.zeros((2, 3, 8, 8), F4)})
    (conv,) = (r for r in p.rows() if r["GFLOP/s"])
    assert conv["GFLOP/s"] * conv["ms"] * 1e6 == pytest.approx(2 * 2 * 4 * 8 * 8 * 3 * 9)


def test_trace(tmp_path):
    trainer, feed = model()
    with debugging.profile() as p:
        trainer.train_minibatch(feed)
    p.save(tmp_path / "out")
    assert (tmp_path / "out" / "profile.txt").read_text().startswith("name")
    trace = json.loads((tmp_path / "out" / "trace.json").read_text())
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(events) > 5
    for e in events:
        assert set(e) == {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"}
        assert e["ts"] >= 0 and e["dur"] >= 0 and isinstance(e["name"], str)
    plans = [e for e in events if e["cat"] == "plan"]
    assert len(plans) == 2
    for e in events:  # each instruction lies within a run of its plan
        assert any(q["ts"] <= e["ts"] and e["ts"] + e["dur"] <= q["ts"] + q["dur"] + 0.01 for q in plans)
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)


def test_events_are_bounded():
    x = C.input_variable(3)
    f = C.times(x, C.parameter((3, 2), init=1))
    with debugging.profile(events=5) as p:
        for _ in range(10):
            f.eval({x: np.ones((1, 3))})
    assert len(p.events) == 5 and p.rows()[0]["calls"] == 10


def test_the_four_calls(tmp_path):
    x = C.input_variable(3)
    f = C.times(x, C.parameter((3, 2), init=1))
    with pytest.raises(ValueError, match="enable_profiler.*: expected a profiler, got none"):
        debugging.enable_profiler()
    debugging.start_profiler(str(tmp_path / "p"))
    with pytest.raises(ValueError, match="start_profiler.*: expected no profiler"):
        debugging.start_profiler()
    f.eval({x: np.ones((1, 3))})  # not enabled yet
    debugging.enable_profiler()
    debugging.enable_profiler()
    f.eval({x: np.ones((1, 3))})
    debugging.disable_profiler()
    f.eval({x: np.ones((1, 3))})
    debugging.stop_profiler()
    debugging.stop_profiler()
    lines = (tmp_path / "p" / "profile.txt").read_text().splitlines()
    assert len(lines) == 2 and lines[1].split()[-5] == "1"
    assert json.loads((tmp_path / "p" / "trace.json").read_text())["traceEvents"]
    assert not watch.observers


def test_node_timing(capsys):
    trainer, feed = model()
    debugging.set_node_timing(True)
    try:
        trainer.train_minibatch(feed)
        trainer.print_node_timing()
    finally:
        debugging.set_node_timing(False)
    text = capsys.readouterr().out
    assert "GFLOP/s" in text.splitlines()[0] and "Times" in text
    trainer.print_node_timing()
    assert "instructions" in capsys.readouterr().out


def test_trace_level(capfd):
    x = C.input_variable(3)
    f = C.times(x, C.parameter((3, 2), init=1), name="product")
    for level, words in ((1, "(1, 2) float32"), (1000, "sum of magnitudes 6"), (1_000_000, "[[[3. 3.]]]")):
        debugging.set_computation_network_trace_level(level)
        f.eval({x: np.ones((1, 3))})
        debugging.set_computation_network_trace_level(0)
        text = capfd.readouterr().err
        assert "Times 'product' (test_profiler.py:" in text and words in text
    f.eval({x: np.ones((1, 3))})
    assert not capfd.readouterr().err
    with pytest.raises(ValueError, match="a level of 0 or more"):
        debugging.set_computation_network_trace_level(-1)


def test_one_seed():
    x = C.input_variable(100)
    f = C.dropout(x, 0.5)
    found = []
    for _ in range(2):
        debugging.force_deterministic(5)
        found.append(f.forward({x: np.ones((1, 100))}, [f.output], {f.output})[1][f.output])
    np.testing.assert_array_equal(*found)


def test_it_costs_nothing_when_nobody_looks():
    """A run before and after somebody looked on takes as long."""
    x = C.input_variable(16)
    f = C.times(x, C.parameter((16, 16), init=1))
    feed = {x: np.ones((4, 16), F4)}

    def seconds():
        found = []
        for _ in range(200):
            start = time.perf_counter()
            f.eval(feed)
            found.append(time.perf_counter() - start)
        return statistics.median(found)

    seconds()
    before = seconds()
    with debugging.profile(), debugging.checked():
        f.eval(feed)
    assert not watch.observers
    assert seconds() < 3 * before


def test_models_in_the_one_form(tmp_path):
    x = C.input_variable(3)
    f = C.times(x, C.parameter((3, 2), init=1))
    debugging.save_as_legacy_model(f, tmp_path / "model")
    assert (C.load_model(tmp_path / "model").eval(np.ones((1, 3))) == 3).all()
