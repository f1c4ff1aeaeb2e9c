"""`debug_model`: what it says, which commands it takes, and that values stay what they are."""

import numpy as np
import pytest

import cogkit as C
from cogkit.debugging import DEBUG_USAGE, debug_model

F4 = np.float32


class Terminal:
    """Gives lines and keeps what is written."""

    def __init__(self, *lines):
        self.lines, self.text = list(lines), ""

    def readline(self):
        return self.lines.pop(0) + "\n" if self.lines else ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def stops(self):
        """The nodes at which it asked, in order."""
        found, last = [], ""
        for line in self.text.splitlines():
            if " with uid " in line:
                last = line
            if ">>>" in line and (not found or found[-1] != last):
                found.append(last)
        return [
            line.split("(")[0].split(":")[0]
            + ("'" + line.split("'")[1] + "'" if line.split("(")[0] in ("Input", "Parameter") else "")
            for line in found
        ]


def model():
    x, w = C.input_variable(3, needs_gradient=True, name="x"), C.parameter((3, 2), init=1, name="w")
    a = C.times(x, w, name="a")
    return x, w, C.reduce_sum(C.tanh(a, name="squashed") * a, name="sum")


def debugged(*lines, exit_func=None):
    x, w, f = model()
    t = Terminal(*lines)
    return x, w, f, debug_model(f, t, t, *([] if exit_func is None else [exit_func])), t


DATA = np.random.RandomState(0).randn(4, 3).astype(F4)


def test_values_and_gradients_stay():
    x, w, f, g, t = debugged("c")
    assert g.parameters == (w,) and g.arguments == (x,)
    np.testing.assert_allclose(g.eval({x: DATA}), f.eval({x: DATA}), rtol=1e-6)
    for a, b in zip(g.grad({x: DATA}, [x, w]).values(), f.grad({x: DATA}, [x, w]).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert t.text.count("forward") >= 2 and t.text.count("= backward =") == 1 and t.text.count(">>>") == 1


def test_one_by_one():
    x, w, f, g, t = debugged("n", "n", "", "n 2", "p", "what", "c")
    g.eval({x: DATA})
    assert t.stops() == ["Input'x'", "Parameter'w'", "a", "ElementTimes"]
    assert (
        f"value (4, 2):\n{DATA.sum(1, keepdims=True).repeat(2, 1) * np.tanh(DATA.sum(1, keepdims=True).repeat(2, 1))}"[:20]
        in t.text
    )
    assert DEBUG_USAGE in t.text


def test_until():
    x, w, f, g, t = debugged("u b", "p", "u w", "c")
    g.grad({x: DATA}, [x, w])
    assert "gradient (4,):" in t.text
    assert t.stops()[:2] == ["Input'x'", "sum"] and t.stops()[2] == "Parameter'w'"
    x, w, f, g, t = debugged("u b", "c")
    g.eval({x: DATA})
    assert len(t.stops()) == 1  # there is no backward pass to wait for


@pytest.mark.parametrize(
    "condition", ["getattr(node, 'op_name', '') == 'Tanh'", "value.shape == (4, 2) and np.abs(value).max() <= 1"]
)
def test_until_a_condition(condition):
    x, w, f, g, t = debugged(f"u lambda value, node: {condition}", "c")
    g.eval({x: DATA})
    assert t.stops() == ["Input'x'", "squashed"]


def test_wrong_commands():
    x, w, f, g, t = debugged("u nothing", "u lambda value node", "n 0", "n -1", "u", "c")
    g.eval({x: DATA})
    assert "There is no node named 'nothing'." in t.text and "invalid syntax" in t.text
    assert t.text.count(DEBUG_USAGE) == 5


def test_quit_and_the_end_of_input():
    left = []
    x, w, f, g, t = debugged("q", "c", exit_func=left.append)
    g.eval({x: DATA})
    assert left == [0]
    x, w, f, g, t = debugged()
    g.eval({x: DATA})
    assert t.text.count(">>>") == 1


def test_training_blocks_sequences_and_recurrences():
    x, y = C.sequence.input_variable(3), C.input_variable(2)
    p = C.placeholder(shape=(4,))
    h = C.tanh(C.layers.Dense(4, name="dense")(x) + 0.5 * C.sequence.past_value(p), name="state")
    h.replace_placeholders({p: h.output})
    z = C.layers.Dense(2)(C.sequence.last(h))
    t = Terminal("c")
    g = debug_model(z, t, t)
    data = [np.random.randn(n, 3).astype(F4) for n in (3, 1, 2)]
    np.testing.assert_allclose(g.eval({x: data}), z.eval({x: data}), rtol=1e-5, atol=1e-6)
    loss = C.squared_error(g, y)
    trainer = C.Trainer(g, loss, [C.sgd(g.parameters, 0.1)])
    trainer.train_minibatch({x: data, y: np.ones((3, 2), F4)})
    assert "state: Tanh(" in t.text and "= backward =" in t.text


def test_several_outputs_and_what_is_debugged_already():
    x, w, f = model()
    t = Terminal("c")
    g = debug_model(C.combine(f, x + 1), t, t)
    assert len(g.outputs) == 2
    for a, b in zip(g.eval({x: DATA}).values(), C.combine(f, x + 1).eval({x: DATA}).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(ValueError, match="a model without debug nodes"):
        debug_model(g)
