"""Recipes: every route, verification, what is said when nothing works, two processes at once, a full disk, the command line."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cogkit.data import Stream, create_dataset, open_dataset, recipe, recipes
from cogkit.data.__main__ import main
from cogkit.data.fashion_mnist import read_idx
from cogkit.data.recipe import DebianPackage, GivenRecipe, Item, NpmPackage, Recipe, RouteError, Web, WheelPackage, cache_folder
from cogkit.errors import DataError

A, B = bytes(range(100)), b"labels" * 7
ITEMS = tuple(Item(n, hashlib.sha256(c).hexdigest(), len(c)) for n, c in (("a.bin", A), ("b.bin", B)))


class Place:
    """A route to what a test has laid out."""

    def __init__(self, *places, label="the place"):
        self.places, self.label, self.calls = places, label, 0

    def __str__(self):
        return self.label

    def get(self, folder, tick):
        self.calls += 1
        if not self.places:
            raise RouteError("closed today")
        return self.places


def build(files, out, train, test, generator, tick):
    streams = [Stream("x", "<u1")]
    with create_dataset(
        out, "toy", {"train": (train, streams), "test": (test, streams)}, licence="none", generator=generator
    ) as a:
        a["train"]["x"][:] = np.frombuffer(files["a.bin"].read_bytes(), np.uint8)[:train]


def toy(*routes):
    return Recipe("toy", "a toy", "none", ITEMS, routes, {"quick": (10, 2), "full": (100, 20)}, build)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COGKIT_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("COGKIT_DATA_TOY", raising=False)
    return tmp_path / "cache"


def lay(folder, a=A, b=B, pack=lambda c: c, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("a.bin", a), ("b.bin", b)):
        if content is not None:
            (folder / (name + end)).write_bytes(pack(content))
    return folder


def left(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and "locks" not in p.parts)


def test_found_in_folders_and_archives(tmp_path, cache):
    folder = lay(tmp_path / "plain" / "deep" / "er")
    zipped = lay(tmp_path / "zipped", pack=gzip.compress, end=".gz")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as z:
        z.writestr("some/where/a.bin", A)
        z.writestr("b.bin.gz", gzip.compress(B))
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as t:
        for name, content in (("x/../../a.bin", A), ("b.bin", B)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    for k, place in enumerate((folder.parents[1], zipped, tmp_path / "x.whl", tmp_path / "x.tar.gz")):
        files = replace(toy(), name=f"toy{k}").fetch(place, quiet=True)
        assert [files[n].read_bytes() for n in ("a.bin", "b.bin")] == [A, B]
        assert left(cache / "raw" / f"toy{k}") == ["a.bin", "b.bin"]


def test_the_first_route_that_works_is_taken_and_kept(tmp_path):
    routes = Place(label="one"), Place(lay(tmp_path / "bad", a=A[:-1])), Place(lay(tmp_path / "good")), Place(label="four")
    for _ in range(2):
        toy(*routes).fetch(quiet=True)
    assert [r.calls for r in routes] == [1, 1, 1, 0]


def test_a_damaged_copy_is_fetched_again(tmp_path, cache):
    route = Place(lay(tmp_path / "good"))
    files = toy(route).fetch(quiet=True)
    files["a.bin"].write_bytes(bytes(100))
    (cache / "raw/toy/.fetch-left").mkdir()  # by a process that was killed
    assert toy(route).fetch(quiet=True)["a.bin"].read_bytes() == A
    assert route.calls == 2 and left(cache) == ["a.bin", "b.bin"] and not (cache / "raw/toy/.fetch-left").exists()


def said(call):
    with pytest.raises(DataError) as e:
        call()
    return str(e.value)


def test_what_is_said_when_nothing_works(tmp_path, monkeypatch, cache):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/a.bin.gz").write_bytes(gzip.compress(A)[:-9])
    routes = (
        Place(label="a closed one"),
        Place(lay(tmp_path / "other", a=A[::-1]), label="a forged one"),
        Place(lay(tmp_path / "short", b=B[:5]), label="a short one"),
        Place(lay(tmp_path / "bomb", b=B + bytes(10**6)), label="a long one"),
        Place(lay(tmp_path / "half", b=None), label="a half one"),
        Place(tmp_path / "cut", label="a cut one"),
    )
    text = said(lambda: toy(*routes).fetch(quiet=True))
    assert text.splitlines() == [
        "data set 'toy': expected a.bin, b.bin, got no good copy from",
        "  - a closed one: closed today",
        f"  - a forged one: a.bin has SHA-256 {hashlib.sha256(A[::-1]).hexdigest()[:12]}..., expected {ITEMS[0].sha256[:12]}...",
        "  - a short one: b.bin is shorter than 42 bytes",
        "  - a long one: b.bin is longer than 42 bytes",
        "  - a half one: there is no b.bin in it",
        "  - a cut one: cut cannot be read: Compressed file ended before the end-of-stream marker was reached",
        "give a folder or archive that holds all of it with --path or COGKIT_DATA_TOY",
    ]
    assert left(cache) == []
    # A path that the user gives is the only source, as argument or variable.
    good = Place(lay(tmp_path / "good"))
    assert "nowhere (argument): there is no such file or folder" in said(
        lambda: toy(good).fetch(tmp_path / "nowhere", quiet=True)
    )
    monkeypatch.setenv("COGKIT_DATA_TOY", str(tmp_path / "short"))
    assert "short (COGKIT_DATA_TOY): b.bin is shorter" in said(lambda: toy(good).fetch(quiet=True))
    assert good.calls == 0


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, cache):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    good = lay(tmp_path / "good")
    with monkeypatch.context() as m:
        m.setattr(Path, "write_bytes", full)
        text = said(lambda: toy(Place(good)).fetch(quiet=True))
    assert "MB of room in" in text and "got No space left on device; free some, or set COGKIT_DATA to another folder" in text
    assert left(cache) == []
    toy(Place(good)).fetch(quiet=True)
    with monkeypatch.context() as m:
        m.setattr(recipe.os, "posix_fallocate", full, raising=False)
        assert "got No space left on device" in said(lambda: toy().prepare(tmp_path / "out/x.cgd", quiet=True))
    assert left(tmp_path / "out") == []


def test_prepare_makes_it_once_and_again_when_asked_otherwise(tmp_path, cache):
    toys = toy(Place(lay(tmp_path / "good")))
    out = tmp_path / "x.cgd"
    assert toys.prepare(out, "quick", quiet=True) == out and open_dataset(out)["train"].count == 10
    stamp = out.stat().st_mtime_ns
    toys.prepare(out, "10,2", quiet=True)
    toys.prepare(out, (10, 2), quiet=True)
    assert out.stat().st_mtime_ns == stamp
    for change in ({"size": "full"}, {"seed": 1}):
        toys.prepare(out, quiet=True, **change)
        assert out.stat().st_mtime_ns != stamp
        stamp = out.stat().st_mtime_ns
    replace(toys, version=2).prepare(out, quiet=True, seed=1)
    assert open_dataset(out).header["generator"]["version"] == 2
    out.write_bytes(out.read_bytes()[:-1])  # a cut file is no prepared file
    toys.prepare(out, quiet=True)
    open_dataset(out, verify=True)
    assert toys.prepare(size="quick", quiet=True) == cache / "toy-quick.cgd"
    assert toys.prepare(size="7,3", seed=4, quiet=True) == cache / "toy-7-3-seed4.cgd"
    for size in ("huge", "0,1", "101,1", "1,2,3"):
        assert said(lambda size=size: toys.prepare(size=size)) == (
            f"data set 'toy': expected a size of quick, full or TRAIN,TEST up to 100,20, got '{size}'"
        )


def test_a_variant_has_files_of_its_own(tmp_path, monkeypatch):
    other = Place(lay(tmp_path / "other"))
    toys = replace(toy(Place()), items=ITEMS[:1], variants={"quick": (ITEMS, (other,))})
    monkeypatch.setenv("COGKIT_DATA_TOY", str(lay(tmp_path / "full", b=None)))
    assert open_dataset(toys.prepare(size="quick", quiet=True)).header["generator"]["variant"] == "quick"
    assert "variant" not in open_dataset(toys.prepare(quiet=True)).header["generator"]
    assert other.calls == 1


def test_two_processes_fetch_once(tmp_path, cache):
    good = lay(tmp_path / "good")
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_recipe as t
class Slow(t.Place):
    def get(self, folder, tick):
        print('fetching', flush=True)
        time.sleep(1)
        return super().get(folder, tick)
from pathlib import Path
t.toy(Slow(Path({str(good)!r}))).prepare(quiet=True)
"""
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0] and sorted(said) == ["", "fetching\n"]
    assert left(cache) == ["a.bin", "b.bin", "toy-full.cgd"]


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + text)
    (folder / name).chmod(0o755)


