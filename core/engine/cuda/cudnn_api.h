/* The part of cuDNN 9's interface that is used, as facts of our own: no header of NVIDIA's is needed. A test compares names, numbers and
 * arguments with the headers where they are installed. */
#ifndef COGKIT_CUDNN_API_H
#define COGKIT_CUDNN_API_H
#include <mutex>

#include "command.h"

/* NVIDIA's names and their numbers */
#define CG_CUDNN_NUMBERS(X)                                               \
    /* statuses */                                                        \
    X(CUDNN_STATUS_SUCCESS, 0)                                            \
    X(CUDNN_STATUS_NOT_INITIALIZED, 1001)                                 \
    X(CUDNN_STATUS_BAD_PARAM, 2000)                                       \
    X(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, 2004)                         \
    X(CUDNN_STATUS_NOT_SUPPORTED, 3000)                                   \
    X(CUDNN_STATUS_INTERNAL_ERROR, 4000)                                  \
    X(CUDNN_STATUS_EXECUTION_FAILED, 5000)                                \
    /* types of elements */                                               \
    X(CUDNN_DATA_FLOAT, 0)                                                \
    X(CUDNN_DATA_DOUBLE, 1)                                               \
    X(CUDNN_DATA_HALF, 2)                                                 \
    X(CUDNN_DATA_BFLOAT16, 9)                                             \
    /* types of attributes */                                             \
    X(CUDNN_TYPE_HANDLE, 0)                                               \
    X(CUDNN_TYPE_DATA_TYPE, 1)                                            \
    X(CUDNN_TYPE_BOOLEAN, 2)                                              \
    X(CUDNN_TYPE_INT64, 3)                                                \
    X(CUDNN_TYPE_FLOAT, 4)                                                \
    X(CUDNN_TYPE_DOUBLE, 5)                                               \
    X(CUDNN_TYPE_VOID_PTR, 6)                                             \
    X(CUDNN_TYPE_CONVOLUTION_MODE, 7)                                     \
    X(CUDNN_TYPE_HEUR_MODE, 8)                                            \
    X(CUDNN_TYPE_NUMERICAL_NOTE, 11)                                      \
    X(CUDNN_TYPE_POINTWISE_MODE, 14)                                      \
    X(CUDNN_TYPE_BACKEND_DESCRIPTOR, 15)                                  \
    X(CUDNN_TYPE_INT32, 23)                                               \
    X(CUDNN_TYPE_CHAR, 24)                                                \
    /* descriptors */                                                     \
    X(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, 0)                              \
    X(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, 1)                            \
    X(CUDNN_BACKEND_ENGINE_DESCRIPTOR, 2)                                 \
    X(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 3)                              \
    X(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, 4)                             \
    X(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, 5)                         \
    X(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, 10)         \
    X(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, 11) \
    X(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, 12)   \
    X(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, 13)                   \
    X(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, 15)                        \
    X(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, 16)                          \
    X(CUDNN_BACKEND_TENSOR_DESCRIPTOR, 17)                                \
    X(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, 38)                            \
    /* attributes */                                                      \
    X(CUDNN_ATTR_POINTWISE_MODE, 0)                                       \
    X(CUDNN_ATTR_POINTWISE_MATH_PREC, 1)                                  \
    X(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, 100)                              \
    X(CUDNN_ATTR_CONVOLUTION_CONV_MODE, 101)                              \
    X(CUDNN_ATTR_CONVOLUTION_DILATIONS, 102)                              \
    X(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 103)                         \
    X(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 104)                          \
    X(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 105)                           \
    X(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 106)                           \
    X(CUDNN_ATTR_ENGINEHEUR_MODE, 200)                                    \
    X(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 201)                         \
    X(CUDNN_ATTR_ENGINEHEUR_RESULTS, 202)                                 \
    X(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, 204)                              \
    X(CUDNN_ATTR_ENGINECFG_ENGINE, 300)                                   \
    X(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, 400)                              \
    X(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 401)                       \
    X(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 402)                      \
    X(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, 407)                          \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 700)                \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 701)                 \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, 702)            \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, 703)                    \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, 704)                    \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, 705)                    \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, 706)               \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 707)                \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, 708)           \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, 709)                   \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, 710)                  \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, 711)                  \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, 712)             \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, 713)              \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, 714)         \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, 715)                \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, 716)                 \
    X(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, 717)                \
    X(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 750)                  \
    X(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 751)                          \
    X(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 752)                          \
    X(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 753)                          \
    X(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, 800)                              \
    X(CUDNN_ATTR_OPERATIONGRAPH_OPS, 801)                                 \
    X(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 900)                              \
    X(CUDNN_ATTR_TENSOR_DATA_TYPE, 901)                                   \
    X(CUDNN_ATTR_TENSOR_DIMENSIONS, 902)                                  \
    X(CUDNN_ATTR_TENSOR_STRIDES, 903)                                     \
    X(CUDNN_ATTR_TENSOR_UNIQUE_ID, 906)                                   \
    X(CUDNN_ATTR_TENSOR_IS_VIRTUAL, 907)                                  \
    X(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 1000)                           \
    X(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, 1001)                        \
    X(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 1003)                            \
    X(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1301)                               \
    X(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, 1303)                             \
    X(CUDNN_ATTR_DEVICEPROP_HANDLE, 2701)                                 \
    X(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, 2702)                    \
    /* choices */                                                         \
    X(CUDNN_CONVOLUTION, 0)                                               \
    X(CUDNN_CROSS_CORRELATION, 1)                                         \
    X(CUDNN_POINTWISE_ADD, 0)                                             \
    X(CUDNN_POINTWISE_RELU_FWD, 100)                                      \
    X(CUDNN_HEUR_MODE_A, 3)                                               \
    X(CUDNN_HEUR_MODE_FALLBACK, 2)                                        \
    /* numerical notes of engines */                                      \
    X(CUDNN_NUMERICAL_NOTE_TENSOR_CORE, 0)                                \
    X(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS, 1)                        \
    X(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, 2)                \
    X(CUDNN_NUMERICAL_NOTE_FFT, 3)                                        \
    X(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, 4)                           \
    X(CUDNN_NUMERICAL_NOTE_WINOGRAD, 5)                                   \
    X(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4, 6)                          \
    X(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6, 7)                          \
    X(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13, 8)                        \
    X(CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP, 9)                            \
    /* recurrent stacks */                                                \
    X(CUDNN_RNN_RELU, 0)                                                  \
    X(CUDNN_RNN_TANH, 1)                                                  \
    X(CUDNN_LSTM, 2)                                                      \
    X(CUDNN_GRU, 3)                                                       \
    X(CUDNN_RNN_ALGO_STANDARD, 0)                                         \
    X(CUDNN_RNN_ALGO_PERSIST_STATIC, 1)                                   \
    X(CUDNN_RNN_DOUBLE_BIAS, 2)                                           \
    X(CUDNN_UNIDIRECTIONAL, 0)                                            \
    X(CUDNN_BIDIRECTIONAL, 1)                                             \
    X(CUDNN_LINEAR_INPUT, 0)                                              \
    X(CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED, 1)                          \
    X(CUDNN_FWD_MODE_INFERENCE, 0)                                        \
    X(CUDNN_FWD_MODE_TRAINING, 1)                                         \
    X(CUDNN_WGRAD_MODE_ADD, 0)                                            \
    X(CUDNN_DEFAULT_MATH, 0)                                              \
    X(CUDNN_TENSOR_OP_MATH, 1)                                            \
    X(CUDNN_FMA_MATH, 3)

