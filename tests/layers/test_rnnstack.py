"""`optimized_rnnstack` against its formulas in NumPy, over cuDNN's layout of the weights; shapes are those that CNTK 2.7 infers."""

import numpy as np
import pytest

import cogkit as C

GATES = {"lstm": 4, "gru": 3, "rnnTanh": 1, "rnnReLU": 1}
INFERRED = {  # operation, both directions, layers: rows of the weights for 5 inputs and a hidden size of 3
    ("lstm", False, 1): 40, ("lstm", False, 2): 72, ("lstm", False, 3): 104, ("lstm", True, 1): 80, ("lstm", True, 2): 168,
    ("lstm", True, 3): 256, ("gru", False, 1): 30, ("gru", False, 2): 54, ("gru", False, 3): 78, ("rnnTanh", False, 1): 10,
    ("rnnTanh", False, 2): 18, ("rnnReLU", False, 3): 26,
}  # fmt: skip


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def direction(op, rows, w, r, bw, br):
    size, out = r.shape[1], []
    h = c = np.zeros(size)
    for row in rows:
        a, b = w @ row + bw, r @ h + br
        if op == "lstm":
            i, f, m, o = np.split(a + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(m)
            h = sigmoid(o) * np.tanh(c)
        elif op == "gru":
            (ra, za, na), (rb, zb, nb) = np.split(a, 3), np.split(b, 3)
            z = sigmoid(za + zb)
            h = (1 - z) * np.tanh(na + sigmoid(ra + rb) * nb) + z * h
        else:
            h = np.tanh(a + b) if op == "rnnTanh" else np.maximum(a + b, 0)
        out.append(h)
    return np.array(out)


def stack(op, rows, flat, size, layers, both):
    """The formulas; flat: w, r of each layer and direction, then bw, br of each."""
    at, parts, inputs, ways = 0, [], rows.shape[1], 2 if both else 1

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return flat[at - int(np.prod(shape)) : at].reshape(shape)

    for layer in range(layers):
        n = inputs if layer == 0 else ways * size
        parts += [(take(GATES[op] * size, n), take(GATES[op] * size, size)) for _ in range(ways)]
    biases = [(take(GATES[op] * size), take(GATES[op] * size)) for _ in parts]
    assert at == flat.size
    for layer in range(layers):
        found = []
        for d in range(ways):
            way = slice(None, None, -1) if d else slice(None)
            k = layer * ways + d
            found.append(direction(op, rows[way], *parts[k], *biases[k])[way])
        rows = np.concatenate(found, 1)
    return rows


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("both", [False, True])
def test_values_and_gradients(op, both):
    x = C.sequence.input_variable(5, needs_gradient=True)
    w = C.parameter((C.InferredDimension, 5), init=C.glorot_uniform())
    f = C.optimized_rnnstack(x, w, 3, 2, bidirectional=both, recurrent_op=op, name="stack")
    assert f.name == "stack" and f.root_function.op_name == "OptimizedRNNStack" and f.shape == (6 if both else 3,)
    assert f.root_function.attributes == {"hiddenSize": 3, "numLayers": 2, "bidirectional": both, "recurrentOp": op}
    assert [p.uid for p in f.parameters] == [w.uid]
    rows = [np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 7)]
    for got, one in zip(f.eval({x: rows}), rows, strict=True):
        np.testing.assert_allclose(got, stack(op, one, w.value.ravel(), 3, 2, both), rtol=2e-5, atol=2e-6)
    gradient = f.grad({x: rows}, wrt=[w])
    step = np.random.default_rng(9).normal(size=w.shape)
    values = w.value.astype(np.float64)
    ends = [
        sum(stack(op, one.astype(np.float64), (values + e * step).ravel(), 3, 2, both).sum() for one in rows)
        for e in (1e-5, -1e-5)
    ]
    np.testing.assert_allclose((gradient * step).sum(), (ends[0] - ends[1]) / 2e-5, rtol=2e-4)


def test_inferred_weights():
    x = C.sequence.input_variable(5)
    for (op, both, layers), rows in INFERRED.items():
        for shape in ((C.InferredDimension, 3), (C.InferredDimension, 7), (C.InferredDimension, C.InferredDimension)):
            w = C.parameter(shape, init=0.1)
            C.optimized_rnnstack(x, w, 3, layers, bidirectional=both, recurrent_op=op)
            assert w.shape == (rows, 3)  # whatever else was named, as in CNTK


def test_errors():
    x = C.sequence.input_variable(5)
    w = C.parameter((C.InferredDimension, 3), init=0.1)
    for make, words in [
        (
            lambda: C.optimized_rnnstack(x, w, 3, 1, recurrent_op="RNN"),
            "expected recurrent_op among lstm, gru, rnnTanh, rnnReLU, got 'RNN'",
        ),
        (lambda: C.optimized_rnnstack(x, w, 0, 1), "expected sizes of at least 1, got hidden_size 0, num_layers 1"),
        (
            lambda: C.optimized_rnnstack(x, C.parameter((41, 3), init=0), 3, 1),
            r"expected 120 weights, got \(41, 3\); let C.InferredDimension",
        ),
        (lambda: C.optimized_rnnstack(C.placeholder(), w, 3, 1), "expected an operand of one known size"),
    ]:
        with pytest.raises(ValueError, match=r"OptimizedRNNStack \(test_rnnstack.py:\d+\): " + words):
            make()
