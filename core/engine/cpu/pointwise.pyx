# sources: pointwise.cpp
"""The fused elementwise-and-reduce machine: a short program interpreted over blocks that stay in the first-level cache.

Accuracy, in units of the last place (measured by tests/engine/test_pointwise.py, both types): exp, log 1; rsqrt, sin, cos 1.5;
sigmoid, softplus, logaddexp 2.5; tanh 3; float32 pow 0.5; arithmetic, sqrt, comparisons, floor, ceil and round are exact; tan and
the inverse and hyperbolic functions, and in float64 sin, cos and pow, are libm's. `round` rounds halves to even.
max, min, relu and the max and min reductions hand NaN on. Pairs of ops with no other reader become one (a product and a sum round
once where the processor can; x^2 is x x), so a float result may differ from the two ops' by one rounding.
Sums are made in lanes of at most 256 additions, folded as trees, and parts are joined in float64, in an order that depends on
sizes alone: the same bits with any number of threads.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, intptr_t, uint32_t, uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

import numpy as np

__all__ = ["OPCODES", "Pointwise", "isa", "philox_uniform", "select_isa"]

cdef extern from "kernel.h" nogil:
    ctypedef struct cg_context:
        uint64_t seed
        int64_t step
        int64_t sample
    ctypedef struct cg_call:
        void (*run)(const cg_call *, const cg_context *) noexcept nogil

cdef extern from "philox.h" nogil:
    void cg_philox(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t *, uint32_t *,
                   uint32_t *, uint32_t *)
    double cg_uniform_d(uint32_t)

cdef extern from "pointwise.h" namespace "cg_pw" nogil:
    cdef struct State:
        cg_call call
        int64_t scratch
        int64_t width

    cppclass SegmentSpec:
        vector[int64_t] dims
        vector[vector[int64_t]] strides
        vector[int64_t] index_strides
        int64_t flow

    cppclass Instruction:
        int code, dst, a, b, c
        double value

    int c_opcode "cg_pw::opcode"(const string &)
    int c_arity "cg_pw::arity"(int)
    State *c_create "cg_pw::create"(int, const vector[int] &, const vector[int] &, const vector[Instruction] &,
                                    const vector[SegmentSpec] &, int) except +
    void c_resize "cg_pw::resize"(State *, const vector[int64_t] &) except +
    void c_destroy "cg_pw::destroy"(State *)
    void c_set_buffers "cg_pw::set_buffers"(State *, const vector[intptr_t] &)
    void c_select_isa "cg_pw::select_isa"(const string &)
    string c_isa "cg_pw::isa"()
    int N_OPS "cg_pw::N_OPS"

cdef extern from *:
    """
    static const char *const cg_pw_names[] = {
    #define X(name, ...) #name,
        CG_PW_UNARY(X) CG_PW_UNARY_LIBM(X) CG_PW_BINARY(X) CG_PW_TERNARY(X) "rand", "randn", "const"};
    #undef X
    """
    const char *const *cg_pw_names

OPCODES = {cg_pw_names[i].decode(): i for i in range(N_OPS)}
KINDS = {"in": 0, "out": 1, "sum": 2, "prod": 3, "max": 4, "min": 5}


def isa():
    """The instruction set that new kernels use: 'v4' (AVX-512), 'v3' (AVX2 and FMA) or 'default'."""
    return c_isa().decode()


def select_isa(name):
    """Hold new kernels to the instruction set `name` ('best', 'v4', 'v3', 'default') where the processor has it; for tests."""
    if name not in ("best", "v4", "v3", "default"):
        raise ValueError(f"select_isa: expected 'best', 'v4', 'v3' or 'default', got {name!r}")
    c_select_isa(name.encode())


def philox_uniform(seed, step, purpose, row0, rows, row_size):
    """Uniform numbers in (0, 1) as opcode `rand` gives them: (rows, row_size) float64; see core/engine/philox.py."""
    cdef uint64_t key = seed ^ (<uint64_t><int64_t>row0 >> 32 << 32)
    cdef uint32_t c2 = <uint32_t><int64_t>step, c3 = purpose
    cdef uint32_t[4] w
    cdef int64_t i, j, first = row0, n = rows, m = row_size
    out = np.empty((n, m))
    cdef double[:, ::1] view = out
    with nogil:
        for i in range(n):
            for j in range(m):
                cg_philox(<uint32_t>(j // 4), <uint32_t>(first + i), c2, c3, <uint32_t>key, <uint32_t>(key >> 32),
                          &w[0], &w[1], &w[2], &w[3])
                view[i, j] = cg_uniform_d(w[j % 4])
    return out


cdef class Pointwise:
    """One bound program over `segments`.

    dtype: 'f4' or 'f8'. kinds: of each operand, 'in' (first), 'out', 'sum', 'prod', 'max', 'min'.
    outputs: register of each operand that is not 'in'. program: (opcode, dst, a, b, c), ('const', dst, value) or
    ('rand' | 'randn', dst, purpose); registers 0 .. n_in-1 are the inputs.
    segments: (dims, strides), strides[operand][dim] in elements; 0 broadcasts an input and reduces a reduction.
    index_strides: for random numbers, strides of dims 1.. of an element's number in its row (dim 0); default row-major; one list,
    or one a segment. flow: of each segment, how many random numbers a step has where the numbers of a step follow those of the
    one before, else 0. An output may lie exactly upon an input of the same strides; a reduction may not.
    buf: for each segment its operands, then scratch. Raises ValueError on programs and strides that make no sense.
    """

    cdef State *state
    cdef object held
    cdef void *own_scratch
    cdef readonly int nbuf
    cdef readonly tuple kinds

    def __init__(self, dtype, kinds, outputs, program, segments, index_strides=None, block=0, flow=None):
        cdef vector[int] c_kinds, c_outputs
        cdef vector[Instruction] c_program
        cdef vector[SegmentSpec] c_segments
        cdef Instruction instruction
        cdef SegmentSpec spec
        cdef vector[int64_t] line
        if dtype not in ("f4", "f8"):
            raise ValueError(f"Pointwise: expected dtype 'f4' or 'f8', got {dtype!r}")
        kinds = tuple(kinds)
        n_in = kinds.count("in")
        if any(k not in KINDS for k in kinds) or "in" in kinds[n_in:]:
            raise ValueError(f"Pointwise: expected kinds from {list(KINDS)}, all 'in' first, got {list(kinds)}")
        if len(outputs) != len(kinds) - n_in or not outputs:
            raise ValueError(
                f"Pointwise: expected one register for each of {len(kinds) - n_in} outputs, at least one, got {list(outputs)}"
            )
        for k in kinds:
            c_kinds.push_back(KINDS[k])
        for register in outputs:
            c_outputs.push_back(register)
        for item in program:
            code = OPCODES.get(item[0])
            if code is None:
                raise ValueError(f"Pointwise: no opcode {item[0]!r}; there are {', '.join(OPCODES)}")
            n = c_arity(code)
            if len(item) < 2 + max(n, 1) or any(x is not None for x in item[2 + max(n, 1):]):
                raise ValueError(f"Pointwise: {item[0]!r} takes {max(n, 1)} operands after its register, got {item!r}")
            instruction.code = code
            instruction.dst = item[1]
            instruction.a = item[2] if n > 0 else 0
            instruction.b = item[3] if n > 1 else 0
            instruction.c = item[4] if n > 2 else 0
            instruction.value = 0 if n else item[2]
            c_program.push_back(instruction)
        per_segment = index_strides is not None and len(index_strides) > 0 and not isinstance(index_strides[0], int)
        for number, (dims, strides) in enumerate(segments):
            if len(strides) != len(kinds) or any(len(s) != len(dims) for s in strides) or any(d < 0 for d in dims):
                raise ValueError(
                    f"Pointwise: segment {number}: expected {len(kinds)} lists of {len(dims)} strides and no negative dim, "
                    f"got dims {dims}, strides {strides}"
                )
            spec.dims = dims
            spec.strides.clear()
            for s in strides:
                line = s
                spec.strides.push_back(line)
            if index_strides is None:
                given = [1] * max(len(dims) - 1, 0)
                for d in range(len(given) - 2, -1, -1):
                    given[d] = given[d + 1] * dims[d + 2]
            else:
                given = index_strides[number] if per_segment else index_strides
            if len(given) != max(len(dims) - 1, 0):
                raise ValueError(f"Pointwise: segment {number}: expected index strides of dims 1.. of {dims}, got {given}")
            spec.index_strides = given
            spec.flow = flow[number] if flow else 0
            c_segments.push_back(spec)
        self.state = c_create(dtype == "f8", c_kinds, c_outputs, c_program, c_segments, block)
        self.kinds = kinds
        self.nbuf = len(kinds) * len(segments) + 1

    def __dealloc__(self):
        c_destroy(self.state)
        PyMem_Free(self.own_scratch)

    @property
    def address(self):
        return <intptr_t>&self.state.call

    @property
    def scratch(self):
        return self.state.scratch

    @property
    def width(self):
        """Elements of a full block."""
        return self.state.width

    def resize(self, rows):
        """Other sizes of the first dim of each segment, -1 where it stays; if that changes `scratch`, bind the buffers again."""
        c_resize(self.state, rows)

    def set_buffers(self, addresses):
        """Bind `nbuf` addresses; cheap."""
        cdef vector[intptr_t] c_addresses = addresses
        if <int>c_addresses.size() != self.nbuf:
            raise ValueError(f"Pointwise: expected {self.nbuf} buffers, got {c_addresses.size()}")
        c_set_buffers(self.state, c_addresses)

    def bind(self, arrays):
        """set_buffers with the addresses of NumPy arrays (held) and scratch of its own; for tests and measurements."""
        self.held = list(arrays)
        if self.own_scratch is NULL:
            self.own_scratch = PyMem_Malloc(self.state.scratch + 64)
        aligned = (<intptr_t>self.own_scratch + 63) // 64 * 64
        self.set_buffers([a.ctypes.data for a in self.held] + [aligned])
        return self

    def run(self, seed=0, step=0, sample=0):
        """Run once with this state of the random numbers."""
        cdef cg_context context
        context.seed = seed
        context.step = step
        context.sample = sample
        with nogil:
            self.state.call.run(&self.state.call, &context)
