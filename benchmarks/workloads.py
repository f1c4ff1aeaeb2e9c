"""Training workloads in CNTK's words: the same text runs on cogkit and on CNTK 2.7 (Python 3.6 reads this file too).

usage: python workloads.py PACKAGE WORKLOAD SECONDS; the last line printed is a JSON record.
"""

import importlib
import json
import sys
import time

SIZES = {"mlp": (64, (784,), 10), "resnet20": (128, (3, 32, 32), 10), "vgg13_fer": (32, (1, 64, 64), 8)}
BATCHES = 4  # as in training, each minibatch is another array than the one before
RATE, MOMENTUM = 0.01, 0.9


def mlp(C, x, classes):
    hidden = C.layers.For(range(2), lambda: C.layers.Dense(512, activation=C.relu))
    return C.layers.Sequential([hidden, C.layers.Dense(classes, activation=None)])(x)


def normed(C, x, filters, size=3, stride=1):
    y = C.layers.Convolution2D((size, size), filters, strides=(stride, stride), pad=True, bias=False, activation=None)(x)
    return C.layers.BatchNormalization(map_rank=1)(y)


def residual(C, x, filters, stride):
    y = normed(C, C.relu(normed(C, x, filters, 3, stride)), filters)
    return C.relu(y + (x if stride == 1 else normed(C, x, filters, 1, stride)))


def resnet20(C, x, classes):
    """He et al. 2015, arXiv:1512.03385, the network of its CIFAR-10 section with projections where the size changes."""
    h = C.relu(normed(C, x, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            h = residual(C, h, filters, 2 if filters > 16 and block == 0 else 1)
    return C.layers.Dense(classes, activation=None)(C.layers.GlobalAveragePooling()(h))


def vgg13_fer(C, x, classes):
    """Barsoum et al. 2016, arXiv:1608.01041: the VGG13 for 64x64 faces, with its dropout."""
    layers = []
    for filters, depth in ((64, 2), (128, 2), (256, 3), (256, 3)):
        for _ in range(depth):
            layers.append(C.layers.Convolution2D((3, 3), filters, pad=True, activation=C.relu))
        layers += [C.layers.MaxPooling((2, 2), strides=(2, 2)), C.layers.Dropout(0.25)]
    for _ in range(2):
        layers += [C.layers.Dense(1024, activation=C.relu), C.layers.Dropout(0.5)]
    return C.layers.Sequential(layers + [C.layers.Dense(classes, activation=None)])(x)


def data(name, seed=0):
    """Batches of (images, labels as numbers): the same for every package."""
    import numpy as np

    rows, shape, classes = SIZES[name]
    rng = np.random.RandomState(seed)
    return [(rng.rand(rows, *shape).astype(np.float32), rng.randint(0, classes, rows)) for _ in range(BATCHES)]


def build(C, name):
    """(trainer, feeds) of a workload."""
    import numpy as np

    _, shape, classes = SIZES[name]
    x, y = C.input_variable(shape), C.input_variable(classes)
    z = {"mlp": mlp, "resnet20": resnet20, "vgg13_fer": vgg13_fer}[name](C, x, classes)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    rate = C.learning_parameter_schedule(RATE, minibatch_size=C.learners.IGNORE)
    momentum = C.momentum_schedule(MOMENTUM, minibatch_size=C.learners.IGNORE)
    learner = C.momentum_sgd(z.parameters, rate, momentum, unit_gain=False, minibatch_size=C.learners.IGNORE)
    trainer = C.Trainer(z, (loss, error), [learner])
    feeds = [{x: images, y: np.eye(classes, dtype=np.float32)[labels]} for images, labels in data(name)]
    return trainer, feeds


def memory(field="VmHWM"):
    """MiB that this process holds at most (VmHWM) or now (VmRSS); the most where the system tells no more."""
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) / 1024.0 for line in f if line.startswith(field + ":"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024.0**2 if sys.platform == "darwin" else 1024.0)


def timed(step, seconds, least=5, warm=3):
    """Runs step() for some seconds and at least 5 times; the record of it."""
    import numpy as np

    first = step()
    for _ in range(warm - 1):
        last = step()
    walls, cpus, end = [], [], time.perf_counter() + seconds
    while len(walls) < least or time.perf_counter() < end:
        cpu, wall = time.process_time(), time.perf_counter()
        last = step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {
        "ms": 1e3 * float(np.median(walls)),
        "cpu_ms": 1e3 * float(np.median(cpus)),
        "steps": len(walls),
        "loss_first": float(first),
        "loss_last": float(last),
    }


def main():
    package, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    C = importlib.import_module(package)
    importlib.import_module(package + ".layers")
    if package == "cntk":
        C.device.try_set_default_device(C.device.cpu())
        C.cntk_py.set_fixed_random_seed(1)
    imported = memory()
    started = time.perf_counter()
    trainer, feeds = build(C, name)
    at = [0]

    def step():
        trainer.train_minibatch(feeds[at[0] % len(feeds)])
        at[0] += 1
        return trainer.previous_minibatch_loss_average

    step()
    ready = time.perf_counter() - started
    found = timed(step, seconds)
    found.update(ready_s=ready, import_mib=imported, peak_mib=memory(), version=str(C.__version__))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
