"""Pooling over the last axes of images, channels first; its inverse; pooling over regions."""

from __future__ import annotations

import math
from typing import Any

from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.op import FREE, INFERRED, Op, Type, common_dtype, fits, join_axes, shown
from cogkit.ops.convolution import crop, flags, numbers, same_pads, spread, valid_size

__all__ = [
    "AVG_POOLING",
    "MAX_POOLING",
    "MAX_UNPOOLING",
    "PoolingType_Average",
    "PoolingType_Max",
    "global_pooling",
    "pooling",
    "roipooling",
    "unpooling",
]

MAX_POOLING, AVG_POOLING, MAX_UNPOOLING = 0, 1, 0
PoolingType_Max, PoolingType_Average = MAX_POOLING, AVG_POOLING  # CNTK's other names

# primitives: x (C, spatial), y (C, spatial); pads: a pair (before, after) for each spatial axis ------------------------------------


def _pool_type(types, attrs):
    x = types[0]
    spatial = [
        (n + lo + hi - k) // s + 1
        for n, k, s, (lo, hi) in zip(x.shape[1:], attrs["window"], attrs["strides"], attrs["pads"], strict=True)
    ]
    return [Type((x.shape[0], *spatial), x.dtype, x.axes)]


def _pool_gradient(n, dy):
    g = dy.graph
    if n.attrs["mode"] == "max":
        return [g.node("max_pool_dx", [dy, n.inputs[0], n.outputs[0]], **n.attrs)]
    return [g.node("avg_pool_dx", [dy], shape=n.inputs[0].type.shape, **n.attrs)]


def _max_dx_gradient(n, ddx):
    dy, x, y = n.inputs
    return [ddx.graph.node("max_pool_pick", [ddx, x, y], **n.attrs), None, None]


def _max_pick_gradient(n, dy):
    _, x, y = n.inputs
    return [dy.graph.node("max_pool_dx", [dy, x, y], **n.attrs), None, None]


Op("pool", "Pooling", _pool_type, _pool_gradient, "pool", "definition; attrs mode max, avg_exclude_pad or avg_include_pad")
Op(
    "max_pool_dx",
    "Pooling",
    lambda types, attrs: [types[1]],
    _max_dx_gradient,
    "pool",
    "the gradient goes to the first largest entry of a window",
)
Op(
    "max_pool_pick",
    "Pooling",
    lambda types, attrs: [types[2]],
    _max_pick_gradient,
    "pool",
    "the entry of another tensor where x is largest",
)
Op(
    "avg_pool_dx",
    "Pooling",
    lambda types, attrs: [Type(attrs["shape"], types[0].dtype, types[0].axes)],
    lambda n, ddx: [ddx.graph.node("pool", [ddx], **{k: v for k, v in n.attrs.items() if k != "shape"})],
    "pool",
    "the transpose of average pooling",
)


def _roi_attrs(n):
    return {k: n.attrs[k] for k in ("mode", "bins", "scale")}


def _roi_type(types, attrs):
    x, rois = types[-2:]
    return [Type((rois.shape[0], x.shape[0], *attrs["bins"]), x.dtype, join_axes(types))]


def _roi_gradient(n, dy):
    x, rois = n.inputs
    return [dy.graph.node("roi_pool_dx", [dy, x, rois], **_roi_attrs(n)), None]


def _roi_dx_gradient(n, ddx):
    _, x, rois = n.inputs
    if n.attrs["mode"] == "avg":
        return [ddx.graph.node("roi_pool", [ddx, rois], **_roi_attrs(n)), None, None]
    return [ddx.graph.node("roi_pool_pick", [ddx, x, rois], **_roi_attrs(n)), None, None]


def _roi_pick_gradient(n, dy):
    _, x, rois = n.inputs
    return [dy.graph.node("roi_pool_dx", [dy, x, rois], **_roi_attrs(n)), None, None]


# x (C, H, W), rois (R, 4), result (R, C, bins); attrs mode max or avg, bins, scale
Op("roi_pool", "ROIPooling", _roi_type, _roi_gradient, "roi_pool", "Girshick 2015, arXiv:1504.08083")
Op(
    "roi_pool_dx",
    "ROIPooling",
    lambda types, attrs: [types[1]._replace(axes=join_axes(types))],
    _roi_dx_gradient,
    "roi_pool",
    "the transpose of roi_pool: sums over regions",
)
Op("roi_pool_pick", "ROIPooling", _roi_type, _roi_pick_gradient, "roi_pool", "another tensor where x is largest")


# the ops of the graph ------------------------------------------------------------------------------------------------------------


