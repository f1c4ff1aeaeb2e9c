"""Batches made ahead on a thread, in buffers that are used again."""

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
        probe = [np.empty(1, np.uint8)]
        self._idle = [sys.getrefcount(b) for b in probe][0]  # references of a buffer that is in the list alone

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape, 64-byte aligned, its contents undefined."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        found = None
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


class _Shared:
    """What the thread sees: no reference back to the source, so that the source can be collected."""

    def __init__(self, make: Callable[[Any], tuple[Any, Any]], depth: int):
        self.make, self.depth = make, depth
        self.changed = threading.Condition()
        self.ready: deque[tuple[Any, Any, BaseException | None]] = deque()  # (batch, key after it, error), in order
        self.head: Any = None  # key of the first batch of this generation that was not handed out
        self.next: Any = None  # key to make next; None: nothing
        self.generation = 0  # counts up when what was made ahead is thrown away
        self.stopped = False
        self.thread: threading.Thread | None = None
        self.process = os.getpid()

    def run(self) -> None:
        while True:
            with self.changed:
                while not self.stopped and (self.next is None or len(self.ready) >= self.depth):
                    self.changed.wait()
                if self.stopped:
                    return
                key, generation = self.next, self.generation
            batch, after, error = None, None, None
            try:
                batch, after = self.make(key)
            except BaseException as e:
                error = e
            with self.changed:
                if generation == self.generation and not self.stopped:
                    self.ready.append((batch, after, error))
                    self.next = after
                    self.changed.notify_all()
            del batch, error

    def stop(self) -> None:
        if self.process != os.getpid():  # a forked child has neither the thread nor a sound lock
            return
        with self.changed:
            self.stopped = True
            self.ready.clear()
            self.changed.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):
                self.thread.join(timeout=10)


class Prefetcher:
    """`get(key)` gives make(key)'s batch; make(key) -> (batch, key that comes next or None) runs ahead on a thread.

    A key that was not foreseen (the minibatch size changed, the position was set) throws away what was made ahead. What make
    raises, get raises, for that key; the next get tries again. `wait_seconds`: time that get spent waiting.
    """

    def __init__(self, make: Callable[[Any], tuple[Any, Any]], depth: int):
        self._make, self._depth = make, depth
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
                s.ready.clear()
                s.head = s.next = key
            if s.thread is None:
                s.thread = threading.Thread(target=s.run, name="cogkit-prefetch", daemon=True)
                s.thread.start()
            s.changed.notify_all()
            while not s.ready and not s.stopped:
                s.changed.wait()
            if s.stopped:
                raise ValueError("minibatch source: expected an open source, got one that was closed")
            batch, s.head, error = s.ready.popleft()
            s.changed.notify_all()
        self.wait_seconds += time.perf_counter() - began
        if error is not None:
            raise error
        return batch

    def close(self) -> None:
        """Stops the thread and waits for it."""
        self._finalizer()
