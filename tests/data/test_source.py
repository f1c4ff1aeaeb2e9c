"""MinibatchSource as CNTK v2 has it, its errors, and the thread behind it."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from cogkit import data as D
from cogkit.data import ArrayDeserializer, MinibatchSource, MinibatchSourceFromData, StreamDef, StreamDefs, transforms
from cogkit.errors import DataError

N = 10
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 6), dtype=np.uint8)


def numbers(**options):
    return MinibatchSource(ArrayDeserializer({"x": np.arange(N, dtype=np.float32)}), **options)


def rows(source, size, calls, **options):
    out = []
    for _ in range(calls):
        batch = source.next_minibatch(size, **options)
        if not batch:
            out.append({})
            break
        d = batch[source.streams.x]
        out.append((d.asarray().astype(int).tolist(), d.end_of_sweep, source.current_position["minibatchSourcePosition"]))
    return out


# What CNTK 2.7 gave for ten samples 0..9 and the same calls, with its CTFDeserializer (without randomisation).
CNTK = [
    ({"max_sweeps": 1}, 4, [([0, 1, 2, 3], False, 4), ([4, 5, 6, 7], False, 8), ([8, 9], True, 10), {}]),
    ({"max_samples": D.FULL_DATA_SWEEP}, 4, [([0, 1, 2, 3], False, 4), ([4, 5, 6, 7], False, 8), ([8, 9], True, 10), {}]),
    ({"max_sweeps": 2}, 4, [([0, 1, 2, 3], False, 4), ([4, 5, 6, 7], False, 8), ([8, 9, 0, 1], True, 12),
                            ([2, 3, 4, 5], False, 16), ([6, 7, 8, 9], True, 20), {}]),
    ({"max_samples": 13}, 4, [([0, 1, 2, 3], False, 4), ([4, 5, 6, 7], False, 8), ([8, 9, 0, 1], True, 12),
                              ([2], False, 13), {}]),
    ({"max_sweeps": 3}, 30, [([*range(10)] * 3, True, 30), {}]),
]  # fmt: skip


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize(("options", "size", "expected"), CNTK)
def test_ends_and_sweeps_are_cntks(options, size, expected, prefetch):
    with numbers(randomize=False, prefetch=prefetch, **options) as source:
        assert rows(source, size, 9) == expected


def test_partitions_are_cntks_but_for_the_position():
    with numbers(randomize=False, max_sweeps=2) as source:
        assert [r[0] for r in rows(source, 4, 5, num_data_partitions=2, partition_index=1)] == [
            [1, 3],
            [5, 7],
            [9, 1],
            [3, 5],
            [7, 9],
        ]
        assert source.next_minibatch(4) == {}


def test_a_rank_may_get_no_rows_but_never_one_minibatch_less():
    for rank in range(3):
        with numbers(randomize=False, max_sweeps=1) as source:
            got = rows(source, 4, 9, num_data_partitions=3, partition_index=rank)
            assert [g[1:] for g in got[:-1]] == [(False, 4), (False, 8), (True, 10)] and got[-1] == {}
            assert len(got[2][0]) == [1, 0, 1][rank]  # places 8 and 9


def test_streams_and_input_map():
    source = numbers(prefetch=0)
    info = source.streams.x
    assert info == source["x"] == source.stream_info("x") == source.stream_infos()[0] == source.streams["x"]
    assert (info.name, info.shape, info.dtype, str(info)) == ("x", (), np.float32, "x([])")
    batch = source.next_minibatch(3, input_map={"variable": info, "other": "x"})
    assert set(batch) == {"variable", "other"}
    d = batch["variable"]
    assert (len(d), d.num_samples, d.num_sequences, d.number_of_samples, d.shape, d.is_sparse) == (3, 3, 3, 3, (3,), False)
    assert d.data.asarray() is d.value and np.asarray(d, np.float64).dtype == np.float64 and len(d.as_sequences()) == 3
    assert source.is_infinite() and not numbers(max_sweeps=1).is_infinite()


def wrong(call, kind, text):
    with pytest.raises(kind) as e:
        call()
    assert text in str(e.value)


def test_errors_say_what_was_expected():
    s = numbers(prefetch=0)
    wrong(lambda: s.next_minibatch(0), ValueError, "minibatch_size_in_samples: expected a whole number of 1 or more, got 0")
    wrong(lambda: s.next_minibatch(2.5), TypeError, "minibatch_size_in_samples: expected a whole number of 1 or more, got 2.5")
    wrong(
        lambda: s.next_minibatch(2, num_data_partitions=2, partition_index=2),
        ValueError,
        "less than num_data_partitions = 2, got 2",
    )
    wrong(lambda: s.next_minibatch(2, {"v": "y"}), ValueError, "input_map: expected streams of this source (x), got 'y' for 'v'")
    wrong(lambda: s["y"], ValueError, "expected one of its streams (x), got 'y'")
    wrong(lambda: s.streams.y, AttributeError, "y")
    wrong(lambda: numbers(max_samples=3, max_sweeps=1), ValueError, "expected max_samples or max_sweeps, got both")
    wrong(lambda: numbers(max_samples=0), ValueError, "max_samples: expected a whole number of 1 or more, got 0")
    wrong(lambda: numbers(randomization_seed=-1), ValueError, "randomization_seed: expected a whole number of 0 or more, got -1")
    wrong(lambda: MinibatchSource([]), ValueError, "expected one deserializer or more, got none")
    wrong(lambda: MinibatchSource([3]), TypeError, "expected deserializers, got int")
    a, b = (ArrayDeserializer({k: np.zeros(n)}) for k, n in (("a", 3), ("b", 4)))
    wrong(lambda: MinibatchSource([a, b]), DataError, "expected deserializers of one length, got 3, 4 sequences")
    wrong(lambda: MinibatchSource([a, a]), ValueError, "expected streams of different names, got 'a' twice")
    wrong(lambda: MinibatchSource(ArrayDeserializer({"a": np.zeros(0)})), DataError, "expected data, got no sequence at all")
    wrong(lambda: ArrayDeserializer({}), ValueError, "expected one array or more, got none")
    wrong(
        lambda: ArrayDeserializer({"a": np.zeros(3), "b": np.zeros(4)}),
        DataError,
        "expected arrays of one length, got a of 3, b of 4",
    )
    wrong(
        lambda: ArrayDeserializer({"a": np.zeros(3, "U1")}), TypeError, "stream 'a': expected an array of numbers with rows first"
    )
    wrong(
        lambda: ArrayDeserializer({"a": np.zeros(3)}, dtype=np.float16),
        TypeError,
        "expected dtype float32 or float64, got float16",
    )
    one = {"a": np.zeros((3, 4))}
    wrong(
        lambda: ArrayDeserializer(one, StreamDefs(x=StreamDef(field="z"))), ValueError, "stream 'x': expected one of a, got 'z'"
    )
    wrong(
        lambda: ArrayDeserializer(one, StreamDefs(a=StreamDef(shape=5))), ValueError, "expected shape (5,), got samples of (4,)"
    )
    wrong(
        lambda: ArrayDeserializer(one, StreamDefs(a=StreamDef(is_sparse=True))),
        ValueError,
        "is_sparse is not for arrays, got True",
    )
    wrong(
        lambda: ArrayDeserializer(one, StreamDefs(a=StreamDef(transforms=[transforms.pad_crop_flip(1)]))),
        ValueError,
        "stream 'a': transforms.pad_crop_flip: expected images (channels, height, width), got samples of shape (4,)",
    )
    wrong(
        lambda: ArrayDeserializer(one, StreamDefs(a=StreamDef(transforms=["crop"]))),
        TypeError,
        "expected transforms of cogkit.data.",
    )


def test_checkpoints_of_other_data_or_seed_are_refused():
    s = numbers(prefetch=0, randomization_seed=3)
    s.next_minibatch(7)
    state = s.get_checkpoint_state()
    wrong(lambda: numbers(randomization_seed=4).restore_from_checkpoint(state), DataError, "made with seed = 4, got 3")
    other = MinibatchSource(ArrayDeserializer({"x": np.zeros(11)}), randomization_seed=3, prefetch=0)
    wrong(lambda: other.restore_from_checkpoint(state), DataError, "made with sweepSize = 11, got 10")
    wrong(lambda: s.restore_from_checkpoint({}), DataError, "expected a checkpoint with 'minibatchSourcePosition'")
    wrong(
        lambda: s.restore_from_checkpoint({"minibatchSourcePosition": -1}),
        ValueError,
        "expected a whole number of 0 or more, got -1",
    )
    s.current_position = {"minibatchSourcePosition": 2}  # CNTK's own state has this key alone
    assert s.current_position["minibatchSourcePosition"] == 2


def image_source(prefetch, **options):
    streams = StreamDefs(
        features=StreamDef(transforms=[transforms.pad_crop_flip(2), transforms.normalize([1, 2, 3], 0.5)]),
        labels=StreamDef(shape=5),
    )
    arrays = {"features": IMAGES, "labels": np.arange(len(IMAGES)) % 5}
    return MinibatchSource(ArrayDeserializer(arrays, streams), prefetch=prefetch, **options)


def everything(source, sizes):
    return [{k.name: d.asarray().tobytes() for k, d in source.next_minibatch(size).items()} for size in sizes]


def test_prefetching_gives_the_same_bytes_and_any_position_resumes():
    sizes = [3, 3, 8, 1, 30, 17, 50, 2]
    expected = everything(image_source(0), sizes)
    with image_source(3) as source:
        states, got = [], []
        for size in sizes:
            states.append(source.current_position)
            got += everything(source, [size])
        assert got == expected
        for k, state in reversed(list(enumerate(states))):
            source.restore_from_checkpoint(state)
            assert everything(source, sizes[k:]) == expected[k:]


def test_kept_rows_are_never_overwritten():
    with image_source(2) as source:
        kept = []
        for _ in range(40):
            batch = source.next_minibatch(6)
            value = batch[source.streams.features].asarray()
            kept.append((value, value.copy()))
        assert all(np.array_equal(a, b) for a, b in kept)
        assert all(a.ctypes.data % 64 == 0 for a, _ in kept)


def test_buffers_are_used_again():
    with image_source(2) as source:
        seen = set()
        for _ in range(100):
            seen.add(source.next_minibatch(6)[source.streams.features].asarray().ctypes.data)
        assert len(seen) <= 6


class Broken(ArrayDeserializer):
    at = 20

    def read(self, sample, sweep, seed, take):
        if self.at in sample:
            raise OSError("the disk is on fire")
        return super().read(sample, sweep, seed, take)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_what_the_thread_raises_is_raised_in_its_turn_with_its_place(prefetch):
    data = Broken({"x": np.arange(40, dtype=np.float32)})
    with MinibatchSource(data, randomize=False, prefetch=prefetch) as source:
        for _ in range(2):
            source.next_minibatch(8)
        for _ in range(2):  # and again: the position has not moved
            with pytest.raises(OSError, match="the disk is on fire") as e:
                source.next_minibatch(8)
            assert e.value.__notes__[0].startswith("while reading places 16 to 24 of the timeline (sweep 0, samples 16, 17, 18")
        data.at = -1
        assert source.next_minibatch(8)[source.streams.x].asarray().tolist() == [*range(16, 24)]


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "cogkit-prefetch"]


def test_a_forgotten_source_ends_its_thread():
    before = len(prefetch_threads())
    source = image_source(2)
    source.next_minibatch(4)
    assert len(prefetch_threads()) == before + 1
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None
    assert len(prefetch_threads()) == before


def test_a_closed_source_says_so():
    source = image_source(2)
    source.next_minibatch(4)
    source.close()
    source.close()
    with pytest.raises(ValueError, match="expected an open source, got one that was closed"):
        source.next_minibatch(4)


def test_ctrl_c_and_exit_leave_nothing_hanging():
    program = """
