# sources: sampling.cpp
"""Weighted samples of classes, how often they hold a class, and losses over the order of the rows of a minibatch."""
include "kernel.pxi"

__all__ = ["InclusionFrequency", "LambdaRank", "NdcgAt1", "SampleClasses"]


cdef extern from "sampling.h" namespace "cg":
    Kernel *make_sample_classes(int64_t classes, int64_t count, cbool duplicates, int64_t purpose, string dtype) except +
    Kernel *make_inclusion_frequency(int64_t classes, int64_t count, string dtype) except +
    Kernel *make_lambda_rank(int64_t rows, string dtype) except +
    Kernel *make_ndcg_at_1(int64_t rows, string dtype) except +


cdef class SampleClasses(BoundKernel):
    """Numbers of `count` classes drawn with chances in proportion to weights; buffers w, y, scratch.

    duplicates: draws are independent; else each class once, in the order of draws one after another. NaN where a weight is
    negative or not finite, or where too few are above 0.
    """
    def __init__(self, classes, count, duplicates, purpose, dtype):
        self.own(make_sample_classes(classes, count, duplicates, purpose, text(dtype)))

    def run(self, uint64_t seed=0, int64_t step=0) -> None:
        """Call the kernel once with this state of the random numbers."""
        cdef cg_context context
        context.seed, context.step, context.sample = seed, step, 0
        with nogil:
            self.call.run(&self.call, &context)


cdef class InclusionFrequency(BoundKernel):
    """1 - (1 - w / sum w)^t with t so that the sum is `count`: chances to be among `count` draws without duplicates.

    Buffers w, y, scratch. NaN as for `SampleClasses`.
    """
    def __init__(self, classes, count, dtype):
        self.own(make_inclusion_frequency(classes, count, text(dtype)))


cdef class LambdaRank(BoundKernel):
    """100 rows mean(1 - NDCG) over queries, and lambda of each row; buffers score, gain, query, loss, slope, scratch.

    NaN for NaN.
    """
    def __init__(self, rows, dtype):
        self.own(make_lambda_rank(rows, text(dtype)))


cdef class NdcgAt1(BoundKernel):
    """100 rows mean(gain of the best score / largest gain) over queries; buffers score, gain, query, y, scratch. NaN for NaN."""
    def __init__(self, rows, dtype):
        self.own(make_ndcg_at_1(rows, text(dtype)))
