"""A speech corpus of the user's own in HTK's files: scripts of features, master label files of states, a list of the states.

The folder holds train.scp and test.scp (dev.scp where there is one), or one script, of which then every tenth utterance is tested on;
any number of .mlf files, whose labels are states; and one .list of the states, phone by phone in their order (`aa_s2`, `aa_s3` or
`aa[2]`, `aa[3]` are states of `aa`). Prepared, it has the files of the data set speech, without words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cogkit.data.folder import create_folder
from cogkit.data.format import write_aside
from cogkit.data.htk import read_features, write_archive
from cogkit.data.recipe import GivenRecipe, RouteError, Tick
from cogkit.errors import DataError

__all__ = ["RECIPE", "build_corpus", "find", "phone_of"]

SPLITS = ("train", "dev", "test")
LINE = re.compile(r"(?:(?P<key>[^=]+)=)?(?P<path>.+?)(?:\[(?P<first>\d+),(?P<last>\d+)\])?\Z")
STATE = re.compile(r"(.+?)(?:_s?\d+|\[\d+\])\Z")


def phone_of(state: str) -> str:
    """The phone of a state: `aa` for aa_1, aa_s2 and aa[2]; else the whole name."""
    found = STATE.match(state)
    return found[1] if found else state


def find(folder: Path) -> dict[str, Path]:
    files = {}
    for kind in ("scp", "mlf", "list"):
        for path in sorted(folder.rglob(f"*.{kind}")):
            files[str(path.relative_to(folder))] = path
        if not any(name.endswith(f".{kind}") for name in files):
            raise RouteError(f"there is no .{kind} in it")
    lists = [name for name in files if name.endswith(".list")]
    if len(lists) > 1:
        raise RouteError(f"there are {len(lists)} lists in it: {', '.join(lists)}")
    return files


def _key(name: str) -> str:
    """What a script's and a label file's names have in common: no quotes, no leading `*/`, no extension."""
    name = name.strip().strip('"').removeprefix("*/").replace("\\", "/")
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail else name


def _script(path: Path) -> Iterator[tuple[str, Path, int | None, int | None]]:
    """(key, feature file, first, last) of each line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        found = LINE.match(line.strip())
        assert found is not None  # the pattern takes whatever is not empty
        file = Path(found["path"].replace("\\", "/"))
        if file.parts[0] == "...":
            file = Path(*file.parts[1:])
        for home in (Path(), path.parent, path.parent.parent):
            if (home / file).is_file():
                file = home / file
                break
        else:
            raise DataError(f"{path}:{number}: expected a feature file, got {file}, which is not there")
        ends = (int(found[k]) if found[k] else None for k in ("first", "last"))
        yield (_key(found["key"] or found["path"]), file, *ends)


def _labels(paths: list[Path]) -> dict[str, list[str]]:
    """Lines of labels by key."""
    out: dict[str, list[str]] = {}
    for path in paths:
        key = ""
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                line = line.strip()
                if line.startswith('"'):
                    key = _key(line)
                    out[key] = []
                elif line == ".":
                    key = ""
                elif key:
                    out[key].append(line)
    return out


def _split(files: dict[str, Path], group: Callable[[str], str]) -> dict[str, list[tuple]]:
    scripts = {Path(name).stem: path for name, path in files.items() if name.endswith(".scp")}
    if {"train", "test"} <= set(scripts):
        return {name: list(_script(scripts[name])) for name in SPLITS if name in scripts}
    lines = [line for path in scripts.values() for line in _script(path)]
    groups = {g: k % 10 for k, g in enumerate(sorted({group(line[0]) for line in lines}))}
    part = {9: "test", 8: "dev"}
    splits = {name: [line for line in lines if part.get(groups[group(line[0])], "train") == name] for name in SPLITS}
    if not all(splits.values()):
        raise DataError(
            f"htk_corpus: expected ten groups of utterances to hold two out of, got {len(groups)}; give train.scp and test.scp"
        )
    return splits


def build_corpus(
    recipe: GivenRecipe, group: Callable[[str], str], files: dict[str, Path], out: Path, generator: dict[str, Any], tick: Tick
) -> None:
    """The prepared folder; `group(key)`: what is held out together where no split is given. Raises DataError."""
    states = next(p for n, p in files.items() if n.endswith(".list")).read_text(encoding="utf-8").split()
    rank = {state: k for k, state in enumerate(states)}
    labels = _labels([p for n, p in files.items() if n.endswith(".mlf")])
    silence = next((p for p in ("sil", "SIL", "<sil>", "silence") if any(phone_of(s) == p for s in states)), "")
    about: dict[str, Any] = {"states": len(states), "silence": silence}
    with create_folder(out, recipe.name, licence=recipe.licence, generator=generator, about=about) as folder:
        (folder / "states.list").write_text("".join(f"{s}\n" for s in states), encoding="utf-8")
        splits = _split(files, group)
        total = sum(map(len, splits.values()))
        done = 0
        for name, lines in splits.items():
            frames = 0

            def items(lines: list[tuple] = lines) -> Iterator[tuple[str, Any]]:
                nonlocal done, frames
                for key, path, first, last in lines:
                    if key not in labels:
                        raise DataError(f"{recipe.name}: expected labels of '{key}', got none in its .mlf files")
                    x = read_features(path, first, last)
                    about["dim"], frames, done = int(x.shape[1]), frames + len(x), done + 1
                    tick(done, total, "utterances")
                    yield key, x

            write_archive(folder / f"{name}.features", items(), folder / f"{name}.scp")
            with write_aside(folder / f"{name}.mlf") as aside, open(aside, "x", encoding="utf-8") as f:
                f.write("#!MLF!#\n")
                for key, *_ in lines:
                    f.write(f'"*/{key}.lab"\n' + "".join(f"{line}\n" for line in labels[key]) + ".\n")
            with write_aside(folder / f"{name}.phones") as aside, open(aside, "x", encoding="utf-8") as f:
                for key, *_ in lines:
                    f.write(f"{key} {' '.join(_phones(key, labels[key], rank))}\n")
            about[name] = {"utterances": len(lines), "frames": frames}


def _phones(key: str, lines: list[str], rank: dict[str, int]) -> Iterator[str]:
    """Phones of labelled states: a new one where the name changes or its states begin again."""
    before, at = "", -1
    for line in lines:
        words = line.split()
        state = words[2] if len(words) > 2 else ""
        if state not in rank:
            raise DataError(f"htk_corpus: labels of '{key}': expected a state of the list, got {line!r}")
        phone = phone_of(state)
        if phone != before or rank[state] < at:
            yield phone
        before, at = phone, rank[state]


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    build_corpus(RECIPE, lambda key: key, files, out, generator, tick)


RECIPE = GivenRecipe(
    name="htk_corpus",
    title="A speech corpus of the user's own in HTK's files, states as labels",
    licence="as the user has it",
    items=(),
    routes=(),
    sizes={"full": (0, 0)},
    build=build,
    folder=True,
    wanted="train.scp and test.scp (or one .scp), .mlf files of states and a .list of the states",
    find=find,
)
