"""Transforms of one stream, given to `StreamDef(transforms=[...])`; they act in the order in which they are listed.

What is random in them is a function of (seed, sweep, sample, place of the transform) alone. Images are (channels, height, width).
`normalize` and `pad_crop_flip` at the head of the list run as one loop in native code; the others in NumPy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cogkit.data.native import random_table, resize
from cogkit.errors import DataError

__all__ = ["Draw", "Transform", "color", "crop", "mean", "normalize", "one_hot", "pad_crop_flip", "scale"]


@dataclass(frozen=True)
class Draw:
    """Whose random numbers: those of `sample` in `sweep` (both int64 (n,)), for one seed and one purpose."""

    seed: int
    purpose: int
    sample: np.ndarray
    sweep: np.ndarray

    def uniform(self, count: int) -> np.ndarray:
        """(n, count) numbers in [0, 1), the same for the same sample and sweep."""
        bits = random_table(self.seed, self.purpose, self.sample, self.sweep, -(-count // 4))
        return (bits[:, :count] >> np.uint64(11)) * 2.0**-53


class Transform:
    """A transform: `shape_of` one sample's shape, `apply` to a batch (n, *shape) of float32, which it may change."""

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a sample afterwards; ValueError where the transform does not fit."""
        return shape

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        """The batch afterwards."""
        raise NotImplementedError


def _image(shape: tuple[int, ...], what: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"transforms.{what}: expected images (channels, height, width), got samples of shape {shape}")
    return shape  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class normalize(Transform):  # noqa: N801 (named as the functions of CNTK's module are)
    """(x - mean) * scale; each a number, one a channel (C,), or a whole sample's shape."""

    mean: Any = 0.0
    scale: Any = 1.0

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for what in ("mean", "scale"):
            self.over(what, shape)
        return shape

    def over(self, what: str, shape: tuple[int, ...]) -> np.ndarray:
        """`mean` or `scale` as float32 that broadcasts over samples of this shape."""
        value = np.asarray(getattr(self, what), np.float32)
        if value.ndim == 1 and len(shape) > 1 and value.shape[0] == shape[0]:
            return value.reshape(-1, *[1] * (len(shape) - 1))
        if value.ndim and value.shape != shape:
            raise ValueError(
                f"transforms.normalize: expected {what} to be a number, ({shape[0] if shape else 1},) or {shape}, "
                f"got {value.shape}"
            )
        return value

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        x -= self.over("mean", x.shape[1:])
        x *= self.over("scale", x.shape[1:])
        return x


@dataclass(frozen=True)
class pad_crop_flip(Transform):  # noqa: N801
    """`pad` pixels of `fill` around the image, a random window of the old size (or of `size`), mirrored half of the time.

    After `normalize`, fill is in normalised units: 0 is the mean.
    """

    pad: int = 4
    flip: bool = True
    fill: float = 0.0
    size: int | tuple[int, int] | None = None

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        c, h, w = _image(shape, "pad_crop_flip")
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size or (h, w)
        if self.pad < 0 or not 1 <= height <= h + 2 * self.pad or not 1 <= width <= w + 2 * self.pad:
            raise ValueError(
                f"transforms.pad_crop_flip: expected a window inside {h} x {w} with {self.pad} around it, got {height} x {width}"
            )
        return c, height, width

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        n, (c, h, w) = len(x), self.shape_of(x.shape[1:])
        table = random_table(draw.seed, draw.purpose, draw.sample, draw.sweep, 1)
        padded = np.full((n, c, x.shape[2] + 2 * self.pad, x.shape[3] + 2 * self.pad), self.fill, np.float32)
        padded[:, :, self.pad : self.pad + x.shape[2], self.pad : self.pad + x.shape[3]] = x
        out = np.empty((n, c, h, w), np.float32)
        for b in range(n):
            y = (int(table[b, 0]) * (padded.shape[2] - h + 1)) >> 64
            z = (int(table[b, 1]) * (padded.shape[3] - w + 1)) >> 64
            window = padded[b, :, y : y + h, z : z + w]
            out[b] = window[:, :, ::-1] if self.flip and int(table[b, 2]) >> 63 else window
        return out


def _pair(value: Any, what: str) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, (int, float)) else value
    if not 0 <= low <= high:
        raise ValueError(f"transforms.crop: expected {what} to be a number or (low, high) from 0 up, got {value!r}")
    return float(low), float(high)


