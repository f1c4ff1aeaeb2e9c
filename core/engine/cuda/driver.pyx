"""Soft link to the CUDA driver: launches, fills and copies as commands on a stream, and graphs of them.

The library is looked for when `open` is called: $COGKIT_LIBCUDA, else libcuda.so.1. Memory, streams and contexts are PyCUDA's
(`cogkit.engine.cuda.device`); what PyCUDA has no way to (graphs) or only a slow one to (launches) is here.
"""

import os

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

import numpy as np

from cogkit.errors import DeviceError

__all__ = [
    "B", "Commands", "Copy", "DeviceLost", "Graph", "Launch", "Memset", "Module", "SLOT_SCRATCH", "check", "is_open", "launched",
    "open_driver",
]


cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)
    const char *dlerror()
    int RTLD_NOW, RTLD_GLOBAL

cdef extern from "command.h" nogil:
    ctypedef struct cg_command
    ctypedef struct cg_command:
        int (*run)(const cg_command *, void *) noexcept nogil
        void *state
    ctypedef uint64_t cg_deviceptr
    ctypedef struct cg_launch:
        cg_command command
        void *function
        unsigned grid[3]
        unsigned block[3]
        unsigned shared
        size_t size
        char *parameters
    ctypedef struct cg_transfer:
        cg_command command
        cg_deviceptr to
        cg_deviceptr from_ "from"
        size_t size
        unsigned value
    ctypedef int (*cg_launch_t)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                                void **) noexcept nogil
    ctypedef int (*cg_handle_t)(void **, const void *) noexcept nogil
    ctypedef int (*cg_function_t)(void **, void *, const char *) noexcept nogil
    ctypedef int (*cg_attribute_t)(void *, int, int) noexcept nogil
    ctypedef int (*cg_get_attribute_t)(int *, int, void *) noexcept nogil
    ctypedef int (*cg_memset_t)(cg_deviceptr, unsigned, size_t, void *) noexcept nogil
    ctypedef int (*cg_copy_t)(cg_deviceptr, cg_deviceptr, size_t, void *) noexcept nogil
    ctypedef int (*cg_begin_t)(void *, int) noexcept nogil
    ctypedef int (*cg_end_t)(void *, void **) noexcept nogil
    ctypedef int (*cg_instantiate_t)(void **, void *, unsigned long long) noexcept nogil
    ctypedef int (*cg_replay_t)(void *, void *) noexcept nogil
    ctypedef int (*cg_destroy_t)(void *) noexcept nogil
    ctypedef int (*cg_text_t)(int, const char **) noexcept nogil

cdef void *library = NULL
cdef cg_launch_t cuLaunchKernel
cdef cg_handle_t cuModuleLoadData
cdef cg_function_t cuModuleGetFunction
cdef cg_attribute_t cuFuncSetAttribute
cdef cg_get_attribute_t cuFuncGetAttribute
cdef cg_memset_t cuMemsetD8Async, cuMemsetD32Async
cdef cg_copy_t cuMemcpyDtoDAsync
cdef cg_begin_t cuStreamBeginCapture
cdef cg_end_t cuStreamEndCapture
cdef cg_instantiate_t cuGraphInstantiate
cdef cg_replay_t cuGraphLaunch
cdef cg_destroy_t cuGraphDestroy, cuGraphExecDestroy, cuModuleUnload
cdef cg_text_t cuGetErrorName, cuGetErrorString

launched = set()  # names of the kernels that launches were made of: what tests cover

# what it means, and what a person can do
_LOST = {700, 702, 708, 709, 714, 715, 716, 717, 718, 719, 720, 910, 999}


class DeviceLost(DeviceError):
    """The context of a GPU has failed: nothing that lies there can be had any more."""


def is_open():
    """Whether the driver is there and in use."""
    return library != NULL


cdef void *_symbol(const char *name) except NULL:
    cdef void *found = dlsym(library, name)
    if found == NULL:
        raise DeviceError(
            f"CUDA driver: expected one with {name.decode()} (CUDA 12 or later), got an older one; update the NVIDIA driver"
        )
    return found


