/* The one C interface of every kernel of an engine that runs on the host.
 * buf holds inputs, then outputs, then (where the kernel asked for scratch) one scratch pointer. */
#ifndef COGKIT_KERNEL_H
#define COGKIT_KERNEL_H
#include <stdint.h>

typedef struct cg_context {
    uint64_t seed;   /* seed of the run */
    int64_t step;    /* minibatches seen: random numbers differ from step to step */
    int64_t sample;  /* index of the first sample of this minibatch (ranks hold different ones) */
} cg_context;

typedef struct cg_call cg_call;
struct cg_call {
    void (*run)(const cg_call *call, const cg_context *context);
    void *state;
    void **buf;
};
#endif
