"""Images in files, listed by a text file, as CNTK's image reader takes them.

    ImageDeserializer         path <tab> label          or      key <tab> path <tab> label
    Base64ImageDeserializer   label <tab> file in base64    or  key <tab> label <tab> file in base64

A path is relative to the working directory; one that begins with `.../` to the list's folder; `a.zip@/b.jpg` lies in an archive.
"""

from __future__ import annotations

import base64
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np

from cogkit.data.deserializers import Take
from cogkit.data.sequences import Fault, Rows, SequenceDeserializer
from cogkit.data.streams import StreamDef, StreamInformation
from cogkit.data.transforms import Draw, Transform, color, compile_list, crop, crop_scale, pad_crop_flip, scale
from cogkit.errors import DataError

__all__ = ["Base64ImageDeserializer", "ImageDeserializer"]

RANDOM = (color, crop, crop_scale, pad_crop_flip)


class ImageDeserializer(SequenceDeserializer):
    """Reads image files that a text file lists, with a label each; `streams`: StreamDefs with field 'image' or 'label'.

    Images come as float32 (channels, height, width) from 0 to 255 with channels blue, green, red, as CNTK (OpenCV) has them; one channel,
    grey, where a `scale` says so. Their transforms must leave one size. A label stream's shape is the number of classes: one-hot
    rows. Every sample is a sequence of one. What is random is drawn by (seed, sweep, line): streams with the same transforms, here or
    in another deserialiser whose list has the same order, see the same. Broken files and labels are faults of the source (`max_errors`).
    Raises ValueError, DataError.

    Example:
        ImageDeserializer('train_map.txt', StreamDefs(
            features=StreamDef(field='image', transforms=[
                transforms.crop('randomside', side_ratio=0.8), transforms.scale(32, 32, 3), transforms.mean('mean.xml')]),
            labels=StreamDef(field='label', shape=10)))
    """

    def __init__(self, filename: str | os.PathLike[str], streams: Mapping[str, StreamDef]):
        self.filename = os.fspath(filename)
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._lock = Lock()
        try:
            text = Path(self.filename).read_bytes()
        except OSError as e:
            raise DataError(f"{type(self).__name__}: expected a list of images, got {e.strerror}: {self.filename!r}") from None
        self._text = text
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
        starts = np.concatenate([[0], ends + 1]).astype(np.int64)
        stops = np.append(ends, len(text)).astype(np.int64)
        used = np.array([text[a:b].strip() != b"" for a, b in zip(starts, stops, strict=True)], bool)
        self._line, self._starts, self._stops = np.flatnonzero(used) + 1, starts[used], stops[used]
        self.count = len(self._starts)
        if not self.count:
            raise DataError(f"{type(self).__name__} '{self.filename}': expected a line or more, got none")
        self._columns = len(self._fields(0))
        if self._columns not in (2, 3):
            raise DataError(f"{self._where(0)}: expected 2 or 3 columns between tabs, got {self._columns}")
        self.identity = f"images:{len(text)}:{self.count}:{zlib.crc32(text)}"
        self._readers: dict[str, _Image | int] = {}
        self.streams = {}
        for i, (name, spec) in enumerate(streams.items()):
            field = spec.field or name
            if field == "image":
                images = _Image(name, list(spec.transforms or ()))
                reader: _Image | int = images
                shape = images.shape or self._first_shape(images)
            elif field == "label":
                if spec.shape is None or np.size(spec.shape) != 1:
                    raise ValueError(
                        f"{type(self).__name__}: stream '{name}': expected the number of classes as shape, got {spec.shape!r}"
                    )
                reader = int(np.ravel(spec.shape)[0])
                shape = (reader,)
            else:
                raise ValueError(f"{type(self).__name__}: stream '{name}': expected field 'image' or 'label', got {field!r}")
            self._readers[name] = reader
            self.streams[name] = StreamInformation(name, i, "dense", np.float32, shape, spec.defines_mb_size)
        if not self.streams:
            raise ValueError(f"{type(self).__name__}: expected one stream or more, got none")

    def _fields(self, number: int) -> list[str]:
        raw = self._text[self._starts[number] : self._stops[number]]
        return raw.decode("utf-8", errors="surrogateescape").rstrip("\r\n").split("\t")

    def _row(self, number: int) -> tuple[str, str]:
        """(label, what says where the image is) of a line."""
        fields = self._fields(number)
        if len(fields) != self._columns:
            raise _Broken(f"expected {self._columns} columns between tabs, got {len(fields)}")
        return self._arranged(*fields[-2:])

    def _arranged(self, a: str, b: str) -> tuple[str, str]:
        return b, a

    def _bytes(self, place: str) -> bytes:
        """The image file at a path of the list."""
        if place.startswith(".../"):
            place = os.path.join(os.path.dirname(os.path.abspath(self.filename)), place[4:])
        archive, inside, name = place.partition("@/")
        if not inside:
            return Path(place).read_bytes()
        with self._lock:
            if archive not in self._archives:
                self._archives[archive] = zipfile.ZipFile(archive)
            return self._archives[archive].read(name)

    def _first_shape(self, reader: _Image) -> tuple[int, ...]:
        try:
            return reader.settle(reader.decode(self._bytes(self._row(0)[1])))
        except (_Broken, OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
            raise DataError(f"{self._where(0)}: {_reason(e)}") from None

    def _where(self, number: int) -> str:
        return f"{self.filename} line {self._line[number]}"

    def keys(self) -> list[str] | None:
        return [self._key(i) for i in range(self.count)] if self._columns == 3 else None

    def _key(self, number: int) -> str:
        return self._fields(number)[0] if self._columns == 3 else str(number)

    def stream_lengths(self, name: str) -> None:
        return None

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        return self.filename, int(self._starts[number]), int(self._line[number]), self._key(number)

    def read_samples(
        self, numbers: np.ndarray, sweep: np.ndarray, seed: int, take: Take, threads: int, raw: bool
    ) -> tuple[Rows, list[tuple[int, Fault]]]:
        n = len(numbers)
        out = {name: take((n, *info.shape), np.float32) for name, info in self.streams.items()}
        heads = {name: np.empty((n, *r.head_shape), np.float32) for name, r in self._readers.items() if isinstance(r, _Image)}
        reasons: list[str] = [""] * n

        def one(i: int) -> None:
            try:
                label, place = self._row(int(numbers[i]))
                data = self._bytes(place) if heads else b""
                decoded: dict[int, np.ndarray] = {}
                for name, reader in self._readers.items():
                    if isinstance(reader, _Image):
                        if reader.channels not in decoded:
                            decoded[reader.channels] = reader.decode(data)
                        heads[name][i] = reader.head(decoded[reader.channels], seed, sweep[i : i + 1], numbers[i : i + 1])
                    else:
                        out[name][i] = 0
                        if not label.strip().isdigit() or int(label) >= reader:
                            raise _Broken(f"expected a label in [0, {reader}), got {label[:40]!r}")
                        out[name][i, int(label)] = 1
            except (_Broken, OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
                reasons[i] = _reason(e)
                for values in (*heads.values(), *out.values()):
                    values[i] = 0

        if threads > 1 and n > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, range(n)))
        else:
            for i in range(n):
                one(i)
        rows: Rows = {}
        ones = np.ones(n, np.int64)
        for name, values in out.items():
            reader = self._readers[name]
            if isinstance(reader, _Image):
                values[...] = reader.tail(heads[name], seed, sweep, numbers)
            rows[name] = values, ones
        return rows, [(i, Fault(*self.place_of(int(numbers[i])), reason)) for i, reason in enumerate(reasons) if reason]


