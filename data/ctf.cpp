#include "ctf.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "in_parts.h"
#include "number.h"
#include "read_all.h"
#include "utf8.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

const double cg_powers_of_ten[2 * CG_POWERS + 1] = {
    1e-64, 1e-63, 1e-62, 1e-61, 1e-60, 1e-59, 1e-58, 1e-57, 1e-56, 1e-55, 1e-54, 1e-53, 1e-52, 1e-51, 1e-50, 1e-49, 1e-48,
    1e-47, 1e-46, 1e-45, 1e-44, 1e-43, 1e-42, 1e-41, 1e-40, 1e-39, 1e-38, 1e-37, 1e-36, 1e-35, 1e-34, 1e-33, 1e-32, 1e-31,
    1e-30, 1e-29, 1e-28, 1e-27, 1e-26, 1e-25, 1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14,
    1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7,
    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27,
    1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45, 1e46, 1e47,
    1e48, 1e49, 1e50, 1e51, 1e52, 1e53, 1e54, 1e55, 1e56, 1e57, 1e58, 1e59, 1e60, 1e61, 1e62, 1e63, 1e64,
};

static const int64_t PAD = CG_CTF_PAD;

void cg_close_text(char *text, int64_t size) {
    text[size] = '\n';
    std::memset(text + size + 1, 0, (size_t)PAD);
}

static inline bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

// Names are short: a call would take longer than the comparison.
static inline bool same_name(const std::string &known, const char *name, size_t size) {
    if (known.size() != size) return false;
    for (size_t i = 0; i < size; ++i)
        if (known[i] != name[i]) return false;
    return true;
}

// Bits of the 64 bytes at p that are a line end or a bar.
static inline uint64_t marks(const char *p) {
#if defined(__SSE2__)
    const __m128i line = _mm_set1_epi8('\n'), bar = _mm_set1_epi8('|');
    uint64_t out = 0;
    for (int i = 0; i < 4; ++i) {
        const __m128i x = _mm_loadu_si128((const __m128i *)(p + 16 * i));
        out |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(x, line), _mm_cmpeq_epi8(x, bar))) << (16 * i);
    }
    return out;
#else
    uint64_t out = 0;
    for (int i = 0; i < 64; ++i) out |= (uint64_t)(p[i] == '\n' || p[i] == '|') << i;
    return out;
#endif
}

// The id at the beginning of a line, if it has one: p moves behind it.
static inline bool read_id(const char *&p, uint64_t &id) {
    const char *q = p;
    while (is_blank(*q)) ++q;
    if (!cg_is_digit(*q)) return false;
    id = 0;
    while (cg_is_digit(*q)) id = id * 10 + (uint64_t)(*q++ - '0');
    if (!is_blank(*q) && *q != '|' && *q != '\n') return false;
    p = q;
    return true;
}

// --- the index -------------------------------------------------------------------------------------------------------------

namespace {
struct Scan {  // of one chunk
    cg_ctf_index found;
    bool headless = false;  // its first lines have no id: they go on with a sequence of the chunk before
    size_t last = 0;        // the name that was met last

    size_t column(const char *name, size_t size) {
        const size_t k = found.names.size();
        for (size_t tried = 0, c = last; tried < k; ++tried) {  // streams mostly come in one order
            c = c + 1 < k ? c + 1 : 0;
            if (same_name(found.names[c], name, size)) return last = c;
        }
        found.names.emplace_back(name, size);
        found.count.emplace_back(found.offset.size(), 0);
        return last = k;
    }

    void begin_sequence(int64_t offset, uint64_t id) {
        found.offset.push_back(offset);
        found.id.push_back(id);
        for (auto &c : found.count) c.push_back(0);
    }
};
}  // namespace

