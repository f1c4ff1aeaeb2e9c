"""What CNTK's tests take from `cntk.cntk_py`, the C++ half of CNTK."""

from __future__ import annotations

import numpy as np

import cogkit as C

DataType_Unknown = None
DataType_Float = np.float32
DataType_Double = np.float64
DataType_Int8 = np.int8
DataType_Int16 = np.int16
DeviceKind_GPU = C.device.DeviceKind.GPU


def reset_random_seed(seed: int) -> None:
    """The seed of the process."""
    C.set_seed(seed)


set_fixed_random_seed = reset_random_seed


def Parameter(shape, data_type, value, *rest) -> C.Parameter:
    """A parameter in the order of arguments of CNTK's C++ half."""
    return C.Parameter(shape, value, data_type)
