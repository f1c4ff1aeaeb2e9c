"""All families of kernels of the CUDA engine: importing this fills the table."""

from cogkit.engine.cuda import (  # noqa: F401
    alignment,
    convolution,
    indexing,
    loops,
    movement,
    pointwise,
    pooling,
    products,
    reductions,
    sampling,
    sequences,
    sparsity,
    users,
)