#define CG_X(name, number) CG_##name = number,
enum { CG_CUDNN_NUMBERS(CG_X) };
#undef CG_X
#define CG_X(name, number) {#name, number},
static const struct cg_cudnn_number {
    const char *name;
    int number;
} cg_cudnn_numbers[] = {CG_CUDNN_NUMBERS(CG_X){nullptr, 0}};
#undef CG_X

typedef size_t (*cg_cudnn_version_t)(void);
typedef const char *(*cg_cudnn_text_t)(int status);
typedef void (*cg_cudnn_last_error_t)(char *text, size_t size);
typedef int (*cg_cudnn_create_t)(void **handle);
typedef int (*cg_cudnn_set_stream_t)(void *handle, void *stream);
typedef int (*cg_cudnn_new_t)(int kind, void **descriptor);
typedef int (*cg_cudnn_destroy_t)(void *descriptor);
typedef int (*cg_cudnn_set_t)(void *descriptor, int attribute, int type, int64_t count, const void *values);
typedef int (*cg_cudnn_get_t)(void *descriptor, int attribute, int type, int64_t wanted, int64_t *count, void *values);
typedef int (*cg_cudnn_execute_t)(void *handle, void *plan, void *pack);

/* A handle serves one stream at a time: who puts work on another tells it so, one after the other. */
struct cg_cudnn_handle {
    void *handle = nullptr, *stream = nullptr;
    cg_cudnn_set_stream_t set_stream = nullptr;
    cg_cudnn_execute_t execute = nullptr;
    std::mutex lock;
    int take(void *other) {
        int status = other == stream ? 0 : set_stream(handle, other);
        if (!status) stream = other;
        return status;
    }
};

/* One plan with its buffers. */
struct cg_execution {
    cg_command command;
    cg_cudnn_handle *handle;
    void *plan, *pack;
};

static inline int cg_execute(const cg_command *command, void *stream) {
    const cg_execution *e = static_cast<const cg_execution *>(command->state);
    std::lock_guard<std::mutex> held(e->handle->lock);
    if (int status = e->handle->take(stream)) return -status;
    return -e->handle->execute(e->handle->handle, e->plan, e->pack);
}
#endif
