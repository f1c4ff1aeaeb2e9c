"""The CUDA engine: the plans of `cogkit.engine` on NVIDIA GPUs, through PyCUDA. Importing it needs no GPU and no driver."""