def _pooling_plan(types, attrs):
    x = types[0]
    window = attrs["window"]
    rank = len(window)
    if rank > len(x.shape):
        raise ValueError((f"an operand of at least {rank} axes for the window {tuple(window)}", shown(x.shape), ""))
    spread(window, rank, "window sizes")
    lead = len(x.shape) - rank
    strides = spread(attrs["strides"], rank, "strides")
    auto = spread(attrs["auto_padding"], rank, "auto_padding")
    spatial, pads = [], []
    for n, k, s, a in zip(x.shape[lead:], window, strides, auto, strict=True):
        if n < 0:
            spatial.append(n)
            pads.append((0, 0))
        elif a:
            out, lo, hi = same_pads(n, k, s)
            spatial.append(out)
            pads.append((lo, hi))
        else:
            out = valid_size(n, k, s, ceil=attrs["ceil"])
            spatial.append(out)
            pads.append((0, max(0, (out - 1) * s + k - n)))
    return lead, strides, spatial, pads


def _pooling_type(types, attrs):
    lead, _, spatial, _ = _pooling_plan(types, attrs)
    return [Type((*types[0].shape[:lead], *spatial), types[0].dtype, types[0].axes)]


def _unit_lead(window, strides, pads):
    """Leading window axes of size 1 are no spatial axes; two stay, so that images stay images."""
    n = 0
    while n < len(window) - 2 and window[n] == 1 and strides[n] == 1 and pads[n] == (0, 0):
        n += 1
    return n


def _pooling_expand(g, inputs, attrs, training):
    x = inputs[0]
    out = _pooling_type([x.type], attrs)[0]
    lead, strides, _, pads = _pooling_plan([x.type], attrs)
    window = tuple(attrs["window"])
    skip = _unit_lead(window, strides, pads)
    lead, window, strides, pads = lead + skip, window[skip:], strides[skip:], pads[skip:]
    channels = 1
    for n in x.type.shape[:lead]:
        channels *= n
    x = x.reshape(shape=(channels, *x.type.shape[lead:]))
    x, pads = crop(x, pads, 1)
    mode = "max" if attrs["mode"] == MAX_POOLING else "avg_include_pad" if attrs["include_pad"] else "avg_exclude_pad"
    y = g.node("pool", [x], mode=mode, window=window, strides=tuple(strides), pads=pads)
    return y.reshape(shape=out.shape)


Op("pooling", "Pooling", _pooling_type, None, "expand", "CNTK v2", expand=_pooling_expand)


def _unpooling_type(types, attrs):
    v, x = types
    want = _pooling_type([x], attrs)[0].shape
    if not fits(v.shape, want):
        raise ValueError(
            (f"an operand of the shape {shown(want)} to which this window pools {shown(x.shape)}", shown(v.shape), "")
        )
    return [Type(x.shape, common_dtype(types), join_axes(types))]


def _unpooling_expand(g, inputs, attrs, training):
    v, x = inputs
    lead, strides, _, pads = _pooling_plan([x.type], attrs)
    channels = 1
    for n in x.type.shape[:lead]:
        channels *= n
    flat = x.reshape(shape=(channels, *x.type.shape[lead:]))
    v = v.reshape(shape=(channels, *v.type.shape[lead:]))
    geometry = {"mode": "max", "window": tuple(attrs["window"]), "strides": tuple(strides), "pads": tuple(pads)}
    y = g.node("pool", [flat], **geometry)
    out = g.node("max_pool_dx", [v, flat, y], **geometry)
    if any(k > s for k, s in zip(geometry["window"], geometry["strides"], strict=True)):  # windows that share places
        out = out / g.node("max_pool_dx", [g.fill(1.0, v.type), flat, y], **geometry).max(1.0)
    return out.reshape(shape=x.type.shape)


Op("unpooling", "Unpooling", _unpooling_type, None, "expand", "CNTK v2", expand=_unpooling_expand)


def _global_type(types, attrs):
    t = types[0]
    return [Type((*t.shape[:1], *(1 for _ in t.shape[1:])), t.dtype, t.axes)]


def _global_expand(g, x, attrs, training):
    x = x[0]
    axes = tuple(range(1, len(x.type.shape)))
    if attrs["mode"] == MAX_POOLING:
        return x.node("reduce_max", axes=axes, rows=False)
    size = 1.0
    for n in x.type.shape[1:]:
        size *= n
    return x.node("reduce_sum", axes=axes, rows=False) / size


Op("global_pooling", "Pooling", _global_type, None, "expand", "CNTK v2: pooling over an unknown window", expand=_global_expand)


