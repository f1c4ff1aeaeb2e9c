/* cudacpu.h: runs a CUDA source on the CPU, for tests. A plain C++17 compiler takes the source with `-include cudacpu.h`.
 *
 * Kernels run block after block; every CUDA thread of a block is a fiber, so that __syncthreads, votes and shuffles of a warp, shared
 * memory and atomics behave as on the device. One host thread, not for speed. It reports threads that wait at different barriers, lanes
 * that left a warp's collective, deadlock, parameters that do not fit the kernel, pointers that are not the device's, null and
 * misaligned accesses, and indices outside of arrays; and it can permute the order of threads and blocks
 * (CUDACPU_ORDER=fwd|rev|SEED), under which a missing barrier shows as other results.
 *
 * A source says KERNEL_EXPORT(name) for each kernel, and DYN_SHARED(T, name) for dynamic shared memory; else it is plain CUDA. Not there:
 * cooperative groups, inline PTX, matrix units, asynchronous copies, textures, clusters.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

#define CUDACPU 1
#define __global__
#define __device__
#define __host__
#define __managed__ static
#define __constant__ static
#define __shared__ static __thread /* the memory of one block after the other; fibers.h fills it before each */
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define CUDACPU_HIDDEN __attribute__((visibility("hidden")))
#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(cudacpu::dynamic_shared())

/* --- vector types ----------------------------------------------------------------------------------------------------- */

#define CUDACPU_VECTOR(T, N)                                                                                                   \
    struct N##1 { T x; };                                                                                                      \
    struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                                            \
    struct N##3 { T x, y, z; };                                                                                                \
    struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) N##4 { T x, y, z, w; };                                                \
    inline N##1 make_##N##1(T x) { return {x}; }                                                                               \
    inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                                                       \
    inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                                                               \
    inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDACPU_VECTOR(signed char, char)
CUDACPU_VECTOR(unsigned char, uchar)
CUDACPU_VECTOR(short, short)
CUDACPU_VECTOR(unsigned short, ushort)
CUDACPU_VECTOR(int, int)
CUDACPU_VECTOR(unsigned, uint)
CUDACPU_VECTOR(long, long)
CUDACPU_VECTOR(unsigned long, ulong)
CUDACPU_VECTOR(long long, longlong)
CUDACPU_VECTOR(unsigned long long, ulonglong)
CUDACPU_VECTOR(float, float)
CUDACPU_VECTOR(double, double)
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#include "fibers.h"

/* --- what a kernel sees ------------------------------------------------------------------------------------------------- */

#define threadIdx (cudacpu::me->index)
#define blockIdx (cudacpu::block_index)
#define blockDim (cudacpu::block_dim)
#define gridDim (cudacpu::grid_dim)
#define warpSize 32
#define __syncthreads() ((void)cudacpu::barrier(__LINE__, false, cudacpu::COUNT))
#define __syncthreads_count(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::COUNT)
#define __syncthreads_and(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::ALL)
#define __syncthreads_or(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::ANY)

inline unsigned __ballot_sync(unsigned mask, int p) {
    unsigned char all[32];
    mask = cudacpu::gather<unsigned char>(mask, p != 0, all);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && all[i]) bits |= 1u << i;
    return bits;
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    char all[32];
    cudacpu::gather<char>(mask, 0, all);
}
inline unsigned __activemask() {
    const auto &warp = cudacpu::block->warps[cudacpu::me->warp];
    return warp.there & ~warp.returned;
}
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    return cudacpu::shuffle(mask, v, (cudacpu::me->lane & ~(width - 1)) + (source & (width - 1)), width);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane) - int(d), width);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane + d), width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane) ^ x, width);
}
template <class T> unsigned __match_any_sync(unsigned mask, T v) {
    T all[32];
    mask = cudacpu::gather(mask, v, all);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && all[i] == v) bits |= 1u << i;
    return bits;
}

#define CUDACPU_ATOMIC(name, result)                                                                                           \
    template <class T> T name(T *p, std::common_type_t<T> v) {                                                                 \
        const T old = *p;                                                                                                      \
        *p = (result);                                                                                                         \
        return old;                                                                                                            \
    }                                                                                                                          \
    template <class T> T name##_block(T *p, std::common_type_t<T> v) { return name(p, v); }
CUDACPU_ATOMIC(atomicAdd, old + v)
CUDACPU_ATOMIC(atomicSub, old - v)
CUDACPU_ATOMIC(atomicExch, v)
CUDACPU_ATOMIC(atomicMax, old > v ? old : v)
CUDACPU_ATOMIC(atomicMin, old < v ? old : v)
CUDACPU_ATOMIC(atomicAnd, old & v)
CUDACPU_ATOMIC(atomicOr, old | v)
CUDACPU_ATOMIC(atomicXor, old ^ v)
CUDACPU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
CUDACPU_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
template <class T> T atomicCAS(T *p, std::common_type_t<T> compare, std::common_type_t<T> v) {
    const T old = *p;
    if (old == compare) *p = v;
    return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() {
    cudacpu::fail("__trap in thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
    cudacpu::stop();
}
#undef assert
#define assert(condition)                                                                                                      \
    ((condition) ? (void)0 : (cudacpu::fail("line %d: assertion `%s` failed", __LINE__, #condition), cudacpu::stop()))

#define CUDACPU_LOAD(name)                                                                                                     \
    template <class T> T name(const T *p) { return *p; }
CUDACPU_LOAD(__ldg)
CUDACPU_LOAD(__ldca)
CUDACPU_LOAD(__ldcg)
CUDACPU_LOAD(__ldcs)
CUDACPU_LOAD(__ldlu)
CUDACPU_LOAD(__ldcv)
#define CUDACPU_STORE(name)                                                                                                    \
    template <class T> void name(T *p, std::common_type_t<T> v) { *p = v; }
CUDACPU_STORE(__stwb)
CUDACPU_STORE(__stcg)
CUDACPU_STORE(__stcs)
CUDACPU_STORE(__stwt)

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}

template <class To, class From> To cudacpu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits are kept");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return cudacpu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cudacpu_bits<float>(x); }
inline int __float_as_int(float x) { return cudacpu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cudacpu_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return cudacpu_bits<double>(x); }
inline long long __double_as_longlong(double x) { return cudacpu_bits<long long>(x); }
inline double __hiloint2double(int high, int low) { return cudacpu_bits<double>(uint64_t(unsigned(high)) << 32 | unsigned(low)); }
inline int __double2hiint(double x) { return int(cudacpu_bits<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return int(cudacpu_bits<uint64_t>(x)); }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline double rcbrt(double x) { return 1.0 / cbrt(x); }
inline float sinpif(float x) { return float(sin(M_PI * double(x))); }
inline float cospif(float x) { return float(cos(M_PI * double(x))); }
inline double sinpi(double x) { return sin(M_PI * x); }
inline double cospi(double x) { return cos(M_PI * x); }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
template <class T> T min(T a, std::common_type_t<T> b) { return b < a ? b : a; }
template <class T> T max(T a, std::common_type_t<T> b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
