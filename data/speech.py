"""A telephone corpus from text to log-mel frames with a state for each: synthetic voices, real noise, exact phone times.

Generated (espeak-ng's voices; a stand-in for Switchboard, which is licensed), and a result on it is always labelled so. Texts are those of
the data sets atis_like and home_assistant; behind them are real recordings of babble. Voices of train, dev and test are disjoint, and so
are the stretches of noise and, mostly, the texts. 46 phones of three states each; 40 log-mel energies at 8 kHz, a frame each 10 ms.

A shard of 40 utterances is made in a fresh process, so utterance i of a split is a function of (seed, split, i), and a smaller set is the
beginning of a larger one. `sizes` count utterances (about two and a half seconds each); dev has half as many as test.

Files, by split: train.scp and train.features (an HTK archive), train.mlf (states), train.phones and train.words (`key text`); states.list.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data import atis_like, home_assistant
from cogkit.data.folder import create_folder
from cogkit.data.htk import write_archive, write_mlf
from cogkit.data.recipe import Item, Recipe, Tick, WheelPackage
from cogkit.data.speech_shard import DIM, SHIFT, STATES, THIRDS
from cogkit.data.speech_voice import SILENCE, Synthesizer, synthesizer_files
from cogkit.data.templates import stream
from cogkit.errors import DataError

__all__ = ["RECIPE"]

VERSION = 2  # of the generator: any change of what is drawn counts it up
NOISES = (
    Item("babble.wav", "1165dc4df10cb347ad7d2007b3a25b76aae83cd29f16f8c828d18cf5b17c660b", 344308),
    Item("party.wav", "e7965a7f53504cfd958691ea5debc809b07e9502cc0e5ae4e4562b990d8955e8", 2153036),
    Item("restaurant.wav", "65697eb2e231929efc2b8fc7ddffc2de5a60cbff110d4a2126d5ed6360dd6dad", 1470046),
)
SPLITS = ("train", "dev", "test")
SHARD = 40
LONGEST = 9  # words
TEXT = 103  # a purpose of streams, beside those of the shards
TIMEOUT = 600.0


def texts(seed: int, split: int, quiet: bool) -> Iterator[str]:
    """What is said, without end: six in ten are questions to an airline, the others are said to a house."""
    held, part = min(split, 1), max(split - 1, 0)  # dev and test speak of places and in forms that train does not
    airline = atis_like.sentences(atis_like.RECIPE.fetch(quiet=quiet), seed, held, part)
    house = home_assistant.sentences(home_assistant.RECIPE.fetch(quiet=quiet), seed, held, part)
    draw = stream(seed, split, TEXT)
    while True:
        _, sentence = next(airline if draw() < 0.6 else house)
        if len(sentence) <= LONGEST:
            yield " ".join(word for word, _ in sentence)


def run_shard(request: dict[str, Any]) -> dict[str, Any]:
    """The request with what its process made; DataError with what the process said."""
    command = [sys.executable, "-m", "cogkit.data.speech_shard"]
    environment = dict(os.environ, PYTHONSAFEPATH="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    place = f"speech: shard {request['first']} of {SPLITS[request['split']]}"
    try:
        done = subprocess.run(
            command, input=json.dumps(request), env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{place}: expected it in {TIMEOUT:.0f} s, got nothing") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise DataError(f"{place}: expected its utterances, got {said[-1] if said else f'signal {-done.returncode}'}")
    path = Path(request["out"])
    with np.load(path) as made:
        content = {name: made[name] for name in made.files}
    path.unlink()
    return request | content


def segments(states: np.ndarray) -> list[tuple[int, int, str]]:
    """States (frames,) as runs (first frame, frame after the last, name)."""
    edges = np.flatnonzero(np.diff(states, prepend=-1, append=-1)).tolist()
    return [(a, b, STATES[states[a]]) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def write_split(folder: Path, split: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The files of a split; facts about it."""
    keys, x, y, phones, words, voices = [], [], [], [], [], set()
    for shard in shards:
        cuts = np.cumsum(shard["lengths"])[:-1]
        x += np.split(shard["features"], cuts)
        y += np.split(shard["states"], cuts)
        keys += [f"{split}-{shard['first'] + k:06d}" for k in range(len(shard["lengths"]))]
        phones += shard["phones"].tolist()
        words += shard["texts"]
        voices |= set(shard["voices"].tolist())
    write_archive(folder / f"{split}.features", zip(keys, x, strict=True), folder / f"{split}.scp", period=SHIFT / 8000)
    write_mlf(folder / f"{split}.mlf", ((key, segments(s)) for key, s in zip(keys, y, strict=True)), period=SHIFT / 8000)
    for name, lines in (("phones", phones), ("words", words)):
        text = "".join(f"{key} {line}\n" for key, line in zip(keys, lines, strict=True))
        (folder / f"{split}.{name}").write_text(text, encoding="utf-8")
    frames = sum(map(len, x))
    return {"utterances": len(keys), "frames": frames, "minutes": round(frames * SHIFT / 8000 / 60, 2), "voices": len(voices)}


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    try:
        import kaldi_native_fbank  # noqa: F401
    except ImportError:
        raise DataError("speech: expected the package kaldi-native-fbank, got none; pip install 'cogkit[papers]'") from None
    synthesizer_files()
    counts = (train, max(1, test // 2), test)
    seed = generator["seed"]
    about: dict[str, Any] = {"dim": DIM, "states": len(STATES), "thirds": THIRDS, "silence": SILENCE}
    sources = [{"name": i.name, "sha256": i.sha256} for i in (*NOISES, atis_like.AIRPORTS, home_assistant.TEMPLATES)]
    synthesizer = Synthesizer()
    sources.append({"name": f"espeak-ng {synthesizer.version}", "sha256": synthesizer.hash()})
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        create_folder(out, RECIPE.name, licence=RECIPE.licence, generator=generator, sources=sources, about=about) as folder,
        ThreadPoolExecutor(workers) as pool,
    ):
        (folder / "states.list").write_text("".join(f"{s}\n" for s in STATES), encoding="utf-8")
        requests = []
        for split, count in enumerate(counts):
            source = texts(seed, split, tick.quiet)
            for first in range(0, count, SHARD):
                request = {"texts": list(islice(source, min(SHARD, count - first))), "first": first, "split": split, "seed": seed}
                place = str(folder / f".{SPLITS[split]}-{first}.npz")
                requests.append(request | {"noises": [str(files[i.name]) for i in NOISES], "out": place})
        jobs = [pool.submit(run_shard, request) for request in requests]
        try:
            done = 0
            for job in as_completed(jobs):
                done += len(job.result()["texts"])
                tick(done, sum(counts), "utterances")
            made = [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        for split, name in enumerate(SPLITS):
            about[name] = write_split(folder, name, [shard for shard in made if shard["split"] == split])


RECIPE = Recipe(
    name="speech",
    title="Telephone speech of synthetic voices behind real noise, exact phone times, 40 log-mel, 138 states (generated)",
    licence="voices made by espeak-ng (GPL-3 program); noise BSD-3 (phonlab); texts MIT (airportsdata), Apache-2.0 (Home Assistant)",
    items=NOISES,
    routes=(WheelPackage(("phonlab==0.0.70",)),),
    sizes={"quick": (1000, 160), "full": (12000, 1000)},
    build=build,
    version=VERSION,
    folder=True,
)
