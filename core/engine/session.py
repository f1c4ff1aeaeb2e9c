"""From a user's call to a plan and back: executables, the plan cache, and what `Function` asks of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cogkit import evaluation, variables
from cogkit.axis import Axis
from cogkit.collector import paused_collector
from cogkit.engine import ENGINES, current_engine, half_forms
from cogkit.engine.arrays import Lease, NDArrayView
from cogkit.engine.feeds import as_sequences, bind_feeds
from cogkit.engine.spaces import space_made
from cogkit.engine.sparse import RowSparse
from cogkit.engine.user import Resizing, calls_of
from cogkit.engine.values import Value
from cogkit.errors import sentence
from cogkit.functions import Function
from cogkit.lowering.ir import Graph
from cogkit.lowering.lower import Request, lower, stages
from cogkit.nodes import Block, Primitive
from cogkit.op import row_space
from cogkit.ops.rows import BATCH, has_steps
from cogkit.variables import Constant, Input, Variable
from cogkit.walks import leaves_of, nodes_of

__all__ = ["Executable", "Run", "random_state", "set_seed"]

PLANS = 32  # plans of one executable that are kept


class Run(NamedTuple):
    """What random numbers depend on besides the node and the element."""

    seed: int
    step: int
    sample: int = 0


class _RandomState:
    """Seed of the process and runs of executables so far; `first`: the number of an executable's first run since it began."""

    def __init__(self, seed: int = 0):
        self.begin(seed)

    def begin(self, seed: int, step: int = 0) -> None:
        """All executables draw as if they had not run: those that take no other count go on from this step."""
        self.seed, self.step, self.first, self.begun = seed, step, step, object()


random_state = _RandomState()


def set_seed(seed: int) -> None:
    """Sets the one seed: initial values, dropout and random ops of what is built and run from here on repeat for equal seeds."""
    from cogkit import initializer
    from cogkit.ops import randomness

    random_state.begin(int(seed))
    randomness.restart()
    initializer.restart(int(seed))


