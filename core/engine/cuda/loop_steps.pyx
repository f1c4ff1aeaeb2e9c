"""The steps of a recurrence as one command: it goes through the steps, writes the addresses of each step's rows into the commands
of the step body and puts them on the stream.

So a body has commands once for each number of rows that a step has, and another minibatch costs two short tables.
"""

from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cogkit.engine.cuda.driver import check

__all__ = ["Body", "Steps"]


cdef extern from "command.h" nogil:
    ctypedef struct cg_command:
        pass

cdef extern from "loop_steps.h" namespace "cg" nogil:
    cdef cppclass Word:
        uint64_t *at
        int64_t base
        int64_t row_bytes
        int64_t offset
    cdef cppclass Part:
        const cg_command *command
        int64_t own
        vector[Word] words
    ctypedef vector[vector[Part]] Programs
    cdef cppclass Carry:
        int64_t source
        int64_t shift
        int64_t row_bytes
        int64_t target
        const cg_command *copy
        uint64_t *arguments
    cdef cppclass LoopSteps:
        cg_command command
        const Programs *programs
        vector[int64_t] alive
        vector[int64_t] offset
        vector[uint64_t] addresses
        vector[uint64_t] carried
        vector[Carry] carries
        vector[const cg_command *] own
        vector[size_t] first_own
        uint64_t zeros
        cbool forward
        uint64_t at(int64_t base, int64_t row_bytes, int64_t t)
        int carry(int64_t t, void *stream)


cdef class Body:
    """The commands of a step body, by the number of rows of a step."""

    cdef Programs programs
    cdef dict kept
    cdef readonly dict own  # rows -> [(item, slots)]: those that each step has a clone of

    def __init__(self):
        self.kept, self.own = {}, {}

    def __contains__(self, rows):
        return rows in self.kept

    def add(self, size_t rows, items):
        """Says what runs at a step of so many rows.

        items: (item, slots): its buffers, as (base, bytes to the next row, bytes to the first element), that of scratch last.
        """
        cdef vector[Part] parts
        cdef Part part
        cdef Word word
        own = []
        for item, slots in items:
            words = getattr(item, "words", None)
            part.command, part.own = <const cg_command *> <size_t> item.address, -1
            part.words.clear()
            if words is None:
                part.own = len(own)
                own.append((item, slots))
            for at, slot, offset in words or ():
                word.at = <uint64_t *> <size_t> at
                word.base, word.row_bytes, word.offset = slots[slot]
                word.offset += <int64_t> offset
                part.words.push_back(word)
            parts.push_back(part)
        if self.programs.size() <= rows:
            self.programs.resize(rows + 1)
        self.programs[rows] = parts
        self.kept[rows], self.own[rows] = list(items), own


cdef class Steps:
    """Runs a body at each step, forward or backward: a command of a plan.

    alive, offset: rows of each step, and its first row. bases: how the addresses of the body's buffers follow from those that
    `set_buffers` is given: (slot, bytes). carries: (base of a value, steps, bytes of a row, base of a place, launch) for what it
    was so many steps before: rows of that step as they lie where all are there, else put together in the place, with zeros for
    those that are not, by the launch, whose arguments are from, to, words of 4 bytes that are there, words. zeros: has the
    address of zeros for all rows of a step.
    """

    cdef LoopSteps steps
    cdef Body body
    cdef object given
    cdef list bases, clones
    cdef readonly str name

    def __init__(self, Body body, alive, offset, forward, bases, carries, zeros):
        cdef Carry c
        self.body, self.bases, self.given, self.name = body, list(bases), (list(carries), zeros), f"loop of {len(alive)} steps"
        self.steps.programs, self.steps.forward, self.steps.zeros = &body.programs, forward, zeros.address
        self.steps.alive, self.steps.offset = alive, offset
        for source, shift, row_bytes, target, launch in carries:
            c.source, c.shift, c.row_bytes, c.target = source, shift, row_bytes, target
            c.copy = <const cg_command *> <size_t> launch.address
            c.arguments = <uint64_t *> <size_t> launch.words[0][0]
            self.steps.carries.push_back(c)
        self.steps.carried.resize(self.steps.carries.size())
        self.steps.addresses.resize(len(self.bases))
        self.clones = []
        for rows in alive:
            self.steps.first_own.push_back(self.steps.own.size())
            for item, slots in body.own[rows]:
                made = item.clone()
                self.steps.own.push_back(<const cg_command *> <size_t> made.address)
                self.clones.append((made, slots))

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.steps.command

    def set_buffers(self, list addresses):
        """Binds the buffers of the loop, scratch last."""
        cdef int64_t t
        cdef size_t k = 0
        for i, (slot, more) in enumerate(self.bases):
            self.steps.addresses[i] = addresses[slot] + more
        for t in range(<int64_t> self.steps.alive.size() if self.clones else 0):
            self.steps.carry(t, NULL)
            for made, slots in self.clones[k:k + len(self.body.own[self.steps.alive[t]])]:
                made.set_buffers([self.steps.at(base, row_bytes, t) + first for base, row_bytes, first in slots])
                k += 1

    def carry(self, int64_t t, size_t stream):
        """Readies for step t what it reads of other steps, for a host that runs the steps itself."""
        check(self.steps.carry(t, <void *> stream), self.name)

    def at(self, int64_t t, int64_t base, int64_t row_bytes, int64_t offset):
        """The address of a buffer at step t."""
        return self.steps.at(base, row_bytes, t) + offset

    def clone(self):
        """Another one with buffers of its own."""
        return Steps(self.body, self.steps.alive, self.steps.offset, self.steps.forward, self.bases, *self.given)
