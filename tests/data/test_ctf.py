"""Text: numbers are read exactly, files as CNTK reads them, faults named by place; the index and its cache."""

import os
from fractions import Fraction

import numpy as np
import pytest
from data_corpus import drain, sequences, text
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse as sp

from cogkit.data import (
    CTFDeserializer,
    MinibatchSource,
    StreamConfiguration,
    StreamDef,
    StreamDefs,
    ctf,
    ctf_native,
    sequence_to_cntk_text_format,
    write_ctf,
)
from cogkit.errors import DataError


@pytest.fixture(params=["text in memory", "text in its file"])
def either_text(request, monkeypatch):
    """Small files are kept in memory, large ones are not: here neither, or all."""
    if request.param == "text in its file":
        monkeypatch.setattr(ctf, "IN_MEMORY", -1)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def nearest(number):
    """The float32 nearest to a fraction, ties to even; infinity from the middle after the largest one."""
    if abs(number) >= (2 - Fraction(1, 2**24)) * 2**127:
        return np.float32(np.copysign(np.inf, float(number > 0) - 0.5))
    with np.errstate(over="ignore", under="ignore"):
        start = np.float32(float(number))
    around = [start, np.nextafter(start, np.float32(np.inf)), np.nextafter(start, np.float32(-np.inf))]
    around = [a for a in around if np.isfinite(a)]
    return min(around, key=lambda a: (abs(Fraction(float(a)) - number), int(a.view(np.uint32)) & 1))


def decimal(number):
    """A fraction whose denominator is a power of two, in full."""
    sign, number = "-" if number < 0 else "", abs(number)
    power = number.denominator.bit_length() - 1
    digits = str(number.numerator * 5**power).rjust(power + 1, "0")
    return sign + (f"{digits[:-power]}.{digits[-power:]}" if power else digits)


