/* The part of cuDNN 9's interface to recurrent stacks that is used, as facts of our own; numbers are in cudnn_api.h. */
#ifndef COGKIT_CUDNN_RNN_API_H
#define COGKIT_CUDNN_RNN_API_H
#include "cudnn_api.h"

typedef int (*cg_rnn_create_t)(void **descriptor);
typedef int (*cg_rnn_destroy_t)(void *descriptor);
typedef int (*cg_rnn_dropout_t)(void *dropout, void *handle, float rate, void *states, size_t size, unsigned long long seed);
typedef int (*cg_rnn_set_t)(void *rnn, int algorithm, int cell, int bias, int direction, int input, int type, int precision, int math,
                            int32_t inputs, int32_t hidden, int32_t projected, int32_t layers, void *dropout, uint32_t flags);
typedef int (*cg_rnn_set_data_t)(void *data, int type, int layout, int longest, int sequences, int width, const int *lengths, void *fill);
typedef int (*cg_rnn_set_tensor_t)(void *tensor, int type, int axes, const int *sizes, const int *strides);
typedef int (*cg_rnn_spaces_t)(void *handle, void *rnn, int mode, void *x, size_t *workspace, size_t *reserve);
typedef int (*cg_rnn_weights_t)(void *handle, void *rnn, size_t *size);
typedef int (*cg_rnn_part_t)(void *handle, void *rnn, int32_t layer, size_t size, const void *weights, int32_t part, void *matrix_desc,
                             void **matrix, void *bias_desc, void **bias);
typedef int (*cg_rnn_forward_t)(void *handle, void *rnn, int mode, const int32_t *lengths, void *x_desc, const void *x, void *y_desc, void *y,
                                void *h_desc, const void *hx, void *hy, void *c_desc, const void *cx, void *cy, size_t weights_size,
                                const void *weights, size_t workspace_size, void *workspace, size_t reserve_size, void *reserve);
typedef int (*cg_rnn_data_t)(void *handle, void *rnn, const int32_t *lengths, void *y_desc, const void *y, const void *dy, void *x_desc, void *dx,
                             void *h_desc, const void *hx, const void *dhy, void *dhx, void *c_desc, const void *cx, const void *dcy,
                             void *dcx, size_t weights_size, const void *weights, size_t workspace_size, void *workspace,
                             size_t reserve_size, void *reserve);
typedef int (*cg_rnn_gradient_t)(void *handle, void *rnn, int mode, const int32_t *lengths, void *x_desc, const void *x, void *h_desc,
                                 const void *hx, void *y_desc, const void *y, size_t weights_size, void *dw, size_t workspace_size,
                                 void *workspace, size_t reserve_size, void *reserve);

/* One of the three passes of a stack with its buffers; states begin at zero. */
struct cg_recurrence {
    cg_command command;
    int pass, mode; /* 0 forward, 1 backward to the operand, 2 backward to the weights */
    cg_cudnn_handle *handle;
    cg_rnn_forward_t forward;
    cg_rnn_data_t data;
    cg_rnn_gradient_t gradient;
    void *rnn, *x_desc, *y_desc, *h_desc;
    const int32_t *lengths;
    size_t weights_size, workspace_size, reserve_size;
    void *x, *y, *dx, *dy, *weights, *dw, *workspace, *reserve;
};

static inline int cg_recur(const cg_command *command, void *stream) {
    const cg_recurrence *r = static_cast<const cg_recurrence *>(command->state);
    void *h = r->handle->handle;
    std::lock_guard<std::mutex> held(r->handle->lock);
    if (int status = r->handle->take(stream)) return -status;
    if (r->pass == 0)
        return -r->forward(h, r->rnn, r->mode, r->lengths, r->x_desc, r->x, r->y_desc, r->y, r->h_desc, nullptr, nullptr, r->h_desc, nullptr,
                           nullptr, r->weights_size, r->weights, r->workspace_size, r->workspace, r->reserve_size, r->reserve);
    if (r->pass == 1)
        return -r->data(h, r->rnn, r->lengths, r->y_desc, r->y, r->dy, r->x_desc, r->dx, r->h_desc, nullptr, nullptr, nullptr, r->h_desc,
                        nullptr, nullptr, nullptr, r->weights_size, r->weights, r->workspace_size, r->workspace, r->reserve_size, r->reserve);
    return -r->gradient(h, r->rnn, CG_CUDNN_WGRAD_MODE_ADD, r->lengths, r->x_desc, r->x, r->h_desc, nullptr, r->y_desc, r->y, r->weights_size,
                        r->dw, r->workspace_size, r->workspace, r->reserve_size, r->reserve);
}
#endif
