"""HTK features and labels, values as CNTK 2.7 gave them; faults named by place; validation and conversion."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from data_corpus import LENGTHS, STATES, drain, open_speech, sequences, speech, text
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cogkit.data import (
    CTFDeserializer,
    HTKFeatureDeserializer,
    HTKMLFDeserializer,
    MinibatchSource,
    Stream,
    StreamDef,
    StreamDefs,
    create_dataset,
    ctf_to_htk,
    htk_native,
    htk_to_ctf,
    prepared_to_ctf,
    read_features,
    write_archive,
    write_features,
    write_mlf,
)
from cogkit.data.validate import validate
from cogkit.errors import DataError

A = np.arange(10)[:, None] + np.array([[0, 0.5]])
B = 100 + np.arange(4)[:, None] + np.array([[0, 0.5]])


@pytest.fixture
def two(tmp_path):
    """Utterances u/a of 10 frames, u/b of 4, u/c of one; the files that CNTK was asked about."""
    write_archive(tmp_path / "a.ark", [("u/a", A), ("u/b", B), ("u/c", B[:1])], tmp_path / "a.scp")
    write_mlf(
        tmp_path / "a.mlf",
        [("u/a", [(0, 3, "s0"), (3, 10, "s1")]), ("u/b", [(0, 2, "s1"), (2, 4, "s2")]), ("u/c", [(0, 1, "s2")])],
    )
    (tmp_path / "states").write_text("s0\ns1\ns2\n")
    return tmp_path


def read(folder, context=(0, 0), shape=2, boundaries=False, **options):
    parts = [
        HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=shape, context=context, scp=str(folder / "a.scp")))),
        HTKMLFDeserializer(folder / "states", StreamDefs(l=StreamDef(shape=3, mlf=str(folder / "a.mlf"))), boundaries),
    ]
    with MinibatchSource(parts, max_sweeps=1, randomize=False, **options) as source:
        return drain(source, 100)


def around(frames, left, right):
    """Frames with their neighbours; the first and last are repeated."""
    at = np.arange(len(frames))[:, None] + np.arange(-left, right + 1)
    return frames[at.clip(0, len(frames) - 1)].reshape(len(frames), -1).astype(np.float32)


def test_values_are_cntks(two):
    batch = read(two, boundaries=True)[0]
    # CNTK 2.7: labels are sparse, 2 where a segment begins with phoneBoundaries.
    assert batch["l"].is_sparse and [x.toarray().tolist() for x in batch["l"].as_sequences()[1:]] == [
        [[0, 2, 0], [0, 1, 0], [0, 0, 2], [0, 0, 1]],
        [[0, 0, 2]],
    ]
    assert batch["l"].as_sequences()[0].indices.tolist() == [0] * 3 + [1] * 7 and batch["f"].lengths.tolist() == [10, 4, 1]
    # and for context (1, 1) of frames of 2 numbers
    rows = read(two, (1, 1))[0]["f"].as_sequences()
    assert rows[1].tolist() == [
        [100, 100.5, 100, 100.5, 101, 101.5],
        [100, 100.5, 101, 101.5, 102, 102.5],
        [101, 101.5, 102, 102.5, 103, 103.5],
        [102, 102.5, 103, 103.5, 103, 103.5],
    ]
    assert rows[2].tolist() == [[100, 100.5, 100, 100.5, 100, 100.5]]
    # a shape of three frames without a context takes one neighbour on both sides
    assert all(np.array_equal(x, y) for x, y in zip(read(two, None, 6)[0]["f"].as_sequences(), rows, strict=True))


@pytest.mark.parametrize("frame_mode", [False, True])
@given(left=st.integers(0, 12), right=st.integers(0, 12))
def test_neighbours_do_not_leave_their_utterance(tmp_path_factory, frame_mode, left, right):
    folder = tmp_path_factory.mktemp("htk")
    items, parts = speech(folder, context=(left, right))
    with MinibatchSource(parts, max_sweeps=1, randomize=False, frame_mode=frame_mode) as source:
        batch = drain(source, 1000)[0]
    assert np.array_equal(batch["f"].value, np.concatenate([around(f, left, right) for _, f, _ in items]))
    assert np.array_equal(batch["l"].value.indices, np.concatenate([c for _, _, c in items]))


@given(
    frames=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 4)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_features_come_back(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("htk") / "x.fea"
    write_features(path, frames)
    assert np.array_equal(read_features(path), frames)
    assert path.read_bytes()[:12] == struct.pack(">iihh", len(frames), 100_000, 4 * frames.shape[1], 9)
    if len(frames) > 2:
        assert np.array_equal(read_features(path, 1, 2), frames[1:3])


def test_a_file_an_utterance_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for i, rows in enumerate((A, B)):
        write_features(tmp_path / "deep" / f"{i}.mfc", rows)
    for lines in (
        ["deep/0.mfc", "deep/1.mfc"],
        [".../0.mfc", "x=.../1.mfc"],
        ["0.mfc", "y=1.mfc[0,3]"],
        [str(tmp_path / "deep/0.mfc"), "z.mfc=deep/1.mfc"],
    ):
        (tmp_path / "deep" / "a.scp").write_text("\n".join(lines) + "\n\n")
        (stream,) = HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=2, scp="deep/a.scp"))).parts
        assert not stream.faults and stream.stream_lengths("f").tolist() == [10, 4]
        rows, faults = stream.read_sequences(np.array([1, 0]), np.empty, 2, False)
        assert not faults and np.array_equal(rows["f"][0], np.concatenate([B, A]))


def test_one_frame_an_utterance_is_repeated(two):
    write_archive(two / "v.ark", [("u/c", [[3.0]]), ("u/a", [[1.0]]), ("u/b", [[2.0]])], two / "v.scp")
    streams = StreamDefs(
        f=StreamDef(shape=2, context=(1, 0), scp=str(two / "a.scp")), v=StreamDef(shape=1, scp=str(two / "v.scp"), broadcast=True)
    )
    for options in ({}, {"frame_mode": True}, {"truncation_length": 3}):
        with MinibatchSource(HTKFeatureDeserializer(streams), max_sweeps=1, randomize=False, **options) as source:
            batches = drain(source, 100)
        for b in batches:
            assert np.array_equal(
                b["v"].value.ravel(), np.select([b["f"].value[:, 2] < 50, b["v"].value.ravel() == 3], [1, 3], 2)
            )
        assert sum(b["v"].num_samples for b in batches) == 15
    with pytest.raises(DataError, match=r"expected one frame \(broadcast\), got 10"):
        MinibatchSource(HTKFeatureDeserializer(StreamDefs(v=StreamDef(shape=2, scp=str(two / "a.scp"), broadcast=True))))


def test_labels_without_names_and_of_several_files(two):
    write_mlf(two / "1.mlf", [("u/a", [(0, 10, "7")])])
    write_mlf(two / "2.mlf", [("u/c", [(0, 1, "0")]), ("u/b", [(0, 4, "8")])])
    (stream,) = HTKMLFDeserializer("", StreamDefs(l=StreamDef(shape=9, mlf=[str(two / "1.mlf"), str(two / "2.mlf")]))).parts
    assert stream.keys() == ["u/a", "u/c", "u/b"]
    rows, faults = stream.read_sequences(np.array([2, 0, 1]), np.empty, 2, False)
    assert not faults and rows["l"][0].indices.tolist() == [8] * 4 + [7] * 10 + [0]


def mlf(*blocks):
    return b"#!MLF!#\n" + b"".join(blocks)


GOOD = [
    b'"*/u/a.lab"\n0 300000 s0\n300000 1000000 s1\n.\n',
    b'"*/u/b.lab"\n0 200000 s1\n200000 400000 s2\n.\n',
    b'"*/u/c.lab"\n0 100000 s2\n.\n',
]
LABEL_FAULTS = [  # (the block of u/b, what is said, where: a line, and a piece of it)
    (GOOD[1].replace(b" s2", b" sX"), "expected one of 3 names, got 'sX'", 8, b"sX"),
    (GOOD[1].replace(b" s2", b" \xff"), "expected UTF-8, got the byte 0xff", 8, b"\xff"),
    (GOOD[1].replace(b"400000", b"300000"), "expected 4 frames as in", 7, None),
    (GOOD[1].replace(b"\n200000", b"\n300000"), "expected segments one after the other, got one at frame 3", 8, b"300000"),
    (GOOD[1].replace(b"200000 s1", b"200000"), "expected start, end and name, got '0 200000'", 7, b"0 200000"),
    (GOOD[1].replace(b"400000 s2", b"x s2"), "expected start, end and name, got another line", 8, b"200000 x"),
    (
        GOOD[1].replace(b".\n", b""),
        "expected a line with a dot after the labels of an utterance, got none; the file is cut",
        9,
        b'"*/u/c',
    ),
    (GOOD[1].replace(b"u/b", b"u/x"), "expected this key in", 2, None),
    (GOOD[1].replace(b"u/b", b"u/\xfe"), "expected UTF-8, got the byte 0xfe", 6, b"\xfe"),
    (GOOD[1].replace(b"400000", b"999999999999"), "expected 1 to 65535 frames", 7, None),
    (GOOD[1] + GOOD[1], "expected each key once", 11, None),
]


@pytest.mark.parametrize(("block", "reason", "line", "piece"), LABEL_FAULTS)
def test_faults_of_labels(two, block, reason, line, piece):
    data = mlf(GOOD[0], block, GOOD[2])
    (two / "a.mlf").write_bytes(data)
    with pytest.raises(DataError) as e:
        read(two)
    assert reason in str(e.value) and (f"(line {line})" in str(e.value))
    if piece:
        begin = data.index(b"u/b") if b"u/b" in data else 0
        assert f"byte {data.index(piece, begin)} " in str(e.value)
    batch = read(two, max_errors=3)[0]
    twice = block == GOOD[1] + GOOD[1]
    assert batch["f"].lengths.tolist() == ([10, 4, 1] if twice else [10, 1])
    good = list(validate([two / "a.scp", two / "a.mlf"], two / "states"))
    assert any(reason.split(" as in")[0][:20] in str(f) or "key" in str(f) for f in good)


def test_label_files_that_are_none(two):
    for data, reason in [
        (b"", "expected a label file that begins with #!MLF!#"),
        (b'"*/u/a.lab"\n.\n', "expected a label file that begins with #!MLF!#"),
        (mlf(b"0 100000 s0\n"), "expected a line with the key in quotes"),
        (mlf(b'"*/u/a.lab\n', GOOD[1]), "expected a line with the key in quotes"),
    ]:
        (two / "a.mlf").write_bytes(data)
        with pytest.raises(DataError) as e:
            read(two)
        assert reason in str(e.value)
    (two / "states").write_bytes(b"s0\n\xff\n")
    with pytest.raises(DataError, match=r"states byte 3 \(line 2\): expected UTF-8, got the byte 0xff"):
        read(two)
    (two / "states").write_bytes(b"s0\ns0\n")
    with pytest.raises(DataError, match="expected each name once"):
        read(two)
    (two / "states").write_bytes(b"a\nb\nc\nd\n")
    with pytest.raises(ValueError, match="expected a shape of 4 classes or more"):
        read(two)


def edit(path, at, data):
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)


def test_faults_of_features(two):
    size = (two / "a.ark").stat().st_size
    (two / "short").write_bytes(b"12345678901")
    whole, script = (two / "a.ark").read_bytes(), (two / "a.scp").read_text()

    def wrong(reason, lengths, errors=1, **options):
        with pytest.raises(DataError) as e:
            read(two, **options)
        assert reason in str(e.value), e.value
        batches = read(two, max_errors=errors, **options)
        assert batches[0]["f"].lengths.tolist() == lengths
        assert any(reason in str(f) for f in validate([two / "a.scp"])) or options
        (two / "a.ark").write_bytes(whole)
        (two / "a.scp").write_text(script)

    nan = 12 + 8 * 11 + 4
    edit(two / "a.ark", nan, struct.pack(">f", np.nan))
    assert f"byte {nan}: expected finite numbers, got nan in frame 11" in str(next(validate([two / "a.ark"])))
    wrong(f"a.ark byte {nan}, sequence 'u/b': expected finite numbers, got one that is not in frame 1", [10, 1])
    edit(two / "a.ark", 12, struct.pack(">f", -np.inf))
    wrong("a.ark byte 12, sequence 'u/a': expected finite numbers, got one that is not in frame 0", [4, 1])
    (two / "a.ark").write_bytes(whole[:-20])
    assert "the file is cut" in str(next(validate([two / "a.ark"])))
    wrong(
        f"a.ark byte {size - 20}, sequence 'u/b': expected frames [10,13] up to byte 124, got the end of the file", [10], errors=3
    )
    for lines, reason in [
        (script.replace("[10,13]", "[10,99]"), "expected frames in [0, 14] as"),
        (script.replace("[10,13]", "[13,10]"), "expected a frame or more, got -2"),
        (script.replace("u/b=.../a.ark[10,13]", "u/b=.../none"), "expected a feature file, got No such file or directory"),
        (script.replace("u/b=.../a.ark[10,13]", "u/b=.../short"), "expected a header of 12 bytes in"),
        (script.replace("u/b", "u/a"), "(line 2), sequence 'u/a': expected each key once, got it in line 1 too"),
        (script.replace("u/b=.../a.ark[10,13]", "=[x"), "(line 2): expected key=path[first,last], got '=[x'"),
    ]:
        (two / "a.scp").write_text(lines)
        wrong(reason, [10, 1])
    for lines, reason in [  # what the labels contradict
        (script.replace("[10,13]", "[10,12]"), "expected 3 frames as in"),
        (script.replace("u/b", "u/unknown"), "sequence 'u/unknown': expected this key in"),
    ]:
        (two / "a.scp").write_text(lines)
        with pytest.raises(DataError) as e:
            read(two)
        assert reason in str(e.value) and read(two, max_errors=1)[0]["f"].lengths.tolist() == [10, 1]
        assert any(reason in str(f) for f in validate([two / "a.scp", two / "a.mlf"]))
    (two / "a.scp").write_text(script)
    for at, value, reason in [
        (8, struct.pack(">h", 16), "more follows|it is cut"),
        (8, struct.pack(">h", 6), "expected frames of 4, 8, ... bytes, got 15 frames of 6 bytes"),
        (10, struct.pack(">h", 0o2011), "convert it with HCopy"),
        (0, struct.pack(">i", 14), "more follows"),
        (0, struct.pack(">i", -1), "expected frames of 4, 8, ... bytes, got -1 frames"),
    ]:
        edit(two / "a.ark", at, value)
        with pytest.raises(DataError, match=reason):
            read(two)
        with pytest.raises(DataError):
            read_features(two / "a.ark")
        (two / "a.ark").write_bytes(whole)
    (two / "a.scp").write_bytes(b"u/\xff=a.ark\n")
    with pytest.raises(DataError, match=r"a.scp byte 2 \(line 1\): expected UTF-8, got the byte 0xff"):
        read(two)


def test_an_utterance_may_be_too_long(two):
    with pytest.raises(DataError, match=r"expected at most 5 frames \(max_sequence_length\), got 10"):
        HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=2, scp=str(two / "a.scp"), max_sequence_length=5)))
        MinibatchSource(HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=2, scp=str(two / "a.scp"), max_sequence_length=5))))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_read_the_same(tmp_path, threads):
    items, parts = speech(tmp_path, lengths=(4000, 1, 9000, 20000, 30))
    numbers = np.array([3, 0, 1, 2, 4, 2])
    for part in parts:
        rows, faults = part.parts[0].read_sequences(numbers, np.empty, threads, False)
        assert not faults
        for name, (value, _) in rows.items():
            wanted = np.concatenate([items[i][1 if name == "f" else 2] for i in numbers])
            assert np.array_equal(value if name == "f" else value.indices, wanted)


def test_the_native_loops_check_their_arguments():
    one = np.ones(1, np.int64)
    with pytest.raises(ValueError, match="frames of 0 files"):
        htk_native.read_frames([], one, one, one, 1, 0, 0, np.ones((1, 1), np.float32), 1)
    with pytest.raises(ValueError, match="expected out"):
        htk_native.read_frames([b"x"], 0 * one, one, one, 1, 0, 0, np.ones((2, 1), np.float32), 1)
    with pytest.raises(ValueError, match="expected rows in"):
        htk_native.splice(np.ones((2, 1), np.float32), 0 * one, one, one, 0, 0, np.ones((1, 1), np.float32))


def test_writers_refuse_what_cannot_be_read_back(tmp_path):
    for call, kind, message in [
        (lambda: write_features(tmp_path / "x", [[np.inf]]), DataError, "finite float32"),
        (lambda: write_features(tmp_path / "x", [[1e39]]), DataError, "finite float32"),
        (lambda: write_features(tmp_path / "x", [1.0]), ValueError, "expected frames"),
        (lambda: write_features(tmp_path / "x", np.zeros((1, 8192))), ValueError, "1 to 8191 numbers"),
        (lambda: write_features(tmp_path / "x", [[1.0]], period=0), ValueError, "expected a period"),
        (lambda: write_archive(tmp_path / "x", [("a", A), ("a", A)], tmp_path / "y"), DataError, "each key once"),
        (lambda: write_archive(tmp_path / "x", [("a", A), ("b", A[:, :1])], tmp_path / "y"), DataError, "frames of 2 numbers"),
        (lambda: write_archive(tmp_path / "x", [("a=b", A)], tmp_path / "y"), ValueError, "without '='"),
        (lambda: write_archive(tmp_path / "x", [], tmp_path / "y"), DataError, "frames, got 0"),
        (lambda: write_mlf(tmp_path / "x", [("a", [(0, 0, "s")])]), ValueError, "segments in order"),
        (lambda: write_mlf(tmp_path / "x", [("a", [(0, 1, "s t")])]), ValueError, "segments in order"),
        (lambda: write_mlf(tmp_path / "x", [('a"', [])]), ValueError, "without quotes"),
    ]:
        with pytest.raises(kind, match=message):
            call()
        assert not list(tmp_path.iterdir())


def test_keys_with_dots_stay_whole(tmp_path):
    write_archive(tmp_path / "a.ark", [("u.1", A), ("u.b", B)], tmp_path / "a.scp")
    write_mlf(tmp_path / "a.mlf", [("u.1", [(0, 10, "s")]), ("u.b", [(0, 4, "s")])])
    (stream,) = HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=2, scp=str(tmp_path / "a.scp")))).parts
    (labels,) = HTKMLFDeserializer("", StreamDefs(l=StreamDef(shape=2, mlf=str(tmp_path / "a.mlf"))), names=["s"]).parts
    assert stream.keys() == labels.keys() == ["u.1", "u.b"]


def test_htk_to_text_and_back(tmp_path):
    items, _ = speech(tmp_path)
    htk_to_ctf(tmp_path / "a.scp", tmp_path / "x.ctf", 2, tmp_path / "a.mlf", tmp_path / "states")
    d = CTFDeserializer(tmp_path / "x.ctf", StreamDefs(features=StreamDef(shape=2), labels=StreamDef(shape=4, is_sparse=True)))
    rows, faults = d.read_sequences(np.arange(d.count), np.empty, 1, False)
    assert not faults and np.array_equal(rows["features"][0], np.concatenate([f for _, f, _ in items]))
    assert np.array_equal(rows["labels"][0].indices, np.concatenate([c for _, _, c in items]))
    ctf_to_htk(tmp_path / "x.ctf", tmp_path / "y", "features", 2, "labels", list(STATES))
    assert (tmp_path / "y.ark").read_bytes() == (tmp_path / "a.ark").read_bytes()
    again = [
        HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape=2, scp=str(tmp_path / "y.scp")))),
        HTKMLFDeserializer(tmp_path / "y.states", StreamDefs(l=StreamDef(shape=4, mlf=str(tmp_path / "y.mlf")))),
    ]
    with MinibatchSource(again, max_sweeps=1, randomize=False) as source:
        batch = drain(source, 1000)[0]
    assert np.array_equal(batch["l"].value.indices, np.concatenate([c for _, _, c in items]))


def test_prepared_to_text(tmp_path):
    streams = [Stream("x", "<u1", (2, 2)), Stream("y", "<u1", (), ("a", "b", "c"))]
    with create_dataset(tmp_path / "d.cgd", "d", {"train": (3, streams)}, licence="none") as arrays:
        arrays["train"]["x"][:] = np.arange(12).reshape(3, 2, 2)
        arrays["train"]["y"][:] = [2, 0, 1]
    prepared_to_ctf(tmp_path / "d.cgd", "train", tmp_path / "d.ctf")
    assert (tmp_path / "d.ctf").read_text().splitlines()[0] == "0 |x 0 1 2 3 |y 2:1"
    with pytest.raises(DataError, match="expected a split train, got 'test'"):
        prepared_to_ctf(tmp_path / "d.cgd", "test", tmp_path / "e.ctf")
    assert not list(validate([tmp_path / "d.cgd", tmp_path / "d.ctf"]))


def cogkit(*arguments):
    return subprocess.run([sys.executable, "-m", "cogkit", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_validate_lists_every_fault(tmp_path):
    speech(tmp_path)
    text(tmp_path / "x.ctf", sequences())
    files = [tmp_path / name for name in ("a.scp", "a.mlf", "a.ark", "x.ctf")]
    done = cogkit("validate", *files, "--states", tmp_path / "states")
    assert done.returncode == 0 and not done.stdout and "4 files are sound" in done.stderr
    lines = (tmp_path / "x.ctf").read_text().splitlines(keepends=True)
    lines[0] = "0 |f 1 nan 3 |l 9x:1 |u 1 2\n"
    lines[5] = lines[5].replace("|f ", "|f 8 ")
    (tmp_path / "x.ctf").write_text("".join(lines))
    labels = (tmp_path / "a.mlf").read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(labels) if line.startswith('"*/spk0/utt2'))
    labels[at + 1] = labels[at + 1].rsplit(" ", 1)[0] + " nobody\n"
    labels[at + 3] = labels[at + 3].rsplit(" ", 1)[0] + " none\n"
    (tmp_path / "a.mlf").write_text("".join([*labels, '"*/new.lab"\n0 100000 sil\n.\n']), encoding="utf-8")
    edit(tmp_path / "a.ark", 12 + 8 * LENGTHS[0], struct.pack(">f", np.nan))
    done = cogkit("validate", *files, "--states", tmp_path / "states")
    faults = done.stdout.splitlines()
    assert done.returncode == 1 and f"{len(faults)} faults in 4 files" in done.stderr
    expected = [
        ("a.ark", "byte 36, sequence 'spk1/utt1': expected finite numbers"),
        ("a.mlf", f"(line {at + 2}), sequence 'spk0/utt2': expected one of 4 names, got 'nobody'"),
        ("a.mlf", f"(line {at + 4}), sequence 'spk0/utt2': expected one of 4 names, got 'none'"),
        ("a.ark", "byte 36: expected finite numbers, got nan in frame 3"),
        ("x.ctf", "(line 1), sequence '0': stream 'f': expected a finite float32, got 'nan'"),
        ("x.ctf", "(line 1), sequence '0': stream 'l': expected index:value, got '9x:1'"),
        ("x.ctf", "(line 6), sequence '2': stream 'f': expected 3 numbers in a sample, got 4"),
        ("a.mlf", "sequence 'new': expected this key in"),
    ]
    assert len(faults) == len(expected) and all(any(name in f and reason in f for f in faults) for name, reason in expected), (
        faults
    )
    none = cogkit("validate", tmp_path / "none")
    assert none.returncode == 1 and "expected a file to read, got No such file or directory" in none.stdout


def test_convert_from_the_command_line(tmp_path):
    speech(tmp_path)
    out = tmp_path / "x.ctf"
    done = cogkit(
        "convert", "htk-to-ctf", tmp_path / "a.scp", out, "--dim", 2, "--mlf", tmp_path / "a.mlf", "--states", tmp_path / "states"
    )
    assert done.returncode == 0 and out.read_text().startswith("0 |features ")
    done = cogkit(
        "convert", "ctf-to-htk", out, tmp_path / "y", "--features", "features", "--dim", 2, "--labels", "labels", "--classes", 4
    )
    assert done.returncode == 0 and (tmp_path / "y.states").read_text() == "0\n1\n2\n3\n"
    done = cogkit("convert", "htk-to-ctf", tmp_path / "a.scp", tmp_path / "z.ctf", "--dim", 3)
    assert (
        done.returncode == 1 and "expected frames of 3 numbers (the shape)" in done.stderr and not (tmp_path / "z.ctf").exists()
    )


def test_labels_of_utf8_names(tmp_path):
    items, _ = speech(tmp_path)
    _, labels = open_speech(tmp_path)
    assert any((c == 3).any() for _, _, c in items) and not labels.parts[0].faults
