/* What the stand-ins of NVIDIA's libraries share: work in the order of a stream of the fake driver, whose memory is the host's. */
#ifndef COGKIT_FAKE_H
#define COGKIT_FAKE_H
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <functional>
#include <set>
#include <vector>

#define FAKE extern "C" __attribute__((visibility("default")))

namespace fake {

typedef std::function<void()> Work;

template <class F> F driver(const char *name) {
    return reinterpret_cast<F>(dlsym(RTLD_DEFAULT, name));
}

inline void call(void *work) { (*static_cast<Work *>(work))(); }

/* Puts work on a stream; kept for ever, since a graph that captured it may run again. The driver's result. */
inline int enqueue(void *stream, Work work) {
    static auto launch = driver<int (*)(void *, void (*)(void *), void *)>("cuLaunchHostFunc");
    if (!launch) return 801;
    return launch(stream, call, new Work(std::move(work)));
}

/* Whether bytes lie in memory of the device; true where the driver cannot say. */
inline bool on_device(const void *p, size_t bytes) {
    static auto range = driver<int (*)(uint64_t *, size_t *, uint64_t)>("cuMemGetAddressRange_v2");
    uint64_t base = 0;
    size_t size = 0;
    if (!bytes || !range) return true;
    int result = range(&base, &size, reinterpret_cast<uint64_t>(p));
    if (result == 801) return true;
    return result == 0 && reinterpret_cast<uint64_t>(p) + bytes <= base + size;
}

inline int complain(const char *who, const char *what, int status) {
    fprintf(stderr, "%s (fake): %s\n", who, what);
    return status;
}

/* Numbers of the four types as doubles. */
inline float half_value(uint16_t h) {
    int sign = h >> 15, e = h >> 10 & 31, f = h & 1023;
    float v = e == 31 ? (f ? NAN : INFINITY) : e ? ldexpf(1024 + f, e - 25) : ldexpf(f, -24);
    return sign ? -v : v;
}

inline uint16_t half_of(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    if (isnan(x)) return 0x7e00;
    if (a >= 65520) return sign | 0x7c00;
    int e;
    frexp(a, &e); /* a in [2^(e-1), 2^e) */
    if (a < ldexp(1, -14)) return sign | static_cast<uint16_t>(nearbyint(ldexp(a, 24)));
    int m = static_cast<int>(nearbyint(ldexp(a, 11 - e))); /* 1024 .. 2048 */
    return sign | static_cast<uint16_t>(((e + 14) << 10) + (m - 1024));
}

inline float bfloat_value(uint16_t b) {
    uint32_t w = uint32_t(b) << 16;
    float v;
    memcpy(&v, &w, 4);
    return v;
}

inline uint16_t bfloat_of(double x) {
    float v = static_cast<float>(x);
    uint32_t w;
    memcpy(&w, &v, 4);
    if (isnan(v)) return 0x7fc0;
    return static_cast<uint16_t>((w + 0x7fff + (w >> 16 & 1)) >> 16);
}

enum Type { F4, F8, F2, B2 };

inline size_t size_of(Type t) { return t == F8 ? 8 : t == F4 ? 4 : 2; }

inline double get(Type t, const void *p, int64_t i) {
    switch (t) {
    case F4: return static_cast<const float *>(p)[i];
    case F8: return static_cast<const double *>(p)[i];
    case F2: return half_value(static_cast<const uint16_t *>(p)[i]);
    default: return bfloat_value(static_cast<const uint16_t *>(p)[i]);
    }
}

inline void put(Type t, void *p, int64_t i, double v) {
    switch (t) {
    case F4: static_cast<float *>(p)[i] = static_cast<float>(v); break;
    case F8: static_cast<double *>(p)[i] = v; break;
    case F2: static_cast<uint16_t *>(p)[i] = half_of(v); break;
    default: static_cast<uint16_t *>(p)[i] = bfloat_of(v);
    }
}

}  // namespace fake
#endif
