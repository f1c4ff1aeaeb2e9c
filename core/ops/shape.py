"""Ops that move values: views, slices, pads, splices and permutations."""

from __future__ import annotations

import builtins
from typing import Any

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply, to_variable
from cogkit.op import INFERRED, Op, Type, common_dtype, join_axes, shown, size_of
from cogkit.ops.reduction import static_axis
from cogkit.variables import sanitize_shape

__all__ = [
    "CONSTANT_PAD",
    "REFLECT_PAD",
    "SYMMETRIC_PAD",
    "expand_dims",
    "flatten",
    "getitem",
    "pad",
    "reshape",
    "slice",
    "splice",
    "squeeze",
    "swapaxes",
    "transpose",
]

CONSTANT_PAD, REFLECT_PAD, SYMMETRIC_PAD = 0, 1, 2


# views ---------------------------------------------------------------------------------------------------------------------------


def _view(name, label, infer, source="definition"):
    Op(name, label, infer, lambda n, dy: [dy.reshape(shape=n.inputs[0].type.shape)], "view", source)


def _reshape_type(types, attrs):
    t = types[0]
    rank = len(t.shape)
    if attrs.get("begin") == "end":
        begin = rank
    else:
        begin = 0 if attrs.get("begin") is None else static_axis(attrs["begin"], rank, 1 if attrs["begin"] >= 0 else 0)
    end = rank if attrs.get("end") is None else static_axis(attrs["end"], rank, 1 if attrs["end"] >= 0 else 0)
    if end < begin:
        raise ValueError(("begin_axis <= end_axis", f"{begin} and {end}", ""))
    old, new = t.shape[begin:end], list(attrs["shape"])
    if new.count(INFERRED) > 1:
        raise ValueError(("at most one inferred size", shown(new), ""))
    if any(n < 0 for n in old):
        if INFERRED in new:
            new[new.index(INFERRED)] = size_of(old)
    else:
        have = size_of(old)
        if INFERRED in new:
            rest = size_of(n for n in new if n != INFERRED)
            if rest == 0 or have % rest:
                raise ValueError((f"a shape of {have} elements", shown(attrs["shape"]), "the inferred size would not be whole"))
            new[new.index(INFERRED)] = have // rest
        elif size_of(new) != have:
            raise ValueError((f"a shape of {have} elements", f"{shown(new)} for {shown(old)}", ""))
    return [Type(t.shape[:begin] + tuple(new) + t.shape[end:], t.dtype, t.axes)]


_view("reshape", "Reshape", _reshape_type)


def _expand_dims_type(types, attrs):
    t = types[0]
    rank = len(t.shape)
    axis = attrs["axis"]
    if axis is None or axis == -rank - 1:
        at = 0
    else:
        at = static_axis(axis, rank) + 1
    return [Type(t.shape[:at] + (1,) + t.shape[at:], t.dtype, t.axes)]


_view("expand_dims", "ExpandDims", _expand_dims_type)


def _squeeze_type(types, attrs):
    t = types[0]
    if attrs["axes"] is None:
        return [Type(tuple(n for n in t.shape if n != 1), t.dtype, t.axes)]
    at = {static_axis(a, len(t.shape)) for a in attrs["axes"]}
    for a in at:
        if t.shape[a] != 1 and t.shape[a] >= 0:
            raise ValueError((f"size 1 at axis {a}", f"{t.shape[a]} in {t.shape}", ""))
    return [Type(tuple(n for i, n in enumerate(t.shape) if i not in at), t.dtype, t.axes)]


_view("squeeze", "Squeeze", _squeeze_type)


def _flatten_type(types, attrs):
    t = types[0]
    at = 0 if attrs["axis"] is None else static_axis(attrs["axis"], len(t.shape), 1)
    return [Type((size_of(t.shape[:at]), size_of(t.shape[at:])), t.dtype, t.axes)]


_view("flatten", "Flatten", _flatten_type)


