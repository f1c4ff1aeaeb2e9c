"""Checks of gradients by finite differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cogkit.cloning import CloneMethod, clone
from cogkit.engine.executable import Executable
from cogkit.engine.session import feed_map
from cogkit.errors import here
from cogkit.functions import Function
from cogkit.variables import Constant, Input, Parameter, Variable
from cogkit.walks import leaves_of

__all__ = ["GradientCheck", "gradcheck"]


@dataclass(frozen=True)
class GradientCheck:
    """error: the largest difference between a gradient and a slope, relative to the larger of them and of 1.

    variable: where that was, None where nothing was checked; index: of the element (sequence number first, over sequences), () for a
    direction. gradient, slope: the two numbers. count: elements or directions that were checked.
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
            f" ({self.count} checked)"
        )


def gradcheck(
    function: Function,
    arguments: Any,
    wrt: Iterable[Variable] | None = None,
    step: float = 1e-5,
    limit: int = 100,
    directions: int = 0,
    seed: int = 0,
) -> GradientCheck:
    """Compares gradients with central differences, in float64 on a copy of the function, whatever its type, and gives the largest error.

    The value that is differentiated is the sum over all outputs of random numbers times their elements. wrt: parameters and inputs of the
    function (default: all that want gradients). step: of the differences; limit: elements of each that are tried, at random where there
    are more. directions: instead of elements, so many random directions of each, which is quicker. Random ops draw the same numbers each
    time; nothing is written. Near a kink or jump of the function the slope means nothing. Raises `ValueError` for a variable that the
    function does not have.
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
    state, values = copy.forward(feeds, outputs, outputs)
    roots = [_random_like(values[v], rng) for v in outputs]
    asked_of = [pairs[id(v)] for v in asked]
    found_at = copy.backward(state, dict(zip(outputs, roots, strict=True)), asked_of)
    slopes = [found_at[v] for v in asked_of]
    forward = Executable(outputs, training=True, effects=False)

    def loss() -> float:
        return sum(_dot(r, y) for r, y in zip(roots, forward.run(feeds, step=state.step), strict=True))

    count = 0
    for v, gradient in zip(asked, slopes, strict=True):
        mine = pairs[id(v)]
        data = mine.data if isinstance(mine, Parameter) else feeds[mine]
        arrays = data if isinstance(data, list) else [data]
        gradients = [
            np.reshape(g, a.shape) for g, a in zip(gradient if isinstance(data, list) else [gradient], arrays, strict=True)
        ]
        before = [a.copy() for a in arrays]
        for place, ways in _ways(arrays, isinstance(data, list), limit, directions, rng):
            found = []
            for h in (step, -step):
                for a, old, way in zip(arrays, before, ways, strict=True):
                    a[...] = old if way is None else old + h * way
                found.append(loss())
            for a, old in zip(arrays, before, strict=True):
                a[...] = old
            slope = (found[0] - found[1]) / (2 * step)
            parts = [g * way for g, way in zip(gradients, ways, strict=True) if way is not None]
            want = float(sum(p.sum() for p in parts))
            error = abs(want - slope) / max(1.0, abs(want), abs(slope), float(sum(np.abs(p).sum() for p in parts)))
            count += 1
            if worst.variable is None or not error <= worst.error:
                worst = GradientCheck(error, v, place, want, slope, count)
    return replace(worst, count=count)


def _ways(
    arrays: list[np.ndarray], listed: bool, limit: int, directions: int, rng: np.random.RandomState
) -> Iterator[tuple[tuple[int, ...], list[np.ndarray | None]]]:
    """The changes that are tried: the element, () for a direction, and what is added to each array, None for nothing."""
    if directions:
        for _ in range(directions):
            yield (), [rng.uniform(-1, 1, a.shape) for a in arrays]
        return
    places = [(i, place) for i, a in enumerate(arrays) for place in np.ndindex(a.shape)]
    if len(places) > limit:
        places = [places[k] for k in sorted(rng.permutation(len(places))[:limit])]
    for i, place in places:
        way = np.zeros(arrays[i].shape)
        way[place] = 1.0
        yield (i, *place) if listed else place, [way if k == i else None for k in range(len(arrays))]


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
