"""Soft link to NCCL: sums and copies between the GPUs of several ranks, as commands that a plan puts on its stream."""

from libc.string cimport memcpy

import threading

from cogkit.engine.cuda import libraries
from cogkit.errors import DeviceError, RankError

__all__ = ["Collective", "Communicator", "available", "unique_id", "why_not"]


cdef extern from "nccl_api.h" nogil:
    ctypedef struct cg_command:
        int (*run)(const cg_command *, void *) noexcept nogil
        void *state
    ctypedef struct cg_nccl_id:
        char bytes[128]
    ctypedef int (*cg_nccl_version_t)(int *) noexcept nogil
    ctypedef const char *(*cg_nccl_text_t)(int) noexcept nogil
    ctypedef int (*cg_nccl_unique_t)(cg_nccl_id *) noexcept nogil
    ctypedef int (*cg_nccl_init_t)(void **, int, cg_nccl_id, int) noexcept nogil
    ctypedef int (*cg_nccl_end_t)(void *) noexcept nogil
    ctypedef const char *(*cg_nccl_last_error_t)(void *) noexcept nogil
    ctypedef int (*cg_nccl_failure_t)(void *, int *) noexcept nogil
    ctypedef int (*cg_nccl_reduce_t)(const void *, void *, size_t, int, int, void *, void *) noexcept nogil
    ctypedef int (*cg_nccl_gather_t)(const void *, void *, size_t, int, void *, void *) noexcept nogil
    ctypedef struct cg_collective:
        cg_command command
        cg_nccl_reduce_t reduce
        cg_nccl_gather_t gather
        void *communicator
        const void *from_ "from"
        void *to
        size_t count
        int type
        int operation
    int CG_ncclSum, CG_ncclProd, CG_ncclMax, CG_ncclMin, CG_ncclAvg
    int CG_ncclInt8, CG_ncclUint8, CG_ncclInt32, CG_ncclUint32, CG_ncclInt64, CG_ncclUint64
    int CG_ncclFloat16, CG_ncclFloat32, CG_ncclFloat64, CG_ncclBfloat16

_TYPES = {"i1": CG_ncclInt8, "u1": CG_ncclUint8, "i4": CG_ncclInt32, "u4": CG_ncclUint32, "i8": CG_ncclInt64, "u8": CG_ncclUint64,
          "f2": CG_ncclFloat16, "f4": CG_ncclFloat32, "f8": CG_ncclFloat64, "b2": CG_ncclBfloat16}
_OPERATIONS = {"sum": CG_ncclSum, "prod": CG_ncclProd, "max": CG_ncclMax, "min": CG_ncclMin, "mean": CG_ncclAvg}
_LEAST = 21000  # 2.10: means, and collectives in captured graphs

cdef object library = None
cdef cg_nccl_text_t ncclGetErrorString
cdef cg_nccl_unique_t ncclGetUniqueId
cdef cg_nccl_init_t ncclCommInitRank
cdef cg_nccl_end_t ncclCommDestroy, ncclCommAbort
cdef cg_nccl_last_error_t ncclGetLastError
cdef cg_nccl_failure_t ncclCommGetAsyncError
cdef cg_nccl_reduce_t ncclAllReduce, ncclReduceScatter, ncclBroadcast
cdef cg_nccl_gather_t ncclAllGather

_lock = threading.RLock()


