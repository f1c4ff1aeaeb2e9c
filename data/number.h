// Decimal text to float32, correctly rounded (ties to even), without locale.
//
// The digits make a whole number m < 10^19 and a power e; m * 10^e in double is wrong by less than 2 of its last places (m, the
// table and the product each round once). Where that double is further than that from the middle between two floats, rounding it
// gives the float that the exact decimal gives. The rest, one number in some 10^7, goes to std::from_chars, as does what has more
// digits, or leaves the range of normal floats.
#pragma once
#include <charconv>
#include <cstdint>
#include <cstring>

extern const double cg_powers_of_ten[];  // 10^-64 ... 10^64
enum { CG_POWERS = 64 };

enum cg_number { CG_NUMBER_OK, CG_NUMBER_BAD, CG_NUMBER_HUGE };

static inline bool cg_is_digit(char c) { return (unsigned char)(c - '0') < 10; }

// Text at p up to a byte that cannot be of a number; the buffer can be read 16 bytes past that. `end` is the buffer's end.
static inline cg_number cg_read_float(const char *&p, const char *end, float &out) {
    const char *q = p;
    const bool minus = *q == '-';
    q += minus || *q == '+';
    const char *const unsigned_ = q;
    uint64_t m = 0;
    int64_t digits, e = 0;
    while (cg_is_digit(*q)) m = m * 10 + (uint64_t)(*q++ - '0');
    digits = q - unsigned_;
    if (*q == '.') {
        const char *const point = ++q;
        for (;;) {  // eight digits at a time
            uint64_t v;
            std::memcpy(&v, q, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            v = __builtin_bswap64(v);
#endif
            v ^= 0x3030303030303030ULL;
            const uint64_t other = ((v + 0x7676767676767676ULL) | v) & 0x8080808080808080ULL;
            const int k = other ? __builtin_ctzll(other) >> 3 : 8;
            if (k == 0) break;
            static const uint64_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
            v <<= 64 - 8 * k;
            v = (v * 10) + (v >> 8);
            v = (((v & 0x000000FF000000FFULL) * 0x000F424000000064ULL) + (((v >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL)) >> 32;
            m = m * tens[k] + v;
            q += k;
            if (k < 8) break;
        }
        e = point - q;
        digits += q - point;
    }
    if (digits == 0) return CG_NUMBER_BAD;
    if ((*q | 32) == 'e') {
        const char *r = q + 1;
        const bool less = *r == '-';
        r += less || *r == '+';
        if (!cg_is_digit(*r)) return CG_NUMBER_BAD;
        int64_t power = 0;
        while (cg_is_digit(*r)) power = power < 100000 ? power * 10 + (*r - '0') : power, ++r;
        e += less ? -power : power;
        q = r;
    }
    p = q;
    if (digits <= 19 && e >= -CG_POWERS && e <= CG_POWERS) {
        const double d = (double)m * cg_powers_of_ten[CG_POWERS + e];
        uint64_t bits;
        std::memcpy(&bits, &d, 8);
        const uint64_t from_middle = (bits & 0x1FFFFFFF) - (0x10000000 - 4);
        if (from_middle > 8 && d >= 1.1754943508222875e-38 && d < 3.4028235e38) {
            out = minus ? -(float)d : (float)d;
            return CG_NUMBER_OK;
        }
        if (m == 0) {
            out = minus ? -0.0f : 0.0f;
            return CG_NUMBER_OK;
        }
    }
    float f = 0;
    const auto done = std::from_chars(unsigned_, end, f);
    if (done.ec == std::errc::result_out_of_range) {
        // Either end of the range: the value left of the point in scientific notation tells which.
        const char *s = unsigned_;
        while (s < q && (*s == '0' || *s == '.')) ++s;
        int64_t scale = e;  // 10^scale times the digits from s on
        for (const char *t = s; t < q && (*t | 32) != 'e'; ++t) scale += *t != '.';
        if (scale > 0) return CG_NUMBER_HUGE;
        f = 0;
    } else if (done.ec != std::errc()) {
        return CG_NUMBER_BAD;
    }
    out = minus ? -f : f;
    return CG_NUMBER_OK;
}
