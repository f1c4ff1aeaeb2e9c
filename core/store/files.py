"""Files that are written aside and renamed into place: a reader sees the old one or the new one, never a half."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["write_file_aside"]


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