def test_programs_that_are_not_there_or_say_no(tmp_path, monkeypatch):
    package = DebianPackage("dataset-toy")
    tick = recipe.Tick("toy", True)

    def answer(route):
        with pytest.raises(RouteError) as e:
            route.get(tmp_path, tick)
        return str(e.value)

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert answer(package) == "there is no apt-get here"
    assert answer(NpmPackage("toy", "1.0")) == "there is no npm here"
    program(tmp_path / "bin", "dpkg", "exit 0")
    program(tmp_path / "bin", "apt-get", 'echo "E: Unable to locate package dataset-toy" >&2; exit 100')
    assert answer(package) == "apt-get said: E: Unable to locate package dataset-toy"
    program(tmp_path / "bin", "apt-get", "exit 0")
    assert answer(package) == "apt-get left no .deb"
    program(tmp_path / "bin", "npm", 'echo "npm error code E404"; exit 1')
    assert answer(NpmPackage("toy", "1.0")) == "npm said: npm error code E404"
    program(tmp_path / "bin", "python", 'echo "ERROR: No matching distribution found for toy==1.0" >&2; exit 1')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    assert answer(WheelPackage(("toy==1.0",))).endswith("said: ERROR: No matching distribution found for toy==1.0")
    program(tmp_path / "bin", "sleep", "exec /bin/sleep 5")
    monkeypatch.setattr(recipe, "COMMAND_TIMEOUT", 0.2)
    program(tmp_path / "bin", "npm", "exec /bin/sleep 5")
    assert answer(NpmPackage("toy", "1.0")) == "npm gave no answer in 0 s"


