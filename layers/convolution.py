"""Convolution layers, channels first."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit import ops
from cogkit.axis import Axis
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function
from cogkit.initializer import glorot_uniform, initializer_with_rank
from cogkit.layers.composition import as_activation, identity, typed
from cogkit.variables import InferredDimension, Parameter

__all__ = ["Convolution", "Convolution1D", "Convolution2D", "Convolution3D", "ConvolutionTranspose", "ConvolutionTranspose1D",
           "ConvolutionTranspose2D", "ConvolutionTranspose3D", "SequentialConvolution"]  # fmt: skip

_IDENTITY = default_override_or(identity)
_GLOROT = default_override_or(glorot_uniform())
_FALSE, _TRUE, _ZERO = default_override_or(False), default_override_or(True), default_override_or(0)


def spread(value: Any, rank: int, what: str) -> tuple:
    """One value for each of `rank` axes, from one for all or a tuple of them; `ValueError` for another number."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * rank
    if len(values) != rank:
        label, word = what.split(": ")
        raise ValueError(here(f"{label}: expected {word} as one value or {rank}, got {value!r}"))
    return values


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def bias_of(filters: tuple[int, ...], rank: int, init: Any) -> Parameter:
    """b (filters, 1...), of a number, an array of this shape or one of a number a filter."""
    init = typed(init)
    if np.ndim(init) == 1:
        init = np.reshape(init, (-1, *(1,) * rank))
    return Parameter((*filters, *(1,) * rank), init, name="b")


def Convolution(filter_shape: Any, num_filters: Any = None, sequential: bool = False, activation: Any = _IDENTITY, init: Any = _GLOROT,
                pad: Any = _FALSE, strides: Any = 1, sharing: Any = True, bias: Any = _TRUE, init_bias: Any = _ZERO, reduction_rank: int = 1,
                transpose_weight: bool = False, dilation: Any = 1, groups: int = 1, max_temp_mem_size_in_samples: int = 0,
                op_name: str = "Convolution", name: str = "") -> Function:  # fmt: skip
    """activation(conv(x, W) + b): x (channels, spatial...), W (num_filters, channels / groups, filter_shape...), b (num_filters, 1...).

    filter_shape: extent of the window, one number a spatial axis. num_filters None: one filter and no filter axis in the result.
    pad: size kept at stride 1, one for all axes or one each. reduction_rank 0: x has no channel axis.
    sequential: x is a sequence; see `SequentialConvolution`. Raises `ValueError` where the numbers of axes do not fit.
    """
    activation = as_activation(get_default_override(Convolution, activation=activation))
    init = get_default_override(Convolution, init=init)
    pad = get_default_override(Convolution, pad=pad)
    bias = get_default_override(Convolution, bias=bias)
    init_bias = get_default_override(Convolution, init_bias=init_bias)
    if transpose_weight:
        raise ValueError(here(f"{op_name}: expected transpose_weight = False, got True; use ConvolutionTranspose"))
    window, filters = _sizes(filter_shape), () if num_filters is None else _sizes(num_filters)
    rank = len(window)
    strides, pad, dilation = (
        spread(v, rank, f"{op_name}: {w}") for v, w in ((strides, "strides"), (pad, "pad"), (dilation, "dilation"))
    )
    if len(filters) > 1 or any(n < 1 for n in filters):
        raise ValueError(
            here(f"{op_name}: expected a number of filters, got {num_filters!r}; more filter axes are a reshape of one")
        )
    plain = reduction_rank == 0
    w = Parameter((*(filters or (1,)), 1 if plain else InferredDimension, *window),
                  initializer_with_rank(typed(init), filter_rank=rank, output_rank=-1), name="W")  # fmt: skip
    if sequential and np.ndim(init_bias):
        b = Parameter(np.shape(init_bias), typed(init_bias), name="b") if bias else None
    else:
        b = bias_of(filters or (1,), rank - 1 if sequential else rank, init_bias) if bias else None

    @BlockFunction(op_name, name)
    def convolve(x):
        if plain:
            x = ops.expand_dims(x, Axis.new_leading_axis())
        r = ops.convolution(w, x, strides=strides, auto_padding=pad, dilation=dilation, groups=groups, sequential=sequential)
        r = activation(r + b if bias else r)
        return r if filters else ops.squeeze(r, axes=(0,))

    return convolve