@dataclass(frozen=True)
class crop(Transform):  # noqa: N801
    """CNTK's crop: a window in the middle ('center') or anywhere ('randomside', 'randomarea': these mirror half of them too).

    Its size: `crop_size` (a number or (width, height)), else `side_ratio` of the shorter side, else `area_ratio` of the area;
    `aspect_ratio` keeps the area. Ratios given as (low, high) are drawn evenly with jitter_type 'uniratio', and then a `scale`
    must follow at once, for images of one batch have one size. 'multiview10' is not here.
    """

    crop_type: str = "center"
    crop_size: Any = 0
    side_ratio: Any = 0.0
    area_ratio: Any = 0.0
    aspect_ratio: Any = 1.0
    jitter_type: str = "none"

    def __post_init__(self) -> None:
        if self.crop_type not in ("center", "randomside", "randomarea"):
            raise ValueError(f"transforms.crop: expected crop_type center, randomside or randomarea, got {self.crop_type!r}")
        if self.jitter_type not in ("none", "uniratio"):
            raise ValueError(f"transforms.crop: expected jitter_type 'none' or 'uniratio', got {self.jitter_type!r}")
        if not any(self._size()) and not _pair(self.side_ratio, "side_ratio")[1] and not _pair(self.area_ratio, "area_ratio")[1]:
            raise ValueError("transforms.crop: expected a crop_size, side_ratio or area_ratio, got none")

    def _size(self) -> tuple[int, int]:
        width, height = (self.crop_size, self.crop_size) if isinstance(self.crop_size, int) else self.crop_size
        return int(width), int(height)

    def varies(self) -> bool:
        """Whether windows of one batch may differ in size."""
        ratios = [_pair(v, "ratio") for v in (self.side_ratio, self.area_ratio, self.aspect_ratio)]
        return not any(self._size()) and self.jitter_type == "uniratio" and any(low != high for low, high in ratios)

    def windows(self, shape: tuple[int, ...], draw: Draw | None, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, 4) windows (top, left, height, width) in whole pixels, and (n,) which images to mirror."""
        _, h, w = _image(shape, "crop")
        u = draw.uniform(6) if draw is not None else np.zeros((n, 6))
        width, height = (np.full(n, float(v)) for v in self._size())
        if not any(self._size()):

            def ratio(value: Any, k: int) -> np.ndarray:
                low, high = _pair(value, "ratio")
                return low + (high - low) * u[:, k] if self.jitter_type == "uniratio" else np.full(n, low)

            side = (
                ratio(self.side_ratio, 0) * min(h, w)
                if _pair(self.side_ratio, "side_ratio")[1]
                else np.sqrt(ratio(self.area_ratio, 0) * h * w)
            )
            aspect = np.sqrt(ratio(self.aspect_ratio, 1))
            aspect = np.where((u[:, 2] < 0.5) & (draw is not None), 1 / aspect, aspect)
            width, height = np.clip(np.rint(side * aspect), 1, w), np.clip(np.rint(side / aspect), 1, h)
        if (width > w).any() or (height > h).any():
            raise ValueError(f"transforms.crop: expected a window inside {h} x {w}, got {height.max():.0f} x {width.max():.0f}")
        if self.crop_type == "center":
            return np.stack([(h - height) // 2, (w - width) // 2, height, width], 1), np.zeros(n, bool)
        top, left = np.floor(u[:, 3] * (h - height + 1)), np.floor(u[:, 4] * (w - width + 1))
        return np.stack([top, left, height, width], 1), u[:, 5] < 0.5

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.varies():
            raise ValueError("transforms.crop: expected a scale right after a crop whose size is drawn, got none")
        _, _, height, width = self.windows(shape, None, 1)[0][0]
        return shape[0], int(height), int(width)

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        window, flip = self.windows(x.shape[1:], draw, len(x))
        c, height, width = self.shape_of(x.shape[1:])
        out = np.empty((len(x), c, height, width), np.float32)
        for b, (top, left, _, _) in enumerate(window.astype(int)):
            part = x[b, :, top : top + height, left : left + width]
            out[b] = part[:, :, ::-1] if flip[b] else part
        return out


@dataclass(frozen=True)
class scale(Transform):  # noqa: N801
    """CNTK's scale: resize to width x height, 'nearest' or 'linear'.

    `scale_mode`: 'fill' warps, 'crop' cuts the longer side, 'pad' adds to the shorter one (its border for pad_value -1).
    """

    width: int
    height: int
    channels: int
    interpolations: str = "linear"
    scale_mode: str = "fill"
    pad_value: int = -1

    def __post_init__(self) -> None:
        if self.interpolations not in ("nearest", "linear"):
            raise ValueError(f"transforms.scale: expected interpolations 'nearest' or 'linear', got {self.interpolations!r}")
        if self.scale_mode not in ("fill", "crop", "pad"):
            raise ValueError(f"transforms.scale: expected scale_mode 'fill', 'crop' or 'pad', got {self.scale_mode!r}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"transforms.scale: expected a width and height of 1 or more, got {self.width} and {self.height}")

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if _image(shape, "scale")[0] != self.channels:
            raise ValueError(f"transforms.scale: expected images of {self.channels} channels, got {shape[0]}")
        return self.channels, self.height, self.width

    def resize(
        self, x: np.ndarray, window: np.ndarray, flip: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Windows (n, 4) of images (n, C, h, w) of bytes or float32, each resized, mirrored where flip (n,) says so."""
        window = np.array(window, np.float64)
        if self.scale_mode != "fill":
            ratio = np.stack([window[:, 2] / self.height, window[:, 3] / self.width], 1)
            step = ratio.min(1) if self.scale_mode == "crop" else ratio.max(1)
            size = np.stack([step * self.height, step * self.width], 1)
            window[:, :2] += (window[:, 2:] - size) / 2
            window[:, 2:] = size
        pad = float(self.pad_value) if self.scale_mode == "pad" and self.pad_value != -1 else None
        out = np.empty((len(x), self.channels, self.height, self.width), np.float32) if out is None else out
        resize(x, window, out, nearest=self.interpolations == "nearest", pad=pad, flip=flip)
        return out

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        return self.resize(x, np.tile([0, 0, *x.shape[2:]], (len(x), 1)))


