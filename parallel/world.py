"""Worlds: the ranks that train together, and how they exchange arrays.

A learner is written once against `World` and runs alone, on MPI ranks (`mpi`) and on virtual ranks in one process (`simulate`).
Every rank calls the same exchanges in the same order. Sums are taken in the order of ranks, so that they have the same bits on
every rank and in every world.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cogkit.errors import RankError
from cogkit.parallel.meter import Meter
from cogkit.variables import aligned_empty

__all__ = ["World", "cut", "current_world"]

SMALL = 1 << 15  # bytes in all below which every rank is sent everything at once: one latency instead of two
PAIR = 1 << 19  # bytes below which two ranks do so, who send as many bytes either way

Handler = Callable[[int, Sequence[np.ndarray]], Sequence[np.ndarray]]


def cut(n: int, parts: int) -> list[slice]:
    """n elements in contiguous parts, the first ones longer by one where it does not come out even."""
    least, more = divmod(n, parts)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(parts)]
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


class Pending(abc.ABC):
    """An exchange that has been started."""

    @abc.abstractmethod
    def advance(self) -> bool:
        """Does what can be done without waiting; whether it has ended on this rank."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Returns when it has ended on this rank. Raises RankError when another rank does not come."""


class World(abc.ABC):
    """One rank's view of the ranks that train together.

    `step` is what messages name as the last finished step: whoever trains keeps it. `what` names an exchange in messages.
    All exchanges raise RankError when a rank does not come, comes with another exchange or has ended.
    """

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.step = 0
        self.meter = Meter(self.clock)
        self.handler: Handler | None = None  # what `serve` was given last
        self.last: Any = None  # the learner that has exchanged something last
        self.sequence = 0  # number of the last exchange
        self.under_way: list[Pending] = []  # exchanges that go on while this rank waits for another
        self._lent: dict[tuple[int, np.dtype], list[np.ndarray]] = {}

    def borrow(self, n: int, dtype: np.dtype) -> np.ndarray:
        """An array of n elements of any values, to be given back with `lend`: fresh memory costs more than the sum of what is in it."""
        kept = self._lent.get((n, dtype))
        return kept.pop() if kept else aligned_empty((n,), dtype)

    def lend(self, array: np.ndarray) -> None:
        """Gives a borrowed array back."""
        self._lent.setdefault((array.size, array.dtype), []).append(array)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0

    # what a world must have ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def clock(self) -> float:
        """Seconds, from any beginning."""

    @abc.abstractmethod
    def start_exchange(
        self, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str, number: int | None = None
    ) -> Pending:
        """Sends piece r to rank r, and fills `into[r]` with what rank r sent; a rank's own entries are left alone.

        Contiguous arrays, whose sizes both sides know. Neither may be touched before `wait`. number: what `reserve` gave, for an exchange
        whose place among others is earlier than its start.
        """

    def go_on(self) -> None:
        """Has the exchanges that are under way advance; those that have ended leave."""
        self.under_way = [pending for pending in self.under_way if not pending.advance()]

    def reserve(self) -> int:
        """The number of an exchange that will be started later, on each rank when it can; ranks reserve in the same order."""
        self.sequence += 1
        return self.sequence

    @abc.abstractmethod
    def serve(self, handler: Handler, order: Sequence[int] | None = None) -> Callable[[], None]:
        """From now on requests to this rank are answered by `handler(rank, arrays) -> arrays`, one at a time, in order of arrival, also
        while this rank computes; the returned function ends it, as does another `serve`. The handler may not exchange anything itself.

        order: the ranks whose requests come first, one after another, as a recorded run had it; who comes early then waits.
        """

    @abc.abstractmethod
    def request(self, arrays: Sequence[Sequence[np.ndarray]], into: Sequence[Sequence[np.ndarray]], what: str) -> None:
        """Sends arrays[r] to the handler of each rank r, this one included, and fills into[r] with its answer."""

    def computing(self, samples: int, part: float) -> None:  # noqa: B027  (only virtual ranks must be told)
        """Says that this rank has computed so great a part of a minibatch of so many samples."""

    def computed(self, samples: int) -> None:  # noqa: B027  (only virtual ranks must be told)
        """Says that this rank has computed all of a minibatch of so many samples."""

    # what follows from that ----------------------------------------------------------------------------------------

    def all_gather(self, values: np.ndarray, what: str) -> np.ndarray:
        """The arrays of all ranks, of one shape and type, as (size, *shape)."""
        values = np.ascontiguousarray(values)
        out = np.empty((self.size, *values.shape), values.dtype)
        out[self.rank] = values
        self.start_exchange([values] * self.size, list(out), what).wait()
        return out

    def all_gather_bytes(self, data: bytes, what: str) -> list[bytes]:
        """What each rank gave, of any lengths, on every rank."""
        sizes = self.all_gather(np.array([len(data)]), what)[:, 0]
        mine = np.frombuffer(data, np.uint8)
        into = [mine if r == self.rank else np.empty(n, np.uint8) for r, n in enumerate(sizes)]
        self.share(into, what)
        return [a.tobytes() for a in into]

    def share(self, pieces: Sequence[np.ndarray], what: str) -> None:
        """Piece r is rank r's: fills in those of all others."""
        self.start_exchange([pieces[self.rank]] * self.size, pieces, what).wait()

    def start_all_reduce(self, buffer: np.ndarray, what: str) -> AllReduce:
        """Replaces a flat array by the sum over all ranks, in the order of ranks; it may not be touched before `wait`."""
        return AllReduce(self, buffer, what)

    def all_reduce(self, buffer: np.ndarray, what: str) -> None:
        """Replaces a flat, contiguous array by the sum over all ranks, in the order of ranks."""
        self.start_all_reduce(buffer, what).wait()

    def broadcast(self, buffer: np.ndarray, what: str, root: int = 0) -> None:
        """Replaces a flat, contiguous array by that of one rank: it is dealt out in parts, which all ranks then share."""
        stripes = [buffer[s] for s in cut(buffer.size, self.size)]
        nothing = buffer[:0]
        sends, takes = [nothing] * self.size, [nothing] * self.size
        if self.rank == root:
            sends = stripes
        else:
            takes[root] = stripes[self.rank]
        self.start_exchange(sends, takes, what).wait()
        self.share(stripes, what)

    def barrier(self, what: str = "barrier") -> None:
        """Returns when all ranks have come."""
        self.all_gather(np.zeros(1, np.uint8), what)

    def agree(self, error: BaseException | None, what: str) -> None:
        """Where one rank has an error all raise: that rank its own, the others a RankError that names it and says what it was."""
        told = b"" if error is None else f"{type(error).__name__}: {error}".encode(errors="replace")[:1000]
        found = self.all_gather_bytes(told, what)
        if error is not None:
            raise error
        for rank, text in enumerate(found):
            if text:
                raise RankError(f"{what}: expected all ranks to succeed, got on rank {rank} {text.decode(errors='replace')}")


