"""Convolutions by cuDNN: graphs of operations, the choice of an engine, finished plans.

Nothing here asks for a GPU but the handle: with a `Described` device plans are made on machines that have none.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cogkit.engine.cuda import cudnn, libraries
from cogkit.engine.cuda.cudnn import NUMBERS as K
from cogkit.engine.cuda.cudnn import Descriptor, Execution, NoWay
from cogkit.engine.cuda.driver import B

__all__ = ["Described", "Geometry", "Live", "Plan", "convolution", "convolution_plans"]

WORKSPACE = 1 << 30  # bytes that a convolution may want
ALIGNED = 16  # bytes to which buffers are taken to be aligned before their addresses are known: no engine wants more
PLANS = 1024  # that are kept
_TYPES = {"f4": (K.DATA_FLOAT, 4), "f8": (K.DATA_DOUBLE, 8), "f2": (K.DATA_HALF, 2), "b2": (K.DATA_BFLOAT16, 2)}
_NOTES = {getattr(K, n): n.removeprefix("NUMERICAL_NOTE_").lower() for n in vars(K) if n.startswith("NUMERICAL_NOTE_")}
_lock = threading.RLock()
_kept: OrderedDict[tuple, list[Plan]] = OrderedDict()


class Live:
    """The GPU of this thread: what graphs and plans are told of it."""

    def __init__(self) -> None:
        self.handle = cudnn.handle()

    def tell_graph(self, d: Descriptor) -> None:
        d.set(K.ATTR_OPERATIONGRAPH_HANDLE, K.TYPE_HANDLE, self.handle.value)

    def tell_heuristic(self, d: Descriptor) -> None:
        pass

    def tell_plan(self, d: Descriptor) -> None:
        d.set(K.ATTR_EXECUTION_PLAN_HANDLE, K.TYPE_HANDLE, self.handle.value)


class Described:
    """A GPU that is not there, by its description (JSON): plans for it can be made, not run. For cuDNN 9.8 or later."""

    def __init__(self, properties: bytes):
        cudnn.open_cudnn()
        self.device = Descriptor(K.BACKEND_DEVICEPROP_DESCRIPTOR)
        self.device.set(K.ATTR_DEVICEPROP_JSON_REPRESENTATION, K.TYPE_CHAR, properties).finalize("a device's description")

    def tell_graph(self, d: Descriptor) -> None:
        pass

    def tell_heuristic(self, d: Descriptor) -> None:
        d.set(K.ATTR_ENGINEHEUR_DEVICEPROP, K.TYPE_BACKEND_DESCRIPTOR, self.device)

    def tell_plan(self, d: Descriptor) -> None:
        d.set(K.ATTR_EXECUTION_PLAN_DEVICEPROP, K.TYPE_BACKEND_DESCRIPTOR, self.device)


@dataclass(frozen=True)
class Geometry:
    """A convolution: kind 'forward' (x, w to y), 'backward_data' (dy, w to dx) or 'backward_weights' (x, dy to dw).

    x: (rows, channels, spatial), w: (outputs, channels / groups, kernel), y: (rows, outputs, spatial) with one to three spatial axes;
    strides, dilation (1: dense), lo and hi (padding): a number an axis. Layouts: 'plain', or 'last' with the channels last.
    bias: (outputs,), and relu, of 'forward' only, come after it while the result is in registers.
    tf32: float32 numbers may be rounded to ten bits before they are multiplied. deterministic: the same bits every time.
    """

    kind: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    lo: tuple[int, ...]
    hi: tuple[int, ...]
    groups: int = 1
    dtype: str = "f4"
    bias: bool = False
    relu: bool = False
    tf32: bool = False
    deterministic: bool = True
    x_layout: str = "plain"
    w_layout: str = "plain"
    y_layout: str = "plain"
    alignments: tuple[int, ...] = ()  # of the buffers, in bytes
    scratch: int = WORKSPACE  # bytes, at most

    def __post_init__(self) -> None:
        """Raises `ValueError` for shapes that do not fit."""
        s = len(self.x) - 2
        lengths = {len(v) for v in (self.strides, self.dilation, self.lo, self.hi)}
        if not 1 <= s <= 3 or len(self.w) != s + 2 or len(self.y) != s + 2 or lengths != {s}:
            raise ValueError(f"convolution: expected shapes of one to three spatial axes, got {self.x}, {self.w}, {self.y}")
        if min(*self.x, *self.w, *self.y) < 1 or self.dtype not in _TYPES:
            raise ValueError(
                f"convolution: expected sizes of at least one and f4, f8, f2 or b2, got {self.x} {self.w} {self.dtype}"
            )
        want = tuple(
            (n + lo + hi - (k - 1) * d - 1) // t + 1
            for n, k, t, d, lo, hi in zip(self.x[2:], self.w[2:], self.strides, self.dilation, self.lo, self.hi, strict=True)
        )
        if self.y != (self.x[0], self.w[0], *want) or self.x[1] != self.w[1] * self.groups or self.w[0] % self.groups:
            raise ValueError(
                f"convolution: expected an output {(self.x[0], self.w[0], *want)} of {self.x} and {self.w}, got {self.y}"
            )
        if self.kind != "forward" and (self.bias or self.relu):
            raise ValueError("convolution: expected bias and relu of 'forward' only")

    @property
    def name(self) -> str:
        what = {"forward": "conv", "backward_data": "conv_dx", "backward_weights": "conv_dw"}[self.kind]
        return (
            f"cudnn_{what}{'_bias' if self.bias else ''}{'_relu' if self.relu else ''}_{self.dtype}{'_tf32' if self.tf32 else ''}"
        )

    def padding(self) -> tuple[list[int], list[int]]:
        """lo and hi; hi as lo where the last window starts at the same place, since engines prefer that."""
        hi = []
        for n, k, t, d, lo, more, out in zip(
            self.x[2:], self.w[2:], self.strides, self.dilation, self.lo, self.hi, self.y[2:], strict=True
        ):
            hi.append(lo if (n + 2 * lo - (k - 1) * d - 1) // t + 1 == out else more)
        return list(self.lo), hi


@dataclass
class Plan:
    """A finished plan: the form in which `cudnn.Execution` takes it."""

    descriptor: Descriptor
    name: str
    notes: tuple[str, ...]
    scratch: int
    uids: tuple[int, ...]
    alignments: tuple[int, ...]
    again: Callable[[tuple[int, ...], int], Plan] = field(repr=False)

    def aligned_to(self, alignments: tuple[int, ...], scratch: int) -> Plan:
        """Another plan for buffers aligned like this, with no more scratch. Raises `NoWay`."""
        return self.again(alignments, scratch)


def _strides(shape: Sequence[int], layout: str) -> list[int]:
    """Elements from one to the next along each axis of (rows, channels, spatial)."""
    order = list(range(len(shape))) if layout == "plain" else [0, *range(2, len(shape)), 1]
    out, n = [0] * len(shape), 1
    for i in reversed(order):
        out[i], n = n, n * shape[i]
    return out


def _tensor(uid: int, shape: Sequence[int], layout: str, dtype: int, alignment: int, virtual: bool = False) -> Descriptor:
    if len(shape) == 3:  # one spatial axis is two, the first of size 1
        shape = (*shape[:2], 1, shape[2])
    d = Descriptor(K.BACKEND_TENSOR_DESCRIPTOR)
    d.set(K.ATTR_TENSOR_UNIQUE_ID, K.TYPE_INT64, uid)
    d.set(K.ATTR_TENSOR_DATA_TYPE, K.TYPE_DATA_TYPE, dtype)
    d.set(K.ATTR_TENSOR_BYTE_ALIGNMENT, K.TYPE_INT64, alignment)
    d.set(K.ATTR_TENSOR_DIMENSIONS, K.TYPE_INT64, *shape)
    d.set(K.ATTR_TENSOR_STRIDES, K.TYPE_INT64, *_strides(shape, layout))
    if virtual:
        d.set(K.ATTR_TENSOR_IS_VIRTUAL, K.TYPE_BOOLEAN, True)
    return d.finalize(f"a tensor {tuple(shape)}")


def _pointwise(mode: int, compute: int, x: Descriptor, y: Descriptor, b: Descriptor | None = None) -> Descriptor:
    how = Descriptor(K.BACKEND_POINTWISE_DESCRIPTOR)
    how.set(K.ATTR_POINTWISE_MODE, K.TYPE_POINTWISE_MODE, mode).set(K.ATTR_POINTWISE_MATH_PREC, K.TYPE_DATA_TYPE, compute)
    d = Descriptor(K.BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
    d.set(K.ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, K.TYPE_BACKEND_DESCRIPTOR, how.finalize("a pointwise function"))
    d.set(K.ATTR_OPERATION_POINTWISE_XDESC, K.TYPE_BACKEND_DESCRIPTOR, x)
    if b is not None:
        d.set(K.ATTR_OPERATION_POINTWISE_BDESC, K.TYPE_BACKEND_DESCRIPTOR, b)
    return d.set(K.ATTR_OPERATION_POINTWISE_YDESC, K.TYPE_BACKEND_DESCRIPTOR, y).finalize("a pointwise operation")


def _operations(g: Geometry) -> tuple[list[Descriptor], list[int]]:
    """The operations of a convolution, and the numbers of its tensors in the order of the buffers."""
    dtype, _ = _TYPES[g.dtype]
    compute = K.DATA_DOUBLE if g.dtype == "f8" else K.DATA_FLOAT
    names = {"forward": "xwby" if g.bias else "xwy", "backward_data": "ywx", "backward_weights": "xyw"}[g.kind]
    aligned = dict(zip(names, g.alignments, strict=True))
    x = _tensor(1, g.x, g.x_layout, dtype, aligned["x"])
    w = _tensor(2, g.w, g.w_layout, dtype, aligned["w"])
    y = _tensor(3, g.y, g.y_layout, dtype, aligned["y"])
    lo, hi = g.padding()
    more = 1 if len(g.x) == 3 else 0  # the spatial axis of size 1
    conv = Descriptor(K.BACKEND_CONVOLUTION_DESCRIPTOR)
    conv.set(K.ATTR_CONVOLUTION_COMP_TYPE, K.TYPE_DATA_TYPE, compute)
    conv.set(K.ATTR_CONVOLUTION_CONV_MODE, K.TYPE_CONVOLUTION_MODE, K.CROSS_CORRELATION)
    conv.set(K.ATTR_CONVOLUTION_SPATIAL_DIMS, K.TYPE_INT64, len(g.strides) + more)
    conv.set(K.ATTR_CONVOLUTION_DILATIONS, K.TYPE_INT64, *[1] * more, *g.dilation)
    conv.set(K.ATTR_CONVOLUTION_FILTER_STRIDES, K.TYPE_INT64, *[1] * more, *g.strides)
    conv.set(K.ATTR_CONVOLUTION_PRE_PADDINGS, K.TYPE_INT64, *[0] * more, *lo)
    conv.set(K.ATTR_CONVOLUTION_POST_PADDINGS, K.TYPE_INT64, *[0] * more, *hi)
    conv.finalize("a convolution")
    kind, prefix, sides = {
        "forward": (K.BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, "FORWARD", ("X", "W", "Y")),
        "backward_data": (K.BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, "BWD_DATA", ("DX", "W", "DY")),
        "backward_weights": (K.BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, "BWD_FILTER", ("X", "DW", "DY")),
    }[g.kind]

    def attribute(what: str) -> int:
        return getattr(K, f"ATTR_OPERATION_CONVOLUTION_{prefix}_{what}")

    chain = [y]  # the results of the operations, last first
    if g.relu:
        chain.append(_tensor(5, g.y, g.y_layout, compute, ALIGNED, virtual=True))
    if g.bias:
        chain.append(_tensor(6, g.y, g.y_layout, compute, ALIGNED, virtual=True))
    op = Descriptor(kind).set(attribute("CONV_DESC"), K.TYPE_BACKEND_DESCRIPTOR, conv)
    for side, tensor in zip(sides, (x, w, chain[-1]), strict=True):
        op.set(attribute(side), K.TYPE_BACKEND_DESCRIPTOR, tensor)
    scale = K.TYPE_DOUBLE if g.dtype == "f8" else K.TYPE_FLOAT
    op.set(attribute("ALPHA"), scale, 1.0).set(attribute("BETA"), scale, 0.0)
    operations = [op.finalize(f"a convolution of {g.x} with {g.w}")]
    if g.bias:
        b = _tensor(4, (1, g.w[0], *[1] * (len(g.x) - 2)), g.y_layout, dtype, aligned["b"])
        operations.append(_pointwise(K.POINTWISE_ADD, compute, chain[-1], chain[-2], b))
    if g.relu:
        operations.append(_pointwise(K.POINTWISE_RELU_FWD, compute, chain[1], chain[0]))
    return operations, [{"x": 1, "w": 2, "y": 3, "b": 4}[n] for n in names]


def _refuses(g: Geometry, notes: set[int]) -> bool:
    """Whether an engine's numbers are not what is wanted: never sums in half precision."""
    if notes & {K.NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, K.NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}:
        return True
    if g.dtype == "f4" and not g.tf32 and K.NUMERICAL_NOTE_TENSOR_CORE in notes:
        return True
    return g.deterministic and K.NUMERICAL_NOTE_NONDETERMINISTIC in notes


