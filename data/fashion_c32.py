"""Fashion-C32: real Fashion-MNIST items, recoloured, on real photographs: 32 x 32 RGB, 10 classes, 60,000 + 10,000.

A generated stand-in for CIFAR-10 that needs no account and no large download; a result on it is always labelled so. Image i of
a split is a function of (seed, split, i) alone (Philox, one counter an image), so a smaller set is the beginning of a larger
one. Train and test items are Fashion-MNIST's own splits; train backgrounds come from the left 70 % of each photo, test
backgrounds from the right 30 %. `reference` says what is drawn; `native` draws the same bytes some 200 times faster.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.fashion_mnist import CLASSES, read_idx
from cogkit.data.fashion_mnist import RECIPE as FASHION_MNIST
from cogkit.data.format import Stream, create_dataset
from cogkit.data.native import c32_images
from cogkit.data.recipe import Item, Recipe, Tick, WheelPackage

__all__ = ["RECIPE", "reference"]

VERSION = 1  # of the generator: any change of what is drawn counts it up
PHOTOS = (
    Item("china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29", 196653),
    Item("flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638", 142987),
    Item("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", 466706),
    Item("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c", 112525),
    Item("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf", 106634),
    Item("grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89", 217893),
    Item("gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12", 194247),
    Item("hubble_deep_field.jpg", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4", 527940),
    Item("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179", 644701),
    Item("motorcycle_right.png", "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797", 640373),
    Item("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", 240512),
    Item("retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", 269564),
    Item("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef", 477916),
    Item("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5", 791555),
    Item("coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba", 75825),
)
CHUNK = 500


def _patch(u: np.ndarray, split: int, photos: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Box means (size, size, 3) of a random square of a random photo; its side is 32 to 220 pixels."""
    photo = photos[int(u[0] * len(photos))]
    height, width = photo.shape[:2]
    cut = width * 7 // 10
    low, high = (0, cut) if split == 0 else (cut, width)
    side = 32 + int(u[1] * (min(height, high - low, 220) - 32 + 1))
    x = low + int(u[2] * (high - low - side + 1))
    y = int(u[3] * (height - side + 1))
    out = np.empty((size, size, 3))
    for i in range(size):
        for j in range(size):
            box = photo[y + i * side // size : y + (i + 1) * side // size, x + j * side // size : x + (j + 1) * side // size]
            out[i, j] = box.sum((0, 1), dtype=np.int64) / (box.shape[0] * box.shape[1])
    return out[:, ::-1] if u[4] < 0.5 else out


def reference(item: np.ndarray, photos: Sequence[np.ndarray], seed: int, split: int, index: int) -> np.ndarray:
    """One image (3, 32, 32) uint8 from an item (28, 28) uint8 and photos (h, w, 3) uint8; split 0 train, 1 test."""
    key = np.array([seed, split], np.uint64)
    u = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, 0])).random(60)
    bits = np.random.Philox(key=key, counter=[0, 0, index, 1]).random_raw(3072).reshape(3, 32, 32)

    def normal(k: int) -> float:
        return (u[k] + u[k + 1] + u[k + 2] + u[k + 3] - 2.0) * 1.7320508075688772

    def between(k: int, low: float, high: float) -> float:
        return low + u[k] * (high - low)

    # The item: turned by N(0, 10 degrees), scaled, shifted, half of them mirrored; bilinear, zero outside. (Taylor series, so
    # that no mathematics library has a say in the bytes.)
    a = normal(0) * 0.17453292519943295
    a2 = a * a
    sine = a * (1.0 + a2 * (-1.0 / 6.0 + a2 * (1.0 / 120.0 + a2 * (-1.0 / 5040.0))))
    cosine = 1.0 + a2 * (-0.5 + a2 * (1.0 / 24.0 + a2 * (-1.0 / 720.0 + a2 * (1.0 / 40320.0))))
    s = between(4, 0.72, 1.2)
    co, si, mirror = cosine / s, sine / s, -1.0 if u[7] < 0.5 else 1.0
    y, x = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    dx, dy = x - (15.5 + between(5, -4.0, 4.0)), y - (15.5 + between(6, -4.0, 4.0))
    fx, fy = 13.5 + (co * dx + si * dy) * mirror + 32.0, 13.5 + (co * dy - si * dx) + 32.0
    ix, iy = fx.astype(int) - 32, fy.astype(int) - 32
    wx, wy = fx - (ix + 32), fy - (iy + 32)
    padded = np.zeros((128, 128))
    padded[50:78, 50:78] = item
    top = padded[iy + 50, ix + 50] * (1.0 - wx) + padded[iy + 50, ix + 51] * wx
    bottom = padded[iy + 51, ix + 50] * (1.0 - wx) + padded[iy + 51, ix + 51] * wx
    o = ((top * (1.0 - wy) + bottom * wy) / 255.0)[..., None]
    # Its colours: drawn or taken from photos; one or a gradient of two; a quarter of them printed with a piece of photo.
    if u[9] < 0.5:
        first, second = (np.array([20.0 + v * 235.0 for v in u[k : k + 3]]) for k in (10, 13))
    else:
        first, second = _patch(u[16:21], split, photos, 1)[0, 0], _patch(u[21:26], split, photos, 1)[0, 0]
    t = ((y if u[26] < 0.5 else x) / 31.0)[..., None]
    v = first * (1.0 - t) + second * t if u[27] < 0.6 else np.broadcast_to(first, (32, 32, 3))
    if u[28] < 0.25:
        v = 0.6 * v + 0.4 * _patch(u[29:34], split, photos, 32)
    shade = between(34, 0.25, 0.5)
    v = v * (shade + (1.0 - shade) * 1.25 * o)
    # On a photo; a fifth with something in front; then contrast, brightness N(0, 12) and noise of deviation 1 to 7.
    alpha = np.minimum(o * 4.0, 1.0) * between(8, 0.85, 1.0)
    v = _patch(u[35:40], split, photos, 32) * between(40, 0.6, 1.1) * (1.0 - alpha) + v * alpha
    if u[41] < 0.2:
        y0, x0 = int(u[42] * 26), int(u[43] * 26)
        place = np.s_[y0 : y0 + 4 + int(u[44] * 7), x0 : x0 + 4 + int(u[45] * 7)]
        v[place] = _patch(u[46:51], split, photos, 32)[: v[place].shape[0], : v[place].shape[1]]
    noise = sum(((bits >> np.uint64(k)) & np.uint64(0xFFFF)).astype(np.int64) for k in (0, 16, 32, 48)) - 131070
    v = (
        (v.transpose(2, 0, 1) - 128.0) * between(51, 0.7, 1.2)
        + 128.0
        + normal(52) * 12.0
        + noise * (between(56, 1.0, 7.0) * (1.0 / 37837.22720521305))
    )
    return (np.clip(v, 0.0, 255.0) + 0.5).astype(np.uint8)


