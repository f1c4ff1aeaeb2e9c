"""What one part of cogkit costs, apart from the others. usage: python parts.py PART [WORKLOAD]; prints a JSON record.

Each part runs in a process of its own, so that none sees the caches, threads or memory of another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# run as a script: its own folder is on the path only where PYTHONSAFEPATH is not set
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from workloads import SEQUENCES, SIZES, WORDS, build  # noqa: E402

# One thread is timed by the time that it has run: on a busy machine that is the number to look at.
clock = time.thread_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter


def seconds_of(f: Callable[[], Any], budget: float = 0.5, least: int = 5) -> float:
    """The median time of a call, from as many as fit into a budget."""
    f()
    found, end = [], time.perf_counter() + budget
    while len(found) < least or time.perf_counter() < end:
        start = clock()
        f()
        found.append(clock() - start)
    return float(np.median(found))


# the machine -------------------------------------------------------------------------------------------------------------------


def peak() -> dict[str, float]:
    """GFLOP/s of one large float32 matrix product by our own kernel: what share of peak is measured against."""
    from cogkit.engine.cpu import native
    from cogkit.engine.executor import Executor

    try:
        from cogkit.engine.cpu import onednn
    except ImportError:
        onednn = None
    n = 1536
    made = onednn.MatMul(n, n, n) if onednn else native.MatMul("f4", 1, n, n, n, False, False, n * n, n * n, n * n)
    arrays = [np.full(n * n + 16, 0.5, np.float32) for _ in range(3)]
    scratch = np.zeros(made.scratch + 64, np.uint8)
    made.set_buffers([(a.ctypes.data + 63) // 64 * 64 for a in (*arrays, *([scratch] if made.scratch else []))])
    run = Executor([made])
    best = min(seconds_of(lambda: run.run(0, 0, 0), 0.3) for _ in range(5))  # a peak is the best that was seen
    return {"gflops": 2e-9 * n**3 / best}


def copy() -> dict[str, float]:
    """GB/s, read and written, of a copy that no cache holds."""
    from cogkit.engine.cpu import movement
    from cogkit.engine.executor import Executor

    n = 16 << 20
    made = movement.Copy([n], [1], [1], 4)
    arrays = [np.ones(n + 16, np.float32) for _ in range(2)]
    made.set_buffers([(a.ctypes.data + 63) // 64 * 64 for a in arrays])
    run = Executor([made])
    return {"gb_s": 8e-9 * n / seconds_of(lambda: run.run(0, 0, 0), 1.0)}


# the engine --------------------------------------------------------------------------------------------------------------------


def executor() -> dict[str, float]:
    """Microseconds an instruction: a bare loop over the smallest kernel there is, and a whole plan run of tiny ones."""
    import cogkit as C
    from cogkit.engine.cpu import movement
    from cogkit.engine.executable import Executable
    from cogkit.engine.executor import Executor
    from cogkit.engine.feeds import bind_feeds
    from cogkit.engine.seeding import Run

    place = np.zeros(16, np.float32)
    calls = [movement.Fill(1, "f4", 0.0) for _ in range(5000)]
    for c in calls:
        c.set_buffers([place.ctypes.data])
    run = Executor(calls)
    bare = seconds_of(lambda: run.run(0, 0, 0)) / len(calls)
    x = C.input_variable((2, 3))
    y = x
    for _ in range(200):  # transposes never fuse
        y = C.tanh(C.transpose(y, (1, 0)))
    arrays, types, sizes = bind_feeds({x: np.ones((1, 2, 3), np.float32)})
    plan = Executable([y.output]).plan(types)
    state = Run(1, 1)
    whole = seconds_of(lambda: plan.run(arrays, sizes, state))
    inside = seconds_of(lambda: plan.binding(sizes).executor.run(1, 1, 0))
    count = len(plan.binding(sizes).calls)
    return {"bare_us": 1e6 * bare, "plan_us": 1e6 * inside / count, "instructions": count, "run_us": 1e6 * (whole - inside)}


class _Clocked:
    """An executor that adds up its time."""

    def __init__(self, executor: Any, total: list[float]):
        self.executor, self.total = executor, total

    def run(self, *args: Any) -> None:
        start = clock()
        self.executor.run(*args)
        self.total[0] += clock() - start


def _bindings(trainer: Any) -> list[Any]:
    """All bound plans of a trainer: its own and its learners'."""
    import gc

    from cogkit.engine.cpu.plan import CpuPlan

    return [b for o in gc.get_objects() if isinstance(o, CpuPlan) for b in o.bindings.values()]


