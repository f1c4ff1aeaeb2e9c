// The text format's index and parser; ctf.py says what the format is.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

// What is wrong, where; ctf.py has the sentences.
enum cg_ctf_code {
    CG_CTF_READ = 1,    // the file cannot be read there; `got`: errno, or 0 for its end
    CG_CTF_TEXT,        // neither a stream, a number nor the end of a line
    CG_CTF_NUMBER,      // no number
    CG_CTF_NOT_FINITE,  // nan, inf, or beyond float32
    CG_CTF_FEW,         // `got` values instead of the stream's dimension
    CG_CTF_MANY,
    CG_CTF_INDEX,       // `got` is no index of a sparse stream
    CG_CTF_PAIR,        // no index:value
    CG_CTF_TWICE,       // a stream twice in one line
    CG_CTF_EMPTY,       // no sample of the stream in the sequence
    CG_CTF_UTF8,
    CG_CTF_CHANGED,     // not as many samples as the index says
    CG_CTF_STREAMS,     // more than CG_CTF_NAMES names: no such file
};
enum {
    CG_CTF_NAMES = 1024,
    CG_CTF_PAD = 64,  // bytes after a text and a line end that may be looked at
};

struct cg_ctf_fault {
    int64_t item, offset, code, stream, got;
};

// Sequences of a file: sequence i lies at offset[i] .. offset[i + 1]; count[k][i] samples of the stream names[k].
struct cg_ctf_index {
    bool ids = false;
    std::vector<int64_t> offset;
    std::vector<uint64_t> id;
    std::vector<std::string> names;
    std::vector<std::vector<int32_t>> count;
    std::vector<cg_ctf_fault> faults;
};

// whole: the text of the file, or null: it is read.
void cg_ctf_scan(int fd, const char *whole, int64_t size, int threads, int64_t chunk, cg_ctf_index &out);

struct cg_ctf_stream {
    std::string name;
    int64_t dim;
    bool sparse;
    float *rows;         // dense: (all samples, dim)
    int32_t *row_sizes;  // sparse: numbers in each sample
    std::vector<int64_t> first;  // first sample of each sequence, and one more
};

// Numbers of a sparse stream of a run of sequences, in order.
struct cg_ctf_sparse {
    std::vector<int32_t> index;
    std::vector<float> value;
};

// Puts what the parser wants behind a text: a line end and zeros, CG_CTF_PAD + 1 bytes.
void cg_close_text(char *text, int64_t size);

// Parses n sequences at begin[i]..end[i] of the file, or of its closed text `whole` in memory (else null); `sparse`: [part][stream]; at most one fault a sequence, unless `every` one is wanted. `sorted`: whether
// the indices of every sparse sample rise.
void cg_ctf_read(int fd, const char *whole, int64_t whole_size, int64_t n, const int64_t *begin, const int64_t *end, int threads,
                 std::vector<cg_ctf_stream> &streams, std::vector<std::vector<cg_ctf_sparse>> &sparse, bool every,
                 std::vector<cg_ctf_fault> &faults, bool &sorted);

// The float32 that a decimal text stands for: 0 well, 1 no number, 2 out of range. `any_processor`: by the code that needs none
// in particular.
int cg_float_of_text(const char *text, int64_t size, bool any_processor, float *out);

// Rows of finite numbers as text, the shortest that reads back the same, each with `head` before and a line end after it.
void cg_ctf_format(const float *rows, int64_t n, int64_t dim, bool sparse, const std::string &head, std::string &out);
