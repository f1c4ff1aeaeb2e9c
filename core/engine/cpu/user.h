/* A C function of a user's own as a kernel. */
#ifndef COGKIT_USER_KERNEL_H
#define COGKIT_USER_KERNEL_H

#include "../cogkit_user.h"
#include "support.h"

namespace cg {

class NativeKernel : public Kernel {
  public:
    /* Arrays in the order of buffers: x, y and, backward, dy of all outputs, then dx of the inputs that are wanted. */
    NativeKernel(size_t function, bool backward, int inputs, int outputs);
    void settle(const std::vector<double> &settings, const std::vector<bool> &wanted);
    void describe(int slot, const std::vector<int64_t> &shape, int64_t rows, int32_t type);

  private:
    static void run_native(const cg_call *call, const cg_context *context);

    size_t function;
    bool backward;
    int inputs, outputs;
    std::vector<double> settings;
    std::vector<cogkit_array> arrays; /* x, y, dy, dx */
    std::vector<std::vector<int64_t>> shapes;
    std::vector<int> slots; /* the array of each buffer */
};

} // namespace cg
#endif
