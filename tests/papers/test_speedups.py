"""Modelled speed-ups of the two papers on parallel training: what they must meet, and what they may not exceed."""

import pytest

from cogkit.papers.one_bit_sgd import speed as one_bit
from cogkit.papers.parallelizability import speed as parallelizability
from cogkit.parallel.cost_model import NETWORKS


def test_the_row_that_is_given_is_met_and_the_other_predicted():
    for network in NETWORKS:
        if network == "1 GbE":
            continue
        found = one_bit.speedups(1, network)
        assert found["speedup_2880"] == pytest.approx(3.6)
        assert found["speedup_16k"] == pytest.approx(6.3, rel=0.05)  # whatever the network: its time is part of what is given


def test_fewer_bits_and_more_gpus():
    assert one_bit.speedups(1, "10 GbE", 1) == {"speedup_2880": 1, "speedup_16k": 1}
    for name in ("speedup_2880", "speedup_16k"):
        by_bits = [one_bit.speedups(b, "10 GbE")[name] for b in (32, 4, 2, 1)]
        by_gpus = [one_bit.speedups(1, "10 GbE", n)[name] for n in one_bit.RANKS]
        assert by_bits == sorted(by_bits) and by_gpus == sorted(by_gpus)


def test_one_gpu_is_the_published_one():
    for samples, rate in ((2880, 7.5e3), (16384, 8.1e3)):
        assert samples / one_bit.published_work(samples).compute() == pytest.approx(rate, rel=0.01)
        assert parallelizability.work_of(samples) == one_bit.published_work(samples)


def test_where_two_gpus_pay():
    gbits = parallelizability.pays_from(1024, 32)
    assert 10 < gbits < 30  # not over 10 Gbit Ethernet, but over PCIe
    sizes = {1024: 5000}
    assert parallelizability.speedup_of(sizes, 32, 1, "10 GbE") == 1
    assert parallelizability.speedup_of(sizes, 32, 2, "10 GbE") < 1 < parallelizability.speedup_of(sizes, 32, 2, "PCIe 3 x16")
    assert parallelizability.pays_from(1024, 1) == pytest.approx(gbits / 31, rel=0.01)
    assert parallelizability.pays_from(2048, 32) == pytest.approx(gbits / 2, rel=1e-6)
    assert parallelizability.break_even_of(1024, 32, "10 GbE") < 2 < parallelizability.break_even_of(1024, 1, "10 GbE")


def test_time_is_that_of_all_sizes():
    half = {1024: 1000, 4096: 1000}
    alone = [parallelizability.speedup_of({n: 1000}, 1, 8, "10 GbE") for n in half]
    assert parallelizability.speedup_of(half, 1, 8, "10 GbE") == pytest.approx(2 / sum(1 / s for s in alone))
