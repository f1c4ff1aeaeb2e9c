"""Normalisation layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function
from cogkit.layers.composition import identity
from cogkit.variables import Constant, InferredDimension, Parameter, sanitize_dtype

__all__ = ["BatchNormalization", "LayerNormalization", "LocalResponseNormalization", "Stabilizer"]

_EPSILON = default_override_or(0.00001)
_FALSE = default_override_or(False)


def BatchNormalization(map_rank: Any = default_override_or(None), init_scale: float = 1,
                       normalization_time_constant: Any = default_override_or(5000), blend_time_constant: float = 0,
                       epsilon: Any = _EPSILON, use_cntk_engine: Any = _FALSE, disable_regularization: Any = _FALSE,
                       name: str = "") -> Function:  # fmt: skip
    """Normalises over the minibatch, then scales and shifts; see `C.batch_normalization`. Ioffe and Szegedy 2015, arXiv:1502.03167.

    map_rank 1: one mean a channel (images); None or 0: one an element. Parameters scale, bias; constants aggregate_mean, aggregate_variance,
    aggregate_count, in float32 where the default is half precision. Raises `ValueError` for another map_rank.
    """
    map_rank = get_default_override(BatchNormalization, map_rank=map_rank)
    time_constant = get_default_override(BatchNormalization, normalization_time_constant=normalization_time_constant)
    epsilon = get_default_override(BatchNormalization, epsilon=epsilon)
    disable_regularization = get_default_override(BatchNormalization, disable_regularization=disable_regularization)
    if map_rank not in (None, 0, 1):
        raise ValueError(here(f"BatchNormalization: expected map_rank None, 0 or 1, got {map_rank!r}"))
    dtype = get_default_override(Parameter, dtype=default_override_or(np.float32))
    dtype = np.float32 if sanitize_dtype(dtype) == np.float16 else dtype  # as in CNTK
    scale = Parameter((InferredDimension,), init_scale, dtype, name="scale")
    bias = Parameter((InferredDimension,), 0, dtype, name="bias")
    mean = Constant(0, (InferredDimension,), dtype, name="aggregate_mean")
    variance = Constant(0, (InferredDimension,), dtype, name="aggregate_variance")
    count = Constant(0, (), dtype, name="aggregate_count")

    @BlockFunction("BatchNormalization", name)
    def normalize(x):
        return ops.batch_normalization(x, scale, bias, mean, variance, map_rank == 1, normalization_time_constant=time_constant,
                                       blend_time_constant=blend_time_constant, epsilon=epsilon,
                                       disable_regularization=disable_regularization, running_count=count)  # fmt: skip

    return normalize


def LayerNormalization(initial_scale: float = 1, initial_bias: float = 0, epsilon: Any = _EPSILON, name: str = "") -> Function:
    """(x - mean) / (std + epsilon) over all static axes of each sample, then scale and shift along the last axis.

    Ba et al. 2016, arXiv:1607.06450; epsilon is added to the deviation, as in CNTK.
    """
    epsilon = get_default_override(LayerNormalization, epsilon=epsilon)
    scale = Parameter((InferredDimension,), initial_scale, name="scale")
    bias = Parameter((InferredDimension,), initial_bias, name="bias")

    @BlockFunction("LayerNormalization", name)
    def normalize(x: Any) -> Function:
        centred = x - ops.reduce_mean(x)
        deviation = ops.sqrt(ops.reduce_mean(centred * centred))
        return centred / (deviation + epsilon) * scale + bias

    return normalize


def LocalResponseNormalization(depth_radius: int, bias: float, alpha: float, beta: float, name: str = "") -> Function:
    """Divides each channel by a power of the mean square of those beside it; see `C.local_response_normalization`.

    Krizhevsky et al. 2012, section 3.3. x (channels, spatial...).
    """

    @BlockFunction("LocalResponseNormalization", name)
    def normalize(x):
        return ops.local_response_normalization(x, depth_radius, bias, alpha, beta)

    return normalize


def Stabilizer(steepness: float = 4, enable_self_stabilization: Any = default_override_or(True), name: str = "") -> Function:
    """x softplus(steepness alpha) / steepness: a learnt factor, 1 at first. Ghahremani and Droppo 2016, self-stabilised networks.

    Parameter alpha (). The identity where enable_self_stabilization is False.
    """
    if not get_default_override(Stabilizer, enable_self_stabilization=enable_self_stabilization):
        return identity
    alpha = Parameter((), math.log(math.expm1(steepness)) / steepness, name="alpha")

    @BlockFunction("Stabilizer", name)
    def stabilize(x):
        return ops.softplus(alpha, steepness=steepness) * x

    return stabilize
