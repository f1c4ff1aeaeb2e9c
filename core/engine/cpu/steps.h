/* Rows moved between row spaces by a table, numbers a row, reductions over the steps of sequences. */
#ifndef COGKIT_STEPS_H
#define COGKIT_STEPS_H

#include "support.h"

namespace cg {

/* `index` (rows) of the source's rows, -1: zeros; it and the arrays below are not copied: their owner keeps them. */
Kernel *make_move_rows(int64_t rows, int64_t row_bytes, const int64_t *index);
/* y[index[r]] += x[r], onto zeros, in the order of r. */
Kernel *make_add_rows(int64_t rows, int64_t target_rows, int64_t width, const int64_t *index, const std::string &dtype);
Kernel *make_row_values(int64_t rows, int64_t width, const double *values, const std::string &dtype);
/* Sequences sorted by length: step t has alive[t] rows from offset[t] on; the k-th is number order[k] of the result. */
Kernel *make_fold_steps(const std::string &kind, int64_t steps, int64_t sequences, const int64_t *alive, const int64_t *offset,
                        const int64_t *order, int64_t width, const std::string &dtype);

/* The steps of a recurrence: calls of a step body, whose buffers move on by a step's rows. See steps.pyx. */
class LoopKernel : public Kernel {
  public:
    LoopKernel(int buffers, std::vector<int64_t> places, int64_t scratch);
    void add_before(const cg_call *call) { before.push_back(call); }
    void add_carry(int source, int target, int64_t source_bytes, int64_t target_bytes, int64_t shift, int64_t row_bytes) {
        carries.push_back({source, target, source_bytes, target_bytes, shift, row_bytes});
    }
    void begin_program(int64_t rows);
    void add_call(const cg_call *call, const std::vector<int> &bases, const std::vector<int64_t> &row_bytes,
                  const std::vector<int64_t> &offsets);
    void end_program(int64_t rows);
    void set_layout(std::vector<int64_t> alive, std::vector<int64_t> offset, bool forward);
    void *base(const cg_call *call, int b) const;
    void *last(const cg_call *call) const { return base(call, nbuf - 1 + (int)places.size() - 1); }

  private:
    struct Slot {
        int base;
        int64_t row_bytes, offset;
    };
    struct Call {
        const cg_call *call;
        std::vector<Slot> slots;
    };
    struct Carry {
        int source, target;
        int64_t source_bytes, target_bytes, shift, row_bytes;
    };
    static void run_steps(const cg_call *call, const cg_context *context);
    void step(const cg_context *context, int64_t t) const;

    std::vector<int64_t> places, alive, offset;
    std::vector<const cg_call *> before;
    std::vector<Carry> carries;
    std::vector<std::vector<Call>> programs; /* by number of rows */
    int64_t adding = -1; /* the program that grows */
    bool forward = true;
    mutable std::vector<void *> bases;
};

} // namespace cg
#endif
