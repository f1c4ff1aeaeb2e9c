"""The executor: runs the instructions of a bound plan in order, without the GIL, and places buffers in one arena."""

import time
from operator import itemgetter

from libc.stdint cimport int64_t, uint64_t
from libcpp.vector cimport vector

__all__ = ["Executor", "place_buffers"]


cdef extern from "kernel.h" nogil:
    ctypedef struct cg_context:
        uint64_t seed
        int64_t step
        int64_t sample
    ctypedef struct cg_call
    ctypedef struct cg_call:
        void (*run)(const cg_call *, const cg_context *) noexcept nogil
        void *state
        void **buf


cdef class Executor:
    """Runs calls in order. calls: objects with an `address` of a cg_call; they are kept alive here."""

    cdef vector[const cg_call *] calls
    cdef object keep
    cdef list checked  # (calls up to and with it, its check) of those that may fail

    def __init__(self, calls):
        self.keep = list(calls)
        self.checked = [(i + 1, c.check) for i, c in enumerate(self.keep) if hasattr(c, "check")]
        for c in self.keep:
            self.calls.push_back(<const cg_call *> <size_t> c.address)

    def run(self, uint64_t seed, int64_t step, int64_t sample, told=()):
        """Runs them all; raises what a user's function raises, without running what follows.

        told: pairs (calls, what is called when so many are done).
        """
        cdef cg_context context
        cdef size_t i, begin = 0, end, n = self.calls.size()
        context.seed, context.step, context.sample = seed, step, sample
        for last, tell in sorted([*self.checked, *told], key=itemgetter(0)) if told else self.checked:
            end = last
            with nogil:
                for i in range(begin, end):
                    self.calls[i].run(self.calls[i], &context)
            tell()
            begin = end
        with nogil:
            for i in range(begin, n):
                self.calls[i].run(self.calls[i], &context)

    def run_one(self, size_t i, uint64_t seed, int64_t step, int64_t sample):
        """Runs one of them."""
        cdef cg_context context
        context.seed, context.step, context.sample = seed, step, sample
        with nogil:
            self.calls[i].run(self.calls[i], &context)
        if hasattr(self.keep[i], "check"):
            self.keep[i].check()

    def profile(self, uint64_t seed, int64_t step, int64_t sample, clock=time.perf_counter):
        """Runs them all and gives the seconds of each, by a clock: wall time, or `time.process_time` on a busy machine."""
        cdef cg_context context
        cdef size_t i
        context.seed, context.step, context.sample = seed, step, sample
        out = []
        for i in range(self.calls.size()):
            start = clock()
            with nogil:
                self.calls[i].run(self.calls[i], &context)
            out.append(clock() - start)
        return out


def place_buffers(list sizes, list first, list last, int64_t align=64):
    """Offsets in one arena, largest first, each at the lowest place that is free while it lives; (offsets, bytes)."""
    cdef int64_t n = len(sizes), i, j, at, peak = 0, m, size
    cdef vector[int64_t] s, f, l, offset, placed
    for i in range(n):
        s.push_back((<int64_t> sizes[i] + align - 1) // align * align)
        f.push_back(first[i])
        l.push_back(last[i])
        offset.push_back(0)
    for i in sorted(range(n), key=lambda k: (-sizes[k], first[k])):
        size = s[i]
        if size == 0:
            continue
        at = 0
        m = <int64_t> placed.size()
        # `placed` is sorted by offset: the first gap that is large enough is the lowest
        for j in range(m):
            if l[placed[j]] < f[i] or l[i] < f[placed[j]]:
                continue
            if offset[placed[j]] - at >= size:
                break
            at = max(at, offset[placed[j]] + s[placed[j]])
        offset[i] = at
        peak = max(peak, at + size)
        j = 0
        while j < m and offset[placed[j]] <= at:
            j += 1
        placed.insert(placed.begin() + j, i)
    return [offset[i] for i in range(n)], peak
