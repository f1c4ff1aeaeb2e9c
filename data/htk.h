// HTK features and label files; htk.py says what the formats are.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

enum cg_htk_code {
    CG_HTK_READ = 1,    // cannot be read there; `got`: errno, or 0 for the end of the file
    CG_HTK_NOT_FINITE,  // a number that is not finite
    CG_MLF_HEAD,        // the file does not begin with #!MLF!#
    CG_MLF_KEY,         // neither "key" nor a line in it
    CG_MLF_END,         // the labels of a key do not end with a line of a dot
    CG_MLF_LINE,        // no start, end and name
    CG_MLF_GAP,         // a segment that does not begin where the one before ends; `got`: where, in frames
    CG_MLF_LABEL,       // a name that the mapping does not have
    CG_MLF_UTF8,
    CG_MLF_CHANGED,     // not as many frames as the index says
};

struct cg_htk_fault {
    int64_t item, offset, code, got;
};

// Frames of n utterances, one after the other: count[i] of dim numbers at byte offset[i] of paths[file[i]], big-endian float32.
// A row of `out` has the frames from `left` before to `right` after it; the first and last of an utterance are repeated.
void cg_htk_read(const std::vector<std::string> &paths, int64_t n, const int64_t *file, const int64_t *offset, const int64_t *count,
                 int64_t dim, int64_t left, int64_t right, int threads, float *out, std::vector<cg_htk_fault> &faults);

// Rows at[i] of `rows` (., dim) with their neighbours in begin[i] .. end[i].
void cg_htk_splice(const float *rows, int64_t dim, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *at, int64_t left,
                   int64_t right, float *out);

// Utterances of a label file: key i is keys[key[i] .. key[i + 1]], its lines lie at begin[i] .. end[i] and end at `last[i]` in units.
struct cg_mlf_index {
    std::string keys;
    std::vector<int64_t> key{0}, begin, end, last;
    std::vector<cg_htk_fault> faults;
};
void cg_mlf_scan(int fd, int64_t size, cg_mlf_index &out);

// Class of each frame of n utterances, `unit` time units a frame; `starts`: where segments begin. No names: labels are numbers below
// `classes`. At most one fault an utterance, unless `every` one is wanted.
void cg_mlf_read(int fd, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *frames, int64_t unit, int64_t classes,
                 const std::unordered_map<std::string, int32_t> &names, int threads, bool every, int32_t *label, uint8_t *starts,
                 std::vector<cg_htk_fault> &faults);
