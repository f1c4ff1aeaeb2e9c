"""Soft link to cuDNN's graph interface: descriptors, and plans of operations as commands of a plan.

`cogkit.engine.cuda.cudnn_graphs` builds graphs of them. NUMBERS holds NVIDIA's names of attributes and what they are.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t
from libcpp.vector cimport vector

import struct
import threading
from types import SimpleNamespace

from cogkit.engine.cuda import libraries
from cogkit.engine.cuda.driver import SLOT_SCRATCH
from cogkit.errors import DeviceError

__all__ = ["Descriptor", "Execution", "Handle", "NUMBERS", "NoWay", "available", "device_json", "explain", "failed", "handle",
           "open_cudnn", "why_not"]


cdef extern from "cudnn_api.h" nogil:
    ctypedef struct cg_command:
        int (*run)(const cg_command *, void *) noexcept nogil
        void *state
    ctypedef size_t (*cg_cudnn_version_t)() noexcept nogil
    ctypedef const char *(*cg_cudnn_text_t)(int) noexcept nogil
    ctypedef void (*cg_cudnn_last_error_t)(char *, size_t) noexcept nogil
    ctypedef int (*cg_cudnn_create_t)(void **) noexcept nogil
    ctypedef int (*cg_cudnn_set_stream_t)(void *, void *) noexcept nogil
    ctypedef int (*cg_cudnn_new_t)(int, void **) noexcept nogil
    ctypedef int (*cg_cudnn_destroy_t)(void *) noexcept nogil
    ctypedef int (*cg_cudnn_set_t)(void *, int, int, int64_t, const void *) noexcept nogil
    ctypedef int (*cg_cudnn_get_t)(void *, int, int, int64_t, int64_t *, void *) noexcept nogil
    ctypedef int (*cg_cudnn_execute_t)(void *, void *, void *) noexcept nogil
    cdef cppclass cg_cudnn_handle:
        void *handle
        void *stream
        cg_cudnn_set_stream_t set_stream
        cg_cudnn_execute_t execute
    ctypedef struct cg_execution:
        cg_command command
        cg_cudnn_handle *handle
        void *plan
        void *pack
    ctypedef struct cg_cudnn_number:
        const char *name
        int number
    cg_cudnn_number cg_cudnn_numbers[1]
    int cg_execute(const cg_command *, void *) noexcept

cdef object library = None
cdef cg_cudnn_text_t cudnnGetErrorString
cdef cg_cudnn_last_error_t cudnnGetLastErrorString
cdef cg_cudnn_create_t cudnnCreate
cdef cg_cudnn_set_stream_t cudnnSetStream
cdef cg_cudnn_new_t cudnnBackendCreateDescriptor
cdef cg_cudnn_destroy_t cudnnBackendDestroyDescriptor, cudnnBackendFinalize
cdef cg_cudnn_set_t cudnnBackendSetAttribute
cdef cg_cudnn_get_t cudnnBackendGetAttribute
cdef cg_cudnn_execute_t cudnnBackendExecute

_lock = threading.RLock()
_handles = {}  # context -> Handle, or why there is none; they live as long as the process


def _numbers():
    found, i = {}, 0
    while cg_cudnn_numbers[i].name != NULL:
        found[cg_cudnn_numbers[i].name.decode().removeprefix("CUDNN_")] = cg_cudnn_numbers[i].number
        i += 1
    return SimpleNamespace(**found)


NUMBERS = _numbers()
_NOT_SUPPORTED = range(3000, 4000)
_FORMS = {NUMBERS.TYPE_INT64: "q", NUMBERS.TYPE_FLOAT: "f", NUMBERS.TYPE_DOUBLE: "d", NUMBERS.TYPE_VOID_PTR: "Q",
          NUMBERS.TYPE_HANDLE: "Q", NUMBERS.TYPE_BACKEND_DESCRIPTOR: "Q", NUMBERS.TYPE_BOOLEAN: "?",
          NUMBERS.TYPE_CHAR: "s"}  # others are enumerations of 32 bits


class NoWay(DeviceError):
    """The library has no way to compute what was asked of it."""


def open_cudnn():
    """Finds the library's functions. Raises `DeviceError` where it is not there, or is not for this driver."""
    global library, cudnnGetErrorString, cudnnGetLastErrorString, cudnnCreate, cudnnSetStream, cudnnBackendCreateDescriptor
    global cudnnBackendDestroyDescriptor, cudnnBackendFinalize, cudnnBackendSetAttribute, cudnnBackendGetAttribute
    global cudnnBackendExecute
    with _lock:
        found = libraries.find("cudnn")
        if found is library:
            return
        of = found.address
        if (<cg_cudnn_version_t> <size_t> of("cudnnGetVersion"))() < 90000:
            raise DeviceError(f"cuDNN ({found.path}): expected version 9, got {found.version}; install {found.known.package}")
        found.runs_on((<cg_cudnn_version_t> <size_t> of("cudnnGetCudartVersion"))())
        cudnnGetErrorString = <cg_cudnn_text_t> <size_t> of("cudnnGetErrorString")
        cudnnGetLastErrorString = <cg_cudnn_last_error_t> <size_t> of("cudnnGetLastErrorString")
        cudnnCreate = <cg_cudnn_create_t> <size_t> of("cudnnCreate")
        cudnnSetStream = <cg_cudnn_set_stream_t> <size_t> of("cudnnSetStream")
        cudnnBackendCreateDescriptor = <cg_cudnn_new_t> <size_t> of("cudnnBackendCreateDescriptor")
        cudnnBackendDestroyDescriptor = <cg_cudnn_destroy_t> <size_t> of("cudnnBackendDestroyDescriptor")
        cudnnBackendFinalize = <cg_cudnn_destroy_t> <size_t> of("cudnnBackendFinalize")
        cudnnBackendSetAttribute = <cg_cudnn_set_t> <size_t> of("cudnnBackendSetAttribute")
        cudnnBackendGetAttribute = <cg_cudnn_get_t> <size_t> of("cudnnBackendGetAttribute")
        cudnnBackendExecute = <cg_cudnn_execute_t> <size_t> of("cudnnBackendExecute")
        _handles.clear()
        library = found


