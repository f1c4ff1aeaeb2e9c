"""Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28, 10 classes (Xiao, Rasul, Vollgraf, 2017; MIT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.format import Stream, create_dataset
from cogkit.data.recipe import DebianPackage, Item, Recipe, Tick, Web
from cogkit.errors import DataError

__all__ = ["CLASSES", "RECIPE", "read_idx"]

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
HOME = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
ITEMS = (
    Item("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47040016),
    Item("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60008),
    Item("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7840016),
    Item("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10008),
)


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an IDX file (LeCun's format: 0, 0, type 8, axes, then their sizes, big-endian)."""
    raw = path.read_bytes()
    axes = raw[3] if len(raw) > 3 else 0
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    if raw[:3] != b"\0\0\x08" or not axes or len(raw) != 4 + 4 * axes + int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path}: expected an IDX file of bytes, got {len(raw)} bytes that begin with {raw[:4].hex()}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def build_idx(
    recipe: Recipe, classes: tuple[str, ...], files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any]
) -> None:
    """The prepared file of a data set that comes as MNIST's four IDX files: the first `train` and `test` of each split."""
    streams = [Stream("features", "<u1", (1, 28, 28)), Stream("labels", "<u1", (), classes)]
    sources = [{"name": i.name, "sha256": i.sha256} for i in recipe.items]
    with create_dataset(
        out,
        recipe.name,
        {"train": (train, streams), "test": (test, streams)},
        licence=recipe.licence,
        generator=generator,
        sources=sources,
    ) as arrays:
        for split, prefix, n in (("train", "train", train), ("test", "t10k", test)):
            arrays[split]["features"][:] = read_idx(files[f"{prefix}-images-idx3-ubyte"])[:n, None]
            arrays[split]["labels"][:] = read_idx(files[f"{prefix}-labels-idx1-ubyte"])[:n]


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    build_idx(RECIPE, CLASSES, files, out, train, test, generator)


RECIPE = Recipe(
    name="fashion_mnist",
    title="Fashion-MNIST, 28 x 28 grey, 10 classes",
    licence="MIT (Zalando SE, 2017)",
    items=ITEMS,
    routes=(DebianPackage("dataset-fashion-mnist"), Web(tuple(f"{HOME}{i.name}.gz" for i in ITEMS))),
    sizes={"quick": (10000, 2000), "full": (60000, 10000)},
    build=build,
)
