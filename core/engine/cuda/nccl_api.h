/* The part of NCCL 2's interface that is used, as facts of our own: no header of NVIDIA's is needed. A test compares numbers and arguments
 * with the header where it is installed. */
#ifndef COGKIT_NCCL_API_H
#define COGKIT_NCCL_API_H
#include "command.h"

/* CG_ before NVIDIA's name */
enum {
    CG_ncclSuccess = 0,
    CG_ncclSystemError = 2,
    CG_ncclInvalidArgument = 4,
    CG_ncclInvalidUsage = 5,
    CG_ncclRemoteError = 6,

    CG_ncclSum = 0,
    CG_ncclProd = 1,
    CG_ncclMax = 2,
    CG_ncclMin = 3,
    CG_ncclAvg = 4,

    CG_ncclInt8 = 0,
    CG_ncclUint8 = 1,
    CG_ncclInt32 = 2,
    CG_ncclUint32 = 3,
    CG_ncclInt64 = 4,
    CG_ncclUint64 = 5,
    CG_ncclFloat16 = 6,
    CG_ncclFloat32 = 7,
    CG_ncclFloat64 = 8,
    CG_ncclBfloat16 = 9,
};

typedef struct cg_nccl_id { /* passed by value */
    char bytes[128];
} cg_nccl_id;

typedef int (*cg_nccl_version_t)(int *version);
typedef const char *(*cg_nccl_text_t)(int status);
typedef int (*cg_nccl_unique_t)(cg_nccl_id *id);
typedef int (*cg_nccl_init_t)(void **communicator, int size, cg_nccl_id id, int rank);
typedef int (*cg_nccl_end_t)(void *communicator);
typedef const char *(*cg_nccl_last_error_t)(void *communicator);
typedef int (*cg_nccl_failure_t)(void *communicator, int *status);
/* all-reduce and reduce-scatter; broadcast has the root's rank in the place of the operation */
typedef int (*cg_nccl_reduce_t)(const void *from, void *to, size_t count, int type, int operation, void *communicator, void *stream);
typedef int (*cg_nccl_gather_t)(const void *from, void *to, size_t count, int type, void *communicator, void *stream);

/* One collective with its buffers; one of the two functions. */
typedef struct cg_collective {
    cg_command command;
    cg_nccl_reduce_t reduce;
    cg_nccl_gather_t gather;
    void *communicator;
    const void *from;
    void *to;
    size_t count;
    int type, operation;
} cg_collective;
#endif
