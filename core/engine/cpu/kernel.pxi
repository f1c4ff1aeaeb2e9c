# The protocol of a bound kernel, for the families whose C++ state is a cg::Kernel. Included, since modules may not cimport.
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector


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


cdef extern from "support.h" namespace "cg" nogil:
    cdef cppclass Kernel "cg::Kernel":
        void (*run)(const cg_call *, const cg_context *) noexcept nogil
        int nbuf
        int64_t scratch
        double bad_index
        int64_t load_error "error.load"()
        int64_t take_error "error.exchange"(int64_t)


cdef class BoundKernel:
    """One bound call: `address`, `nbuf`, `scratch`, `set_buffers`; `run()` calls it once, for tests."""
    cdef cg_call call
    cdef Kernel *kernel

    cdef int own(self, Kernel *kernel) except -1:
        self.kernel = kernel
        self.call.run = kernel.run
        self.call.state = <void *>kernel
        self.call.buf = <void **>PyMem_Calloc(kernel.nbuf, sizeof(void *))
        if self.call.buf == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        PyMem_Free(self.call.buf)
        del self.kernel

    @property
    def address(self) -> int:
        """Address of the cg_call; lives as long as this object."""
        return <size_t>&self.call

    @property
    def nbuf(self) -> int:
        """Buffer slots: inputs, outputs, and one more where scratch is wanted."""
        return self.kernel.nbuf

    @property
    def scratch(self) -> int:
        """Bytes of scratch wanted in the last slot; 0: none."""
        return self.kernel.scratch

    def set_buffers(self, addresses) -> None:
        """Bind the slots; raises ValueError on a wrong count."""
        if len(addresses) != self.kernel.nbuf:
            raise ValueError(f"{type(self).__name__}: expected {self.kernel.nbuf} buffers, got {len(addresses)}")
        cdef Py_ssize_t i = 0
        for address in addresses:
            self.call.buf[i] = <void *><size_t>address
            i += 1

    def run(self) -> None:
        """Call the kernel once, without the GIL."""
        cdef cg_context context
        context.seed = 0
        context.step = 0
        context.sample = 0
        with nogil:
            self.call.run(&self.call, &context)

    def error(self) -> int:
        """Position of the first bad index since the last question, -1: none."""
        return self.kernel.take_error(-1)


cdef string text(value):
    return (<str>value).encode() if isinstance(value, str) else b"?"
