"""The order contract of sequences, frames and pieces: a function of (seed, sweep), whatever the sizes, ranks and positions."""

from collections import Counter

import numpy as np
import pytest
from data_corpus import LENGTHS, drain, sequences, speech, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse as sp

from cogkit.data import (
    ArrayDeserializer,
    CTFDeserializer,
    MinibatchSource,
    StreamDef,
    StreamDefs,
    StreamInformation,
    UserDeserializer,
    write_ctf,
)
from cogkit.data.packing import order
from cogkit.errors import DataError

N, TOTAL = len(LENGTHS), sum(LENGTHS)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return text(tmp_path_factory.mktemp("sequences") / "x.ctf")


def numbers(batches):
    return [int(i) for b in batches for i in b["f"].sequences]


def take(source, sizes, **options):
    out = []
    for size in sizes:
        batch = source.next_minibatch(size, **options)
        if not batch:
            break
        out.append({info.name: d for info, d in batch.items()})
    return out


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("randomize", [True, False])
def test_each_sequence_once_a_sweep_with_all_its_streams(corpus, randomize, prefetch):
    items, d = corpus
    with MinibatchSource(d, max_sweeps=2, randomization_seed=5, randomize=randomize, prefetch=prefetch) as source:
        batches = drain(source, 8)
        end = source.current_position
    expected = [int(i) for sweep in (0, 1) for i in order(5, sweep, N, randomize=randomize)]
    assert numbers(batches) == expected and end["minibatchSourcePosition"] == 2 * TOTAL and end["sequence"] == 2 * N
    for b in batches:
        f, l, u = b["f"], b["l"], b["u"]
        assert f.num_samples == f.lengths.sum() == len(f.value) and f.num_sequences == len(f) == len(f.lengths)
        assert f.lengths.dtype == np.int64 and u.lengths.tolist() == [1] * len(f) and sp.isspmatrix_csr(l.value)
        for k, i in enumerate(f.sequences):
            assert np.array_equal(f.as_sequences()[k], items[i]["f"]) and np.array_equal(u.as_sequences()[k], items[i]["u"])
            assert (l.as_sequences()[k] != items[i]["l"]).nnz == 0 and source.key_of(int(i)) == str(i)
        assert (
            f.value.flags.c_contiguous
            and f.value.dtype == np.float32
            and f.asarray().shape == f.shape == (len(f), max(f.lengths), 3)
        )