class Base64ImageDeserializer(ImageDeserializer):
    """The same of a text file that holds the images themselves, in base64; the label comes before the image."""

    def _arranged(self, a: str, b: str) -> tuple[str, str]:
        return a, b

    def _bytes(self, place: str) -> bytes:
        return base64.b64decode(place, validate=True)


class _Broken(Exception):
    """What is wrong with one line."""


def _reason(e: Exception) -> str:
    if isinstance(e, _Broken):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        return f"expected an image file, got {e.strerror}: {e.filename!r}"
    return f"expected an image that can be read, got {e}"


class _Image:
    """One stream of images: `head` is done image by image, up to the first transform that gives all one size, `tail` to a batch."""

    def __init__(self, name: str, transforms: list[Transform]):
        listed = compile_list(transforms)
        drawn = 0
        self._all: list[tuple[int, Transform]] = []
        for t in listed:  # random numbers go by the place among the random transforms
            self._all.append((drawn, t))
            drawn += isinstance(t, RANDOM)
        self.name = name
        scales = [t if isinstance(t, scale) else t.scale for t in listed if isinstance(t, (scale, crop_scale))]
        self.channels = scales[0].channels if scales else 3
        if self.channels not in (1, 3):
            raise ValueError(f"stream '{name}': expected images of 1 or 3 channels, got {self.channels}")
        first = next((i for i, t in enumerate(listed) if isinstance(t, (scale, crop_scale))), None)
        self._cut = 0 if first is None else first + 1
        self.head_shape: tuple[int, ...] = ()
        self.shape: tuple[int, ...] | None = None
        if first is not None:
            self._settle((self.channels, scales[0].height, scales[0].width))

    def settle(self, image: np.ndarray) -> tuple[int, ...]:
        """The shape of samples of a list whose images have one size, that of this one."""
        return self._settle((self.channels, *image.shape[1:]))

    def _settle(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.head_shape = shape
        try:
            for _, t in self._all[self._cut :]:
                shape = t.shape_of(shape)
        except ValueError as e:
            raise ValueError(f"stream '{self.name}': {e}") from None
        self.shape = shape
        return shape

    def decode(self, data: bytes) -> np.ndarray:
        """Bytes (channels, height, width) of an image file, not contiguous."""
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB" if self.channels == 3 else "L"))
        return pixels[:, :, ::-1].transpose(2, 0, 1) if self.channels == 3 else pixels[None]

    def head(self, image: np.ndarray, seed: int, sweep: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """One image after the transforms that are done image by image."""
        x = image[None]
        for k, (purpose, t) in enumerate(self._all[: self._cut]):
            if k or not isinstance(t, (scale, crop_scale)):
                x = np.ascontiguousarray(x, np.float32)
            x = t.apply(x, Draw(seed, purpose, sample, sweep))
        if x.shape[1:] != self.head_shape:
            raise _Broken(f"expected an image of {self.head_shape}, as the first one, got {x.shape[1:]}; add transforms.scale")
        return x[0]

    def tail(self, x: np.ndarray, seed: int, sweep: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """A batch after the others."""
        for purpose, t in self._all[self._cut :]:
            x = t.apply(x, Draw(seed, purpose, sample, sweep))
        return x