// Lines that begin in [begin, end) of the file; text holds it from `begin` to the end of the last of them, a line end and PAD more.
static void scan_lines(const char *text, int64_t begin, int64_t end, bool ids, Scan &scan) {
    cg_ctf_index &found = scan.found;
    const char *p = text, *const stop = text + (end - begin);
    while (p < stop) {
        const char *const line = p;
        uint64_t id = 0;
        const bool has_id = ids && read_id(p, id);
        while (is_blank(*p)) ++p;
        if (*p == '\n') {  // no more than an id, or nothing
            ++p;
            continue;
        }
        if (found.offset.empty()) {
            scan.headless = ids && !has_id;
            scan.begin_sequence(begin + (line - text), id);
        } else if (!ids || (has_id && (found.id.back() != id || (scan.headless && found.offset.size() == 1)))) {
            scan.begin_sequence(begin + (line - text), id);
        }
        for (bool ended = false; !ended; p += ended ? 0 : 64) {
            for (uint64_t bits = marks(p); bits; bits &= bits - 1) {
                const char *q = p + __builtin_ctzll(bits);
                if (*q == '\n') {
                    p = q + 1;
                    ended = true;
                    break;
                }
                const char *name = q + 1, *e = name;
                if (*name == '#') continue;  // a remark
                while ((unsigned char)*e > ' ' && *e != '|') ++e;
                if (e == name) continue;  // the parser will say so
                const size_t k = scan.column(name, (size_t)(e - name));
                if (k >= CG_CTF_NAMES) {
                    found.faults.push_back({0, begin + (name - text), CG_CTF_STREAMS, -1, (int64_t)k});
                    return;
                }
                ++found.count[k].back();
            }
        }
    }
}

// Reads [at, at + n) of a file, of what is in memory already where `whole` is set.
static bool read_part(int fd, const char *whole, int64_t at, int64_t n, char *to) {
    if (!whole) return cg_read_all(fd, at, n, to);
    std::memcpy(to, whole + at, (size_t)n);
    return true;
}

// A chunk: the lines that begin in [begin, end).
static void scan_chunk(int fd, const char *whole, int64_t size, int64_t begin, int64_t end, bool ids, std::vector<char> &text, Scan &scan) {
    const int64_t from = begin ? begin - 1 : 0;
    int64_t filled = end - from;
    if ((int64_t)text.size() < filled + PAD + 1) text.resize((size_t)(filled + PAD + 1));
    if (!read_part(fd, whole, from, filled, text.data())) {
        scan.found.faults.push_back({0, from, CG_CTF_READ, -1, errno});
        return;
    }
    const char *first = text.data();
    if (begin) {
        first = (const char *)std::memchr(first, '\n', (size_t)filled);
        if (!first || first + 1 == text.data() + filled) return;  // it begins inside a line that does not end here
        ++first;
    } else if (filled >= 3 && std::memcmp(first, "\xEF\xBB\xBF", 3) == 0) {
        first += 3;
    }
    const int64_t skipped = first - text.data();
    for (int64_t more = 1 << 16; text[(size_t)filled - 1] != '\n' && from + filled < size; more *= 2) {  // the last line's end
        const int64_t n = more < size - from - filled ? more : size - from - filled;
        text.resize((size_t)(filled + n + PAD + 1));
        if (!read_part(fd, whole, from + filled, n, text.data() + filled)) {
            scan.found.faults.push_back({0, from + filled, CG_CTF_READ, -1, errno});
            return;
        }
        const char *line_end = (const char *)std::memchr(text.data() + filled, '\n', (size_t)n);
        filled = line_end ? line_end + 1 - text.data() : filled + n;
    }
    cg_close_text(text.data(), filled);
    scan_lines(text.data() + skipped, from + skipped, end, ids, scan);
}

