"""Exchanges of real and of virtual ranks: the same sums, bit for bit; what happens when a rank fails."""

import subprocess
import sys
import time

import numpy as np
import pytest
from parallel.ranks import run_ranks

from cogkit.errors import RankError
from cogkit.parallel import Communicator, current_world, simulate
from cogkit.parallel.delays import Network, constant, heavy_tailed, measured, straggler
from cogkit.parallel.world import cut


def exchanges():
    """What one rank finds in a round of all exchanges: bytes that must be the same on every rank, in every world."""
    world = current_world()
    r = np.random.default_rng(world.rank)
    out = []
    for n, dtype in ((0, "f"), (3, "f"), (1001, "d"), (40_003, "f")):
        a = r.standard_normal(n).astype(dtype)
        world.all_reduce(a, f"sum of {n}")
        out.append(a.tobytes())
    b = np.full(1003, world.rank + 7.0)
    world.broadcast(b, "model", root=world.size - 1)
    assert (b == world.size + 6).all()
    pieces = [np.full(i, world.rank, np.uint8) for i in range(world.size)]
    world.share(pieces, "pieces")
    assert all((p == i).all() for i, p in enumerate(pieces))
    assert world.all_gather_bytes(b"x" * world.rank, "texts") == [b"x" * i for i in range(world.size)]
    one, two = np.full(20_000, 1.0, "f"), np.full(10, 2.0, "f")
    first = world.start_all_reduce(one, "one")
    second = world.start_all_reduce(two, "two")
    second.wait()
    first.wait()
    assert (one == world.size).all() and (two == 2 * world.size).all()
    many = [np.full(20_000 + i, world.rank + 1.0) for i in range(4)]
    started = [world.start_all_reduce(a, f"many {i}") for i, a in enumerate(many)]
    world.under_way = list(started)
    time.sleep(0.01 * world.rank)
    started[1].wait()  # those under way go on meanwhile
    world.barrier()
    for pending in started:
        pending.wait()
    world.go_on()
    assert world.under_way == []
    assert all((a == world.size * (world.size + 1) / 2).all() for a in many)
    world.agree(None, "checkpoint")
    assert world.meter.bytes > 0 or world.size == 1
    return b"".join(out)


def requests():
    """Each rank asks all, thrice; returns what it was answered and whom it answered."""
    world = current_world()
    asked = []

    def handler(rank, arrays):
        asked.append(rank)
        return [arrays[0] * 10 + rank, np.array([len(asked)])]

    end = world.serve(handler)
    into = [[np.zeros((2, 3), "f"), np.zeros(1, np.int64)] for _ in range(world.size)]
    for i in range(3):
        world.computed(1)
        world.request([[np.full((2, 3), 100 * i + r, "f"), np.zeros(2)] for r in range(world.size)], into, "push")
        assert all((into[r][0] == (100 * i + r) * 10 + world.rank).all() for r in range(world.size))
    world.barrier()
    end()
    return asked


def sums(n):
    """What `exchanges` must give on n ranks, added in the order of ranks."""
    draws = [np.random.default_rng(i) for i in range(n)]
    out = b""
    for k, dtype in ((0, "f"), (3, "f"), (1001, "d"), (40_003, "f")):
        first, *rest = [d.standard_normal(k).astype(dtype) for d in draws]
        for a in rest:
            first = first + a
        out += first.tobytes()
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 16])
def test_virtual_ranks(n):
    assert simulate(exchanges, n) == [sums(n)] * n


@pytest.mark.parametrize("n", [1, 2, 3])
def test_real_ranks(n, tmp_path):
    run_ranks(
        n,
        """
        from parallel.test_worlds import exchanges, requests, sums
        for _ in range(20):
            world.barrier()
        assert exchanges() == sums(world.size)
        asked = requests()
        assert sorted(asked) == sorted([r for r in range(world.size)] * 3)
        assert C.parallel.Communicator.num_workers() == world.size
        C.parallel.Communicator.finalize()
        """,
        tmp_path,
    )


