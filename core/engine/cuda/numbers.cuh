/* What the instructions of pointwise programs do to numbers. Every sum and product rounds on its own (the compiler makes no fma of them), so a
 * program gives the same bits whether it is interpreted or compiled. pointwise.py reads the lists below. */
#ifndef COGKIT_NUMBERS_CUH
#define COGKIT_NUMBERS_CUH
#include <math.h>

#include "common.cuh"

__device__ inline float add_(float x, float y) { return __fadd_rn(x, y); }
__device__ inline double add_(double x, double y) { return __dadd_rn(x, y); }
__device__ inline float sub_(float x, float y) { return __fsub_rn(x, y); }
__device__ inline double sub_(double x, double y) { return __dsub_rn(x, y); }
__device__ inline float mul_(float x, float y) { return __fmul_rn(x, y); }
__device__ inline double mul_(double x, double y) { return __dmul_rn(x, y); }
__device__ inline float fma_(float x, float y, float z) { return fmaf(x, y, z); }
__device__ inline double fma_(double x, double y, double z) { return fma(x, y, z); }
__device__ inline float pow_(float x, float y) { return powf(x, y); }
__device__ inline double pow_(double x, double y) { return pow(x, y); }
__device__ inline float copysign_(float x, float y) { return copysignf(x, y); }
__device__ inline double copysign_(double x, double y) { return copysign(x, y); }
__device__ inline float abs_(float x) { return fabsf(x); }
__device__ inline double abs_(double x) { return fabs(x); }
#define CG_LIBRARY(X)                                                                                                           \
    X(exp) X(log) X(log1p) X(sqrt) X(floor) X(ceil) X(rint) X(tanh) X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh)        \
    X(cosh) X(asinh) X(acosh) X(atanh)
#define X(name)                                                                                                                 \
    __device__ inline float name##_(float x) { return name##f(x); }                                                             \
    __device__ inline double name##_(double x) { return name(x); }
CG_LIBRARY(X)
#undef X

template <class T> __device__ inline T infinity() { return (T)INFINITY; }
template <class T> __device__ inline T max_(T x, T y) { return ((x >= y) | (x != x)) ? x : y; } /* NaN wins, as in NumPy */
template <class T> __device__ inline T min_(T x, T y) { return ((x <= y) | (x != x)) ? x : y; }
template <class T> __device__ inline T sigmoid_(T x) {
    const T e = exp_(-abs_(x));
    return (x < 0 ? e : T(1)) / (T(1) + e);
}
template <class T> __device__ inline T softplus_(T x) { return (x > 0 ? x : T(0)) + log1p_(exp_(-abs_(x))); }
template <class T> __device__ inline T logaddexp_(T x, T y) {
    const T d = x == y ? T(0) : x - y; /* equal infinities */
    return (x > y ? x : y) + log1p_(exp_(-abs_(d)));
}
/* The nearest number of half precision, ties to even: 11 bits, multiples of 2^-24 below 2^-14, infinity from 65520 on. */
__device__ inline float half_(float x) {
    const uint32_t i = __float_as_uint(x), a = i & 0x7fffffffu;
    const uint32_t tiny = __float_as_uint(__fsub_rn(__fadd_rn(__uint_as_float(a), 0.5f), 0.5f));
    uint32_t r = (a + 0xfffu + (a >> 13 & 1u)) & ~0x1fffu;
    r = r > 0x477fe000u ? 0x7f800000u : r;
    r = a < 0x38800000u ? tiny : r;
    r = a > 0x7f800000u ? a : r;
    return __uint_as_float(r | (i & 0x80000000u));
}
__device__ inline double half_(double x) {
    const uint64_t i = (uint64_t)__double_as_longlong(x), a = i & 0x7fffffffffffffffu;
    const double large = 268435456.0; /* 2^28 */
    const uint64_t tiny = (uint64_t)__double_as_longlong(__dsub_rn(__dadd_rn(__longlong_as_double((long long)a), large), large));
    uint64_t r = (a + 0x1ffffffffffu + (a >> 42 & 1u)) & ~0x3ffffffffffu;
    r = r > 0x40effc0000000000u ? 0x7ff0000000000000u : r;
    r = a < 0x3f10000000000000u ? tiny : r;
    r = a > 0x7ff0000000000000u ? a : r;
    return __longlong_as_double((long long)(r | (i & 0x8000000000000000u)));
}

