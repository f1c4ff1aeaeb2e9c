"""The prepared format: what is written is read, and a file that is cut, forged or half-written never gets that far."""

import errno
import json
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.data import Stream, create_dataset, format, open_dataset, write_aside
from cogkit.errors import DataError

STREAMS = [Stream("features", "<u1", (3, 4)), Stream("labels", "<i4", (), ("a", "b"))]


def make(path, count=5, streams=STREAMS):
    with create_dataset(path, "toy", {"train": (count, streams), "test": (0, streams)}, licence="none") as arrays:
        arrays["train"]["features"][:] = np.arange(count * 12).reshape(count, 3, 4) % 251
        arrays["train"]["labels"][:] = np.arange(count) % 2
    return path


def test_round_trip(tmp_path):
    data = open_dataset(make(tmp_path / "a.cgd"), verify=True)
    assert (data.name, list(data), data["train"].count, data["test"].count) == ("toy", ["train", "test"], 5, 0)
    assert np.array_equal(data["train"].features, np.arange(60).reshape(5, 3, 4))
    assert data["train"]["labels"].tolist() == [0, 1, 0, 1, 0] and data["train"].streams["labels"].classes == ("a", "b")
    assert not data["train"].features.flags.writeable and data["train"].features.ctypes.data % 64 == 0
    assert make(tmp_path / "b.cgd").read_bytes() == (tmp_path / "a.cgd").read_bytes()  # no time, machine or user in it
    with pytest.raises(KeyError, match="no split 'dev', it has train, test"):
        data["dev"]
    with pytest.raises(AttributeError, match="no stream 'image' in this split, it has features, labels"):
        _ = data["train"].image


def test_nothing_is_left_when_the_block_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), create_dataset(tmp_path / "a.cgd", "toy", {"train": (1, STREAMS)}, licence="none"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = make(tmp_path / "a.cgd")
    old = path.read_bytes()
    with pytest.raises(ZeroDivisionError), write_aside(path) as aside:
        aside.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"data set 'toy': expected 0 MB of room in .*, got No space left on device; free some"):
        make(tmp_path / "a.cgd")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("streams", "what"),
    [
        ([Stream("a b", "<u1")], "stream 'a b' of split 'train', a name that is no identifier"),
        ([Stream("a", "<u1"), Stream("a", "<u1")], "comes twice"),
        ([Stream("a", "<u1", (0,))], "with an axis of 0"),
    ],
)
def test_streams_that_the_format_cannot_hold(tmp_path, streams, what):
    with pytest.raises(DataError, match=what):
        make(tmp_path / "a.cgd", streams=streams)
    assert list(tmp_path.iterdir()) == []


def forge(path, change):
    raw = path.read_bytes()
    length = int.from_bytes(raw[8:16], "little")
    header = json.loads(raw[16 : 16 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    assert 16 + len(text) < format.PAGE
    path.write_bytes((format.MAGIC + len(text).to_bytes(8, "little") + text).ljust(format.PAGE, b"\0") + raw[format.PAGE :])


def stream(header, **change):
    header["splits"]["train"]["streams"][0].update(change)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda h: h.update(format=2), "format 2"),
        (lambda h: h.update(format=True), "a header without a proper 'format'"),
        (lambda h: [1], "a header without a proper 'format'"),
        (lambda h: h.pop("splits") and None, "a header without a proper 'splits'"),
        (lambda h: h.update(payload=1 << 50), "where the header says 1125899906842624"),
        (lambda h: h.update(payload=-1), "where the header says -1"),
        (lambda h: h.update(sha256="x"), "a header without a proper 'sha256'"),
        (lambda h: h["splits"]["train"].update(count=1 << 60), "split 'train' with a count of 1152921504606846976"),
        (
            lambda h: h["splits"]["train"].update(count=6),
            "stream 'features' of split 'train' at bytes|stream 'labels' .* offset of 64",
        ),
        (lambda h: h["splits"]["train"].update(streams=None), "split 'train' without a proper 'streams'"),
        (lambda h: stream(h, dtype="O"), "of type 'O'"),
        (lambda h: stream(h, shape=[-1]), "with an axis of -1"),
        (lambda h: stream(h, shape=[1 << 39, 1 << 39]), "at bytes 0 to"),
        (lambda h: stream(h, shape=[2] * 9), "with 9 axes"),
        (lambda h: stream(h, offset=-64), "with an offset of -64"),
        (lambda h: stream(h, offset=1), "at bytes 1 to"),
        (lambda h: stream(h, name="../x"), "a name that is no identifier"),
        (lambda h: stream(h, classes=[1]), "with classes that are no names"),
    ],
)
def test_forged_headers(tmp_path, change, what):
    path = make(tmp_path / "a.cgd")
    forge(path, change)
    with pytest.raises(DataError, match=rf"a\.cgd: expected a prepared data set \(format 1\), got .*({what})"):
        open_dataset(path)


def test_files_that_are_none(tmp_path):
    def said(path):
        with pytest.raises(DataError) as e:
            open_dataset(path)
        return str(e.value)

    path = tmp_path / "a.cgd"
    assert "got no such file; make it with python -m cogkit.data prepare NAME --out" in said(path)
    assert "got a folder" in said(tmp_path)
    path.write_bytes(b"")
    assert "got an empty file" in said(path)
    path.write_bytes(b"PK" + bytes(100))
    assert "got a file that begins otherwise" in said(path)
    path.write_bytes(format.MAGIC + b"\xff" * 8)
    assert "got a header of 18446744073709551615 bytes in a file of 16" in said(path)
    path.write_bytes(format.MAGIC + (4).to_bytes(8, "little") + b"[[[[")
    assert "got a header that is not JSON" in said(path)
    path.write_bytes(format.MAGIC + (100000).to_bytes(8, "little") + b"[" * 100000)
    assert "got a header that is not JSON" in said(path)


def test_one_wrong_byte_is_seen_by_verify(tmp_path):
    path = make(tmp_path / "a.cgd")
    raw = bytearray(path.read_bytes())
    raw[format.PAGE + 3] ^= 1
    path.write_bytes(raw)
    open_dataset(path)
    with pytest.raises(DataError, match=r"expected a payload of SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; prepare it anew"):
        open_dataset(path, verify=True)


@given(cut=st.integers(0, 4096 + 84), data=st.data())
def test_cut_or_damaged_files_give_a_named_error_or_the_arrays(tmp_path_factory, cut, data):
    path = make(tmp_path_factory.mktemp("cut") / "a.cgd")
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: min(cut, len(raw) - 1)]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        opened = open_dataset(path)
    except DataError as e:
        assert re.match(rf"{re.escape(str(path))}: expected a prepared data set", str(e))
    else:
        assert all(a.nbytes <= len(raw) for split in opened.values() for a in split.values())
