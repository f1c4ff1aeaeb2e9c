/* A stand-in for libcublasLt: the functions that core/engine/cuda/cublaslt.pyx uses, on the fake driver. Products are summed in double
 * and rounded once. What the real library refuses or leaves undefined is an error here: unknown attributes, layouts that do not fit,
 * an algorithm of another product, addresses aligned to fewer bytes than were promised, memory outside the device's.
 * FAKE_CUBLASLT_SCRATCH: bytes of scratch that every product wants (0: none). */
#include "cublaslt_api.h"

#include "fake.h"

#include <stdlib.h>

namespace {

int error(const char *what, int status = CG_CUBLAS_STATUS_INVALID_VALUE) { return fake::complain("cuBLASLt", what, status); }

struct Desc {
    int compute, scale;
    int32_t ta = CG_CUBLAS_OP_N, tb = CG_CUBLAS_OP_N;
    uint32_t epilogue = CG_CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
    int32_t batch = 1;
    int64_t offset = 0;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256};
};

std::set<void *> descs, layouts, preferences;

bool type_of(int type, fake::Type &t) {
    switch (type) {
    case CG_CUDA_R_32F: t = fake::F4; return true;
    case CG_CUDA_R_64F: t = fake::F8; return true;
    case CG_CUDA_R_16F: t = fake::F2; return true;
    case CG_CUDA_R_16BF: t = fake::B2; return true;
    }
    return false;
}

template <class T> int take(T &to, const void *data, size_t size) {
    if (size != sizeof(T) || !data) return error("an attribute of another size");
    memcpy(&to, data, size);
    return 0;
}

/* What a product is made of: two that differ here differ in their algorithm. */
struct Key {
    int compute, scale, ta, tb, epilogue, type, result, none; /* an even number: no gaps, for all bytes are hashed */
    uint64_t m, n, k, ld[3], batch, alignment;
};

int check(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out, Key &key) {
    uint64_t m = d.ta == CG_CUBLAS_OP_T ? a.columns : a.rows, k = d.ta == CG_CUBLAS_OP_T ? a.rows : a.columns;
    uint64_t kb = d.tb == CG_CUBLAS_OP_T ? b.columns : b.rows, n = d.tb == CG_CUBLAS_OP_T ? b.rows : b.columns;
    if (k != kb || out.rows != m || out.columns != n || c.rows != m || c.columns != n) return error("layouts that do not fit");
    bool widens = (a.type == CG_CUDA_R_16F || a.type == CG_CUDA_R_16BF) && out.type == CG_CUDA_R_32F;
    if (a.type != b.type || (a.type != out.type && !widens) || out.type != c.type) return error("types that differ", CG_CUBLAS_STATUS_NOT_SUPPORTED);
    if (a.batch != b.batch || a.batch != out.batch) return error("batches that differ");
    if (!m || !n || !k) return error("an empty product");
    for (const Layout *l : {&a, &b, &c, &out})
        if (l->ld < int64_t(l->rows)) return error("a leading dimension below the rows");
    if ((d.compute == CG_CUBLAS_COMPUTE_64F) != (a.type == CG_CUDA_R_64F)) return error("float64 not computed in float64");
    if (d.scale != (d.compute == CG_CUBLAS_COMPUTE_64F ? CG_CUDA_R_64F : CG_CUDA_R_32F)) return error("a scale of another type");
    if (d.compute == CG_CUBLAS_COMPUTE_32F_FAST_TF32 && a.type != CG_CUDA_R_32F) return error("tf32 of another type than float32");
    if ((d.epilogue & CG_CUBLASLT_EPILOGUE_BIAS) && !d.bias) return error("no bias");
    key = {d.compute, d.scale, d.ta, d.tb, int(d.epilogue), a.type, out.type, 0, m, n, k, {uint64_t(a.ld), uint64_t(b.ld), uint64_t(out.ld)}, uint64_t(a.batch), 0};
    return 0;
}

uint64_t hash(const Key &key) {
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof(Key); i++) h = (h ^ reinterpret_cast<const unsigned char *>(&key)[i]) * 1099511628211u;
    return h;
}

