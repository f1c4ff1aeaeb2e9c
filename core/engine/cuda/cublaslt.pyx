"""Soft link to cuBLASLt: matrix products as commands of a plan, with bias and relu done while the result is in registers.

Matrices are row-major, as everywhere in cogkit; the library's are column-major, where the same bytes are the transposed matrix.
So it is asked for out' = b' a', and the output's columns are its rows.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

import threading

from cogkit.engine.cuda import libraries
from cogkit.engine.cuda.driver import SLOT_SCRATCH
from cogkit.errors import DeviceError

__all__ = ["MatMul", "NoWay", "WORKSPACE", "available", "matmul", "why_not"]


cdef extern from "cublaslt_api.h" nogil:
    ctypedef struct cg_command:
        int (*run)(const cg_command *, void *) noexcept nogil
        void *state
    ctypedef struct cg_lt_algo:
        pass
    ctypedef struct cg_lt_heuristic:
        cg_lt_algo algo
        size_t workspace
        int state
    ctypedef size_t (*cg_lt_version_t)() noexcept nogil
    ctypedef const char *(*cg_lt_text_t)(int) noexcept nogil
    ctypedef int (*cg_lt_create_t)(void **) noexcept nogil
    ctypedef int (*cg_lt_desc_create_t)(void **, int, int) noexcept nogil
    ctypedef int (*cg_lt_layout_create_t)(void **, int, uint64_t, uint64_t, int64_t) noexcept nogil
    ctypedef int (*cg_lt_pref_create_t)(void **) noexcept nogil
    ctypedef int (*cg_lt_set_t)(void *, int, const void *, size_t) noexcept nogil
    ctypedef int (*cg_lt_destroy_t)(void *) noexcept nogil
    ctypedef int (*cg_lt_choose_t)(void *, void *, void *, void *, void *, void *, void *, int, cg_lt_heuristic *,
                                   int *) noexcept nogil
    ctypedef int (*cg_lt_matmul_t)(void *, void *, const void *, const void *, void *, const void *, void *, const void *,
                                   const void *, void *, void *, void *, const cg_lt_algo *, void *, size_t,
                                   void *) noexcept nogil
    ctypedef union cg_scalar:
        float f
        double d
    ctypedef struct cg_matmul:
        cg_command command
        cg_lt_matmul_t function
        void *handle
        void *desc
        void *a_layout
        void *b_layout
        void *d_layout
        cg_scalar alpha
        cg_scalar beta
        const void *a
        const void *b
        const void *c
        void *d
        void *workspace
        cg_lt_algo algo[3]
        size_t workspace_size[3]
        uint64_t item
    int R_32F "CG_CUDA_R_32F", R_64F "CG_CUDA_R_64F", R_16F "CG_CUDA_R_16F", R_16BF "CG_CUDA_R_16BF"
    int COMPUTE_32F "CG_CUBLAS_COMPUTE_32F", COMPUTE_64F "CG_CUBLAS_COMPUTE_64F", COMPUTE_TF32 "CG_CUBLAS_COMPUTE_32F_FAST_TF32"
    int OP_N "CG_CUBLAS_OP_N", OP_T "CG_CUBLAS_OP_T"
    int DESC_TRANSA "CG_CUBLASLT_MATMUL_DESC_TRANSA", DESC_TRANSB "CG_CUBLASLT_MATMUL_DESC_TRANSB"
    int DESC_EPILOGUE "CG_CUBLASLT_MATMUL_DESC_EPILOGUE", DESC_BIAS_POINTER "CG_CUBLASLT_MATMUL_DESC_BIAS_POINTER"
    int EPILOGUE_DEFAULT "CG_CUBLASLT_EPILOGUE_DEFAULT", EPILOGUE_RELU "CG_CUBLASLT_EPILOGUE_RELU"
    int EPILOGUE_BIAS "CG_CUBLASLT_EPILOGUE_BIAS", EPILOGUE_RELU_BIAS "CG_CUBLASLT_EPILOGUE_RELU_BIAS"
    int LAYOUT_BATCH_COUNT "CG_CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT"
    int LAYOUT_BATCH_OFFSET "CG_CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET"
    int PREF_WORKSPACE "CG_CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES"
    int PREF_ALIGNMENT_A "CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES"
    int NOT_SUPPORTED "CG_CUBLAS_STATUS_NOT_SUPPORTED", INVALID_VALUE "CG_CUBLAS_STATUS_INVALID_VALUE"

WORKSPACE = 32 << 20  # bytes that a product may want: what NVIDIA advises for Hopper

cdef object library = None
cdef cg_lt_text_t cublasLtGetStatusString
cdef cg_lt_create_t cublasLtCreate
cdef cg_lt_desc_create_t cublasLtMatmulDescCreate
cdef cg_lt_set_t cublasLtMatmulDescSetAttribute, cublasLtMatrixLayoutSetAttribute, cublasLtMatmulPreferenceSetAttribute
cdef cg_lt_destroy_t cublasLtMatmulDescDestroy, cublasLtMatrixLayoutDestroy, cublasLtMatmulPreferenceDestroy
cdef cg_lt_layout_create_t cublasLtMatrixLayoutCreate
cdef cg_lt_pref_create_t cublasLtMatmulPreferenceCreate
cdef cg_lt_choose_t cublasLtMatmulAlgoGetHeuristic
cdef cg_lt_matmul_t cublasLtMatmul

_lock = threading.RLock()
_handles = {}  # context -> handle, or why there is none; they live as long as the process
_TYPES = {"f4": (R_32F, 4), "f8": (R_64F, 8), "f2": (R_16F, 2), "b2": (R_16BF, 2)}


class NoWay(DeviceError):
    """The library has no way to compute what was asked of it."""


def _open():
    """Finds the library's functions. Raises `DeviceError` where it is not there, or is not for this driver."""
    global library, cublasLtGetStatusString, cublasLtCreate, cublasLtMatmulDescCreate, cublasLtMatmulDescSetAttribute
    global cublasLtMatrixLayoutSetAttribute, cublasLtMatmulPreferenceSetAttribute, cublasLtMatmulDescDestroy
    global cublasLtMatrixLayoutDestroy, cublasLtMatmulPreferenceDestroy, cublasLtMatrixLayoutCreate
    global cublasLtMatmulPreferenceCreate, cublasLtMatmulAlgoGetHeuristic, cublasLtMatmul
    found = libraries.find("cublaslt")
    if found is library:
        return
    of = found.address
    found.runs_on((<cg_lt_version_t> <size_t> of("cublasLtGetCudartVersion"))())
    cublasLtGetStatusString = <cg_lt_text_t> <size_t> of("cublasLtGetStatusString")
    cublasLtCreate = <cg_lt_create_t> <size_t> of("cublasLtCreate")
    cublasLtMatmulDescCreate = <cg_lt_desc_create_t> <size_t> of("cublasLtMatmulDescCreate")
    cublasLtMatmulDescSetAttribute = <cg_lt_set_t> <size_t> of("cublasLtMatmulDescSetAttribute")
    cublasLtMatmulDescDestroy = <cg_lt_destroy_t> <size_t> of("cublasLtMatmulDescDestroy")
    cublasLtMatrixLayoutCreate = <cg_lt_layout_create_t> <size_t> of("cublasLtMatrixLayoutCreate")
    cublasLtMatrixLayoutSetAttribute = <cg_lt_set_t> <size_t> of("cublasLtMatrixLayoutSetAttribute")
    cublasLtMatrixLayoutDestroy = <cg_lt_destroy_t> <size_t> of("cublasLtMatrixLayoutDestroy")
    cublasLtMatmulPreferenceCreate = <cg_lt_pref_create_t> <size_t> of("cublasLtMatmulPreferenceCreate")
    cublasLtMatmulPreferenceSetAttribute = <cg_lt_set_t> <size_t> of("cublasLtMatmulPreferenceSetAttribute")
    cublasLtMatmulPreferenceDestroy = <cg_lt_destroy_t> <size_t> of("cublasLtMatmulPreferenceDestroy")
    cublasLtMatmulAlgoGetHeuristic = <cg_lt_choose_t> <size_t> of("cublasLtMatmulAlgoGetHeuristic")
    cublasLtMatmul = <cg_lt_matmul_t> <size_t> of("cublasLtMatmul")
    _handles.clear()
    library = found


