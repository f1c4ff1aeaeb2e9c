"""One rank of a group that checks NCCL's collectives: python ranks.py IDENTITY RANK SIZE ('late': does not run the last one)."""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np

__all__ = ["check"]


def check(gpu, identity: bytes, rank: int, size: int) -> str:
    """Runs all collectives, each twice: as it is, and in a captured graph. Raises `AssertionError`; 'ok'."""
    from cogkit.engine.cuda import nccl
    from cogkit.engine.cuda.driver import B, Commands, Graph

    group = nccl.Communicator(identity, rank, size)
    n = 40000  # more than one piece of the stand-in
    given = [np.random.default_rng(r).integers(-8, 9, size * n) for r in range(size)]

    def run(call, source, to, way):
        memory = [gpu.alloc(x.nbytes) for x in (source, to)]
        for m, x in zip(memory, (source, to), strict=True):
            gpu.write(m.address, x)
        call.set_buffers([m.address for m in memory])
        commands = Commands([call])
        (Graph(commands, gpu.stream_handle) if way == "graph" else commands).run(gpu.stream_handle)
        gpu.finish()
        return gpu.read(memory[1].address, to.shape, to.dtype)

    for dtype in ("f4", "f8", "f2", "i1", "i4", "u8"):
        values = [(x if dtype[0] in "fi" else abs(x)).astype(dtype) for x in given]
        own, first = values[rank], [x[:n] for x in values]
        total = sum(x.astype("i8") for x in values)
        cases = [
            (group.all_reduce(B(0), B(1), n, dtype), own[:n], total[:n]),
            (group.all_reduce(B(0), B(1), n, dtype, "max"), own[:n], np.max(first, axis=0)),
            (group.reduce_scatter(B(0), B(1), n, dtype), own, total[rank * n : (rank + 1) * n]),
            (group.all_gather(B(0), B(1), n, dtype), own[:n], np.concatenate(first)),
            (group.broadcast(B(0), B(1), n, dtype, size - 1), own[:n], values[-1][:n]),
        ]
        if dtype[0] == "f":
            cases.append((group.all_reduce(B(0), B(1), n, dtype, "mean"), own[:n], total[:n] / size))
        for call, source, want in cases:
            for way, command in (("eager", call), ("graph", call.clone())):
                got = run(command, source, np.zeros(want.shape, dtype), way)
                np.testing.assert_allclose(got, want, rtol=1e-3 if dtype == "f2" else 1e-6, err_msg=command.name)
    ones = (np.ones(n) * (rank + 1)).astype("f4")
    bits = (ones.view("u4") >> 16).astype("u2")  # as bfloat16
    got = run(group.all_reduce(B(0), B(1), n, "b2"), bits, np.zeros_like(bits), "eager")
    want = size * (size + 1) / 2
    assert ((got.astype("u4") << 16).view("f4") == want).all()
    place = gpu.alloc(ones.nbytes)  # two operands in one buffer
    gpu.write(place.address, ones)
    call = group.all_reduce(B(0), B(0), n)
    call.set_buffers([place.address])
    Commands([call]).run(gpu.stream_handle)
    assert (gpu.read(place.address, (n,), "f4") == want).all()
    assert group.failure() == ""
    group.close()
    assert group.failure() == "this rank has left"
    return "ok"


def late(gpu, identity: bytes, rank: int, size: int) -> str:
    """The last rank does not come to a collective: what the others are told."""
    from cogkit.engine.cuda import nccl
    from cogkit.engine.cuda.driver import B, Commands

    group = nccl.Communicator(identity, rank, size)
    if rank < size - 1:
        place = gpu.alloc(4)
        call = group.all_reduce(B(0), B(0), 1)
        call.set_buffers([place.address])
        Commands([call]).run(gpu.stream_handle)
        gpu.finish()
        told = group.failure()
        group.abort()
        return told
    group.close()
    return "gone"


if __name__ == "__main__":
    ctypes.CDLL(os.environ["COGKIT_LIBCUDA"], mode=ctypes.RTLD_GLOBAL)
    from cogkit.engine.cuda.device import device

    identity, rank, size, what = sys.argv[1:]
    with device().active():
        print({"check": check, "late": late}[what](device(), bytes.fromhex(identity), int(rank), int(size)))
