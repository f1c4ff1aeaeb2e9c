"""User functions at run time: what the user's Python is given, and what is made of what it gives."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from cogkit.engine.device import use_default_device
from cogkit.engine.feeds import as_sequences
from cogkit.engine.spaces import Space
from cogkit.engine.values import Value
from cogkit.errors import Misfit, UserFunctionError
from cogkit.lowering.ir import Graph, Node
from cogkit.lowering.ir import Value as Lowered
from cogkit.op import FREE, Type, shown
from cogkit.ops.native import NativeNode
from cogkit.ops.rows import has_steps
from cogkit.ops.user import UserCall, UserNode, failure

__all__ = ["Resized", "Resizing", "Tape", "calls_of", "native_arrays", "run_backward", "run_forward", "run_native"]

TRIES = 8  # other shapes that one function may give in a row
PLANS = 32  # plans of a graph that are kept, one for each shape that its user functions gave


class Resized(Exception):
    """A user function gave a result of another shape than the plan has place for, where its own type leaves the shape open."""

    def __init__(self, node: UserNode, shapes: list[tuple[int, ...]]):
        self.node, self.shapes = node, shapes


class Resizing:
    """A plan with user functions whose results have shapes that only a run says: lowered again for each, and run again.

    first: the plan for shapes that are guessed; again(shapes) gives the one for {("user", number of the node): shapes of its outputs}.
    """

    def __init__(self, first: Any, again: Callable[[dict], Any]):
        self.plan, self.again = first, again
        self.shapes: dict[tuple, list[tuple[int, ...]]] = {}
        self.plans = {"": first}

    def run(self, feeds: dict, sizes: dict, run: Any) -> list[Any]:
        """What the plan for the present shapes gives."""
        tries: Counter[int] = Counter()
        while True:
            # a run that is broken off may have written already
            written = [(v, v.data.copy()) for v in written_by(self.plan.graph)]
            try:
                found: list[Any] = self.plan.run(feeds, sizes, run._replace(arrivals=None))  # it may be run again
                return found
            except Resized as e:
                for v, data in written:
                    v.data[...] = data
                tries[e.node.number] += 1
                if tries[e.node.number] > TRIES:
                    way = "free sizes may depend on the inputs alone"
                    raise e.node.misfit("a result of the same shape for the same inputs", f"{TRIES} others", way) from None
                self.shapes["user", e.node.number] = e.shapes
                key = repr(sorted(self.shapes.items()))
                if key not in self.plans:
                    while len(self.plans) >= PLANS:
                        self.plans.pop(next(iter(self.plans)))
                    self.plans[key] = self.again(dict(self.shapes))
                self.plan = self.plans[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)


def written_by(graph: Graph) -> list[Any]:
    """The parameters and constants that a graph writes."""
    return [n.inputs[0].producer.leaf for n in graph.effects if n.name == "assign"]


class Tape:
    """What the forward calls of a run gave, so that `backward`, which computes anew what it needs, calls no user function again."""

    def __init__(self) -> None:
        self.kept: dict[tuple[UserNode, int], tuple[Any, list[np.ndarray]]] = {}  # by node and number of the call in its run
        self.owners: dict[
            UserNode, UserCall | None
        ] = {}  # None: the node stands in its graph more than once, in no certain order
        self.full = False

    def clear(self) -> None:
        """For a run that begins anew."""
        self.kept, self.owners = {}, {}

    def put(self, call: UserCall, state: Any, results: list[np.ndarray]) -> None:
        """Keeps what a call gave, copied: a function may give the same memory at each call."""
        if self.owners.setdefault(call.node, call) is not call:
            self.owners[call.node] = None
        self.kept[call.node, call.count] = state, [a.copy() for a in results]

    def take(self, call: UserCall) -> tuple[Any, list[np.ndarray]] | None:
        """What it gave then, or None where it has to be asked."""
        return self.kept.get((call.node, call.count)) if self.owners.get(call.node) is not None else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """A run that fills it; one that takes from it once it is full."""
        with _turning(self):
            yield
        self.full = True


_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)


@contextmanager
def _turning(tape: Tape | None) -> Iterator[None]:
    """The tape of what runs inside; None for the user's own code, whose evaluations are no part of the run."""
    token = _tape.set(tape)
    try:
        yield
    finally:
        _tape.reset(token)


def calls_of(graph: Graph) -> list[UserCall]:
    """The Python user functions in a graph, those inside loops too."""
    found = []
    for n in graph.nodes:
        if n.name == "user_forward":
            found.append(n.attrs["call"])
        elif "body" in n.attrs:
            found += calls_of(n.attrs["body"].graph)
    return found


