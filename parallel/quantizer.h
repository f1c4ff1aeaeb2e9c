/* Gradients in few bits: columns of values, each with two numbers that say what its bits stand for. */
#ifndef COGKIT_QUANTIZER_H
#define COGKIT_QUANTIZER_H

#include <cstdint>

namespace cg {

/* Columns of a flat array and where they lie in a message: values begin .. begin + size, first word. A message is 2 floats a column,
 * then the words of all columns. Each column has `bits` planes of W = ceil(size / 32) words: value i is bit i / W of word i % W. */
struct Columns {
    int64_t count;
    const int64_t *begin, *size, *word;
};

/* residual += values; message = the residual in few bits; residual -= what the message says. zero: one bit is whether a value is at least
 * 0, else whether it is at least the column's mean. */
void pack(const Columns &columns, int bits, bool zero, const float *values, float *residual, void *message);

/* values = what the message says, or values += that. */
void unpack(const Columns &columns, int bits, const void *message, float *values, bool add);

} // namespace cg
#endif