def test_order_of_requests():
    fast, slow = simulate(requests, 2, straggler(1.0, slow=1, factor=2.5))
    assert fast == slow == [0, 0, 1, 0, 1, 1]
    drawn = [simulate(requests, 16, heavy_tailed(1.0, seed=s), Network(1e-3, 1e6)) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(sorted(asked) == sorted([*range(16)] * 3) for asked in drawn[2])


def test_recorded_order():
    """Requests are answered in a given order, whatever the delays are."""
    order = [1, 1, 0, 1, 0, 0]

    def main():
        world, asked = current_world(), []

        def handler(rank, arrays):
            asked.append(rank)
            return [arrays[0]]

        world.serve(handler, order)
        for _ in range(3):
            world.computed(1)
            world.request([[np.zeros(1)]] * 2, [[np.zeros(1)] for _ in range(2)], "push")
        world.barrier()
        return asked

    assert simulate(main, 2, straggler(1.0, slow=1)) == [order, order]


def test_clocks():
    def main():
        world = current_world()
        world.computed(8)
        a = np.zeros(2_000_000, np.uint8).view("f")
        world.all_reduce(a, "gradients")
        return world.now

    assert simulate(main, 4, constant(2.0, 0.25)) == [4.0] * 4
    a, b = simulate(main, 2, straggler(1.0, slow=0), Network(0.5, 1e6))  # 1 MB each way, twice
    assert a == b == pytest.approx(4 + 2 * 1.5)
    assert simulate(main, 3, measured([3.0, 5.0], seed=2))[0] in (3.0, 5.0)
    drawn = [heavy_tailed(2.0, 3.0, seed=1)(0, i, 1) for i in range(400)]
    assert np.median(drawn) == pytest.approx(2, rel=0.1) and max(drawn) > 5 and min(drawn) > 1.5


def test_virtual_ranks_start_alike():
    import cogkit as C

    def main():
        world = current_world()
        w = C.parameter((3, 2), init=C.glorot_uniform())
        world.barrier()
        return w.value.tobytes(), C.parameter((3, 2), init=C.glorot_uniform()).value.tobytes()

    C.set_seed(5)
    before = C.random.random_state.seed
    made = simulate(main, 3, seed=8)
    assert made[0] == made[1] == made[2] and made[0][0] != made[0][1]
    assert simulate(main, 1, seed=9)[0] != made[0]
    assert C.random.random_state.seed == before


def virtual_fault(body, n=3):
    with pytest.raises(Exception) as caught:
        simulate(body, n)
    return caught.value


def test_virtual_faults():
    def ends():
        if current_world().rank != 1:
            current_world().barrier()

    assert "rank 0 is in exchange 1 (barrier)" in str(virtual_fault(ends)) and "rank 1 has ended" in str(virtual_fault(ends))

    def fails():
        if current_world().rank == 1:
            raise KeyError("mine")
        current_world().barrier()

    error = virtual_fault(fails)
    assert isinstance(error, KeyError) and "virtual rank 1 of 3" in error.__notes__[0]

    def strays():
        world = current_world()
        world.barrier("a" if world.rank else "b")

    assert "expected the same exchange" in str(virtual_fault(strays))

    def differs():
        world = current_world()
        world.all_reduce(np.zeros(10_000 + world.rank), "gradients")

    assert isinstance(virtual_fault(differs), RankError) and "got" in str(virtual_fault(differs))

    def disagrees():
        world = current_world()
        world.agree(OSError("disk full") if world.rank == 2 else None, "checkpoint")

    assert "rank 2 OSError: disk full" in str(virtual_fault(disagrees))
    with pytest.raises(ValueError, match="at least one rank"):
        simulate(disagrees, 0)


FAULTS = {
    "raises": ("if world.rank == 1: raise KeyError('mine')", ["KeyError: 'mine'"], {}),
    "killed": ("import os, signal\nif world.rank == 1: os.kill(os.getpid(), signal.SIGKILL)", [], {}),
    "stalls": (
        "import time\nif world.rank == 1: time.sleep(60)",
        [
            "expected all ranks within 2 s, got nothing from rank 1",
            "exchange 6 (gradients of float32[100]), last finished step 7",
        ],
        {"COGKIT_TIMEOUT": "2"},
    ),
    "ends": ("if world.rank == 1: sys.exit(0)", ["expected rank 1 to come, got its end after exchange 5"], {}),
    "strays": ("if world.rank == 1: world.barrier('metrics')", ["in the same exchange, got it in exchange 6", "(metrics"], {}),
    "differs": ("n = 100 + world.rank", ["expected", "bytes from rank", "all ranks must train the same model alike"], {}),
}


@pytest.mark.parametrize("module", ["mpi4py", "", "cogkit.parallel"])
@pytest.mark.parametrize("fault", FAULTS)
def test_real_faults(fault, module, tmp_path):
    body, words, environment = FAULTS[fault]
    script = "n = 100\nworld.step = 7\nfor _ in range(5): world.barrier()\n" + body + "\n"
    script += "world.all_reduce(np.zeros(n, 'f'), 'gradients')\nworld.barrier()\n"
    start = time.time()
    done = run_ranks(3, script, tmp_path, module=module, check=False, timeout=60, **environment)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    for word in [*words, *(["rank 1 was killed by SIGKILL"] if fault == "killed" and module == "cogkit.parallel" else [])]:
        assert word in said, said
    assert time.time() - start < 20


def test_launching_without_a_script():
    done = subprocess.run([sys.executable, "-m", "cogkit.parallel"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr


def test_alone_without_mpi(tmp_path):
    """Importing cogkit, and asking for the rank, need no MPI where nobody launched ranks; where somebody did it is missed."""
    text = (
        "import sys\nsys.modules['mpi4py'] = None\nimport cogkit as C\nassert C.parallel.Communicator.rank() == 0\n"
        "c = C.parallel.mpi_communicator()\nassert c.is_main() and c.num_workers() == 1 and len(c.workers()) == 1\nc.barrier()\n"
        "assert c.current_worker().global_rank == 0\nC.parallel.Communicator.finalize()\n"
    )
    import os

    own = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI"))}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env={**own, "OMPI_COMM_WORLD_SIZE": "2"})
    assert "expected mpi4py where 2 ranks were launched" in done.stderr
    text = text.replace("sys.modules['mpi4py'] = None", "")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env={**own, "OMPI_COMM_WORLD_SIZE": "2"})
    assert "expected the 2 ranks that were launched, got one" in done.stderr


def test_communicator():
    def main():
        c = Communicator()
        return c.rank(), [w.global_rank for w in c.workers()], c.current_worker().global_rank, c.is_main()

    assert simulate(main, 2) == [(0, [0, 1], 0, True), (1, [0, 1], 1, False)]


def test_cut():
    assert [(s.start, s.stop) for s in cut(10, 4)] == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert [(s.start, s.stop) for s in cut(1, 3)] == [(0, 1), (1, 1), (1, 1)]
