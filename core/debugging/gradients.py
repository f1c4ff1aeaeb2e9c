"""Checks of gradients by finite differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cogkit.cloning import CloneMethod, clone
from cogkit.engine.session import Executable, feed_map
from cogkit.errors import here
from cogkit.functions import Function
from cogkit.variables import Constant, Input, Parameter, Variable
from cogkit.walks import leaves_of

__all__ = ["GradientCheck", "gradcheck"]


@dataclass(frozen=True)
class GradientCheck:
    """error: the largest difference between a gradient and a slope, relative to the larger of them and of 1; None of the rest where nothing
    was checked. variable: where that was, index: of the element (sequence number first, over sequences). gradient, slope: the two numbers.
    count: elements that were checked.
    """

    error: float
    variable: Variable | None
    index: tuple[int, ...]
    gradient: float
    slope: float
    count: int

    def __str__(self) -> str:
        if self.variable is None:
            return "nothing to check"
        return (
            f"error {self.error:.3g} at {self.variable!r} {self.index}: gradient {self.gradient:.9g}, slope {self.slope:.9g}"
            f" ({self.count} elements checked)"
        )


def gradcheck(
    function: Function, arguments: Any, wrt: Iterable[Variable] | None = None, step: float = 1e-5, limit: int = 100, seed: int = 0
) -> GradientCheck:
    """Compares gradients with central differences, in float64 on a copy of the function, whatever its type, and gives the largest error.

    The value that is differentiated is the sum over all outputs of random numbers times their elements. wrt: parameters and inputs of the
    function (default: all that want gradients). step: of the differences; limit: elements of each that are tried, at random where there
    are more. Random ops draw the same numbers each time; nothing is written. Near a kink or jump of the function the slope means nothing.
    Raises `ValueError` for a variable that the function does not have.
    """
    if wrt is None:
        wrt = [v for v in leaves_of(function.root) if (v.is_parameter or v.is_input) and v.needs_gradient]
    asked = [v.output if isinstance(v, Function) else v for v in wrt]
    copy, pairs = _in_double(function, asked)
    feeds = {pairs[id(v)]: _doubled(data) for v, data in feed_map(function, arguments).items() if id(v) in pairs}
    for v in asked:
        if id(v) not in pairs or not (v.is_parameter or v.is_input):
            raise ValueError(here(f"gradcheck: expected parameters and inputs of the function, got {v!r}"))
    outputs = [v for v in copy.outputs if v.needs_gradient]
    rng = np.random.RandomState(seed)
    worst = GradientCheck(0.0, None, (), 0.0, 0.0, 0)
    if not outputs or not asked:
        return worst
    forward = Executable(outputs, training=True, effects=False)
    roots = [_random_like(y, rng) for y in forward.run(feeds, step=0)]
    fed = {v: Input(v.type.shape, v.type.dtype, False, False, v.type.axes, "gradient") for v in outputs}
    backward = Executable(roots=fed, wrt=[pairs[id(v)] for v in asked], training=True, effects=False)
    slopes = backward.run({**feeds, **dict(zip(fed.values(), roots, strict=True))}, step=0)

    def loss() -> float:
        return sum(_dot(r, y) for r, y in zip(roots, forward.run(feeds, step=0), strict=True))

    count = 0
    for v, gradient in zip(asked, slopes, strict=True):
        mine = pairs[id(v)]
        places = _places(gradient)
        if len(places) > limit:
            places = [places[i] for i in sorted(rng.permutation(len(places))[:limit])]
        for place in places:
            found = []
            for h in (step, -step):
                with _moved(mine, feeds, place, h):
                    found.append(loss())
            slope = (found[0] - found[1]) / (2 * step)
            g = float(_at(gradient, place))
            error = abs(g - slope) / max(1.0, abs(g), abs(slope))
            count += 1
            if worst.variable is None or not error <= worst.error:
                worst = GradientCheck(error, v, place, g, slope, count)
    return replace(worst, count=count)


def _in_double(function: Function, asked: list[Variable]) -> tuple[Function, dict[int, Variable]]:
    """A copy in float64, and the copies of its leaves by the ids of the originals."""
    known: dict[Variable, Variable] = {}
    for v in leaves_of(function.root):
        if isinstance(v, Parameter):
            known[v] = Parameter(v.shape, v.data.astype(np.float64), np.float64, name=v.name)
        elif v.is_input:
            known[v] = Input(v._shape, np.float64, v.needs_gradient or any(v is w for w in asked), v.is_sparse, v._axes, v.name)
        elif isinstance(v, Constant) and v.given is None:
            known[v] = Constant(v.data.astype(np.float64), dtype=np.float64, name=v.name)
            known[v].assigned = v.assigned  # type: ignore[attr-defined]
    pairs = {id(v): w for v, w in known.items()}
    root, signature = clone(function.root, function._signature, CloneMethod.share, {}, known)
    return Function(root, signature), pairs


def _doubled(data: Any) -> Any:
    """Data in memory of its own, which may be changed in place."""
    if hasattr(data, "as_sequences") and getattr(data, "lengths", None) is not None:
        data = data.as_sequences()
    elif hasattr(data, "asarray"):
        data = data.asarray()
    if hasattr(data, "toarray"):
        data = data.toarray()
    if isinstance(data, list) and data and all(np.ndim(getattr(s, "toarray", lambda s=s: s)()) for s in data):
        return [np.array(s.toarray() if hasattr(s, "toarray") else s, np.float64) for s in data]
    return np.array(data, np.float64)


def _random_like(y: Any, rng: np.random.RandomState) -> Any:
    return [rng.uniform(-1, 1, s.shape) for s in y] if isinstance(y, list) else rng.uniform(-1, 1, y.shape)


def _dot(a: Any, b: Any) -> float:
    return sum(_dot(s, t) for s, t in zip(a, b, strict=True)) if isinstance(a, list) else float(np.sum(a * b))


def _places(values: Any) -> list[tuple[int, ...]]:
    if isinstance(values, list):
        return [(i, *place) for i, s in enumerate(values) for place in np.ndindex(s.shape)]
    return list(np.ndindex(values.shape))


def _at(values: Any, place: tuple[int, ...]) -> Any:
    return values[place[0]][place[1:]] if isinstance(values, list) else values[place]


class _moved:
    """Has one element of a variable changed inside the `with` block."""

    def __init__(self, v: Variable, feeds: dict, place: tuple[int, ...], by: float):
        data = v.data if isinstance(v, Parameter) else feeds[v]
        self.array, self.place = (data[place[0]], place[1:]) if isinstance(data, list) else (data, place)
        if self.array.ndim < len(self.place):  # one sample, fed without a batch axis
            self.place = self.place[len(self.place) - self.array.ndim :]
        self.by = by

    def __enter__(self) -> None:
        self.before = self.array[self.place]
        self.array[self.place] = self.before + self.by

    def __exit__(self, *error: object) -> None:
        self.array[self.place] = self.before