import os, signal, threading, time
import numpy as np
from cogkit.data import ArrayDeserializer, MinibatchSource
class Slow(ArrayDeserializer):
    def read(self, *a):
        time.sleep(1)
        return super().read(*a)
source = MinibatchSource(Slow({'x': np.arange(9.)}))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background has it ignored
try:
    threading.Timer(.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    source.next_minibatch(3)
except KeyboardInterrupt:
    print('interrupted', source.current_position['minibatchSourcePosition'], len(source.next_minibatch(3)))
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode, done.stderr) == (["interrupted", "0", "1"], 0, "")
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_reads_on():
    with image_source(2) as source:
        source.next_minibatch(4)
        child = os.fork()
        if child == 0:
            os._exit(0 if len(source.next_minibatch(4)) == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_wait_seconds_counts_waiting():
    class Slow(ArrayDeserializer):
        def read(self, *a):
            time.sleep(0.05)
            return super().read(*a)

    with MinibatchSource(Slow({"x": np.arange(9.0)})) as source:
        source.next_minibatch(3)
        assert 0.04 < source.wait_seconds < 5


def test_from_data_is_cntks():
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    source = MinibatchSourceFromData({"x": x}, max_samples=7)
    got = []
    while batch := source.next_minibatch(3):
        d = batch[source.streams["x"]]
        got.append((d.asarray()[:, 0].tolist(), d.end_of_sweep))
    assert got == [([0, 2, 4], False), ([6, 8], True), ([0, 2], True)]
    source = MinibatchSourceFromData({"x": x})
    assert source.is_infinite()
    assert source.next_minibatch(4, 2, 1)[source["x"]].asarray().tolist() == [[2, 3], [6, 7]]
    state = source.get_checkpoint_state()
    assert source.get_next_minibatch(4)[source["x"]].asarray().tolist() == [[8, 9]]
    source.restore_from_checkpoint(state)
    assert source.next_minibatch(4, input_map={"v": source.streams.x})["v"].asarray().tolist() == [[8, 9]]
    wrong(lambda: MinibatchSourceFromData({}), ValueError, "expected one stream or more as name=array, got none")
    wrong(lambda: MinibatchSourceFromData({"x": x, "y": x[:3]}), TypeError, "expected arrays of one length, got x of 5, y of 3")
    wrong(lambda: MinibatchSourceFromData({"x": "a"}), TypeError, "expected a NumPy array or SciPy CSR matrix for 'x', got str")
    wrong(lambda: MinibatchSourceFromData({"x": x[:0]}), ValueError, "expected data, got no row at all")
    wrong(
        lambda: source.restore_from_checkpoint({"cursor": 9, "total_num_samples": 0}),
        DataError,
        "expected a cursor in [0, 5), got 9",
    )


def test_from_data_takes_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    source = MinibatchSourceFromData({"y": sparse.csr_matrix(np.eye(4, dtype=np.float32))})
    d = source.next_minibatch(3)[source.streams.y]
    assert d.is_sparse and source.streams.y.storage_format == "sparse" and np.array_equal(np.asarray(d), np.eye(4)[:3])


def test_labels_of_a_prepared_set_are_one_hot(tmp_path):
    streams = [D.Stream("features", "<u1", (3, 8, 6)), D.Stream("labels", "<u1", (), ("a", "b", "c"))]
    with D.create_dataset(tmp_path / "a.cgd", "toy", {"train": (40, streams)}, licence="none") as arrays:
        arrays["train"]["features"][:] = IMAGES
        arrays["train"]["labels"][:] = np.arange(40) % 3
    source = MinibatchSource(ArrayDeserializer(D.open_dataset(tmp_path / "a.cgd")["train"]), randomize=False, prefetch=0)
    batch = source.next_minibatch(40)
    assert np.array_equal(batch[source.streams.labels].asarray(), np.eye(3)[np.arange(40) % 3])
    assert np.array_equal(batch[source.streams.features].asarray(), IMAGES.astype(np.float32))
    assert source.get_checkpoint_state()["data"].endswith(":train")
