"""From a user's call to a plan and back: what `Function` asks of the engine."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cogkit import evaluation
from cogkit.axis import Axis
from cogkit.engine import current_engine
from cogkit.engine.device import on_device
from cogkit.engine.executable import Executable
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.precision import ProductPrecision, precision_for
from cogkit.engine.seeding import Run, random_state
from cogkit.engine.sequence_plan import SequencePlan
from cogkit.engine.user import Tape
from cogkit.errors import sentence
from cogkit.functions import Function
from cogkit.nodes import Block
from cogkit.ops.rows import BATCH
from cogkit.variables import Input, Variable
from cogkit.walks import nodes_of

__all__ = ["feed_map"]


class _Cache:
    """Executables of one function, by what is wanted."""

    def __init__(self, limit: int = 32):
        self.limit = limit
        self.items: dict[Any, Executable] = {}

    def get(self, key: Any, make: Any) -> Executable:
        found = self.items.pop(key, None)
        if found is None:
            found = make()
            while len(self.items) >= self.limit:
                self.items.pop(next(iter(self.items)))
        self.items[key] = found
        return found


def _cache(f: Function) -> _Cache:
    cache = f.__dict__.get("_executables")
    if cache is None:
        cache = f.__dict__["_executables"] = _Cache()
    return cache


def feed_map(f: Function, arguments: Any) -> dict[Variable, Any]:
    """The fed variables of a call: a dict as given (names allowed), or the data of the only argument."""
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        free = f.arguments
        if len(free) != 1:
            raise ValueError(
                sentence(
                    f.op_name,
                    f.name,
                    f.root.where,
                    f"a dict that feeds {', '.join(v.name or v.uid for v in free) or 'nothing'}",
                    type(arguments).__name__,
                )
            )
        return {free[0]: arguments}
    out = {}
    for k, data in arguments.items():
        if isinstance(k, str):
            found = [v for v in f.arguments if v.name == k]
            if len(found) != 1:
                raise ValueError(
                    sentence(
                        f.op_name,
                        f.name,
                        f.root.where,
                        "inputs named " + ", ".join(v.name or v.uid for v in f.arguments),
                        repr(k),
                    )
                )
            k = found[0]
        elif isinstance(k, Function):
            k = k.output
        elif not isinstance(k, Variable):
            raise TypeError(
                sentence(f.op_name, f.name, f.root.where, "variables or their names to feed", f"{k!r}", "feed {variable: array}")
            )
        if not (k.is_input or k.is_output):
            raise TypeError(
                sentence(f.op_name, f.name, f.root.where, "data for inputs", f"some for {k!r}", "a value is set by .value = ...")
            )
        out[k] = data
    return out


def _variables(f: Function, what: Any) -> list[Variable]:
    if what is None:
        return list(f.outputs)
    if isinstance(what, (Variable, Function)):
        what = [what]
    found = [w.output if isinstance(w, Function) else w for w in what]
    for w in found:
        if not isinstance(w, Variable):
            raise TypeError(sentence(f.op_name, f.name, f.root.where, "variables or functions", repr(w)))
    return found


def _own(f: Function, wanted: list[Variable]) -> list[Variable]:
    """The wanted values; `ValueError` for one that another graph computes."""
    mine = {id(v) for n in nodes_of(f.root) for v in n.outputs} | {id(v) for v in f.inputs}
    for v in wanted:
        if id(v) not in mine:
            raise ValueError(
                sentence(
                    f.op_name,
                    f.name,
                    f.root.where,
                    "outputs of nodes of this function",
                    repr(v),
                    "evaluate the function that has it",
                )
            )
    return wanted


def _has(f: Function, op: str) -> bool:
    """Whether the user's graph has a node of an op."""
    stack = [f.root]
    while stack:
        for n in nodes_of(stack.pop()):
            if n.op.name == op:
                return True
            if isinstance(n, Block):
                stack.append(n.composite.root)
    return False


