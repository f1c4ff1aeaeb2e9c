#include "htk.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <string_view>

#include "in_parts.h"
#include "read_all.h"
#include "utf8.h"

// --- features --------------------------------------------------------------------------------------------------------------

// To the machine's order, in place; whether all of them are finite.
static bool to_native(uint32_t *x, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; ++i) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        x[i] = __builtin_bswap32(x[i]);
#endif
        const uint32_t exponent = x[i] & 0x7F800000;
        most = exponent > most ? exponent : most;
    }
    return most != 0x7F800000;
}

static void splice_row(const float *rows, int64_t dim, int64_t begin, int64_t end, int64_t at, int64_t left, int64_t right, float *out) {
    const int64_t first = at - left, last = at + right + 1;
    if (first >= begin && last <= end) {
        std::memcpy(out, rows + first * dim, (size_t)((last - first) * dim) * sizeof(float));
        return;
    }
    for (int64_t t = first; t < last; ++t, out += dim)
        std::memcpy(out, rows + std::clamp(t, begin, end - 1) * dim, (size_t)dim * sizeof(float));
}

void cg_htk_read(const std::vector<std::string> &paths, int64_t n, const int64_t *file, const int64_t *offset, const int64_t *count,
                 int64_t dim, int64_t left, int64_t right, int threads, float *out, std::vector<cg_htk_fault> &faults) {
    std::vector<int64_t> first((size_t)n + 1, 0);
    for (int64_t i = 0; i < n; ++i) first[(size_t)i + 1] = first[(size_t)i] + count[i];
    std::vector<std::vector<cg_htk_fault>> found((size_t)threads);
    const int64_t wide = (left + 1 + right) * dim;
    cg_in_parts(
        n, threads, 1 + (1 << 16) / wide, [&](int64_t i) { return first[(size_t)i]; },
        [&](int64_t begin, int64_t end, int64_t part) {
            std::vector<float> raw;
            int64_t open_file = -1;
            int fd = -1;
            for (int64_t i = begin; i < end; ++i) {
                float *to = out + first[(size_t)i] * wide;
                float *frames = to;
                const int64_t numbers = count[i] * dim;
                if (wide != dim) {
                    raw.resize((size_t)numbers);
                    frames = raw.data();
                }
                if (file[i] != open_file) {
                    if (fd >= 0) close(fd);
                    fd = open(paths[(size_t)file[i]].c_str(), O_RDONLY | O_CLOEXEC);
                    open_file = fd < 0 ? -1 : file[i];
                }
                if (fd < 0 || !cg_read_all(fd, offset[i], numbers * 4, (char *)frames)) {
                    found[(size_t)part].push_back({i, offset[i], CG_HTK_READ, errno});
                    std::fill(to, to + count[i] * wide, 0.0f);
                    continue;
                }
                if (!to_native((uint32_t *)frames, numbers)) {
                    int64_t k = 0;
                    for (uint32_t bits; std::memcpy(&bits, frames + k, 4), (bits & 0x7F800000) != 0x7F800000; ++k) continue;
                    found[(size_t)part].push_back({i, offset[i] + 4 * k, CG_HTK_NOT_FINITE, k / dim});
                }
                if (wide != dim)
                    for (int64_t t = 0; t < count[i]; ++t) splice_row(frames, dim, 0, count[i], t, left, right, to + t * wide);
            }
            if (fd >= 0) close(fd);
        });
    for (auto &f : found) faults.insert(faults.end(), f.begin(), f.end());
}

void cg_htk_splice(const float *rows, int64_t dim, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *at, int64_t left,
                   int64_t right, float *out) {
    const int64_t wide = (left + 1 + right) * dim;
    for (int64_t i = 0; i < n; ++i) splice_row(rows, dim, begin[i], end[i], at[i], left, right, out + i * wide);
}

// --- labels ----------------------------------------------------------------------------------------------------------------

static inline bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

// The next word of a line, empty at its end.
static std::string_view next_word(const char *&p, const char *end) {
    while (p < end && is_blank(*p)) ++p;
    const char *const first = p;
    while (p < end && !is_blank(*p)) ++p;
    return {first, (size_t)(p - first)};
}

