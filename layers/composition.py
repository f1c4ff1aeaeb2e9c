"""Layers made of layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function
from cogkit.variables import Parameter, sanitize_dtype

__all__ = ["Activation", "Dropout", "For", "Label", "ResNetBlock", "Sequential", "SequentialClique", "identity"]

identity = Function(lambda keep: ops.alias(keep))


def as_function(f: Any) -> Callable:
    """What can be applied: functions and Python functions as they are, nested lists in order, tuples side by side."""
    if isinstance(f, list):
        return Sequential(f)
    if isinstance(f, tuple):
        return side_by_side(f)
    if not callable(f):
        raise TypeError(here(f"layer: expected a function or a list of functions, got {type(f).__name__}"))
    return f


def side_by_side(functions: tuple) -> Callable:
    """All functions of the same arguments, as a tuple of their results."""
    each = [as_function(f) for f in functions]
    return lambda *x: tuple(f(*x) for f in each)


def applied(f: Callable, x: Any) -> Any:
    """f of x, or of what x has where it is a tuple or a function with several outputs."""
    if isinstance(x, tuple):
        return f(*x)
    return f(*x.outputs) if isinstance(x, Function) and len(x.outputs) > 1 else f(x)


def named(f: Callable, names: Sequence[str], name: str = "") -> Function:
    """The function of a Python function of any number of arguments, under these names."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD

    def of(*args):
        return f(*args)

    of.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    return Function(of, name=name)


def argument_names(f: Callable) -> list[str]:
    """Names of what a layer takes: x where it is one thing or any number of things."""
    if isinstance(f, Function):
        found = [v.name for v in f._signature or f.arguments]
    else:
        try:
            taken = inspect.signature(f).parameters.values()
        except ValueError:  # what is written in C may not say
            return ["x"]
        found = [p.name for p in taken if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if len(set(found)) < len(found) or "" in found:
        found = [f"x{i}" for i in range(len(found))]
    return found if len(found) > 1 else ["x"]


def typed(init: Any) -> Any:
    """An initial value for a layer's parameter: arrays in the element type that parameters have, others as they are."""
    if not isinstance(init, np.ndarray):
        return init
    return init.astype(sanitize_dtype(get_default_override(Parameter, dtype=default_override_or(np.float32))))


def as_activation(f: Any) -> Callable:
    """An activation: None is the identity, a list is applied in order."""
    return identity if f is None else as_function(f)


def Sequential(layers: Any, name: str = "") -> Function:
    """Applies the layers one after another; lists may be nested. Layers in a nested tuple get the same input side by side, and their results
    are the arguments of the next layer: `Sequential([(Recurrence(f), Recurrence(g, go_backwards=True)), C.splice])`.

    The first layer's arguments are those of the whole. Raises `TypeError` for what cannot be applied.
    """
    if not isinstance(layers, (list, tuple)):
        return Function(as_function(layers))
    steps = [as_function(f) for f in layers if not (isinstance(f, (list, tuple)) and not f)]
    if not steps:
        return identity

    def sequential(*x: Any) -> Any:
        y = steps[0](*x)
        for f in steps[1:]:
            y = applied(f, y)
        return y

    return named(sequential, argument_names(steps[0]), name)


def For(what_range: Iterable, constructor: Callable, name: str = "") -> Function:
    """`Sequential` of the layers that `constructor` makes for each item; it may take the item or nothing."""
    if isinstance(constructor, Function):
        raise TypeError(
            here(f"For: expected a constructor of layers, got a layer {constructor!r}; give lambda: layer to share it")
        )
    takes = len(inspect.signature(constructor).parameters)
    if takes > 1:
        raise TypeError(here(f"For: expected a constructor of one argument or none, got one of {takes}"))
    return Sequential([constructor(i) if takes else constructor() for i in what_range], name)


def SequentialClique(functions: Any, name: str = "") -> Function:
    """Each layer sees the sum of the input and of what all layers before it gave; the last layer's output is the result."""
    steps = [as_function(f) for f in functions]
    if not steps:
        raise ValueError(here("SequentialClique: expected at least one layer, got none"))

    def clique(x: Any) -> Any:
        for f in steps:
            y = f(x)
            x = ops.plus(x, y)
        return y

    return Function(clique, name=name)


def ResNetBlock(f: Any, name: str = "") -> Function:
    """x + f(x). He et al. 2016, arXiv:1512.03385."""
    return Function(lambda x: ops.plus(as_function(f)(x), x), name=name)


def Activation(activation: Any = default_override_or(identity), name: str = "") -> Function:
    """An activation as a layer; the default may be set by `default_options`."""
    activation = as_activation(get_default_override(Activation, activation=activation))

    @BlockFunction("Activation", name)
    def activate(x):
        return activation(x)

    return activate


def Dropout(dropout_rate: float | None = None, keep_prob: float | None = None, seed: int = ops.SentinelValueForAutoSelectRandomSeed,
            name: str = "") -> Function:  # fmt: skip
    """While training, zeroes elements with probability `dropout_rate`; or give `keep_prob`. Raises `ValueError` unless exactly one is given."""
    if (dropout_rate is None) == (keep_prob is None):
        raise ValueError(
            here(
                "Dropout: expected exactly one of dropout_rate and keep_prob, got " + ("neither" if keep_prob is None else "both")
            )
        )
    rate = 1 - keep_prob if dropout_rate is None else dropout_rate
    if not 0 <= rate < 1:
        raise ValueError(here(f"Dropout: expected a rate in [0, 1), got {rate!r}"))

    @BlockFunction("Dropout", name)
    def dropout(x):
        return ops.dropout(x, rate, seed=seed)

    return dropout


def Label(name: str) -> Function:
    """Gives its input a name, so that it can be found in a model."""
    return Function(lambda x: ops.alias(x, name=name))