def open_driver():
    """Finds the driver's functions. Raises `DeviceError` where there is no driver, or one too old."""
    global library, cuLaunchKernel, cuModuleLoadData, cuModuleGetFunction, cuFuncSetAttribute, cuFuncGetAttribute, cuMemsetD8Async
    global cuMemsetD32Async, cuMemcpyDtoDAsync, cuStreamBeginCapture, cuStreamEndCapture, cuGraphInstantiate, cuGraphLaunch
    global cuGraphDestroy, cuGraphExecDestroy, cuModuleUnload, cuGetErrorName, cuGetErrorString
    if library != NULL:
        return
    name = os.environ.get("COGKIT_LIBCUDA") or "libcuda.so.1"
    library = dlopen(name.encode(), RTLD_NOW | RTLD_GLOBAL)
    if library == NULL:
        why = dlerror().decode()
        raise DeviceError(f"CUDA driver: expected {name}, got none ({why}); install the NVIDIA driver, or use C.device.cpu()")
    try:
        cuLaunchKernel = <cg_launch_t> _symbol(b"cuLaunchKernel")
        cuModuleLoadData = <cg_handle_t> _symbol(b"cuModuleLoadData")
        cuModuleGetFunction = <cg_function_t> _symbol(b"cuModuleGetFunction")
        cuModuleUnload = <cg_destroy_t> _symbol(b"cuModuleUnload")
        cuFuncSetAttribute = <cg_attribute_t> _symbol(b"cuFuncSetAttribute")
        cuFuncGetAttribute = <cg_get_attribute_t> _symbol(b"cuFuncGetAttribute")
        cuMemsetD8Async = <cg_memset_t> _symbol(b"cuMemsetD8Async")
        cuMemsetD32Async = <cg_memset_t> _symbol(b"cuMemsetD32Async")
        cuMemcpyDtoDAsync = <cg_copy_t> _symbol(b"cuMemcpyDtoDAsync_v2")
        cuStreamBeginCapture = <cg_begin_t> _symbol(b"cuStreamBeginCapture_v2")
        cuStreamEndCapture = <cg_end_t> _symbol(b"cuStreamEndCapture")
        cuGraphInstantiate = <cg_instantiate_t> _symbol(b"cuGraphInstantiateWithFlags")
        cuGraphLaunch = <cg_replay_t> _symbol(b"cuGraphLaunch")
        cuGraphDestroy = <cg_destroy_t> _symbol(b"cuGraphDestroy")
        cuGraphExecDestroy = <cg_destroy_t> _symbol(b"cuGraphExecDestroy")
        cuGetErrorName = <cg_text_t> _symbol(b"cuGetErrorName")
        cuGetErrorString = <cg_text_t> _symbol(b"cuGetErrorString")
    except DeviceError:
        library = NULL
        raise


def check(int result, what):
    """Nothing for success; else `DeviceError` that says what failed and what can be done."""
    if result == 0:
        return
    cdef const char *text = NULL
    cdef const char *name = NULL
    if result > 0 and library != NULL:
        cuGetErrorString(result, &text)
        cuGetErrorName(result, &name)
    word = text.decode() if text != NULL else f"error {result}"
    sign = name.decode() if name != NULL else str(result)
    way = ""
    if result in _LOST:
        way = "the GPU's context is lost: what was saved is whole, start again from the last checkpoint"
        raise DeviceLost(f"CUDA: {what}: {word} ({sign}); {way}")
    elif result == 2:
        way = "; use a smaller minibatch (Function.explain shows the plan's peak)"
    raise DeviceError(f"CUDA: {what}: {word} ({sign}){way}")


class B:
    """Argument of a launch: the address of buffer `slot`, and bytes to the first element."""

    __slots__ = ("offset", "slot")

    def __init__(self, slot, offset=0):
        self.slot, self.offset = slot, offset

    def __add__(self, more):
        return B(self.slot, self.offset + more)

    def __repr__(self):
        return f"B({self.slot}, {self.offset})"


SLOT_SCRATCH = -1  # the last buffer


cdef class Module:
    """Kernels of one image (cubin, fatbin, PTX) in the current context.

    Raises `DeviceError` for an image that the driver does not take.
    """

    cdef void *handle
    cdef bytes image
    cdef readonly str name
    cdef dict functions

    def __init__(self, bytes image, str name):
        self.image, self.name, self.functions = image, name, {}
        check(cuModuleLoadData(&self.handle, <const char *> self.image), f"kernels of {name}")

    def function(self, str name):
        """The handle of a kernel, a number."""
        cdef void *found = NULL
        if name not in self.functions:
            check(cuModuleGetFunction(&found, self.handle, name.encode()), f"kernel {self.name}.{name}")
            self.functions[name] = <size_t> found
        return self.functions[name]

    def attribute(self, str name, int which):
        """An attribute of a kernel: 4 registers, 3 local bytes, 1 shared bytes."""
        cdef int value = 0
        check(cuFuncGetAttribute(&value, which, <void *> <size_t> self.function(name)), f"kernel {self.name}.{name}")
        return value


