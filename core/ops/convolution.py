"""Convolution and transposed convolution over 1 to 3 spatial axes, channels first."""

from __future__ import annotations

from typing import Any

from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.op import FREE, INFERRED, Op, Type, common_dtype, join_axes, shown

__all__ = ["convolution", "convolution_transpose"]


def same_pads(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int, int]:
    """Output size and pads of automatic padding, CNTK's way: kernel centres are spread evenly over the input."""
    if size < 1:
        raise ValueError(("spatial sizes of at least 1", str(size), ""))
    out = -(-size // stride)
    start = (size - ((out - 1) * stride + 1)) // 2
    reach = (kernel - 1) * dilation
    lo = reach // 2 - start
    return out, lo, (out - 1) * stride + reach + 1 - size - lo


def valid_size(size: int, kernel: int, stride: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output size without padding; raises `ValueError` for a kernel larger than the input."""
    reach = (kernel - 1) * dilation + 1
    if reach > size:
        raise ValueError(
            (f"a window that fits an axis of size {size}", str(reach), "pad the input (auto_padding) or use a smaller one")
        )
    if not ceil:
        return (size - reach) // stride + 1
    out = -(-(size - reach) // stride) + 1
    return out - 1 if (out - 1) * stride >= size else out  # the last window begins inside


# primitives: x (C, spatial), w (O, C/groups, kernel), y (O, spatial); pads: a pair (before, after) for each spatial axis ----------


def _conv_type(types, attrs):
    x, w = types
    spatial = []
    for n, k, s, d, (lo, hi) in zip(x.shape[1:], w.shape[2:], attrs["strides"], attrs["dilation"], attrs["pads"], strict=True):
        spatial.append((n + lo + hi - (k - 1) * d - 1) // s + 1)
    return [Type((w.shape[0], *spatial), common_dtype(types), join_axes(types))]


def _geometry(n):
    return {k: n.attrs[k] for k in ("strides", "dilation", "pads", "groups")}


def _conv_gradient(n, dy):
    x, w = n.inputs
    g = dy.graph
    return [
        g.node("conv_dx", [dy, w], shape=x.type.shape, **_geometry(n)),
        g.node("conv_dw", [x, dy], shape=w.type.shape, **_geometry(n)),
    ]


def _conv_dx_gradient(n, ddx):
    dy, w = n.inputs
    g = ddx.graph
    return [g.node("conv", [ddx, w], **_geometry(n)), g.node("conv_dw", [ddx, dy], shape=w.type.shape, **_geometry(n))]


def _conv_dw_gradient(n, ddw):
    x, dy = n.inputs
    g = ddw.graph
    return [g.node("conv_dx", [dy, ddw], shape=x.type.shape, **_geometry(n)), g.node("conv", [x, ddw], **_geometry(n))]


Op("conv", "Convolution", _conv_type, _conv_gradient, "conv", "cross-correlation, as in CNTK v2")
Op(
    "conv_dx",
    "Convolution",
    lambda types, attrs: [Type(attrs["shape"], types[0].dtype, types[0].axes)],
    _conv_dx_gradient,
    "conv",
    "the transpose of conv in x",
)
Op(
    "conv_dw",
    "Convolution",
    lambda types, attrs: [Type(attrs["shape"], types[0].dtype, ())],
    _conv_dw_gradient,
    "conv",
    "the transpose of conv in w, summed over rows",
)


# the ops of the graph ------------------------------------------------------------------------------------------------------------


def spread(value, rank, what):
    """One value an axis from one for all, or from a shorter list that is aligned at the last axis."""
    value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if what != "auto_padding" and any(v < 1 for v in value):
        raise ValueError((f"{what} of at least 1", str(value), ""))
    if len(value) == 1:
        return value * rank
    if len(value) > rank:
        if len(value) == rank + 1:  # CNTK lets a value for the channel axis lead
            return value[1:]
        raise ValueError((f"{what} for at most {rank} spatial axes", str(value), ""))
    return (value[0],) * (rank - len(value)) + value


def _conv_plan(types, attrs):
    """Output type, spatial geometry, and the crops that negative pads stand for."""
    w, x = types
    channels = attrs["reduction_rank"]
    if len(w.shape) == len(x.shape):  # one filter, without an axis of its own
        w = w._replace(shape=(1, *w.shape))
    rank = len(w.shape) - 1 - channels
    if rank < 0 or len(x.shape) != rank + channels:
        raise ValueError(
            (
                f"an operand of {rank + channels} axes for a kernel {shown(w.shape)}",
                shown(x.shape),
                "images are (channels, height, width); move channels first with C.transpose(x, (2, 0, 1))"
                if len(x.shape) == 3
                else "the kernel is (filters, channels, spatial...)",
            )
        )
    if rank > 3:
        raise ValueError(("a kernel of at most 3 spatial axes", shown(w.shape), "the kernel is (filters, channels, spatial...)"))
    groups = attrs["groups"]
    spread(w.shape[1 + channels :] or 1, rank, "kernel sizes")
    if channels:
        c = w.shape[1]
        if c not in (INFERRED, FREE) and x.shape[0] not in (INFERRED, FREE) and c * groups != x.shape[0]:
            wish = "(" + ", ".join([str(c * groups), *"DHW"[3 - rank :]]) + ")"
            way = "move channels first with C.transpose(x, (2, 0, 1))" if len(x.shape) == 3 and x.shape[-1] == c * groups else ""
            raise ValueError((wish, str(x.shape), way))
    if w.shape[0] % groups:
        raise ValueError((f"a number of filters divisible by groups = {groups}", str(w.shape[0]), ""))
    strides = spread(attrs["strides"], rank, "strides")
    dilation = spread(attrs["dilation"], rank, "dilation")
    auto = spread(attrs["auto_padding"], rank, "auto_padding")
    return w, channels, rank, groups, strides, dilation, auto


def convolution_type(types, attrs):
    w, x = types
    w, channels, rank, _, strides, dilation, auto = _conv_plan(types, attrs)
    spatial = []
    for n, k, s, d, a in zip(x.shape[channels:], w.shape[1 + channels :], strides, dilation, auto, strict=True):
        spatial.append(n if n < 0 else same_pads(n, k, s, d)[0] if a else valid_size(n, k, s, d))
    return [Type((w.shape[0], *spatial), common_dtype(types), join_axes(types))]


def _convolution_bind(types, attrs):
    w, x = types[0].shape, types[1].shape
    if attrs["groups"] < 1:
        raise ValueError(("groups of at least 1", str(attrs["groups"]), ""))
    if attrs["reduction_rank"] and len(w) > 1 and w[1] == INFERRED and len(x) == len(w) - 1:
        if x[0] % attrs["groups"]:
            raise ValueError((f"channels divisible by groups = {attrs['groups']}", str(x[0]), ""))
        w = (w[0], x[0] // attrs["groups"], *w[2:])
    return [w, x]


def crop(x, pads, first):
    """Takes away what negative pads cut off; gives the pads that remain."""
    out = []
    for i, (lo, hi) in enumerate(pads):
        n = x.type.shape[first + i]
        if lo < 0 or hi < 0:
            x = x.node("take", axis=first + i, first=max(-lo, 0), count=n - max(-lo, 0) - max(-hi, 0), stride=1)
        out.append((max(lo, 0), max(hi, 0)))
    return x, tuple(out)


def _convolution_expand(g, inputs, attrs, training):
    w, x = inputs
    types = [w.type, x.type]
    out = convolution_type(types, attrs)[0]
    kernel, channels, rank, groups, strides, dilation, auto = _conv_plan(types, attrs)
    w = w.reshape(shape=kernel.shape)
    if not channels:
        x = x.reshape(shape=(1, *x.type.shape))
        w = w.reshape(shape=(kernel.shape[0], 1, *kernel.shape[1:]))
    if rank == 0:
        x, w = x.reshape(shape=(*x.type.shape, 1)), w.reshape(shape=(*w.type.shape, 1))
        strides, dilation, auto = (1,), (1,), (False,)
    pads = []
    for n, k, s, d, a in zip(x.type.shape[1:], w.type.shape[2:], strides, dilation, auto, strict=True):
        if a:
            out_size, lo, hi = same_pads(n, k, s, d)
            # a stride may not reach the end: then nothing need be cut off there
            if hi < 0 and lo >= 0 and (n + lo - (k - 1) * d - 1) // s + 1 == out_size:
                hi = 0
            pads.append((lo, hi))
        else:  # what the last step leaves over is not read
            pads.append((0, (valid_size(n, k, s, d) - 1) * s + (k - 1) * d + 1 - n))
    x, pads = crop(x, [(lo, hi if a else 0) for (lo, hi), a in zip(pads, auto, strict=True)], 1)
    y = g.node("conv", [x, w], strides=strides, dilation=dilation, pads=pads, groups=groups)
    return y.reshape(shape=out.shape)


Op("convolution", "Convolution", convolution_type, None, "expand", "CNTK v2", expand=_convolution_expand, bind=_convolution_bind)


def _transpose_plan(types, attrs):
    w, x = types
    given = x
    if not attrs["reduction_rank"]:  # no channel axis
        w, x = w._replace(shape=(1, *w.shape)), x._replace(shape=(1, *x.shape))
    if len(w.shape) == len(x.shape):  # one filter, without an axis of its own
        w = w._replace(shape=(*w.shape[:1], 1, *w.shape[1:]))
    rank = len(x.shape) - 1
    if rank < 0 or rank > 3 or len(w.shape) != rank + 2:
        raise ValueError(
            (
                f"an operand of {len(types[0].shape) - 1} axes for a kernel {shown(types[0].shape)}",
                shown(given.shape),
                "the kernel is (channels in, filters, spatial...)",
            )
        )
    if w.shape[0] >= 0 and x.shape[0] >= 0 and w.shape[0] != x.shape[0]:
        raise ValueError(
            (f"{w.shape[0]} channels", f"{x.shape[0]} in {x.shape}", "the kernel is (channels in, filters, spatial...)")
        )
    strides = spread(attrs["strides"], rank, "strides")
    dilation = spread(attrs["dilation"], rank, "dilation")
    auto = spread(attrs["auto_padding"], rank, "auto_padding")
    wished = attrs["output_shape"]
    if wished is not None:
        if len(wished) < rank:
            raise ValueError((f"an output_shape of {rank} sizes", str(tuple(wished)), ""))
        wished = tuple(wished)[-rank:]
    spatial, pads = [], []
    for i, (n, k, s, d, a) in enumerate(zip(x.shape[1:], w.shape[2:], strides, dilation, auto, strict=True)):
        if n < 0:
            spatial.append(n)
            pads.append((0, 0))
            continue
        if n < 1:
            raise ValueError(("spatial sizes of at least 1", str(n), ""))
        # the output is what a convolution with this kernel and stride would take to n
        reach = (k - 1) * d
        size = wished[i] if wished and wished[i] > 0 else (n - 1) * s + 1 + (0 if a else reach)
        back = -(-size // s) if a else (size - reach - 1) // s + 1
        if back != n:
            raise ValueError((f"an output size that a stride of {s} takes to {n}", f"{size} (taken to {back})", ""))
        lo = reach // 2 - (size - 1 - (n - 1) * s) // 2 if a else 0
        hi = (n - 1) * s + reach + 1 - size - lo
        if hi < 0 and lo >= 0 and (size + lo - reach - 1) // s + 1 == n:  # what the stride does not reach
            hi = 0
        spatial.append(size)
        pads.append((lo, hi))
    return w.shape, x.shape, strides, dilation, spatial, pads


def _transposed_type(types, attrs):
    kernel, _, _, _, spatial, _ = _transpose_plan(types, attrs)
    return [Type((kernel[1], *spatial), common_dtype(types), join_axes(types))]


def _transposed_bind(types, attrs):
    w, x = types[0].shape, types[1].shape
    return [(x[0], *w[1:]) if x and w and w[0] == INFERRED else w, x]


def _transposed_expand(g, inputs, attrs, training):
    w, x = inputs
    kernel, image, strides, dilation, spatial, pads = _transpose_plan([w.type, x.type], attrs)
    w, x = w.reshape(shape=kernel), x.reshape(shape=image)
    # places that the convolution would not read: zeros here
    read = [n + min(lo, 0) + min(hi, 0) for n, (lo, hi) in zip(spatial, pads, strict=True)]
    y = g.node(
        "conv_dx",
        [x, w],
        shape=(kernel[1], *read),
        strides=strides,
        dilation=dilation,
        pads=tuple((max(lo, 0), max(hi, 0)) for lo, hi in pads),
        groups=1,
    )
    for i, ((lo, hi), n) in enumerate(zip(pads, spatial, strict=True)):
        if lo < 0 or hi < 0:
            y = y.node("put", axis=1 + i, first=max(-lo, 0), stride=1, size=n)
    return y


Op(
    "convolution_transpose",
    "ConvolutionTranspose",
    _transposed_type,
    None,
    "expand",
    "CNTK v2",
    expand=_transposed_expand,
    bind=_transposed_bind,
)


# the public face -----------------------------------------------------------------------------------------------------------------


def numbers(value: Any) -> tuple:
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)


def flags(value: Any) -> tuple:
    return tuple(bool(v) for v in value) if isinstance(value, (list, tuple)) else (bool(value),)


def convolution(
    convolution_map: Any,
    operand: Any,
    strides: Any = (1,),
    sharing: Any = (True,),
    auto_padding: Any = (True,),
    sequential: bool = False,
    dilation: Any = (1,),
    reduction_rank: int = 1,
    groups: int = 1,
    max_temp_mem_size_in_samples: int = 0,
    name: str = "",
) -> Function:
    """Convolution (cross-correlation) of `operand` (channels, spatial...) with `convolution_map` (filters, channels / groups, kernel...).

    strides, dilation, auto_padding: one for all spatial axes or one each (a leading one for the channels is accepted and ignored).
    auto_padding: output size = ceil(input / stride). reduction_rank 0: operand without a channel axis. A kernel with as many axes as the
    operand is one filter. Result: (filters, spatial...).
    sequential: the first axis of the kernel's extent is that of the steps, and so in strides, dilation, auto_padding. No pad on it: sequences
    lose the steps at which the kernel does not fit, and a sequence shorter than it all (CNTK refuses it); their axis is then a new one.
    Raises `ValueError` where shapes do not fit.
    """
    if not all(flags(sharing)):
        raise ValueError(
            here("Convolution: expected sharing = True, got False; kernels that differ from place to place are not supported")
        )
    return apply(
        "sequence_convolution" if sequential else "convolution",
        [convolution_map, operand],
        name,
        strides=numbers(strides),
        auto_padding=flags(auto_padding),
        dilation=numbers(dilation),
        reduction_rank=int(reduction_rank),
        groups=int(groups),
    )


def convolution_transpose(
    convolution_map: Any,
    operand: Any,
    strides: Any = (1,),
    sharing: Any = (True,),
    auto_padding: Any = (True,),
    output_shape: Any = None,
    dilation: Any = (1,),
    reduction_rank: int = 1,
    max_temp_mem_size_in_samples: int = 0,
    name: str = "",
) -> Function:
    """The transpose of a convolution: `operand` (channels, spatial...), `convolution_map` (channels, filters, kernel...).

    output_shape: spatial sizes (a leading one for the filters is accepted and ignored, 0 leaves a size open) where a stride leaves a choice;
    without it (input - 1) * stride + 1 with auto_padding, else (input - 1) * stride + kernel. Raises `ValueError` where shapes do not fit.
    """
    if output_shape is not None:
        output_shape = numbers(output_shape)
        if not any(output_shape):
            output_shape = None
    return apply(
        "convolution_transpose",
        [convolution_map, operand],
        name,
        strides=numbers(strides),
        auto_padding=flags(auto_padding),
        output_shape=output_shape,
        dilation=numbers(dilation),
        reduction_rank=int(reduction_rank),
    )