@contextlib.contextmanager
def serving(files):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_web(cache):
    with serving({"/x/a.bin.gz": gzip.compress(A), "/x/b.bin": B}) as home:
        addresses = (f"{home}/x/a.bin.gz", f"{home}/x/b.bin")
        text = said(lambda: toy(Web((f"{home}/x/none",)), Web(addresses, limit=9)).fetch(quiet=True))
        assert f"{home}/x/none: none: HTTP Error 404: Not Found" in text or f"{home}/x/none: none: Not Found" in text
        assert f"{home}/x: {home}/x/a.bin.gz sends more than 9 bytes" in text
        assert toy(Web(addresses)).fetch(quiet=True)["b.bin"].read_bytes() == B
    assert left(cache) == ["a.bin", "b.bin"]
    with pytest.raises(RouteError, match="nothing.bin: .*refused"):
        Web((f"{home}/nothing.bin",)).get(cache, recipe.Tick("toy", True))


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("COGKIT_DATA", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("COGKIT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/cogkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/cogkit").expanduser()


def test_every_recipe_is_whole():
    assert {"cifar10", "fashion_c32", "fashion_mnist", "mnist"} <= set(recipes())
    for name, r in recipes().items():
        assert r.name == name and r.variable == f"COGKIT_DATA_{name.upper()}" and r.licence and r.title
        if isinstance(r, GivenRecipe):
            assert r.wanted and set(r.sizes) == {"full"}
            continue
        assert r.routes and {"quick", "full"} <= set(r.sizes)
        for i in (*r.items, *(i for items, _ in r.variants.values() for i in items)):
            assert len(i.sha256) == 64 and int(i.sha256, 16) and i.size > 0


def test_idx(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)]))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    for content in (b"", b"\0\0\x08\x01\0\0\0\5ab", bytes([0, 0, 13, 1, 0, 0, 0, 0])):
        path.write_bytes(content)
        assert "expected an IDX file of bytes" in said(lambda: read_idx(path))


def test_command_line(tmp_path, capsys):
    assert main(["list"]) == 0
    assert "fashion_c32" in capsys.readouterr().out
    assert main(["prepare", "nothing"]) == 1
    assert "data set 'nothing': expected one of an4, " in capsys.readouterr().err
    assert main(["prepare", "cifar10", "--path", str(tmp_path), "--out", str(tmp_path / "x.cgd")]) == 1
    assert "(argument): there is no data_batch_1.bin in it (and 5 more)" in capsys.readouterr().err
    assert not (tmp_path / "x.cgd").exists()
    path = toy().prepare(tmp_path / "y.cgd", path=lay(tmp_path / "good"), quiet=True)
    assert main(["check", str(path)]) == 0
    assert open_dataset(path).hash in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert main(["check", str(path)]) == 1
    assert "prepare it anew" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "size", "sha256"),
    [
        ("fashion_mnist", "full", "c804a6bd6008468777a9c75e74098339068b7389d8d97304cddf80880a0234f2"),
        ("mnist", "quick", "36f9a434fa0aabfe7f78694a4e8f7decb0ebde11cfed788082285736b7483af9"),
        ("fashion_c32", "quick", "de89400c058eb59728a37833738ba1833e0a9767a66fd8c5f24d964b8791b095"),
    ],
)
def test_the_real_ones(name, size, sha256, tmp_path):
    data = open_dataset(recipes()[name].prepare(tmp_path / "x.cgd", size), verify=True)
    decoded = [s["sha256"] for s in data.header["sources"] if s["name"] == "decoded photos"]
    if decoded in ([], ["2d4a1e8226b95759d5ac856c51ca2f0a69eb8cea39a0100be3c344100f84237d"]):  # JPEG decoders may round otherwise
        assert data.hash == sha256