def SequentialConvolution(filter_shape: Any, num_filters: Any = None, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                          strides: Any = 1, sharing: Any = True, bias: Any = _TRUE, init_bias: Any = _ZERO, reduction_rank: int = 1,
                          transpose_weight: bool = False, dilation: Any = 1, groups: int = 1, max_temp_mem_size_in_samples: int = 0,
                          op_name: str = "Convolution", name: str = "") -> Function:  # fmt: skip
    """`Convolution` whose first axis is that of the steps of a sequence: steps (channels, spatial...), filter_shape (steps, spatial...).

    Parameters W (num_filters, channels / groups, filter_shape...), b (num_filters, 1...). Without pad the first and last steps, at which
    the window does not fit, are lost. Each sequence is convolved by itself; CNTK lets padding and strides depend on the longest one.
    init_bias as an array is b as it stands, added along the last axes, as in CNTK: (num_filters, 1...) is one number a filter.
    """
    o = _options(SequentialConvolution, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    return Convolution(filter_shape, num_filters, sequential=True, strides=strides, sharing=sharing, reduction_rank=reduction_rank,
                       transpose_weight=transpose_weight, dilation=dilation, groups=groups, op_name=op_name, name=name, **o)  # fmt: skip


def Convolution1D(filter_shape: Any, num_filters: Any = None, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                  strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, reduction_rank: int = 1, dilation: Any = 1,
                  name: str = "") -> Function:  # fmt: skip
    """`Convolution` over one spatial axis: x (channels, width)."""
    o = _options(Convolution1D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 1, "Convolution1D: filter_shape")
    return Convolution(window, num_filters, strides=strides, reduction_rank=reduction_rank,
                       dilation=dilation, op_name="Convolution1D", name=name, **o)  # fmt: skip


def Convolution2D(filter_shape: Any, num_filters: Any = None, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                  strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, reduction_rank: int = 1, dilation: Any = 1, groups: int = 1,
                  name: str = "") -> Function:  # fmt: skip
    """`Convolution` over two spatial axes: x (channels, height, width)."""
    o = _options(Convolution2D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 2, "Convolution2D: filter_shape")
    return Convolution(window, num_filters, strides=strides, reduction_rank=reduction_rank,
                       dilation=dilation, groups=groups, op_name="Convolution2D", name=name, **o)  # fmt: skip


def Convolution3D(filter_shape: Any, num_filters: Any = None, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                  strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, reduction_rank: int = 1, dilation: Any = 1, groups: int = 1,
                  name: str = "") -> Function:  # fmt: skip
    """`Convolution` over three spatial axes: x (channels, depth, height, width)."""
    o = _options(Convolution3D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 3, "Convolution3D: filter_shape")
    return Convolution(window, num_filters, strides=strides, reduction_rank=reduction_rank,
                       dilation=dilation, groups=groups, op_name="Convolution3D", name=name, **o)  # fmt: skip


def _options(f: Any, **given: Any) -> dict[str, Any]:
    """Overrides that name this very layer; others stay open for the layer below."""
    out = {}
    for key, value in given.items():
        found = get_default_override(f, **{key: value})
        out[key] = value if isinstance(value, default_override_or) and found is value.value else found
    return out


def ConvolutionTranspose(filter_shape: Any, num_filters: Any, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                         strides: Any = 1, sharing: Any = True, bias: Any = _TRUE, init_bias: Any = _ZERO, output_shape: Any = None,
                         reduction_rank: int = 1, dilation: Any = 1, max_temp_mem_size_in_samples: int = 0, name: str = "") -> Function:  # fmt: skip
    """activation(conv_transpose(x, W) + b): x (channels, spatial...), W (channels, num_filters, filter_shape...), b (num_filters, 1...).

    output_shape: spatial sizes of the result, where a stride leaves a choice.
    """
    activation = as_activation(get_default_override(ConvolutionTranspose, activation=activation))
    init = get_default_override(ConvolutionTranspose, init=init)
    pad = get_default_override(ConvolutionTranspose, pad=pad)
    bias = get_default_override(ConvolutionTranspose, bias=bias)
    init_bias = get_default_override(ConvolutionTranspose, init_bias=init_bias)
    window, filters = _sizes(filter_shape), _sizes(num_filters)
    if len(filters) != 1 or filters[0] is None or filters[0] < 1:
        raise ValueError(here(f"ConvolutionTranspose: expected a number of filters, got {num_filters!r}"))
    if reduction_rank != 1:
        raise ValueError(here(f"ConvolutionTranspose: expected reduction_rank = 1, got {reduction_rank}; give x a channel axis"))
    rank = len(window)
    strides, pad, dilation = (spread(v, rank, f"ConvolutionTranspose: {w}")
                              for v, w in ((strides, "strides"), (pad, "pad"), (dilation, "dilation")))  # fmt: skip
    w = Parameter(
        (InferredDimension, *filters, *window), initializer_with_rank(typed(init), filter_rank=rank, output_rank=1), name="W"
    )
    b = bias_of(filters, rank, init_bias) if bias else None

    @BlockFunction("ConvolutionTranspose", name)
    def transpose(x):
        r = ops.convolution_transpose(w, x, strides=strides, auto_padding=pad, output_shape=output_shape, dilation=dilation)
        return activation(r + b if bias else r)

    return transpose


def ConvolutionTranspose1D(filter_shape: Any, num_filters: Any, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                           strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, output_shape: Any = None, reduction_rank: int = 1,
                           dilation: Any = 1, name: str = "") -> Function:  # fmt: skip
    """`ConvolutionTranspose` over one spatial axis."""
    o = _options(ConvolutionTranspose1D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 1, "ConvolutionTranspose1D: filter_shape")
    return ConvolutionTranspose(window, num_filters, strides=strides, output_shape=output_shape,
                                reduction_rank=reduction_rank, dilation=dilation, name=name, **o)  # fmt: skip


def ConvolutionTranspose2D(filter_shape: Any, num_filters: Any, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                           strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, output_shape: Any = None, reduction_rank: int = 1,
                           dilation: Any = 1, name: str = "") -> Function:  # fmt: skip
    """`ConvolutionTranspose` over two spatial axes."""
    o = _options(ConvolutionTranspose2D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 2, "ConvolutionTranspose2D: filter_shape")
    return ConvolutionTranspose(window, num_filters, strides=strides, output_shape=output_shape,
                                reduction_rank=reduction_rank, dilation=dilation, name=name, **o)  # fmt: skip


def ConvolutionTranspose3D(filter_shape: Any, num_filters: Any, activation: Any = _IDENTITY, init: Any = _GLOROT, pad: Any = _FALSE,
                           strides: Any = 1, bias: Any = _TRUE, init_bias: Any = _ZERO, output_shape: Any = None, reduction_rank: int = 1,
                           dilation: Any = 1, name: str = "") -> Function:  # fmt: skip
    """`ConvolutionTranspose` over three spatial axes."""
    o = _options(ConvolutionTranspose3D, activation=activation, init=init, pad=pad, bias=bias, init_bias=init_bias)
    window = spread(filter_shape, 3, "ConvolutionTranspose3D: filter_shape")
    return ConvolutionTranspose(window, num_filters, strides=strides, output_shape=output_shape,
                                reduction_rank=reduction_rank, dilation=dilation, name=name, **o)  # fmt: skip