@dataclass(frozen=True)
class crop_scale(Transform):  # noqa: N801
    """A crop and the scale right after it, as one: what makes windows of drawn sizes possible."""

    crop: crop
    scale: scale

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.crop.windows(shape, None, 1)
        return self.scale.shape_of(shape)

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        out = np.empty((len(x), self.scale.channels, self.scale.height, self.scale.width), np.float32)
        window, flip = self.crop.windows(x.shape[1:], draw, len(x))
        # Only pixels of the window count: its own border is repeated, as if it had been cut out first.
        for b, (t, z, h, w) in enumerate(window.astype(int)):
            self.scale.resize(x[b : b + 1, :, t : t + h, z : z + w], np.array([[0, 0, h, w]]), flip[b : b + 1], out[b : b + 1])
        return out


@dataclass(frozen=True)
class color(Transform):  # noqa: N801
    """CNTK's colour jitter: brightness +- radius * mean of the image, contrast and saturation * (1 +- radius)."""

    brightness_radius: float = 0.0
    contrast_radius: float = 0.0
    saturation_radius: float = 0.0

    def __post_init__(self) -> None:
        for what in ("brightness_radius", "contrast_radius", "saturation_radius"):
            if not 0 <= getattr(self, what) <= 1:
                raise ValueError(f"transforms.color: expected {what} in [0, 1], got {getattr(self, what)!r}")

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.saturation_radius and _image(shape, "color")[0] != 3:
            raise ValueError(f"transforms.color: expected images of 3 channels to change their saturation, got {shape[0]}")
        return shape

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        radius = [self.brightness_radius, self.contrast_radius, self.saturation_radius]
        u = ((draw.uniform(3) * 2 - 1) * radius).astype(np.float32)
        b, c, s = (u[:, k].reshape(-1, *[1] * (x.ndim - 1)) for k in range(3))
        x = x * (1 + c) + b * x.mean(tuple(range(1, x.ndim)), keepdims=True)
        if self.saturation_radius:
            # Away from or towards grey, the mean of the brightest and the darkest channel; lightness stays.
            grey = (x.max(1, keepdims=True) + x.min(1, keepdims=True)) / 2
            x = grey + (x - grey) * (1 + s)
        return x


@dataclass(frozen=True)
class one_hot(Transform):  # noqa: N801
    """Rows of `classes` zeros with a 1 at the label; DataError for a label outside."""

    classes: int

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape not in ((), (1,)):
            raise ValueError(f"transforms.one_hot: expected one label a sample, got samples of shape {shape}")
        return (self.classes,)

    def apply(self, x: np.ndarray, draw: Draw) -> np.ndarray:
        labels = x.reshape(len(x)).astype(np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            worst = int(np.flatnonzero((labels < 0) | (labels >= self.classes))[0])
            raise DataError(
                f"transforms.one_hot: expected labels in [0, {self.classes}), got {labels[worst]} at sample {draw.sample[worst]}"
            )
        out = np.zeros((len(x), self.classes), np.float32)
        out[np.arange(len(x)), labels] = 1
        return out


def mean(filename: Any) -> normalize:
    """Subtracts a mean image (C, H, W): an array, a .npy file, or OpenCV's XML as CNTK's scripts write it (channels first)."""
    if not isinstance(filename, (str, os.PathLike)):
        return normalize(np.asarray(filename, np.float32))
    path = Path(filename)
    try:
        if path.suffix == ".npy":
            return normalize(np.load(path, allow_pickle=False))
        root = ElementTree.parse(path).getroot()
        texts = {tag: root.findtext(f".//{tag}") or "" for tag in ("Channel", "Row", "Col", "data")}
        shape = tuple(int(texts[k]) for k in ("Channel", "Row", "Col"))
        return normalize(np.array(texts["data"].split(), np.float32).reshape(shape))
    except FileNotFoundError:
        raise DataError(f"transforms.mean: expected a mean image, got no file {path}") from None
    except (OSError, ValueError, ElementTree.ParseError) as e:
        raise DataError(f"transforms.mean: expected {path} to be a .npy or OpenCV XML mean image, got {e}") from None


def compile_list(transforms: list[Transform]) -> list[Transform]:
    """The list with each crop joined to a scale that follows it."""
    out: list[Transform] = []
    for t in transforms:
        if not isinstance(t, Transform):
            raise TypeError(f"transforms: expected transforms of cogkit.data.transforms, got {t!r}")
        if isinstance(t, scale) and out and isinstance(out[-1], crop):
            out[-1] = crop_scale(out[-1], t)
        else:
            out.append(t)
    return out
