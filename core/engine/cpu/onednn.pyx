# sources: onednn.cpp winograd.cpp
# libraries: dnnl
"""Convolutions, pooling, matrix products and reorders by oneDNN, behind the kernel protocol of core/engine/kernel.h.

Shapes are (N, C, spatial...) whatever the layout; a layout says how the bytes lie:
'plain' (N, C, spatial), 'c16' (N, C/16, spatial, 16; C divides by 16), 'last' (N, spatial, C).
Primitives remember the number of threads of their creation.
"""

from libc.stdint cimport int64_t, intptr_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

__all__ = ["Convolution", "MatMul", "Pooling", "Reorder", "get_num_threads", "isa", "native_layout", "set_num_threads", "version"]

cdef extern from "onednn.h" namespace "cg" nogil:
    cppclass Program:
        string implementation
        double flops
        int64_t workspace
        int threads
        int nbuf()
        int64_t scratch()
        void set_buffers(const vector[intptr_t] &)
        void run()

    cdef cppclass ConvSpec:
        ConvSpec()
        int kind
        vector[int64_t] x, w, y, strides, dilation, pad_lo, pad_hi
        int64_t groups
        int x_layout, y_layout
        cbool bias, relu, sum
        int algorithm

    cdef cppclass MatMulSpec:
        MatMulSpec()
        int64_t batch, m, n, k
        cbool transpose_a, transpose_b
        int64_t lda, ldb, ldc, batch_a, batch_b, batch_c
        cbool bias, relu, sum

    cdef cppclass PoolSpec:
        PoolSpec()
        cbool backward, keep_workspace
        int mode
        vector[int64_t] x, y, window, strides, pad_lo, pad_hi
        int layout

    unique_ptr[Program] c_convolution "cg::convolution"(const ConvSpec &) except +
    unique_ptr[Program] c_matmul "cg::matmul"(const MatMulSpec &) except +
    unique_ptr[Program] c_pooling "cg::pooling"(const PoolSpec &) except +
    unique_ptr[Program] c_reorder "cg::reorder"(const vector[int64_t] &, int, int) except +
    string c_version "cg::version"()
    string c_isa "cg::isa"()
    int c_get_num_threads "cg::get_num_threads"()
    void c_set_num_threads "cg::set_num_threads"(int) except +

cdef extern from *:
    """
    static intptr_t cg_call_address(cg::Program *p) { return (intptr_t)&p->call; }
    """
    intptr_t cg_call_address(Program *) nogil

_LAYOUTS = {"plain": 0, "c16": 1, "last": 2}


cdef int number_of(dict table, word, str what) except -1:
    if word not in table:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, table))}, got {word!r}")
    return table[word]


cdef int check_dtype(dtype) except -1:
    if dtype != "f4":
        raise ValueError(f"oneDNN computes in 'f4' only, got dtype {dtype!r}")
    return 0


cdef class _Call:
    """One bound call: address, nbuf, scratch, set_buffers."""

    cdef unique_ptr[Program] program
    cdef int operands

    @property
    def address(self) -> int:
        """Address of the cg_call."""
        return cg_call_address(self.program.get())

    @property
    def nbuf(self) -> int:
        """Number of buffer slots: operands, and one of scratch where scratch > 0."""
        return self.program.get().nbuf()

    @property
    def scratch(self) -> int:
        """Bytes of scratch."""
        return self.program.get().scratch()

    @property
    def implementation(self) -> str:
        """oneDNN's name of the code that it chose; 'x->' where x is copied to another layout first."""
        return self.program.get().implementation.decode()

    @property
    def flops(self) -> float:
        """Floating-point operations of one run, a multiplication and an addition counted as two."""
        return self.program.get().flops

    @property
    def threads(self) -> int:
        """Number of threads that the primitives were made for."""
        return self.program.get().threads

    def set_buffers(self, addresses) -> None:
        """Place the operands: one address a slot. Raises ValueError on another number of them."""
        cdef vector[intptr_t] a = addresses
        if <int>a.size() != self.program.get().nbuf():
            raise ValueError(f"expected {self.program.get().nbuf()} buffer addresses, got {a.size()}")
        self.program.get().set_buffers(a)

    def run(self) -> None:
        """Run once without the GIL (the executor calls the cg_call itself)."""
        with nogil:
            self.program.get().run()


