/* What the hand-written kernels share: their state, code for several instruction sets, threads. */
#ifndef COGKIT_SUPPORT_H
#define COGKIT_SUPPORT_H

#include <omp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "../kernel.h"

/* One build runs everywhere: the loader picks the widest version that the machine has. Clones sit on plain functions that
 * are called for one chunk of work, never around a parallel region (the outlined body would lose them). */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define CG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define CG_TARGETS 1
#else
#define CG_CLONES
#define CG_TARGETS 0
#endif

/* Where the code itself depends on the width of the registers: BODY(64), BODY(32), BODY(16) name the functions for AVX-512, AVX2
 * and the base, and `name` becomes the one for this machine. (Wide generic vectors in clones may fall apart into scalars.) */
#if CG_TARGETS
#define CG_VERSIONS(name, BODY, params, args)                                                                                    \
    __attribute__((target("arch=x86-64-v4"))) static void name##_v4 params { BODY(64) args; }                                    \
    __attribute__((target("arch=x86-64-v3"))) static void name##_v3 params { BODY(32) args; }                                    \
    static void name##_base params { BODY(16) args; }                                                                            \
    static void(*const name) params = cg::level() == 4 ? name##_v4 : cg::level() == 3 ? name##_v3 : name##_base;
#else
#define CG_VERSIONS(name, BODY, params, args)                                                                                    \
    static void name params { BODY(16) args; }
#endif
#define CG_INLINE inline __attribute__((always_inline))
#define CG_RESTRICT __restrict__

namespace cg {

/* x86-64 level of the machine: 4 (AVX-512), 3 (AVX2) or 0; at most CG_LEVEL, with which a wide machine can try the narrow code. */
#ifndef CG_LEVEL
#define CG_LEVEL 4
#endif
inline int level() {
#if CG_TARGETS
    __builtin_cpu_init();
    if (CG_LEVEL >= 4 && __builtin_cpu_supports("x86-64-v4")) return 4;
    if (CG_LEVEL >= 3 && __builtin_cpu_supports("x86-64-v3")) return 3;
#endif
    return 0;
}

using Dims = std::vector<int64_t>;

/* State of one bound kernel; the Cython class owns it. */
struct Kernel {
    void (*run)(const cg_call *, const cg_context *) = nullptr;
    int nbuf = 0;
    int64_t scratch = 0;
    std::atomic<int64_t> error{-1}; /* first bad position of an index, -1: none */
    double bad_index = 0;           /* the one there */
    virtual ~Kernel() = default;

    void report(int64_t position, double index = 0) {
        const int64_t old = error.load(std::memory_order_relaxed);
        if (old >= 0 && old <= position) return;
        static std::mutex one;
        std::lock_guard<std::mutex> lock(one);
        const int64_t now = error.load(std::memory_order_relaxed);
        if (now >= 0 && now <= position) return;
        bad_index = index;
        error.store(position);
    }
};

/* Elements below which starting threads costs more than the work. */
constexpr int64_t SMALL = 16384;

inline bool serial(int64_t n, int64_t work) { return n <= 1 || work < SMALL || omp_get_max_threads() == 1; }

/* f(i) for i in [0, n), each i once; what i does may not depend on the thread that does it. */
template <class F> inline void parallel(int64_t n, int64_t work, F &&f) {
    if (serial(n, work)) {
        for (int64_t i = 0; i < n; i++) f(i);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) f(i);
}

/* The same, handed out one by one: for tasks of uneven length. */
template <class F> inline void parallel_dynamic(int64_t n, int64_t work, F &&f) {
    if (serial(n, work)) {
        for (int64_t i = 0; i < n; i++) f(i);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < n; i++) f(i);
}

/* f(begin, end): one contiguous range of [0, n) a thread; only for work whose result does not depend on the cut. */
template <class F> inline void parallel_range(int64_t n, int64_t work, F &&f) {
    if (serial(n, work)) {
        if (n > 0) f(int64_t(0), n);
        return;
    }
#pragma omp parallel
    {
        const int64_t t = omp_get_thread_num(), threads = omp_get_num_threads();
        const int64_t begin = n * t / threads, end = n * (t + 1) / threads;
        if (begin < end) f(begin, end);
    }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline int64_t product(const Dims &d) {
    int64_t n = 1;
    for (int64_t i : d) n *= i;
    return n;
}

[[noreturn]] inline void bad(const std::string &message) { throw std::invalid_argument(message); }

inline void check_sizes(const char *who, const Dims &dims) {
    for (int64_t d : dims)
        if (d < 0) bad(std::string(who) + ": expected sizes >= 0, got " + std::to_string(d));
}

/* 'f4' or 'f8' -> true for f8. */
inline bool is_double(const char *who, const std::string &dtype) {
    if (dtype == "f8") return true;
    if (dtype != "f4") bad(std::string(who) + ": expected dtype 'f4' or 'f8', got '" + dtype + "'");
    return false;
}

} // namespace cg
#endif
