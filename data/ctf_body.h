// The parser of ctf.cpp, compiled once for every processor and once for those with SSE 4.1 (CG_SSE41), each in its own namespace.

// The number that the digits at p make, sixteen at most, and how many they are. No branch depends on how many.
#ifdef CG_SSE41
static inline uint64_t leading_digits(const char *p, int &count) {
    static const int8_t zeros[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                     0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15};
    const __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
    const __m128i digit = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v);
    count = __builtin_ctz(~(unsigned)_mm_movemask_epi8(digit));
    // To the right end, zeros before them; then pairs, fours and eights of digits.
    __m128i x = _mm_shuffle_epi8(v, _mm_loadu_si128((const __m128i *)(zeros + count)));
    x = _mm_maddubs_epi16(x, _mm_set1_epi16(1 << 8 | 10));
    x = _mm_madd_epi16(x, _mm_set1_epi32(1 << 16 | 100));
    x = _mm_madd_epi16(_mm_packus_epi32(x, x), _mm_set1_epi32(1 << 16 | 10000));
    const uint64_t both = (uint64_t)_mm_cvtsi128_si64(x);
    return (both & 0xFFFFFFFF) * 100000000 + (both >> 32);
}
#else
static inline uint64_t leading_digits(const char *p, int &count) {
    uint64_t low, high;
    std::memcpy(&low, p, 8);
    std::memcpy(&high, p + 8, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    low = __builtin_bswap64(low);
    high = __builtin_bswap64(high);
#endif
    low ^= 0x3030303030303030ULL;
    high ^= 0x3030303030303030ULL;
    // The lowest bit is right: what is carried on comes from a byte that is no digit itself.
    const uint64_t others_low = ((low + 0x7676767676767676ULL) | low) & 0x8080808080808080ULL;
    const uint64_t others_high = ((high + 0x7676767676767676ULL) | high) & 0x8080808080808080ULL;
    const uint64_t first = others_low ? others_low : others_high;
    const int in_first = first ? __builtin_ctzll(first) >> 3 : 8;
    count = in_first + (others_low ? 0 : 8);
    unsigned __int128 v = (unsigned __int128)high << 64 | low;
    v = (v << (64 - 4 * count)) << (64 - 4 * count);  // zeros before the first digit
    return cg_eight_digits((uint64_t)v) * 100000000 + cg_eight_digits((uint64_t)(v >> 64));
}
#endif

// Text at p up to a byte that cannot be of a number; the buffer can be read 32 bytes past that. `end` is the buffer's end.
static inline cg_number read_float(const char *&p, const char *end, float &out) {
    const char *q = p;
    const bool minus = *q == '-';
    q += minus | (*q == '+');
    const char *const unsigned_ = q;
    uint64_t m = 0;
    int64_t digits, e = 0;
    while (cg_is_digit(*q)) m = m * 10 + (uint64_t)(*q++ - '0');
    digits = q - unsigned_;
    if (*q == '.') {
        const char *const point = ++q;
        static const uint64_t tens[] = {1,           10,           100,           1000,           10000,          100000,
                                        1000000,     10000000,     100000000,     1000000000,     10000000000,    100000000000,
                                        1000000000000, 10000000000000, 100000000000000, 1000000000000000, 10000000000000000};
        int count;
        const uint64_t fraction = leading_digits(q, count);
        m = m * tens[count] + fraction;
        q += count;
        while (cg_is_digit(*q)) m = m * 10 + (uint64_t)(*q++ - '0');
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
    if (digits <= 18 && e >= -CG_POWERS && e <= CG_POWERS) {
        const double d = (double)(int64_t)m * cg_powers_of_ten[CG_POWERS + e];
        uint64_t bits;
        std::memcpy(&bits, &d, 8);
        const uint64_t from_middle = (bits & 0x1FFFFFFF) - (0x10000000 - 4);
        if (from_middle > 8 && d >= 1.1754943508222875e-38 && d < 3.4028235e38) {
            float f = (float)d;
            uint32_t sign;
            std::memcpy(&sign, &f, 4);
            sign |= (uint32_t)minus << 31;
            std::memcpy(&out, &sign, 4);
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

struct Parser {
    std::vector<cg_ctf_stream> &streams;
    std::vector<cg_ctf_sparse> &sparse;
    std::vector<int64_t> row;   // next sample of each stream
    std::vector<int64_t> line;  // the line that had the stream last
    std::vector<size_t> filled;  // numbers of each sparse stream before this sequence
    const char *limit = nullptr;  // of the buffer
    size_t last = 0;
    bool sorted = true;
    std::vector<cg_ctf_fault> *every = nullptr;  // where all faults of a sequence go; else it is left at the first one
    cg_ctf_fault fault{};

    Parser(std::vector<cg_ctf_stream> &streams, std::vector<cg_ctf_sparse> &sparse)
        : streams(streams), sparse(sparse), row(streams.size()), line(streams.size()), filled(streams.size()) {}

    // Leaves nothing of a faulty sequence: no numbers, in as many samples as the index says.
    void drop(int64_t item) {
        for (size_t s = 0; s < streams.size(); ++s) {
            const int64_t first = streams[s].first[(size_t)item], after = streams[s].first[(size_t)item + 1];
            if (streams[s].sparse) {
                sparse[s].index.resize(filled[s]);
                sparse[s].value.resize(filled[s]);
                std::fill(streams[s].row_sizes + first, streams[s].row_sizes + after, 0);
            } else {
                std::fill(streams[s].rows + first * streams[s].dim, streams[s].rows + after * streams[s].dim, 0.0f);
            }
        }
    }

    bool fail(int64_t code, int64_t offset, int64_t stream, int64_t got) {
        fault.code = code;
        fault.offset = offset;
        fault.stream = stream;
        fault.got = got;
        return false;
    }

    // After a fault: whether to go on, from the next bar or line end.
    bool go_on(const char *&p, int64_t item) {
        if (!every) return false;
        fault.item = item;
        every->push_back(fault);
        while (*p != '|' && *p != '\n') ++p;
        return true;
    }

    // One sequence, [text, end) of the buffer, at `base` in the file; a line end and PAD bytes follow.
    bool sequence(const char *text, const char *end, int64_t base, int64_t item) {
        const size_t S = streams.size();
        for (size_t s = 0; s < S; ++s) {
            row[s] = streams[s].first[(size_t)item];
            line[s] = 0;
        }
        const char *p = text;
        for (int64_t lines = 1; p < end; ++lines) {
            uint64_t id;
            read_id(p, id);
            for (;;) {
                while (is_blank(*p)) ++p;
                if (*p == '\n') {
                    ++p;
                    break;
                }
                if (*p != '|') {
                    fail(CG_CTF_TEXT, base + (p - text), -1, 0);
                    if (go_on(p, item)) continue;
                    return false;
                }
                const char *const bar = p;
                const char *name = ++p;
                while ((unsigned char)*p > ' ' && *p != '|') ++p;
                const size_t size = (size_t)(p - name);
                if (size == 0) {
                    fail(CG_CTF_TEXT, base + (bar - text), -1, 0);
                    if (go_on(p, item)) continue;
                    return false;
                }
                size_t s = S;
                if (*name != '#')
                    for (size_t tried = 0, c = last; tried < S; ++tried) {  // streams mostly come in one order
                        c = c + 1 < S ? c + 1 : 0;
                        if (same_name(streams[c].name, name, size)) {
                            s = last = c;
                            break;
                        }
                    }
                if (s == S) {  // a remark, or a stream that nobody asked for
                    while (*p != '|' && *p != '\n') ++p;
                    const char *bad;
                    if (cg_is_utf8(name, p, bad)) continue;
                    fail(CG_CTF_UTF8, base + (bad - text), -1, (unsigned char)*bad);
                    if (go_on(p, item)) continue;
                    return false;
                }
                if (line[s] == lines) {
                    fail(CG_CTF_TWICE, base + (bar - text), (int64_t)s, 0);
                    if (!go_on(p, item)) return false;
                }
                line[s] = lines;
                if (row[s] == streams[s].first[(size_t)item + 1]) return fail(CG_CTF_CHANGED, base + (bar - text), (int64_t)s, 0);
                if (!(streams[s].sparse ? pairs(p, text, base, s) : values(p, text, base, s)) && !go_on(p, item)) return false;
                ++row[s];
            }
        }
        for (size_t s = 0; s < S; ++s) {
            const int64_t first = streams[s].first[(size_t)item], after = streams[s].first[(size_t)item + 1];
            if (first == after) return fail(CG_CTF_EMPTY, base, (int64_t)s, 0);
            if (row[s] != after) return fail(CG_CTF_CHANGED, base, (int64_t)s, row[s] - first);
        }
        return true;
    }

    bool number(const char *&p, const char *text, int64_t base, size_t s, float &out) {
        const char *const at = p;
        const cg_number what = read_float(p, limit, out);
        if (what == CG_NUMBER_OK && (is_blank(*p) || *p == '\n' || *p == '|')) return true;
        const char *q = at + (*at == '-' || *at == '+');
        const bool word = (*q | 32) == 'n' || (*q | 32) == 'i';  // nan, inf
        return fail(what == CG_NUMBER_HUGE || word ? CG_CTF_NOT_FINITE : CG_CTF_NUMBER, base + (at - text), (int64_t)s, 0);
    }

    bool values(const char *&p, const char *text, int64_t base, size_t s) {
        const int64_t dim = streams[s].dim;
        float *out = streams[s].rows + row[s] * dim;
        int64_t n = 0;
        for (;;) {
            while (is_blank(*p)) ++p;
            if (*p == '|' || *p == '\n') break;
            if (n == dim) {
                const char *const at = p;
                for (; *p != '|' && *p != '\n'; ++p) n += !is_blank(*p) && (is_blank(p[1]) || p[1] == '|' || p[1] == '\n');
                return fail(CG_CTF_MANY, base + (at - text), (int64_t)s, n);
            }
            if (!number(p, text, base, s, out[n])) return false;
            ++n;
        }
        return n == dim || fail(CG_CTF_FEW, base + (p - text), (int64_t)s, n);
    }

    bool pairs(const char *&p, const char *text, int64_t base, size_t s) {
        const int64_t dim = streams[s].dim;
        std::vector<int32_t> &index = sparse[s].index;
        std::vector<float> &value = sparse[s].value;
        const size_t before = index.size();
        int64_t previous = -1;
        for (;;) {
            while (is_blank(*p)) ++p;
            if (*p == '|' || *p == '\n') break;
            const char *const at = p;
            int64_t k = 0;
            while (cg_is_digit(*p)) k = k < (int64_t)1 << 40 ? k * 10 + (*p - '0') : k, ++p;
            if (p == at || *p != ':') return fail(CG_CTF_PAIR, base + (at - text), (int64_t)s, 0);
            if (k >= dim) return fail(CG_CTF_INDEX, base + (at - text), (int64_t)s, k);
            ++p;
            float v = 1;
            if (*p == '1' && (is_blank(p[1]) || p[1] == '\n' || p[1] == '|'))
                ++p;  // what most of them are
            else if (!number(p, text, base, s, v))
                return false;
            sorted &= k > previous;
            previous = k;
            index.push_back((int32_t)k);
            value.push_back(v);
        }
        streams[s].row_sizes[row[s]] = (int32_t)(index.size() - before);
        return true;
    }
};

static void read(int fd, const char *whole, int64_t whole_size, int64_t n, const int64_t *begin, const int64_t *end, int threads, std::vector<cg_ctf_stream> &streams,
                 std::vector<std::vector<cg_ctf_sparse>> &sparse, bool every, std::vector<cg_ctf_fault> &faults, bool &sorted) {
    std::vector<int64_t> total((size_t)n + 1, 0);
    for (int64_t i = 0; i < n; ++i) total[(size_t)i + 1] = total[(size_t)i] + end[i] - begin[i];
    sparse.assign((size_t)threads, std::vector<cg_ctf_sparse>(streams.size()));
    std::vector<std::vector<cg_ctf_fault>> found((size_t)threads);
    std::vector<char> rising((size_t)threads, 1);
    cg_in_parts(
        n, threads, 1 << 15, [&](int64_t i) { return total[(size_t)i]; },
        [&](int64_t first, int64_t last, int64_t part) {
            static const int64_t BLOCK = 1 << 17;  // of text at a time: it stays in the cache
            Parser parser(streams, sparse[(size_t)part]);
            if (every) parser.every = &found[(size_t)part];
            std::unique_ptr<char[]> buffer;
            int64_t room = -1;
            for (int64_t i = first; i < last;) {
                int64_t after = i + 1;  // neighbours in the file are read at once
                while (after < last && begin[after] == end[after - 1] && end[after] - begin[i] <= BLOCK) ++after;
                const int64_t size = end[after - 1] - begin[i];
                if (!whole && size > room) {
                    room = std::max(size + size / 4, BLOCK);
                    buffer.reset(new char[(size_t)(room + PAD + 1)]);
                }
                const char *const text = whole ? whole + begin[i] : buffer.get();
                const bool there = whole || cg_read_all(fd, begin[i], size, buffer.get());
                const int64_t error = there ? 0 : errno;
                if (!whole) cg_close_text(buffer.get(), size);
                parser.limit = whole ? whole + whole_size + 1 : text + size + 1;
                for (int64_t k = i; k < after; ++k) {
                    const char *p = text + (begin[k] - begin[i]);
                    for (size_t s = 0; s < streams.size(); ++s) parser.filled[s] = parser.sparse[s].index.size();
                    if (!there)
                        parser.fail(CG_CTF_READ, begin[k], -1, error);
                    else if (parser.sequence(p, text + (end[k] - begin[i]), begin[k], k))
                        continue;
                    parser.fault.item = k;
                    found[(size_t)part].push_back(parser.fault);
                    parser.drop(k);
                }
                i = after;
            }
            rising[(size_t)part] = parser.sorted;
        });
    for (auto &f : found) faults.insert(faults.end(), f.begin(), f.end());
    sorted = true;
    for (char r : rising) sorted &= r != 0;
}
