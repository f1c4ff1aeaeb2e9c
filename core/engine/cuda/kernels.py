"""All families of kernels of the CUDA engine: importing this fills the table."""

from cogkit.engine.cuda import movement  # noqa: F401