class _State(NamedTuple):
    feeds: dict
    step: int
    target: tuple[str, ProductPrecision]
    tape: Tape


def _target() -> tuple[str, ProductPrecision]:
    """What new plans are made for."""
    engine = current_engine()
    return engine, precision_for(engine)


class Runtime:
    """What `Function` asks of the engine."""

    on = staticmethod(on_device)

    def evaluate(self, f: Function, arguments: Any, outputs: Any, training: bool, as_numpy: bool = True) -> dict[Variable, Any]:
        """The values of outputs, as {variable: array}, or without `as_numpy` {variable: Value} in memory of the plan."""
        wanted = _variables(f, outputs)
        feeds = feed_map(f, arguments)
        key = ("eval", tuple(map(id, wanted)), as_numpy, _target())
        e = _cache(f).get(key, lambda: Executable(_own(f, wanted), training=training, lend=not as_numpy))
        return dict(zip(wanted, e.run(self._used(e, feeds, f)), strict=True))

    @staticmethod
    def _used(e: Executable, feeds: dict, f: Function) -> dict:
        """Leaves out inputs that the wanted outputs do not need, as CNTK does: one dict may serve several functions."""
        if len(feeds) == len(e.arguments):
            return feeds
        return {v: d for v, d in feeds.items() if id(v) in e._set or not v.is_input}

    def forward(self, f: Function, arguments: Any, outputs: Any, keep: Any, as_numpy: bool = True) -> tuple[Any, dict]:
        """Values in training mode, and the state that `backward` takes."""
        wanted = _variables(f, outputs)
        feeds = feed_map(f, arguments)
        training = keep is not None and len(list(keep)) > 0
        e = _cache(f).get(
            ("forward", tuple(map(id, wanted)), training, as_numpy, _target()),
            # `backward` computes anew what `forward` did, so it is the one that assigns, as CNTK's does
            lambda: Executable(
                _own(f, wanted), training=training, effects=not (training and _has(f, "assign")), lend=not as_numpy
            ),
        )
        if not training:
            return None, dict(zip(wanted, e.run(self._used(e, feeds, f)), strict=True))
        tape = Tape()
        with tape.running():
            values = dict(zip(wanted, e.run(self._used(e, feeds, f)), strict=True))
        return _State(feeds, e.step, _target(), tape), values

    def backward(self, f: Function, state: _State, roots: Any, wrt: Any, as_numpy: bool = True) -> dict[Variable, Any]:
        """Gradients for given gradients of outputs."""
        if state is None:
            raise ValueError(sentence(f.op_name, f.name, f.root.where, "the state of a forward with keep_for_backward", "None"))
        if not isinstance(roots, dict):
            roots = {f.output: roots}
        wrt = _variables(f, wrt)
        outs = [v.output if isinstance(v, Function) else v for v in roots]
        fed = [_gradient_input(f, v, _axes_of(f, v, g, state.feeds)) for v, g in zip(outs, roots.values(), strict=True)]
        e = _cache(f).get(
            ("backward", tuple(map(id, fed)), tuple(map(id, wrt)), as_numpy, state.target),
            lambda: Executable(
                engine=state.target[0],
                precision=state.target[1],
                roots=dict(zip(outs, fed, strict=True)),
                wrt=wrt,
                training=True,
                effects=_has(f, "assign"),
                lend=not as_numpy,
            ),
        )
        feeds = dict(state.feeds)
        feeds.update(zip(fed, roots.values(), strict=True))
        with state.tape.running():
            return dict(zip(wrt, e.run(self._used(e, feeds, f), step=state.step), strict=True))

    def grad(self, f: Function, at: Any, wrt: Any, outputs: Any, root: Any, as_numpy: bool = True) -> Any:
        """Gradient of the sum of one output."""
        feeds = feed_map(f, at)
        root = f.output if root is None else root.output if isinstance(root, Function) else root
        if wrt is None:
            wanted = [v for v in f.arguments if v.needs_gradient and not v.is_placeholder]
            if not wanted:
                raise ValueError(
                    sentence(
                        f.op_name,
                        f.name,
                        f.root.where,
                        "a variable that needs a gradient",
                        "none",
                        "make the input with needs_gradient=True",
                    )
                )
        else:
            wanted = _variables(f, wrt)
            reached = {id(v) for v in f.inputs}
            for v in wanted:
                if v.is_output or id(v) not in reached:
                    raise ValueError(
                        sentence(
                            f.op_name,
                            f.name,
                            f.root.where,
                            "inputs and parameters of this function to differentiate by",
                            repr(v),
                            "cut the graph there with an input" if v.is_output else "",
                        )
                    )
                if not v.needs_gradient:
                    raise ValueError(
                        sentence(
                            v.kind,
                            v.name,
                            v.where,
                            "a variable that needs a gradient",
                            "one that does not",
                            "make it with needs_gradient=True",
                        )
                    )
        outs = [] if outputs is None else _variables(f, outputs)
        key = ("grad", id(root), tuple(map(id, wanted)), tuple(map(id, outs)), as_numpy, _target())
        e = _cache(f).get(
            key,
            lambda: Executable(
                _own(f, outs), roots=root, wrt=wanted, training=True, lend=not as_numpy, lists=() if as_numpy else wanted
            ),
        )
        found = e.run(self._used(e, feeds, f))
        gradients: Any = dict(zip(wanted, found[len(outs) :], strict=True))
        if len(gradients) == 1:
            gradients = next(iter(gradients.values()))
        if outputs is None:
            return gradients
        values: Any = dict(zip(outs, found, strict=False))
        return gradients, next(iter(values.values())) if len(values) == 1 else values

    def purpose(self, seed: int) -> int:
        """What keeps the random numbers of a node with this seed apart from others."""
        from cogkit.ops.randomness import purpose_of

        return purpose_of(seed)

    def explain(self, f: Function, feed: Any) -> str:
        """What will run for a feed (default: a batch of one)."""
        feeds = (
            feed_map(f, feed)
            if feed is not None
            else {v: [np.zeros((1, *(1 if n < 0 else n for n in v.shape)), v.dtype)] for v in f.arguments}
        )
        e = Executable(list(f.outputs))
        arrays, types, sizes = bind_feeds(feeds)
        plan = e.plan(types, sizes)
        if isinstance(plan, SequencePlan):  # row spaces that are made while it runs
            plan.run(arrays, sizes, Run(random_state.seed, 0, 0))
            sizes = plan.sizes
        return plan.explain(sizes)

    def save(self, f: Function, filename: str, format: Any) -> None:
        """See `cogkit.store`."""
        from cogkit.store import save

        save(f, filename)

    def load(self, model: Any, format: Any) -> Function:
        """See `cogkit.store`."""
        from cogkit.store import load_model

        return load_model(model)

    def restore(self, f: Function, filename: str) -> None:
        """See `cogkit.store`."""
        from cogkit.store import restore

        restore(f, filename)


def _gradient_input(f: Function, v: Variable, axes: tuple) -> Variable:
    """The input through which the gradient of an output is fed; one for each, kept."""
    kept = f.__dict__.setdefault("_gradient_inputs", {})
    if (id(v), axes) not in kept:
        kept[id(v), axes] = Input(v.type.shape, v.type.dtype, False, False, axes, "gradient")
    return kept[id(v), axes]


def _axes_of(f: Function, v: Variable, gradient: Any, feeds: dict) -> Any:
    """The row space of an output's gradient: a batch of its own where `to_batch` made one of another size than what is fed."""
    axes = v.type.axes
    fed = [d for u, d in feeds.items() if u.type.axes == axes and hasattr(d, "__len__")]
    if axes == BATCH and fed and len(gradient) != len(fed[0]) and _has(f, "to_batch"):
        return (Axis.batch_of(len(gradient)),)
    return axes


evaluation.runtime = Runtime()
