/* Sums and minima over the alignments of two sequences: connectionist temporal classification, edit distance. */
#ifndef COGKIT_ALIGNMENT_H
#define COGKIT_ALIGNMENT_H

#include "support.h"

namespace cg {

/* Where the k-th of `count` sequences lies in its row space: step t is row offset[t] + place[k], t < length[k]. Arrays are not
 * copied: their owner keeps them. */
struct Sequences {
    int64_t count, rows, longest;
    const int64_t *offset, *place, *length;
};

/* item[k]: the row of the results for the k-th sequence. delay < 0: no constraint. */
Kernel *make_ctc(const Sequences &labels, const Sequences &frames, const int64_t *item, int64_t classes, int64_t blank, int64_t delay,
                 const std::string &dtype);
Kernel *make_edit_distance(const Sequences &a, const Sequences &b, const int64_t *item, int64_t classes, double substitution,
                           double deletion, double insertion, bool squash, const std::vector<int64_t> &ignored,
                           const std::string &dtype);

} // namespace cg
#endif
