"""The CPU engine: Cython and C++ kernels; oneDNN is in the process before any of them is imported."""

from cogkit.engine.cpu._load import load_gomp, load_onednn

load_gomp()
load_onednn()
