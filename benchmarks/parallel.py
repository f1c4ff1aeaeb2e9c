"""Training on two ranks of this machine beside PyTorch's DistributedDataParallel, and the parts that it is made of.

    PYTHONSAFEPATH= python -m benchmarks.parallel --torch PYTHON      PYTHON: one that has PyTorch

quantiser  one thread, values that no cache holds, beside a copy of them
exchange   sums of 25 MB over the ranks beside MPI's own, and in 1 bit
overlap    a step of a workload with gradients that travel during the backward pass, and after it, turn by turn on the same ranks
train      samples a second of a workload, one thread a rank: cogkit with each learner, DDP over gloo; where a step's time goes

Every measurement is a process (or a group of ranks) of its own; rounds go A B A B; a number is the median of its rounds. It reports, it
does not judge.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# a file beside this one, whether this is run as a package or by its path
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from workloads import SIZES, build, data  # noqa: E402

VALUES = 25_000_000 // 4
LEARNERS = ("full", "one_bit", "block_momentum", "asgd")


def fastest(f: Any, times: int) -> float:
    """The shortest time of a call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        found.append(time.perf_counter() - start)
    return min(found)


# what a child process does ---------------------------------------------------------------------------------------------------


def quantiser(column: int = 2048) -> dict[str, Any]:
    """Nanoseconds a value of a copy and of each kernel, and speed beside the copy."""
    from cogkit.parallel.quantize import Columns, pack, unpack

    n = VALUES // column * column
    g, r, out = np.random.default_rng(0).standard_normal(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    columns = {b: Columns(((i, column) for i in range(0, n, column)), b, np.dtype(np.float32)) for b in (1, 2, 4, 8)}
    messages = {b: c.message() for b, c in columns.items()}
    calls = {"copy": lambda: np.copyto(out, g), "pack_1_zero": lambda: pack(columns[1], True, g, r, messages[1])}
    for b, c in columns.items():
        calls[f"pack_{b}"] = lambda b=b, c=c: pack(c, False, g, r, messages[b])
        calls[f"unpack_{b}"] = lambda b=b, c=c: unpack(c, messages[b], out)
        calls[f"unpack_add_{b}"] = lambda b=b, c=c: unpack(c, messages[b], out, True)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(15):  # in turn, so that all see the same machine
        for name, f in calls.items():
            best[name] = min(best[name], fastest(f, 2))
    return {"ns": {k: 1e9 * s / n for k, s in best.items()}, "beside_copy": {k: best["copy"] / s for k, s in best.items()}}


def exchange() -> dict[str, Any]:
    """Milliseconds of a sum of 25 MB over the ranks: ours, MPI's; bytes sent whole and in 1 bit."""
    from mpi4py import MPI

    import cogkit as C
    from cogkit.parallel import current_world
    from cogkit.parallel.flat import Flat
    from cogkit.parallel.quantized import Quantized

    world = current_world()
    flat = Flat([C.parameter((VALUES // 2048, 2048), init=0)])
    buffer = flat.buffers[0]
    few = Quantized(world, flat, 1, False)
    found: dict[str, list[float]] = {"ours": [], "mpi": [], "one_bit": []}
    sent: dict[str, int] = {}

    def bits() -> None:
        few.start()
        few.wait()

    calls = {
        "ours": lambda: world.all_reduce(buffer, "benchmark"),
        "mpi": lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, buffer),
        "one_bit": bits,
    }
    for _ in range(25):
        for name, f in calls.items():
            buffer[...] = 1
            world.barrier()
            before, start = world.meter.bytes, time.perf_counter()
            f()
            found[name].append(1e3 * (time.perf_counter() - start))
            sent[name] = world.meter.bytes - before
    return {"ms": {k: statistics.median(v) for k, v in found.items()}, "bytes": {k: sent[k] for k in ("ours", "one_bit")}}


def wrapped(kind: str, local: Any, samples: int) -> Any:
    """A distributed learner of a kind, or the local one."""
    from cogkit.parallel import (
        asgd_distributed_learner,
        block_momentum_distributed_learner,
        current_world,
        data_parallel_distributed_learner,
    )

    if kind == "one_bit":
        return data_parallel_distributed_learner(local, num_quantization_bits=1)
    if kind == "block_momentum":
        return block_momentum_distributed_learner(local, 10 * samples * current_world().size)
    if kind == "asgd":
        return asgd_distributed_learner(local, meet_every=10)
    return data_parallel_distributed_learner(local)


def train(name: str, kind: str, seconds: float) -> dict[str, Any]:
    """Samples a second of all ranks, and the milliseconds of a step by what it is spent on."""
    import cogkit as C
    from cogkit.parallel import current_world

    world = current_world()
    made, feed = build(C, name)
    samples = SIZES[name][0]
    learner = wrapped(kind, made.parameter_learners[0], samples)
    trainer = C.Trainer(made.model, (made.loss_function, made.evaluation_function), [learner])
    for i in range(10):
        trainer.train_minibatch(feed(i + world.rank))
    world.barrier()
    world.meter.clear()
    steps, start = 0, time.perf_counter()
    while True:  # all ranks take as many steps: they agree every ten
        for i in range(10):
            trainer.train_minibatch(feed(i + world.rank))
        steps += 10
        if world.all_gather(np.array([time.perf_counter() - start]), "time").max() > seconds:
            break
    elapsed = time.perf_counter() - start
    split = {k: 1e3 * s / world.meter.steps for k, s in world.meter.seconds.items()}
    sent = world.meter.bytes / world.meter.steps
    return {"samples_s": steps * samples * world.size / elapsed, "ms": split, "bytes": sent, "advice": world.meter.advice()}


def overlap(name: str, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step by what it is spent on, with gradients that travel early and late.

    inside: what early ones cost within the backward pass, which is part of pack and send; after: of the exchange what is left when it
    has ended. hidden: how much less that is than with late ones; exchanges between ranks of one machine are work of the same cores, so a
    step is shorter only by what they would have waited.
    """
    import cogkit as C
    from cogkit.parallel import current_world, data_parallel_distributed_learner
    from cogkit.parallel.overlap import Overlap

    world, trainers, found = current_world(), {}, {"early": [], "late": []}
    come, inside = Overlap.come, [0.0]

    def timed(self: Any, *arguments: Any) -> None:
        start = time.perf_counter()
        come(self, *arguments)
        inside[0] += time.perf_counter() - start

    Overlap.come = timed  # type: ignore[method-assign]
    for kind in found:
        made, feed = build(C, name)
        learner = data_parallel_distributed_learner(made.parameter_learners[0], overlap=kind == "early")
        trainers[kind] = C.Trainer(made.model, (made.loss_function, made.evaluation_function), [learner]), feed

    def steps(kind: str, n: int) -> dict[str, float]:
        trainer, feed = trainers[kind]
        world.barrier()
        world.meter.clear()
        inside[0], start = 0.0, time.perf_counter()
        for i in range(n):
            trainer.train_minibatch(feed(i + world.rank))
        passed = time.perf_counter() - start
        ms, early = world.meter.spent().record()["ms"], 1e3 * inside[0] / n
        return {"step": 1e3 * passed / n, **ms, "inside": early, "after": ms["wait"] + ms["pack"] + ms["send"] - early}

    for kind in found:
        steps(kind, 5)
    start = time.perf_counter()
    while world.all_gather(np.array([time.perf_counter() - start]), "time").max() < seconds:
        for kind, measured in found.items():
            measured.append(steps(kind, 10))
    ms = {kind: {k: statistics.median(m[k] for m in measured) for k in measured[0]} for kind, measured in found.items()}
    return {"ms": ms, "hidden": 1 - ms["early"]["after"] / ms["late"]["after"]}


def peer(name: str, seconds: float) -> dict[str, Any]:
    """The same by PyTorch's DistributedDataParallel over gloo, whose fastest form for this CPU is taken."""
    import peers
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    samples, _, classes = SIZES[name]
    torch.manual_seed(0)
    model = getattr(peers, name)(classes)
    images = [torch.from_numpy(data(name, rank)(i)[0]) for i in range(4)]
    labels = [torch.from_numpy(data(name, rank)(i)[1]) for i in range(4)]
    if images[0].ndim == 4:
        model = model.to(memory_format=torch.channels_last)
        images = [i.to(memory_format=torch.channels_last) for i in images]
    else:
        images = [i.flatten(1) for i in images]
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=peers.RATE, momentum=peers.MOMENTUM)

    def step(i: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images[i % 4]), labels[i % 4]).backward()
        optimizer.step()

    for i in range(10):
        step(i)
    distributed.barrier()
    steps, start = 0, time.perf_counter()
    while True:
        for i in range(10):
            step(i)
        steps += 10
        passed = torch.tensor([time.perf_counter() - start])
        distributed.all_reduce(passed, op=distributed.ReduceOp.MAX)
        if passed.item() > seconds:
            break
    found = steps * samples * size / (time.perf_counter() - start)
    distributed.destroy_process_group()
    return {"samples_s": found, "version": torch.__version__}


def child(arguments: list[str]) -> None:
    """One measurement; the first rank prints its record last."""
    what, *rest = arguments
    if what == "peer":
        record, main = peer(rest[0], float(rest[1])), os.environ["RANK"] == "0"
    elif what == "quantiser":
        record, main = quantiser(), True
    else:
        from cogkit.parallel import current_world

        world = current_world()
        if what == "exchange":
            record = exchange()
        elif what == "overlap":
            record = overlap(rest[0], float(rest[1]))
        else:
            record = train(rest[0], rest[1], float(rest[2]))
        main = world.is_main
    if main:
        print(json.dumps(record))


# the parent --------------------------------------------------------------------------------------------------------------------


class Runs:
    """Starts the measurements and remembers why one failed."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.env = dict(os.environ, PYTHONSAFEPATH="1", **threads)
        self.failures: dict[str, str] = {}

    def finish(self, what: str, processes: list[subprocess.Popen]) -> Any:
        """What the first of these processes prints last; None where one failed."""
        try:
            ends = [p.communicate(timeout=self.options.limit) for p in processes]
            return json.loads(ends[0][0].strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            self.failures[what] = f"longer than {self.options.limit:g} s"
        except (IndexError, ValueError):
            self.failures[what] = ((ends[0][1].strip().splitlines() or ["no output"])[-1])[:200]
        finally:
            for p in processes:
                p.kill()
        return None

    def start(self, command: list[str], **more: str) -> subprocess.Popen:
        """A process with its own environment."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env={**self.env, **more}, **pipes)

    def ours(self, *arguments: str) -> Any:
        """A measurement in this Python; on ranks, but for the quantiser."""
        command = [sys.executable, str(Path(__file__).resolve()), "--child", *arguments]
        if arguments[0] != "quantiser":
            mpiexec = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or "mpiexec"
            command = [mpiexec, "-n", str(self.options.ranks), sys.executable, "-m", "mpi4py", *command[1:]]
        return self.finish(" ".join(arguments), [self.start(command)])

    def peer(self, name: str) -> Any:
        """A measurement of DDP: a process for each rank."""
        if self.options.torch is None:
            self.failures["ddp"] = "no PyTorch: name a Python that has it with --torch"
            return None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        command = [self.options.torch, str(Path(__file__).resolve()), "--child", "peer", name, str(self.options.seconds)]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(self.options.ranks)}
        return self.finish("ddp", [self.start(command, RANK=str(r), **place) for r in range(self.options.ranks)])


def middle(records: list[Any]) -> Any:
    """The record whose samples a second are the median; None where there is none."""
    found = sorted((r for r in records if r), key=lambda r: r["samples_s"])
    return found[len(found) // 2] if found else None


def main() -> None:
    """The command line."""
    if "--child" in sys.argv[1:]:
        child(sys.argv[sys.argv.index("--child") + 1 :])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="a Python that has PyTorch")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workloads", nargs="*", default=["resnet20", "mlp"], choices=sorted(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one measurement of training")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a measurement is given up")
    parser.add_argument("--json", help="also writes all records there")
    options = parser.parse_args()
    runs = Runs(options)
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "ranks": options.ranks, "train": {}}
    found["quantiser"] = kernels = runs.ours("quantiser")
    if kernels:
        for name, ratio in kernels["beside_copy"].items():
            print(f"quantiser {name:14} {kernels['ns'][name]:7.3f} ns a value, {ratio:5.2f} of a copy")
    found["exchange"] = sums = runs.ours("exchange")
    if sums:
        print(f"exchange  25 MB: ours {sums['ms']['ours']:.2f} ms, MPI {sums['ms']['mpi']:.2f} ms, 1 bit {sums['ms']['one_bit']:.2f} ms,"
              f" {sums['bytes']['ours'] / sums['bytes']['one_bit']:.1f} times fewer bytes")  # fmt: skip
    found["overlap"] = {name: runs.ours("overlap", name, str(2 * options.seconds)) for name in options.workloads}
    for name, both in found["overlap"].items():
        for kind, ms in both["ms"].items() if both else ():
            split = ", ".join(f"{k} {v:.2f}" for k, v in ms.items())
            print(
                f"overlap   {name} {kind:5} ms: {split}"
                + (f"; {both['hidden']:.0%} of the exchange is hidden" if kind == "early" else "")
            )
    for name in options.workloads:
        rounds: dict[str, list[Any]] = {kind: [] for kind in (*LEARNERS, "ddp")}
        for _ in range(options.rounds):
            for kind in LEARNERS:
                rounds[kind].append(runs.ours("train", name, kind, str(options.seconds)))
            rounds["ddp"].append(runs.peer(name))
        found["train"][name] = rounds
        ddp = middle(rounds["ddp"])
        for kind in (*LEARNERS, "ddp"):
            record = middle(rounds[kind])
            if record:
                beside = f", {record['samples_s'] / ddp['samples_s']:.2f} of DDP" if ddp and kind != "ddp" else ""
                split = ", ".join(f"{k} {v:.2f}" for k, v in record.get("ms", {}).items())
                print(
                    f"train     {name} {kind:14} {record['samples_s']:8.0f} samples/s{beside}"
                    + (f"; ms: {split}" if split else "")
                )
    for what, why in runs.failures.items():
        print(f"{what}: {why}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
