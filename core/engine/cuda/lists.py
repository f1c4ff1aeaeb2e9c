"""Sparse values in the GPU's memory: CSR rows that are fed or constant, gradients that list their rows, and how many entries there may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.csr import HEAD, CsrRows, csr_matrix_of
from cogkit.engine.cuda.device import Device, Memory
from cogkit.engine.cuda.sparsity import move_table, take_table
from cogkit.engine.geometry import shape
from cogkit.engine.sparse import RowSparse
from cogkit.lowering.ir import Graph, Value
from cogkit.lowering.layout import root_of
from cogkit.lowering.sparse import LISTS, list_room

__all__ = ["DeviceRows", "FedCsr", "FedList", "Rooms", "put_csr", "read_csr"]

LEAST = 64  # entries that a list has place for


class Rooms:
    """How many entries the lists of a graph have place for: powers of two that grow with what is fed, and make other bindings then."""

    def __init__(self, graph: Graph):
        self.nodes = [n for n in graph.nodes if n.name in LISTS]
        self.sizes = {("list", n.outputs[0]): LEAST for n in self.nodes}

    def fit(self, feeds: dict, sizes: dict) -> None:
        """Makes room for a minibatch."""
        for n in self.nodes:
            if n.name == "csr_transposed":
                need = entries_of(n.inputs[0], feeds, sizes)
            elif n.name == "scatter_rows":
                need = math.prod(shape(n.inputs[0], sizes))
            else:
                width = n.outputs[0].type.shape[0]
                need = sum(list_room(self.sizes["list", root_of(v)], width) for v in n.inputs)
            key = "list", n.outputs[0]
            self.sizes[key] = max(self.sizes[key], 1 << max(need - 1, 0).bit_length())


def entries_of(v: Value, feeds: dict, sizes: dict) -> int:
    """The most entries that CSR rows may have."""
    v = root_of(v)
    leaf = v.producer.leaf
    if leaf is not None:
        return len((feeds[leaf] if leaf.is_input else leaf.place).indices)
    return int(counts_of(v, feeds, sizes).sum())


def counts_of(v: Value, feeds: dict, sizes: dict) -> np.ndarray:
    """The most entries that each CSR row may have."""
    v = root_of(v)
    n = v.producer
    if n.leaf is not None:
        csr = feeds[n.leaf] if n.leaf.is_input else n.leaf.place
        begin, end = bounds_of(csr.block)
        return end - begin
    if n.name == "one_hot":
        return np.ones(math.prod(shape(n.inputs[0], sizes)), np.int64)
    index = (move_table if n.name == "move_rows" else take_table)(n, sizes)
    return np.append(counts_of(n.inputs[0], feeds, sizes), 0)[index]  # -1: no row


def bounds_of(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the entries of CSR rows begin and end, of a block with its head."""
    rows = int(block[0])
    return block[8 : 8 + rows], block[8 + rows : 8 + 2 * rows]


# CSR rows ----------------------------------------------------------------------------------------------------------------------


