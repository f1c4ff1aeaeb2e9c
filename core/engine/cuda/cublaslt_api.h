/* The part of cuBLASLt's interface that is used, as facts of our own (cuBLAS 12 and 13): no header of NVIDIA's is needed. A test
 * compares names, numbers and arguments with the headers where they are installed. */
#ifndef COGKIT_CUBLASLT_API_H
#define COGKIT_CUBLASLT_API_H
#include "command.h"

/* CG_ before NVIDIA's name */
enum {
    CG_CUBLAS_STATUS_SUCCESS = 0,
    CG_CUBLAS_STATUS_INVALID_VALUE = 7,
    CG_CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CG_CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CG_CUBLAS_STATUS_NOT_SUPPORTED = 15,

    CG_CUDA_R_32F = 0,
    CG_CUDA_R_64F = 1,
    CG_CUDA_R_16F = 2,
    CG_CUDA_R_16BF = 14,

    CG_CUBLAS_COMPUTE_32F = 68,
    CG_CUBLAS_COMPUTE_64F = 70,
    CG_CUBLAS_COMPUTE_32F_FAST_TF32 = 77,

    CG_CUBLAS_OP_N = 0,
    CG_CUBLAS_OP_T = 1,

    CG_CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CG_CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CG_CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
    CG_CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,

    CG_CUBLASLT_EPILOGUE_DEFAULT = 1,
    CG_CUBLASLT_EPILOGUE_RELU = 2,
    CG_CUBLASLT_EPILOGUE_BIAS = 4,
    CG_CUBLASLT_EPILOGUE_RELU_BIAS = 6,

    CG_CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5,
    CG_CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6,

    CG_CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
    CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
    CG_CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

typedef struct cg_lt_algo { /* opaque */
    uint64_t data[8];
} cg_lt_algo;

typedef struct cg_lt_heuristic {
    cg_lt_algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} cg_lt_heuristic;

typedef int (*cg_lt_create_t)(void **handle);
typedef size_t (*cg_lt_version_t)(void);
typedef const char *(*cg_lt_text_t)(int status);
typedef int (*cg_lt_desc_create_t)(void **desc, int compute, int scale);
typedef int (*cg_lt_layout_create_t)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld);
typedef int (*cg_lt_pref_create_t)(void **pref);
typedef int (*cg_lt_set_t)(void *descriptor, int attribute, const void *data, size_t size);
typedef int (*cg_lt_destroy_t)(void *descriptor);
typedef int (*cg_lt_choose_t)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted,
                              cg_lt_heuristic *results, int *found);
typedef int (*cg_lt_matmul_t)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
                              const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const cg_lt_algo *algo,
                              void *workspace, size_t size, void *stream);

typedef union cg_scalar {
    float f;
    double d;
} cg_scalar;

/* One product with all that a call wants. */
typedef struct cg_matmul {
    cg_command command;
    cg_lt_matmul_t function;
    void *handle, *desc, *a_layout, *b_layout, *d_layout;
    cg_scalar alpha, beta;
    const void *a, *b, *c;
    void *d, *workspace;
    cg_lt_algo algo[3]; /* for operands aligned to 64 bytes, to 16, to their elements */
    size_t workspace_size[3];
    uint64_t item; /* bytes of an element */
} cg_matmul;
#endif