size_t scratch() {
    const char *given = getenv("FAKE_CUBLASLT_SCRATCH");
    return given ? strtoull(given, nullptr, 10) : 0;
}

template <class T> int destroy(std::set<void *> &of, void *p) {
    if (!of.erase(p)) return error("a descriptor that is not there");
    delete static_cast<T *>(p);
    return 0;
}

size_t bytes(const Layout &l, fake::Type t) {
    return ((l.columns - 1) * l.ld + l.rows + (l.batch - 1) * l.offset) * fake::size_of(t);
}

}  // namespace

FAKE size_t cublasLtGetVersion() { return 130100; }
FAKE size_t cublasLtGetCudartVersion() {
    const char *given = getenv("FAKE_CUDART");
    return given ? strtoull(given, nullptr, 10) : 12000;
}
FAKE const char *cublasLtGetStatusString(int status) {
    switch (status) {
    case CG_CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CG_CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CG_CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CG_CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_NOT_INITIALIZED";
}
FAKE int cublasLtCreate(void **handle) {
    static auto context = fake::driver<int (*)(void **)>("cuCtxGetCurrent");
    void *current = nullptr;
    if (!context || context(&current) || !current) return 1; /* not initialised */
    *handle = current;
    return 0;
}

FAKE int cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
    descs.insert(*desc = new Desc{compute, scale});
    return 0;
}
FAKE int cublasLtMatmulDescDestroy(void *desc) { return destroy<Desc>(descs, desc); }
FAKE int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *data, size_t size) {
    if (!descs.count(desc)) return error("no description of a product");
    Desc &d = *static_cast<Desc *>(desc);
    switch (attribute) {
    case CG_CUBLASLT_MATMUL_DESC_TRANSA: return take(d.ta, data, size);
    case CG_CUBLASLT_MATMUL_DESC_TRANSB: return take(d.tb, data, size);
    case CG_CUBLASLT_MATMUL_DESC_EPILOGUE: return take(d.epilogue, data, size);
    case CG_CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(d.bias, data, size);
    }
    return error("an unknown attribute of a product");
}

FAKE int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    fake::Type t;
    if (!type_of(type, t)) return error("an unknown type");
    layouts.insert(*layout = new Layout{type, rows, columns, ld});
    return 0;
}
FAKE int cublasLtMatrixLayoutDestroy(void *layout) { return destroy<Layout>(layouts, layout); }
FAKE int cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *data, size_t size) {
    if (!layouts.count(layout)) return error("no layout");
    Layout &l = *static_cast<Layout *>(layout);
    switch (attribute) {
    case CG_CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(l.batch, data, size);
    case CG_CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(l.offset, data, size);
    }
    return error("an unknown attribute of a layout");
}

