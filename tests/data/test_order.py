"""The order contract: a function of (seed, sweep), each sample once a sweep, whatever the sizes, ranks and positions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.data import ArrayDeserializer, MinibatchSource, native
from cogkit.data.packing import minibatch_places, order

COUNTS = st.integers(1, 700)
SEEDS = st.integers(0, 2**64 - 1)


def bits64(k0, k1, *counter):
    """Four words of NumPy's Philox."""
    counter = np.array((*counter, 0, 0, 0)[:4], np.uint64)
    return np.random.Philox(key=np.array([k0, k1], np.uint64), counter=counter).random_raw(4)


def twin(seed, sweep, count):
    """The keyed permutation again, in plain Python."""
    keys = [int(k) for b in range(4) for k in bits64(seed, 0x6F72646572, b, sweep, count)]
    bits = max(8, (count - 1).bit_length())
    low = bits - bits // 2
    ones = 2**64 - 1

    def mix(x):
        x ^= x >> 33
        x = x * 0xFF51AFD7ED558CCD & ones
        x ^= x >> 33
        x = x * 0xC4CEB9FE1A85EC53 & ones
        return x ^ x >> 33

    def once(x):
        h, w = x >> low, x & (1 << low) - 1
        for r in range(0, 16, 2):
            h ^= mix(w ^ keys[r]) & (1 << bits // 2) - 1
            w ^= mix(h ^ keys[r + 1]) & (1 << low) - 1
        return h << low | w

    out = []
    for x in range(count):
        x = once(x)
        while x >= count:
            x = once(x)
        out.append(x)
    return out


@given(key=st.tuples(SEEDS, SEEDS), counter=st.tuples(SEEDS, SEEDS, SEEDS, SEEDS))
def test_random_bits_are_numpys(key, counter):
    numpys = bits64(*key, *counter)
    first = (counter[0] + 1) % 2**64
    if first:  # else NumPy carries over into the next word
        assert np.array_equal(native.philox(key, (first, *counter[1:])), numpys)


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 1000])
def test_permutation_is_its_twin(count):
    for seed, sweep in [(0, 0), (7, 0), (0, 7), (2**64 - 1, 2**40)]:
        assert order(seed, sweep, count).tolist() == twin(seed, sweep, count)


@given(seed=SEEDS, sweep=st.integers(0, 2**40), count=COUNTS, data=st.data())
def test_a_sweep_has_each_sample_once_and_any_part_can_be_asked_for(seed, sweep, count, data):
    whole = order(seed, sweep, count)
    assert sorted(whole.tolist()) == list(range(count))
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    assert np.array_equal(order(seed, sweep, count, start, stop), whole[start:stop])


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_permutations_are_equally_likely(count):
    draws = 4000
    seen = Counter(tuple(order(1, sweep, count)) for sweep in range(draws))
    cells = math.factorial(count)
    assert len(seen) == cells
    chi2 = sum((n - draws / cells) ** 2 / (draws / cells) for n in seen.values())
    assert chi2 < cells - 1 + 5 * math.sqrt(2 * (cells - 1))


def test_no_correlation_of_neighbours_or_sweeps():
    n = 20000
    a, b = order(3, 0, n).astype(float), order(3, 1, n).astype(float)
    for x, y in [(a[1:], a[:-1]), (a, b), (a, np.arange(n)), (a, order(4, 0, n).astype(float))]:
        assert abs(np.corrcoef(x, y)[0, 1]) * math.sqrt(n) < 4


@given(count=st.integers(1, 60), seed=SEEDS, randomize=st.booleans(), start=st.integers(0, 200), size=st.integers(0, 150),
       ranks=st.integers(1, 5))  # fmt: skip
def test_ranks_share_a_minibatch(count, seed, randomize, start, size, ranks):
    sample, sweep = minibatch_places(start, start + size, count, seed, randomize)
    expected = [
        (int(order(seed, p // count, count, randomize=randomize)[p % count]), p // count) for p in range(start, start + size)
    ]
    assert list(zip(sample.tolist(), sweep.tolist(), strict=True)) == expected
    for rank in range(ranks):
        mine = minibatch_places(start, start + size, count, seed, randomize, ranks, rank)
        keep = [p - start for p in range(start, start + size) if p % ranks == rank]
        assert np.array_equal(mine[0], sample[keep]) and np.array_equal(mine[1], sweep[keep])


def read(source, sizes, ranks=1, rank=0):
    rows = []
    for size in sizes:
        batch = source.next_minibatch(size, num_data_partitions=ranks, partition_index=rank)
        if not batch:
            break
        rows += batch[source.streams.x].asarray()[:, 0].astype(int).tolist()
    return rows


@given(count=st.integers(1, 50), seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
       prefetch=st.sampled_from([0, 1, 3]))  # fmt: skip
def test_sizes_and_prefetching_do_not_change_the_order(count, seed, sizes, prefetch):
    data = ArrayDeserializer({"x": np.arange(count, dtype=np.float32)[:, None]})
    total = sum(sizes)
    expected = [int(order(seed, p // count, count)[p % count]) for p in range(total)]
    with MinibatchSource(data, randomization_seed=seed, max_samples=total, prefetch=prefetch) as source:
        assert read(source, [*sizes, 1]) == expected


@given(count=st.integers(1, 50), before=st.lists(st.integers(1, 40), max_size=5), after=st.lists(st.integers(1, 40), max_size=5),
       ranks=st.integers(1, 4), others=st.integers(1, 4), prefetch=st.sampled_from([0, 2]))  # fmt: skip
def test_resume_on_another_number_of_ranks(count, before, after, ranks, others, prefetch):
    data = ArrayDeserializer({"x": np.arange(count, dtype=np.float32)[:, None]})

    def source():
        return MinibatchSource(data, randomization_seed=5, prefetch=prefetch)

    with source() as whole:
        read(whole, before)
        expected = Counter(read(whole, after))
    states = []
    for rank in range(ranks):
        with source() as s:
            read(s, before, ranks, rank)
            states.append(s.get_checkpoint_state())
    assert all(s == states[0] for s in states)
    got = Counter()
    for rank in range(others):
        with source() as s:
            s.restore_from_checkpoint(states[0])
            got += Counter(read(s, after, others, rank))
    assert got == expected