cdef int _run_launch(const cg_command *command, void *stream) noexcept nogil:
    cdef const cg_launch *c = <const cg_launch *> command.state
    cdef void *extra[5]
    cdef size_t size = c.size
    extra[0], extra[1], extra[2], extra[3], extra[4] = <void *> 1, c.parameters, <void *> 2, &size, NULL
    return cuLaunchKernel(c.function, c.grid[0], c.grid[1], c.grid[2], c.block[0], c.block[1], c.block[2], c.shared, stream, NULL,
                          extra)


cdef int _run_memset(const cg_command *command, void *stream) noexcept nogil:
    cdef const cg_transfer *c = <const cg_transfer *> command.state
    if c.size % 4 == 0:
        return cuMemsetD32Async(c.to, c.value, c.size // 4, stream)
    return cuMemsetD8Async(c.to, c.value & 255, c.size, stream)


cdef int _run_copy(const cg_command *command, void *stream) noexcept nogil:
    cdef const cg_transfer *c = <const cg_transfer *> command.state
    return cuMemcpyDtoDAsync(c.to, c.from_, c.size, stream)


cdef class Launch:
    """One launch of a kernel with its parameters, packed once; `set_buffers` writes the addresses of its buffers.

    grid, block: up to three sizes each; shared: bytes of dynamic shared memory. arguments: `B` (a buffer's address), NumPy
    scalars of 4 or 8 bytes, bytes (a struct, 8-byte aligned) and objects with an `address` (kept). Raises `TypeError` for others,
    `ValueError` for sizes that no launch has.
    """

    cdef cg_launch call
    cdef list patches, places
    cdef object keep
    cdef readonly str name

    def __init__(self, name, size_t function, grid, block, arguments, unsigned shared=0):
        cdef size_t at = 0
        cdef int i
        cdef uint64_t word
        cdef char *p
        self.name, self.patches, self.keep = name, [], []
        for i, n in enumerate(grid):
            if not 0 < n < (2 ** 31 if i == 0 else 65536):
                raise ValueError(f"launch of {name}: expected a grid within (2147483647, 65535, 65535), got {tuple(grid)}")
        launched.add(name)
        self.call.command.run, self.call.command.state = _run_launch, &self.call
        self.call.function, self.call.shared = <void *> function, shared
        for i in range(3):
            self.call.grid[i] = grid[i] if i < len(grid) else 1
            self.call.block[i] = block[i] if i < len(block) else 1
        if shared > 49152:
            check(cuFuncSetAttribute(<void *> function, 8, shared), f"{shared} bytes of shared memory for {name}")
        # where each argument lies
        sizes = []
        for a in arguments:
            if isinstance(a, np.generic):
                size = align = a.dtype.itemsize
                if size not in (4, 8):
                    raise TypeError(f"launch of {name}: expected numbers of 4 or 8 bytes, got {a.dtype}")
            elif isinstance(a, bytes):
                size, align = len(a), 8
            elif isinstance(a, B) or hasattr(a, "address"):
                size = align = 8
            else:
                raise TypeError(f"launch of {name}: expected buffers, NumPy scalars, bytes or what has an address, got {a!r}")
            at = (at + align - 1) // align * align
            sizes.append(at)
            at += size
        self.call.size = at
        self.places = sizes
        self.call.parameters = <char *> PyMem_Calloc(at + 8, 1)
        if self.call.parameters == NULL:
            raise MemoryError
        for at, a in zip(sizes, arguments, strict=True):
            if isinstance(a, B):
                self.patches.append((at, a.slot, a.offset))
            elif isinstance(a, (np.generic, bytes)):
                raw = a.tobytes() if isinstance(a, np.generic) else a
                p = raw
                memcpy(self.call.parameters + at, p, len(raw))
            else:
                word = a.address
                memcpy(self.call.parameters + at, &word, 8)
                self.keep.append(a)

    def __dealloc__(self):
        PyMem_Free(self.call.parameters)

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    def set_buffers(self, list addresses):
        """Writes the addresses of the buffers."""
        cdef uint64_t word
        cdef size_t at
        for at, slot, offset in self.patches:
            word = <uint64_t> (addresses[slot] + offset)
            memcpy(self.call.parameters + at, &word, 8)

    @property
    def words(self):
        """(where it is written, slot of its buffer, bytes to the first element) of each address that the command reads."""
        return [(<size_t> (self.call.parameters + <size_t> at), slot, offset) for at, slot, offset in self.patches]

    def write(self, int argument, bytes data):
        """Other bytes for a struct or a number among the arguments, of the same size."""
        memcpy(self.call.parameters + <size_t> self.places[argument], <const char *> data, len(data))

    def clone(self):
        """Another launch of the same, with buffers of its own."""
        cdef Launch made = Launch.__new__(Launch)
        made.name, made.patches, made.places, made.keep = self.name, self.patches, self.places, self
        made.call = self.call
        made.call.command.state = &made.call
        made.call.parameters = <char *> PyMem_Calloc(self.call.size + 8, 1)
        if made.call.parameters == NULL:
            raise MemoryError
        memcpy(made.call.parameters, self.call.parameters, self.call.size)
        return made

    def __repr__(self):
        grid, block = [self.call.grid[i] for i in range(3)], [self.call.block[i] for i in range(3)]
        return f"{self.name}<{grid}, {block}>"


cdef class _Transfer:
    cdef cg_transfer call
    cdef object to, source

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    def set_buffers(self, list addresses):
        """Writes the addresses of the buffers."""
        self.call.to = addresses[self.to.slot] + self.to.offset
        if self.source is not None:
            self.call.from_ = addresses[self.source.slot] + self.source.offset

    @property
    def words(self):
        """As those of `Launch`."""
        ends = [(<size_t> &self.call.to, self.to)] + ([] if self.source is None else [(<size_t> &self.call.from_, self.source)])
        return [(place, b.slot, b.offset) for place, b in ends]

    def clone(self):
        """Another one with buffers of its own."""
        return type(self)(*self._made())


cdef class Memset(_Transfer):
    """Fills bytes of a buffer with a 32-bit word."""

    name = "memset"

    def __init__(self, to, size_t size, unsigned value=0):
        self.to, self.source = to, None
        self.call.command.run, self.call.command.state = _run_memset, &self.call
        self.call.size, self.call.value = size, value

    def _made(self):
        return self.to, self.call.size, self.call.value


cdef class Copy(_Transfer):
    """Copies bytes from one buffer to another, both on the device."""

    name = "copy"

    def __init__(self, to, source, size_t size):
        self.to, self.source = to, source
        self.call.command.run, self.call.command.state = _run_copy, &self.call
        self.call.size = size

    def _made(self):
        return self.to, self.source, self.call.size


cdef class Commands:
    """Runs commands in order on a stream.

    items: objects with an `address` of a cg_command, kept here; those with a `host` method are called with the stream instead,
    when all before them is done.
    """

    cdef vector[const cg_command *] commands
    cdef list keep
    cdef list hosts  # (commands before it, the item)

    def __init__(self, items):
        self.keep = list(items)
        self.hosts = []
        for c in self.keep:
            if hasattr(c, "host"):
                self.hosts.append((self.commands.size(), c))
            else:
                self.commands.push_back(<const cg_command *> <size_t> c.address)

    @property
    def capturable(self):
        """Whether a graph can hold them: the host has no part in it."""
        return not self.hosts

    def __len__(self):
        return len(self.keep)

    def run(self, size_t stream):
        """Puts them on a stream; raises `DeviceError` for one that the driver refuses, and what a host's part raises."""
        cdef size_t begin = 0
        for end, item in self.hosts:
            self._run(begin, end, stream)
            item.host(stream)
            begin = end
        self._run(begin, self.commands.size(), stream)

    cdef int _run(self, size_t begin, size_t end, size_t stream) except -1:
        cdef size_t i
        cdef int result = 0
        with nogil:
            for i in range(begin, end):
                result = self.commands[i].run(self.commands[i], <void *> stream)
                if result:
                    break
        if result:
            items = [c for c in self.keep if not hasattr(c, "host")]
            if hasattr(items[i], "explain"):  # a library's, with errors of its own
                raise DeviceError(items[i].explain(result))
            check(result, getattr(items[i], "name", "command"))
        return 0


cdef class Graph:
    """Commands captured once, replayed with one call. Raises `DeviceError` where they cannot be captured."""

    cdef void *executable
    cdef object keep

    def __init__(self, Commands commands, size_t stream):
        cdef void *graph = NULL
        self.keep = commands
        check(cuStreamBeginCapture(<void *> stream, 1), "capture of a graph")
        try:
            commands.run(stream)
        finally:
            result = cuStreamEndCapture(<void *> stream, &graph)
        check(result, "capture of a graph")
        result = cuGraphInstantiate(&self.executable, graph, 0)
        cuGraphDestroy(graph)
        check(result, "instantiation of a graph")

    def run(self, size_t stream):
        """Puts the whole graph on a stream."""
        cdef int result
        with nogil:
            result = cuGraphLaunch(self.executable, <void *> stream)
        check(result, "launch of a graph")

    def __dealloc__(self):
        if self.executable != NULL and library != NULL:
            cuGraphExecDestroy(self.executable)
