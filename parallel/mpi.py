"""The world of MPI ranks: exchanges over mpi4py's point-to-point messages, which a rank waits for with a limit.

A message's tag is made of the number and the name of its exchange, so that ranks in different ones do not take each other's data. Who has
waited for PATIENCE seconds tells all others where it stands: so the message of the one that gives up names which ranks are
elsewhere, and where, and which have not been heard of.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cogkit.engine.cpu.native import set_num_threads
from cogkit.errors import RankError
from cogkit.parallel.requests import Server, pack, unpack
from cogkit.parallel.world import Handler, Pending, World

__all__ = ["MpiWorld"]

TIMEOUT = 300.0  # seconds that a rank waits for another; COGKIT_TIMEOUT changes it
PATIENCE = 2.0  # seconds after which a waiting rank says where it is
SPIN = 2e-3  # seconds in which a waiting rank asks again at once
NAP = 1e-4  # seconds between two questions after that
LISTEN = 0.05  # seconds between two looks at what the others say
TAGS = 32768  # MPI promises as many
NAMES = 128  # of names that they tell apart


def _timeout() -> float:
    text = os.environ.get("COGKIT_TIMEOUT", "")
    try:
        value = float(text or TIMEOUT)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"COGKIT_TIMEOUT: expected seconds above 0, got {text!r}")
    return value


def _shown(arrays: Sequence[np.ndarray]) -> str:
    """Types and sizes, as messages name them."""
    sizes = sorted({(a.dtype.name, a.size) for a in arrays if a.size})
    return ", ".join(f"{name}[{n}]" for name, n in sizes[:3]) + (", ..." if len(sizes) > 3 else "")


class MpiWorld(World):
    """The ranks of MPI's world. launched: how many a launcher says it has started.

    Threads: each rank takes its share of the cores that ranks of its machine may use together, unless OMP_NUM_THREADS says another
    number. An uncaught exception ends all ranks, with its traceback. Raises RankError where mpi4py or its MPI does not serve.
    """

    def __init__(self, launched: int = 1):
        self.mpi = mpi = _import(launched)
        whole = mpi.COMM_WORLD
        if whole.size == 1 and launched > 1:
            name = mpi.Get_library_version().split("\n")[0].strip()
            raise RankError(
                f"parallel: expected the {launched} ranks that were launched, got one: mpi4py uses {name}, which another MPI's "
                f"mpiexec cannot start; launch with the mpiexec that belongs to it, or install mpi4py for the other"
            )
        self.rank, self.size = whole.rank, whole.size
        super().__init__()
        self.timeout = _timeout()
        self.exchanges, self.notices, self.calls, self.answers = (whole.Dup() for _ in range(4))
        self.asked = 0
        self.what = "nothing yet"  # the exchange that this rank is in, or the last one
        self.arrays: Sequence[np.ndarray] = ()  # of it
        self.heard: dict[int, dict[str, Any]] = {}
        self._telling: list[Any] = []  # notices on their way
        self._server: Server | None = None
        self._ended = False
        if self.size > 1:
            self._share_cores()
            sys.excepthook = self._die
            atexit.register(self._say_end)

    def clock(self) -> float:
        """Wall time."""
        return time.perf_counter()

    def _share_cores(self) -> None:
        """Threads for this rank: its cores, divided by the ranks of this machine that may run on them too."""
        node = self.mpi.COMM_WORLD.Split_type(self.mpi.COMM_TYPE_SHARED)
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        everyone = node.allgather(sorted(mine))
        rivals = sum(not mine.isdisjoint(other) for other in everyone)
        node.Free()
        if "OMP_NUM_THREADS" not in os.environ:
            set_num_threads(max(1, len(mine) // rivals))

    # the end -------------------------------------------------------------------------------------------------------

    def _die(self, kind: Any, error: Any, trace: Any) -> None:
        """Prints the traceback of an uncaught exception and ends all ranks."""
        text = "".join(traceback.format_exception(kind, error, trace))
        print(f"rank {self.rank} of {self.size} ends all:\n{text}", file=sys.stderr, flush=True)
        time.sleep(0.5)  # a launcher that is told to end all drops what it has not passed on yet
        self.mpi.COMM_WORLD.Abort(1)

    def _say_end(self) -> None:
        if not self._ended and not self.mpi.Is_finalized():
            self._ended = True
            if self._server is not None:
                self._server.end()
            self._tell({"ended": True})

    def finalize(self) -> None:
        """Ends MPI, once all ranks have come; nothing can be exchanged afterwards."""
        if not self.mpi.Is_finalized():
            self._say_end()
            sys.excepthook = sys.__excepthook__
            self.mpi.Finalize()

    # where each rank stands ----------------------------------------------------------------------------------------

    def _tell(self, more: dict[str, Any]) -> None:
        place = {"sequence": self.sequence, "what": self.what, "shape": _shown(self.arrays), "step": self.step, **more}
        data = np.frombuffer(json.dumps(place).encode(), np.uint8)
        self._telling = [(d, r) for d, r in self._telling if not r.Test()]
        for rank in range(self.size):
            if rank != self.rank:
                self._telling.append((data, self.notices.Isend(data, rank)))

    def _listen(self) -> None:
        status = self.mpi.Status()
        while self.notices.Iprobe(status=status):
            data = np.empty(status.count, np.uint8)
            self.notices.Recv(data, status.source)
            self.heard[status.source] = json.loads(data.tobytes())

    def place(self) -> str:
        """Where this rank is, for messages."""
        return self.place_of(self.sequence, self.what, self.arrays)

    def place_of(self, number: int, what: str, arrays: Sequence[np.ndarray]) -> str:
        """An exchange of this rank, for messages."""
        shape = f" of {shown}" if (shown := _shown(arrays)) else ""
        return f"rank {self.rank} in exchange {number} ({what}{shape}), last finished step {self.step}"

    def _check(self, missing: Sequence[int], exchange: bool) -> None:
        """Raises RankError where a missing rank has ended, or is in another exchange of the same number."""
        self._listen()
        for rank in missing:
            notice = self.heard.get(rank)
            if notice is None:
                continue
            there = f"exchange {notice['sequence']} ({notice['what']}), last finished step {notice['step']}"
            if notice.get("ended"):
                raise RankError(
                    f"{self.place()}: expected rank {rank} to come, got its end after {there}; its own output may say why"
                )
            if exchange and notice["sequence"] == self.sequence and notice["what"] != self.what:
                raise RankError(
                    f"{self.place()}: expected rank {rank} in the same exchange, got it in {there}; all ranks must train alike"
                )

    def _give_up(self, missing: Sequence[int]) -> None:
        heard = {r: n for r, n in sorted(self.heard.items()) if r in missing}
        silent = [r for r in missing if r not in heard] or list(missing)
        waiting = "".join(f"; rank {r} waits in exchange {n['sequence']} ({n['what']})" for r, n in heard.items())
        raise RankError(
            f"{self.place()}: expected all ranks within {self.timeout:g} s, got nothing from rank {', '.join(map(str, silent))}"
            f"{waiting}; it is stalled or starved of data, or needs longer: COGKIT_TIMEOUT=seconds"
        )

    def until(self, missing: Callable[[], Sequence[int]], exchange: bool = True) -> None:
        """Waits until `missing` names no rank."""
        begun = time.perf_counter()
        tell, listen = begun + min(PATIENCE, self.timeout / 2), begun + LISTEN
        while left := missing():
            if self.under_way:
                self.go_on()
            now = time.perf_counter()
            if now - begun < SPIN:
                os.sched_yield()
                continue
            if now > tell:
                self._tell({})
                tell = float("inf")
            if now > listen:
                self._check(left, exchange)
                listen = now + LISTEN
            if now - begun > self.timeout:
                self._give_up(left)
            time.sleep(NAP)

    # exchanges -----------------------------------------------------------------------------------------------------

    def start_exchange(
        self, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str, number: int | None = None
    ) -> Pending:
        """See `World.start_exchange`."""
        if number is None:
            number = self.reserve()
            self.what, self.arrays = what, [*pieces, *into]
        return _Exchange(self, pieces, into, what, number)

    # requests ------------------------------------------------------------------------------------------------------

    def serve(self, handler: Handler, order: Sequence[int] | None = None) -> Callable[[], None]:
        """See `World.serve`; a thread answers."""
        if self._server is not None:
            self._server.end()
        self.handler = handler
        self._server = Server(self, handler, order)
        return self._server.end

    def request(self, arrays: Sequence[Sequence[np.ndarray]], into: Sequence[Sequence[np.ndarray]], what: str) -> None:
        """See `World.request`."""
        self.what, self.arrays = what, [a for one in arrays for a in one]
        self.asked += 1
        tag = self.asked % TAGS
        ranks = [(self.rank + i) % self.size for i in range(self.size)]
        data = [pack(arrays[r]) for r in ranks]
        sends = [(r, self.calls.Isend(d, r, tag)) for r, d in zip(ranks, data, strict=True)]
        answers = [np.empty(pack(into[r]).nbytes, np.uint8) for r in ranks]
        takes = [(r, self.answers.Irecv(a, r, tag)) for r, a in zip(ranks, answers, strict=True)]
        self.meter.bytes += sum(d.nbytes + a.nbytes for r, d, a in zip(ranks, data, answers, strict=True) if r != self.rank)
        left = [*takes, *sends]

        def missing() -> list[int]:
            left[:] = [(r, request) for r, request in left if not request.Test()]
            return [r for r, _ in left]

        self.until(missing, exchange=False)
        for r, answer in zip(ranks, answers, strict=True):
            for target, got in zip(into[r], unpack(answer), strict=True):
                target.reshape(-1)[...] = got


def _import(launched: int) -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise RankError(
            f"parallel: expected mpi4py where {launched} ranks were launched, got '{error}'; pip install mpi4py mpich"
        ) from None
    except RuntimeError as error:  # mpi4py is there, but no library of MPI
        raise RankError(
            f"parallel: expected an MPI library for mpi4py, got '{error}'; pip install mpich, or another MPI"
        ) from None
    return MPI


class _Exchange(Pending):
    """Messages to and from all other ranks, told apart by one tag."""

    def __init__(self, world: MpiWorld, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str, number: int):
        self.world = world
        self.number, self.what, self.arrays = number, what, [*pieces, *into]
        tag = number % (TAGS // NAMES) * NAMES + zlib.crc32(what.encode()) % NAMES
        others = [(world.rank + i) % world.size for i in range(1, world.size)]  # each begins with its neighbour
        byte = world.mpi.BYTE
        self.takes = [(r, into[r].nbytes, world.exchanges.Irecv([into[r], byte], r, tag)) for r in others if into[r].size]
        self.sends = [(r, world.exchanges.Isend([pieces[r], byte], r, tag)) for r in others if pieces[r].size]
        self.status = world.mpi.Status()
        world.meter.bytes += sum(pieces[r].nbytes for r, _ in self.sends)

    def _came(self, take: tuple[int, int, Any]) -> bool:
        rank, size, request = take
        try:
            if not request.Test(self.status):
                return False
            found = self.status.count
        except self.world.mpi.Exception as error:  # more than there is room for
            found = error
        if found != size:
            place = self.world.place_of(self.number, self.what, self.arrays)
            raise RankError(
                f"{place}: expected {size} bytes from rank {rank}, got {found}; all ranks must train the same model alike"
            )
        return True

    def missing(self) -> list[int]:
        """Ranks whose messages have not come, then those that have not taken theirs."""
        self.takes = [take for take in self.takes if not self._came(take)]
        self.sends = [(r, request) for r, request in self.sends if not request.Test()]
        return [r for r, *_ in self.takes] or [r for r, _ in self.sends]

    def advance(self) -> bool:
        return not self.missing()

    def wait(self) -> None:
        self.world.until(self.missing)