def overhead(name: str) -> dict[str, float]:
    """Python's time in one train_minibatch: all that is not spent in instructions."""
    import cogkit as C

    trainer, feed = build(C, name)
    feeds = [{v: a[:2] for v, a in feed(i).items()} for i in range(4)]  # small, so that what is measured is not lost in the rest
    for f in feeds * 2:
        trainer.train_minibatch(f)
    total = [0.0]
    bindings = _bindings(trainer)
    for b in bindings:
        b.executor = _Clocked(b.executor, total)
    found = []
    for i in range(300 if name == "mlp" else 60):
        total[0] = 0.0
        start = clock()
        trainer.train_minibatch(feeds[i % len(feeds)])
        found.append(clock() - start - total[0])
    return {
        "python_us": 1e6 * float(np.median(found)),
        "instructions": sum(len(b.calls) for b in bindings),
        "parameters": len(trainer.parameter_learners[0].parameters),
    }


def lengths(name: str) -> dict[str, Any]:
    """Milliseconds of a set of lengths that is new to a training plan, and of one that it has met; whether anything was lowered again."""
    import cogkit as C
    from cogkit.engine import executable
    from cogkit.engine.feeds import bind_feeds

    lowered = [0]
    lower = executable.lower

    def counted(*args: Any) -> Any:
        lowered[0] += 1
        return lower(*args)

    executable.lower = counted  # type: ignore[assignment]
    trainer, feed = build(C, name)
    start = clock()
    trainer.train_minibatch(feed(0))
    found: dict[str, Any] = {"first_step_ms": 1e3 * (clock() - start)}
    for i in range(1, 8):  # a step of each number of rows is made once, by the first minibatches that have it
        trainer.train_minibatch(feed(i))
    executable = trainer._main.executable
    times: dict[str, list[float]] = {}
    before = lowered[0]

    def note(what: str, f: Callable[[], Any]) -> Any:
        start = clock()
        result = f()
        times.setdefault(what + "_ms", []).append(1e3 * (clock() - start))
        return result

    for i in range(8, 24):
        fed = feed(i)
        for round_ in ("new", "again"):
            _, types, sizes = note("feed_" + round_, lambda fed=fed: bind_feeds(fed))
            plan = executable.plan(types, sizes)
            note("bind_" + round_, lambda plan=plan, sizes=sizes: plan.binding(sizes))
        fed = feed(i + 100)
        for round_ in ("new", "again"):
            note("step_" + round_, lambda fed=fed: trainer.train_minibatch(fed))
    found.update((what, float(np.median(t))) for what, t in times.items())
    found.update(lowered_before=before, lowered_again=lowered[0] - before)
    _, types, sizes = bind_feeds(feed(0))
    plan = trainer._make(()).executable.plan(types, sizes)
    start = clock()
    plan.binding(sizes)
    return {**found, "bind_first_ms": 1e3 * (clock() - start)}


def startup() -> dict[str, float]:
    """Milliseconds of `import cogkit`: wall and CPU, beyond those of an empty Python."""

    def cost(code: str) -> tuple[float, float]:
        walls, cpus = [], []
        for _ in range(5):
            before, start = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            walls.append(time.perf_counter() - start)
            after = os.times()
            cpus.append(after.children_user + after.children_system - before.children_user - before.children_system)
        return float(np.median(walls)), float(np.median(cpus))

    (wall, cpu), (wall0, cpu0), (wall1, _) = cost("import cogkit"), cost("pass"), cost("import numpy")
    return {"ms": 1e3 * (wall - wall0), "cpu_ms": 1e3 * (cpu - cpu0), "numpy_ms": 1e3 * (wall1 - wall0)}


def lowering(name: str) -> dict[str, float]:
    """Milliseconds from a graph of a workload to a bound training plan, pass by pass."""
    import cogkit as C
    from cogkit.engine.cpu.kernels import choose_formats
    from cogkit.engine.cpu.plan import CpuPlan
    from cogkit.engine.feeds import bind_feeds
    from cogkit.lowering.fuse import fuse
    from cogkit.lowering.layout import assign_layouts
    from cogkit.lowering.lower import lower
    from cogkit.lowering.memory import place

    start = clock()
    trainer, feed = build(C, name)
    built = clock() - start
    step = trainer._make(())
    _, types, sizes = bind_feeds(feed(0))
    times = [clock()]
    graph = lower(step.executable.request, types)
    times.append(clock())
    steps = fuse(graph)
    times.append(clock())
    steps = assign_layouts(steps, graph.outputs, choose_formats)
    times.append(clock())
    place(steps, graph.outputs)
    times.append(clock())
    plan = CpuPlan(graph)
    middle = clock()
    plan.binding(sizes)
    bound = clock() - middle
    passes = dict(zip(("resolve_gradient_ms", "fuse_ms", "layout_ms", "memory_ms"), 1e3 * np.diff(times), strict=True))
    total = sum(passes.values()) + 1e3 * bound
    return {"build_ms": 1e3 * built, **passes, "bind_ms": 1e3 * bound, "total_ms": total, "nodes": len(graph.nodes)}


