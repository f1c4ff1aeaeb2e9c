"""Makes cuDNN's plans for every convolution of the zoo from the description of a GPU that is not there: python zoo_plans.py [--all]

device.json describes an H200 by its data sheet, until benchmarks/gpu_check.sh has brought the description of a real GPU. One line a model; fails
where a plan is missing. --all: in all types and layouts, else in float32 as it lies and in bfloat16 with channels last.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

__all__ = ["MODELS", "convolutions", "geometries"]

HERE = Path(__file__).resolve().parent
MODELS = ("resnet20", "resnet50", "vgg13_fer", "c3d", "resnet110")
KINDS = {"conv": "forward", "conv_dx": "backward_data", "conv_dw": "backward_weights"}


def convolutions(name: str) -> list:
    """(nodes of its convolutions forward and backward, rows of a minibatch) of a model as it is trained."""
    import cogkit as C
    from benchmarks import workloads
    from cogkit.engine.executable import Executable
    from cogkit.engine.feeds import bind_feeds
    from cogkit.lowering.lower import lower
    from cogkit.papers.resnet.model import network

    rows, shape, classes = workloads.SIZES["resnet20" if name == "resnet110" else name]
    x, y = C.input_variable(shape), C.input_variable(classes)
    z = network(x, 110, "projection", classes, seed=1) if name == "resnet110" else getattr(workloads, name)(C, x, classes)
    loss = C.cross_entropy_with_softmax(z, y)
    wanted = Executable(roots=loss.output, wrt=z.parameters, training=True)
    feeds = {x: np.zeros((1, *shape), "f4"), y: np.zeros((1, classes), "f4")}
    _, types, sizes = bind_feeds(feeds)
    return [n for n in lower(wanted.request, types, sizes).nodes if n.name in KINDS], rows


def geometries(name: str, everything: bool = False) -> Iterator:
    """The convolutions of a model, each once a type and layout."""
    from cogkit.engine.cuda.cudnn_graphs import Geometry

    nodes, rows = convolutions(name)
    ways = [("f4", False, "plain"), ("b2", False, "last")]
    if everything:
        ways = [(d, t, v) for (d, t), v in itertools.product(
            [("f4", False), ("f4", True), ("f2", False), ("b2", False), ("f8", False)], ("plain", "last"))]  # fmt: skip
    seen = set()
    for n, (dtype, tf32, layout) in itertools.product(nodes, ways):
        a, b, out = (*n.inputs, n.outputs[0])
        x, w, y = {"conv": (a, b, out), "conv_dx": (out, b, a), "conv_dw": (a, out, b)}[n.name]
        lo, hi = (tuple(p[i] for p in n.attrs["pads"]) for i in (0, 1))
        shapes = (rows, *x.type.shape), tuple(w.type.shape), (rows, *y.type.shape)
        fused = [(False, False), (True, True)] if n.name == "conv" else [(False, False)]
        for bias, relu in fused:
            g = Geometry(KINDS[n.name], *shapes, tuple(n.attrs["strides"]), tuple(n.attrs["dilation"]), lo, hi, n.attrs["groups"], dtype,
                         bias, relu, tf32, x_layout=layout, w_layout=layout, y_layout=layout)  # fmt: skip
            if g not in seen:
                seen.add(g)
                yield g


def main(everything: bool) -> int:
    """Number of convolutions without a plan."""
    from cogkit.engine.cuda import libraries
    from cogkit.engine.cuda.cudnn_graphs import Described, convolution_plans

    print(libraries.versions()["cuDNN"])
    device = Described((HERE / "device.json").read_bytes())
    missing = 0
    for name in MODELS:
        begin, made, scratch, slowest = time.perf_counter(), 0, 0, 0.0
        for g in geometries(name, everything):
            t = time.perf_counter()
            plans = convolution_plans(g, device)
            slowest = max(slowest, time.perf_counter() - t)
            if plans:
                made, scratch = made + 1, max(scratch, plans[0].scratch)
            else:
                missing += 1
                print(f"{name}: no plan for {g}")
        took = time.perf_counter() - begin
        print(f"{name}: {made} plans in {took:.1f} s, at most {slowest:.2f} s each, at most {scratch / 2**20:.0f} MiB of scratch")
    return missing


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))  # benchmarks is no part of the package
    sys.exit(min(main("--all" in sys.argv), 100))