class _Sequences:
    """A plan with row spaces that are made while it runs, whose values over sequences are given as lists of arrays, and whose sequences
    may go on from one minibatch to the next: `carried` is kept from run to run.
    """

    def __init__(self, plan: Any, graph: Graph, made: dict[int, Any], carried: list, lend: bool):
        self.inner, self.graph, self.made, self.carried, self.lend = plan, graph, made, carried, lend
        self.sizes: dict = {}  # of the last run, with those of row spaces made in it
        self.again: Any = None  # lowers the graph for given sizes, those of row spaces made in a run included
        self.exact: dict[tuple, Any] = {}  # plans by the longest sequences of such row spaces, where shapes depend on them
        self.over = [(i, v.type.axes) for i, v in enumerate(graph.outputs) if has_steps(v.type.axes)]

    def spaces(self, feeds: dict, sizes: dict, run: Run) -> dict:
        """The rows of all row spaces. Raises `ValueError` where two that share an axis differ in lengths."""
        sizes = dict(sizes)
        for i, plan in self.made.items():
            made = self.graph.spaces[i]
            value = None
            if plan is not None:
                value = plan.run(feeds, sizes, run)[0]
            space = space_made(made, value, sizes)
            if made.kind[0] == "rows":
                sizes[made.axes] = space
                continue
            sizes["pick", i] = sizes["unpick", i] = space
            known = sizes.setdefault(made.axes, space)
            if known.lengths.tobytes() != space.lengths.tobytes():
                raise ValueError(
                    f"sequences: expected equal lengths along {row_space(made.axes)}, got {known.lengths.tolist()} and {space.lengths.tolist()}"
                )
        return sizes

    def run(self, feeds: dict, sizes: dict, run: Run) -> list[Any]:
        """What the plan gives, values over sequences as lists in the caller's order, or with `lend` as values."""
        carries = self.graph.carries
        if carries:
            feeds = {**feeds, **self.before(sizes)}
        self.sizes = sizes = self.spaces(feeds, sizes, run)
        inner = self.inner
        if self.graph.bounded and not carries:
            key = tuple(sizes[a].steps for a in self.graph.bounded)
            if key != tuple(self.graph.bounded.values()):
                if key not in self.exact:
                    while len(self.exact) >= PLANS:
                        self.exact.pop(next(iter(self.exact)))
                    self.exact[key] = self.again(sizes)[1]
                inner = self.exact[key]
        found: list[Any] = inner.run(feeds, sizes, run)
        if carries:
            self.keep(found[-len(carries) :], sizes)
            found = found[: -len(carries)]
        for i, axes in self.over:
            found[i] = Value.of_rows(found[i], sizes[axes]) if self.lend else as_sequences(found[i], sizes[axes])
        return found

    def before(self, sizes: dict) -> dict[Variable, np.ndarray]:
        """What is fed of the minibatch before. Raises `ValueError` where a sequence that goes on has none."""
        if len(self.carried) not in (0, len(self.graph.carries)) or any(
            last.ndim > 1 and (*valid.shape[1:], *last.shape[1:]) != (c.steps, *c.last.shape)
            for (last, valid), c in zip(self.carried, self.graph.carries, strict=False)
        ):
            raise ValueError("sequences: expected the last steps of this model's delays, got those of another; start anew")
        if not self.carried:
            self.carried.extend((np.zeros((0,)), np.zeros((0, c.steps), bool)) for c in self.graph.carries)
        feeds = {}
        for i, c in enumerate(self.graph.carries):
            begins, slots = (sizes[k, c.moved.type.axes] for k in ("begins", "slots"))
            last, valid = self.carried[i]
            lines = int(slots.max(initial=-1)) + 1
            if (slots[~begins] >= len(valid)).any():
                have = f"{len(valid)} in the minibatch before" if len(valid) else "none before"
                raise ValueError(f"sequences: expected as many as before where one goes on, got {lines}, and {have}")
            if len(valid) < lines:
                old = last if len(valid) else np.zeros((0, *c.last.shape), c.last.dtype)
                last = np.concatenate([old, np.zeros((lines - len(valid), *c.last.shape), c.last.dtype)])
                valid = np.concatenate([valid, np.zeros((lines - len(valid), c.steps), bool)])
            valid = valid.copy()
            valid[slots[begins]] = False
            self.carried[i] = last, valid
            feeds[c.last], feeds[c.valid] = np.ascontiguousarray(last[slots]), valid[slots].astype(c.valid.dtype)
        return feeds

    def keep(self, tails: list[np.ndarray], sizes: dict) -> None:
        """Keeps the last steps for the next minibatch; where a sequence was shorter, those that it had gone on from too."""
        for i, (c, tail) in enumerate(zip(self.graph.carries, tails, strict=True)):
            last, valid = self.carried[i]
            slots = sizes["slots", c.moved.type.axes]
            at = np.arange(c.steps) + sizes[c.moved.type.axes].lengths[:, None]  # of the steps before and the new ones together
            old, rows, source = at < c.steps, slots[:, None], np.minimum(at, c.steps - 1)
            mask = old.reshape(old.shape + (1,) * (tail.ndim - 2))
            made, there = np.where(mask, last[rows, source], tail), np.where(old, valid[rows, source], True)
            last, valid = last.copy(), np.zeros_like(valid)  # a line that is not in this minibatch is over
            last[slots], valid[slots] = made, there
            self.carried[i] = last, valid

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Executable:
    """A graph with what is wanted of it, ready to run; a plan is made for each new kind of feed and kept.

    `run` gives a list of arrays: outputs, then sums (scalars), then gradients. Arrays of gradients and sums belong to the plan
    when `reuse` is set: the next run overwrites them. effects_of: variables that are computed for what they write alone.
    lists: those of wrt whose gradients may come as lists of rows, `RowSparse`. lend: all results are `Value`s over the plan's own memory,
    which tell when the next run has overwritten them.
    """

    def __init__(
        self,
        outputs: Sequence[Variable] = (),
        sums: Sequence[Variable] = (),
        roots: Any = None,
        wrt: Sequence[Variable] = (),
        training: bool = False,
        effects: bool = True,
        effects_of: Sequence[Variable] = (),
        reuse: bool = False,
        engine: str | None = None,
        lend: bool = False,
        lists: Sequence[Variable] = (),
        inside: Sequence[Variable] = (),
    ):
        if isinstance(roots, Variable):
            roots = {roots: None}
        self.request = Request(
            tuple(outputs),
            tuple(sums),
            tuple((roots or {}).items()),
            tuple(wrt),
            training,
            effects,
            tuple(effects_of),
            lists=tuple(lists),
            inside=tuple(inside),
        )
        self.reuse, self.lend = reuse, lend
        self.runs = 0
        self.engine = engine or current_engine()
        wanted = [*outputs, *sums, *(roots or {}), *effects_of]
        self.roots: list[Primitive] = list({id(v.node): v.node for v in wanted if v.is_output}.values())
        self.arguments: list[Variable] = [v for v in {id(v): v for r in self.roots for v in leaves_of(r)}.values() if v.is_input]
        self.arguments += [v for v in wanted if v.is_input and not any(v is a for a in self.arguments)]
        self.arguments += [v for v in (roots or {}).values() if v is not None]
        self._set = {id(v) for v in self.arguments}
        self._free = [v for v in self.arguments if any(n < 0 for n in v._shape or ())]
        self._plans: dict[Any, Any] = {}
        self.carried: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # last steps of delays in the minibatch before, and which there were
        self._longest: tuple = ()  # row spaces whose longest sequence is the size of a static axis
        self._counted: tuple = ()  # row spaces whose number of rows is
        self._edits = variables.edits
        self._stamp = self._fingerprint()
        self._begun, self.step = random_state.begun, random_state.first - 1  # since when it counts its runs, and the last one

    def _fingerprint(self) -> tuple:
        found: list[Any] = []
        stack = list(self.roots)
        while stack:
            for n in nodes_of(stack.pop()):
                found.append((id(n), tuple(map(id, n.operands)), tuple(sorted((k, str(v)) for k, v in n.attributes.items()))))
                found.extend(v.version for v in n.operands if isinstance(v, Constant) and v.shape == ())
                if isinstance(n, Block):
                    stack.append(n.composite.root)
        return tuple(found)

    def run(self, feeds: dict[Variable, Any], step: int | None = None, sample: int = 0) -> list[Any]:
        """Runs the plan for these feeds. step: what random numbers depend on; None: how often this has run since the seed was set.

        Raises `ValueError` for missing, unknown or ill-shaped feeds.
        """
        arrays, types, sizes = bind_feeds(feeds)
        plan = self.plan(types, sizes)
        if step is None:
            step = self._next_step()
        if not self.lend:
            return plan.run(arrays, sizes, Run(random_state.seed, step, sample))
        for v, data in feeds.items():
            lease = getattr(data, "_lease", None)
            if lease is not None and lease.owner is self:  # what this run writes over
                arrays[v] = arrays[v].copy()
        self.runs += 1
        found = plan.run(arrays, sizes, Run(random_state.seed, step, sample))
        return [self._lent(a) for a in found]

    def _next_step(self) -> int:
        # counted by each for itself, so that equal seeds draw equal numbers in another graph
        if self._begun is not random_state.begun:
            self._begun, self.step = random_state.begun, random_state.first - 1
        random_state.step += 1
        self.step += 1
        return self.step

    def _lent(self, result: Any) -> Value:
        if isinstance(result, RowSparse):
            return Value(NDArrayView._over(result.tocsr(), result.shape))
        if not isinstance(result, Value):
            return Value.of_array(result, Lease(self))
        result._lease = Lease(self)
        return result

    def plan(self, types: dict, sizes: dict | None = None) -> Any:
        """The plan for feeds of these types. sizes: rows of their row spaces, for graphs in which a shape depends on them."""
        if self._edits != variables.edits:
            stamp = self._fingerprint()
            if stamp != self._stamp:
                self._plans.clear()
                self._stamp = stamp
            self._edits = variables.edits
        key: tuple = tuple(types[v].shape for v in self._free if v in types)
        if self._longest:  # a shape depends on the longest sequence
            key += tuple(sizes[a].steps for a in self._longest)  # type: ignore[index]
        if self._counted:  # or on the number of rows
            key += tuple(int(sizes[a]) for a in self._counted)  # type: ignore[index]
        if sizes is not None and len(sizes) > 1:
            key += tuple(k for k in sizes if k[0] == "begins")
        plan = self._plans.get(key)
        if plan is None or len(types) != len(self.arguments):
            self._check(types)
            graph, plan = self._whole(types, sizes)
            if graph.longest and not self._longest:
                self._longest = tuple(graph.longest)
                key += tuple(graph.longest.values())
            if graph.counted and not self._counted:
                self._counted = tuple(graph.counted)
                key += tuple(graph.counted.values())
            if any(any(call.free) for call in calls_of(graph)):
                plan = Resizing(plan, lambda shapes: self._whole(types, {**(sizes or {}), **shapes})[1])
            while len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = plan
        return plan

    @paused_collector()
    def _whole(self, types: dict, sizes: dict | None) -> tuple[Graph, Any]:
        graph, plan = self._lowered(types, sizes)
        made = {i: None if g is None else self._engine(g, False) for i, g in stages(graph).items()}
        if made or graph.carries or any(has_steps(v.type.axes) for v in graph.outputs):
            plan = _Sequences(plan, graph, made, self.carried, self.lend)
            plan.again = lambda known: self._lowered(types, known)
        return graph, plan

    @paused_collector()
    def _lowered(self, types: dict, sizes: dict | None) -> tuple[Graph, Any]:
        graph = lower(self.request, types, sizes, half_forms(self.engine))
        return graph, self._engine(graph, True)

    def _engine(self, graph: Graph, main: bool) -> Any:
        plan = ENGINES[self.engine](graph)
        if main and (self.reuse or self.lend) and hasattr(plan, "keep_outputs"):
            plan.keep_outputs(0 if self.lend else len(self.request.outputs))
        return plan

    def _check(self, types: dict) -> None:
        for v in self.arguments:
            if v not in types:
                raise ValueError(sentence("Input", v.name, v.where, "data for this input", "none", "feed it: {variable: array}"))
        for v in types:
            if id(v) not in self._set:  # the calls of `Function` leave such feeds out beforehand
                root = self.roots[0] if self.roots else None
                raise ValueError(
                    sentence(
                        root.label if root else "eval",
                        root.name if root else "",
                        root.where if root else "",
                        "data for its inputs " + ", ".join(a.name or a.uid for a in self.arguments),
                        f"some for {v!r} too",
                        "leave it out",
                    )
                )


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