# instructions ------------------------------------------------------------------------------------------------------------------


def _moved(step: Any, sizes: dict) -> float:
    """Bytes of the values that a step reads and writes, each once."""
    values = {id(v): v for v in (*step.inputs, *step.outputs)}.values()
    return sum(float(np.prod(v.type.shape)) * v.type.dtype.itemsize * (sizes[v.type.axes] if v.type.axes else 1) for v in values)


def profile(name: str) -> dict[str, Any]:
    """Every instruction of a workload's training plan: milliseconds (median), operations, bytes, formats, implementation."""
    import cogkit as C
    from cogkit.debugging.profiler import flops_of
    from cogkit.engine.feeds import bind_feeds
    from cogkit.engine.seeding import Run

    trainer, feed = build(C, name)
    step = trainer._make(())
    arrays, types, sizes = bind_feeds(feed(0))
    plan = step.executable.plan(types)
    state = Run(1, 1)
    for _ in range(2):
        plan.run(arrays, sizes, state)
    runs = 100 if name == "mlp" else 9
    found = [plan.profile(arrays, sizes, state, clock) for _ in range(runs)]
    times = np.median([[t for t, _ in run] for run in found], axis=0)
    b = plan.binding(sizes)
    rows = []
    for t, call, s in zip(times, b.calls, b.steps, strict=True):
        shapes = [v.type.shape for v in (*s.inputs[:2], *s.outputs[:1])]
        what = s.kind if s.kind != "pointwise" else "pointwise " + " ".join(n.name for n in s.nodes if n.name != "fill")
        rows.append(
            {
                "what": what if s.kind in ("pointwise", "reorder") else s.node.name,
                "shapes": [list(shape) for shape in shapes],
                "ms": 1e3 * float(t),
                "operations": 0.0 if s.kind == "pointwise" else float(flops_of([s.node], sizes)),
                "bytes": _moved(s, sizes),
                "implementation": getattr(call, "implementation", ""),
                "formats": sorted(set(s.layouts.values())),
            }
        )
    held = sum(s.bytes(sizes) for s in plan.buffers if s.kind in ("output", "variable", "feed"))
    return {
        "rows": rows,
        "operations": sum(r["operations"] for r in rows),
        "arena_mib": b.bytes / 2**20,
        "held_mib": held / 2**20,
    }


PROGRAMS: dict[str, Callable[..., Any]] = {
    "relu(x)": lambda C, x, y, k: C.relu(x),
    "x + y": lambda C, x, y, k: x + y,
    "relu(x + bias)": lambda C, x, y, k: C.relu(x + k),
    "relu(x * scale + bias + y)": lambda C, x, y, k: C.relu(x * k + k + y),
    "x * (y > 0)": lambda C, x, y, k: x * C.greater(y, 0.0),
    "tanh(x)": lambda C, x, y, k: C.tanh(x),
    "sigmoid(x) * y": lambda C, x, y, k: C.sigmoid(x) * y,
    "exp(x)": lambda C, x, y, k: C.exp(x),
    "sum of x over rows and space": lambda C, x, y, k: C.reduce_sum(x, (C.Axis.default_batch_axis(), 1)),
    "sum of x * y over rows and space": lambda C, x, y, k: C.reduce_sum(x * y, (C.Axis.default_batch_axis(), 1)),
    "sum of x over channels": lambda C, x, y, k: C.reduce_sum(x, 0),
    "dropout(x)": lambda C, x, y, k: C.dropout(x, 0.5),
}


def pointwise() -> dict[str, Any]:
    """GB/s of typical programs over tensors that no cache holds."""
    import cogkit as C
    from cogkit.engine.executable import Executable
    from cogkit.engine.feeds import bind_feeds
    from cogkit.engine.seeding import Run

    shape, rows = (64, 1024), 128  # 32 MiB
    rng = np.random.RandomState(0)
    x, y = C.input_variable(shape), C.input_variable(shape)
    k = C.parameter((64, 1), init=0.5)
    data = {v: rng.randn(rows, *shape).astype(np.float32) for v in (x, y)}
    found = {}
    for name, program in PROGRAMS.items():
        e = Executable([program(C, x, y, k).output], training=True, reuse=True)
        feeds = {v: a for v, a in data.items() if any(v is w for w in e.arguments)}
        arrays, types, sizes = bind_feeds(feeds)
        plan = e.plan(types)
        plan.run(arrays, sizes, Run(1, 1))
        b = plan.binding(sizes)
        seconds = seconds_of(lambda b=b: b.executor.run(1, 1, 0), 0.3)
        found[name] = {
            "gb_s": 1e-9 * sum(_moved(s, sizes) for s in b.steps) / seconds,
            "ms": 1e3 * seconds,
            "instructions": len(b.calls),
        }
    return found


