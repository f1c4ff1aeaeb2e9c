"""Where NaN and infinities come from: every value that a plan writes is looked at, and the first bad one is traced to a node of the user's.

Inside a group of fused nodes, and inside the steps of a recurrence, the nodes are computed again one by one in NumPy, from the same operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from cogkit.engine.executable import Executable
from cogkit.engine.reference import KERNELS, run_loop
from cogkit.engine.spaces import Space
from cogkit.engine.user import calls_of
from cogkit.engine.watch import Observer, Running, observers, watching
from cogkit.errors import sentence
from cogkit.functions import Function
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.layout import PLAIN, root_of
from cogkit.lowering.steps import Step
from cogkit.variables import Variable

__all__ = ["NotFinite", "checked", "find_nan", "set_checked_mode"]


class NotFinite(NamedTuple):
    """The first value that is not finite. label, name, where: of the user's node, or of the variable that held it.

    op: the primitive that gave it; backward: in the gradient pass; value: nan, inf or -inf; at: row, step and element; held: it was in a
    variable or fed already.
    """

    label: str
    name: str
    where: str
    op: str
    backward: bool
    value: float
    at: str
    held: bool = False

    def __str__(self) -> str:
        if self.held:
            return sentence(self.label, self.name, self.where, "finite values", f"{self.value} at {self.at}")
        what = f"{self.value} at {self.at} in the {'backward' if self.backward else 'forward'} pass, from '{self.op}'"
        return sentence(self.label, self.name, self.where, "finite values", what + " of finite operands")


class _Checker(Observer):
    """Raises `FloatingPointError` at the first bad value, with the finding as its only argument."""

    def __init__(self, nan: bool, inf: bool):
        self.nan, self.inf = nan, inf
        self.saved: dict[Value, np.ndarray] = {}

    def bad(self, a: np.ndarray) -> np.ndarray:
        """Which elements are bad."""
        if self.nan and self.inf:
            found: np.ndarray = ~np.isfinite(a)
            return found
        return np.isnan(a) if self.nan else np.isinf(a)

    def is_bad(self, a: np.ndarray | None) -> bool:
        """Whether any element is."""
        return a is not None and a.dtype.kind == "f" and bool(self.bad(a).any())

    def before(self, running: Running, step: Step) -> None:
        """Keeps what a program reads, since it may write over it."""
        self.saved = {}
        if step.kind == "pointwise":
            for v, layout in running.layouts(step)[0]:
                a = _plain(running, v, layout)
                if a is not None:
                    self.saved[v] = a.copy()

    def after(self, running: Running, step: Step, number: int, start: float, end: float) -> None:
        """Looks at what the step wrote; where NaN may become 0 in it, at what it read."""
        for v, layout in running.layouts(step)[1]:
            a = running.array(v, layout)
            if self.is_bad(a):
                raise FloatingPointError(self.trace(running, step, v))
        if step.attrs.get("relu") or step.node.name == "pool":  # of NaN and a number oneDNN's maximum is the number
            for v, layout in running.layouts(step)[0]:
                if self.is_bad(running.array(v, layout)):
                    raise FloatingPointError(self.trace(running, step, step.outputs[0]))

    # from a bad value to a node ----------------------------------------------------------------------------------------------------

    def trace(self, running: Running, step: Step, v: Value) -> NotFinite:
        """Where the bad value of a step came from."""
        for u, layout in running.layouts(step)[0]:
            leaf = root_of(u).producer.leaf
            a = self.saved.get(u, _plain(running, u, layout))
            if leaf is not None and self.is_bad(a):
                root = root_of(u)
                return self.found(root.producer, root, running.array(root), running.sizes, held=True)
        if step.kind == "pointwise":
            for segment in step.segments:
                if v in segment.segment_outputs:
                    values = {u: self.saved[u] for u in segment.segment_inputs if u in self.saved}
                    found = self.among(segment.nodes, values, [v], running.sizes, running.run)
                    if found is not None:
                        return found
        elif step.kind == "loop":
            inside = self.in_loop(running, step)
            if inside is not None:
                return inside
        return self.found(step.node, v, _plain(running, v, step.layouts.get(v, PLAIN)), running.sizes)

    def among(
        self, nodes: Sequence[Node], values: dict[Value, np.ndarray], ends: Iterable[Value], sizes: dict, run: Any
    ) -> NotFinite | None:
        """The node whose result is bad though its operands are good, on a way to one of the ends."""
        made = dict(values)
        for n in nodes:
            if all(u in made for u in n.inputs):
                with np.errstate(all="ignore"):
                    y = KERNELS[n.name](n, sizes, run, *(made[u] for u in n.inputs))
                made.update(zip(n.outputs, y if isinstance(y, tuple) else (y,), strict=True))
        mine = set(nodes)
        for v in ends:
            while v in made and self.is_bad(made[v]) and v.producer in mine:
                worse = next((u for u in v.producer.inputs if u in made and self.is_bad(made[u])), None)
                if worse is None:
                    return self.found(v.producer, v, made[v], sizes)
                v = worse
        return None

    def in_loop(self, running: Running, step: Step) -> NotFinite | None:
        """The node of a step body whose result is bad though its operands are good, and at which step."""
        node = step.node
        if calls_of(node.attrs["body"].graph):
            return None  # the user's code is not to be run again
        inputs = [_plain(running, v, step.layouts[v]) for v in step.inputs]
        if any(a is None for a in inputs):
            return None
        body = node.attrs["body"]
        space = running.sizes[body.axes]

        def look(m: Node, t: int, values: dict[Value, np.ndarray]) -> None:
            for v in m.outputs:
                if self.is_bad(values[v]) and not any(self.is_bad(values[u]) for u in m.inputs):
                    raise _Found(self.found(m, v, values[v], {**running.sizes, body.axes: int(space.alive[t])}, (space, t)))

        try:
            with np.errstate(all="ignore"):
                run_loop(node, running.sizes, running.run, inputs, look)
        except _Found as e:
            return e.finding
        return None

    def found(
        self, n: Node, v: Value, a: np.ndarray | None, sizes: dict, step: tuple[Space, int] | None = None, held: bool = False
    ) -> NotFinite:
        """The finding for a node's value."""
        at, value = "an unknown place", float("nan")
        if a is not None and self.is_bad(a):
            place = tuple(int(i) for i in np.argwhere(self.bad(a))[0])
            value = float(a[place])
            at = _place(v, place, sizes, step)
        if n.op is None and n.leaf is not None and n.origin is None or held:
            leaf = n.leaf
            return NotFinite(
                getattr(leaf, "kind", "Input"),
                leaf.name or leaf.uid,
                getattr(leaf, "where", ""),
                n.name,
                n.backward,
                value,
                at,
                True,
            )
        o = n.origin
        label, name, where = (o.label, o.name, o.where) if o is not None else (n.name, "", "")
        return NotFinite(label, name, where, n.name, n.backward, value, at)