# movement ------------------------------------------------------------------------------------------------------------------------


def _transpose_type(types, attrs):
    t = types[0]
    perm = tuple(static_axis(a, len(t.shape)) for a in attrs["perm"])
    if sorted(perm) != list(range(len(t.shape))):
        raise ValueError((f"a permutation of the {len(t.shape)} static axes of {shown(t.shape)}", f"{tuple(attrs['perm'])}", ""))
    return [Type(tuple(t.shape[i] for i in perm), t.dtype, t.axes)]


def _transpose_gradient(n, dy):
    perm = [static_axis(a, len(n.inputs[0].type.shape)) for a in n.attrs["perm"]]
    return [dy.node("transpose", perm=tuple(perm.index(i) for i in range(len(perm))))]


Op("transpose", "TransposeAxes", _transpose_type, _transpose_gradient, "transpose", "definition")


def _swap_type(types, attrs):
    t = types[0]
    a, b = (static_axis(attrs[k], len(t.shape)) for k in ("axis1", "axis2"))
    shape = list(t.shape)
    shape[a], shape[b] = shape[b], shape[a]
    return [Type(tuple(shape), t.dtype, t.axes)]


def _swap_expand(g, x, attrs, training):
    perm = list(range(len(x[0].type.shape)))
    a, b = (static_axis(attrs[k], len(perm)) for k in ("axis1", "axis2"))
    perm[a], perm[b] = perm[b], perm[a]
    return x[0].node("transpose", perm=tuple(perm))


Op("swapaxes", "TransposeAxes", _swap_type, None, "expand", "definition", expand=_swap_expand)


def bounds(size: int, begin: int, end: int, stride: int) -> tuple[int, int]:
    """First index and count of a slice of one axis, CNTK's way: end 0 is the end of the axis, negative bounds count from it."""
    lo = begin + size if begin < 0 else begin
    hi = end + size if end <= 0 else end
    if stride == 0:
        raise ValueError(("a stride other than 0", "0", ""))
    if not 0 <= lo <= hi <= size:
        raise ValueError((f"bounds within the axis of size {size}", f"[{begin}:{end}]", ""))
    count = (hi - lo + abs(stride) - 1) // abs(stride)
    return (lo if stride > 0 else hi - 1), count


def _slice_type(types, attrs):
    t = types[0]
    shape = list(t.shape)
    for a, b, e, s in zip(attrs["axes"], attrs["begin"], attrs["end"], attrs["strides"], strict=True):
        i = static_axis(a, len(shape))
        if shape[i] >= 0:
            shape[i] = bounds(shape[i], b, e, s)[1]
        elif 0 <= b < e or b < e < 0:
            shape[i] = bounds(e - b, 0, e - b, s)[1]
    return [Type(tuple(shape), t.dtype, t.axes)]


def _slice_expand(g, x, attrs, training):
    y = x[0]
    for a, b, e, s in zip(attrs["axes"], attrs["begin"], attrs["end"], attrs["strides"], strict=True):
        i = static_axis(a, len(y.type.shape))
        first, count = bounds(y.type.shape[i], b, e, s)
        if (first, count, s) != (0, y.type.shape[i], 1):
            y = y.node("take", axis=i, first=first, count=count, stride=s)
    return y


Op("slice", "Slice", _slice_type, None, "expand", "CNTK v2", expand=_slice_expand)


def _within(attrs, count: int, size: int) -> None:
    """Raises `ValueError` where entries that lie a stride apart leave their axis: kernels do not look."""
    first, last = attrs["first"], attrs["first"] + attrs["stride"] * (count - 1)
    if count < 0 or count and not (0 <= first < size and 0 <= last < size):
        raise ValueError((f"entries within an axis of size {size}", f"{count} from {first} to {last}", ""))


def _take_type(types, attrs):
    t = types[0]
    i = attrs["axis"]
    _within(attrs, attrs["count"], t.shape[i])
    return [Type(t.shape[:i] + (attrs["count"],) + t.shape[i + 1 :], t.dtype, t.axes)]


