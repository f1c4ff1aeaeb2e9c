"""Training on a GPU beside PyTorch in the same run, and the share of the copy bandwidth that kernels reach.

usage: python -m benchmarks.gpu [--out FOLDER] [--seconds 2] [WORKLOAD ...]    (benchmarks/gpu_check.sh runs it)

PyTorch runs eager and compiled, channels last where there are images, in float32, tf32 and bf16 as it would be used; ours with products in
float32, tf32 and bfloat16. Both copy what is fed from the host in each step and read the loss. FOLDER gets gpu.json and gpu.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
IMAGES = ("resnet20", "resnet50", "vgg13_fer", "c3d")
WORKLOADS = ("mlp", *IMAGES, "lstm_speech", "rnn_past_value")
PRECISIONS = ("cuda", "cuda-tf32", "cuda-bf16")


def variants(name: str) -> list[str]:
    """How PyTorch's users would run a workload."""
    if name in IMAGES:
        return ["eager", "channels_last", "compile", "compile_channels_last"]
    return ["eager", "compile"] if name == "mlp" else ["padded", "packed_sorted"]


def measured(command: list[str], limit: float, **environ: str) -> dict[str, Any]:
    """The record that a command prints last, or {'error': its last line}."""
    try:
        env = {**os.environ, "PYTHONSAFEPATH": "1", **environ}
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {limit:g} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [f"exit status {done.returncode}"]
    return json.loads(lines[-1]) if done.returncode == 0 else {"error": lines[-1][:200]}