def global_pooling(operand: Any, pooling_type: int, name: str = "") -> Function:
    """Largest value or mean of each channel over all spatial axes, which stay with size 1."""
    return apply("global_pooling", [operand], name, mode=int(pooling_type))


def _roipooling_type(types, attrs):
    x, rois = types
    if len(x.shape) != 3:
        raise ValueError(("an operand (channels, height, width)", shown(x.shape), ""))
    if len(rois.shape) != 2 or rois.shape[1] not in (4, FREE, INFERRED):
        raise ValueError(("regions of shape (regions, 4)", shown(rois.shape), "a region is x1, y1, x2, y2"))
    return [Type((rois.shape[0], x.shape[0], *attrs["bins"]), common_dtype(types), join_axes(types))]


Op(
    "roipooling",
    "ROIPooling",
    _roipooling_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: g.node("roi_pool", x, **attrs),
)


# the public face -----------------------------------------------------------------------------------------------------------------


def pooling(
    operand: Any,
    pooling_type: int,
    pooling_window_shape: Any,
    strides: Any = (1,),
    auto_padding: Any = (False,),
    ceil_out_dim: bool = False,
    include_pad: bool = False,
    name: str = "",
) -> Function:
    """Largest value (`C.MAX_POOLING`) or mean (`C.AVG_POOLING`) of windows over the last axes.

    ceil_out_dim: a last window that begins inside and hangs over the edge counts (CNTK 2.7 counts one that begins outside too, and reads past
    its memory). include_pad: pads count in the mean. At a tie of the largest values the
    gradient goes to the first. Raises `ValueError` for a window that does not fit.
    """
    if pooling_type not in (MAX_POOLING, AVG_POOLING):
        raise ValueError(here(f"Pooling: expected C.MAX_POOLING or C.AVG_POOLING, got {pooling_type!r}"))
    return apply(
        "pooling",
        [operand],
        name,
        mode=int(pooling_type),
        window=numbers(pooling_window_shape),
        strides=numbers(strides),
        auto_padding=flags(auto_padding),
        ceil=bool(ceil_out_dim),
        include_pad=bool(include_pad),
    )


def unpooling(
    operand: Any,
    pooling_input: Any,
    unpooling_type: int,
    unpooling_window_shape: Any,
    strides: Any = (1,),
    auto_padding: Any = (False,),
    name: str = "",
) -> Function:
    """Puts `operand` where max pooling of `pooling_input` found the largest values, zeros elsewhere.

    unpooling_type: `C.MAX_UNPOOLING`. A place that is the largest of several windows gets their mean (CNTK: one of them, and a gradient
    that counts it several times). Raises `ValueError` where the operand is not of the shape to which these windows pool.
    """
    if unpooling_type != MAX_UNPOOLING:
        raise ValueError(here(f"Unpooling: expected C.MAX_UNPOOLING, got {unpooling_type!r}"))
    return apply(
        "unpooling",
        to_variables(operand, pooling_input),
        name,
        window=numbers(unpooling_window_shape),
        strides=numbers(strides),
        auto_padding=flags(auto_padding),
        ceil=False,
    )


def roipooling(
    operand: Any, rois: Any, pooling_type: int, roi_output_shape: Any, spatial_scale: float, name: str = ""
) -> Function:
    """Pools each region of an image into the same number of bins. Girshick 2015, arXiv:1504.08083.

    operand: (channels, height, width). rois: (regions, 4), each x1, y1, x2, y2, both ends in it, in a picture of which a cell of the operand
    is 1 / spatial_scale wide. roi_output_shape: bins (high, wide). Result: (regions, channels, high, wide). A bin takes all cells that it
    touches, and is 0 where there are none; ends are rounded, halves away from 0. pooling_type: `C.MAX_POOLING` or `C.AVG_POOLING` (CNTK has
    the first alone). No gradient flows to the regions. Raises `ValueError` where shapes do not fit.
    """
    if pooling_type not in (MAX_POOLING, AVG_POOLING):
        raise ValueError(here(f"ROIPooling: expected C.MAX_POOLING or C.AVG_POOLING, got {pooling_type!r}"))
    bins = numbers(roi_output_shape)
    if len(bins) != 2 or min(bins) < 1:
        raise ValueError(here(f"ROIPooling: expected a roi_output_shape of two sizes of at least 1, got {roi_output_shape!r}"))
    if not 0 < spatial_scale < math.inf:
        raise ValueError(here(f"ROIPooling: expected a spatial_scale above 0, got {spatial_scale!r}"))
    mode = "max" if pooling_type == MAX_POOLING else "avg"
    return apply("roipooling", to_variables(operand, rois), name, mode=mode, bins=bins, scale=float(spatial_scale))