def _put_type(types, attrs):
    t = types[0]
    i = attrs["axis"]
    _within(attrs, t.shape[i], attrs["size"])
    return [Type(t.shape[:i] + (attrs["size"],) + t.shape[i + 1 :], t.dtype, t.axes)]


Op(
    "take",
    "Slice",
    _take_type,
    lambda n, dy: [
        dy.node(
            "put",
            axis=n.attrs["axis"],
            first=n.attrs["first"],
            stride=n.attrs["stride"],
            size=n.inputs[0].type.shape[n.attrs["axis"]],
        )
    ],
    "take",
    "every stride-th entry of one axis",
)
Op(
    "put",
    "Unslice",
    _put_type,
    lambda n, dy: [
        dy.node(
            "take",
            axis=n.attrs["axis"],
            first=n.attrs["first"],
            stride=n.attrs["stride"],
            count=n.inputs[0].type.shape[n.attrs["axis"]],
        )
    ],
    "put",
    "the transpose of take: zeros between",
)


def _splice_rank(types, attrs):
    """The common rank of the operands: one axis too far in front makes leading axes of size 1."""
    return max(*(len(t.shape) for t in types), -(attrs["axis"] or 0))


def _splice_type(types, attrs):
    rank = _splice_rank(types, attrs)
    extra = 1 if attrs["axis"] is None or attrs["axis"] >= rank else 0
    if attrs["axis"] is None:
        at = 0
    else:
        at = static_axis(attrs["axis"], rank, extra)
    shapes = []
    for t in types:
        s = (1,) * (rank - len(t.shape)) + t.shape
        shapes.append((1, *s) if extra and at == 0 else (*s, 1) if extra else s)
    out = list(shapes[0])
    for s in shapes[1:]:
        for i in range(len(out)):
            if i != at and s[i] != out[i] and out[i] >= 0 and s[i] < 0:
                out[i] = s[i]
            elif i != at and s[i] != out[i] and s[i] >= 0 and out[i] >= 0:
                if 1 not in (s[i], out[i]):
                    raise ValueError(
                        (f"shapes equal but for axis {at}", " and ".join(shown(t.shape) for t in types), "a size of 1 stretches")
                    )
                out[i] = max(s[i], out[i]) if 0 not in (s[i], out[i]) else 0
        out[at] = min(out[at], s[at]) if min(out[at], s[at]) < 0 else out[at] + s[at]
    return [Type(tuple(out), common_dtype(types), join_axes(types))]


def _splice_expand(g, x, attrs, training):
    types = [v.type for v in x]
    out = _splice_type(types, attrs)[0]
    rank = _splice_rank(types, attrs)
    extra = len(out.shape) - rank
    at = 0 if attrs["axis"] is None else static_axis(attrs["axis"], rank, extra)
    parts = []
    for v in x:
        s = (1,) * (rank - len(v.type.shape)) + v.type.shape
        v = v.reshape(shape=(1, *s) if extra and at == 0 else (*s, 1) if extra else s)
        own = v.type.shape[at]
        parts.append(v.expand(Type((*out.shape[:at], own, *out.shape[at + 1 :]), v.type.dtype, out.axes)))
    return g.node("concat", parts, axis=at) if len(parts) > 1 else parts[0]


def _concat_type(types, attrs):
    at = attrs["axis"]
    t = types[0]
    return [Type(t.shape[:at] + (sum(u.shape[at] for u in types),) + t.shape[at + 1 :], t.dtype, t.axes)]


def _concat_gradient(n, dy):
    out, first = [], 0
    for v in n.inputs:
        count = v.type.shape[n.attrs["axis"]]
        out.append(dy.node("take", axis=n.attrs["axis"], first=first, count=count, stride=1))
        first += count
    return out


