# sources: user.cpp
"""User functions among the calls of a plan: Python, which takes the GIL for itself, and C functions, which do not need it."""
include "kernel.pxi"

import numpy as np


cimport numpy as cnp
from libc.stdint cimport int32_t

from cogkit.errors import UserFunctionError

cnp.import_array()

__all__ = ["NativeCall", "PythonCall"]


cdef extern from "user.h" namespace "cg":
    cdef cppclass NativeKernel(Kernel):
        NativeKernel(size_t function, cbool backward, int inputs, int outputs)
        void describe(int slot, const vector[int64_t] &shape, int64_t rows, int32_t type)
        void settle(const vector[double] &settings, const vector[cbool] &wanted)


cdef class PythonCall:
    """A call of `function(*inputs)`, which gives the arrays of the outputs; buffers: inputs, outputs.

    inputs, outputs: (shape, dtype) of each. An exception is kept until `check` raises it; meanwhile further calls do nothing.
    """
    cdef cg_call call
    cdef object function, inputs, outputs, error
    cdef vector[void *] slots
    cdef readonly int64_t scratch

    def __init__(self, function, inputs, outputs):
        self.call.run = run_python
        self.call.state = <void *>self
        self.scratch = 0
        self.resize(function, inputs, outputs)

    def resize(self, function, inputs, outputs):
        """Takes the call over to other shapes."""
        self.function, self.inputs, self.outputs = function, list(inputs), list(outputs)
        self.slots.resize(len(self.inputs) + len(self.outputs))
        self.call.buf = self.slots.data()

    @property
    def address(self) -> int:
        """Address of the cg_call; lives as long as this object."""
        return <size_t>&self.call

    def set_buffers(self, addresses) -> None:
        """Bind the slots; raises ValueError on a wrong count."""
        if len(addresses) != <Py_ssize_t>self.slots.size():
            raise ValueError(f"PythonCall: expected {self.slots.size()} buffers, got {len(addresses)}")
        cdef Py_ssize_t i = 0
        for address in addresses:
            self.slots[i] = <void *><size_t>address
            i += 1

    def check(self) -> None:
        """Raises what the function raised."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    cdef object array(self, int slot, shape, dtype):
        cdef cnp.npy_intp dims[32]
        cdef int i = 0
        for n in shape:
            dims[i] = n
            i += 1
        return cnp.PyArray_SimpleNewFromData(i, dims, np.dtype(dtype).num, self.call.buf[slot])

    def invoke(self):
        """Calls the function on the bound buffers."""
        cdef int slot = 0
        arrays = []
        for shape, dtype in self.inputs:
            arrays.append(self.array(slot, shape, dtype))
            slot += 1
        for made, (shape, dtype) in zip(self.function(*arrays), self.outputs, strict=True):
            self.array(slot, shape, dtype)[...] = made
            slot += 1


cdef void run_python(const cg_call *call, const cg_context *context) noexcept with gil:
    cdef PythonCall self = <PythonCall><object>call.state
    if self.error is None:
        try:
            self.invoke()
        except BaseException as e:
            self.error = e


cdef class NativeCall(BoundKernel):
    """A call of a C function of `cogkit_user.h`; buffers: inputs, outputs.

    forward: x..., y...; backward: x..., y..., dy..., dx..., the `wanted` ones alone. arrays: (shape of a row, rows, dtype) of
    each buffer. place: what the error names when the function does not return 0.
    """
    cdef NativeKernel *native
    cdef object place

    def __init__(self, function, backward, inputs, outputs, arrays, settings, wanted, place):
        self.native = new NativeKernel(function, backward, inputs, outputs)
        self.own(self.native)
        self.place = place
        cdef vector[cbool] want = wanted
        cdef vector[double] numbers = settings
        self.native.settle(numbers, want)
        PyMem_Free(self.call.buf)
        self.call.buf = <void **>PyMem_Calloc(self.kernel.nbuf + 1, sizeof(void *))
        if self.call.buf == NULL:
            raise MemoryError
        self.resize(arrays)

    def resize(self, arrays):
        """Takes the call over to other numbers of rows."""
        cdef int slot = 0
        for shape, rows, dtype in arrays:
            self.native.describe(slot, shape, rows, np.dtype(dtype).itemsize)
            slot += 1

    def check(self) -> None:
        """Raises `UserFunctionError` where the function gave another number than 0."""
        cdef int64_t code = self.kernel.take_error(-1)
        if code != -1:
            raise UserFunctionError(f"{self.place}: expected the C function to return 0, got {code}")