cdef class Convolution(_Call):
    """y = x * w (cross-correlation) + b, or one of its gradients, always with w (O, C/groups, k...) in plain row-major order.

    kind 'forward': buffers x, w, [b], y; 'backward_data': dy, w, dx; 'backward_weights': x, dy, dw, [db].
    strides, dilation (1: dense), pad_lo, pad_hi: one entry a spatial dimension. relu: fused, forward only.
    sum: add to the last buffers instead of overwriting them. Raises ValueError.
    A slow implementation for the given layouts is avoided by copying into another layout, in scratch.
    algorithm 'winograd': F(4x4, 3x3), a quarter of the multiplications, rounding errors about five times
    those of 'direct' in y and dx (6e-7 of the root mean square), no larger in dw; the same bits on any number of threads.
    """

    def __init__(self, str kind, x_shape, w_shape, y_shape, strides, dilation, pad_lo, pad_hi, groups=1, x_layout="plain",
                 y_layout="plain", bias=False, relu=False, sum=False, dtype="f4", algorithm="auto"):
        check_dtype(dtype)
        cdef ConvSpec s
        s.algorithm = number_of({"auto": 0, "direct": 1, "winograd": 2}, algorithm, "algorithm")
        s.kind = number_of({"forward": 0, "backward_data": 1, "backward_weights": 2}, kind, "kind")
        s.x, s.w, s.y = x_shape, w_shape, y_shape
        s.strides, s.dilation, s.pad_lo, s.pad_hi = strides, dilation, pad_lo, pad_hi
        s.groups = groups
        s.x_layout, s.y_layout = number_of(_LAYOUTS, x_layout, "x_layout"), number_of(_LAYOUTS, y_layout, "y_layout")
        s.bias, s.relu, s.sum = bias, relu, sum
        self.program = move(c_convolution(s))


cdef class MatMul(_Call):
    """c = op(a) @ op(b) + bias, row-major; a (M, K) or (K, M) if transpose_a, b (K, N) or (N, K) if transpose_b.

    Raises ValueError. Buffers a, b, [bias (N,)], c. batch > 1: batch_a, batch_b and batch_c are elements between two
    matrices (None: dense, 0: one for all).
    lda, ldb, ldc: elements between two rows (0: dense). sum: add to c, before relu. relu: max(0, .) of the result.
    """

    def __init__(self, M, N, K, batch=1, transpose_a=False, transpose_b=False, batch_a=None, batch_b=None, batch_c=None,
                 lda=0, ldb=0, ldc=0, bias=False, relu=False, sum=False, dtype="f4"):
        check_dtype(dtype)
        cdef MatMulSpec s
        s.batch, s.m, s.n, s.k = batch, M, N, K
        s.transpose_a, s.transpose_b = transpose_a, transpose_b
        s.lda, s.ldb, s.ldc = lda, ldb, ldc
        if batch > 1:
            s.batch_a = (K * (lda or M) if transpose_a else M * (lda or K)) if batch_a is None else batch_a
            s.batch_b = (N * (ldb or K) if transpose_b else K * (ldb or N)) if batch_b is None else batch_b
            s.batch_c = M * (ldc or N) if batch_c is None else batch_c
        s.bias, s.relu, s.sum = bias, relu, sum
        self.program = move(c_matmul(s))


cdef class Pooling(_Call):
    """Maximum or average over windows, or its gradient. Raises ValueError.

    kind 'forward': buffers x, y, [ws]; 'backward': dy, [ws], dx. mode 'max', 'avg_exclude_pad', 'avg_include_pad'.
    Max pooling that is to be differentiated leaves the place of each maximum in ws (`workspace` bytes): forward wants
    keep_workspace=True for it, backward always takes it.
    """

    def __init__(self, str kind, str mode, x_shape, y_shape, window, strides, pad_lo, pad_hi, layout="plain",
                 keep_workspace=False, dtype="f4"):
        check_dtype(dtype)
        cdef PoolSpec s
        s.backward = number_of({"forward": 0, "backward": 1}, kind, "kind") == 1
        s.mode = number_of({"max": 0, "avg_exclude_pad": 1, "avg_include_pad": 2}, mode, "mode")
        s.x, s.y, s.window, s.strides, s.pad_lo, s.pad_hi = x_shape, y_shape, window, strides, pad_lo, pad_hi
        s.layout = number_of(_LAYOUTS, layout, "layout")
        s.keep_workspace = keep_workspace
        self.program = move(c_pooling(s))

    @property
    def workspace(self) -> int:
        """Bytes of the ws buffer; 0 where there is none."""
        return self.program.get().workspace


cdef class Reorder(_Call):
    """y = x in another layout: buffers x, y. shape (N, C, spatial...). Raises ValueError."""

    def __init__(self, shape, from_layout, to_layout, dtype="f4"):
        check_dtype(dtype)
        cdef vector[int64_t] dims = shape
        cdef int a = number_of(_LAYOUTS, from_layout, "from_layout"), b = number_of(_LAYOUTS, to_layout, "to_layout")
        self.program = move(c_reorder(dims, a, b))


def version() -> str:
    """Version of the oneDNN library in this process."""
    return c_version().decode()


def isa() -> str:
    """Highest instruction set that oneDNN uses on this machine."""
    return c_isa().decode()


def native_layout() -> str:
    """The layout that convolutions like best on this machine: 'c16' with AVX-512, else 'last'."""
    return "c16" if "avx512" in isa() else "last"


def get_num_threads() -> int:
    """Threads that the next parallel region of this thread will have."""
    return c_get_num_threads()


def set_num_threads(int n) -> None:
    """Set the number of OpenMP threads; calls made before keep theirs. Raises ValueError for n < 1."""
    c_set_num_threads(n)
