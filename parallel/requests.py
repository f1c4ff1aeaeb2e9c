"""Requests between MPI ranks: a thread of each rank answers them while the rank computes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.errors import RankError

if TYPE_CHECKING:
    from cogkit.parallel.mpi import MpiWorld
    from cogkit.parallel.world import Handler

__all__ = ["Server", "pack", "unpack"]

NAP = 2e-4  # seconds between two looks for requests
TYPES = [np.dtype(name) for name in ("u1", "f4", "f8", "i8", "f2")]


def pack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays as one of bytes: their number, (type, size) of each, then the data, each from a multiple of 8 bytes on."""
    head = np.array([len(arrays), *(n for a in arrays for n in (TYPES.index(a.dtype), a.size))], np.int64)
    out = np.zeros(head.nbytes + sum(-(-a.nbytes // 8) * 8 for a in arrays), np.uint8)
    out[: head.nbytes] = head.view(np.uint8)
    at = head.nbytes
    for a in arrays:
        out[at : at + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        at += -(-a.nbytes // 8) * 8
    return out


def unpack(data: np.ndarray) -> list[np.ndarray]:
    """The flat arrays that `pack` was given, as views."""
    n = int(data[:8].view(np.int64)[0])
    head = data[8 : 8 + 16 * n].view(np.int64).reshape(n, 2)
    out, at = [], 8 + 16 * n
    for kind, size in head:
        dtype = TYPES[kind]
        out.append(data[at : at + size * dtype.itemsize].view(dtype))
        at += -(-size * dtype.itemsize // 8) * 8
    return out


class Server:
    """Answers requests in order of arrival, or with `order` in that order of ranks: who comes early then waits."""

    def __init__(self, world: MpiWorld, handler: Handler, order: Sequence[int] | None):
        if world.mpi.Query_thread() < world.mpi.THREAD_MULTIPLE:
            raise RankError(
                "asgd: expected an MPI that several threads may call, got one that does not allow it; take another (the mpich wheel does)"
            )
        self.world, self.handler = world, handler
        self.order = None if order is None else list(order)
        self.over = threading.Event()
        self.cores = get_num_threads()  # of the caller, which a new thread does not have of itself
        self.thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Ends the thread; requests that come later are not answered."""
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            set_num_threads(self.cores)
            self._answer_all()
        except BaseException:
            self.world._die(*sys.exc_info())

    def _answer_all(self) -> None:
        calls, answers = self.world.calls, self.world.answers
        status = self.world.mpi.Status()
        waiting: dict[int, tuple[int, np.ndarray]] = {}  # rank -> tag and data of what it asks; it asks one thing at a time
        sends: list[tuple[np.ndarray, Any]] = []
        done = 0
        while not self.over.is_set():
            while calls.Iprobe(status=status):
                data = np.empty(status.count, np.uint8)
                rank, tag = status.source, status.tag
                calls.Recv(data, rank, tag)
                waiting[rank] = tag, data
            ready = next(iter(waiting), None)
            if self.order is not None and done < len(self.order):
                ready = self.order[done] if self.order[done] in waiting else None
            if ready is None:
                time.sleep(NAP)
                continue
            tag, data = waiting.pop(ready)
            answer = pack(self.handler(ready, unpack(data)))
            sends = [(a, r) for a, r in sends if not r.Test()]
            sends.append((answer, answers.Isend(answer, ready, tag)))
            done += 1
        for _, request in sends:
            request.Wait()
