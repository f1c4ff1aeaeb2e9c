"""Gradients in few bits on the GPU: what `cogkit.parallel.quantize` does to arrays, done to memory of a device, with the same messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cogkit.engine.cuda.device import Device, Memory, device
from cogkit.engine.cuda.driver import B, Commands
from cogkit.engine.cuda.table import Call, Table, blocks, i64, launch

__all__ = ["Quantizer"]


class Quantizer:
    """Packs and unpacks flat arrays of a device.

    columns: a `cogkit.parallel.quantize.Columns`: `table`, `bits`, `dtype` and `nbytes` of its messages. values, residual, message: what
    has the `address` of memory of the device. All is put on the device's stream and not waited for.
    """

    def __init__(self, columns: Any, on: Device | None = None):
        self.columns, self.device = columns, on or device()
        self._calls: dict[tuple[bool, bool], tuple[Call, Commands]] = {}

    def message(self) -> Memory:
        """Room for a message."""
        return self.device.alloc(self.columns.nbytes)

    def pack(self, zero_threshold: bool, values: Any, residual: Any, message: Any) -> None:
        """Adds values to the residual, says that in few bits in the message, and takes what it says off the residual."""
        self._run(("pack", zero_threshold), self._pack, values, residual, message)

    def unpack(self, message: Any, values: Any, add: bool = False) -> None:
        """Sets values to what the message says, or adds it."""
        self._run(("unpack", add), self._unpack, message, values)

    def _run(self, key: Any, make: Callable[[bool], Call], *arrays: Any) -> None:
        if self.columns.table.shape[1] == 0:
            return
        with self.device.lock, self.device.active():
            if key not in self._calls:
                call = make(key[1])
                self._calls[key] = call, Commands(call.items)
            call, commands = self._calls[key]
            call.set_buffers([a.address for a in arrays])
            commands.run(self.device.stream_handle)

    def _launch(self, name: str, flag: bool, buffers: int) -> Call:
        c = self.columns
        count = c.table.shape[1]
        kind = "f4" if c.dtype == np.float32 else "f8"
        args = [Table(c.table), i64(count), i64(c.bits), i64(flag), *map(B, range(buffers))]
        return Call(buffers, [launch("quantizer", f"quantizer_{name}_{kind}", blocks(32 * count, 128), 128, args)])

    def _pack(self, zero_threshold: bool) -> Call:
        return self._launch("pack", zero_threshold, 3)

    def _unpack(self, add: bool) -> Call:
        return self._launch("unpack", add, 2)
