"""Prepared folders: whole or not there, checked against their header, and data sets that only their users have."""

import json
from pathlib import Path

import pytest

from cogkit.data import htk_corpus
from cogkit.data.__main__ import main
from cogkit.data.atis import RECIPE as ATIS
from cogkit.data.folder import create_folder, open_folder
from cogkit.data.htk import read_features, write_archive, write_mlf
from cogkit.errors import DataError
from cogkit.papers.datasets import prepare_data


def make(path, **content):
    with create_folder(path, "toy", licence="none", generator={"name": "toy"}, about={"dim": 3}) as folder:
        for name, text in content.items():
            (folder / f"{name}.txt").write_text(text)
        (folder / ".left").write_text("not taken along")
        assert not path.exists() or not (path / "new.txt").exists()
    return path


def test_whole_or_none(tmp_path):
    path = make(tmp_path / "x.d", a="1", b="22")
    folder = open_folder(path, verify=True)
    assert list(folder) == ["a.txt", "b.txt"] and folder["b.txt"].read_text() == "22" and folder.about == {"dim": 3}
    with pytest.raises(KeyError, match="has no file 'c.txt', it has a.txt, b.txt"):
        folder["c.txt"]
    with pytest.raises(RuntimeError), create_folder(path, "toy", licence="") as aside:
        (aside / "new.txt").write_text("x")
        raise RuntimeError
    assert open_folder(path).hash == folder.hash
    make(path, a="1", new="3")
    assert list(open_folder(path)) == ["a.txt", "new.txt"] and [p.name for p in tmp_path.iterdir()] == ["x.d"]
    assert make(tmp_path / "y.d", a="1", b="22") and open_folder(tmp_path / "y.d").hash == folder.hash
    with pytest.raises(DataError, match="expected files with names"), create_folder(tmp_path / "z.d", "toy", licence=""):
        pass
    assert main(["check", str(path)]) == 0


def test_what_is_no_prepared_folder(tmp_path):
    path = make(tmp_path / "x.d", a="1", b="22")
    header = json.loads((path / "dataset.json").read_text())

    def said(change=None, raw=None):
        forged = json.loads(json.dumps(header))
        if change:
            change(forged)
        (path / "dataset.json").write_text(json.dumps(forged) if raw is None else raw)
        with pytest.raises(DataError) as e:
            open_folder(path, verify=True)
        return str(e.value)

    assert "a header of another format" in said(lambda h: h.update(format=2))
    assert "without a proper 'about'" in said(lambda h: h.pop("about"))
    assert "lists '../a.txt'" in said(lambda h: h["files"].update({"../a.txt": h["files"]["a.txt"]}))
    assert "none of its file c.txt" in said(lambda h: h["files"].update({"c.txt": h["files"]["a.txt"]}))
    assert "a.txt of 1 bytes where the header says 5" in said(lambda h: h["files"]["a.txt"].update(bytes=5))
    assert "hashes do not fit" in said(lambda h: h["files"]["a.txt"].update(sha256="0" * 64))
    assert "cannot be read" in said(raw="{")
    assert "another format" in said(raw="[" * 10 + "]" * 10)
    said(raw="[" * 100000)
    (path / "dataset.json").write_text(json.dumps(header))
    (path / "a.txt").write_text("2")
    with pytest.raises(DataError, match=r"a.txt: expected SHA-256 [0-9a-f]{64}, got"):
        open_folder(path, verify=True)
    (path / "dataset.json").unlink()
    for place, fact in ((path, "one without dataset.json"), (tmp_path / "no", "no such folder"), (path / "a.txt", "a file")):
        with pytest.raises(DataError, match=f"got {fact}; prepare it anew"):
            open_folder(place)


@pytest.fixture
def atis_files(tmp_path):
    folder = tmp_path / "given" / "Data"
    folder.mkdir(parents=True)
    line = "0 |S0 1:1 |# BOS |S1 0:1 |# flight |S2 0:1 |# O\n0 |S0 2:1 |# boston |S2 1:1 |# B-x\n"
    for name, text in {
        "atis.train.ctf": line,
        "atis.test.ctf": line + line.replace("0 |", "1 |"),
        "query.wl": "a\nBOS\nboston\n",
        "intent.wl": "flight\n",
        "slots.wl": "O\nB-x\n",
    }.items():
        (folder / name).write_text(text)
    return folder.parent


