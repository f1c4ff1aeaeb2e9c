"""Plans of the CUDA engine: commands on one stream, captured as a graph when they come again with the same addresses."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np

from cogkit.engine.cuda import kernels  # noqa: F401  (fills the table)
from cogkit.engine.cuda.device import Device, Memory, OutOfMemory, Resident, current, device
from cogkit.engine.cuda.driver import Commands, Graph
from cogkit.engine.cuda.lists import DeviceRows, FedCsr, FedList, Rooms, put_csr, read_csr
from cogkit.engine.cuda.table import TABLE, choose_formats
from cogkit.engine.plan import Binding, Plan
from cogkit.engine.precision import current_product_precision, product_precision
from cogkit.engine.watch import Running, observers, run_watched
from cogkit.lowering.ir import Graph as Lowered
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN, root_of
from cogkit.lowering.sparse import ROWS
from cogkit.residence import bring, elsewhere
from cogkit.variables import aligned_empty

__all__ = ["CudaPlan"]

GRAPHS = 4  # captured graphs of one binding that are kept: feeds lie in one of two places
NUMBERS = 500  # numbers that go into the header of a run
_FIRST = 3  # words of the header before them


class Program:
    """The commands of a binding. What has run once with the same addresses is captured and replayed from then on."""

    def __init__(self, calls: list[Any]):
        self.calls = calls
        self.commands = Commands([i for c in calls for i in c.items])
        self.checks = [check for c in calls for check in c.checks]
        self.graphs: OrderedDict[tuple, Graph | None] = OrderedDict()

    def graph(self, key: tuple) -> Graph | None:
        """The captured commands with these addresses, where there is such a graph."""
        found = self.graphs.get(key)
        if found is not None:
            self.graphs.move_to_end(key)
        return found

    def run(self, stream: int, key: tuple) -> None:
        """Puts all on a stream, and captures what comes for the second time. key: the addresses that the commands have been given."""
        if not self.commands.capturable or not len(self.commands) or key not in self.graphs:
            # kernels are loaded, libraries choose their ways: not while a graph is captured
            self.commands.run(stream)
            if self.commands.capturable:
                self._keep(key, None)
            return
        made = Graph(self.commands, stream)
        self._keep(key, made)
        made.run(stream)

    def _keep(self, key: tuple, graph: Graph | None) -> None:
        self.graphs.pop(key, None)
        while len(self.graphs) >= GRAPHS:
            self.graphs.popitem(last=False)
        self.graphs[key] = graph

    def run_one(self, number: int, seed: int, step: int, sample: int) -> None:
        """Runs one call and waits for it; what random numbers depend on lies on the device already."""
        d = current()
        Commands(self.calls[number].items).run(d.stream_handle)
        d.finish()

    def profile(self, seed: int, step: int, sample: int, clock: Any = time.perf_counter) -> list[float]:
        """Runs all calls one by one and gives the seconds of each, its launch included."""
        found = []
        for i in range(len(self.calls)):
            start = clock()
            self.run_one(i, seed, step, sample)
            found.append(clock() - start)
        return found


class _Feed:
    """Two places on the device for what is fed, by turns: one is filled while kernels read the other."""

    def __init__(self, owner: Device):
        self.device = owner
        self.host: list[np.ndarray] = [np.empty(0, np.uint8)] * 2
        self.memory = [Memory(None, 0)] * 2

    def put(self, turn: int, array: np.ndarray) -> int:
        """Starts to copy an array there; its address."""
        n = array.nbytes
        if self.memory[turn].size < n:
            self.memory[turn], self.host[turn] = self.device.alloc(n), self.device.pinned(n)
        if n:
            pinned = self.host[turn][:n]
            pinned[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.device.cuda.memcpy_htod_async(self.memory[turn].address, pinned, self.device.copies)
        return self.memory[turn].address


class CudaPlan(Plan):
    """Runs a lowered graph on a GPU."""

    table = TABLE
    choose_formats = staticmethod(choose_formats)
    executor = Program

    def __init__(self, graph: Lowered, number: int = 0):
        self.device, self.precision = device(number), current_product_precision()
        with self.device.active():
            super().__init__(graph)
        small = [v for v in self.variables if v.shape == () and v not in self.written][:NUMBERS]
        self.numbers = {v: i for i, v in enumerate(small)}
        self.large = [v for v in self.variables if v not in self.numbers and not v.is_sparse and not v.row_sparse]
        self.words = np.zeros(_FIRST + len(small), np.uint64)
        self.fed = {b.leaf: FedCsr(self.device) if b.value.sparse else _Feed(self.device) for b in self.feeds}
        self.turn = 0
        with self.device.active():
            # when the feeds of a turn are there, and when kernels have done with them
            self.copied, self.used = ([self.device.event() for _ in range(2)] for _ in range(2))
        self.residents: list[tuple] = []  # (variable, its array, the copy on the device)
        self.residing: tuple = ()  # where these are
        self.changed: list[Resident] = []  # those of them that a run writes
        self.laid: dict[int, np.ndarray] = {}  # the host's arrays of outputs without rows
        # sparse values: room for entries, constants, lists of rows that it reads and where they lie, lists that it gives
        self.rooms = Rooms(graph)
        self.spaces += list(self.rooms.sizes)
        self.csr: dict[Any, Memory] = {}
        self.lists: dict[Any, Any] = {v: None for v in self.variables if v.row_sparse}
        self.lists_at: dict[Any, int] = {}
        self.given: dict[tuple, DeviceRows] = {}

    def empty(self, size: int) -> Memory:
        """Memory on the device."""
        return self.device.alloc(size)

    def address(self, memory: Memory) -> int:
        """Its address."""
        return memory.address

    def peek(self, address: int, size: int) -> np.ndarray:
        """A copy of the bytes at an address."""
        return self.device.read(address, (size,), np.uint8)

    def place(self, variable: Any) -> int:
        """Where a parameter or constant lies on the device."""
        if variable in self.numbers:
            return self.device.header.address + 8 * (_FIRST + self.numbers[variable])
        if variable in self.lists_at:
            return self.lists_at[variable]
        if variable.is_sparse:
            if variable not in self.csr:
                self.csr[variable] = put_csr(self.device, variable.place)
            return self.csr[variable].address
        return self.device.resident(variable.place).memory.address

    def binding(self, sizes: dict) -> Binding:
        """The calls for these numbers of rows, with room for the entries that were fed so far."""
        sizes = {**sizes, **self.rooms.sizes}
        try:
            with self.device.active(), product_precision(*self.precision):  # `explain` asks too
                return super().binding(sizes)
        except OutOfMemory as e:
            held = sum(s.bytes(sizes) for s in self.buffers if s.kind != "arena")
            most = sum(s.bytes(sizes) for s in self.buffers if s.kind == "arena")
            raise OutOfMemory(
                f"{e}; this plan wants {held / 2**20:,.1f} MiB for what is fed, kept and given and at most {most / 2**20:,.1f} for the rest: "
                "use a smaller minibatch"
            ) from None

    def run(self, feeds: dict[Any, np.ndarray], sizes: dict, run: Any) -> list[np.ndarray]:
        """The arrays of the graph's outputs. feeds: variable -> array; sizes: row space -> rows; run: seed, step, sample."""
        d = self.device
        with self.lock, d.lock, d.active(), d.told():
            self.rooms.fit(feeds, sizes)
            b = self.binding(sizes)
            for call in self.users:
                call.begin()
            early = [self.fetch(b, self.graph.outputs[i], feeds, sizes) for i in self.early]
            self._settle()
            addresses = self._upload(feeds)
            self._find_lists()
            self._begin(run)
            places = (*self.residing, *self.lists_at.values())
            key = (self.arena.address, *addresses.values(), *places)
            graph = None if observers else b.executor.graph(key)
            if graph is not None:
                graph.run(d.stream_handle)
            else:
                if places != b.places:
                    b.arena, b.places = None, places  # all addresses are given anew
                b.bind(self.arena, addresses)
                if observers:
                    run_watched(Running(self, b, sizes, run))
                else:
                    b.executor.run(d.stream_handle, key)
            for r in self.changed:
                r.ahead = True
            if addresses:
                self.used[self.turn].record(d.stream)
            found = [self.fetch(b, v, feeds, sizes) for v in self.graph.outputs[: self.kept]]
            found += self._kept(b, feeds, sizes)
            errors = [e for e in (check.check() for check in b.executor.checks) if e is not None]
            if errors:
                raise errors[0]
            for i, array in zip(self.early, early, strict=True):
                found[i] = array
            return found

    def _settle(self) -> None:
        """Brings the variables on the device up to date; finds them anew where they have other arrays than before, or another device had them."""
        for v, array, r in self.residents:
            if v._data is not array or elsewhere.get(id(array)) is not r:
                self._find()
                break
        else:
            if len(self.residents) != len(self.large):
                self._find()
        for v, _, r in self.residents:
            if r.behind:
                for lag in v.lags:  # rows that the CPU engine has left for later
                    lag.settle()
                r.settle()

    def _find(self) -> None:
        found = {v: self.device.resident(v.place) for v in self.large}
        self.residents = [(v, v.place, r) for v, r in found.items()]
        self.residing = tuple(r.memory.address for r in found.values())
        self.changed = [found[v] for v in self.written]

    def _upload(self, feeds: dict) -> dict[Any, int]:
        """Where what is fed will lie: variable -> address."""
        if not self.fed:
            return {}
        d = self.device
        self.turn ^= 1
        self.used[self.turn].synchronize()
        addresses = {v: feed.put(self.turn, feeds[v]) for v, feed in self.fed.items()}
        copied = self.copied[self.turn]
        copied.record(d.copies)
        d.stream.wait_for_event(copied)
        return addresses

    def _find_lists(self) -> None:
        """Where the lists of rows lie that it reads: on this device, or copied there."""
        found = {}
        for v, fed in self.lists.items():
            g = v.place
            if isinstance(g, DeviceRows) and g.device is self.device:
                found[v] = g.memory.address
                continue
            if fed is None:
                fed = self.lists[v] = FedList(self.device)
            self.device.stream.synchronize()
            found[v] = fed.put(0, g)
            self.device.copies.synchronize()
        self.lists_at = found

    def _begin(self, run: Any) -> None:
        w = self.words
        w[0], w[1], w[2] = (int(x) & 0xFFFFFFFFFFFFFFFF for x in (run.seed, run.step, run.sample))
        for v, i in self.numbers.items():
            x = bring(v.place)
            w[_FIRST + i : _FIRST + i + 1].view(x.dtype)[0] = x
        self.device.begin(w)

    def _kept(self, b: Binding, feeds: dict, sizes: dict) -> list[np.ndarray]:
        if b.kept is None or not self.all_outputs:
            b.kept = [
                self.lay(b, v, sizes) if self.all_outputs else self.fetch(b, v, feeds, sizes)
                for v in self.graph.outputs[self.kept :]
            ]
        if self.all_outputs:
            for array in b.kept:
                if isinstance(array, DeviceRows):
                    array.ahead = True
                    continue
                r = self.device.resident(array)
                r.ahead, r.behind = True, False
                if not self.leave:
                    r.bring(False)
        return list(b.kept)

    def lay(self, b: Binding, v: Value, sizes: dict) -> Any:
        """The host's array for an output that stays on the device."""
        s = self.stores[root_of(v), PLAIN]
        if v.sparse == ROWS:
            memory = b.outputs[id(s)]
            key = id(v), memory.address
            if key not in self.given:
                self.given[key] = DeviceRows(self.device, memory, v.type.shape, v.type.dtype)
            return self.given[key]
        if id(v) in self.laid:
            return self.laid[id(v)]
        array = aligned_empty(((sizes[v.type.axes],) if v.type.axes else ()) + v.type.shape, v.type.dtype)
        Resident(self.device, array, b.outputs[id(s)])
        if not v.type.axes:
            self.laid[id(v)] = array
        return array

    def fetch(self, b: Binding, v: Value, feeds: dict, sizes: dict) -> Any:
        """A copy of an output."""
        s = self.stores[root_of(v), PLAIN]
        shape = ((sizes[v.type.axes],) if v.type.axes else ()) + v.type.shape
        if v.sparse == ROWS:
            return DeviceRows(self.device, b.outputs[id(s)], v.type.shape, v.type.dtype).copy()
        if v.sparse:
            if s.kind == "output":
                found = read_csr(self.device, b.outputs[id(s)], v.type.shape[-1], v.type.dtype)
            else:
                found = (feeds[s.leaf] if s.kind == "feed" else s.leaf.place).matrix()
            return found if len(shape) == 2 else found.toarray().reshape(shape)
        if s.kind == "feed":
            return feeds[s.leaf].reshape(shape).copy()
        if s.kind == "variable":
            return s.leaf.value.reshape(shape)
        return self.device.read(b.outputs[id(s)].address, shape, v.type.dtype)