def _open():
    """Finds the library's functions. Raises `DeviceError` where it is not there or too old."""
    global library, ncclGetErrorString, ncclGetUniqueId, ncclCommInitRank, ncclCommDestroy, ncclCommAbort, ncclGetLastError
    global ncclCommGetAsyncError, ncclAllReduce, ncclReduceScatter, ncclBroadcast, ncclAllGather
    cdef int version = 0
    with _lock:
        found = libraries.find("nccl")
        if found is library:
            return
        if not libraries.driver_version():
            raise DeviceError("NCCL: expected a CUDA driver, got none; install the NVIDIA driver")
        of = found.address
        (<cg_nccl_version_t> <size_t> of("ncclGetVersion"))(&version)
        if version < _LEAST:
            wish = f"NCCL ({found.path}): expected version 2.10 or later"
            raise DeviceError(f"{wish}, got {found.version}; install {found.known.package}")
        ncclGetErrorString = <cg_nccl_text_t> <size_t> of("ncclGetErrorString")
        ncclGetUniqueId = <cg_nccl_unique_t> <size_t> of("ncclGetUniqueId")
        ncclCommInitRank = <cg_nccl_init_t> <size_t> of("ncclCommInitRank")
        ncclCommDestroy = <cg_nccl_end_t> <size_t> of("ncclCommDestroy")
        ncclCommAbort = <cg_nccl_end_t> <size_t> of("ncclCommAbort")
        ncclGetLastError = <cg_nccl_last_error_t> <size_t> of("ncclGetLastError")
        ncclCommGetAsyncError = <cg_nccl_failure_t> <size_t> of("ncclCommGetAsyncError")
        ncclAllReduce = <cg_nccl_reduce_t> <size_t> of("ncclAllReduce")
        ncclReduceScatter = <cg_nccl_reduce_t> <size_t> of("ncclReduceScatter")
        ncclBroadcast = <cg_nccl_reduce_t> <size_t> of("ncclBroadcast")
        ncclAllGather = <cg_nccl_gather_t> <size_t> of("ncclAllGather")
        library = found


def why_not():
    """Why the library is not to be used; '' where it is."""
    try:
        _open()
    except DeviceError as e:
        return str(e)
    return ""


def available():
    """Whether the library is there."""
    return not why_not()


cdef _failed(int status, what, error, void *communicator):
    said = ncclGetLastError(communicator)
    more = f" ({said.decode(errors='replace').strip()})" if said != NULL and said[0] else ""
    return error(f"NCCL: expected {what}, got {ncclGetErrorString(status).decode()}{more}")


def unique_id():
    """128 bytes by which ranks find each other: one rank makes them and sends them to all. Raises `DeviceError`."""
    cdef cg_nccl_id made
    _open()
    status = ncclGetUniqueId(&made)
    if status:
        raise _failed(status, "a name for a group of ranks", DeviceError, NULL)
    return (<char *> &made)[:sizeof(made)]


cdef int _run(const cg_command *command, void *stream) noexcept nogil:
    cdef const cg_collective *c = <const cg_collective *> command.state
    if c.reduce != NULL:
        return -c.reduce(c.from_, c.to, c.count, c.type, c.operation, c.communicator, stream)
    return -c.gather(c.from_, c.to, c.count, c.type, c.communicator, stream)