/* Word of an instruction, and what it does to x, y, z of type T. CG_LONG: those whose text is long: an interpreter has each once. */
#define CG_UNARY(X)                                                                                                             \
    X(neg, -x) X(sqrt, sqrt_(x)) X(rsqrt, T(1) / sqrt_(x)) X(reciprocal, T(1) / x) X(abs, abs_(x))                              \
    X(sign, x > 0 ? T(1) : x < 0 ? T(-1) : x) X(floor, floor_(x)) X(ceil, ceil_(x)) X(round, rint_(x))                          \
    X(relu, x <= 0 ? T(0) : x) X(not, x == 0 ? T(1) : T(0)) X(copy, x) X(half, half_(x))
#define CG_UNARY_LONG(X)                                                                                                        \
    X(exp, exp_(x)) X(log, log_(x)) X(tanh, tanh_(x)) X(sigmoid, sigmoid_(x)) X(softplus, softplus_(x)) X(sin, sin_(x))         \
    X(cos, cos_(x)) X(tan, tan_(x)) X(asin, asin_(x)) X(acos, acos_(x)) X(atan, atan_(x)) X(sinh, sinh_(x)) X(cosh, cosh_(x))   \
    X(asinh, asinh_(x)) X(acosh, acosh_(x)) X(atanh, atanh_(x))
#define CG_BINARY(X)                                                                                                            \
    X(add, add_(x, y)) X(sub, sub_(x, y)) X(mul, mul_(x, y)) X(div, x / y) X(max, max_(x, y)) X(min, min_(x, y))                \
    X(eq, x == y ? T(1) : T(0)) X(ne, x != y ? T(1) : T(0)) X(lt, x < y ? T(1) : T(0)) X(le, x <= y ? T(1) : T(0))              \
    X(gt, x > y ? T(1) : T(0)) X(ge, x >= y ? T(1) : T(0)) X(and, (x != 0) & (y != 0) ? T(1) : T(0))                            \
    X(or, (x != 0) | (y != 0) ? T(1) : T(0)) X(xor, (x != 0) ^ (y != 0) ? T(1) : T(0)) X(copysign, copysign_(x, y))
#define CG_BINARY_LONG(X) X(pow, pow_(x, y)) X(logaddexp, logaddexp_(x, y))
#define CG_TERNARY(X) X(select, x != 0 ? y : z) X(fma, fma_(x, y, z))

#define X(name, formula)                                                                                                        \
    template <class T> __device__ inline T op_##name(T x) { return formula; }
CG_UNARY(X) CG_UNARY_LONG(X)
#undef X
#define X(name, formula)                                                                                                        \
    template <class T> __device__ inline T op_##name(T x, T y) { return formula; }
CG_BINARY(X) CG_BINARY_LONG(X)
#undef X
#define X(name, formula)                                                                                                        \
    template <class T> __device__ inline T op_##name(T x, T y, T z) { return formula; }
CG_TERNARY(X)
#undef X

/* How numbers are reduced to one. */
enum Kind { SUM, PROD, MAX, MIN };
template <class T> __device__ inline T neutral(int kind) {
    return kind == SUM ? T(0) : kind == PROD ? T(1) : kind == MAX ? -infinity<T>() : infinity<T>();
}
template <class T> __device__ inline T joined(int kind, T x, T y) {
    return kind == SUM ? add_(x, y) : kind == PROD ? mul_(x, y) : kind == MAX ? max_(x, y) : min_(x, y);
}
#endif
