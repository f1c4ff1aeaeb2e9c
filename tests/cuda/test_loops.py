"""Recurrences on the CUDA engine: the graphs of the sequence tests against the reference, other minibatches, what is launched."""

import numpy as np
import pytest
from cuda.plans import libraries_in_use
from engine import test_sequences as graphs

import cogkit as C
from cogkit.engine.executable import Executable

S = C.sequence


def with_a_bias(x, b, d):
    """A product in the step whose bias is added by the library."""
    r, bias = graphs.weights((2, 2), 1, d), graphs.weights((2,), 2, d)
    return graphs.closed(lambda h: C.tanh(x + C.relu(C.times(S.past_value(h), r) + bias)))


@pytest.mark.parametrize("dtype", graphs.DTYPES)
@pytest.mark.parametrize("lengths", ["mixed", "equal", "alone"])
@pytest.mark.parametrize("build", graphs.GRAPHS, ids=lambda g: g.__name__)
def test_graphs_of_sequences(build, lengths, dtype):
    f, x, b = graphs.made(build, graphs.DTYPES[dtype])
    feed = graphs.fed(f, x, b, *graphs.data(graphs.BATCHES[lengths], graphs.DTYPES[dtype]))
    want, got = (graphs.results(f, x, b, feed, engine) for engine in ("reference", "cuda"))
    tight = 2e-5 if dtype == "f4" else 1e-11
    for w, g in zip(graphs.flat(want), graphs.flat(got), strict=True):
        np.testing.assert_allclose(g, w, rtol=tight, atol=tight * max(1, np.abs(w).max(initial=0)))


@pytest.mark.parametrize("dtype", graphs.DTYPES)
@pytest.mark.parametrize("build", [graphs.lstm, graphs.deep, graphs.both_ways, with_a_bias], ids=lambda g: g.__name__)
def test_products_of_a_library_in_a_step(build, dtype, monkeypatch):
    """Its commands are given the addresses of each step, or each step has one of its own where the library keeps an address."""
    libraries_in_use(monkeypatch, True)
    for lengths in ([3, 1, 5, 2], [4, 4, 4]):
        f, x, b = graphs.made(build, graphs.DTYPES[dtype])
        feed = graphs.fed(f, x, b, *graphs.data(lengths, graphs.DTYPES[dtype]))
        want, got = (graphs.results(f, x, b, feed, engine) for engine in ("reference", "cuda"))
        tight = 2e-5 if dtype == "f4" else 1e-11
        for w, g in zip(graphs.flat(want), graphs.flat(got), strict=True):
            np.testing.assert_allclose(g, w, rtol=tight, atol=tight * max(1, np.abs(w).max(initial=0)))


def run_again(build, batches):
    """What one executable gives for each minibatch in turn, and the reference for each alone."""
    f, x, b = graphs.made(build, np.float32)
    loss = C.reduce_sum(C.sin(f), axis=C.Axis.all_axes())
    wrt = [v for v in (x, b) if v in f.arguments] + list(f.parameters)
    executable, reference = (
        Executable([f.output], roots=loss.output, wrt=wrt, training=True, engine=e) for e in ("cuda", "reference")
    )
    for n, lengths in enumerate(batches):
        feed = graphs.fed(f, x, b, *graphs.data(lengths, np.float32, n))
        yield graphs.flat(executable.run(feed)), graphs.flat(reference.run(feed))


@pytest.mark.parametrize(
    "build", [graphs.lstm, graphs.delay_of_two, graphs.backwards, graphs.two_states], ids=lambda g: g.__name__
)
def test_other_minibatches_and_the_same_again(build):
    """Commands of a step body serve all minibatches; graphs are not replayed for other lengths."""
    batches = [[3, 1, 2]] * 4 + [[2, 2, 2]] * 3 + [[1, 3, 2], [5], [3, 1, 2], [3, 1, 2], [3, 1, 2], [1, 1], [7, 1, 1, 4]]
    for got, want in run_again(build, batches):
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-5 * max(1, np.abs(w).max(initial=0)))


def test_what_was_before_is_read_where_it_lies(fake):
    """A step costs the launches of its body: past values take none, future ones one where sequences begin."""
    x = S.input_variable(2)
    past, future = ([3, 3, 3], [5, 1, 1]), ([3, 3, 3], [5, 1, 1])
    for delay, cases in ((S.past_value, zip(past, (3, 5), strict=True)), (S.future_value, zip(future, (3, 6), strict=True))):
        f = graphs.closed(lambda h, delay=delay: x + 0.5 * delay(h))
        for lengths, expected in cases:
            e = Executable([f.output], engine="cuda")
            feed = {x: [np.ones((n, 2), np.float32) for n in lengths]}
            e.run(feed)
            before = fake.counts()["launches"]
            e.run(feed)
            assert fake.counts()["launches"] - before == expected + 1  # the header of the run


class Halved(C.UserFunction):
    """x / 2 of all sequences that are there at a step."""

    def infer_outputs(self):
        v = self.inputs[0]
        return [C.output_variable(v.shape, v.dtype, v.dynamic_axes)]

    def forward(self, argument, device=None, outputs_to_retain=None):
        return None, [v / 2 for v in argument]

    def backward(self, state, root_gradients):
        return [g / 2 for g in root_gradients]


@pytest.mark.parametrize("delay", [S.past_value, S.future_value], ids=lambda d: d.__name__)
def test_a_users_function_in_a_recurrence(delay):
    """The host has its part at each step."""
    x = S.input_variable(2, needs_gradient=True)
    f = graphs.closed(lambda h: C.tanh(x + C.user_function(Halved([delay(h) * x]))))
    found = []
    for engine in ("reference", "cuda"):
        with C.device.use_engine(engine):
            for lengths in ([3, 1, 4], [1, 2]):
                xs, _ = graphs.data(lengths, np.float32)
                found.append(graphs.flat([f.eval({x: xs}), f.grad({x: xs}, wrt=[x])]))
    for want, got in zip(found[:2], found[2:], strict=True):
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)