cdef class Communicator:
    """One rank's part in a group of `size` ranks, each with a GPU of its own. identity: what `unique_id` gave on one of them.

    Made by all ranks at once, each waits for the others; so do collectives, which all must run in the same order. dtype: 'f4',
    'f8', 'f2', 'b2', or an integer 'i1' to 'u8'; operation: 'sum', 'prod', 'max', 'min' or 'mean'. Both operands may be one
    buffer.
    Raises `DeviceError` where the library is not there, `RankError` where the group does not come together.
    """

    cdef void *handle
    cdef readonly int rank
    cdef readonly int size

    def __init__(self, bytes identity, int rank, int size):
        cdef cg_nccl_id given
        cdef int status
        _open()
        if len(identity) != sizeof(given) or not 0 <= rank < size:
            raise ValueError(f"NCCL: expected 128 bytes and a rank below {size}, got {len(identity)} bytes and rank {rank}")
        memcpy(&given, <const char *> identity, sizeof(given))
        self.rank, self.size = rank, size
        with nogil:
            status = ncclCommInitRank(&self.handle, size, given, rank)
        if status:
            self.handle = NULL
            raise _failed(status, f"{size} ranks that meet (this is rank {rank})", RankError, NULL)

    def all_reduce(self, source, to, size_t count, dtype="f4", operation="sum"):
        """A command: `to` is the reduced `source` of all ranks, the same bits everywhere."""
        return self._collective("all_reduce", source, to, count, dtype, operation)

    def reduce_scatter(self, source, to, size_t count, dtype="f4", operation="sum"):
        """A command: `to`, of count elements, is this rank's part of the reduced `source`, of size * count elements."""
        return self._collective("reduce_scatter", source, to, count, dtype, operation)

    def all_gather(self, source, to, size_t count, dtype="f4"):
        """A command: `to`, of size * count elements, is what all ranks have in `source`, by rank."""
        return self._collective("all_gather", source, to, count, dtype, "sum")

    def broadcast(self, source, to, size_t count, dtype="f4", int root=0):
        """A command: `to` is the `source` of one rank."""
        if not 0 <= root < self.size:
            raise ValueError(f"NCCL: expected a rank below {self.size}, got {root}")
        cdef Collective made = self._collective("broadcast", source, to, count, dtype, "sum")
        made.call.operation = root
        return made

    cdef Collective _collective(self, str kind, source, to, size_t count, dtype, operation):
        if self.handle == NULL:
            raise RankError("NCCL: expected a group of ranks, got one that was left")
        if dtype not in _TYPES or operation not in _OPERATIONS:
            raise ValueError(f"NCCL: expected {', '.join(_TYPES)} and {', '.join(_OPERATIONS)}, got {dtype} and {operation}")
        cdef Collective made = Collective()
        made._make(self, kind, source, to, count, dtype, operation)
        return made

    def failure(self):
        """What went wrong in collectives that were put on streams: '' for nothing so far."""
        cdef int status = 0
        if self.handle == NULL:
            return "this rank has left"
        if ncclCommGetAsyncError(self.handle, &status) or status:
            return ncclGetErrorString(status).decode()
        return ""

    def close(self):
        """Leaves the group; all ranks do. Commands of it may run no more."""
        cdef void *handle = self.handle
        self.handle = NULL
        if handle != NULL:
            with nogil:
                ncclCommDestroy(handle)

    def abort(self):
        """Ends what is on streams, where another rank is gone, and leaves the group."""
        cdef void *handle = self.handle
        self.handle = NULL
        if handle != NULL:
            with nogil:
                ncclCommAbort(handle)


cdef class Collective:
    """A collective of a `Communicator` with its buffers: a command."""

    cdef cg_collective call
    cdef object made
    cdef readonly str name
    cdef readonly size_t scratch  # none

    cdef int _make(self, Communicator group, str kind, source, to, size_t count, str dtype, str operation) except -1:
        self.made = (group, source, to)
        self.name = f"nccl_{kind}_{dtype}_{count}"
        self.call.command.run, self.call.command.state = _run, &self.call
        if kind == "all_gather":
            self.call.gather = ncclAllGather
        elif kind == "all_reduce":
            self.call.reduce = ncclAllReduce
        elif kind == "reduce_scatter":
            self.call.reduce = ncclReduceScatter
        else:
            self.call.reduce = ncclBroadcast
        self.call.communicator, self.call.count = group.handle, count
        self.call.type, self.call.operation = _TYPES[dtype], _OPERATIONS[operation]
        return 0

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    def set_buffers(self, list addresses):
        """Writes the addresses of the buffers."""
        _, source, to = self.made
        self.call.from_ = <const void *> <size_t> (addresses[source.slot] + source.offset)
        self.call.to = <void *> <size_t> (addresses[to.slot] + to.offset)

    def clone(self):
        """Another one with buffers of its own."""
        cdef Collective other = Collective()
        other.call, other.made, other.name = self.call, self.made, self.name
        other.call.command.state = &other.call
        return other

    def explain(self, int result):
        """What a result of `run` means."""
        group = self.made[0]
        return f"NCCL: {self.name} on rank {group.rank} of {group.size}: {ncclGetErrorString(-result).decode()}"

    def __repr__(self):
        return self.name
