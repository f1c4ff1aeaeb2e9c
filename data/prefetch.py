"""Batches made ahead on threads, in buffers that are used again."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Prefetcher", "Ring"]

ALIGN = 64


class Ring:
    """Aligned arrays over buffers that are used again once nobody holds an array on them (so an array may be kept)."""

    def __init__(self, keep: int = 16):
        self._buffers: list[np.ndarray] = []
        self._keep = keep
        self._taking = threading.Lock()
        probe = [np.empty(1, np.uint8)]
        self._idle = [sys.getrefcount(b) for b in probe][0]  # references of a buffer that is in the list alone

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape, 64-byte aligned, its contents undefined."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        found = None
        with self._taking:
            for b in self._buffers:
                if size + ALIGN <= b.nbytes <= 2 * size + 4 * ALIGN and sys.getrefcount(b) == self._idle:
                    found = b
                    break
            if found is None:
                found = np.empty(size + ALIGN, np.uint8)
                self._buffers.append(found)
                del self._buffers[: -self._keep]
        start = -found.ctypes.data % ALIGN
        return found[start : start + size].view(dtype).reshape(shape)


class _Slot:
    """A batch that is being made: it, the key after it, and what making it raised."""

    def __init__(self) -> None:
        self.done = False
        self.batch: Any = None
        self.after: Any = None
        self.error: BaseException | None = None


class _Shared:
    """What the threads see: no reference back to the source, so that the source can be collected."""

    def __init__(self, make: Callable[[Any], tuple[Any, Any]], depth: int):
        self.make, self.depth = make, depth
        self.changed = threading.Condition()
        self.turn = threading.Lock()  # held by the one that calls `make`
        self.slots: deque[_Slot] = deque()  # of this generation, in order, not handed out yet
        self.head: Any = None  # key of the first batch of this generation that was not handed out
        self.next: Any = None  # key to make next; None: nothing
        self.generation = 0  # counts up when what was made ahead is thrown away
        self.stopped = False
        self.threads: list[threading.Thread] = []
        self.process = os.getpid()

    def run(self) -> None:
        while True:
            slot = _Slot()
            with self.turn:
                with self.changed:
                    while not self.stopped and (self.next is None or len(self.slots) >= self.depth):
                        self.changed.wait()
                    if self.stopped:
                        return
                    key, generation = self.next, self.generation
                    self.slots.append(slot)
                try:
                    slot.batch, slot.after = self.make(key)
                except BaseException as e:
                    slot.error = e
                with self.changed:
                    if generation == self.generation:
                        self.next = slot.after
            if callable(slot.batch):
                try:
                    slot.batch = slot.batch()
                except BaseException as e:
                    slot.batch, slot.error = None, e
            with self.changed:
                slot.done = True
                if slot.error is not None and generation == self.generation:
                    self.next = None  # nothing is made beyond a fault
                self.changed.notify_all()

    def stop(self) -> None:
        if self.process != os.getpid():  # a forked child has neither the threads nor a sound lock
            return
        with self.changed:
            self.stopped = True
            self.slots.clear()
            self.changed.notify_all()
        for thread in self.threads:
            if thread is not threading.current_thread():
                with contextlib.suppress(RuntimeError):
                    thread.join(timeout=10)


class Prefetcher:
    """`get(key)` gives make(key)'s batch; make(key) -> (batch, key that comes next or None) runs ahead on threads.

    `make` is called by one thread at a time, in order. Instead of a batch it may give a function that makes it: `workers` such
    functions run at once. A key that was not foreseen (the minibatch size changed, the position was set) throws away what was
    made ahead. What make raises, get raises, for that key; the next get tries again. `wait_seconds`: time that get spent waiting.
    """

    def __init__(self, make: Callable[[Any], tuple[Any, Any]], depth: int, workers: int = 1):
        self._make, self._depth, self._workers = make, max(depth, workers), workers
        self.wait_seconds = 0.0
        self._start()

    def _start(self) -> None:
        self._shared = _Shared(self._make, self._depth)
        self._finalizer = weakref.finalize(self, self._shared.stop)

    def get(self, key: Any) -> Any:
        """The batch of `key`; raises what making it raised."""
        if self._shared.process != os.getpid():
            self._finalizer.detach()
            self._start()
        s = self._shared
        began = time.perf_counter()
        with s.changed:
            if s.head != key:
                s.generation += 1
                s.slots.clear()
                s.head = s.next = key
            while len(s.threads) < self._workers:
                s.threads.append(threading.Thread(target=s.run, name="cogkit-prefetch", daemon=True))
                s.threads[-1].start()
            s.changed.notify_all()
            while not s.stopped and not (s.slots and s.slots[0].done):
                s.changed.wait()
            if s.stopped:
                raise ValueError("minibatch source: expected an open source, got one that was closed")
            slot = s.slots.popleft()
            s.head = None if slot.error is not None else slot.after
            s.changed.notify_all()
        self.wait_seconds += time.perf_counter() - began
        if slot.error is not None:
            raise slot.error
        return slot.batch

    def close(self) -> None:
        """Stops the threads and waits for them."""
        self._finalizer()
