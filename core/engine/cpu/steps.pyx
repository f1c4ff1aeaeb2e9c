# sources: steps.cpp
"""Kernels that know the steps of sequences: rows moved by a table, numbers a row, reductions over steps, and loops over steps.

A loop runs the calls of its step body once a step, at the rows of that step: a buffer of a call is
`base + offset[t] * row_bytes`, row_bytes being 0 for what is the same at every step.
"""
include "kernel.pxi"

import numpy as np

__all__ = ["AddRows", "FoldSteps", "Loop", "MoveRows", "RowValues"]


cdef extern from "steps.h" namespace "cg":
    Kernel *make_move_rows(int64_t rows, int64_t row_bytes, const int64_t *index) except +
    Kernel *make_add_rows(int64_t rows, int64_t target_rows, int64_t width, const int64_t *index, string dtype) except +
    Kernel *make_row_values(int64_t rows, int64_t width, const double *values, string dtype) except +
    Kernel *make_fold_steps(string kind, int64_t steps, int64_t sequences, const int64_t *alive, const int64_t *offset,
                            const int64_t *order, int64_t width, string dtype) except +
    cdef cppclass LoopKernel "cg::LoopKernel"(Kernel):
        LoopKernel(int buffers, vector[int64_t] places, int64_t scratch) except +
        void add_before(const cg_call *call) except +
        void add_carry(int source, int target, int64_t source_bytes, int64_t target_bytes, int64_t shift,
                       int64_t row_bytes) except +
        void begin_program(int64_t rows) except +
        void add_call(const cg_call *call, vector[int] bases, vector[int64_t] row_bytes, vector[int64_t] offsets) except +
        void end_program(int64_t rows) except +
        void set_layout(vector[int64_t] alive, vector[int64_t] offset, cbool forward) except +
        void *base(const cg_call *call, int b)
        void *last(const cg_call *call)


cdef const int64_t *address(array):
    return <const int64_t *><size_t>array.ctypes.data


def whole(array):
    """The numbers as a contiguous int64 array."""
    return np.ascontiguousarray(array, np.int64)


cdef class MoveRows(BoundKernel):
    """y[r] = x[index[r]], or 0 where index[r] is -1, rows of `row_bytes` bytes; buffers x, y."""
    cdef object index

    def __init__(self, index, row_bytes):
        self.index = whole(index)
        self.own(make_move_rows(len(self.index), row_bytes, address(self.index)))


cdef class AddRows(BoundKernel):
    """y[index[r]] += x[r] onto zeros, in the order of r, where index[r] is not -1; rows of `width` elements; buffers x, y."""
    cdef object index

    def __init__(self, index, target_rows, width, dtype):
        self.index = whole(index)
        self.own(make_add_rows(len(self.index), target_rows, width, address(self.index), text(dtype)))


cdef class RowValues(BoundKernel):
    """y[r, :] = values[r], rows of `width` elements; buffer y."""
    def __init__(self, values, width, dtype):
        kept = np.ascontiguousarray(values, np.float64)
        self.own(make_row_values(len(kept), width, <const double *><size_t>kept.ctypes.data, text(dtype)))


cdef class FoldSteps(BoundKernel):
    """y[order[k]] = sum, max or min over t of x[offset[t] + k], k < alive[t], rows of `width` elements; buffers x, y.

    Steps are added up in order; a sequence without steps gives 0.
    """
    cdef object kept

    def __init__(self, kind, alive, offset, order, width, dtype):
        self.kept = [whole(alive), whole(offset), whole(order)]
        a, o, p = self.kept
        self.own(make_fold_steps(text(kind), len(a), len(p), address(a), address(o), address(p), width, text(dtype)))


cdef class Loop(BoundKernel):
    """The steps of a recurrence, one after the other; buffers: inputs and outputs of the loop, then scratch.

    `program(rows, calls)` says what runs at a step of so many rows: calls as (call, [(base, row_bytes, offset), ...]). Bases are
    the loop's buffers without scratch, then the places in scratch (offsets in bytes; the last one is scratch for the calls
    themselves). before: (call, bases), run once. carries: (source, target, source_bytes, target_bytes, shift, row_bytes): the
    rows of a base as they were `shift` steps before are copied to another base at each step, zeros where there was none.
    bound: rows -> the scratch that the calls of its program were last given, shared by all loops that have these calls.
    `layout` says how many rows each step has and where they start. most, room: rows of a step, and bytes of scratch for a
    call, that there is place for; they are the maker's to keep.
    """
    cdef LoopKernel *loop
    cdef object kept, before, programs
    cdef list checked
    cdef dict bound
    cdef public int64_t most, room
    cdef size_t at

    def __init__(self, buffers, places, scratch, before, carries, bound):
        self.loop = new LoopKernel(buffers, places, scratch)
        self.own(self.loop)
        self.programs, self.bound, self.kept, self.checked = {}, bound, (), []
        self.at = 0
        self.before = before
        for call, _ in before:
            self.loop.add_before(<const cg_call *><size_t>call.address)
        for source, target, source_bytes, target_bytes, shift, row_bytes in carries:
            self.loop.add_carry(source, target, source_bytes, target_bytes, shift, row_bytes)

    def has(self, rows) -> bool:
        """Whether there is a program for steps of so many rows."""
        return rows in self.programs

    def program(self, rows, calls) -> None:
        """Says what runs at a step of so many rows."""
        self.loop.begin_program(rows)
        for call, slots in calls:
            bases, row_bytes, offsets = zip(*slots, strict=True)
            self.loop.add_call(<const cg_call *><size_t>call.address, bases, row_bytes, offsets)
        self.loop.end_program(rows)
        self.programs[rows] = calls
        self.checked += [call for call, _ in calls if hasattr(call, "check")]

    def check(self) -> None:
        """Raises what a user's function raised at a step."""
        for call in self.checked:
            call.check()

    def layout(self, alive, offset, forward) -> None:
        """Says how many rows each step has, and where they start."""
        self.loop.set_layout(alive, offset, forward)
        self.kept = set(alive)
        self.bind()

    def set_buffers(self, addresses) -> None:
        """Binds the loop's buffers; raises ValueError on a wrong count."""
        BoundKernel.set_buffers(self, addresses)
        cdef size_t scratch = addresses[len(addresses) - 1]
        self.at = scratch
        self.bind()
        for call, bases in self.before:
            call.set_buffers(self.addresses(bases, call.scratch))

    def addresses(self, bases, scratch):
        """Addresses of bases before the first step."""
        found = [<size_t>self.loop.base(&self.call, b) for b in bases]
        return [*found, <size_t>self.loop.last(&self.call)] if scratch else found

    def bind(self):
        """Gives calls their scratch, and addresses that stand to each other as they will at every step."""
        if not self.at:
            return
        cdef size_t scratch = <size_t>self.loop.last(&self.call)
        for rows in self.kept:
            if self.bound.get(rows) != scratch:
                for call, slots in self.programs[rows]:
                    found = self.addresses([b for b, _, _ in slots], call.scratch)
                    for i in range(len(slots)):
                        found[i] += slots[i][2]
                    call.set_buffers(found)
                self.bound[rows] = scratch