@given(sizes=SIZES, prefetch=st.sampled_from([0, 1, 3]), seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_minibatches_are_as_full_as_they_can_be(corpus, sizes, prefetch, seed):
    _, d = corpus
    with MinibatchSource(d, randomization_seed=seed, prefetch=prefetch) as source:
        batches = take(source, sizes)
    place = 0
    for size, b in zip(sizes, batches, strict=True):
        expected = []
        while not expected or sum(LENGTHS[i] for i in expected) <= size:
            expected.append(int(order(seed, place // N, N)[place % N]))
            place += 1
        if len(expected) > 1:
            expected.pop()
            place -= 1
        elif sum(LENGTHS[i] for i in expected) < size:
            continue
        assert b["f"].sequences.tolist() == expected
        assert b["f"].end_of_sweep == (place // N > (place - len(expected)) // N)


# What CNTK 2.7 gave for two sequences, of 4 and 3 features and one label each: samples of features and labels, end of sweep.
CNTK = [
    ({}, [7, 1], [(7, 2, True), (4, 1, False)]),
    ({"defines": True}, [2, 3], [(7, 2, True), (11, 3, True)]),
    ({"max_samples": 5}, [3, 9, 9], [(4, 1, False), (3, 1, True)]),
    ({"max_sweeps": 1}, [1, 1, 1], [(4, 1, False), (3, 1, True)]),
    ({}, [1000], [(7 * 142 + 4, 285, True)]),
]


@pytest.mark.parametrize(("options", "sizes", "expected"), CNTK)
def test_sizes_and_ends_are_cntks(tmp_path, options, sizes, expected):
    write_ctf(tmp_path / "x.ctf", [{"x": np.ones((n, 1)), "y": np.ones((1, 1))} for n in (4, 3)])
    options = dict(options)
    streams = StreamDefs(x=StreamDef(shape=1), y=StreamDef(shape=1, defines_mb_size=options.pop("defines", False)))
    with MinibatchSource(CTFDeserializer(tmp_path / "x.ctf", streams), randomize=False, **options) as source:
        got = [(b["x"].num_samples, b["y"].num_samples, b["x"].end_of_sweep) for b in take(source, sizes)]
    assert got == expected


def test_arrays_and_masks_are_cntks(tmp_path):
    write_ctf(tmp_path / "x.ctf", [{"x": np.arange(4)[:, None]}, {"x": np.arange(4, 7)[:, None]}])
    with MinibatchSource(
        CTFDeserializer(tmp_path / "x.ctf", StreamDefs(x=StreamDef(shape=1))), max_sweeps=1, randomize=False
    ) as source:
        x = drain(source, 100)[0]["x"]
    assert x.asarray().tolist() == [[[0], [1], [2], [3]], [[4], [5], [6], [0]]] and x.data.mask.tolist() == [
        [2, 1, 1, 1],
        [2, 1, 1, 0],
    ]
    assert x.shape == (2, 4, 1) and np.asarray(x).shape == (2, 4, 1) and [len(s) for s in x.as_sequences()] == [4, 3]


MODES = [{}, {"frame_mode": True}, {"frame_mode": True, "randomization_window_in_samples": 5}, {"truncation_length": 3}]


def content(batches, mode):
    """What minibatches have, whoever got it."""
    out = Counter()
    for b in batches:
        if mode.get("truncation_length"):
            for i, slot, begins, rows in zip(b["f"].sequences, b["f"].slots, b["f"].begins, b["f"].as_sequences(), strict=True):
                out[int(i), int(slot), bool(begins), rows.tobytes()] += 1
        else:
            out.update(row.tobytes() for row in b["f"].value)
    return out


@pytest.mark.parametrize("mode", MODES)
@given(before=st.lists(st.integers(1, 40), max_size=5), after=st.lists(st.integers(1, 40), max_size=5), ranks=st.integers(1, 4),
       others=st.integers(1, 4), prefetch=st.sampled_from([0, 2]))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_resume_on_another_number_of_ranks(even, mode, before, after, ranks, others, prefetch):
    def source():
        return MinibatchSource(even, randomization_seed=5, prefetch=prefetch, **mode)

    with source() as whole:
        take(whole, before)
        expected = content(take(whole, after), mode)
    states = []
    for rank in range(ranks):
        with source() as s:
            take(s, before, num_data_partitions=ranks, partition_index=rank)
            states.append(s.get_checkpoint_state())
    assert all(s == states[0] for s in states)
    got = Counter()
    for rank in range(others):
        with source() as s:
            s.restore_from_checkpoint(states[0])
            got += content(take(s, after, num_data_partitions=others, partition_index=rank), mode)
    assert got == expected


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    path = tmp_path_factory.mktemp("even") / "x.ctf"
    write_ctf(path, [{"f": i["f"], "l": i["l"]} for i in sequences()])
    return CTFDeserializer(path, StreamDefs(f=StreamDef(shape=3), l=StreamDef(shape=4, is_sparse=True)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("randomize", [True, False])
def test_every_sample_once_a_sweep(even, mode, randomize):
    items = sequences()
    rows = Counter(r.tobytes() for i in items for r in i["f"])
    with MinibatchSource(even, max_sweeps=3, randomize=randomize, **mode) as source:
        batches = drain(source, 7)
        assert source.get_checkpoint_state()["minibatchSourcePosition"] == 3 * TOTAL
    got = Counter(r.tobytes() for b in batches for r in b["f"].value)
    assert got == Counter({k: 3 * n for k, n in rows.items()})
    of = {r.tobytes(): int(c) for i in items for r, c in zip(i["f"], i["l"].indices, strict=True)}
    assert all(of[r.tobytes()] == c for b in batches for r, c in zip(b["f"].value, b["l"].value.indices, strict=True))
    assert sum(b["f"].end_of_sweep for b in batches) == 3 and batches[-1]["f"].end_of_sweep


def test_frames_are_shuffled_across_utterances_within_windows(even):
    items = sequences()
    where = {r.tobytes(): k for k, i in enumerate(items) for r in i["f"]}
    for window in (0, 10):
        with MinibatchSource(
            even, max_sweeps=1, frame_mode=True, randomization_window_in_samples=window, randomization_seed=3
        ) as source:
            batches = drain(source, TOTAL)
        d = batches[0]["f"]
        assert len(batches) == 1 and d.lengths is None and d.num_sequences == d.num_samples == TOTAL and d.asarray() is d.value
        seen = [where[r.tobytes()] for r in d.value]
        ordered = [int(i) for i in order(3, 0, N)]
        assert seen != sorted(seen, key=ordered.index)
        if window:
            begins = np.concatenate([[0], np.cumsum([LENGTHS[i] for i in ordered])])
            windows = [set(np.array(ordered)[begins[:-1] // window == w]) for w in range(-(-TOTAL // window))]
            place = {i: w for w, s in enumerate(windows) for i in s}
            assert [place[i] for i in seen] == sorted(place[i] for i in seen)


def test_pieces_follow_each_other_in_their_slots(even):
    items = sequences()
    with MinibatchSource(even, max_sweeps=2, truncation_length=3) as source:
        batches = drain(source, 7)  # two slots
    rest: dict[int, tuple[int, int]] = {}
    finished = Counter()
    for b in batches:
        d = b["f"]
        assert len(set(d.slots)) == len(d.slots) <= 2 and max(d.lengths) <= 3
        for i, slot, begins, rows in zip(
            d.sequences.tolist(), d.slots.tolist(), d.begins.tolist(), d.as_sequences(), strict=True
        ):
            if begins:
                assert slot not in rest
                rest[slot] = (i, 0)
            sequence, offset = rest[slot]
            assert sequence == i and np.array_equal(rows, items[i]["f"][offset : offset + 3])
            rest[slot] = (i, offset + len(rows))
            if offset + len(rows) == LENGTHS[i]:
                finished[i] += 1
                del rest[slot]
    assert finished == Counter({i: 2 for i in range(N)}) and not rest
    assert [b["l"].slots.tolist() for b in batches] == [b["f"].slots.tolist() for b in batches]


def test_pieces_when_the_number_of_slots_changes(even):
    with MinibatchSource(even, max_sweeps=1, truncation_length=2, prefetch=0) as source:
        batches = take(source, [8, 4, 2, 2, 8, 8, 4, 8, 8, 8, 8, 8, 8, 8])
    assert sum(b["f"].num_samples for b in batches) == TOTAL
    assert Counter(r.tobytes() for b in batches for r in b["f"].value) == Counter(
        r.tobytes() for i in sequences() for r in i["f"]
    )


def test_a_position_of_cntk_is_one_here(corpus):
    _, d = corpus
    with MinibatchSource(d, prefetch=0) as source:
        take(source, [8, 8, 30, 8])
        state = source.get_checkpoint_state()
        source.current_position = {"minibatchSourcePosition": state["minibatchSourcePosition"]}
        assert source.get_checkpoint_state() == state
        for bad in ({"minibatchSourcePosition": 3, "sequence": -1}, {"minibatchSourcePosition": 3, "sequence": "x"}):
            with pytest.raises(DataError, match="sequence: expected a whole number"):
                source.restore_from_checkpoint(bad)
    with (
        MinibatchSource(d, prefetch=0, randomization_seed=1) as other,
        pytest.raises(DataError, match="made with seed = 1, got 0"),
    ):
        other.restore_from_checkpoint(state)


def test_files_are_joined_by_id(tmp_path):
    def ctf(name, ids):
        (tmp_path / name).write_text("".join(f"{i} |{name} {i}\n" * (1 + i % 3) for i in ids))
        return CTFDeserializer(tmp_path / name, {name: StreamDef(shape=1)})

    a, b = ctf("a", [4, 17, 2**63 + 9, 5]), ctf("b", [2**63 + 9, 5, 4, 8, 17])
    with MinibatchSource([a, b, ArrayDeserializer({"n": np.arange(4)})], max_sweeps=1) as source:
        batches = drain(source, 3)
    for x in batches:
        assert np.array_equal(x["a"].value, x["b"].value) and x["n"].lengths is None
        assert np.array_equal(
            np.float32([4, 17, 2**63 + 9, 5])[x["n"].value.astype(int).ravel()], [s[0, 0] for s in x["a"].as_sequences()]
        )
    c = ctf("c", [4, 17, 17 + 1, 17])
    for parts, message, key in [([a, c], "expected this key in", "9223372036854775817"), ([c, a], "expected this key in", "18")]:
        with pytest.raises(DataError) as e:
            MinibatchSource(parts)
        assert message in str(e.value) and f"sequence '{key}'" in str(e.value)
    with MinibatchSource([a, c], max_sweeps=1, randomize=False, max_errors=3) as source:
        assert [b["a"].value.ravel().tolist() for b in drain(source, 100)] == [[4, 4, 17, 17, 17]]
        assert [f.key for f in source.errors] == ["17", "9223372036854775817", "5"]


def test_streams_of_unlike_lengths_have_no_frames(corpus):
    _, d = corpus
    for mode in ({"frame_mode": True}, {"truncation_length": 3}):
        with pytest.raises(DataError, match="expected streams of one length .*, got f of 3, l of 3, u of 1"):
            MinibatchSource(d, **mode)
        with MinibatchSource(d, max_sweeps=1, max_errors=10, **mode) as source:
            assert sum(b["f"].num_samples for b in drain(source, 10)) == 2 and len(source.errors) == 6
    with pytest.raises(ValueError, match="frame_mode or truncation_length, got both"):
        MinibatchSource(d, frame_mode=True, truncation_length=3)
    with pytest.raises(ValueError, match="one stream at most with defines_mb_size"):
        MinibatchSource(
            CTFDeserializer(
                d.filename, StreamDefs(f=StreamDef(shape=3, defines_mb_size=True), u=StreamDef(shape=2, defines_mb_size=True))
            )
        )


def test_faulty_sequences_change_no_position(tmp_path):
    items, _ = text(tmp_path / "x.ctf")
    lines = (tmp_path / "x.ctf").read_text().splitlines(keepends=True)
    at = [k for k, line in enumerate(lines) if line.startswith(("2 ", "6 "))]
    for k in (at[0], at[-1]):
        lines[k] = lines[k].replace("|f ", "|f x")
    (tmp_path / "x.ctf").write_text("".join(lines))
    streams = StreamDefs(f=StreamDef(shape=3), l=StreamDef(shape=4, is_sparse=True))
    d = CTFDeserializer(tmp_path / "x.ctf", streams)
    for mode in MODES:
        with MinibatchSource(d, max_sweeps=2, max_errors=2, **mode) as source:
            batches = drain(source, 6)
            assert (
                sorted(f.key for f in source.errors) == ["2", "6"]
                and source.get_checkpoint_state()["minibatchSourcePosition"] == 2 * TOTAL
            )
        good = Counter(r.tobytes() for i, item in enumerate(items) if i not in (2, 6) for r in item["f"])
        assert Counter(r.tobytes() for b in batches for r in b["f"].value) == Counter({k: 2 * n for k, n in good.items()})
        with (
            MinibatchSource(d, max_sweeps=2, max_errors=1, **mode) as source,
            pytest.raises(DataError, match="expected at most 1 faults") as e,
        ):
            drain(source, 6)
        assert "sequence '2'" in str(e.value) and "sequence '6'" in str(e.value)


class Chunks(UserDeserializer):
    """Six chunks; in chunk c sequences of c + 1 rows that say where they are from."""

    def __init__(self, per_chunk=4):
        super().__init__()
        self.asked, self.per_chunk = [], per_chunk

    def stream_infos(self):
        return [StreamInformation("f", 0, "dense", np.float32, (2,)), StreamInformation("s", 1, "sparse", np.float32, (9,))]

    def num_chunks(self):
        return 6

    def get_chunk(self, chunk_id):
        self.asked.append(chunk_id)
        f = [np.full((chunk_id + 1, 2), [chunk_id, i], np.float32) for i in range(self.per_chunk)]
        return {"f": f, "s": sp.csr_matrix(np.eye(9, dtype=np.float32)[: self.per_chunk])}


@pytest.mark.parametrize("randomize", [True, False])
def test_chunks_of_users(randomize):
    d = Chunks()
    with MinibatchSource(d, max_sweeps=2, randomize=randomize, randomization_window_in_chunks=2) as source:
        batches = drain(source, 5)
    seen = [tuple(s[0].astype(int)) for b in batches for s in b["f"].as_sequences()]
    assert (
        len(seen) == 48
        and set(Counter(seen).values()) == {2}
        and all(len(s) == s[0, 0] + 1 for b in batches for s in b["f"].as_sequences())
    )
    assert [int(k) for b in batches for k in b["s"].value.indices] == [i for _, i in seen]
    assert (seen == sorted(seen[:24]) * 2) != randomize
    if randomize:
        assert all(len({c for c, _ in seen[k : k + 8]}) == 2 for k in range(0, 48, 8))  # two chunks at a time
        assert len({c for c, _ in seen[:4]}) == 2 or len({c for c, _ in seen[8:12]}) == 2
    assert len(d.asked) <= 6 + 2 * 6  # once to count, once a sweep


def test_chunks_that_are_not_well_formed():
    class Bad(Chunks):
        def get_chunk(self, chunk_id):
            return {"f": [np.zeros((1, 3), np.float32)], "s": sp.csr_matrix((1, 9))}

    with pytest.raises(DataError, match=r"Bad, chunk 0, stream 'f': expected samples of shape \(2,\), got \(1, 3\)"):
        MinibatchSource(Bad())


def test_sequences_of_speech_are_joined_by_key(tmp_path):
    items, parts = speech(tmp_path)
    with MinibatchSource(parts, max_sweeps=1) as source:
        for b in drain(source, 8):
            for i, f, l in zip(b["f"].sequences.tolist(), b["f"].as_sequences(), b["l"].as_sequences(), strict=True):
                assert (
                    np.array_equal(f, items[i][1]) and np.array_equal(l.indices, items[i][2]) and source.key_of(i) == items[i][0]
                )