def failed(int status, what):
    """The error that a status is: `NoWay` where the library has no such thing."""
    cdef char text[1024]
    text[0] = 0
    cudnnGetLastErrorString(text, sizeof(text))
    said = (<bytes> text).decode(errors="replace").strip()
    kind = NoWay if status in _NOT_SUPPORTED else DeviceError
    return kind(f"cuDNN: expected {what}, got {cudnnGetErrorString(status).decode()}" + (f" ({said})" if said else ""))


def explain(int status, str name):
    """What a result of a command's `run` means."""
    return f"cuDNN: {name}: {cudnnGetErrorString(-status).decode()}"


cdef int _check(int status, what) except -1:
    if status:
        raise failed(status, what)
    return 0


cdef class Handle:
    """The library's state on one GPU."""

    cdef cg_cudnn_handle *state

    def __init__(self):
        open_cudnn()
        self.state = new cg_cudnn_handle()
        self.state.set_stream, self.state.execute = cudnnSetStream, cudnnBackendExecute
        _check(cudnnCreate(&self.state.handle), "a handle on this GPU")

    @property
    def value(self):
        """The handle, a number."""
        return <size_t> self.state.handle

    @property
    def address(self):
        """Where its cg_cudnn_handle lies."""
        return <size_t> self.state


def handle():
    """The handle of this thread's context. Raises `DeviceError` where the library is not there or does not work with this GPU."""
    with _lock:
        open_cudnn()
        context = libraries.context()
        if context not in _handles:
            try:
                _handles[context] = Handle()
            except DeviceError as e:
                _handles[context] = str(e)
        if isinstance(_handles[context], str):
            raise DeviceError(_handles[context])
        return _handles[context]


def why_not():
    """Why the library is not to be used on this thread's GPU; '' where it is."""
    try:
        handle()
    except DeviceError as e:
        return str(e)
    return ""


def available():
    """Whether the library is there and works with this thread's GPU."""
    return not why_not()