class _Found(Exception):
    def __init__(self, finding: NotFinite):
        self.finding = finding


def _plain(running: Running, v: Value, layout: str) -> np.ndarray | None:
    """A value as (rows, *shape), out of channels that lie together by sixteen where they do."""
    a = running.array(v, layout)
    if a is None or layout == PLAIN:
        return a
    s = v.type.shape
    rows = int(running.sizes[v.type.axes]) if v.type.axes else 1
    a = np.moveaxis(a.reshape(rows, s[0] // 16, *s[1:], 16), -1, 2).reshape(rows, *s)
    return a if v.type.axes else a[0]


def _place(v: Value, place: tuple[int, ...], sizes: dict, step: tuple[Space, int] | None) -> str:
    if not v.type.axes or not place:
        return f"element {place}"
    row, element = place[0], f"element {place[1:]}"
    space = sizes.get(v.type.axes)
    if step is not None:
        return f"step {step[1]} of sequence {int(step[0].order[row])}, {element}"
    if isinstance(space, Space):
        return f"step {int(space.step[row])} of sequence {int(space.item[row])}, {element}"
    return f"sample {row}, {element}"


@contextmanager
def checked(nan: bool = True, inf: bool = False) -> Iterator[None]:
    """Everything that runs inside the `with` block is checked; `FloatingPointError` names the node, pass and place of the first bad value."""
    with watching(_Checker(nan, inf)):
        yield


_mode: list[_Checker] = []


def set_checked_mode(enable: bool) -> None:
    """Checks everything that runs for NaN, at some cost; `FloatingPointError` names the node, the pass and the place of the first."""
    if enable and not _mode:
        _mode.append(_Checker(True, False))
        observers.append(_mode[0])
    elif not enable and _mode:
        observers.remove(_mode.pop())


def find_nan(function: Function, arguments: Any, wrt: Sequence[Variable] | None = None, inf: bool = True) -> NotFinite | None:
    """Runs a function and its gradients for some data and gives the first value that is not finite, None where all are.

    wrt: what gradients are taken of (default: all parameters, and inputs that need gradients). inf: infinities count too. Nothing is
    written: statistics and assignments stay as they are.
    """
    from cogkit.engine.session import feed_map

    roots = [v for v in function.outputs if v.needs_gradient]
    if wrt is None:
        wrt = [*function.parameters, *(v for v in function.arguments if v.needs_gradient)]
    executable = Executable(
        list(function.outputs),
        roots=dict.fromkeys(roots),
        wrt=list(wrt) if roots else [],
        training=True,
        effects=False,
        engine="cpu",
    )
    try:
        with checked(True, inf):
            executable.run(feed_map(function, arguments))
    except FloatingPointError as e:
        if isinstance(e.args[0], NotFinite):
            return e.args[0]
        raise
    return None
