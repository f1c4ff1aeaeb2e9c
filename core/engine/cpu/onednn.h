/* A bound sequence of oneDNN primitives behind the kernel interface: created once, executed without allocation of ours. */
#ifndef COGKIT_ONEDNN_H
#define COGKIT_ONEDNN_H

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../kernel.h"

namespace cg {

using Dims = std::vector<int64_t>;

enum class Layout : int { plain = 0, c16 = 1, last = 2 };
enum class Conv : int { forward = 0, backward_data = 1, backward_weights = 2 };
enum class Pool : int { max = 0, avg_exclude_pad = 1, avg_include_pad = 2 };

class Program {
  public:
    Program();
    ~Program();
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    cg_call call;
    std::string implementation;
    double flops = 0;
    int64_t workspace = 0;
    int threads = 1;

    int nbuf() const;
    int64_t scratch() const;
    void set_buffers(const std::vector<intptr_t> &addresses);
    void run() const { call.run(&call, nullptr); }

    struct Impl;
    std::unique_ptr<Impl> impl;
};

struct ConvSpec {
    int kind = 0;
    Dims x, w, y, strides, dilation, pad_lo, pad_hi;
    int64_t groups = 1;
    int x_layout = 0, y_layout = 0;
    bool bias = false, relu = false, sum = false;
    int algorithm = 0; /* 0: the faster one, 1: direct, 2: Winograd */
};

struct MatMulSpec {
    int64_t batch = 1, m = 1, n = 1, k = 1;
    bool transpose_a = false, transpose_b = false;
    int64_t lda = 0, ldb = 0, ldc = 0;          /* 0: dense rows */
    int64_t batch_a = 0, batch_b = 0, batch_c = 0; /* elements between two matrices; 0: one matrix for all */
    bool bias = false, relu = false, sum = false;
};

struct PoolSpec {
    bool backward = false, keep_workspace = false;
    int mode = 0;
    Dims x, y, window, strides, pad_lo, pad_hi;
    int layout = 0;
};

std::unique_ptr<Program> convolution(const ConvSpec &spec);
std::unique_ptr<Program> matmul(const MatMulSpec &spec);
std::unique_ptr<Program> pooling(const PoolSpec &spec);
std::unique_ptr<Program> reorder(const Dims &shape, int from_layout, int to_layout);

std::string version();
std::string isa();
int get_num_threads();
void set_num_threads(int n);

} // namespace cg

#endif