def test_given_files_are_prepared(atis_files, tmp_path, monkeypatch):
    monkeypatch.delenv("COGKIT_DATA_ATIS", raising=False)
    with pytest.raises(
        DataError, match="expected a folder with atis.train.ctf.*, got none; give it with --path or COGKIT_DATA_ATIS"
    ):
        ATIS.prepare(tmp_path / "x.d", quiet=True)
    stamp = prepare_data("atis", "full", tmp_path / "atis.full.json")
    assert not stamp["available"] and "COGKIT_DATA_ATIS" in stamp["reason"]
    folder = open_folder(ATIS.prepare(tmp_path / "x.d", path=atis_files, quiet=True))
    assert folder.about == {
        "words": 3,
        "intents": 1,
        "tags": 2,
        "train": {"sentences": 1, "tokens": 2},
        "test": {"sentences": 2, "tokens": 4},
    }
    again = (tmp_path / "x.d").stat().st_ino
    ATIS.prepare(tmp_path / "x.d", path=atis_files, quiet=True)
    assert (tmp_path / "x.d").stat().st_ino == again
    (atis_files / "Data/slots.wl").write_text("O\nB-x\nI-x\n")  # other files, another data set
    assert open_folder(ATIS.prepare(tmp_path / "x.d", path=atis_files, quiet=True)).about["tags"] == 3
    (atis_files / "Data/atis.train.ctf").write_text("0 |features 1\n")
    with pytest.raises(DataError, match="atis.train.ctf:1: expected the streams S0 and S2"):
        ATIS.prepare(tmp_path / "y.d", path=atis_files, quiet=True)
    (atis_files / "Data/slots.wl").unlink()
    with pytest.raises(DataError, match="there is no slots.wl in it"):
        ATIS.prepare(tmp_path / "y.d", path=atis_files, quiet=True)


def corpus(folder: Path, keys, script="all.scp"):
    folder.mkdir()
    items = [(key, [[k + t / 8, -t] for t in range(4)]) for k, key in enumerate(keys)]
    write_archive(folder / "all.features", items, folder / script)
    write_mlf(folder / "all.mlf", [(key, [(0, 1, "sil_s2"), (1, 2, "aa_s2"), (2, 3, "aa_s3"), (3, 4, "aa_s2")]) for key in keys])
    (folder / "state.list").write_text("sil_s2\naa_s2\naa_s3\n")
    return folder


def test_a_corpus_of_ones_own(tmp_path):
    keys = [f"An4/{k}/cen{k}-{name}-b" for k in range(2) for name in "abcdefghij"]
    given = corpus(tmp_path / "given", keys)
    from cogkit.data.an4 import RECIPE as AN4

    folder = open_folder(AN4.prepare(tmp_path / "x.d", path=given, quiet=True))
    assert folder.about == {
        "states": 3,
        "silence": "sil",
        "dim": 2,
        "train": {"utterances": 16, "frames": 64},
        "dev": {"utterances": 2, "frames": 8},
        "test": {"utterances": 2, "frames": 8},
    }
    assert [line.split("=")[0] for line in folder["test.scp"].read_text().splitlines()] == ["An4/0/cen0-j-b", "An4/1/cen1-j-b"]
    assert folder["test.phones"].read_text() == "An4/0/cen0-j-b sil aa aa\nAn4/1/cen1-j-b sil aa aa\n"
    assert read_features(folder["test.features"]).tolist()[:2] == [[9.0, 0.0], [9.125, -1.0]]
    assert folder["test.mlf"].read_text().splitlines()[:3] == ["#!MLF!#", '"*/An4/0/cen0-j-b.lab"', "0 100000 sil_s2"]

    few = corpus(tmp_path / "few", keys[:5])
    with pytest.raises(DataError, match="expected ten groups of utterances to hold two out of, got 5"):
        htk_corpus.RECIPE.prepare(tmp_path / "y.d", path=few, quiet=True)
    (few / "all.scp").write_text("a=.../nothing.features[0,3]\n")
    (few / "train.scp").write_text("")
    (few / "test.scp").write_text("a=.../nothing.features[0,3]\n")
    with pytest.raises(DataError, match="test.scp:1: expected a feature file, got nothing.features, which is not there"):
        htk_corpus.RECIPE.prepare(tmp_path / "y.d", path=few, quiet=True)
    (given / "all.mlf").write_text("#!MLF!#\n")
    with pytest.raises(DataError, match="an4: expected labels of 'An4/0/cen0-a-b', got none"):
        AN4.prepare(tmp_path / "y.d", path=given, quiet=True)
    assert not (tmp_path / "y.d").exists()


def test_phones_of_states():
    assert [htk_corpus.phone_of(s) for s in ("aa_1", "aa_s2", "aa[2]", "sil", "sh_x_3")] == ["aa", "aa", "aa", "sil", "sh_x"]
