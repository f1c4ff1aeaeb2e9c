"""Operands of products in the precision that is set: own kernels round as they load, libraries get them rounded in scratch."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.engine.cuda.device import current
from cogkit.engine.cuda.driver import SLOT_SCRATCH, B
from cogkit.engine.cuda.table import Call, blocks, i64, launch
from cogkit.engine.precision import current_product_precision
from cogkit.lowering.ir import Node
from cogkit.lowering.steps import Step

__all__ = ["CODES", "SHORT", "Operands", "Overflow", "noted", "overflow_of", "precision"]

CODES = {"float32": 0, "float16": 1, "tf32": 13, "bfloat16": 16}  # Rounding in rounding.cuh
SHORT = {"float16": "f2", "bfloat16": "b2"}  # of two bytes
NOBODY = i64(0)  # does not ask whether numbers became infinite


def precision(dtype: str) -> str:
    """The precision of products of an element type."""
    return current_product_precision().name if dtype == "f4" else "float32"


class Overflow:
    """Where kernels note that an operand of a step has become infinite in half precision: one of the checks of a call."""

    def __init__(self, node: Node):
        self.node, self.device = node, current()
        self.memory = self.device.alloc(4)
        self.address = self.memory.address
        self.device.write(self.address, np.zeros(1, np.int32))

    def __repr__(self) -> str:
        return "noted"

    def check(self) -> Exception | None:
        """The error of such an operand, told once."""
        if not self.device.read(self.address, (1,), np.int32)[0]:
            return None
        self.device.write(self.address, np.zeros(1, np.int32))
        return self.node.misfit(
            "operands within 65504, the range of float16 products", "a larger one",
            "lower loss_scale of C.device.set_product_precision, or set 'bfloat16'",
        )  # fmt: skip


def overflow_of(s: Step, dtype: str) -> Overflow | None:
    """The place of a step; None where its products are not of half precision."""
    if precision(dtype) != "float16":
        return None
    if "overflow" not in s.attrs:
        s.attrs["overflow"] = Overflow(s.node)
    return s.attrs["overflow"]


def noted(x: Any, n: int, place: Overflow) -> Any:
    """A launch that notes whether some of n numbers become infinite in half precision."""
    return launch("products", "note_overflow", blocks(n), 256, [x, place, i64(n)])


class Operands:
    """Operands that are rounded into scratch, of which they take `size` bytes."""

    def __init__(self, name: str, place: Overflow | None):
        self.type, self.place = SHORT[name], place
        self.taken: list[tuple[str, B, B, int]] = []
        self.size = 0

    def take(self, kernel: str, x: B, n: int) -> B:
        """Where n numbers lie: 'narrowed' to the two bytes of their type, or 'rounded' to numbers of that type and as float32."""
        to = B(SLOT_SCRATCH, self.size)
        self.size += (n * (2 if kernel == "narrowed" else 4) + 63) // 64 * 64
        self.taken.append((kernel, x, to, n))
        return to

    def call(self, items: list[Any]) -> Call:
        """The call that rounds and then does what reads the operands, whose scratch lies behind them."""
        made = [
            launch("products", f"{kernel}_{self.type}", blocks(n), 256, [x, to, self.place or NOBODY, i64(n)])
            for kernel, x, to, n in self.taken
        ]
        return Call(0, [*made, *items], self.size + max(getattr(i, "scratch", 0) for i in items))