class Runtime:
    """What `Function` asks of the engine."""

    def evaluate(self, f: Function, arguments: Any, outputs: Any, training: bool, as_numpy: bool = True) -> dict[Variable, Any]:
        """The values of outputs, as {variable: array}, or without `as_numpy` {variable: Value} in memory of the plan."""
        wanted = _variables(f, outputs)
        feeds = feed_map(f, arguments)
        key = ("eval", tuple(map(id, wanted)), as_numpy, current_engine())
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
            ("forward", tuple(map(id, wanted)), training, as_numpy, current_engine()),
            # `backward` computes anew what `forward` did, so it is the one that assigns, as CNTK's does
            lambda: Executable(
                _own(f, wanted), training=training, effects=not (training and _has(f, "assign")), lend=not as_numpy
            ),
        )
        values = dict(zip(wanted, e.run(self._used(e, feeds, f)), strict=True))
        return (_State(feeds, e.step) if training else None), values

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
            ("backward", tuple(map(id, fed)), tuple(map(id, wrt)), as_numpy, current_engine()),
            lambda: Executable(
                roots=dict(zip(outs, fed, strict=True)),
                wrt=wrt,
                training=True,
                effects=_has(f, "assign"),
                lend=not as_numpy,
            ),
        )
        feeds = dict(state.feeds)
        feeds.update(zip(fed, roots.values(), strict=True))
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
        key = ("grad", id(root), tuple(map(id, wanted)), tuple(map(id, outs)), as_numpy, current_engine())
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
        if isinstance(plan, _Sequences):  # row spaces that are made while it runs
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