cdef size_t _handle() except 0:
    """The handle of this thread's context."""
    cdef void *made = NULL
    with _lock:
        _open()
        context = libraries.context()
        if context not in _handles:
            try:
                _check(cublasLtCreate(&made), "a handle on this GPU")
                _handles[context] = <size_t> made
            except DeviceError as e:
                _handles[context] = str(e)
        if isinstance(_handles[context], str):
            raise DeviceError(_handles[context])
        return _handles[context]


cdef int _check(int status, what) except -1:
    if status:
        text = cublasLtGetStatusString(status).decode()
        raise (NoWay if status == NOT_SUPPORTED else DeviceError)(f"cuBLASLt: expected {what}, got {text}")
    return 0


def why_not():
    """Why the library is not to be used on this thread's GPU; '' where it is."""
    try:
        _handle()
    except DeviceError as e:
        return str(e)
    return ""


def available():
    """Whether the library is there and works with this thread's GPU."""
    return not why_not()


def matmul(*arguments, **options):
    """`MatMul` of the same arguments, or None where the library is not there or has no way to compute it."""
    if not available():
        return None
    try:
        return MatMul(*arguments, **options)
    except NoWay:
        return None


cdef int _way_of(size_t places) noexcept nogil:
    """Which way is for operands at places whose bits these are."""
    return 0 if places & 63 == 0 else 1 if places & 15 == 0 else 2