@pytest.mark.parametrize("any_processor", [True, False])
@given(value=FINITE, data=st.data())
def test_a_number_is_the_nearest_float32(any_processor, value, data):
    forms = [
        repr(value),
        f"{value:.9g}",
        f"{value:.4e}",
        f"{value:.18f}",
        f"{value:+.17e}",
        str(np.float32(value)),
        f"{value:.30f}",
    ]
    for form in [*forms, data.draw(st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{0,25})?(e[-+]?[0-9]{1,2})?", fullmatch=True))]:
        got = ctf_native.float_of_text(form.encode(), any_processor)
        assert got is not None and (got == abs(nearest(Fraction(form))) if np.isinf(got) else got == nearest(Fraction(form))), (
            form
        )


@pytest.mark.parametrize("any_processor", [True, False])
@given(bits=st.integers(1, 0x7F7FFFFE))
def test_the_middle_between_two_floats_goes_to_the_even_one(any_processor, bits):
    low, high = (Fraction(float(np.uint32(b).view(np.float32))) for b in (bits, bits + 1))
    middle = decimal((low + high) / 2)
    more = middle + "1" if "." in middle else middle + ".1"
    for form in (middle, "-" + middle, more):
        got = ctf_native.float_of_text(form.encode(), any_processor)
        assert got == nearest(Fraction(form)), form


def test_what_is_a_number():
    for form, wanted in {"0": 0, "-0.0": 0, ".5": 0.5, "3.": 3, "+1e2": 100, "1E-60": 0, "0e999": 0, "00012.50": 12.5}.items():
        assert ctf_native.float_of_text(form.encode()) == wanted, form
    for form in ("", ".", "-", "e5", "1e", "1e+", "0x10", "1,5", "--1", "nan", "1 ", "1.2.3"):
        assert ctf_native.float_of_text(form.encode()) is None, form
    assert np.isinf(ctf_native.float_of_text(b"1e39")) and np.isinf(ctf_native.float_of_text(b"-" + b"9" * 60))


def read_all(path, streams, **options):
    with MinibatchSource(CTFDeserializer(path, streams), max_sweeps=1, randomize=False, **options) as source:
        batches = drain(source, 10**6)
    assert len(batches) == 1
    return {name: d.as_sequences() for name, d in batches[0].items()}


F = StreamDefs(a=StreamDef(field="S0", shape=1), b=StreamDef(field="S1", shape=1))

# What CNTK 2.7 gave for the same files.
CNTK = [
    ("0 |S0 0 |S1 0\n0 |S0 1 |S1 1\n0 |S0 2\n1 |S0 4\n1 |S0 5 |S1 1\n", [[0, 1, 2], [4, 5]], [[0, 1], [1]]),
    ("0 |S0 1 |S1 2\n|S0 3 |S1 4\n1 |S0 1 |S1 3\n", [[1, 3], [1]], [[2, 4], [3]]),
    ("0 |S0 1 |S1 2\n1 |S0 3 |S1 4\n0 |S0 1 |S1 3\n", [[1], [3], [1]], [[2], [4], [3]]),
    ("|S0 1 |S1 2\n|S0 3 |S1 4", [[1], [3]], [[2], [4]]),
    ("7\t|# a remark |S0 1 |# and | S1 |S1 2\r\n8\t|S2 9 9 9|S0 3|S1 4\r\n", [[1], [3]], [[2], [4]]),
]


@pytest.mark.usefixtures("either_text")
@pytest.mark.parametrize(("content", "a", "b"), CNTK)
def test_files_are_read_as_cntk_reads_them(tmp_path, content, a, b):
    path = tmp_path / "x.ctf"
    path.write_text(content.replace("| S1 ", ""), newline="")
    got = read_all(path, F)
    assert [x.ravel().tolist() for x in got["a"]] == a and [x.ravel().tolist() for x in got["b"]] == b
    path.write_bytes(
        b"\xef\xbb\xbf\n\n" + path.read_bytes().replace(b"\n", b"\n \t\n")
    )  # a mark of the order of bytes, blank lines
    got = read_all(path, F)
    assert [x.ravel().tolist() for x in got["a"]] == a and [x.ravel().tolist() for x in got["b"]] == b


@pytest.mark.usefixtures("either_text")
def test_what_is_written_is_read_back(tmp_path):
    items, d = text(tmp_path / "x.ctf")
    got = read_all(
        tmp_path / "x.ctf",
        StreamDefs(f=StreamDef(shape=3), l=StreamDef(shape=4, is_sparse=True), v=StreamDef(field="u", shape=(1, 2))),
    )
    for i, item in enumerate(items):
        assert np.array_equal(got["f"][i], item["f"]) and (got["l"][i] != item["l"]).nnz == 0
        assert got["v"][i].shape == (1, 1, 2) and np.array_equal(got["v"][i].reshape(1, 2), item["u"])
    assert d.count == len(items) and got["l"][0].dtype == np.float32 and d.stream_lengths("u") is None


@given(
    rows=st.lists(st.lists(FINITE, min_size=2, max_size=2), min_size=1, max_size=5),
    sparse=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_numbers_come_back(tmp_path_factory, rows, sparse, dtype):
    path = tmp_path_factory.mktemp("ctf") / "x.ctf"
    array = np.array(rows, dtype)
    write_ctf(path, [{"x": array}], ["x"] if sparse else ())
    got = read_all(path, StreamDefs(x=StreamDef(shape=2, is_sparse=sparse)))["x"][0]
    assert np.array_equal(got.toarray() if sparse else got, array.astype(np.float32))


def test_streams_of_the_older_reader(tmp_path):
    items, _ = text(tmp_path / "x.ctf")
    d = CTFDeserializer(
        tmp_path / "x.ctf", [StreamConfiguration("features", 3, stream_alias="f"), StreamConfiguration("l", 4, is_sparse=True)]
    )
    assert d.streams["features"].shape == (3,) and d.streams["l"].storage_format == "sparse"


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_chunks_and_threads_find_the_same_index(tmp_path, chunk, threads):
    items = sequences(3, tuple(1 + i * 7 % 11 for i in range(60)))
    path = tmp_path / "x.ctf"
    write_ctf(path, items)
    for content in (
        path.read_bytes(),
        path.read_bytes().rstrip(b"\n"),
        b"\n".join(line.split(b" ", 1)[1] for line in path.read_bytes().splitlines()),
    ):
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        whole, found = ctf_native.scan(fd, len(content), 1, 1 << 20), ctf_native.scan(fd, len(content), threads, chunk)
        os.close(fd)
        assert np.array_equal(whole[0], found[0]) and dict_of(whole[2]) == dict_of(found[2]) and whole[3] == found[3] == []
        assert (whole[1] is None and found[1] is None) or np.array_equal(whole[1], found[1])


LINES = ["0 |a 1", "1 |a 2 |b 3", "|a 4", ".", "", " ", "0", "0.", "1 |# x", "1\t|b"]


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=12),
    chunk=st.integers(1, 9),
    threads=st.integers(1, 4),
    end=st.sampled_from(["", "\n"]),
)
def test_chunks_and_threads_find_the_same_index_of_any_lines(tmp_path_factory, lines, chunk, threads, end):
    path = tmp_path_factory.mktemp("ctf") / "x.ctf"
    path.write_text("\n".join(lines) + end)
    fd, size = os.open(path, os.O_RDONLY), path.stat().st_size
    whole, text = ctf_native.scan(fd, size, 1, 1 << 20), ctf_native.text_of(fd, size)
    every = [ctf_native.scan(fd, size, threads, chunk), ctf_native.scan(-1, size, threads, chunk, text)]  # -1: nothing is read
    os.close(fd)
    for found in every:
        assert np.array_equal(whole[0], found[0]) and dict_of(whole[2]) == dict_of(found[2])
        assert (whole[1] is None and found[1] is None) or np.array_equal(whole[1], found[1])