def given(array: np.ndarray, t: Type, sizes: dict, as_numpy: bool) -> Any:
    """A value as a user function gets it, a copy: the plan's memory is used again."""
    if not has_steps(t.axes):
        return array.copy() if as_numpy else Value.of_array(array.copy())
    space = sizes[t.axes]
    if isinstance(space, Space):
        found = [s.copy() for s in as_sequences(array, space)]
    else:  # a step of a recurrence
        found = list(array.copy()[:, None])
    return found if as_numpy else Value.of_steps(np.concatenate(found) if found else array.copy(), [len(s) for s in found])


def taken(result: Any, t: Type, sizes: dict, wish: str, node: UserNode) -> np.ndarray:
    """The rows of what a user function gave for a value; of a shape of its own. Raises `Misfit` for other rows than the value has."""
    space = sizes[t.axes] if t.axes else None
    rank = len(t.shape or ())
    lengths = getattr(result, "lengths", None)
    if lengths is not None:
        result = result.as_sequences()
    elif hasattr(result, "asarray"):
        result = result.asarray()
    try:
        if isinstance(space, Space):
            steps = [np.asarray(s, t.dtype) for s in result]
            steps = [s[None] if s.ndim == rank else s for s in steps]
            found = [len(s) for s in steps]
            if found != space.lengths.tolist():
                raise node.misfit(f"{wish} for sequences of lengths {space.lengths.tolist()[:20]}", str(found[:20]))
            rows = np.concatenate(steps)[space.flat] if steps else np.zeros((0, *(t.shape or ())), t.dtype)
        elif space is not None and has_steps(t.axes):
            rows = np.asarray(result, t.dtype)
            if rows.ndim == rank + 2 and rows.shape[1] == 1:
                rows = rows[:, 0]
        else:
            rows = np.asarray(result, t.dtype)
            if space is None and rows.ndim == rank + 1 and rows.shape[0] == 1:
                rows = rows[0]
    except (TypeError, ValueError) as e:
        if isinstance(e, Misfit):
            raise
        raise node.misfit(f"{wish}, numbers of shape {shown(t.shape or ())} a sample", f"{type(result).__name__} ({e})") from None
    lead = () if space is None else (int(space),)
    if rows.shape[: len(lead)] != lead or rows.ndim != len(lead) + rank:
        raise node.misfit(f"{wish} of shape {shown((*lead, *(t.shape or ())))}", str(rows.shape))
    return rows


def fitting(rows: np.ndarray, t: Type, wish: str, node: UserNode) -> np.ndarray:
    """The rows, where they have the value's shape; raises `Misfit` where not."""
    if rows.shape[rows.ndim - len(t.shape or ()) :] != t.shape:
        raise node.misfit(f"{wish} of shape {shown(t.shape or ())} a sample", str(rows.shape[rows.ndim - len(t.shape or ()) :]))
    return rows


def run_forward(n: Node, sizes: dict, *x: np.ndarray) -> list[np.ndarray]:
    """The outputs and the token. Raises `UserFunctionError` where the user's code does, `Resized` for a result of another shape."""
    call: UserCall = n.attrs["call"]
    node, tape = call.node, _tape.get()
    kept = tape.take(call) if tape is not None and tape.full else None
    if kept is None:
        state, found = _called(n, sizes, x, tape is not None and not tape.full)
        if tape is not None and not tape.full:
            tape.put(call, state, found)
    else:
        state, found = kept
    types = [v.type for v in n.outputs[:-1]]
    shapes = [a.shape[a.ndim - len(t.shape or ()) :] for a, t in zip(found, types, strict=True)]
    if any(call.free) and any(s != t.shape for s, t in zip(shapes, types, strict=True)):
        declared = [t.shape or () for t in node.types]
        if all(all(d in (m, FREE) or d < 0 for m, d in zip(s, w, strict=True)) for s, w in zip(shapes, declared, strict=True)):
            if tape is not None and not tape.full:
                tape.clear()
            raise Resized(node, shapes)
    for i, (a, t) in enumerate(zip(found, types, strict=True)):
        fitting(a, t, f"output {i}", node)
    t = n.outputs[-1].type
    return [*found, np.full((*(() if not t.axes else (int(sizes[t.axes]),)), 1), call.put(state), np.float32)]