FAKE int cublasLtMatmulPreferenceCreate(void **preference) {
    preferences.insert(*preference = new Preference);
    return 0;
}
FAKE int cublasLtMatmulPreferenceDestroy(void *preference) { return destroy<Preference>(preferences, preference); }
FAKE int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *data, size_t size) {
    if (!preferences.count(preference)) return error("no preference");
    Preference &p = *static_cast<Preference *>(preference);
    if (attribute == CG_CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return take(p.workspace, data, size);
    int i = attribute - CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (i >= 0 && i < 4) return take(p.alignment[i], data, size);
    return error("an unknown attribute of a preference");
}

FAKE int cublasLtMatmulAlgoGetHeuristic(void *, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted,
                                        cg_lt_heuristic *results, int *found) {
    if (!descs.count(desc) || !layouts.count(a) || !layouts.count(b) || !layouts.count(c) || !layouts.count(d) ||
        !preferences.count(preference) || wanted < 1)
        return error("a descriptor that is not there");
    Key key;
    int status = check(*static_cast<Desc *>(desc), *static_cast<Layout *>(a), *static_cast<Layout *>(b), *static_cast<Layout *>(c),
                       *static_cast<Layout *>(d), key);
    if (status) return status == CG_CUBLAS_STATUS_INVALID_VALUE ? CG_CUBLAS_STATUS_INTERNAL_ERROR : status; /* no size: a mistake */
    *found = 0;
    Preference &p = *static_cast<Preference *>(preference);
    uint32_t least = 256;
    for (uint32_t x : p.alignment) least = x < least ? x : least;
    if (scratch() > p.workspace || (key.type == CG_CUDA_R_64F && key.epilogue != CG_CUBLASLT_EPILOGUE_DEFAULT))
        return CG_CUBLAS_STATUS_NOT_SUPPORTED;
    memset(results, 0, sizeof *results);
    results->algo.data[0] = hash(key);
    for (int i = 0; i < 4; i++) results->algo.data[1 + i] = p.alignment[i];
    results->workspace = scratch();
    *found = 1;
    return 0;
}

FAKE int cublasLtMatmul(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
                        const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const cg_lt_algo *algo, void *workspace,
                        size_t size, void *stream) {
    if (!handle || !descs.count(desc) || !layouts.count(a_layout) || !layouts.count(b_layout) || !layouts.count(c_layout) ||
        !layouts.count(d_layout))
        return error("a descriptor that is not there");
    Desc &p = *static_cast<Desc *>(desc);
    Layout &la = *static_cast<Layout *>(a_layout), &lb = *static_cast<Layout *>(b_layout), &lc = *static_cast<Layout *>(c_layout),
           &ld = *static_cast<Layout *>(d_layout);
    Key key;
    int status = check(p, la, lb, lc, ld, key);
    if (status) return status;
    if (!algo || algo->data[0] != hash(key)) return error("an algorithm of another product");
    const void *operands[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (reinterpret_cast<uint64_t>(operands[i]) % algo->data[1 + i]) return error("an address that is not aligned as promised");
    if (size < scratch() || (scratch() && !workspace)) return error("too little scratch");
    fake::Type t, to;
    type_of(la.type, t), type_of(ld.type, to);
    double scale = key.compute == CG_CUBLAS_COMPUTE_64F ? *static_cast<const double *>(alpha) : *static_cast<const float *>(alpha);
    double more = key.compute == CG_CUBLAS_COMPUTE_64F ? *static_cast<const double *>(beta) : *static_cast<const float *>(beta);
    if (!fake::on_device(a, bytes(la, t)) || !fake::on_device(b, bytes(lb, t)) || !fake::on_device(d, bytes(ld, to)) ||
        (more && !fake::on_device(c, bytes(lc, to))) || !fake::on_device(workspace, scratch()) ||
        ((p.epilogue & CG_CUBLASLT_EPILOGUE_BIAS) && !fake::on_device(p.bias, key.m * fake::size_of(to))))
        return error("memory outside the device's", CG_CUBLAS_STATUS_EXECUTION_FAILED);
    const void *bias = p.bias;
    return fake::enqueue(stream, [=, la = la, lb = lb, lc = lc, ld = ld] {
        if (scratch()) memset(workspace, 0xee, scratch());
        for (int64_t s = 0; s < la.batch; s++)
            for (uint64_t j = 0; j < key.n; j++)
                for (uint64_t i = 0; i < key.m; i++) {
                    double sum = 0;
                    for (uint64_t q = 0; q < key.k; q++)
                        sum += fake::get(t, a, s * la.offset + (key.ta ? i * la.ld + q : q * la.ld + i)) *
                               fake::get(t, b, s * lb.offset + (key.tb ? q * lb.ld + j : j * lb.ld + q));
                    sum *= scale;
                    if (more) sum += more * fake::get(to, c, s * lc.offset + j * lc.ld + i);
                    if (key.epilogue & CG_CUBLASLT_EPILOGUE_BIAS) sum += fake::get(to, bias, i);
                    if ((key.epilogue & CG_CUBLASLT_EPILOGUE_RELU) && sum < 0) sum = 0;
                    fake::put(to, d, s * ld.offset + j * ld.ld + i, sum);
                }
    }) ? CG_CUBLAS_STATUS_EXECUTION_FAILED : 0;
}