Op("splice", "Splice", _splice_type, None, "expand", "CNTK v2", expand=_splice_expand)
Op("concat", "Splice", _concat_type, _concat_gradient, "concat", "definition")


def _pad_type(types, attrs):
    t = types[0]
    pattern = attrs["pattern"]
    if len(pattern) != len(t.shape):
        raise ValueError((f"a pair for each static axis of {shown(t.shape)}", str(len(pattern)), ""))
    for (lo, hi), n in zip(pattern, t.shape, strict=True):
        if n < 0 and lo >= 0 and hi >= 0:
            continue
        most = n - 1 if attrs["mode"] == REFLECT_PAD else n if attrs["mode"] == SYMMETRIC_PAD else None
        if lo < 0 or hi < 0 or (most is not None and max(lo, hi) > most):
            raise ValueError(
                ("pads of at least 0" + ("" if most is None else f" and at most {most}"), f"{(lo, hi)} for size {n}", "")
            )
    return [Type(tuple(n if n < 0 else n + lo + hi for n, (lo, hi) in zip(t.shape, pattern, strict=True)), t.dtype, t.axes)]


def _pad_expand(g, x, attrs, training):
    y = x[0]
    for i, (lo, hi) in enumerate(attrs["pattern"]):
        n = y.type.shape[i]
        if lo == hi == 0:
            continue
        if attrs["mode"] == CONSTANT_PAD:
            value = attrs["value"]
            y = (y - value if value else y).node("put", axis=i, first=lo, stride=1, size=n + lo + hi)
            y = y + value if value else y
            continue
        skip = 1 if attrs["mode"] == REFLECT_PAD else 0  # the border itself is not repeated
        parts = [y]
        if lo:
            parts.insert(0, y.node("take", axis=i, first=lo - 1 + skip, count=lo, stride=-1))
        if hi:
            parts.append(y.node("take", axis=i, first=n - 1 - skip, count=hi, stride=-1))
        y = g.node("concat", parts, axis=i)
    return y


Op("pad", "Pad", _pad_type, None, "expand", "CNTK v2", expand=_pad_expand)


# the public face -----------------------------------------------------------------------------------------------------------------


def axis_index(axis: Any) -> Any:
    return (
        None
        if axis is None or axis == Axis.new_leading_axis()
        else axis.static_axis_index()
        if isinstance(axis, Axis)
        else int(axis)
    )


def reshape(x: Any, shape: Any, begin_axis: Any = None, end_axis: Any = None, name: str = "") -> Function:
    """x with other static axes, in row-major order; one size may be `C.InferredDimension`.

    begin_axis, end_axis: reshape only the static axes [begin, end). Raises `ValueError` when the number of elements differs.
    """
    last = (Axis.end_static_axis(), Axis.new_leading_axis())  # CNTK takes either for the place behind the last axis
    begin = None if begin_axis is None else "end" if begin_axis in last else axis_index(begin_axis)
    end = None if end_axis is None or end_axis in last else axis_index(end_axis)
    return apply("reshape", [x], name, shape=sanitize_shape(shape), begin=begin, end=end)


def expand_dims(x: Any, axis: Any, name: str = "") -> Function:
    """x with a new static axis of size 1 behind `axis`, as in CNTK (NumPy puts it before); in front for `Axis.new_leading_axis()`."""
    return apply("expand_dims", [x], name, axis=axis_index(axis))


def squeeze(x: Any, axes: Any = None, name: str = "") -> Function:
    """x without static axes of size 1: the named ones, or all. Raises `ValueError` for an axis of another size."""
    if axes is not None:
        axes = tuple(axis_index(a) for a in (axes if isinstance(axes, (list, tuple)) else (axes,)))
    return apply("squeeze", [x], name, axes=axes)


def flatten(x: Any, axis: Any = None, name: str = "") -> Function:
    """x as a matrix: the static axes before `axis`, and those from it on."""
    return apply("flatten", [x], name, axis=axis_index(axis))


