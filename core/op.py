"""The record of an op: one place that says its shapes, its gradient, its kernel and its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cogkit.axis import Axis

__all__ = ["FLOATS", "FREE", "HALF", "INFERRED", "OPS", "Op", "Type", "broadcast", "constant_gradient", "join_axes", "row_space"]

INFERRED = -1  # a parameter's dimension that its first use decides
FREE = -3  # an input's dimension that each feed decides
HALF = np.dtype(np.float16)
FLOATS = (HALF, np.dtype(np.float32), np.dtype(np.float64))  # element types of values that ops compute with


class Type(NamedTuple):
    """What is known of a value before it runs: shape of one sample (None: not yet), element type, dynamic axes (its row space)."""

    shape: tuple[int, ...] | None
    dtype: np.dtype | None
    axes: tuple[Axis, ...] | None

    def __str__(self) -> str:
        return f"{row_space(self.axes)}{self.shape}{'' if self.dtype is None else ' ' + self.dtype.name}"


@dataclass(frozen=True)
class Op:
    """One op. All fields but the last must be given, so that an incomplete op fails when its module is imported.

    infer(types, attrs) -> the output types; raises ValueError((wish, fact, way)) on a misfit.
    gradient(node, *dy) -> one gradient (or None) an input, written with ops on lowered values; `constant_gradient` where it is zero everywhere.
    kernel: 'pointwise', 'view', 'reduce', or the name of a kernel of its own; 'expand' when the op is other ops: see expand.
    expand(graph, inputs, attrs, training) -> output values: how an op that is no primitive becomes primitives.
    bind(types, attrs) -> shapes of the inputs after free places of parameters are filled in.
    source: the definition's origin.
    """

    name: str
    label: str
    infer: Callable[[Sequence[Type], dict[str, Any]], list[Type]]
    gradient: Callable[..., Sequence[Any]] | None
    kernel: str
    source: str
    expand: Callable[..., Any] | None = None
    bind: Callable[[Sequence[Type], dict[str, Any]], Sequence[tuple[int, ...]]] | None = None
    stateful: bool = False
    views: int = 0  # views[of]: the output shares the buffer of this input (kernel 'view')
    delays: bool = False  # gives what its first operand was at another step: it may stand in a cycle
    own_rows: bool = False  # operands keep row spaces of their own
    whole: bool = False  # operands may be of whole numbers (int8, int16) too, which other ops do not compute with
    writes: bool = False  # changes operands in place: it is run for that, whoever reads its result

    def __post_init__(self):
        if self.kernel == "expand" and self.expand is None:
            raise TypeError(f"op {self.name}: kernel is expand but there is no expand rule")
        if self.kernel != "expand" and self.gradient is None:
            raise TypeError(f"op {self.name}: a primitive needs a gradient rule (constant_gradient where it is zero)")
        if self.name in OPS:
            raise TypeError(f"op {self.name}: defined twice")
        OPS[self.name] = self


OPS: dict[str, Op] = {}


def check_types(op: Op, types: Sequence[Type]) -> None:
    """Raises `ValueError` for operands of an element type that the op does not compute with."""
    wrong = [t.dtype.name for t in types if t.dtype is not None and t.dtype not in FLOATS]
    if wrong and not op.whole:
        raise ValueError(("operands of float16, float32 or float64", wrong[0], "convert it with C.cast(x, dtype)"))


def constant_gradient(node: Any, *dy: Any) -> list[None]:
    """The gradient rule of an op that is constant almost everywhere, or whose result is data."""
    return [None] * len(node.inputs)


def row_space(axes: tuple[Axis, ...] | None) -> str:
    """A readable name of a row space: '' none, '[#]' batch, '[#, *]' sequence."""
    if axes is None or (axes and axes[0].name == "UnknownAxes"):
        return "[?]"
    short = {"defaultBatchAxis": "#", "defaultDynamicAxis": "*"}
    return "[" + ", ".join(short.get(a.name, a.name) for a in axes) + "]" if axes else ""


def size_of(sizes: Iterable[int]) -> int:
    """The product of sizes; `FREE` or `INFERRED` where one of them is not known."""
    n, unknown = 1, 0
    for k in sizes:
        if k < 0:
            unknown = min(unknown, k)
        n *= k
    return unknown or n


def fits(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes are equal in what is known of them."""
    return len(a) == len(b) and all(m == n or m < 0 or n < 0 for m, n in zip(a, b, strict=True))


def shown(shape: Sequence[int]) -> str:
    """A shape for a message: free and inferred sizes as '*' and '?', as CNTK writes them."""
    sizes = [{FREE: "*", INFERRED: "?"}.get(n, str(n)) for n in shape]
    return "(" + ", ".join(sizes) + (",)" if len(sizes) == 1 else ")")


def join_axes(types: Sequence[Type]) -> tuple[Axis, ...] | None:
    """The row space of an op over values of these row spaces: all that have one must share it."""
    joined: tuple[Axis, ...] = ()
    first = 0
    for i, t in enumerate(types):
        if t.axes is None:
            return None
        if len(t.axes) == 0 or t.axes == joined:
            continue
        if joined and set(joined) != set(t.axes):
            if set(t.axes) < set(joined):
                continue
            if not set(joined) < set(t.axes):
                raise ValueError(
                    (
                        "operands of one row space",
                        f"{row_space(joined)} and {row_space(t.axes)}",
                        "reconcile them with C.sequence.broadcast_as, C.sequence.last or C.sequence.unpack",
                        (first, i),
                    )
                )
        joined, first = t.axes, i
    return joined


def broadcast(types: Sequence[Type]) -> Type:
    """The type of a pointwise op: static shapes are aligned at the last axis, as NumPy's; sizes 1 stretch."""
    dtype = common_dtype(types)
    axes = join_axes(types)
    rank = max(len(t.shape) for t in types)
    out = [1] * rank
    for t in types:
        for i, n in enumerate(t.shape, rank - len(t.shape)):
            have = out[i]
            if n == INFERRED and have == 1:
                out[i] = n
            if n == have or n == 1 or n == INFERRED:
                continue
            if have in (1, INFERRED) or have == FREE:
                out[i] = n
            elif n != FREE:
                raise ValueError(
                    (
                        "operands whose shapes broadcast",
                        " and ".join(shown(u.shape) for u in types),
                        "sizes must be equal or 1, aligned at the last axis",
                    )
                )
    return Type(tuple(out), dtype, axes)


def common_dtype(types: Sequence[Type]) -> np.dtype | None:
    """The one element type of the operands; `ValueError` where they differ."""
    found = None
    for t in types:
        if t.dtype is None:
            continue
        if found is not None and t.dtype != found:
            raise ValueError(
                (
                    "operands of one type",
                    " and ".join("?" if u.dtype is None else u.dtype.name for u in types),
                    "convert one with C.cast(x, dtype)",
                )
            )
        found = t.dtype
    return found
