"""All families of kernels of the CUDA engine: importing this fills the table."""

from cogkit.engine.cuda import indexing, loops, movement, sequences  # noqa: F401
