"""Stacks of recurrent layers whose weights are one tensor, laid out as cuDNN does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cogkit.errors import here
from cogkit.functions import BlockFunction, Function, to_variables
from cogkit.op import FREE, INFERRED, shown, size_of
from cogkit.ops import sequence
from cogkit.ops.graph import placeholder
from cogkit.ops.linear import times_transpose
from cogkit.ops.pointwise import relu, sigmoid, tanh
from cogkit.ops.shape import reshape, slice, splice
from cogkit.variables import Variable

__all__ = ["optimized_rnnstack"]

GATES = {"lstm": 4, "gru": 3, "rnnTanh": 1, "rnnReLU": 1}


def _steps(op: str, x: Any, weights: tuple[Any, Any, Any, Any], size: int, backwards: bool) -> Any:
    """One direction of one layer: weights w (gates size, inputs), r (gates size, size), bw, br (gates size); the result is (size)."""
    w, r, bw, br = weights

    def gates(v: Any) -> list[Any]:
        return [slice(v, -1, k * size, (k + 1) * size) for k in range(GATES[op])]

    def before(state: Any) -> Any:
        return sequence.delay(state, 0, -1 if backwards else 1)

    h, c = placeholder(), placeholder()
    dh = before(h)
    if op == "gru":  # the reset gate acts behind the product, not before it as in layers.GRU
        (rx, zx, nx), (rh, zh, nh) = gates(bw + times_transpose(x, w)), gates(br + times_transpose(dh, r))
        z = sigmoid(zx + zh)
        new = (1 - z) * tanh(nx + sigmoid(rx + rh) * nh) + z * dh
        return new.replace_placeholders({h: new})
    stacked = (bw + br) + times_transpose(x, w) + times_transpose(dh, r)
    if op != "lstm":
        new = tanh(stacked) if op == "rnnTanh" else relu(stacked)
        return new.replace_placeholders({h: new})
    i, f, m, o = gates(stacked)
    cell = sigmoid(f) * before(c) + sigmoid(i) * tanh(m)
    new = sigmoid(o) * tanh(cell)
    return new.replace_placeholders({h: new, c: cell})


def _shapes(inputs: int, size: int, layers: int, directions: int, gates: int) -> Iterator[tuple[int, ...]]:
    """Shapes of the parts in order: w and r of each layer and direction, then bw and br of each."""
    for layer in range(layers):
        n = inputs if layer == 0 else directions * size
        yield from ((gates * size, n), (gates * size, size)) * directions
    yield from ((gates * size,),) * (2 * layers * directions)


def _bind(weights: Variable, total: int, size: int) -> None:
    """Gives weights whose shape is to be inferred CNTK's, (total / size, size), whatever sizes were named; checks those that are known."""
    known = weights.type.shape
    if known is None or FREE in known:
        raise ValueError(here(f"OptimizedRNNStack: expected weights of a known shape or a parameter, got {weights!r}"))
    if INFERRED in known:
        weights._shape = (INFERRED, INFERRED)
        weights.bind_shape((total // size, size))  # type: ignore[attr-defined]
    elif int(np.prod(known)) != total:
        raise ValueError(
            here(
                f"OptimizedRNNStack: expected {total} weights, got {shown(known)}; let C.InferredDimension find out, as (C.InferredDimension, {size})"
            )
        )


def optimized_rnnstack(
    operand: Any,
    weights: Any,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool = False,
    recurrent_op: str = "lstm",
    name: str = "",
) -> Function:
    """A stack of recurrent layers over sequences of vectors: (inputs) to (hidden_size), twice that where bidirectional (forward, backward).

    recurrent_op: 'lstm', 'gru' (cuDNN's, whose reset gate acts behind the product), 'rnnTanh', 'rnnReLU'; states begin at 0.
    weights: all of them in row-major order, for each layer (and direction) w (gates hidden_size, inputs) and r (gates hidden_size,
    hidden_size), then for each the biases of both; gates i, f, m, o of 'lstm' and r, z, n of 'gru'. Their shape may be inferred. Raises
    `ValueError` for another operation, number of weights or operand. Source: cuDNN's documentation of its weights, CNTK v2.
    """
    if recurrent_op not in GATES:
        raise ValueError(here(f"OptimizedRNNStack: expected recurrent_op among {', '.join(GATES)}, got {recurrent_op!r}"))
    x, w = to_variables(operand, weights)
    size, layers, directions = int(hidden_size), int(num_layers), 2 if bidirectional else 1
    if size < 1 or layers < 1:
        raise ValueError(
            here(f"OptimizedRNNStack: expected sizes of at least 1, got hidden_size {hidden_size}, num_layers {num_layers}")
        )
    given = x.type.shape
    if given is None or len(given) != 1 or given[0] < 1:
        raise ValueError(
            here(f"OptimizedRNNStack: expected an operand of one known size, got {x!r}; apply it to inputs, not to placeholders")
        )
    shapes = list(_shapes(given[0], size, layers, directions, GATES[recurrent_op]))
    _bind(w, sum(map(size_of, shapes)), size)
    about = {"hiddenSize": size, "numLayers": layers, "bidirectional": bool(bidirectional), "recurrentOp": recurrent_op}

    @BlockFunction("OptimizedRNNStack", name, about)
    def stack(operand, weights):
        flat, at, parts = reshape(weights, (INFERRED,)), 0, []
        for s in shapes:
            parts.append(reshape(slice(flat, 0, at, at + size_of(s)), s))
            at += size_of(s)
        matrices, biases = parts[: 2 * layers * directions], parts[2 * layers * directions :]
        y = operand
        for layer in range(layers):
            found = []
            for d in range(directions):
                k = 2 * (layer * directions + d)
                own = (*matrices[k : k + 2], *biases[k : k + 2])
                found.append(_steps(recurrent_op, y, own, size, d == 1))
            y = splice(*found) if directions == 2 else found[0]
        return y

    return stack(x, w)
