"""What becomes of cycles: which part of a graph is in a loop, and what stays outside over all rows at once."""

import numpy as np
import pytest
from lowering.lowered import graph_of

import cogkit as C
from cogkit.components import components
from cogkit.layers import GRU, LSTM, Dense, Recurrence

S = C.sequence


def rnn(x, n=3):
    w, r, b = C.parameter((x.shape[0], n), init=0.1), C.parameter((n, n), init=0.2), C.parameter(n, init=0)
    h = C.placeholder()
    f = C.tanh(C.times(x, w) + b + C.times(S.past_value(h), r))
    return f.replace_placeholders({h: f.output})


def loops(graph):
    return [n for n in graph.nodes if n.name == "loop"]


def inside(loop):
    return [n.name for n in loop.attrs["body"].graph.nodes if n.op is not None and n.name != "fill"]


def products(graph):
    return [n for n in graph.nodes if n.name == "matmul"]


def test_one_product_a_step_and_one_over_all_rows():
    g = graph_of(rnn(S.input_variable(2)))
    (loop,) = loops(g)
    assert sorted(n for n in inside(loop) if n != "reshape") == ["add", "matmul", "tanh"]
    (outside,) = products(g)
    assert outside.inputs[0].producer.leaf is not None or outside.inputs[0].producer.name == "reshape"
    assert loop.attrs["body"].forward


def test_gradients_of_weights_are_one_product_over_all_rows_after_the_loop():
    x = S.input_variable(2)
    f = rnn(x)
    loss = C.reduce_sum(f, axis=C.Axis.all_axes())
    g = graph_of(root=loss, wrt=loss.parameters)
    forward, backward = loops(g)
    assert forward.attrs["body"].forward and not backward.attrs["body"].forward
    assert inside(forward).count("matmul") == inside(backward).count("matmul") == 1
    after = [n for n in products(g) if n.attrs["sum_rows"]]
    assert len(after) == 2 and all(n.serial > backward.serial for n in after)


@pytest.mark.parametrize(("cell", "forward", "backward"), [(LSTM, 1, 1), (GRU, 2, 2)])
def test_products_of_the_cells(cell, forward, backward):
    """Only products with the state are in the loop: one of an LSTM's stacked gates, two of a GRU's."""
    f = Recurrence(cell(4))(S.input_variable(3))
    loss = C.reduce_sum(f, axis=C.Axis.all_axes())
    g = graph_of(root=loss, wrt=loss.parameters)
    assert [inside(n).count("matmul") for n in loops(g)] == [forward, backward]


def test_layers_are_loops_one_after_the_other():
    model = C.layers.Sequential([Recurrence(LSTM(4)), Recurrence(LSTM(4)), Recurrence(LSTM(4), go_backwards=True), Dense(2)])
    g = graph_of(model(S.input_variable(3)))
    assert [n.attrs["body"].forward for n in loops(g)] == [True, True, False]


def test_a_delay_without_a_cycle_is_no_loop():
    x = S.input_variable(2)
    g = graph_of(S.past_value(C.tanh(x)) + S.future_value(x, 1))
    assert not loops(g) and sum(n.name == "move_rows" for n in g.nodes) == 2


def test_cheap_values_that_one_loop_reads_are_computed_in_it():
    """The factor 1 - y of a gradient is not stored for all rows."""
    x = S.input_variable(2)
    loss = C.reduce_sum(rnn(x), axis=C.Axis.all_axes())
    g = graph_of(root=loss, wrt=loss.parameters)
    assert not [n for n in g.nodes if n.op is not None and n.op.kernel == "pointwise" and n.name in ("mul", "sub")]


def test_two_states_are_one_loop():
    x = S.input_variable(2)
    h, c = C.placeholder(), C.placeholder()
    new_c = x + S.past_value(h) * S.past_value(c)
    new_h = C.tanh(new_c)
    f = C.combine([new_h, new_c])
    f.replace_placeholders({h: new_h.output, c: new_c.output})
    (loop,) = loops(graph_of(*f.outputs))
    assert len(loop.attrs["body"].carried) == 2 and len(loop.outputs) == 2


def test_a_cycle_without_a_delay_is_refused():
    x = S.input_variable(2)
    h = C.placeholder()
    f = C.tanh(x + h)
    with pytest.raises(ValueError, match="expected a delay in every cycle, got a value that depends on itself"):
        f.replace_placeholders({h: f.output})


def test_a_cycle_runs_one_way():
    x = S.input_variable(2)
    h = C.placeholder()
    f = C.tanh(x + S.past_value(h) + S.future_value(h))
    f.replace_placeholders({h: f.output})
    with pytest.raises(ValueError, match="past and future values in one cycle; a recurrence runs one way"):
        f.eval({x: [np.ones((2, 2), np.float32)]})


def test_a_step_may_not_depend_on_other_steps():
    x = S.input_variable(2)
    h = C.placeholder()
    f = C.tanh(x + S.last(S.past_value(h)))
    f.replace_placeholders({h: f.output})
    with pytest.raises(ValueError, match="depends on the rows of that step alone"):
        f.eval({x: [np.ones((2, 2), np.float32)]})


def test_the_state_keeps_its_shape():
    x = S.input_variable(2)
    h = C.placeholder()
    f = C.splice(x, S.past_value(h))
    with pytest.raises(ValueError, match="around its cycle"):
        f.replace_placeholders({h: f.output})
        f.eval({x: [np.ones((2, 2), np.float32)]})


def test_components():
    graph = {1: [2], 2: [3, 4], 3: [2], 4: [], 5: [5, 1]}
    found = components([5], lambda k: graph[k])
    assert [sorted(c) for c in found] == [[4], [2, 3], [1], [5]]
    chain = components([0], lambda k: [k + 1] if k < 100_000 else [])
    assert len(chain) == 100_001 and chain[0] == [100_000]
