"""CIFAR-10: 50,000 + 10,000 photographs, 32 x 32 RGB, 10 classes (Krizhevsky, 2009).

No package of a registry carries it: it comes from its official address, or from a path to the binary version
(cifar-10-binary.tar.gz, or the folder of its .bin files; the Python version is pickles, which are never opened here).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.format import Stream, create_dataset
from cogkit.data.recipe import Item, Recipe, Tick, Web

__all__ = ["RECIPE"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROW = 1 + 3 * 32 * 32  # label, then red, green, blue, rows first
ITEMS = (
    Item("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", 10000 * ROW),
    Item("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", 10000 * ROW),
    Item("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", 10000 * ROW),
    Item("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", 10000 * ROW),
    Item("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", 10000 * ROW),
    Item("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", 10000 * ROW),
)


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    streams = [Stream("features", "<u1", (3, 32, 32)), Stream("labels", "<u1", (), CLASSES)]
    with create_dataset(
        out,
        RECIPE.name,
        {"train": (train, streams), "test": (test, streams)},
        licence=RECIPE.licence,
        generator=generator,
        sources=[{"name": i.name, "sha256": i.sha256} for i in RECIPE.items],
    ) as arrays:
        for split, n, items in (("train", train, RECIPE.items[:5]), ("test", test, RECIPE.items[5:])):
            rows = np.concatenate([np.fromfile(files[i.name], np.uint8).reshape(-1, ROW) for i in items])[:n]
            arrays[split]["features"][:] = rows[:, 1:].reshape(-1, 3, 32, 32)
            arrays[split]["labels"][:] = rows[:, 0]


RECIPE = Recipe(
    name="cifar10",
    title="CIFAR-10, 32 x 32 RGB, 10 classes",
    licence="none stated (Krizhevsky, 2009)",
    items=ITEMS,
    routes=(Web(("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)),),
    sizes={"quick": (10000, 2000), "full": (50000, 10000)},
    build=build,
)
