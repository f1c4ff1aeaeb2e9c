"""Sentences with slot tags and intents as CNTK's ATIS example has them: CTF files and word lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.ctf import write_ctf
from cogkit.data.folder import create_folder
from cogkit.data.recipe import Recipe, Tick
from cogkit.data.templates import Tagged

__all__ = ["build_tagged", "write_tagged"]


def build_tagged(
    recipe: Recipe,
    sentences: Callable[[dict[str, Path], int, int], Iterator[tuple[str, Tagged]]],
    files: dict[str, Path],
    out: Path,
    train: int,
    test: int,
    generator: dict[str, Any],
    tick: Tick,
) -> None:
    """The prepared folder of a recipe whose `sentences(files, seed, split)` yields (intent, sentence) without end."""
    about: dict[str, Any] = {}
    splits: dict[str, list[tuple[str, Tagged]]] = {}
    for split, (name, count) in enumerate((("train", train), ("test", test))):
        splits[name] = []
        for pair in islice(sentences(files, generator["seed"], split), count):
            splits[name].append(pair)
            tick(len(splits[name]), count, "sentences")
    sources = [{"name": i.name, "sha256": i.sha256} for i in recipe.items]
    with create_folder(out, recipe.name, licence=recipe.licence, generator=generator, sources=sources, about=about) as folder:
        about.update(write_tagged(folder, splits))


def write_tagged(folder: Path, splits: Mapping[str, Sequence[tuple[str, Tagged]]], seen: int = 2) -> dict[str, Any]:
    """CTF files as CNTK's ATIS example has them, from (intent, sentence) pairs, and their word lists; facts about them.

    `<split>.ctf`: S0 the words, S1 the intent (on the first line), S2 the tags, all one-hot, BOS and EOS around each sentence.
    `query.wl`, `intent.wl`, `slots.wl`: the names by index, one a line. Words said fewer than `seen` times in train are <unk>.
    """
    train = splits["train"]
    counts: dict[str, int] = {}
    for _, sentence in train:
        for word, _ in sentence:
            counts[word] = counts.get(word, 0) + 1
    words = ["<unk>", "BOS", "EOS", *sorted(w for w, n in counts.items() if n >= seen)]
    # A tag or an intent that train lacks cannot be learned, but it can be scored.
    intents = sorted({intent for pairs in splits.values() for intent, _ in pairs})
    tags = ["O", *sorted({tag for pairs in splits.values() for _, sentence in pairs for _, tag in sentence} - {"O"})]
    for name, items in (("query.wl", words), ("intent.wl", intents), ("slots.wl", tags)):
        (folder / name).write_text("".join(f"{i}\n" for i in items), encoding="utf-8")
    index = [{item: k for k, item in enumerate(items)} for items in (words, intents, tags)]
    about: dict[str, Any] = {"words": len(words), "intents": len(intents), "tags": len(tags)}
    for split, pairs in splits.items():
        write_ctf(folder / f"{split}.ctf", (_encoded(pair, index) for pair in pairs))
        spoken = [word for _, sentence in pairs for word, _ in sentence]
        unknown = sum(word not in index[0] for word in spoken) / len(spoken)
        about[split] = {"sentences": len(pairs), "tokens": len(spoken) + 2 * len(pairs), "unknown_words": round(unknown, 4)}
    return about


def _encoded(pair: tuple[str, Tagged], index: list[dict[str, int]]) -> dict[str, Any]:
    from scipy import sparse

    def one_hot(ids: list[int], width: int) -> Any:
        return sparse.csr_array((np.ones(len(ids), np.float32), ids, range(len(ids) + 1)), (len(ids), width))

    intent, sentence = pair
    words = [index[0]["BOS"], *(index[0].get(w, 0) for w, _ in sentence), index[0]["EOS"]]
    tags = [0, *(index[2][t] for _, t in sentence), 0]
    return {
        "S0": one_hot(words, len(index[0])),
        "S1": one_hot([index[1][intent]], len(index[1])),
        "S2": one_hot(tags, len(index[2])),
    }
