#pragma once

// Whether [p, end) is UTF-8 (no overlong forms, no surrogates); `bad`: the first byte that is not.
static inline bool cg_is_utf8(const char *p, const char *end, const char *&bad) {
    while (p < end) {
        const unsigned char c = (unsigned char)*p;
        if (c < 0x80) {
            ++p;
            continue;
        }
        bad = p;
        const int more = c >= 0xF0 && c <= 0xF4 ? 3 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xC2 && c < 0xE0 ? 1 : 0;
        if (more == 0 || end - p <= more) return false;
        for (int i = 1; i <= more; ++i)
            if (((unsigned char)p[i] & 0xC0) != 0x80) return false;
        const unsigned char second = (unsigned char)p[1];
        if ((c == 0xE0 && second < 0xA0) || (c == 0xED && second > 0x9F) || (c == 0xF0 && second < 0x90) || (c == 0xF4 && second > 0x8F))
            return false;
        p += more + 1;
    }
    return true;
}