def train(names: list[str], seconds: float, limit: float, torch: str | None) -> dict[str, dict[str, Any]]:
    """Records by workload, then by what ran."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = rows = {}
        for precision in ("float32", "tf32", "bfloat16"):
            command = [sys.executable, str(HERE / "workloads.py"), "cogkit", name, str(seconds), "gpu"]
            rows[f"cogkit {precision}"] = measured(command, limit, COGKIT_CUDA_PRECISION=precision)
            told(name, f"cogkit {precision}", rows)
        for device in PRECISIONS if torch else ():
            for variant in variants(name):
                key = f"torch {variant} {device.partition('-')[2] or 'float32'}"
                rows[key] = measured([torch, str(HERE / "peers.py"), name, str(seconds), variant, device], limit)
                told(name, key, rows)
    return found


def told(name: str, key: str, rows: dict[str, Any]) -> None:
    r = rows[key]
    print(f"{name:16} {key:40} {r['ms']:9.3f} ms" if "ms" in r else f"{name:16} {key:40} {r['error']}", flush=True)


def roofline(megabytes: float = 256, repeats: int = 10) -> dict[str, Any]:
    """GB/s of kernels over arrays of so many MB, the copy bandwidth, and GFLOP/s of a product, on the GPU of this process."""
    import numpy as np

    import cogkit as C
    from cogkit.engine.cuda.device import device
    from cogkit.engine.cuda.plan import CudaPlan
    from cogkit.engine.seeding import Run
    from cogkit.lowering.lower import Request, lower

    d = device()
    side = 2 ** int(math.log2(math.sqrt(megabytes * 2**18)))  # of numbers of 4 bytes
    n, square = side * side, min(4096, side // 2)
    with C.device.use_engine("cuda"):
        x, y = (C.parameter((side, side), init=v, name=k) for k, v in (("x", 0.5), ("y", 0.25)))
        row, column = C.parameter((1, side), init=0.5), C.parameter((side, 1), init=0.5)
        index = C.constant(np.random.RandomState(0).permutation(side).astype(np.float32))
        a, b = C.parameter((square, square), init=0.5), C.parameter((square, square), init=0.25)
        cases: dict[str, tuple[Any, float, float]] = {  # graph, bytes moved, operations
            "relu(x)": (C.relu(x), 8 * n, 0),
            "x + y": (x + y, 12 * n, 0),
            "relu(x * column + row) + y": (C.relu(x * column + row) + y, 12 * n, 0),
            "tanh(x)": (C.tanh(x), 8 * n, 0),
            "dropout-like: x * (random > 0.5)": (x * C.greater(C.random.uniform((side, side)), 0.5), 8 * n, 0),
            "sum of all": (C.reduce_sum(x), 4 * n, 0),
            "sums of rows": (C.reduce_sum(x, 1), 4 * n, 0),
            "sums of columns": (C.reduce_sum(x, 0), 4 * n, 0),
            "softmax of rows": (C.softmax(x, 1), 8 * n, 0),
            "log-sum-exp of rows": (C.reduce_log_sum_exp(x, 1), 4 * n, 0),
            "argmax of rows": (C.argmax(x, 1), 4 * n, 0),
            "transpose": (C.transpose(x, (1, 0)) * 1.0, 8 * n, 0),
            "gather of rows": (C.gather(x, index), 8 * n, 0),
            "adam-like update": (C.assign(x, x - 0.1 * y / (C.sqrt(C.abs(x)) + 1e-3)), 12 * n, 0),
            f"product of {square}": (C.times(a, b), 0, 2 * square**3),
        }  # fmt: skip
        found: dict[str, Any] = {"copy": _copy(d, n)}
        for name, (f, moved, operations) in cases.items():
            plan = CudaPlan(lower(Request(tuple(f.outputs), (), (), (), False, True, ()), {}, {}))
            plan.keep_outputs(0, True)
            for _ in range(3):
                plan.run({}, {}, Run(0, 0, 0))
            times = []
            for _ in range(5):
                with d.active():
                    d.finish()
                    start = time.perf_counter()
                    for _ in range(repeats):
                        plan.run({}, {}, Run(0, 0, 0))
                    d.finish()
                times.append((time.perf_counter() - start) / repeats)
            best = min(times)
            found[name] = {"ms": 1e3 * best}
            if moved:
                found[name].update(gb_s=moved / best / 1e9, of_copy=moved / best / 1e9 / found["copy"]["gb_s"])
            if operations:
                found[name].update(tflop_s=operations / best / 1e12)
            print(f"{name:40} {found[name]}", flush=True)
    return found


def _copy(d: Any, n: int) -> dict[str, float]:
    """GB/s of a copy on the device, read and written."""
    with d.active():
        a, b = d.alloc(4 * n), d.alloc(4 * n)
        times = []
        for _ in range(10):
            d.finish()
            start = time.perf_counter()
            for _ in range(10):
                d.cuda.memcpy_dtod_async(b.address, a.address, 4 * n, d.stream)
            d.finish()
            times.append((time.perf_counter() - start) / 10)
    return {"ms": 1e3 * min(times), "gb_s": 8 * n / min(times) / 1e9}


def machine() -> dict[str, str]:
    """GPU, driver and versions."""
    import cogkit as C
    from cogkit.engine.cuda import libraries

    p = C.device.get_gpu_properties(C.device.gpu(0))
    return {"gpu": p.name, "memory_mib": str(p.total_memory), "python": sys.version.split()[0], "cogkit": C.__version__,
            "capability": f"{p.version_major}.{p.version_minor}", **libraries.versions()}  # fmt: skip


def table(made: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"# Speed on a GPU, {time.strftime('%Y-%m-%d')}", "", "; ".join(f"{k}: {v}" for k, v in made["machine"].items()), "",
             "| workload | ours ms | (precision) | torch best ms | (which) | ratio | torch best float32 | ratio float32 |",
             "|---|--:|---|--:|---|--:|--:|--:|"]  # fmt: skip
    for name, rows in made["training"].items():
        ours = {k: r["ms"] for k, r in rows.items() if k.startswith("cogkit") and "ms" in r}
        theirs = {k: r["ms"] for k, r in rows.items() if k.startswith("torch") and "ms" in r}
        single = [ms for k, ms in theirs.items() if k.endswith("float32")]
        if not ours:
            lines.append(f"| {name} | {next(iter(rows.values())).get('error', '')} | | | | | | |")
            continue
        best = min(ours, key=ours.get)  # type: ignore[arg-type]
        other = min(theirs, key=theirs.get, default=None)  # type: ignore[arg-type]
        own = ours.get("cogkit float32", math.nan)
        ratio = f"{theirs[other] / ours[best]:.2f}" if other else "-"
        lines.append(
            f"| {name} | {ours[best]:.3f} | {best[7:]} | {theirs[other] if other else math.nan:.3f} | {(other or '-')[6:]} | {ratio} |"
            f" {min(single, default=math.nan):.3f} | {min(single, default=math.nan) / own:.2f} |"
        )
    lines += ["", "| kernels | ms | GB/s | of the copy | TFLOP/s |", "|---|--:|--:|--:|--:|"]
    for name, r in made["roofline"].items():
        cells = [f"{r['ms']:.3f}", f"{r['gb_s']:.0f}" if "gb_s" in r else "", f"{r['of_copy']:.0%}" if "of_copy" in r else "",
                 f"{r['tflop_s']:.1f}" if "tflop_s" in r else ""]  # fmt: skip
        lines.append("| " + " | ".join([name, *cells]) + " |")
    shares = [r["of_copy"] for r in made["roofline"].values() if "of_copy" in r]
    if shares:
        lines += ["", f"median share of the copy bandwidth: {statistics.median(shares):.0%}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Speed on a GPU beside PyTorch's.")
    parser.add_argument("workload", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for gpu.json and gpu.md")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each process")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a process counts as failed")
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch (default: this one); 'none'")
    parser.add_argument("--megabytes", type=float, default=256, help="of the arrays of the kernels' table")
    options = parser.parse_args()
    unknown = set(options.workload) - set(WORKLOADS)
    if unknown:
        parser.error(f"expected workloads of {', '.join(WORKLOADS)}, got {', '.join(sorted(unknown))}")
    torch = None if options.torch == "none" else options.torch
    made = {"machine": machine(), "roofline": roofline(options.megabytes)}
    made["training"] = train(options.workload, options.seconds, options.limit, torch)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(made, indent=1))
    (options.out / "gpu.md").write_text(table(made))
    print(table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