class AllReduce(Pending):
    """Each rank sums one stripe of the array, in the order of ranks, and sends it to the others."""

    def __init__(self, world: World, buffer: np.ndarray, what: str):
        self.world, self.buffer, self.what = world, buffer, what
        self.small = buffer.nbytes * world.size <= SMALL or (world.size == 2 and buffer.nbytes <= PAIR)
        stripes = [slice(0, buffer.size)] * world.size if self.small else cut(buffer.size, world.size)
        self.pieces = [buffer[s] for s in stripes]
        self.mine = self.pieces[world.rank]
        self.given = [self.mine if r == world.rank else world.borrow(self.mine.size, buffer.dtype) for r in range(world.size)]
        self.started = world.start_exchange(self.pieces, self.given, what)
        self.summed = False
        self.second = 0 if self.small else world.reserve()  # the number of the exchange of sums

    def advance(self) -> bool:
        if not self.summed:
            if not self.started.advance():
                return False
            self._sum()
        return self.small or self.started.advance()

    def turn(self) -> None:
        """Waits for what others send, sums it and starts to send the sum."""
        if not self.summed:
            self.started.wait()
        if not self.summed:  # it may have advanced while it waited
            self._sum()

    def wait(self) -> None:
        self.turn()
        if not self.small:
            self.started.wait()

    def _sum(self) -> None:
        self.summed = True
        total, *rest = self.given
        if total.dtype == np.float16:  # rounded once
            total = total.astype(np.float32)
        for piece in rest:
            total += piece
        for r, piece in enumerate(self.given):
            if r != self.world.rank:
                self.world.lend(piece)
        if total is not self.mine:
            self.mine[...] = total
        if not self.small:
            self.started = self.world.start_exchange([self.mine] * self.world.size, self.pieces, self.what, self.second)


class Alone(World):
    """The world of a process that nobody launched beside others: every exchange is with itself."""

    def clock(self) -> float:
        """Wall time."""
        from time import perf_counter

        return perf_counter()

    def start_exchange(
        self, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str, number: int | None = None
    ) -> Pending:
        """Nothing to send."""
        return _Done()

    def all_gather_bytes(self, data: bytes, what: str) -> list[bytes]:
        """What this rank gave."""
        return [data]

    def serve(self, handler: Handler, order: Sequence[int] | None = None) -> Callable[[], None]:
        """Requests to itself are answered at once."""
        self.handler = handler
        return lambda: None

    def request(self, arrays: Sequence[Sequence[np.ndarray]], into: Sequence[Sequence[np.ndarray]], what: str) -> None:
        """Asks its own handler."""
        for target, answer in zip(into[0], self.handler(0, arrays[0]), strict=True):
            target[...] = answer


class _Done(Pending):
    def advance(self) -> bool:
        return True

    def wait(self) -> None:
        pass


# which world ---------------------------------------------------------------------------------------------------------------

_here: contextvars.ContextVar[World | None] = contextvars.ContextVar("world", default=None)
_process: World | None = None

# what launchers of MPI tell the processes that they start, as ranks and their number
LAUNCHED = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")


def _launched() -> int:
    """The number of ranks that a launcher of MPI says it has started; 1 where there was none."""
    return max([int(os.environ[k]) for k in LAUNCHED if os.environ.get(k, "").isdigit()], default=1)


def current_world() -> World:
    """The world of the caller: of the virtual rank that runs it, else of the process, found when it is first asked for.

    A process that no `mpiexec` has started is alone and needs no MPI. Raises RankError where a launcher has started several but
    mpi4py is missing or was built for another MPI: each would train by itself.
    """
    global _process
    here = _here.get()
    if here is not None:
        return here
    if _process is None:
        launched = _launched()
        if launched > 1 or "mpi4py.MPI" in sys.modules:
            from cogkit.parallel.mpi import MpiWorld

            _process = MpiWorld(launched)
        else:
            _process = Alone()
    return _process


@contextlib.contextmanager
def enter_world(world: World) -> Iterator[World]:
    """Makes `world` the current one in a block."""
    token = _here.set(world)
    try:
        yield world
    finally:
        _here.reset(token)


def leave_world() -> Any:
    """Forgets the world of the process and returns it; whoever finalises it does."""
    global _process
    left, _process = _process, Alone()
    return left
