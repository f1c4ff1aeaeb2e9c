/* What a run begins with: its seed, step, first sample, and the numbers that the host has set, passed as parameters. */
#include "common.cuh"

struct Header {
    uint64_t words[64];
};

/* to[i] = h.words[i], i < n */
CG_KERNEL(header, uint64_t *to, int64_t n, Header h) { CG_EACH(i, n) to[i] = h.words[i]; }
