# sources: alignment.cpp
"""Kernels over all alignments of two sequences: connectionist temporal classification, edit distance."""
include "kernel.pxi"

import numpy as np

__all__ = ["Ctc", "EditDistance"]


cdef extern from "alignment.h" namespace "cg":
    ctypedef struct Sequences "cg::Sequences":
        int64_t count
        int64_t rows
        int64_t longest
        const int64_t *offset
        const int64_t *place
        const int64_t *length
    Kernel *make_ctc(const Sequences &labels, const Sequences &frames, const int64_t *item, int64_t classes, int64_t blank,
                     int64_t delay, string dtype) except +
    Kernel *make_edit_distance(const Sequences &a, const Sequences &b, const int64_t *item, int64_t classes, double substitution,
                               double deletion, double insertion, cbool squash, const vector[int64_t] &ignored,
                               string dtype) except +


cdef const int64_t *address(array):
    return <const int64_t *><size_t>array.ctypes.data


def whole(array):
    """The numbers as a contiguous int64 array."""
    return np.ascontiguousarray(array, np.int64)


cdef class Layout:
    """Where sequences of a space lie, in an order given by their numbers."""
    cdef object offset, place, length
    cdef Sequences c

    def __init__(self, space, order):
        self.offset, self.place, self.length = whole(space.offset), whole(space.rank[order]), whole(space.lengths[order])
        self.c.count, self.c.rows, self.c.longest = len(space.lengths), int(space), space.steps
        self.c.offset, self.c.place, self.c.length = address(self.offset), address(self.place), address(self.length)


cdef class Pair(BoundKernel):
    """A kernel over pairs of sequences of two spaces, the longest of the second space first."""
    cdef Layout first, second
    cdef object order

    def __init__(self, first, second):
        if len(first.lengths) != len(second.lengths):
            raise ValueError(f"{type(self).__name__}: expected as many sequences in both operands, "
                             f"got {len(first.lengths)} and {len(second.lengths)}")
        self.order = whole(second.order)
        self.first, self.second = Layout(first, self.order), Layout(second, self.order)


cdef class Ctc(Pair):
    """loss = -log of the summed probability of all alignments, d = softmax(x) - posterior; buffers labels, x, loss, d, scratch.

    labels, frames: spaces of sequences. A label begins where the largest element of a row is 2. No alignment: inf, d = 0; NaN or
    infinity among the logits of a sequence: NaN. Sums are in double precision.
    """
    def __init__(self, labels, frames, classes, blank, delay, dtype):
        Pair.__init__(self, labels, frames)
        self.own(make_ctc(self.first.c, self.second.c, address(self.order), classes, blank, delay, text(dtype)))


cdef class EditDistance(Pair):
    """Edits on the cheapest way from a sequence to another, and the length of the second; buffers a, b, edits, length, scratch.

    a, b: spaces. A row's symbol is its first largest element. squash: repeats count once; ignored: symbols left out after that.
    """
    def __init__(self, a, b, classes, penalties, squash, ignored, dtype):
        Pair.__init__(self, a, b)
        substitution, deletion, insertion = penalties
        self.own(make_edit_distance(self.first.c, self.second.c, address(self.order), classes, substitution, deletion, insertion,
                                    squash, ignored, text(dtype)))
