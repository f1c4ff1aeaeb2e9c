/* What kernels of several families share beyond common.cuh: sums over the threads of a block, rows shared out among threads. */
#ifndef COGKIT_BLOCKS_CUH
#define COGKIT_BLOCKS_CUH
#include "common.cuh"

/* a / b of what is not negative, in 32 bits where they do */
__device__ inline int64_t quotient(int64_t a, int64_t b) {
    return ((a | b) >> 32) == 0 ? (int64_t)((uint32_t)a / (uint32_t)b) : a / b;
}

/* Sum over the threads before this one, and over all; `shared` has room for one T a thread. */
template <class T> __device__ inline T block_scan(T v, T *shared, T &total) {
    const int t = threadIdx.x, n = blockDim.x;
    T sum = v;
    shared[t] = v;
    __syncthreads();
    for (int k = 1; k < n; k *= 2) {
        const T before = t >= k ? shared[t - k] : T(0);
        __syncthreads();
        shared[t] = sum = before + sum;
        __syncthreads();
    }
    total = shared[n - 1];
    const T before = t ? shared[t - 1] : T(0);
    __syncthreads();
    return before;
}

/* f over the lanes of a whole warp in a fixed tree, for lane 0. */
template <class T, class F> __device__ inline T warp_fold(T v, F f) {
    for (int k = 16; k; k /= 2) v = f(v, __shfl_down_sync(0xffffffffu, v, k));
    return v;
}

/* The first largest element of a row, by a whole warp and for all of its lanes; NaN is larger than any. */
template <class T> __device__ inline int64_t largest(const T *x, int64_t n) {
    const int lane = threadIdx.x & 31;
    int64_t at = -1;
    T top = 0;
    const auto above = [](T a, int64_t i, T b, int64_t j) { /* whether x[i] = a goes before x[j] = b */
        if (i < 0 || j < 0) return j < 0 && i >= 0;
        if (a != a || b != b) return a != a && (b == b || i < j);
        return a > b || (a == b && i < j);
    };
    for (int64_t i = lane; i < n; i += 32)
        if (above(x[i], i, top, at)) top = x[i], at = i;
    for (int k = 16; k; k /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, top, k);
        const int64_t place = __shfl_xor_sync(0xffffffffu, (long long)at, k);
        if (above(other, place, top, at)) top = other, at = place;
    }
    return at;
}

/* for each row r of [0, n) and each element c of its `width`, by groups of 1 << shift threads */
#define CG_ROWS(r, n, shift) for (int64_t r = thread_number() >> (shift); r < (n); r += thread_count() >> (shift))
#define CG_COLUMNS(c, width, shift)                                                                                             \
    for (int64_t c = ((int64_t)blockIdx.y << (shift)) + (threadIdx.x & ((1 << (shift)) - 1)); c < (width);                      \
         c += (int64_t)gridDim.y << (shift))

/* Notes the first index that names no row: its place, then its bits; `wrong` (null: nobody asks) has all bits set where none is. */
template <class I> __device__ inline void note(uint64_t *wrong, int64_t place, I index) {
    if (wrong) atomicMin((unsigned long long *)wrong, (unsigned long long)place << 32 | __float_as_uint((float)index));
}

/* Moved as one word of 16 bytes. */
struct alignas(16) Quad {
    uint64_t low, high;
};
#endif
