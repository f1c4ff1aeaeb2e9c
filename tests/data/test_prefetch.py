"""Batches made ahead: in order whatever finishes first, nothing beyond a fault, nothing of a key that nobody asked for."""

import threading
import time

import pytest

from cogkit.data.prefetch import Prefetcher


def numbers(slow=(), faulty=()):
    """make of a Prefetcher: batch n is [n], read by a function; what was made is listed."""
    made = []

    def make(key):
        made.append(key)

        def read():
            if key in slow:
                time.sleep(0.02)
            if key in faulty:
                raise OSError(f"batch {key}")
            return [key]

        return read, key + 1 if key < 9 else None

    return make, made


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_come_in_order(workers):
    make, made = numbers(slow=(0, 3, 4, 7))
    ahead = Prefetcher(make, 2, workers)
    assert [ahead.get(k) for k in range(10)] == [[k] for k in range(10)]
    assert made == list(range(10))
    ahead.close()


def test_functions_run_at_once():
    together = threading.Barrier(2, timeout=10)
    ahead = Prefetcher(lambda key: ((lambda: together.wait() >= 0), key + 1 if key == 0 else None), 2, 2)
    assert ahead.get(0) and ahead.get(1)
    ahead.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_is_raised_for_its_key_and_tried_again(workers):
    faulty = {3}
    make, made = numbers(faulty=faulty)
    ahead = Prefetcher(make, 2, workers)
    assert [ahead.get(k) for k in range(3)] == [[0], [1], [2]]
    for _ in range(2):
        with pytest.raises(OSError, match="batch 3"):
            ahead.get(3)
    assert max(made) <= 3 + workers
    faulty.clear()
    assert [ahead.get(k) for k in range(3, 10)] == [[k] for k in range(3, 10)]
    ahead.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_another_key_throws_away_what_was_made(workers):
    make, _ = numbers(slow=(1, 6))
    ahead = Prefetcher(make, 4, workers)
    assert [ahead.get(k) for k in (0, 5, 6, 1, 2, 9)] == [[0], [5], [6], [1], [2], [9]]
    ahead.close()
    with pytest.raises(ValueError, match="closed"):
        ahead.get(9)
