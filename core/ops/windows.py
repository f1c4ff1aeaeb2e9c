"""Convolution over the steps of sequences: a window of steps becomes a static axis, row by row, and no step of padding is computed."""

from __future__ import annotations

from cogkit.axis import Axis
from cogkit.op import INFERRED, Op, shown
from cogkit.ops.convolution import convolution_type, spread
from cogkit.ops.rows import BATCH, needs_steps

__all__: list[str] = []


def _plan(types, attrs):
    """Types of kernel and window, (filters, channels, steps, spatial...) and (channels, steps, spatial...); geometry over steps, over space."""
    w, x = types
    needs_steps(x)
    if not attrs["reduction_rank"]:  # no channel axis: one of size 1
        x, w = x._replace(shape=(1, *x.shape)), w._replace(shape=(*w.shape[:1], 1, *w.shape[1:]))
    rank = len(w.shape) - 2
    if not 1 <= rank <= len(x.shape):
        raise ValueError(
            (
                f"a kernel (filters, channels, steps, spatial...) for steps {shown(types[1].shape)}",
                shown(types[0].shape),
                "steps are (channels, spatial...); reduction_rank = 0 where they have no channels",
            )
        )
    strides, dilation, auto = (list(spread(attrs[k], rank, k)) for k in ("strides", "dilation", "auto_padding"))
    more = len(x.shape) - rank  # space that the kernel does not name is mapped over
    w = w._replace(shape=(*w.shape, *(1,) * more))
    window = x._replace(shape=(*x.shape[:1], w.shape[2], *x.shape[1:]))
    over_steps = w.shape[2], strides[0], dilation[0], auto[0]
    strides, dilation, auto = (
        [1, *strides[1:], *(1,) * more],
        [1, *dilation[1:], *(1,) * more],
        [False, *auto[1:], *(False,) * more],
    )
    space = {
        "strides": tuple(strides),
        "dilation": tuple(dilation),
        "auto_padding": tuple(auto),
        "reduction_rank": 1,
        "groups": attrs["groups"],
    }
    return w, window, over_steps, space


def _axes(axes, size, stride, dilation, pad):
    """The row space of the windows, and how it is cut out: every stride-th step at which a window fits."""
    before = (size - 1) * dilation // 2
    after = (size - 1) * dilation - before
    name = next(a for a in axes if a.is_sequence_axis).name
    if stride > 1:
        where = f"_every_{stride}" + ("" if pad else f"_from_{before}_to_{-after}")
        return (*BATCH, Axis(name + where)), ("every", stride, *((None, None) if pad else (before, -after)))
    if pad or size == 1:
        return axes, None
    return (*BATCH, Axis(f"{name}_from_{before}_to_{-after}")), ("cut", before, -after)


def _type(types, attrs):
    w, window, over_steps, space = _plan(types, attrs)
    t = convolution_type([w, window], space)[0]
    return [t._replace(shape=(t.shape[0], *t.shape[2:]), axes=_axes(window.axes, *over_steps)[0])]


def _bind(types, attrs):
    w, x = types[0].shape, types[1].shape
    groups = attrs["groups"]
    if len(w) > 1 and w[1] == INFERRED:
        channels = x[:1] if attrs["reduction_rank"] else (1,)
        if not channels or channels[0] % groups:
            raise ValueError(
                (f"channels divisible by groups = {groups}", str(x), "a sequence of numbers has none: reduction_rank = 0")
            )
        w = (w[0], channels[0] // groups, *w[2:])
    return [w, x]


def _expand(g, inputs, attrs, training):
    w, x = inputs
    out = _type([w.type, x.type], attrs)[0]
    kernel, window, (size, stride, dilation, pad), space = _plan([w.type, x.type], attrs)
    shape = (window.shape[0], 1, *window.shape[2:])
    x = x.reshape(shape=shape)
    axes, cut = _axes(x.type.axes, size, stride, dilation, pad)
    before = (size - 1) * dilation // 2
    steps = []
    for k in range(size):
        ago = before - k * dilation
        steps.append(x if ago == 0 else x.node("move_rows", move=("shift", ago), axes=x.type.axes))
    v = steps[0] if size == 1 else g.node("concat", steps, axis=1)
    if cut is not None:
        axes, i = g.space(axes, x.type.axes, cut, None)
        v = v.node("move_rows", move=("pick", i), axes=axes)
    w = w.reshape(shape=kernel.shape)
    return g.node("convolution", [w, v], **space).reshape(shape=out.shape)


Op("sequence_convolution", "Convolution", _type, None, "expand", "CNTK v2", expand=_expand, bind=_bind)
