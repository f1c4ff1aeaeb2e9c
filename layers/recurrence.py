"""Steps of recurrences: functions of the states before and of an input, whose outputs are the states after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function
from cogkit.initializer import glorot_uniform
from cogkit.layers.composition import as_activation, typed
from cogkit.layers.normalization import Stabilizer
from cogkit.variables import InferredDimension, Parameter, sanitize_shape

__all__ = ["GRU", "LSTM", "RNNStep", "RNNUnit"]

_GLOROT = default_override_or(glorot_uniform())
_ZERO, _FALSE = default_override_or(0), default_override_or(False)


class _Cell:
    """What the steps have in common.

    Parameters: b (gates cells), W (inputs, gates cells), H (outputs, gates cells); P (cells, outputs) where cell_shape is given.
    recurrent: the number of gates in H, where it is another one.
    """

    def __init__(self, maker: Callable, gates: int, shape: Any, cell_shape: Any, activation: Any, init: Any, init_bias: Any, stabilize: Any,
                 recurrent: int = 0):  # fmt: skip
        self.label = maker.__name__
        self.activation = as_activation(get_default_override(maker, activation=activation))
        self.init = typed(get_default_override(maker, init=init))
        self.stabilize = get_default_override(maker, enable_self_stabilization=stabilize)
        init_bias = typed(get_default_override(maker, init_bias=init_bias))
        outputs = self._size("shape", shape)
        self.size = cells = outputs if cell_shape is None else self._size("cell_shape", cell_shape)
        self.b = Parameter((gates * cells,), init_bias, name="b")
        self.w = Parameter((InferredDimension, gates * cells), self.init, name="W")
        self.h = Parameter((outputs, (recurrent or gates) * cells), self.init, name="H")
        self.p = None if cell_shape is None else Parameter((cells, outputs), self.init, name="P")
        self.stabilize_h = self.stabilizer("dh_stabilizer")
        self.stabilize_p = self.stabilizer("P_stabilizer")

    def _size(self, word: str, shape: Any) -> int:
        sizes = sanitize_shape(shape)
        if len(sizes) != 1 or sizes[0] < 1:
            raise ValueError(here(f"{self.label}: expected {word} to be one size, got {shape!r}; a state is a vector"))
        return sizes[0]

    def stabilizer(self, name: str) -> Callable:
        return Stabilizer(enable_self_stabilization=self.stabilize, name=name)

    def gate(self, stacked: Any, k: int) -> Function:
        """The share of the k-th gate in a projection for all gates."""
        return ops.slice(stacked, -1, k * self.size, (k + 1) * self.size)

    def project(self, h: Any) -> Any:
        return h if self.p is None else ops.times(self.stabilize_p(h), self.p)


def LSTM(shape: Any, cell_shape: Any = None, activation: Any = default_override_or(ops.tanh), use_peepholes: Any = _FALSE,
         init: Any = _GLOROT, init_bias: Any = _ZERO, enable_self_stabilization: Any = _FALSE, name: str = "") -> Function:  # fmt: skip
    """Step (dh, dc, x) -> (h, c) of a long short-term memory. Hochreiter and Schmidhuber 1997; Gers et al. 2000, 2002 (peepholes).

    i, m, f, o = b + x W + dh H, stacked in this order; c = s(f) dc + s(i) activation(m); h = s(o) activation(c), s the sigmoid.
    shape: of h; cell_shape: of c where h is a projection h P of it (Sak et al. 2014, arXiv:1402.1128). use_peepholes: Ci dc, Cf dc, Co c
    are added to i, f, o. enable_self_stabilization: a `Stabilizer` before H, P and the peepholes.
    Raises `ValueError` for shapes of another rank than 1.
    """
    cell = _Cell(LSTM, 4, shape, cell_shape, activation, init, init_bias, enable_self_stabilization)
    peepholes = get_default_override(LSTM, use_peepholes=use_peepholes)
    ci, cf, co = (Parameter((cell.size,), cell.init, name=n) if peepholes else None for n in ("Ci", "Cf", "Co"))
    stabilize_dc, stabilize_c = cell.stabilizer("dc_stabilizer"), cell.stabilizer("c_stabilizer")

    @BlockFunction("LSTM", name)
    def lstm(dh, dc, x):
        stacked = cell.b + ops.times(x, cell.w) + ops.times(cell.stabilize_h(dh), cell.h)
        i, m, f, o = (cell.gate(stacked, k) for k in range(4))
        if peepholes:
            before = stabilize_dc(dc)
            i, f = i + ci * before, f + cf * before
        c = ops.sigmoid(f) * dc + ops.sigmoid(i) * cell.activation(m)
        if peepholes:
            o = o + co * stabilize_c(c)
        return cell.project(ops.sigmoid(o) * cell.activation(c)), c

    return lstm


def GRU(shape: Any, cell_shape: Any = None, activation: Any = default_override_or(ops.tanh), init: Any = _GLOROT, init_bias: Any = _ZERO,
        enable_self_stabilization: Any = _FALSE, name: str = "") -> Function:  # fmt: skip
    """Step (dh, x) -> h of a gated recurrent unit. Cho et al. 2014, arXiv:1406.1078; the reset gate acts before the product with H1.

    z, r, n = b + x W, stacked in this order, with dh H added to z and r; h = (1 - s(z)) activation(n + (dh s(r)) H1) + s(z) dh.
    cell_shape: None, or as shape for a product with P behind it. Raises `ValueError` for shapes of another rank than 1 or that differ.
    """
    cell = _Cell(GRU, 3, shape, cell_shape, activation, init, init_bias, enable_self_stabilization, 2)
    outputs = cell.h.shape[0]
    if outputs != cell.size:
        raise ValueError(
            here(f"GRU: expected cell_shape as shape {outputs}, got {cell.size}; the new state is mixed with the one before it")
        )
    h1 = Parameter((outputs, cell.size), cell.init, name="H1")

    @BlockFunction("GRU", name)
    def gru(dh, x):
        before = cell.stabilize_h(dh)
        xs, hs = cell.b + ops.times(x, cell.w), ops.times(before, cell.h)
        z, r = (ops.sigmoid(cell.gate(xs, k) + cell.gate(hs, k)) for k in range(2))
        n = cell.activation(cell.gate(xs, 2) + ops.times(before * r, h1))
        return cell.project((1 - z) * n + z * before)

    return gru


def RNNStep(shape: Any, cell_shape: Any = None, activation: Any = default_override_or(ops.sigmoid), init: Any = _GLOROT,
            init_bias: Any = _ZERO, enable_self_stabilization: Any = _FALSE, name: str = "") -> Function:  # fmt: skip
    """Step (dh, x) -> h = activation(x W + dh H + b) of a plain recurrent network; shapes as in `LSTM`. Elman 1990."""
    cell = _Cell(RNNStep, 1, shape, cell_shape, activation, init, init_bias, enable_self_stabilization)

    @BlockFunction("RNNStep", name)
    def step(dh, x):
        r = ops.times(x, cell.w) + ops.times(cell.stabilize_h(dh), cell.h) + cell.b
        return cell.project(cell.activation(r))

    return step


RNNUnit = RNNStep  # its name before CNTK 2.0