cdef int _run(const cg_command *command, void *stream) noexcept nogil:
    cdef const cg_matmul *c = <const cg_matmul *> command.state
    cdef int way = _way_of(<size_t> c.a | <size_t> c.b | <size_t> c.c | <size_t> c.d)
    return -c.function(c.handle, c.desc, &c.alpha, c.a, c.a_layout, c.b, c.b_layout, &c.beta, c.c, c.d_layout, c.d, c.d_layout,
                       &c.algo[way], c.workspace, c.workspace_size[way], stream)


cdef class _Layouts:
    """How the three matrices lie; shared by a product and its clones."""

    cdef void *a
    cdef void *b
    cdef void *d

    def __dealloc__(self):
        if self.a != NULL:
            cublasLtMatrixLayoutDestroy(self.a)
        if self.b != NULL:
            cublasLtMatrixLayoutDestroy(self.b)
        if self.d != NULL:
            cublasLtMatrixLayoutDestroy(self.d)

    cdef void *make(self, int kind, uint64_t rows, uint64_t columns, int64_t ld, int32_t batch, int64_t offset) except NULL:
        cdef void *made = NULL
        _check(cublasLtMatrixLayoutCreate(&made, kind, rows, columns, ld), f"a matrix of {rows} x {columns}")
        if batch > 1:
            cublasLtMatrixLayoutSetAttribute(made, LAYOUT_BATCH_COUNT, &batch, sizeof(batch))
            cublasLtMatrixLayoutSetAttribute(made, LAYOUT_BATCH_OFFSET, &offset, sizeof(offset))
        return made


