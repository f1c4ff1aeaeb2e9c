/* What all kernels share. One text for nvcc and, in tests on machines without a GPU, for a C++ compiler (tests/cuda/emulation). */
#ifndef COGKIT_COMMON_CUH
#define COGKIT_COMMON_CUH
#include <stdint.h>

/* CG_KERNEL(name, parameters ...) { body } */
#if defined(__CUDACC__)
#define CG_KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#else
#define CG_KERNEL(name, ...)                                                                                                    \
    extern "C" __attribute__((visibility("hidden"))) void name(__VA_ARGS__);                                                    \
    KERNEL_EXPORT(name)                                                                                                         \
    extern "C" __attribute__((visibility("hidden"))) void name(__VA_ARGS__)
#endif
/* X(type, suffix) for each element type of arithmetic; CG_WORDS for kernels that move values, of 2 bytes at least. */
#define CG_FLOATS(X) X(float, f4) X(double, f8)
#define CG_WORDS(X) X(uint16_t, 2) X(uint32_t, 4) X(uint64_t, 8)

/* What random numbers depend on besides the kernel; lies on the device, written before each run. */
struct Context {
    uint64_t seed;
    int64_t step, sample;
};

constexpr int MAX_DIMS = 12;

/* An index space: n elements of `rank` dims, and for each of up to two operands the strides over it, in elements. */
struct Space {
    int64_t n, rank;
    int64_t dims[MAX_DIMS], x[MAX_DIMS], y[MAX_DIMS];
    int64_t x0, y0;
};

__device__ inline int64_t thread_number() { return blockIdx.x * (int64_t)blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return gridDim.x * (int64_t)blockDim.x; }

/* for each i of [0, n), by all threads of the grid */
#define CG_EACH(i, n) for (int64_t i = thread_number(); i < (n); i += thread_count())

/* Philox4x32-10, as core/engine/philox.py: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). */
struct Words {
    uint32_t w[4];
};

__device__ inline Words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int i = 0; i < 10; i++) {
        const uint64_t p = (uint64_t)c0 * 0xD2511F53u, q = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0, c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1, c3 = (uint32_t)p;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* 23 bits and a half: exact in float too, never 0 or 1. */
template <class T> __device__ inline T unit(uint32_t word) { return ((T)(word >> 9) + T(0.5)) * T(1.0 / 8388608); }

/* Standard normal, Box-Muller on two words. */
template <class T> __device__ inline T gauss(uint32_t a, uint32_t b) {
    return (T)(sqrt(-2.0 * log(unit<double>(a))) * cos(6.283185307179586 * unit<double>(b)));
}

/* The key and number of row `i` of a minibatch: what the first sample has above 32 bits (the rank) goes into the key. */
__device__ inline uint64_t row_key(const Context &c) { return c.seed ^ ((uint64_t)c.sample >> 32 << 32); }

/* Sums over the threads of a block in a fixed tree, for all of them; `shared` has room for one T a thread. */
template <class T, class F> __device__ inline T block_fold(T v, T *shared, F f) {
    const int t = threadIdx.x;
    shared[t] = v;
    __syncthreads();
    for (int k = 1; k < (int)blockDim.x; k *= 2) {
        if (t % (2 * k) == 0 && t + k < (int)blockDim.x) shared[t] = f(shared[t], shared[t + k]);
        __syncthreads();
    }
    v = shared[0];
    __syncthreads();
    return v;
}
#endif