cdef class Descriptor:
    """One of the library's descriptors, by its kind (NUMBERS.BACKEND_..._DESCRIPTOR). What it refers to lives as long."""

    cdef void *pointer
    cdef cg_cudnn_destroy_t destroy  # of the library that made it
    cdef list kept

    def __init__(self, int kind):
        self.kept, self.destroy = [], cudnnBackendDestroyDescriptor
        _check(cudnnBackendCreateDescriptor(kind, &self.pointer), f"a descriptor of kind {kind}")

    def __dealloc__(self):
        if self.pointer != NULL:
            self.destroy(self.pointer)

    @property
    def value(self):
        """Its address."""
        return <size_t> self.pointer

    def set(self, int attribute, int type_, *values):
        """Sets an attribute: numbers, other descriptors, or one bytes. Raises `NoWay`, `DeviceError`; itself."""
        cdef bytes raw
        cdef const char *data
        if type_ == NUMBERS.TYPE_CHAR:
            raw = values[0]
            n = len(raw)
        else:
            n = len(values)
            self.kept += [v for v in values if isinstance(v, Descriptor)]
            raw = struct.pack(f"{n}{_FORMS.get(type_, 'i')}", *(v.value if isinstance(v, Descriptor) else v for v in values))
        data = raw
        _check(cudnnBackendSetAttribute(self.pointer, attribute, type_, n, data), f"attribute {attribute}")
        return self

    def finalize(self, str what="a descriptor"):
        """Ends what can be set. Raises `NoWay` where the library has no such thing; itself."""
        _check(cudnnBackendFinalize(self.pointer), what)
        return self

    def get(self, int attribute, int type_, int64_t most):
        """Up to so many numbers of an attribute, or the bytes of a text."""
        cdef int64_t n = 0
        cdef vector[uint64_t] found
        found.resize(most)
        _check(cudnnBackendGetAttribute(self.pointer, attribute, type_, most, &n, found.data()), f"attribute {attribute}")
        form = _FORMS.get(type_, "i")
        n = min(n, most)
        raw = PyBytes_FromStringAndSize(<char *> found.data(), n * struct.calcsize(form))
        return raw.rstrip(b"\0") if form == "s" else list(struct.unpack(f"{n}{form}", raw))

    def children(self, int attribute, int kind):
        """The descriptors of an attribute."""
        cdef int64_t n = 0
        cdef vector[void *] pointers
        cdef int of = NUMBERS.TYPE_BACKEND_DESCRIPTOR
        what = f"attribute {attribute}"
        _check(cudnnBackendGetAttribute(self.pointer, attribute, of, 0, &n, NULL), what)
        made = [Descriptor(kind) for _ in range(n)]
        for d in made:
            pointers.push_back((<Descriptor> d).pointer)
        if n:
            _check(cudnnBackendGetAttribute(self.pointer, attribute, of, n, &n, pointers.data()), what)
        for d in made:
            (<Descriptor> d).kept.append(self)
        return made[:n]


def device_json():
    """The description of the chosen GPU from which plans for it can be made elsewhere. Raises `DeviceError` before cuDNN 9.8."""
    from cogkit.engine.cuda.device import device

    K = NUMBERS
    with device().active():
        d = Descriptor(K.BACKEND_DEVICEPROP_DESCRIPTOR).set(K.ATTR_DEVICEPROP_HANDLE, K.TYPE_HANDLE, handle().value)
        d.finalize("a device's description")
        return d.get(K.ATTR_DEVICEPROP_JSON_REPRESENTATION, K.TYPE_CHAR, 1 << 16).decode()


cdef class Execution:
    """A finished plan with its buffers: a command.

    plan: has `descriptor`, `uids` (of its tensors, in the order of the buffers), `alignments` (bytes, that their addresses must
    have), `scratch` (bytes), `name`, `notes` and `aligned_to(alignments, scratch)`: another for operands at odd places. Scratch
    is the last buffer, from scratch_at (bytes) on.
    """

    cdef cg_execution call
    cdef Descriptor pack
    cdef object owner
    cdef object plan
    cdef tuple buffers
    cdef size_t scratch_at
    cdef readonly size_t scratch

    def __init__(self, Handle owner, plan, buffers, size_t scratch_at=0):
        self.scratch_at = scratch_at
        self.owner, self.plan, self.buffers, self.scratch = owner, plan, tuple(buffers), plan.scratch
        self.call.command.run, self.call.command.state = cg_execute, &self.call
        self.call.handle = owner.state
        self.call.plan = (<Descriptor> plan.descriptor).pointer

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    @property
    def name(self):
        """What it computes, and the number of the library's engine."""
        return self.plan.name

    @property
    def notes(self):
        """The library's notes on the numbers that the engine makes."""
        return self.plan.notes

    def set_buffers(self, list addresses):
        """Binds the buffers; where they are aligned to fewer bytes than was thought, another plan is made."""
        K = NUMBERS
        found = [addresses[x.slot] + x.offset for x in self.buffers]
        least = tuple(min(a, f & -f) if f else a for a, f in zip(self.plan.alignments, found))
        if least != self.plan.alignments:
            self.plan = self.plan.aligned_to(least, self.scratch)
            self.call.plan = (<Descriptor> self.plan.descriptor).pointer
        pack = Descriptor(K.BACKEND_VARIANT_PACK_DESCRIPTOR)
        pack.set(K.ATTR_VARIANT_PACK_UNIQUE_IDS, K.TYPE_INT64, *self.plan.uids)
        pack.set(K.ATTR_VARIANT_PACK_DATA_POINTERS, K.TYPE_VOID_PTR, *found)
        pack.set(K.ATTR_VARIANT_PACK_WORKSPACE, K.TYPE_VOID_PTR, addresses[SLOT_SCRATCH] + self.scratch_at if self.scratch else 0)
        self.pack = pack.finalize("buffers of a plan")
        self.call.pack = self.pack.pointer

    def clone(self):
        """Another one with buffers of its own."""
        return Execution(self.owner, self.plan, self.buffers, self.scratch_at)

    def explain(self, int result):
        """What a result of `run` means."""
        return explain(result, self.name)

    def __repr__(self):
        return self.name
