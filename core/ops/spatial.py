"""Ops on images (channels, height, width): depth to space and back, crops, scaling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.op import Op, Type, fits, shown

__all__ = ["crop_automatic", "crop_automatic_with_ancestors", "crop_manual", "depth_to_space", "image_scaler", "space_to_depth"]


def _image(t: Type) -> tuple[int, int, int]:
    if len(t.shape) != 3:
        raise ValueError(("an operand (channels, height, width)", shown(t.shape), ""))
    return t.shape


# depth and space -----------------------------------------------------------------------------------------------------------------


def _to_space_type(types, attrs):
    c, h, w = _image(types[0])
    b = attrs["block_size"]
    if c >= 0 and c % (b * b):
        raise ValueError((f"channels divisible by block_size squared = {b * b}", str(c), ""))
    return [types[0]._replace(shape=tuple(n if n < 0 else m for n, m in ((c, c // (b * b)), (h, h * b), (w, w * b))))]


def _to_depth_type(types, attrs):
    c, h, w = _image(types[0])
    b = attrs["block_size"]
    if h >= 0 and h % b or w >= 0 and w % b:
        raise ValueError((f"a height and a width divisible by block_size = {b}", shown((h, w)), ""))
    return [types[0]._replace(shape=tuple(n if n < 0 else m for n, m in ((c, c * b * b), (h, h // b), (w, w // b))))]


def _to_space(g, x, attrs, training):
    (c, h, w), b = x[0].type.shape, attrs["block_size"]
    y = x[0].reshape((b, b, c // (b * b), h, w)).node("transpose", perm=(2, 3, 0, 4, 1))
    return y.reshape((c // (b * b), h * b, w * b))


def _to_depth(g, x, attrs, training):
    (c, h, w), b = x[0].type.shape, attrs["block_size"]
    y = x[0].reshape((c, h // b, b, w // b, b)).node("transpose", perm=(2, 4, 0, 1, 3))
    return y.reshape((c * b * b, h // b, w // b))


_SHI = "Shi et al. 2016, arXiv:1609.05158; order of channels as CNTK v2"
Op("depth_to_space", "DepthToSpace", _to_space_type, None, "expand", _SHI, expand=_to_space)
Op("space_to_depth", "SpaceToDepth", _to_depth_type, None, "expand", _SHI, expand=_to_depth)


def _block(label: str, block_size: Any) -> int:
    if int(block_size) != block_size or block_size < 1:
        raise ValueError(here(f"{label}: expected a whole block_size of at least 1, got {block_size!r}"))
    return int(block_size)


def depth_to_space(operand: Any, block_size: int, name: str = "") -> Function:
    """Channels become blocks of places: (C b b, H, W) to (C, H b, W b); channel (i b + j) C + c is place (i, j) of each block of c.

    Shi et al. 2016, arXiv:1609.05158. Raises `ValueError` where block_size^2 does not divide the channels.
    """
    return apply("depth_to_space", [operand], name, block_size=_block("DepthToSpace", block_size))


def space_to_depth(operand: Any, block_size: int, name: str = "") -> Function:
    """Blocks of places become channels: (C, H b, W b) to (C b b, H, W), the inverse of `depth_to_space`.

    Raises `ValueError` where block_size does not divide height and width.
    """
    return apply("space_to_depth", [operand], name, block_size=_block("SpaceToDepth", block_size))


# crops ---------------------------------------------------------------------------------------------------------------------------


class Sight(NamedTuple):
    """Where along one axis a cell looks: cell c of what is cropped sees the place scale c + shift of an ancestor."""

    scale: float
    shift: float

    def through(self, stride: float, centre: float) -> Sight:
        """Of an operand whose place stride c + centre the cell c sees."""
        return Sight(self.scale * stride, self.shift * stride + centre)

    def back(self, stride: float, centre: float) -> Sight:
        """Of an operand whose cell c is seen at the place stride c + centre."""
        return Sight(self.scale / stride, (self.shift - centre) / stride)


Sights = tuple[Sight, Sight]  # along height and width


def _windows(n: Any) -> list[tuple[int, int]] | None:
    """(stride, centre of the first window) along height and width of a convolution or pool, None where it has not both."""
    a = n.attrs
    window = a["window"] if "window" in a else n.inputs[1].type.shape[2:]
    if len(window) < 2:
        return None
    dilation = a.get("dilation", (1,) * len(window))
    places = zip(window, a["strides"], dilation, a["pads"], strict=True)
    return [(s, (k - 1) * d // 2 - lo) for k, s, d, (lo, _) in places][-2:]


def _seen(n: Any, sights: Sights) -> list[tuple[Any, Sights]]:
    """The operands of a node that are images over the same places, with what the cells see of them; none where that is not known."""
    name, shape = n.name, n.outputs[0].type.shape
    if name in ("conv", "pool", "conv_dx", "max_pool_dx"):
        windows = _windows(n)
        if windows is None:
            return []
        back = name in ("conv_dx", "max_pool_dx")
        moved = [s.back(*w) if back else s.through(*w) for s, w in zip(sights, windows, strict=True)]
        return [(n.inputs[0], (moved[0], moved[1]))]
    if name in ("take", "put"):
        axis = n.attrs["axis"] - len(shape) + 2  # 0 is height, 1 is width
        step = (n.attrs["stride"], float(n.attrs["first"]))
        moved = [s if i != axis else s.through(*step) if name == "take" else s.back(*step) for i, s in enumerate(sights)]
        return [(n.inputs[0], (moved[0], moved[1]))]
    if name == "transpose":
        rank = len(shape)
        if [p % rank for p in n.attrs["perm"]][-2:] != [rank - 2, rank - 1]:
            return []
    elif name == "concat":
        if n.attrs["axis"] >= len(shape) - 2:
            return []
    elif n.op.kernel not in ("pointwise", "view", "cast") and name != "move_rows":
        return []
    return [(v, sights) for v in n.inputs if len(v.type.shape) >= 2 and v.type.shape[-2:] == shape[-2:]]


def _ancestors(v: Any) -> dict[Any, Sights | None]:
    """What the cells of an image see of every image before it, itself included; None where two ways lead to different places."""
    found: dict[Any, Sights | None] = {v: (Sight(1.0, 0.0), Sight(1.0, 0.0))}
    todo = {v}
    while todo:
        u = max(todo, key=lambda w: w.producer.serial)  # all ways to it are known
        todo.remove(u)
        sights = found[u]
        if u.producer.op is None or sights is None:
            continue
        for w, seen in _seen(u.producer, sights):
            if w in found and found[w] != seen:
                found[w] = None
            else:
                found[w] = seen
                todo.add(w)
    return found


def _offsets(x: list) -> tuple[int, int]:
    """Rows and columns before the crop: where a cell of the first image sees the same place of an ancestor as cell 0 of the second one."""
    mine, other = _ancestors(x[0]), _ancestors(x[1])
    if len(x) > 2:
        pairs = [(x[2], x[3])] if x[2] in mine and x[3] in other else []
    else:
        pairs = [(v, v) for v in sorted(mine.keys() & other.keys(), key=lambda v: -v.producer.serial)]
    if not pairs:
        raise ValueError(
            (
                "two images with a common ancestor, over convolutions, pools and pointwise ops",
                "none" if len(x) < 4 else "other ancestors",
                "name ancestors with C.crop_automatic_with_ancestors, or the offsets with C.crop_manual",
            )
        )
    a, b = mine[pairs[0][0]], other[pairs[0][1]]
    if a is None or b is None:
        raise ValueError(("one place of the ancestor for each cell", "several", "give the offsets with C.crop_manual"))
    found = []
    for s, t in zip(a, b, strict=True):
        if s.scale != t.scale:
            raise ValueError(
                (
                    "images of one scale",
                    f"steps of {s.scale:g} and {t.scale:g} in their ancestor",
                    "scale one with convolution_transpose",
                )
            )
        found.append(math.floor((t.shift - s.shift) / s.scale))
    return found[0], found[1]


def _crop_type(types, attrs):
    x, like = types[:2]
    for t in (x, like):
        if len(t.shape) < 2:
            raise ValueError(("images, whose last axes are height and width", shown(t.shape), ""))
    if attrs["offsets"] is not None:
        _inside(x.shape[-2:], like.shape[-2:], attrs["offsets"])
    return [x._replace(shape=(*x.shape[:-2], *like.shape[-2:]))]


def _inside(have: tuple, want: tuple, offsets: tuple) -> None:
    for n, m, o in zip(have, want, offsets, strict=True):
        if o < 0 or n >= 0 and m >= 0 and o + m > n:
            raise ValueError((f"a crop within {shown(have)}", f"{shown(want)} from {offsets} on", ""))


def _crop_expand(g, x, attrs, training):
    offsets = attrs["offsets"]
    y, want = x[0], x[1].type.shape[-2:]
    if offsets is None:
        offsets = _offsets(x)
    _inside(y.type.shape[-2:], want, offsets)  # sizes that were free are known now
    rank = len(y.type.shape)
    for axis, first, count in zip((rank - 2, rank - 1), offsets, want, strict=True):
        if not fits((first, count), (0, y.type.shape[axis])):
            y = y.node("take", axis=axis, first=first, count=count, stride=1)
    return y


Op("crop", "Crop", _crop_type, None, "expand", "CNTK v2; Long et al. 2015, arXiv:1411.4038", expand=_crop_expand)


def crop_manual(node_input: Any, node_referent: Any, offset_x: int, offset_y: int, name: str = "") -> Function:
    """The part of an image as high and wide as another one, from column offset_x and row offset_y on.

    Height and width are the last axes of both. Raises `ValueError` where the image is too small.
    """
    offsets = (int(offset_y), int(offset_x))
    if min(offsets) < 0:
        raise ValueError(here(f"Crop: expected offsets of at least 0, got {offset_x!r} and {offset_y!r}"))
    return apply("crop", to_variables(node_input, node_referent), name, offsets=offsets)


def crop_automatic(node_input: Any, node_referent: Any, name: str = "") -> Function:
    """The part of an image that lies over another one, which comes from the same image through other convolutions and pools.

    Windows count by the cell at their centre, or before it, as in CNTK. Raises `ValueError` when run,
    where the two have no common ancestor, another scale, or the image is too small.
    """
    return apply("crop", to_variables(node_input, node_referent), name, offsets=None)


def crop_automatic_with_ancestors(
    node_input: Any, node_referent: Any, ancestor_input: Any, ancestor_referent: Any, name: str = ""
) -> Function:
    """`crop_automatic` of two images that have no common ancestor: an ancestor of each, which lie over each other, is named."""
    return apply("crop", to_variables(node_input, node_referent, ancestor_input, ancestor_referent), name, offsets=None)


# scaling -------------------------------------------------------------------------------------------------------------------------


def _scaler_type(types, attrs):
    c = _image(types[0])[0]
    n = types[1].shape[0]
    if c >= 0 and n != c:
        raise ValueError((f"{c} biases, one a channel", str(n), ""))
    return [types[0]]


Op(
    "image_scaler",
    "ImageScaler",
    _scaler_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0] * attrs["scalar"] + x[1],
)


def image_scaler(x: Any, scalar: float, biases: Any, name: str = "") -> Function:
    """x * scalar + a bias for each channel. x: (channels, height, width). Raises `ValueError` for another number of biases."""
    shifts = np.asarray(biases)
    if shifts.ndim != 1 or not shifts.size:
        raise ValueError(here(f"ImageScaler: expected biases as a list of numbers, got {biases!r}"))
    return apply("image_scaler", to_variables(x, shifts.reshape(-1, 1, 1)), name, scalar=float(scalar))
