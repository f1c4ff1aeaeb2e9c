"""Normalisation over the minibatch, over a sample, over neighbouring channels. Layer normalisation is a layer made of other ops."""

from __future__ import annotations

import math
from typing import Any

from cogkit.errors import here
from cogkit.functions import Function, apply, to_variable, to_variables
from cogkit.op import INFERRED, Op, Type, broadcast, shown
from cogkit.variables import Constant

__all__ = [
    "batch_normalization",
    "local_response_normalization",
    "mean_variance_normalization",
    "per_dim_mean_variance_normalize",
]


def _stats_shape(x, attrs):
    return (x.shape[0],) if attrs["spatial"] and x.shape else x.shape


def _type(types, attrs):
    x = types[0]
    want = _stats_shape(x, attrs)
    size = math.prod(want)
    for name, t in zip(("scale", "bias", "running_mean", "running_inv_std"), types[1:5], strict=True):
        if t.shape != want and not (math.prod(t.shape) == size and not attrs["spatial"]):
            raise ValueError(
                (
                    f"{name} of shape {want} for an operand {x.shape}",
                    str(t.shape),
                    "spatial normalisation has one value a channel, the first axis" if attrs["spatial"] else "",
                )
            )
    return [x]


def _bind(types, attrs):
    want = _stats_shape(types[0], attrs)
    flat = (math.prod(want),)
    return [types[0].shape] + [(flat if len(t.shape) == 1 else want) if INFERRED in t.shape else t.shape for t in types[1:]]


def _moments_type(types, attrs):
    t = types[0]
    shape = tuple(1 if i in attrs["axes"] else n for i, n in enumerate(t.shape))
    one = Type(shape, t.dtype, ())
    return [one, one]


def _moments_gradient(n, dmean, dvar):
    x = n.inputs[0]
    m = x.node("row_count") * float(math.prod(x.type.shape[i] for i in n.attrs["axes"]))
    dx = None
    if dmean is not None:
        dx = (dmean / m).expand(x.type)
    if dvar is not None:
        d = (x - n.outputs[0]) * (dvar * 2.0 / m)
        dx = d if dx is None else d + dx
    return [dx]


# mean and biased variance over all rows and some static axes, which stay with size 1
Op("moments", "Moments", _moments_type, _moments_gradient, "moments", "definition")


def _expand(g, inputs, attrs, training):
    x, scale, bias, running_mean, running_var, running_count = inputs
    own, x = x.type.dtype, x.cast(scale.type.dtype)
    t = x.type
    axes = tuple(range(1, len(t.shape))) if attrs["spatial"] else ()
    shape = tuple(1 if i in axes else n for i, n in enumerate(t.shape))
    w, b = scale.reshape(shape=shape), bias.reshape(shape=shape)
    if not training:
        inverse = (running_var.reshape(shape=shape) + attrs["epsilon"]).rsqrt()
        return ((x - running_mean.reshape(shape=shape)) * (inverse * w) + b).cast(own)
    mean, var = g.node("moments", [x], axes=axes)
    y = (x - mean) * ((var + attrs["epsilon"]).rsqrt() * w) + b
    # running statistics: an exponential average; the very first minibatch replaces them
    rows = x.node("row_count")
    values = rows * float(math.prod(t.shape[i] for i in axes))
    tc = attrs["normalization_time_constant"]
    count = running_count.reshape(shape=()).cast(rows.type.dtype)
    if tc == 0:
        alpha = rows * 0.0 + 1.0
    elif math.isinf(tc):
        alpha = rows * 0.0
    elif tc < 0:
        alpha = rows / (count + rows)
    else:
        alpha = 1.0 - (rows * (-1.0 / tc)).exp()
    alpha = count.eq(0.0).select(1.0, alpha) * (rows > 0)  # an empty minibatch says nothing
    unbiased = var * (values / (values - 1.0).max(1.0))
    for running, now in ((running_mean, mean), (running_var, unbiased)):
        now = now.stop().reshape(shape=running.type.shape)
        g.node("assign", [running, running + (now - running) * alpha])
    g.node("assign", [running_count, running_count + rows.cast(running_count.type.dtype)])
    return y.cast(own)


Op(
    "batch_normalization",
    "BatchNormalization",
    _type,
    None,
    "expand",
    "Ioffe and Szegedy 2015, arXiv:1502.03167; running statistics as CNTK v2",
    expand=_expand,
    bind=_bind,
    stateful=True,
)


def batch_normalization(
    operand: Any,
    scale: Any,
    bias: Any,
    running_mean: Any,
    running_inv_std: Any,
    spatial: bool,
    normalization_time_constant: float = 5000,
    blend_time_constant: float = 0,
    epsilon: float = 0.00001,
    use_cudnn_engine: bool = False,
    disable_regularization: bool = False,
    name: str = "",
    running_count: Any = None,
) -> Function:
    """Normalises each channel (spatial) or each element over the minibatch, then scales and shifts it. Ioffe and Szegedy 2015.

    operand: (channels, ...). scale, bias, running_mean, running_inv_std: (channels,), or the operand's shape where not spatial;
    `running_inv_std` holds the running *variance*, as in CNTK. They are all of one element type, and may be float32 where the operand is float16.
    Training uses the minibatch's mean and biased variance and moves the running
    statistics (unbiased variance) by 1 - exp(-samples / normalization_time_constant), 0: replace, -1: plain average, inf: freeze after the
    first; evaluation uses the running ones. blend_time_constant must be 0 (CNTK's CPU engine ignores it).
    Raises `ValueError` where shapes do not fit.
    """
    if running_count is None:
        running_count = Constant(0, (), name="aggregate_count")
    for v in (running_mean, running_inv_std, running_count):
        to_variable(v).assigned = True
    return apply(
        "batch_normalization",
        [operand, scale, bias, running_mean, running_inv_std, running_count],
        name,
        spatial=bool(spatial),
        normalization_time_constant=float(normalization_time_constant),
        blend_time_constant=float(blend_time_constant),
        epsilon=float(epsilon),
        disable_regularization=bool(disable_regularization),
    )