def dict_of(columns):
    return {name: count.tolist() for name, count in columns}


def test_the_index_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    items, _ = text(tmp_path / "x.ctf")
    streams = StreamDefs(f=StreamDef(shape=3))
    calls = []
    scan = ctf_native.scan
    monkeypatch.setattr(ctf_native, "scan", lambda *a, **k: calls.append(1) or scan(*a, **k))
    for cache in (True, tmp_path / "cache"):
        calls.clear()
        first = CTFDeserializer(tmp_path / "x.ctf", streams, cache_index=cache)
        again = CTFDeserializer(
            tmp_path / "x.ctf", StreamDefs(g=StreamDef(field="l", shape=4, is_sparse=True)), cache_index=cache
        )
        assert (
            len(calls) == 1
            and first.identity == again.identity
            and again.stream_lengths("g").tolist() == [len(i["f"]) for i in items]
        )
    assert (tmp_path / "x.ctf.index").exists() and len(list((tmp_path / "cache").iterdir())) == 1
    os.utime(tmp_path / "x.ctf", ns=(1, 1))
    CTFDeserializer(tmp_path / "x.ctf", streams, cache_index=True)
    assert len(calls) == 2
    index = tmp_path / "x.ctf.index"
    for broken in (index.read_bytes()[:100], index.read_bytes()[:-64], b"", b"cogkit\0I" + b"\xff" * 8):
        index.write_bytes(broken)
        CTFDeserializer(tmp_path / "x.ctf", streams, cache_index=True)
        assert calls.pop()


FAULTS = [  # (what is put in place of "|f 4 5 6" in line 3, sequence 1; what is said; where)
    (b"|f 4 5", "stream 'f': expected 3 numbers in a sample, got 2", None),
    (b"|f 4 5 6 7", "stream 'f': expected 3 numbers in a sample, got 4", b"7"),
    (b"|f 4 x5 6", "stream 'f': expected a number, got 'x5'", b"x5"),
    (b"|f 4 5- 6", "stream 'f': expected a number, got '5-'", b"5-"),
    (b"|f 4 NaN 6", "stream 'f': expected a finite float32, got 'NaN'", b"NaN"),
    (b"|f 4 -inf 6", "stream 'f': expected a finite float32, got '-inf'", b"-inf"),
    (b"|f 4 1e39 6", "stream 'f': expected a finite float32, got '1e39'", b"1e39"),
    (b"|f 4 \xff 6", "stream 'f': expected a number, got '\ufffd'", b"\xff"),
    (b"|f 4 5 6 |# \xc3(", "expected UTF-8, got the byte 0xc3", b"\xc3"),
    (b"|f 4 5 6 |f 1 2 3", "stream 'f': expected one sample in a line, got two", b"|f 1"),
    (b"4 5 6", "expected '|' and the name of a stream, got '4 5 6 |l 2:1'", b"4 5"),
    (b"|f 4 5 6 | 7", "expected '|' and the name of a stream, got '| 7 |l 2:1\\n2'", b"| 7"),
    (b"|f 4 5 6 |s 4:1", "stream 's': expected an index in [0, 4), got '4:1'", b"4:1"),
    (b"|f 4 5 6 |s 2 3:1", "stream 's': expected index:value, got '2'", b"2 3:1"),
    (b"|f 4 5 6 |s -1:1", "stream 's': expected index:value, got '-1:1'", b"-1:1"),
    (b"|f 4 5 6 |s 1:nan", "stream 's': expected a finite float32, got 'nan'", b"nan"),
]


@pytest.mark.usefixtures("either_text")
@pytest.mark.parametrize(("piece", "reason", "at"), FAULTS)
def test_faults_are_named_by_file_byte_line_and_sequence(tmp_path, piece, reason, at):
    path = tmp_path / "x.ctf"
    before = b"0 |f 1 2 3 |s 0:1 |l 0:1\n1 |f 1 2 3 |s 1:1 |l 1:1\n1 "
    path.write_bytes(before + piece + b" |l 2:1\n2 |f 7 8 9 |s 1:1 |l 3:1\n")
    streams = StreamDefs(f=StreamDef(shape=3), s=StreamDef(shape=4, is_sparse=True), l=StreamDef(shape=4, is_sparse=True))
    with MinibatchSource(CTFDeserializer(path, streams), max_sweeps=2, randomize=False) as source, pytest.raises(DataError) as e:
        source.next_minibatch(100)
    assert reason in str(e.value) and str(path) in str(e.value) and "line 3" in str(e.value) and "sequence '1'" in str(e.value)
    if at:
        assert f"byte {len(before) + piece.index(at)} " in str(e.value)
    with MinibatchSource(CTFDeserializer(path, streams), max_sweeps=2, randomize=False, max_errors=1) as source:
        batches = drain(source, 100)
        assert [d["f"].value[:, 0].tolist() for d in batches] == [[1, 7, 1, 7]] and batches[0]["l"].value.indices.tolist() == [
            0,
            3,
            0,
            3,
        ]
        assert [(f.file, f.line, f.key) for f in source.errors] == [(str(path), 3, "1")]  # once, however many sweeps