def _search(g: Geometry, device: Live | Described) -> Iterator[Plan]:
    """Finished plans, those that the library thinks fastest first."""
    operations, uids = _operations(g)
    graph = Descriptor(K.BACKEND_OPERATIONGRAPH_DESCRIPTOR)
    device.tell_graph(graph)
    graph.set(K.ATTR_OPERATIONGRAPH_OPS, K.TYPE_BACKEND_DESCRIPTOR, *operations).finalize(f"a graph for {g.name}")
    for mode in (K.HEUR_MODE_A, K.HEUR_MODE_FALLBACK):
        heuristic = Descriptor(K.BACKEND_ENGINEHEUR_DESCRIPTOR)
        heuristic.set(K.ATTR_ENGINEHEUR_OPERATION_GRAPH, K.TYPE_BACKEND_DESCRIPTOR, graph)
        heuristic.set(K.ATTR_ENGINEHEUR_MODE, K.TYPE_HEUR_MODE, mode)
        device.tell_heuristic(heuristic)
        try:
            found = heuristic.finalize(f"engines for {g.name}").children(
                K.ATTR_ENGINEHEUR_RESULTS, K.BACKEND_ENGINECFG_DESCRIPTOR
            )
        except NoWay:
            continue
        for choice in found:
            try:
                engine = choice.children(K.ATTR_ENGINECFG_ENGINE, K.BACKEND_ENGINE_DESCRIPTOR)[0]
                notes = set(engine.get(K.ATTR_ENGINE_NUMERICAL_NOTE, K.TYPE_NUMERICAL_NOTE, len(_NOTES)))
                if _refuses(g, notes):
                    continue
                plan = Descriptor(K.BACKEND_EXECUTION_PLAN_DESCRIPTOR)
                device.tell_plan(plan)
                plan.set(K.ATTR_EXECUTION_PLAN_ENGINE_CONFIG, K.TYPE_BACKEND_DESCRIPTOR, choice).finalize(f"a plan for {g.name}")
            except NoWay:  # not on this GPU, or not at this size
                continue
            scratch = plan.get(K.ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, K.TYPE_INT64, 1)[0]
            if scratch > g.scratch:
                continue
            number = engine.get(K.ATTR_ENGINE_GLOBAL_INDEX, K.TYPE_INT64, 1)[0]

            def again(alignments: tuple[int, ...], most: int) -> Plan:
                return _plans(replace(g, alignments=alignments, scratch=most), device, 1)[0]

            words = tuple(_NOTES.get(n, str(n)) for n in sorted(notes))
            yield Plan(plan, f"{g.name}_{number}", words, scratch, tuple(uids), g.alignments, again)