// A time or number: digits, and what a time may have behind its point; false if it is none.
static bool whole_of(std::string_view word, int64_t &out) {
    size_t i = 0;
    out = 0;
    for (; i < word.size() && word[i] >= '0' && word[i] <= '9' && i < 18; ++i) out = out * 10 + (word[i] - '0');
    if (i == 0) return false;
    if (i < word.size() && word[i] == '.')
        for (++i; i < word.size() && word[i] >= '0' && word[i] <= '9';) ++i;
    return i == word.size();
}

void cg_mlf_scan(int fd, int64_t size, cg_mlf_index &out) {
    static const int64_t BLOCK = 4 << 20;
    std::vector<char> text;
    int64_t kept = 0;  // bytes of an unfinished line at the front of `text`
    int64_t last_line = -1;
    int64_t at = 0;
    bool head = false, inside = false;
    std::string last;  // the last line of labels, for where it ends
    auto fail = [&](int64_t offset, int64_t code, int64_t got) {
        out.faults.push_back({(int64_t)out.begin.size() - inside, offset, code, got});
    };
    auto leave = [&](int64_t end) {
        int64_t time = 0, start;
        const char *p = last.data();
        const bool lines = !last.empty() && whole_of(next_word(p, last.data() + last.size()), start) &&
                           whole_of(next_word(p, last.data() + last.size()), time);
        if (!lines) fail(last_line < 0 ? out.begin.back() : last_line, CG_MLF_LINE, 0);
        out.end.push_back(end);
        out.last.push_back(lines ? time : 0);
        inside = false;
    };
    while (at < size || kept) {
        const int64_t n = std::min(BLOCK, size - at);
        text.resize((size_t)(kept + n));
        if (n && !cg_read_all(fd, at, n, text.data() + kept)) {
            fail(at, CG_HTK_READ, errno);
            return;
        }
        const int64_t base = at - kept;  // of text[0] in the file
        at += n;
        const char *p = text.data(), *const stop = text.data() + text.size();
        while (p < stop) {
            const char *end = (const char *)std::memchr(p, '\n', (size_t)(stop - p));
            if (!end) {
                if (at < size) break;
                end = stop;
            }
            const char *const line = p;
            const int64_t offset = base + (line - text.data());
            p = end < stop ? end + 1 : stop;
            const char *q = line, *e = end;
            while (q < e && is_blank(*q)) ++q;
            while (e > q && is_blank(e[-1])) --e;
            if (q == e) continue;
            if (!head) {
                head = true;
                if (std::string_view(q, (size_t)(e - q)) != "#!MLF!#") {
                    fail(offset, CG_MLF_HEAD, 0);
                    return;
                }
            } else if (*q == '"') {
                if (inside) {
                    fail(offset, CG_MLF_END, 0);
                    leave(offset);
                }
                if (e - q < 3 || e[-1] != '"') {
                    fail(offset, CG_MLF_KEY, 0);
                    continue;
                }
                out.keys.append(q + 1, (size_t)(e - q - 2));
                out.key.push_back((int64_t)out.keys.size());
                out.begin.push_back(base + (p - text.data()));
                inside = true;
                last.clear();
                last_line = -1;
            } else if (!inside) {
                fail(offset, CG_MLF_KEY, 0);
            } else if (e - q == 1 && *q == '.') {
                leave(offset);
            } else {
                last.assign(q, (size_t)(e - q));
                last_line = offset;
            }
        }
        kept = stop - p;
        std::memmove(text.data(), p, (size_t)kept);
    }
    if (!head) fail(0, CG_MLF_HEAD, 0);
    if (inside) {
        fail(size, CG_MLF_END, 0);
        leave(size);
    }
}

namespace {
struct LabelReader {
    int64_t unit, classes;
    const std::unordered_map<std::string, int32_t> &names;
    std::vector<cg_htk_fault> &faults;
    bool every;  // whether to go on after a fault
    std::string name{};
    bool fine = true;

