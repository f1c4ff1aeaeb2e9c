"""A prepared data set that is a folder of files, for what is no table of arrays: HTK archives, CTF text, word lists.

    NAME.d/dataset.json   {"format": 1, "name": ..., "licence": ..., "generator": {...}, "sources": [...], "about": {...},
                           "files": {"train.scp": {"bytes": n, "sha256": "..."}, ...}, "sha256": of all names and hashes}
    NAME.d/...            the files that it lists

A folder is written aside and renamed, so a path holds a whole one or none. The header has no time, machine or user in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogkit.data.format import write_aside
from cogkit.errors import DataError

__all__ = ["Folder", "create_folder", "open_folder"]

HEADER = "dataset.json"
VERSION = 1
MAX_HEADER = 1 << 20
# Below the folder itself, whatever a forged header says.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,3}\Z")


class Folder(Mapping[str, Path]):
    """An open prepared folder: paths by file name; `about` is what its recipe has to say. Made by `open_folder`."""

    def __init__(self, path: Path, header: dict[str, Any]):
        self.path, self.header = path, header
        self.name: str = header["name"]
        self.hash: str = header["sha256"]
        self.about: dict[str, Any] = header["about"]

    def __getitem__(self, name: str) -> Path:
        if name not in self.header["files"]:
            raise KeyError(f"{self.path} has no file '{name}', it has {', '.join(self)}")
        return self.path / name

    def __iter__(self) -> Iterator[str]:
        return iter(self.header["files"])

    def __len__(self) -> int:
        return len(self.header["files"])

    def __repr__(self) -> str:
        return f"Folder({self.name}, {self.path}: {', '.join(self)})"

    def verify(self) -> None:
        """Reads all files; raises DataError naming the first whose SHA-256 is not the header's."""
        for name, entry in self.header["files"].items():
            found = _hash(self.path / name)
            if found != entry["sha256"]:
                raise DataError(f"{self.path / name}: expected SHA-256 {entry['sha256']}, got {found}; prepare it anew")


def _hash(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _hash_all(files: Mapping[str, Mapping[str, Any]]) -> str:
    return hashlib.sha256("".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files)).encode()).hexdigest()


def open_folder(path: str | os.PathLike[str], verify: bool = False) -> Folder:
    """Opens a prepared folder; each file must be there with the size that the header says. Raises DataError.

    With `verify` all files are read and compared with their SHA-256.
    """
    path = Path(path)

    def wrong(fact: str) -> DataError:
        return DataError(f"{path}: expected a prepared folder (format {VERSION}), got {fact}; prepare it anew")

    try:
        with open(path / HEADER, "rb") as f:
            raw = f.read(MAX_HEADER + 1)
        header = json.loads(raw) if len(raw) <= MAX_HEADER else None
    except FileNotFoundError:
        raise wrong(f"one without {HEADER}" if path.is_dir() else "no such folder") from None
    except NotADirectoryError:
        raise wrong("a file") from None
    except (OSError, ValueError, RecursionError) as e:
        raise wrong(f"a {HEADER} that cannot be read ({e})") from None
    kinds = {"name": str, "licence": str, "generator": dict, "sources": list, "about": dict, "files": dict, "sha256": str}
    if not isinstance(header, dict) or header.get("format") != VERSION:
        raise wrong("a header of another format")
    for key, kind in kinds.items():
        if not isinstance(header.get(key), kind):
            raise wrong(f"a header without a proper '{key}'")
    for name, entry in header["files"].items():
        if not NAME.match(name) or not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            raise wrong(f"a header that lists {name[:80]!r}")
        try:
            size = (path / name).stat().st_size
        except OSError:
            raise wrong(f"none of its file {name}") from None
        if size != entry.get("bytes"):
            raise wrong(f"a {name} of {size} bytes where the header says {entry.get('bytes')}")
    if _hash_all(header["files"]) != header["sha256"]:
        raise wrong("a header whose hashes do not fit each other")
    folder = Folder(path, header)
    if verify:
        folder.verify()
    return folder


@contextlib.contextmanager
def create_folder(
    path: str | os.PathLike[str],
    name: str,
    *,
    licence: str,
    generator: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    about: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """A folder aside to write files into; it appears at `path` when the block ends, and not at all if it raises.

    `about` is read when the block ends, so the block may fill it. Files that begin with a dot are not taken along.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    aside.mkdir()
    try:
        yield aside
        for hidden in [p for p in aside.rglob(".*") if p.exists()]:
            shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
        found = sorted(str(p.relative_to(aside)) for p in aside.rglob("*") if p.is_file())
        files = {f: {"bytes": (aside / f).stat().st_size, "sha256": _hash(aside / f)} for f in found}
        bad = [f for f in files if not NAME.match(f) or f == HEADER]
        if bad or not files:
            raise DataError(f"data set '{name}': expected files with names of a-z 0-9 _ . -, got {bad[0] if bad else 'none'}")
        header = {
            "format": VERSION,
            "name": name,
            "licence": licence,
            "generator": dict(generator or {}),
            "sources": [dict(s) for s in sources],
            "about": about or {},
            "files": files,
            "sha256": _hash_all(files),
        }
        with write_aside(aside / HEADER) as f:
            f.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        # A folder cannot be renamed over another, so the old one goes aside first.
        old = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.old")
        if path.is_dir():
            os.rename(path, old)
        elif path.exists():
            path.unlink()
        os.rename(aside, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
