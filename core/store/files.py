"""Files and folders that are written aside and renamed into place: a reader sees the old one or the new one, never a half."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["find_folder", "write_file_aside", "write_folder_aside"]


def _sync_folder(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mode(wanted: int) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return wanted & ~mask


@contextlib.contextmanager
def write_file_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well; on an error `path` stays as it was.

    Raises OSError where the folder is missing or the disk is full.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():  # a rename would take away a folder or a device
        raise OSError(f"{path}: expected a file or nothing to write to, got a {'folder' if path.is_dir() else 'device'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected a folder {path.parent} to write to, got none; make it first")
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".aside", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, _mode(0o666))  # mkstemp makes files that only their owner can read
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            full = OSError(
                f"{path}: expected room for the file in {path.parent}, got {error.strerror}; free some or choose another place"
            )
            full.errno = errno.ENOSPC
            raise full from error
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def write_folder_aside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """An empty folder that becomes `path` when the block ends well, in the place of an older one; `find_folder` reads it.

    A folder cannot be replaced by one rename: between two of them the older one is `.NAME.old`.
    Raises OSError where the parent is missing, the disk is full, or `path` is a file.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: expected a folder or nothing, got a file")
    old = path.with_name(f".{path.name}.old")
    aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".aside", dir=path.parent))
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        _sync_folder(aside)
        os.chmod(aside, _mode(0o777))
        if path.exists():
            if old.exists():
                shutil.rmtree(old)
            os.rename(path, old)
        os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if not path.exists() and old.exists():
            os.rename(old, path)
        raise
    _sync_folder(path.parent)
    if old.exists():
        shutil.rmtree(old, ignore_errors=True)


def find_folder(path: str | os.PathLike) -> pathlib.Path | None:
    """The newest whole folder that `write_folder_aside` left for `path`, None when there is none."""
    path = pathlib.Path(path)
    old = path.with_name(f".{path.name}.old")
    return path if path.is_dir() else old if old.is_dir() else None