cdef class MatMul:
    """out = a b + bias + added, then relu: a command. a, b, out, bias, added: buffers (`B`).

    a: (m, k), transposed (k, m); b: (k, n), transposed (n, k); out: (m, n), all row-major with lda, ldb, ldc elements from a row
    to the next (0: dense); `batch` of them with batch_a, batch_b, batch_c elements from one to the next (None: dense; 0: the same
    for all). bias: (n,). added: of out's form. dtype: 'f4', 'f8', 'f2' or 'b2' (bfloat16); halves are summed in float32; tf32:
    float32 products are of numbers rounded to ten bits. result: type of out, bias and added where it is another ('f4' of 'f2' and
    'b2'). scratch: bytes that it wants in the last buffer, from `scratch_at` on, at most `workspace`;
    buffers are best aligned to 64 bytes, next best to 16. Same operands at places aligned alike, same bits.
    Raises `ValueError` for sizes below one, `NoWay` where the library does not compute it, `DeviceError` where it is not there.
    """

    cdef cg_matmul call
    cdef _Layouts layouts
    cdef object made  # (a, b, out, bias, added, dtype)
    cdef int ways  # bit i: the way i is chosen, for operands aligned to 64 bytes, to 16, to their elements
    cdef size_t scratch_at
    cdef readonly str name
    cdef readonly size_t scratch

    def __init__(self, a, b, out, int64_t m, int64_t n, int64_t k, *, str dtype="f4", int64_t batch=1, transpose_a=False,
                 transpose_b=False, int64_t lda=0, int64_t ldb=0, int64_t ldc=0, batch_a=None, batch_b=None, batch_c=None,
                 bias=None, relu=False, added=None, tf32=False, str result=None, size_t scratch_at=0,
                 size_t workspace=WORKSPACE):
        if min(m, n, k, batch) < 1:
            raise ValueError(f"matmul: expected sizes of at least one, got m={m}, n={n}, k={k}, batch={batch}")
        for given in (dtype, result or dtype):
            if given not in _TYPES:
                raise ValueError(f"matmul: expected one of {', '.join(_TYPES)}, got {given}")
        cdef int kind = _TYPES[dtype][0]
        cdef bint ta = transpose_a, tb = transpose_b
        self.call.handle = <void *> _handle()
        lda, ldb, ldc = lda or (m if ta else k), ldb or (k if tb else n), ldc or n
        self.scratch_at = scratch_at
        self.name = f"cublaslt_{dtype}{'_' + result if result else ''}_{m}x{n}x{k}" + (f"x{batch}" if batch > 1 else "")
        self.call.command.run, self.call.command.state = _run, &self.call
        self.call.function = cublasLtMatmul
        if dtype == "f8":
            self.call.alpha.d, self.call.beta.d = 1, 1 if added is not None else 0
        else:
            self.call.alpha.f, self.call.beta.f = 1, 1 if added is not None else 0
        self.layouts = _Layouts()
        batch_a, batch_b, batch_c = (own if x is None else x for x, own in ((batch_a, m * k), (batch_b, n * k), (batch_c, m * n)))
        self.layouts.a = self.layouts.make(kind, k if tb else n, n if tb else k, ldb, batch, batch_b)
        self.layouts.b = self.layouts.make(kind, m if ta else k, k if ta else m, lda, batch, batch_a)
        self.layouts.d = self.layouts.make(_TYPES[result or dtype][0], n, m, ldc, batch, batch_c)
        self.call.a_layout, self.call.b_layout, self.call.d_layout = self.layouts.a, self.layouts.b, self.layouts.d
        self.made = (a, b, out, bias, added, dtype, bool(tf32), ta, tb, bool(relu))
        self._describe()
        self.scratch = workspace
        self.call.item = _TYPES[dtype][1]
        way = _way_of(a.offset | b.offset | out.offset | (0 if added is None else added.offset))
        self._choose(way)
        self.scratch = self.call.workspace_size[way]

    def __dealloc__(self):
        if self.call.desc != NULL:
            cublasLtMatmulDescDestroy(self.call.desc)

    cdef int _describe(self) except -1:
        """The description of the product; it holds the bias's address, so each clone has its own."""
        bias = self.made[3]
        dtype, tf32, ta, tb, relu = self.made[5:]
        cdef int compute = COMPUTE_64F if dtype == "f8" else COMPUTE_TF32 if tf32 and dtype == "f4" else COMPUTE_32F
        cdef int32_t op_a = OP_T if tb else OP_N, op_b = OP_T if ta else OP_N
        cdef uint32_t epilogue = EPILOGUE_DEFAULT
        cdef uint64_t somewhere = 256  # the heuristic wants to see an address
        _check(cublasLtMatmulDescCreate(&self.call.desc, compute, R_64F if dtype == "f8" else R_32F), f"a product of {dtype}")
        cublasLtMatmulDescSetAttribute(self.call.desc, DESC_TRANSA, &op_a, sizeof(op_a))
        cublasLtMatmulDescSetAttribute(self.call.desc, DESC_TRANSB, &op_b, sizeof(op_b))
        if bias is not None:
            epilogue = EPILOGUE_RELU_BIAS if relu else EPILOGUE_BIAS
            cublasLtMatmulDescSetAttribute(self.call.desc, DESC_BIAS_POINTER, &somewhere, sizeof(somewhere))
        elif relu:
            epilogue = EPILOGUE_RELU
        _check(cublasLtMatmulDescSetAttribute(self.call.desc, DESC_EPILOGUE, &epilogue, sizeof(epilogue)), "bias and relu")
        return 0

    cdef int _choose(self, int way) except -1:
        """Has the library's choice for operands aligned like this, with no more scratch than now."""
        cdef void *pref = NULL
        cdef cg_lt_heuristic result
        cdef int found = 0, status = 0
        cdef uint64_t most = self.scratch
        cdef uint32_t aligned = (64, 16, self.call.item)[way]
        if self.ways >> way & 1:
            return 0
        memset(&result, 0, sizeof(result))
        _check(cublasLtMatmulPreferenceCreate(&pref), "a preference")
        cublasLtMatmulPreferenceSetAttribute(pref, PREF_WORKSPACE, &most, sizeof(most))
        for i in range(4):  # a, b, c, d
            cublasLtMatmulPreferenceSetAttribute(pref, PREF_ALIGNMENT_A + i, &aligned, sizeof(aligned))
        status = cublasLtMatmulAlgoGetHeuristic(self.call.handle, self.call.desc, self.call.a_layout, self.call.b_layout,
                                                self.call.d_layout, self.call.d_layout, pref, 1, &result, &found)
        cublasLtMatmulPreferenceDestroy(pref)
        if status == INVALID_VALUE or (status == 0 and found == 0):  # what it says of sizes that no kernel takes
            status = NOT_SUPPORTED
        _check(status or result.state, f"a way to compute {self.name}")
        self.call.algo[way], self.call.workspace_size[way] = result.algo, result.workspace
        self.ways |= 1 << way
        return 0

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    def set_buffers(self, list addresses):
        """Writes the addresses of the buffers; how they are aligned says which way is taken."""
        cdef uint64_t place
        a, b, out, bias, added = self.made[:5]
        if added is None:
            added = out
        found = [addresses[x.slot] + x.offset for x in (b, a, added, out)]
        if bias is not None:
            place = addresses[bias.slot] + bias.offset
            _check(cublasLtMatmulDescSetAttribute(self.call.desc, DESC_BIAS_POINTER, &place, sizeof(place)), "a bias")
        self._choose(_way_of(found[0] | found[1] | found[2] | found[3]))
        self.call.a, self.call.b = <const void *> <size_t> found[0], <const void *> <size_t> found[1]
        self.call.c, self.call.d = <const void *> <size_t> found[2], <void *> <size_t> found[3]
        self.call.workspace = <void *> <size_t> (addresses[SLOT_SCRATCH] + self.scratch_at) if self.scratch else NULL

    @property
    def words(self):
        """As those of `Launch`; None where the library keeps one, that of a bias, or computes nothing at odd places."""
        a, b, out, bias, added = self.made[:5]
        if bias is not None:
            return None
        try:
            for way in range(3):
                self._choose(way)
        except NoWay:
            return None
        places = (<size_t> &self.call.a, <size_t> &self.call.b, <size_t> &self.call.c, <size_t> &self.call.d)
        found = [(at, x.slot, x.offset) for at, x in zip(places, (b, a, out if added is None else added, out))]
        return [*found, (<size_t> &self.call.workspace, SLOT_SCRATCH, self.scratch_at)] if self.scratch else found

    def clone(self):
        """Another one with buffers of its own."""
        cdef MatMul other = MatMul.__new__(MatMul)
        other.call = self.call
        other.call.desc = NULL
        other.call.command.state = &other.call
        other.layouts, other.made, other.ways = self.layouts, self.made, self.ways
        other.name, other.scratch, other.scratch_at = self.name, self.scratch, self.scratch_at
        other._describe()
        return other

    def explain(self, int result):
        """What a result of `run` means."""
        return f"cuBLASLt: {self.name}: {cublasLtGetStatusString(-result).decode()}"

    def __repr__(self):
        *_, bias, added, _, tf32, ta, tb, relu = self.made
        words = (("a'", ta), ("b'", tb), ("bias", bias), ("relu", relu), ("added", added), ("tf32", tf32))
        return " ".join([self.name, *(word for word, there in words if there)])
