// What ctf_body.h needs to read numbers: decimal text to float32, correctly rounded (ties to even), without locale.
//
// The digits make a whole number m < 10^18 and a power e; m * 10^e in double is wrong by less than 2 of its last places (m, the
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

// The number that eight digits make, the first in the lowest byte, each from 0 to 9.
static inline uint64_t cg_eight_digits(uint64_t v) {
    v = v * 10 + (v >> 8);
    return (((v & 0x000000FF000000FFULL) * 0x000F424000000064ULL) + (((v >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL)) >> 32;
}