def _plans(g: Geometry, device: Live | Described, most: int) -> list[Plan]:
    """The first plans, kept for the next who asks. Raises `NoWay` where there is none."""
    key = (g, most, libraries.context() if isinstance(device, Live) else device)
    with _lock:
        if key not in _kept:
            found: list[Plan] = []
            for plan in _search(g, device):
                found.append(plan)
                if len(found) == most:
                    break
            _kept[key] = found
            while len(_kept) > PLANS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        if not _kept[key]:
            raise NoWay(f"cuDNN: expected a plan for {g.name} of {g.x} with {g.w}, got none that computes it as wanted")
        return _kept[key]


def convolution_plans(g: Geometry, device: Live | Described, most: int = 1) -> list[Plan]:
    """Finished plans of a convolution, at most so many, those that the library thinks fastest first; empty where there is none."""
    try:
        return _plans(g if g.alignments else replace(g, alignments=(ALIGNED,) * (3 + g.bias)), device, most)
    except NoWay:
        return []


def convolution(
    kind: str,
    x: Sequence[int],
    w: Sequence[int],
    y: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    lo: Sequence[int],
    hi: Sequence[int],
    groups: int = 1,
    *,
    buffers: Sequence[Any] | None = None,
    rank: int = 0,
    scratch_at: int = 0,
    **options: Any,
) -> Execution | None:
    """A command that computes a convolution (`Geometry` says what the arguments mean), or None where cuDNN is not there or does not compute it.

    buffers: 'forward' x, w, bias (where there is one), y; 'backward_data' dy, w, dx; 'backward_weights' x, dy, dw (None: B(0), B(1), ...).
    rank: which of the plans, 0: the one that cuDNN thinks fastest. Its `scratch` bytes are wanted in the last buffer, from
    `scratch_at` on.
    """
    if not cudnn.available():
        return None
    bound = [B(i) for i in range(4 if options.get("bias") else 3)] if buffers is None else list(buffers)
    item = _TYPES.get(options.get("dtype", "f4"), (0, 4))[1]
    aligned = tuple(max(math.gcd(b.offset, ALIGNED), item) if b.offset else ALIGNED for b in bound)
    g = Geometry(kind, tuple(x), tuple(w), tuple(y), tuple(strides), tuple(dilation), tuple(lo), tuple(hi), groups,
                 alignments=aligned, **options)  # fmt: skip
    live = Live()
    plans = convolution_plans(g, live, rank + 1)
    return Execution(live.handle, plans[rank], bound, scratch_at) if rank < len(plans) else None
