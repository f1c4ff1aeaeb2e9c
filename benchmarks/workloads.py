"""Training workloads in CNTK's words: the same text runs on cogkit and on CNTK 2.7 (Python 3.6 reads this file too).

usage: python workloads.py PACKAGE WORKLOAD SECONDS [cpu|gpu]; the last line printed is a JSON record.
"""

import importlib
import json
import sys
import time

SIZES = {"mlp": (64, (784,), 10), "resnet20": (128, (3, 32, 32), 10), "vgg13_fer": (32, (1, 64, 64), 8),
         "resnet50": (64, (3, 224, 224), 1000), "c3d": (16, (3, 16, 112, 112), 101)}  # fmt: skip
LARGE = ("resnet50", "c3d")  # for GPUs
SEQUENCES = {"lstm_speech": (16, 80, 500), "rnn_past_value": (32, 40, 50), "padding": (32, 80, 10)}  # at most, inputs, classes
RANGES = {"lstm_speech": (50, 200), "rnn_past_value": (20, 100)}  # of lengths
# of words that are drawn evenly: the learner, and how many words make one sparse row
WORDS = {"embedding_sgd": ("sgd", 1), "embedding_adagrad": ("adagrad", 1), "embedding_adam": ("adam", 1), "bags_sgd": ("sgd", 32),
         "bags_adagrad": ("adagrad", 32)}  # fmt: skip
VOCABULARY, VECTOR, TOKENS = 100000, 256, 4096  # words there are, numbers of a word's vector, words of a minibatch
LSTM, HAND = 512, 256  # cells of the LSTM layers and of the recurrence that is written by hand
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


def bottleneck(C, x, inputs, filters, stride):
    y = C.relu(normed(C, x, filters, 1))
    y = normed(C, C.relu(normed(C, y, filters, 3, stride)), 4 * filters, 1)
    return C.relu(y + (x if stride == 1 and inputs == 4 * filters else normed(C, x, 4 * filters, 1, stride)))


def resnet50(C, x, classes):
    """He et al. 2015, arXiv:1512.03385, table 1; the stride in the 3x3 convolution, as PyTorch's."""
    h = C.layers.MaxPooling((3, 3), strides=(2, 2), pad=True)(C.relu(normed(C, x, 64, 7, 2)))
    inputs = 64
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            h = bottleneck(C, h, inputs, filters, 2 if filters > 64 and block == 0 else 1)
            inputs = 4 * filters
    return C.layers.Dense(classes, activation=None)(C.layers.GlobalAveragePooling()(h))


def c3d(C, x, classes):
    """Tran et al. 2015, arXiv:1412.0767: eight 3x3x3 convolutions over clips of 16 frames."""
    layers = []
    for filters, depth, pool in (
        (64, 1, (1, 2, 2)),
        (128, 1, (2, 2, 2)),
        (256, 2, (2, 2, 2)),
        (512, 2, (2, 2, 2)),
        (512, 2, (2, 2, 2)),
    ):
        for _ in range(depth):
            layers.append(C.layers.Convolution((3, 3, 3), filters, pad=True, activation=C.relu))
        layers.append(C.layers.MaxPooling(pool, strides=pool))
    for _ in range(2):
        layers += [C.layers.Dense(4096, activation=C.relu), C.layers.Dropout(0.5)]
    return C.layers.Sequential(layers + [C.layers.Dense(classes, activation=None)])(x)


def lstm_speech(C, x, classes):
    """The recurrent acoustic model of CNTK's speech recipes in its usual size."""
    layers = C.layers.For(range(3), lambda: C.layers.Recurrence(C.layers.LSTM(LSTM)))
    return C.layers.Sequential([layers, C.layers.Dense(classes, activation=None)])(x)


def rnn_past_value(C, x, classes):
    """A recurrence that no layer library has, written with past_value."""
    w = C.parameter((x.shape[0], HAND), init=C.glorot_uniform())
    r = C.parameter((HAND, HAND), init=C.glorot_uniform())
    b = C.parameter(HAND, init=0)
    before = C.placeholder()
    h = C.sigmoid(C.times(x, w) + C.times(C.sequence.past_value(before), r) + b)
    h = h.replace_placeholders({before: h.output})
    return C.layers.Dense(classes, activation=None)(h)