def read_photos(files: dict[str, Path]) -> list[np.ndarray]:
    """The photos as RGB bytes, in the order of PHOTOS."""
    from PIL import Image

    return [np.ascontiguousarray(Image.open(files[i.name]).convert("RGB")) for i in PHOTOS]


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    items = FASHION_MNIST.fetch(quiet=tick.quiet)
    photos = read_photos(files)
    pixels = hashlib.sha256(b"".join(p.tobytes() for p in photos)).hexdigest()
    sources = [{"name": i.name, "sha256": i.sha256} for i in (*FASHION_MNIST.items, *PHOTOS)]
    sources.append({"name": "decoded photos", "sha256": pixels})  # tells apart JPEG decoders that round differently
    streams = [Stream("features", "<u1", (3, 32, 32)), Stream("labels", "<u1", (), CLASSES)]
    with (
        create_dataset(
            out,
            RECIPE.name,
            {"train": (train, streams), "test": (test, streams)},
            licence=RECIPE.licence,
            generator=generator,
            sources=sources,
        ) as arrays,
        ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) as pool,
    ):
        jobs = []
        for split, prefix, n in ((0, "train", train), (1, "t10k", test)):
            images = read_idx(items[f"{prefix}-images-idx3-ubyte"])[:n]
            target = arrays["test" if split else "train"]
            target["labels"][:] = read_idx(items[f"{prefix}-labels-idx1-ubyte"])[:n]
            jobs += [
                pool.submit(
                    c32_images, generator["seed"], split, k, images[k : k + CHUNK], photos, target["features"][k : k + CHUNK]
                )
                for k in range(0, n, CHUNK)
            ]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                tick(min(done * CHUNK, train + test), train + test, "images")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


RECIPE = Recipe(
    name="fashion_c32",
    title="Fashion-MNIST items recoloured onto photographs, 32 x 32 RGB, 10 classes (generated)",
    licence="items MIT (Zalando SE, 2017); photos CC0 or public domain, china.jpg and flower.jpg CC BY 2.0 "
    "(danielbuechele, vultilion)",
    items=PHOTOS,
    routes=(WheelPackage(("scikit-image==0.26.0", "scikit-learn==1.9.0")),),
    sizes={"quick": (10000, 2000), "full": (60000, 10000)},
    build=build,
    version=VERSION,
)
