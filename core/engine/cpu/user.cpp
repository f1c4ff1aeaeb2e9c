#include "user.h"

namespace cg {

NativeKernel::NativeKernel(size_t function_, bool backward_, int inputs_, int outputs_)
    : function(function_), backward(backward_), inputs(inputs_), outputs(outputs_) {
    run = run_native;
    arrays.resize(backward ? 2 * (inputs + outputs) : inputs + outputs, cogkit_array{});
    shapes.resize(arrays.size());
}

void NativeKernel::settle(const std::vector<double> &numbers, const std::vector<bool> &present) {
    settings = numbers;
    settings.push_back(0); /* never a null pointer */
    slots.clear();
    for (size_t i = 0; i < arrays.size(); ++i)
        if (present[i]) slots.push_back((int)i);
    nbuf = (int)slots.size();
}

void NativeKernel::describe(int slot, const std::vector<int64_t> &shape, int64_t rows, int32_t type) {
    const int i = slots[slot];
    cogkit_array &a = arrays[i];
    shapes[i] = shape;
    a.shape = shapes[i].data();
    a.rank = (int32_t)shape.size();
    a.rows = rows;
    a.size = product(shape);
    a.type = type;
}

void NativeKernel::run_native(const cg_call *call, const cg_context *) {
    auto &k = *(NativeKernel *)(Kernel *)call->state;
    for (size_t b = 0; b < k.slots.size(); ++b) k.arrays[k.slots[b]].data = call->buf[b];
    cogkit_array *x = k.arrays.data(), *y = x + k.inputs;
    const int code = k.backward ? ((cogkit_backward)k.function)(x, y, y + k.outputs, y + 2 * k.outputs, k.settings.data())
                                : ((cogkit_forward)k.function)(x, y, k.settings.data());
    if (code) k.report(code < 0 ? 0 : code);
}

} // namespace cg