def _called(n: Node, sizes: dict, x: Sequence[np.ndarray], keep: bool) -> tuple[Any, list[np.ndarray]]:
    """The state and the rows of the outputs, from the user's code. keep: a backward call may come, though not in this run."""
    call: UserCall = n.attrs["call"]
    node, f = call.node, call.node.function
    arguments = tuple(given(a, v.type, sizes, f.as_numpy) for a, v in zip(x, n.inputs, strict=True))
    first = arguments if len(arguments) > 1 else arguments[0]
    retained = list(node.outputs) if call.keep or keep else []
    try:
        with _turning(None):
            if len(node.outputs) == 1:
                made = f.forward(first, use_default_device(), retained)
                if not isinstance(made, tuple) or len(made) != 2:
                    raise TypeError(f"a pair (state, result) is wanted, not {type(made).__name__}")
                state, results = made[0], [made[1]]
            else:
                outputs: dict[Any, Any] = dict.fromkeys(node.outputs)
                state = f.forward(first, outputs, use_default_device(), retained)
                results = [outputs[v] for v in node.outputs]
    except Exception as e:
        raise failure(node, "forward", e) from e
    found = []
    for i, (result, v) in enumerate(zip(results, n.outputs[:-1], strict=True)):
        if result is None:
            raise node.misfit("forward to give all outputs", f"None for output {i}")
        found.append(taken(result, v.type, sizes, f"output {i}", node))
    return state, found


def run_backward(n: Node, sizes: dict, token: np.ndarray, *dy: np.ndarray) -> list[np.ndarray]:
    """The gradients of the operands that want one. Raises `UserFunctionError` where the user's code does."""
    call: UserCall = n.attrs["call"]
    node, f = call.node, call.node.function
    try:
        state = call.take(token)
        roots: dict[Any, Any] = dict.fromkeys(node.outputs)
        for i, v, a in zip(n.attrs["given"], n.inputs[1:], dy, strict=True):
            roots[node.outputs[i]] = given(a, v.type, sizes, f.as_numpy)
        root = next(iter(roots.values())) if len(roots) == 1 else roots
        wanted = [v for v, need in zip(node.operands, call.needs, strict=True) if need]
        with _turning(None):
            if len(node.operands) > 1:
                variables: dict[Any, Any] = dict.fromkeys(wanted)
                f.backward(state, root, variables)
                results = [variables.get(v) for v in wanted]
            else:
                results = [f.backward(state, root)]
    except Exception as e:
        raise failure(node, "backward", e) from e
    found = []
    for v, result in zip(n.outputs, results, strict=True):
        t = v.type
        if result is None:
            found.append(np.zeros((*(() if not t.axes else (int(sizes[t.axes]),)), *(t.shape or ())), t.dtype))
            continue
        wish = "a gradient" if t.axes else "a gradient, summed over the samples,"
        found.append(fitting(taken(result, t, sizes, wish, node), t, wish, node))
    return found


# functions written in C, for the reference engine ----------------------------------------------------------------------------------


class _Array(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
        ("type", ctypes.c_int32),
    ]


def native_arrays(n: Node) -> list[Lowered | None]:
    """The values of the arrays that a C function gets, in the order of its arguments; None where it gets a null pointer."""
    if n.name == "native_forward":
        return [*n.inputs, *n.outputs]
    node: NativeNode = n.attrs["call"]
    own = len(node.operands) + len(node.outputs)
    dy, dx = iter(n.inputs[own:]), iter(n.outputs)
    return [
        *n.inputs[:own],
        *(next(dy) if there else None for there in n.attrs["given"]),
        *(next(dx) if there else None for there in n.attrs["needs"]),
    ]


def run_native(n: Node, sizes: dict, *x: np.ndarray) -> list[np.ndarray]:
    """The outputs of a C function. Raises `UserFunctionError` where it does not return 0."""
    node: NativeNode = n.attrs["call"]
    inputs = [np.ascontiguousarray(a) for a in x]
    outputs = [np.zeros((*((int(sizes[v.type.axes]),) if v.type.axes else ()), *v.type.shape), v.type.dtype) for v in n.outputs]
    have = dict(zip([*n.inputs, *n.outputs], [*inputs, *outputs], strict=True))
    values = native_arrays(n)
    arrays = (_Array * len(values))()
    for v, a in zip(values, arrays, strict=True):
        if v is not None:
            shape = v.type.shape
            a.data, a.rows, a.size = have[v].ctypes.data, int(sizes[v.type.axes]) if v.type.axes else 1, math.prod(shape)
            a.shape, a.rank, a.type = (ctypes.c_int64 * max(len(shape), 1))(*shape), len(shape), v.type.dtype.itemsize
    forward = n.name == "native_forward"
    p, q = len(node.operands), len(node.outputs)
    starts = [0, p] if forward else [0, p, p + q, p + 2 * q]
    settings = (ctypes.c_double * (len(node.settings) + 1))(*node.settings)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * (len(starts) + 1))
    size = ctypes.sizeof(_Array)
    code = kind(node.c_function(not forward))(*(ctypes.addressof(arrays) + i * size for i in starts), ctypes.addressof(settings))
    if code:
        raise UserFunctionError(f"{node.place}: expected the C function to return 0, got {code}")
    return outputs