def padding(C, x, classes):
    """One LSTM layer, whose minibatches differ in how much of them would be padding."""
    return C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(LSTM)), C.layers.Dense(classes, activation=None)])(x)


def padding_points(frames=2048, sequences=16):
    """(what, lengths) of the minibatches of `padding`: as many frames in other shapes, then more and fewer frames in the same shape."""
    points = [("equal lengths", [frames // sequences] * sequences)]
    for longest in (256, 512, 1024):
        short, left = divmod(frames - longest, sequences - 1)
        points.append(("one long", [longest] + [short + (k < left) for k in range(sequences - 1)]))
    for ratio in (0.9, 0.75, 0.5):  # each sequence so much shorter than the one before
        total = sum(ratio**k for k in range(sequences))
        lengths = [max(1, int(frames * ratio**k / total)) for k in range(sequences)]
        lengths[0] += frames - sum(lengths)
        points.append(("ever shorter", lengths))
    for count in (4, 8, 32):
        points.append((str(count) + " of equal lengths", [frames // sequences] * count))
    return points


def lengths_of(name, number):
    """Lengths of a numbered minibatch, other ones in each; the sum of those of lstm_speech and rnn_past_value is always the same."""
    import numpy as np

    rng = np.random.RandomState(1000 + number)
    if name == "padding":
        points = padding_points()
        return rng.permutation(points[number % len(points)][1])
    low, high = RANGES[name]
    half = rng.randint(low, high + 1, SEQUENCES[name][0] // 2)
    return rng.permutation(np.concatenate([half, low + high - half]))


def data(name, seed=0):
    """Gives minibatch i, the same for every package: (images, labels as numbers), or a list of each, an array a sequence.

    Of words: (numbers of the words of all rows, the vector that each row is to come to).
    """
    import numpy as np

    rng = np.random.RandomState(seed)
    if name in SIZES:
        rows, shape, classes = SIZES[name]
        made = [(rng.rand(rows, *shape).astype(np.float32), rng.randint(0, classes, rows)) for _ in range(BATCHES)]
        return lambda i: made[i % BATCHES]
    if name in WORDS:
        rows = TOKENS // WORDS[name][1]
        made = [(rng.randint(0, VOCABULARY, TOKENS), rng.rand(rows, VECTOR).astype(np.float32)) for _ in range(2 * BATCHES)]
        return lambda i: made[i % len(made)]
    count, inputs, classes = SEQUENCES[name]
    longest = max(max(lengths) for _, lengths in padding_points()) if name == "padding" else RANGES[name][1]
    frames = rng.rand(count, longest, inputs).astype(np.float32)
    labels = rng.randint(0, classes, (count, longest))

    def minibatch(i):
        lengths = lengths_of(name, i)
        return [frames[k, :n] for k, n in enumerate(lengths)], [labels[k, :n] for k, n in enumerate(lengths)]

    return minibatch


def samples_of(name):
    """Images or frames of a step, the mean where they differ."""
    if name in SIZES:
        return SIZES[name][0]
    if name in WORDS:
        return TOKENS
    points = len(padding_points()) if name == "padding" else 1
    return float(sum(lengths_of(name, i).sum() for i in range(points))) / points


def build_words(C, name):
    """(trainer, feeds) of an embedding whose rows of words, as CSR, are to come to given vectors."""
    import numpy as np
    import scipy.sparse

    learner, each = WORDS[name]
    x, y = C.input_variable(VOCABULARY, is_sparse=True), C.input_variable(VECTOR)
    z = C.layers.Embedding(VECTOR)(x)
    rate = C.learning_parameter_schedule_per_sample(RATE)
    make = {
        "sgd": lambda: C.sgd(z.parameters, rate),
        "adagrad": lambda: C.adagrad(z.parameters, rate, need_ave_multiplier=False),
        "adam": lambda: C.adam(z.parameters, rate, C.momentum_schedule(MOMENTUM)),
    }
    trainer = C.Trainer(z, (C.squared_error(z, y), None), [make[learner]()])
    minibatch, made = data(name), []
    for words, vectors in map(minibatch, range(2 * BATCHES)):
        ends = np.arange(0, TOKENS + 1, each)
        made.append(
            {x: scipy.sparse.csr_matrix((np.ones(TOKENS, np.float32), words, ends), (len(ends) - 1, VOCABULARY)), y: vectors}
        )
    return trainer, lambda i: made[i % len(made)]


def build(C, name):
    """(trainer, what gives the feeds of minibatch i) of a workload."""
    import numpy as np

    if name in WORDS:
        return build_words(C, name)
    model = {"mlp": mlp, "resnet20": resnet20, "vgg13_fer": vgg13_fer, "lstm_speech": lstm_speech, "rnn_past_value": rnn_past_value,
             "padding": padding, "resnet50": resnet50, "c3d": c3d}[name]  # fmt: skip
    minibatch = data(name)
    if name in SIZES:
        _, shape, classes = SIZES[name]
        x, y = C.input_variable(shape), C.input_variable(classes)
    else:
        _, inputs, classes = SEQUENCES[name]
        x, y = C.sequence.input_variable(inputs), C.sequence.input_variable(classes)
    z = model(C, x, classes)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    rate = C.learning_parameter_schedule(RATE, minibatch_size=C.learners.IGNORE)
    momentum = C.momentum_schedule(MOMENTUM, minibatch_size=C.learners.IGNORE)
    learner = C.momentum_sgd(z.parameters, rate, momentum, unit_gain=False, minibatch_size=C.learners.IGNORE)
    trainer = C.Trainer(z, (loss, error), [learner])
    one_hot = np.eye(classes, dtype=np.float32)
    if name in SIZES:
        made = [{x: images, y: one_hot[labels]} for images, labels in map(minibatch, range(BATCHES))]
        return trainer, lambda i: made[i % BATCHES]

    def feed(i):
        frames, labels = minibatch(i)
        return {x: frames, y: [one_hot[numbers] for numbers in labels]}

    return trainer, feed


def memory(field="VmHWM"):
    """MiB that this process holds at most (VmHWM) or now (VmRSS); the most where the system tells no more."""
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) / 1024.0 for line in f if line.startswith(field + ":"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024.0**2 if sys.platform == "darwin" else 1024.0)


def timed(name, step, feed, seconds):
    """Runs step(feed(i)) for some seconds and at least 5 times, feed(i) outside of what is measured; the record of it."""
    import numpy as np

    points = len(padding_points()) if name == "padding" else 1
    least, warm = (2 * points, points) if points > 1 else (5, 3)
    first = step(feed(0))
    for i in range(1, warm):
        step(feed(i))
    walls, cpus, end, i = [], [], time.perf_counter() + seconds, warm
    while len(walls) < least or len(walls) % points or time.perf_counter() < end:
        fed = feed(i)
        i += 1
        cpu, wall = time.process_time(), time.perf_counter()
        last = step(fed)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    each = [1e3 * float(np.median(walls[k::points])) for k in range(points)]
    record = {
        "ms": float(np.mean(each)),
        "cpu_ms": 1e3 * float(np.mean([np.median(cpus[k::points]) for k in range(points)])),
        "samples": samples_of(name),
        "steps": len(walls),
        "loss_first": float(first),
        "loss_last": float(last),
    }
    if points > 1:
        record["each_ms"] = each
    return record


def main():
    package, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    C = importlib.import_module(package)
    importlib.import_module(package + ".layers")
    if sys.argv[4:] == ["gpu"]:
        if not C.device.try_set_default_device(C.device.gpu(0)):
            raise SystemExit("workloads.py: expected a GPU, got none")
    elif package == "cntk":
        C.device.try_set_default_device(C.device.cpu())
        C.cntk_py.set_fixed_random_seed(1)
    imported = memory()
    started = time.perf_counter()
    trainer, feed = build(C, name)

    def step(fed):
        trainer.train_minibatch(fed)
        return trainer.previous_minibatch_loss_average

    step(feed(0))
    ready = time.perf_counter() - started
    found = timed(name, step, feed, seconds)
    found.update(ready_s=ready, import_mib=imported, peak_mib=memory(), version=str(C.__version__))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