def _parts(csr: CsrRows) -> tuple[int, int, int]:
    """Bytes to the columns and to the values of CSR rows on the device, and all of them."""
    columns = -(-csr.block.nbytes // 64) * 64
    values = columns + -(-csr.indices.nbytes // 64) * 64
    return columns, values, values + csr.values.nbytes


def _lay(csr: CsrRows, address: int, to: np.ndarray) -> None:
    """Writes CSR rows as they shall lie at an address of the device; to: (bytes,) uint8."""
    columns, values, end = _parts(csr)
    block = to[: csr.block.nbytes].view(np.int64)
    block[...] = csr.block
    block[1:3] = address + columns, address + values
    to[columns : columns + csr.indices.nbytes] = csr.indices.view(np.uint8)
    to[values:end] = csr.values.view(np.uint8)


def put_csr(device: Device, csr: CsrRows) -> Memory:
    """CSR rows on the device, where they stay."""
    memory = device.alloc(_parts(csr)[2])
    room = np.zeros(memory.size, np.uint8)
    _lay(csr, memory.address, room)
    device.write(memory.address, room)
    return memory


def read_csr(device: Device, memory: Memory, columns: int, dtype: np.dtype) -> Any:
    """The SciPy CSR matrix, a copy, of CSR rows on the device."""
    head = device.read(memory.address, (HEAD // 8,), np.int64)
    begin, end = bounds_of(device.read(memory.address, (HEAD // 8 + 2 * int(head[0]),), np.int64))
    last = int(end.max(initial=0))
    indices, values = (device.read(int(head[k]), (last,), t) for k, t in ((1, np.int32), (2, dtype)))
    return csr_matrix_of(begin, end, indices, values, columns)


class _Fed:
    """Two places on the device for what is fed, by turns; sizes are powers of two, so that addresses stay."""

    def __init__(self, device: Device):
        self.device = device
        self.host: list[np.ndarray] = [np.empty(0, np.uint8)] * 2
        self.memory = [Memory(None, 0)] * 2

    def room(self, turn: int, size: int) -> tuple[int, np.ndarray]:
        """The address of so many bytes, and the pinned memory that is copied there."""
        if self.memory[turn].size < size:
            size = 1 << (size - 1).bit_length()
            self.memory[turn], self.host[turn] = self.device.alloc(size), self.device.pinned(size)
        return self.memory[turn].address, self.host[turn]

    def copy(self, turn: int, size: int) -> int:
        """Starts the copy; the address."""
        self.device.cuda.memcpy_htod_async(self.memory[turn].address, self.host[turn][:size], self.device.copies)
        return self.memory[turn].address


class FedCsr(_Fed):
    """Places for CSR rows that are fed."""

    def put(self, turn: int, csr: CsrRows) -> int:
        """Starts to copy them there; the address of their head."""
        size = _parts(csr)[2]
        address, to = self.room(turn, size)
        _lay(csr, address, to)
        return self.copy(turn, size)


# lists of rows -----------------------------------------------------------------------------------------------------------------


class FedList(_Fed):
    """Places for a list of rows that the host has made: a gradient that did not come from this device."""

    def put(self, turn: int, g: RowSparse) -> int:
        """Starts to copy it there; the address of its head."""
        rows, values = g.rows, g.values
        first = HEAD + rows.nbytes
        size = first + values.nbytes
        address, to = self.room(turn, size)
        to[:24].view(np.int64)[:] = len(rows), address + HEAD, address + first
        to[HEAD:first] = rows.view(np.uint8)
        to[first:size] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return self.copy(turn, size)


class DeviceRows(RowSparse):
    """A gradient that lists its rows and lies on a device; the host has its rows and values when somebody reads them.

    memory: of the plan that makes it. ahead: the device has newer ones than the host.
    """

    def __init__(self, device: Device, memory: Memory, dims: Sequence[int], dtype: Any):
        super().__init__(np.zeros(0), np.zeros((0, *dims[1:]), dtype), dims)
        self.device, self.memory, self.ahead = device, memory, True

    def bring(self) -> None:
        """Brings the host's rows and values up to date."""
        if not self.ahead:
            return
        with self.device.lock, self.device.active():
            count, *at = map(int, self.device.read(self.memory.address, (3,), np.int64))
            self._kept = (
                self.device.read(at[0], (count,), np.int64),
                self.device.read(at[1], (count, *self.shape[1:]), self.dtype),
            )
        self.head[:3] = count, self._kept[0].ctypes.data, self._kept[1].ctypes.data
        self.ahead = False

    def point_to(self, g: Any) -> None:
        """Becomes the list of another gradient."""
        d = self.device
        if not isinstance(g, DeviceRows) or g.device is not d:
            if not isinstance(g, RowSparse):
                array = np.asarray(g.asarray() if hasattr(g, "asarray") else g, self.dtype)
                g = RowSparse(np.arange(self.shape[0]), array.reshape(self.shape), self.shape)
            fed = FedList(d)
            with d.lock, d.active():
                fed.put(0, g)
                d.copies.synchronize()
            self._source = g = fed
        else:
            self._source = g
        source = g.memory[0] if isinstance(g, FedList) else g.memory
        with d.lock, d.active():
            d.cuda.memcpy_dtod_async(self.memory.address, source.address, HEAD, d.stream)
        self.ahead = True
