"""ATIS as CNTK's language-understanding example has it: CTF files with the streams S0 (words), S1 (intent) and S2 (slot tags).

Its sentences are licensed (LDC93S5, LDC94S19), so the user gives the files; nothing is fetched. Prepared, they have the names that the
generated data sets atis_like and home_assistant have: train.ctf, test.ctf, query.wl, intent.wl, slots.wl.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cogkit.data.folder import create_folder
from cogkit.data.recipe import GivenRecipe, RouteError, Tick
from cogkit.errors import DataError

__all__ = ["RECIPE"]

NAMES = {
    "train.ctf": ("atis.train.ctf", "train.ctf"),
    "test.ctf": ("atis.test.ctf", "test.ctf"),
    "query.wl": ("query.wl",),
    "intent.wl": ("intent.wl",),
    "slots.wl": ("slots.wl",),
}


def find(folder: Path) -> dict[str, Path]:
    files = {}
    for name, also in NAMES.items():
        found = sorted(p for a in also for p in folder.rglob(a) if p.is_file())
        if not found:
            raise RouteError(f"there is no {also[0]} in it")
        files[name] = found[0]
    return files


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    about: dict[str, Any] = {}
    for key, name in (("words", "query.wl"), ("intents", "intent.wl"), ("tags", "slots.wl")):
        about[key] = len(files[name].read_text(encoding="utf-8").split("\n")) - 1
    with create_folder(out, RECIPE.name, licence=RECIPE.licence, generator=generator, about=about) as folder:
        for name, path in files.items():
            tick.say(f"{path} is its {name}")
            shutil.copyfile(path, folder / name)
        for split in ("train", "test"):
            sentences, tokens, last = 0, 0, b""
            with open(folder / f"{split}.ctf", "rb") as lines:
                for number, line in enumerate(lines, 1):
                    if b"|S0" not in line or b"|S2" not in line:
                        raise DataError(f"{files[f'{split}.ctf']}:{number}: expected the streams S0 and S2, got {line[:60]!r}")
                    sequence = line.split(None, 1)[0]
                    sentences, tokens, last = sentences + (sequence != last), tokens + 1, sequence
            about[split] = {"sentences": sentences, "tokens": tokens}


RECIPE = GivenRecipe(
    name="atis",
    title="ATIS, slots and intents, as CNTK's language-understanding example has it",
    licence="LDC user agreement (LDC93S5, LDC94S19)",
    items=(),
    routes=(),
    sizes={"full": (0, 0)},
    build=build,
    folder=True,
    wanted="atis.train.ctf, atis.test.ctf, query.wl, intent.wl and slots.wl",
    find=find,
)