def test_what_a_whole_file_may_lack(tmp_path):
    def wrong(content, message, streams=F, **options):
        (tmp_path / "x.ctf").write_bytes(content)
        with (
            pytest.raises(DataError) as e,
            MinibatchSource(CTFDeserializer(tmp_path / "x.ctf", streams), max_sweeps=1, **options) as s,
        ):
            drain(s, 10)
        assert message in str(e.value), e.value

    wrong(b"", "expected data, got no sequence at all")
    wrong(b"0 |S0 1\n", "expected stream 'S1' in the file, got S0")
    wrong(b"0 |S0 1 |S1 1\n1 |S0 1\n", "sequence '1': stream 'S1': expected a sample or more in the sequence, got none")
    wrong(b"\0\1\2|\n" * 3, "expected stream 'S0' in the file, got none")
    wrong(b"".join(b"|s%d 1\n" % i for i in range(3000)), "got more than 1000 names")
    with pytest.raises(DataError, match="expected a text file, got No such file"):
        CTFDeserializer(tmp_path / "none", F)
    (tmp_path / "x.ctf").write_bytes(b"0 |S0 1 |S1 1\n" * 3)
    for streams, message in [
        ({}, "expected one stream or more"),
        (StreamDefs(a=StreamDef(field="S0")), "expected the shape of a sample"),
        (StreamDefs(a=StreamDef(field="S0", shape=1, scp="x")), "scp is not for text"),
        (StreamDefs(a=StreamDef(field="S0", shape=1), b=StreamDef(field="S0", shape=1)), "each field of the file in one stream"),
    ]:
        with pytest.raises(ValueError, match=message):
            CTFDeserializer(tmp_path / "x.ctf", streams)


def test_a_file_that_shrinks_or_changes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(ctf, "IN_MEMORY", -1)
    path = tmp_path / "x.ctf"
    for now, message in [
        (b"0 |S0 1 |S1 1\n", "it was cut after its index was made"),
        (b"0 |S0 1 \n|S0 1|S1 1\n0      \n", "when the file was indexed"),
    ]:
        path.write_bytes(b"0 |S0 1 |S1 1\n0 |S0 1 |S1 1\n")
        d = CTFDeserializer(path, F)
        path.write_bytes(now)
        with pytest.raises(DataError, match=message), MinibatchSource(d, max_sweeps=1) as source:
            source.next_minibatch(10)


def test_small_files_are_read_as_they_were_when_they_were_opened(tmp_path):
    path = tmp_path / "x.ctf"
    path.write_bytes(b"0 |S0 1 |S1 1\n1 |S0 1 |S1 1")
    d = CTFDeserializer(path, F)
    path.write_bytes(b"")
    with MinibatchSource(d, max_sweeps=1) as source:
        assert source.next_minibatch(10)[source["a"]].num_samples == 2


def test_writers_refuse_what_cannot_be_read_back(tmp_path):
    for rows, kind, message in [
        ({"x": np.array([[np.nan]])}, DataError, "expected finite numbers, got nan"),
        ({"a b": np.zeros((1, 1))}, ValueError, "expected stream names without spaces"),
        ({"x": np.array([["u"]])}, ValueError, "expected numbers"),
        ({}, ValueError, "one sample or more in sequence 0"),
    ]:
        with pytest.raises(kind, match=message):
            write_ctf(tmp_path / "x.ctf", [rows])
        assert not list(tmp_path.iterdir())


def test_cntks_function_for_one_sequence():
    # What CNTK 2.7 gives.
    assert sequence_to_cntk_text_format(0, {"W": np.array([[[1, 0], [1, 0]], [[5, 6], [7, 8]]]), "L": np.array([[[2]]])}) == (
        "0\t|L 2 |W 1 0 1 0\n0\t|W 5 6 7 8"
    )
    assert sequence_to_cntk_text_format(0, {"W": np.array([])}) == ""
    assert sequence_to_cntk_text_format(3, {"s": sp.csr_matrix(np.eye(3)[:2])}) == "3\t|s 0:1\n3\t|s 1:1"
    with pytest.raises(ValueError):
        sequence_to_cntk_text_format(0, {"A": [object()]})
