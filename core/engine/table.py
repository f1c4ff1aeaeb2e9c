"""An engine's table: which maker makes the call of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cogkit.lowering.steps import Step
from cogkit.op import OPS

__all__ = ["KernelTable", "Made"]

Buffers = list[Any]  # (value, format), or (value, format, bytes to its first element)
Made = tuple[Any, Buffers] | list[tuple[Any, Buffers]] | None


class KernelTable:
    """Makers by the name of a node's or a step's kernel; 'csr NAME' and 'rows NAME' make sparse results.

    A maker takes a step and the numbers of rows and gives a bound call and its buffers in order, several such pairs, or None where there
    is nothing to do.
    """

    def __init__(self, engine: str):
        self.engine = engine
        self.makers: dict[str, Callable[[Step, dict], Made]] = {}
        self.takers: dict[str, Callable[[Any, Step, dict], bool]] = {}
        self.prepare: Callable[[list[Step], dict], None] | None = None  # what is done once before all calls of a plan are made

    def kernel(self, *names: str) -> Callable:
        """Registers a maker."""

        def register(f: Callable) -> Callable:
            for n in names:
                self.makers[n] = f
            return f

        return register

    def fits(self, name: str) -> Callable:
        """Registers what takes a call of this kind over to other numbers of rows, in place."""

        def register(f: Callable) -> Callable:
            self.takers[name] = f
            return f

        return register

    def fit(self, call: Any, step: Step, sizes: dict) -> bool:
        """Whether a call could be taken over to other numbers of rows; else `make` another."""
        f = self.takers.get(step.kind)
        return f is not None and f(call, step, sizes)

    def make(self, step: Step, sizes: dict) -> Made:
        """The bound call of a step and its buffers. Raises `NotImplementedError` for a kernel that the engine has not."""
        form = next((v.sparse for v in step.outputs if v.sparse), "")
        name = f"{form} {step.node.name}" if form else step.kind if step.kind in self.makers else step.node.name
        maker = self.makers.get(name)
        if maker is None:
            raise NotImplementedError(f"{self.engine} engine: no kernel for {step.node.name}")
        return maker(step, sizes)

    def missing(self) -> list[str]:
        """Primitives without a kernel here."""
        groups = {"pointwise", "view", "expand", "reduce"}
        return [
            name
            for name, op in OPS.items()
            if op.kernel not in groups and name not in self.makers and f"rows {name}" not in self.makers
        ]