    bool fail(int64_t item, int64_t offset, int64_t code, int64_t got) {
        faults.push_back({item, offset, code, got});
        fine = false;
        return every;
    }

    bool utterance(int64_t item, const char *text, const char *stop, int64_t base, int64_t frames, int32_t *label, uint8_t *starts) {
        int64_t done = 0;
        fine = true;
        for (const char *line = text; line < stop;) {
            const char *end = (const char *)std::memchr(line, '\n', (size_t)(stop - line));
            if (!end) end = stop;
            const char *p = line;
            const std::string_view start = next_word(p, end);
            const int64_t offset = base + (line - text);
            line = end + 1;
            if (start.empty()) continue;
            const std::string_view after = next_word(p, end), word = next_word(p, end);
            int64_t first, last, id;
            if (!whole_of(start, first) || !whole_of(after, last) || word.empty()) {
                if (fail(item, offset, CG_MLF_LINE, 0)) continue;
                return false;
            }
            first = (first + unit / 2) / unit;
            last = (last + unit / 2) / unit;
            if (first != done || last < first) {
                if (!fail(item, offset, CG_MLF_GAP, last < first ? last : first)) return false;
                first = std::min(first, last);
            }
            if (last > frames) {
                fail(item, offset, CG_MLF_CHANGED, last);
                return false;
            }
            done = last;
            if (names.empty()) {
                if (!whole_of(word, id) || id >= classes) {
                    if (fail(item, base + (word.data() - text), CG_MLF_LABEL, 0)) continue;
                    return false;
                }
            } else {
                name.assign(word);
                const auto found = names.find(name);
                if (found == names.end()) {
                    const char *bad;
                    const bool utf8 = cg_is_utf8(word.data(), word.data() + word.size(), bad);
                    if (!fail(item, base + ((utf8 ? word.data() : bad) - text), utf8 ? CG_MLF_LABEL : CG_MLF_UTF8, utf8 ? 0 : (unsigned char)*bad))
                        return false;
                    continue;
                }
                id = found->second;
            }
            std::fill(label + first, label + last, (int32_t)id);
            std::fill(starts + first, starts + last, 0);
            if (last > first) starts[first] = 1;
        }
        if (fine && done != frames) fail(item, base, CG_MLF_CHANGED, done);
        return fine;
    }
};
}  // namespace

void cg_mlf_read(int fd, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *frames, int64_t unit, int64_t classes,
                 const std::unordered_map<std::string, int32_t> &names, int threads, bool every, int32_t *label, uint8_t *starts,
                 std::vector<cg_htk_fault> &faults) {
    std::vector<int64_t> total((size_t)n + 1, 0), first((size_t)n + 1, 0);
    for (int64_t i = 0; i < n; ++i) {
        total[(size_t)i + 1] = total[(size_t)i] + end[i] - begin[i];
        first[(size_t)i + 1] = first[(size_t)i] + frames[i];
    }
    std::vector<std::vector<cg_htk_fault>> found((size_t)threads);
    cg_in_parts(
        n, threads, 1 << 16, [&](int64_t i) { return total[(size_t)i]; },
        [&](int64_t from, int64_t to, int64_t part) {
            LabelReader reader{unit, classes, names, found[(size_t)part], every};
            std::vector<char> text;
            for (int64_t i = from; i < to; ++i) {
                const int64_t size = end[i] - begin[i];
                text.resize((size_t)size + 1);
                const bool there = cg_read_all(fd, begin[i], size, text.data());
                if (!there) reader.fail(i, begin[i], CG_HTK_READ, errno);
                const bool fine = there && reader.utterance(i, text.data(), text.data() + size, begin[i], frames[i],
                                                            label + first[(size_t)i], starts + first[(size_t)i]);
                if (!fine) {
                    std::fill(label + first[(size_t)i], label + first[(size_t)i + 1], 0);
                    std::fill(starts + first[(size_t)i], starts + first[(size_t)i + 1], 0);
                }
            }
        });
    for (auto &f : found) faults.insert(faults.end(), f.begin(), f.end());
}