void cg_ctf_scan(int fd, const char *whole, int64_t size, int threads, int64_t chunk, cg_ctf_index &out) {
    // The first line that is not blank tells whether there are ids.
    std::vector<char> text;
    for (int64_t at = 0; at < size && !out.ids;) {
        const int64_t n = size - at < 4096 ? size - at : 4096;
        text.assign((size_t)(n + PAD), 0);
        if (!read_part(fd, whole, at, n, text.data())) {
            out.faults.push_back({0, at, CG_CTF_READ, -1, errno});
            return;
        }
        const char *p = text.data() + (at == 0 && n >= 3 && std::memcmp(text.data(), "\xEF\xBB\xBF", 3) == 0 ? 3 : 0);
        while (is_blank(*p) || *p == '\n') ++p;
        if (p < text.data() + n) {
            uint64_t id;
            out.ids = read_id(p, id);
            break;
        }
        at += n;
    }
    const int64_t chunks = (size + chunk - 1) / chunk;
    // Some chunks a thread at a time, so that what is not merged yet stays small.
    std::vector<std::vector<char>> buffers((size_t)threads);
    bool headless = false;  // whether the file's first sequence has no id
    for (int64_t done = 0, now; done < chunks && out.faults.empty(); done += now) {
        now = std::min(chunks - done, (int64_t)threads * 16);
        std::vector<Scan> scans((size_t)now);
        cg_in_parts(
            now, threads, 1, [](int64_t i) { return i; },
            [&](int64_t first, int64_t last, int64_t part) {
                for (int64_t c = first; c < last; ++c) {
                    const int64_t begin = (done + c) * chunk, end = begin + chunk < size ? begin + chunk : size;
                    scan_chunk(fd, whole, size, begin, end, out.ids, buffers[(size_t)part], scans[(size_t)c]);
                }
            });
        for (Scan &scan : scans) {
            cg_ctf_index &found = scan.found;
            out.faults.insert(out.faults.end(), found.faults.begin(), found.faults.end());
            const size_t n = found.offset.size(), before = out.offset.size();
            if (n == 0) continue;
            // What goes on with the last sequence: lines without an id, then those with its id.
            size_t skip = before && scan.headless ? 1 : 0;
            const bool nameless = before == 1 && headless;  // it has no id of its own
            if (before && out.ids && !nameless && skip < n && found.id[skip] == out.id.back()) ++skip;
            if (!before) headless = scan.headless;
            out.offset.insert(out.offset.end(), found.offset.begin() + (int64_t)skip, found.offset.end());
            if (out.ids) out.id.insert(out.id.end(), found.id.begin() + (int64_t)skip, found.id.end());
            for (auto &c : out.count) c.resize(before + n - skip, 0);
            for (size_t k = 0; k < found.names.size(); ++k) {
                size_t c = 0;
                while (c < out.names.size() && out.names[c] != found.names[k]) ++c;
                if (c == out.names.size()) {
                    out.names.push_back(found.names[k]);
                    out.count.emplace_back(before + n - skip, 0);
                }
                for (size_t i = 0; i < skip; ++i) out.count[c][before - 1] += found.count[k][i];
                std::copy(found.count[k].begin() + (int64_t)skip, found.count[k].end(), out.count[c].begin() + (int64_t)before);
            }
            if (out.names.size() > CG_CTF_NAMES)
                out.faults.push_back({0, found.offset[0], CG_CTF_STREAMS, -1, (int64_t)out.names.size()});
        }
    }
    out.offset.push_back(size);
}

// --- the parser ------------------------------------------------------------------------------------------------------------

namespace plain {
#include "ctf_body.h"
}

// GCC on x86: the same for processors of 2008 and later.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CG_SSE41
#pragma GCC push_options
#pragma GCC target("sse4.1")
#include <smmintrin.h>
namespace sse41 {
#include "ctf_body.h"
}
#pragma GCC pop_options
static const bool has_sse41 = __builtin_cpu_supports("sse4.1");
#else
static const bool has_sse41 = false;
namespace sse41 = plain;
#endif

void cg_ctf_read(int fd, const char *whole, int64_t whole_size, int64_t n, const int64_t *begin, const int64_t *end, int threads,
                 std::vector<cg_ctf_stream> &streams, std::vector<std::vector<cg_ctf_sparse>> &sparse, bool every,
                 std::vector<cg_ctf_fault> &faults, bool &sorted) {
    (has_sse41 ? sse41::read : plain::read)(fd, whole, whole_size, n, begin, end, threads, streams, sparse, every, faults, sorted);
}

int cg_float_of_text(const char *text, int64_t size, bool any_processor, float *out) {
    std::vector<char> padded(text, text + size);
    padded.resize((size_t)(size + PAD), 0);
    const char *p = padded.data();
    const cg_number what = (has_sse41 && !any_processor ? sse41::read_float : plain::read_float)(p, padded.data() + size, *out);
    return what != CG_NUMBER_OK ? (int)what : p == padded.data() + size ? 0 : (int)CG_NUMBER_BAD;
}

void cg_ctf_format(const float *rows, int64_t n, int64_t dim, bool sparse, const std::string &head, std::string &out) {
    char text[48];
    for (int64_t t = 0; t < n; ++t) {
        out += head;
        for (int64_t k = 0; k < dim; ++k) {
            const float v = rows[t * dim + k];
            if (sparse && v == 0) continue;
            char *p = text;
            *p++ = ' ';
            if (sparse) {
                p = std::to_chars(p, text + sizeof text, k).ptr;
                *p++ = ':';
            }
            out.append(text, (size_t)(std::to_chars(p, text + sizeof text, v).ptr - text));
        }
        out += '\n';
    }
}
