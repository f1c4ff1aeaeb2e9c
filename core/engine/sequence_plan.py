"""Plans over sequences: row spaces that are made while they run, and sequences that go on from one minibatch to the next."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.engine.feeds import as_sequences
from cogkit.engine.seeding import Run
from cogkit.engine.spaces import space_made
from cogkit.engine.values import Value
from cogkit.lowering.ir import Graph
from cogkit.op import row_space
from cogkit.ops.rows import has_steps
from cogkit.residence import bring
from cogkit.variables import Variable

__all__ = ["PLANS", "SequencePlan"]

PLANS = 32  # plans of one executable that are kept


class SequencePlan:
    """A plan with row spaces that are made while it runs, whose values over sequences are given as lists of arrays, and whose sequences
    may go on from one minibatch to the next: `carried` is kept from run to run.
    """

    def __init__(self, plan: Any, graph: Graph, made: dict[int, Any], carried: list, lend: bool):
        self.inner, self.graph, self.made, self.carried, self.lend = plan, graph, made, Carried(graph.carries, carried), lend
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
                value = plan.run(feeds, sizes, run._replace(arrivals=None))[0]
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
            feeds = {**feeds, **self.carried.before(sizes)}
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
            self.carried.keep(found[-len(carries) :], sizes)
            found = found[: -len(carries)]
        for i, axes in self.over:
            found[i] = Value.of_rows(found[i], sizes[axes]) if self.lend else as_sequences(found[i], sizes[axes])
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Carried:
    """The last steps of delays in the minibatch before, where a sequence may go on: `kept` has (steps, which there were) a delay."""

    def __init__(self, carries: list, kept: list):
        self.carries, self.kept = carries, kept

    def before(self, sizes: dict) -> dict[Variable, np.ndarray]:
        """What is fed of the minibatch before. Raises `ValueError` where a sequence that goes on has none."""
        if len(self.kept) not in (0, len(self.carries)) or any(
            last.ndim > 1 and (*valid.shape[1:], *last.shape[1:]) != (c.steps, *c.last.shape)
            for (last, valid), c in zip(self.kept, self.carries, strict=False)
        ):
            raise ValueError("sequences: expected the last steps of this model's delays, got those of another; start anew")
        if not self.kept:
            self.kept.extend((np.zeros((0,)), np.zeros((0, c.steps), bool)) for c in self.carries)
        feeds = {}
        for i, c in enumerate(self.carries):
            begins, slots = (sizes[k, c.moved.type.axes] for k in ("begins", "slots"))
            last, valid = self.kept[i]
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
            self.kept[i] = last, valid
            feeds[c.last], feeds[c.valid] = np.ascontiguousarray(last[slots]), valid[slots].astype(c.valid.dtype)
        return feeds

    def keep(self, tails: list[np.ndarray], sizes: dict) -> None:
        """Keeps the last steps for the next minibatch; where a sequence was shorter, those that it had gone on from too."""
        for i, (c, tail) in enumerate(zip(self.carries, tails, strict=True)):
            last, valid = self.kept[i]
            slots, tail = sizes["slots", c.moved.type.axes], bring(tail)
            at = np.arange(c.steps) + sizes[c.moved.type.axes].lengths[:, None]  # of the steps before and the new ones together
            old, rows, source = at < c.steps, slots[:, None], np.minimum(at, c.steps - 1)
            mask = old.reshape(old.shape + (1,) * (tail.ndim - 2))
            made, there = np.where(mask, last[rows, source], tail), np.where(old, valid[rows, source], True)
            last, valid = last.copy(), np.zeros_like(valid)  # a line that is not in this minibatch is over
            last[slots], valid[slots] = made, there
            self.kept[i] = last, valid