# one sample ------------------------------------------------------------------------------------------------------------------------


def _sample_type(types, attrs):
    t = types[0]
    if not t.shape:
        raise ValueError(("an operand with an axis to normalise over", "a number", ""))
    return [t]


def _sample_expand(g, x, attrs, training):
    x = x[0]
    shape = x.type.shape
    axes = tuple(range(0 if attrs["use_stats_across_channels"] or len(shape) == 1 else 1, len(shape)))
    size = float(math.prod(shape[i] for i in axes)) or float("nan")

    def mean(v):
        return v.node("reduce_sum", axes=axes, rows=False) / size

    d = x - mean(x)
    return d / (mean(d * d).sqrt() + attrs["epsilon"]) if attrs["do_variance_scaling"] else d


Op(
    "mean_variance_normalization",
    "MeanVarianceNormalization",
    _sample_type,
    None,
    "expand",
    "CNTK v2",
    expand=_sample_expand,
)


def _per_dim_type(types, attrs):
    out = broadcast(types)
    if out.shape != types[0].shape:
        raise ValueError(
            (
                f"a mean and a deviation that broadcast to {shown(types[0].shape)}",
                " and ".join(shown(t.shape) for t in types[1:]),
                "",
            )
        )
    return [out]


Op(
    "per_dim_mean_variance_normalize",
    "PerDimMeanVarianceNormalize",
    _per_dim_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: (x[0] - x[1].stop()) * x[2].stop(),
)


def _response_type(types, attrs):
    t = types[0]
    if not 2 <= len(t.shape) <= 4:
        raise ValueError(("an operand (channels, 1 to 3 spatial axes)", shown(t.shape), ""))
    return [t]


def _response_expand(g, x, attrs, training):
    x = x[0]
    radius, channels = attrs["depth_radius"], x.type.shape[0]
    width = 2 * radius + 1
    flat = x.reshape((1, channels, math.prod(x.type.shape[1:])))
    # the mean over channels beside each other, zeros beyond the first and the last, is a pool of one column
    mean = g.node(
        "pool", [flat * flat], mode="avg_include_pad", window=(width, 1), strides=(1, 1), pads=((radius, radius), (0, 0))
    )
    return x / (mean.reshape(x.type.shape) * attrs["alpha"] + attrs["bias"]) ** attrs["beta"]


Op(
    "local_response_normalization",
    "LocalResponseNormalization",
    _response_type,
    None,
    "expand",
    "Krizhevsky et al. 2012, section 3.3; alpha is divided by the number of channels, as in CNTK v2",
    expand=_response_expand,
)


def mean_variance_normalization(
    operand: Any,
    epsilon: float = 0.00001,
    use_stats_across_channels: bool = False,
    do_variance_scaling: bool = True,
    name: str = "",
) -> Function:
    """(x - mean) / (std + epsilon) of each sample: for each channel (the first axis) by itself, or across them; of a vector over all of it.

    do_variance_scaling False: x - mean. The deviation is the biased one. Raises `ValueError` for a negative epsilon.
    """
    if not epsilon >= 0:
        raise ValueError(here(f"MeanVarianceNormalization: expected an epsilon of at least 0, got {epsilon!r}"))
    return apply(
        "mean_variance_normalization",
        [operand],
        name,
        epsilon=float(epsilon),
        use_stats_across_channels=bool(use_stats_across_channels),
        do_variance_scaling=bool(do_variance_scaling),
    )


def per_dim_mean_variance_normalize(operand: Any, mean: Any, inv_stddev: Any, name: str = "") -> Function:
    """(x - mean) * inv_stddev, both of a shape that broadcasts to the operand's; no gradient flows to them."""
    return apply("per_dim_mean_variance_normalize", to_variables(operand, mean, inv_stddev), name)


def local_response_normalization(
    operand: Any, depth_radius: int, bias: float, alpha: float, beta: float, name: str = ""
) -> Function:
    """x / (bias + alpha / (2 r + 1) * sum of x^2 over the r channels before and after) ^ beta. Krizhevsky et al. 2012, section 3.3.

    operand: (channels, spatial...). depth_radius: r, at least 0. CNTK's documents leave the division of alpha out; its code does it.
    Raises `ValueError` for other shapes.
    """
    if depth_radius < 0:
        raise ValueError(here(f"LocalResponseNormalization: expected a depth_radius of at least 0, got {depth_radius!r}"))
    return apply(
        "local_response_normalization",
        [operand],
        name,
        depth_radius=int(depth_radius),
        bias=float(bias),
        alpha=float(alpha),
        beta=float(beta),
    )
