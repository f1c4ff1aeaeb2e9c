# Kernels that look rows up by index. Included after kernel.pxi.


cdef class IndexedKernel(BoundKernel):
    """`check` raises what `wrong(index)` gives for the first index that named no row, if any did since the last question."""
    cdef object wrong

    def check(self) -> None:
        """One load where all is well."""
        if self.kernel.load_error() == -1 or self.wrong is None:
            return
        self.kernel.take_error(-1)
        raise self.wrong(self.kernel.bad_index)
