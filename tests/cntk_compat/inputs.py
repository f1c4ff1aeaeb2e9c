"""`sequence.input_variable` as CNTK's tests call it: an element type may also be the number that it has in CNTK's C++ half."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.default_options import default_override_or
from cogkit.ops import sequence
from cogkit.variables import Variable

__all__ = ["input_variable"]

NUMBERS = {1: np.float32, 2: np.float64}


def input_variable(shape: Any, dtype: Any = default_override_or(np.float32), *rest: Any, **named: Any) -> Variable:
    """See `cogkit.ops.sequence.input_variable`."""
    return sequence.input_variable(shape, NUMBERS[dtype] if isinstance(dtype, int) else dtype, *rest, **named)
