"""Random numbers: counter-based, so that a number depends on (seed, purpose, step, sample) and on nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.op import Op, Type, constant_gradient
from cogkit.variables import sanitize_dtype, sanitize_shape

__all__ = [
    "SentinelValueForAutoSelectRandomSeed",
    "bernoulli",
    "bernoulli_like",
    "dropout",
    "gumbel",
    "gumbel_like",
    "normal_like",
    "random_normal",
    "random_uniform",
    "uniform_like",
]

SentinelValueForAutoSelectRandomSeed = 18446744073709551613
_purposes = itertools.count(1)


def restart() -> None:
    """Numbers the random nodes from 1 again; called when the run's seed is set."""
    global _purposes
    _purposes = itertools.count(1)


def purpose_of(seed: int) -> int:
    """The 32-bit number that keeps this node's random numbers apart from other nodes'."""
    return (next(_purposes) if seed == SentinelValueForAutoSelectRandomSeed else int(seed) * 2654435761 + 0x80000000) & 0xFFFFFFFF


def _given(types, attrs):
    return [attrs["type"]]


Op("rand", "RandomDistribution", _given, constant_gradient, "pointwise", "uniform in (0, 1): Philox4x32-10, Salmon et al. 2011")
Op("randn", "RandomDistribution", _given, constant_gradient, "pointwise", "standard normal: Box-Muller over Philox4x32-10")


def _dropout_expand(g, x, attrs, training):
    rate = attrs["dropout_rate"]
    if not training or rate == 0:
        return x[0]
    keep = g.random("rand", x[0].type, attrs["purpose"]) > rate
    return x[0] * (keep * (1.0 / (1.0 - rate)))


Op(
    "dropout",
    "Dropout",
    lambda types, attrs: [types[0]],
    None,
    "expand",
    "Srivastava et al. 2014; scaled while training",
    expand=_dropout_expand,
    stateful=True,
)


def dropout(x: Any, dropout_rate: float = 0.0, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = "") -> Function:
    """While training, zeroes each element with probability `dropout_rate` in [0, 1) and scales the others by 1 / (1 - rate); else x."""
    if not 0 <= dropout_rate < 1:
        raise ValueError(here(f"Dropout: expected a rate in [0, 1), got {dropout_rate!r}"))
    return apply("dropout", [x], name, dropout_rate=float(dropout_rate), seed=int(seed), purpose=purpose_of(seed))


def _distribution_expand(g, x, attrs, training):
    t = attrs["type"] if not x else Type(x[0].type.shape, x[0].type.dtype, x[0].type.axes)
    a, b = attrs["arguments"]
    kind = attrs["distribution"]
    if kind == "normal":
        return g.random("randn", t, attrs["purpose"]) * b + a
    u = g.random("rand", t, attrs["purpose"])
    if kind == "uniform":
        return u * (b - a) + a
    if kind == "bernoulli":
        return u < a
    return a - (-(u.log())).log() * b  # Gumbel


def _distribution_type(types, attrs):
    return [types[0] if types else attrs["type"]]


Op(
    "random_distribution",
    "RandomDistribution",
    _distribution_type,
    None,
    "expand",
    "CNTK v2",
    expand=_distribution_expand,
    stateful=True,
)


def _draw(kind: str, operands: list, arguments: tuple, seed: int, name: str, type_: Type | None = None) -> Function:
    return apply(
        "random_distribution",
        operands,
        name,
        distribution=kind,
        arguments=tuple(float(a) for a in arguments),
        seed=int(seed),
        purpose=purpose_of(seed),
        type=type_,
    )


def _type_of(f: Any, shape: Any, dtype: Any) -> Type:
    return Type(sanitize_shape(shape), sanitize_dtype(get_default_override(f, dtype=dtype)), ())


def random_uniform(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    low: float = 0.0,
    high: float = 1.0,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """Uniform numbers in (low, high); new ones at each step."""
    return _draw("uniform", [], (low, high), seed, name, _type_of(random_uniform, shape, dtype))


def random_normal(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    mean: float = 0.0,
    scale: float = 1.0,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """Normal numbers of that mean and standard deviation; new ones at each step."""
    return _draw("normal", [], (mean, scale), seed, name, _type_of(random_normal, shape, dtype))


def bernoulli(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    mean: float = 0.5,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """1 with probability `mean`, else 0; new ones at each step."""
    return _draw("bernoulli", [], (mean, 0), seed, name, _type_of(bernoulli, shape, dtype))


def gumbel(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    loc: float = 0.0,
    scale: float = 1.0,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """Gumbel numbers; new ones at each step."""
    return _draw("gumbel", [], (loc, scale), seed, name, _type_of(gumbel, shape, dtype))


def uniform_like(
    x: Any, low: float = 0.0, high: float = 1.0, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = ""
) -> Function:
    """Uniform numbers in (low, high) in the shape and row space of x."""
    return _draw("uniform", [x], (low, high), seed, name)


def normal_like(
    x: Any, mean: float = 0.0, scale: float = 1.0, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = ""
) -> Function:
    """Normal numbers in the shape and row space of x."""
    return _draw("normal", [x], (mean, scale), seed, name)


def bernoulli_like(x: Any, mean: float = 0.5, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = "") -> Function:
    """1 with probability `mean`, else 0, in the shape and row space of x."""
    return _draw("bernoulli", [x], (mean, 0), seed, name)


def gumbel_like(
    x: Any, loc: float = 0.0, scale: float = 1.0, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = ""
) -> Function:
    """Gumbel numbers in the shape and row space of x."""
    return _draw("gumbel", [x], (loc, scale), seed, name)
