/* Pointwise programs with their reductions: what an interpreted and a compiled one share. */
#ifndef COGKIT_POINTWISE_CUH
#define COGKIT_POINTWISE_CUH
#include "numbers.cuh"
#include "space.cuh"

/* The segment of a block, and the number of the block in it. blocks: segment and number of each block, null where there is one segment. words: of all
 * segments, null where they follow the addresses. */
struct Whole {
    const int64_t *words, *blocks;
    const Context *context;
    int64_t operands, addresses; /* of a segment; of all segments */
};
template <int N> __device__ inline Frame frame(const Whole &w, const Parameters<N> &p, int segment_words, int64_t &block) {
    int64_t segment = 0;
    block = blockIdx.x;
    if (w.blocks) segment = w.blocks[block] >> 32, block = w.blocks[block] & 0xffffffff;
    return {w.words ? w.words + segment * segment_words : (const int64_t *)p.w + w.addresses, p.w + segment * w.operands, w.context};
}
#endif