def transpose(x: Any, perm: Any, name: str = "") -> Function:
    """x with its static axes in another order. perm: a permutation of them."""
    return apply("transpose", [x], name, perm=tuple(axis_index(a) for a in perm))


def swapaxes(x: Any, axis1: Any = 0, axis2: Any = 1, name: str = "") -> Function:
    """x with two static axes swapped."""
    return apply("swapaxes", [x], name, axis1=axis_index(axis1), axis2=axis_index(axis2))


def slice(x: Any, axis: Any, begin_index: Any, end_index: Any, strides: Any = None, name: str = "") -> Function:
    """x between bounds of one static axis or several; end 0 is the axis' end, negative bounds count from it, negative strides go backwards."""

    def many(v):
        return tuple(v) if isinstance(v, (list, tuple)) else (v,)

    axes = tuple(axis_index(a) for a in many(axis))
    begin, end = (tuple(int(b) for b in many(v)) for v in (begin_index, end_index))
    strides = (1,) * len(axes) if strides is None else tuple(int(s) for s in many(strides))
    if not len(axes) == len(begin) == len(end) == len(strides):
        raise ValueError(
            here(
                f"Slice: expected as many bounds as axes, got {len(axes)} axes, {len(begin)} begins, {len(end)} ends, {len(strides)} strides"
            )
        )
    return apply("slice", [x], name, axes=axes, begin=begin, end=end, strides=strides)


def getitem(x: Any, key: Any) -> Function:
    """`x[...]` on static axes; an index keeps its axis with size 1, a list picks entries."""
    x = to_variable(x)
    keys = key if isinstance(key, tuple) else (key,)
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        full = builtin_slice(None)
        keys = keys[:at] + (full,) * (len(x.shape) - len(keys) + 1) + keys[at + 1 :]
    y = Function(x.node) if x.is_output and len(x.node.outputs) == 1 else apply("alias", [x])
    for axis, k in enumerate(keys):
        if isinstance(k, builtin_slice):
            if k == builtin_slice(None):
                continue
            if k.stop == 0:  # 0 means the end of the axis to `slice`
                raise IndexError(here(f"[]: expected a slice with entries, got [{k.start or 0}:0]"))
            y = slice(y, axis, k.start or 0, 0 if k.stop is None else k.stop, k.step or 1)
        elif isinstance(k, (list, tuple)):
            y = splice(*[slice(y, axis, i, i + 1 if i != -1 else 0) for i in k], axis=axis)
        elif isinstance(k, int):
            y = slice(y, axis, k, k + 1 if k != -1 else 0)
        else:
            raise TypeError(here(f"[]: expected an index, a slice or a list of indices, got {type(k).__name__}"))
    return y


builtin_slice = builtins.slice


def splice(*inputs: Any, axis: Any = -1, name: str = "") -> Function:
    """The operands one after another along a static axis; a new leading axis may be named too. Along the other axes sizes of 1 stretch."""
    flat = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else inputs
    return apply("splice", list(flat), name, axis=axis_index(axis))


def pad(x: Any, pattern: Any, mode: int = CONSTANT_PAD, constant_value: float = 0, name: str = "") -> Function:
    """x with static axes made longer. pattern: a pair (before, after) for each; mode: `CONSTANT_PAD`, `REFLECT_PAD`, `SYMMETRIC_PAD`."""
    try:
        pairs = tuple((int(a), int(b)) for a, b in pattern)
    except TypeError:
        raise TypeError(here(f"Pad: expected a list of pairs (before, after), got {pattern!r}")) from None
    if mode not in (CONSTANT_PAD, REFLECT_PAD, SYMMETRIC_PAD):
        raise ValueError(here(f"Pad: expected a mode among CONSTANT_PAD, REFLECT_PAD and SYMMETRIC_PAD, got {mode!r}"))
    return apply("pad", [x], name, pattern=pairs, mode=int(mode), value=float(constant_value))
