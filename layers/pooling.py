"""Pooling layers."""

from __future__ import annotations

from typing import Any

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override
from cogkit.functions import BlockFunction, Function
from cogkit.layers.convolution import spread

__all__ = ["AveragePooling", "GlobalAveragePooling", "GlobalMaxPooling", "MaxPooling", "MaxUnpooling"]

_FALSE = default_override_or(False)


def _pooling(label: str, kind: int, filter_shape: Any, strides: Any, pad: Any, name: str) -> Function:
    window = tuple(filter_shape) if isinstance(filter_shape, (list, tuple)) else (filter_shape,)
    strides, pad = (spread(v, len(window), f"{label}: {w}") for v, w in ((strides, "strides"), (pad, "pad")))

    @BlockFunction(label, name)
    def pool(x):
        return ops.pooling(x, kind, window, strides=strides, auto_padding=pad)

    return pool


def MaxPooling(filter_shape: Any, strides: Any = 1, pad: Any = _FALSE, name: str = "") -> Function:
    """The largest value of each window over the last axes. filter_shape, strides, pad: one number an axis."""
    return _pooling("MaxPooling", ops.MAX_POOLING, filter_shape, strides, get_default_override(MaxPooling, pad=pad), name)


def AveragePooling(filter_shape: Any, strides: Any = 1, pad: Any = _FALSE, name: str = "") -> Function:
    """The mean of each window over the last axes; pads do not count."""
    return _pooling("AveragePooling", ops.AVG_POOLING, filter_shape, strides, get_default_override(AveragePooling, pad=pad), name)


def GlobalMaxPooling(name: str = "") -> Function:
    """The largest value of each channel: (channels, spatial...) to (channels, 1...)."""

    @BlockFunction("GlobalMaxPooling", name)
    def pool(x):
        return ops.global_pooling(x, ops.MAX_POOLING)

    return pool


def GlobalAveragePooling(name: str = "") -> Function:
    """The mean of each channel: (channels, spatial...) to (channels, 1...)."""

    @BlockFunction("GlobalAveragePooling", name)
    def pool(x):
        return ops.global_pooling(x, ops.AVG_POOLING)

    return pool


def MaxUnpooling(filter_shape: Any, strides: Any = 1, pad: Any = False, name: str = "") -> Function:
    """Of two arguments: puts the first where max pooling of the second found the largest values."""
    window = tuple(filter_shape) if isinstance(filter_shape, (list, tuple)) else (filter_shape,)
    strides, pad = (spread(v, len(window), f"MaxUnpooling: {w}") for v, w in ((strides, "strides"), (pad, "pad")))

    @BlockFunction("MaxUnpooling", name)
    def unpool(x, y):
        return ops.unpooling(x, y, ops.MAX_UNPOOLING, window, strides=strides, auto_padding=pad)

    return unpool