def row_products() -> dict[str, Any]:
    """GFLOP/s of products over packed rows in the sizes of recurrent networks, and of one oneDNN primitive for each size."""
    from cogkit.engine.cpu import rows

    try:
        from cogkit.engine.cpu import onednn
    except ImportError:
        onednn = None

    def bound(made: Any, *arrays: np.ndarray) -> Callable[[], None]:
        scratch = np.zeros(made.scratch + 64, np.uint8)
        kept.append(scratch)
        made.set_buffers([(a.ctypes.data + 63) // 64 * 64 for a in (*arrays, *([scratch] if made.scratch else []))])
        return made.run

    kept: list[np.ndarray] = []
    found = {}
    for m, k, n in [(1, 512, 2048), (4, 512, 2048), (16, 512, 2048), (16, 256, 256), (2000, 80, 2048), (2000, 512, 2048)]:
        a, b, c, d = (np.full(size + 16, 0.5, np.float32) for size in (m * k, k * n, m * n, k * n))
        packed = np.zeros(rows.packed_bytes(k, n, "f4") + 64, np.uint8)
        bound(rows.Pack(k, n, False, "f4"), b, packed)()
        runs = {
            "product": bound(rows.RowProduct(m, k, n, "f4"), a, packed, c),
            "sum": bound(rows.SumProduct(m, k, n, "f4"), a, c, d),
        }
        if onednn:
            runs["onednn_product"] = bound(onednn.MatMul(m, n, k), a, b, c)
            runs["onednn_sum"] = bound(onednn.MatMul(k, n, m, transpose_a=True), a, c, d)
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(5):  # by turns, so that a busy moment hits all
            best = {name: min(best[name], seconds_of(run, 0.05)) for name, run in runs.items()}
        found[f"{m} x {k} x {n}"] = {name: 2e-9 * m * k * n / seconds for name, seconds in best.items()}
    return found


def user_ops() -> dict[str, float]:
    """µs of relu as a C function of a user's own and as C.relu, forward, by turns; and of a call of a user function in Python."""
    import ctypes

    import cogkit as C
    from cogkit.engine.executable import Executable
    from cogkit.engine.feeds import bind_feeds
    from cogkit.engine.seeding import Run

    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
    from native import compiled

    library = ctypes.CDLL(compiled())
    C.register_native_user_function("relu in C", forward=library.relu_forward, backward=library.relu_backward)

    class Same(C.UserFunction):
        def infer_outputs(self):
            x = self.inputs[0]
            return [C.output_variable(x.shape, x.dtype, x.dynamic_axes)]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return None, argument

    found = {}
    for rows, n in ((8, 8), (16, 4096), (256, 4096)):
        x = C.input_variable(n)
        arrays, types, sizes = bind_feeds({x: np.random.RandomState(0).randn(rows, n).astype(np.float32)})
        runs = {}
        for name, f in (
            ("c", C.native_user_function("relu in C", [x])),
            ("own", C.relu(x)),
            ("python", C.user_function(Same([x]))),
        ):
            plan = Executable([f.output], reuse=True).plan(types, sizes)
            plan.run(arrays, sizes, Run(1, 1))
            runs[name] = plan.binding(sizes).executor.run
        many = max(1, 200_000 // (rows * n))
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(7):  # by turns, so that a busy moment hits all
            for name, run in runs.items():

                def call(run: Callable[..., None] = run, many: int = many) -> None:
                    for _ in range(many):
                        run(1, 1, 0)

                best[name] = min(best[name], seconds_of(call, 0.05) / many)
        found |= {f"{name}_{rows * n}": 1e6 * seconds for name, seconds in best.items()}
        found[f"ratio_{rows * n}"] = best["c"] / best["own"]
    return found


PARTS: dict[str, Callable[..., dict]] = {
    f.__name__: f
    for f in (peak, copy, executor, overhead, startup, lowering, lengths, profile, pointwise, row_products, user_ops)
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS or (len(sys.argv) > 2 and sys.argv[2] not in (*SIZES, *SEQUENCES, *WORDS)):
        sys.exit(f"usage: parts.py {' | '.join(PARTS)} [{' | '.join((*SIZES, *SEQUENCES, *WORDS))}]")
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
