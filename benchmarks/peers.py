"""The same workloads in PyTorch, as its users write them for this CPU.

usage: python peers.py WORKLOAD SECONDS VARIANT [cpu|cuda|cuda-tf32|cuda-bf16]

VARIANT: eager, channels_last, compile, compile_channels_last; over sequences: padded,
packed (by pack_padded_sequence in each step), packed_sorted (before, longest first), script_padded, script_packed_sorted, compile_padded;
of words: sparse, dense (gradients).
On a GPU what is fed is copied from pinned memory in each step; tf32 and bf16 (autocast) are the precision of products.
What is fed is padded, sorted or packed beforehand and outside of what is measured, but for `packed`.
The last line printed is a JSON record as of workloads.py.
"""

import json
import os
import sys
import time
from typing import List  # noqa: UP035  (TorchScript reads it)

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_sequence

# run as a script: its own folder is on the path only where PYTHONSAFEPATH is not set
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from workloads import (  # noqa: E402
    HAND,
    LSTM,
    MOMENTUM,
    RATE,
    SEQUENCES,
    SIZES,
    TOKENS,
    VECTOR,
    VOCABULARY,
    WORDS,
    data,
    memory,
    timed,
)


def normed(inputs, filters, size=3, stride=1):
    return [nn.Conv2d(inputs, filters, size, stride, size // 2, bias=False), nn.BatchNorm2d(filters)]


class Residual(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.body = nn.Sequential(*normed(inputs, filters, 3, stride), nn.ReLU(inplace=True), *normed(filters, filters))
        self.short = nn.Identity() if stride == 1 else nn.Sequential(*normed(inputs, filters, 1, stride))

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x), inplace=True)


def resnet20(classes):
    layers, inputs = [*normed(3, 16), nn.ReLU(inplace=True)], 16
    for filters in (16, 32, 64):
        for block in range(3):
            layers.append(Residual(inputs, filters, 2 if filters > 16 and block == 0 else 1))
            inputs = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def vgg13_fer(classes):
    layers, inputs = [], 1
    for filters, depth in ((64, 2), (128, 2), (256, 3), (256, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, filters, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    layers += [nn.Flatten(), nn.Linear(256 * 4 * 4, 1024), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    layers += [nn.Linear(1024, 1024), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(1024, classes)]
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.body = nn.Sequential(
            *normed(inputs, filters, 1),
            nn.ReLU(inplace=True),
            *normed(filters, filters, 3, stride),
            nn.ReLU(inplace=True),
            *normed(filters, 4 * filters, 1),
        )
        same = stride == 1 and inputs == 4 * filters
        self.short = nn.Identity() if same else nn.Sequential(*normed(inputs, 4 * filters, 1, stride))

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x), inplace=True)


def resnet50(classes):
    layers, inputs = [*normed(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)], 64
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, filters, 2 if filters > 64 and block == 0 else 1))
            inputs = 4 * filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, classes))


def c3d(classes):
    layers, inputs = [], 3
    for filters, depth, pool in ((64, 1, (1, 2, 2)), (128, 1, 2), (256, 2, 2), (512, 2, 2), (512, 2, 2)):
        for _ in range(depth):
            layers += [nn.Conv3d(inputs, filters, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = filters
        layers.append(nn.MaxPool3d(pool))
    layers.append(nn.Flatten())
    for width in (512 * 9, 4096):
        layers += [nn.Linear(width, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(4096, classes))


def mlp(classes):
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes))


class Recurrent(nn.Module):
    """LSTM layers over a padded array (steps, sequences, inputs) or packed sequences; gives (rows, classes) of all there is."""

    def __init__(self, inputs, classes, layers):
        super().__init__()
        self.lstm, self.out = nn.LSTM(inputs, LSTM, layers), nn.Linear(LSTM, classes)

    def forward(self, x):
        h, _ = self.lstm(x)
        return self.out(h.data if isinstance(h, PackedSequence) else h.flatten(0, 1))


def one_step(a, h, r):
    return torch.sigmoid(torch.addmm(a, h, r))


def padded_loop(a, r):
    """The hand-written recurrence over a padded array."""
    h = torch.sigmoid(a[0])
    found = [h]
    for step in a.unbind(0)[1:]:
        h = torch.sigmoid(torch.addmm(step, h, r))
        found.append(h)
    return torch.cat(found)


def packed_loop(a, sizes: List[int], r):  # noqa: UP006
    """The same over packed rows, step by step: sizes are the sequences that are left."""
    parts = a.split(sizes)
    h = torch.sigmoid(parts[0])
    found = [h]
    for step in parts[1:]:
        h = torch.sigmoid(torch.addmm(step, h[: step.size(0)], r))
        found.append(h)
    return torch.cat(found)


class Hand(nn.Module):
    """A recurrence that nn has not; what does not depend on the loop is outside of it."""

    def __init__(self, inputs, classes, variant):
        super().__init__()
        self.w, self.r, self.out = nn.Linear(inputs, HAND), nn.Linear(HAND, HAND, bias=False), nn.Linear(HAND, classes)
        scripted = variant.startswith("script")
        self.padded = torch.jit.script(padded_loop) if scripted else padded_loop
        self.packed = torch.jit.script(packed_loop) if scripted else packed_loop
        if variant.startswith("compile"):  # a whole loop would be unrolled, and compiled again for each number of steps
            step = torch.compile(one_step)

            def compiled(a, r):
                h = torch.sigmoid(a[0])
                found = [h]
                for part in a.unbind(0)[1:]:
                    h = step(part, h, r)
                    found.append(h)
                return torch.cat(found)

            self.padded = compiled

    def forward(self, x):
        r = self.r.weight.t()
        if isinstance(x, PackedSequence):
            return self.out(self.packed(self.w(x.data), x.batch_sizes.tolist(), r))
        return self.out(self.padded(self.w(x), r))


def dense(name, variant):
    """(what gives the loss, what gives minibatch i, the model) of a workload of images."""
    model = {"mlp": mlp, "resnet20": resnet20, "vgg13_fer": vgg13_fer, "resnet50": resnet50, "c3d": c3d}[name](SIZES[name][2])
    minibatch = data(name)
    batches = [(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in map(minibatch, range(4))]
    if variant.endswith("channels_last"):
        form = torch.channels_last_3d if name == "c3d" else torch.channels_last
        model = model.to(memory_format=form)
        batches = [(images.contiguous(memory_format=form), labels) for images, labels in batches]

    def loss_of(images, labels):
        return F.cross_entropy(model(images), labels)

    return torch.compile(loss_of) if variant.startswith("compile") else loss_of, lambda i: batches[i % len(batches)], model


def recurrent(name, variant):
    """The same of a workload of sequences."""
    _, inputs, classes = SEQUENCES[name]
    if name == "rnn_past_value":
        model = Hand(inputs, classes, variant)
    else:
        model = Recurrent(inputs, classes, 3 if name == "lstm_speech" else 1)
    minibatch = data(name)
    run = torch.compile(model) if variant.startswith("compile") and name != "rnn_past_value" else model

    def feed(i):
        frames, labels = ([torch.from_numpy(a) for a in arrays] for arrays in minibatch(i))
        if variant.endswith("packed_sorted"):
            order = sorted(range(len(frames)), key=lambda k: -len(frames[k]))
            x = pack_sequence([frames[k].contiguous() for k in order], enforce_sorted=True)
            return x, None, pack_sequence([labels[k] for k in order], enforce_sorted=True).data
        x, lengths = pad_sequence(frames), torch.tensor([len(a) for a in frames])
        if variant == "packed":
            return x, lengths, pack_padded_sequence(pad_sequence(labels), lengths, enforce_sorted=False).data
        return x, None, pad_sequence(labels, padding_value=-100).flatten()  # cross_entropy leaves -100 out

    def loss_of(x, lengths, labels):
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return F.cross_entropy(run(x), labels)

    return loss_of, feed, model


def words(name, variant):
    """(loss, minibatches, model, optimizer) of an embedding; sparse: gradients are lists of rows, dense: whole."""
    learner, each = WORDS[name]
    sparse = variant == "sparse"
    model = (
        nn.Embedding(VOCABULARY, VECTOR, sparse=sparse)
        if each == 1
        else nn.EmbeddingBag(VOCABULARY, VECTOR, mode="sum", sparse=sparse)
    )
    starts = torch.arange(0, TOKENS, each)
    minibatch = data(name)
    batches = [(torch.from_numpy(w), torch.from_numpy(v)) for w, v in map(minibatch, range(8))]

    def loss_of(numbers, vectors):
        found = model(numbers) if each == 1 else model(numbers, starts)
        return ((found - vectors) ** 2).sum()

    adam = torch.optim.SparseAdam if sparse else torch.optim.Adam
    make = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": adam}[learner]
    return loss_of, lambda i: batches[i % len(batches)], model, make(model.parameters(), lr=RATE)


def main():
    name, seconds, variant = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    device, _, precision = (sys.argv[4:] or ["cpu"])[0].partition("-")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    imported = memory()
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    started = time.perf_counter()
    if name in WORDS:
        loss_of, feed, model, optimizer = words(name, variant)
    else:
        loss_of, feed, model = (dense if name in SIZES else recurrent)(name, variant)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, foreach=True)

    def moved(x):
        return x if x is None else x.to(device, non_blocking=True)

    if device != "cpu":
        model.to(device)
        given = feed

        def pinned(x):
            return x if x is None else x.pin_memory()

        kept = {}

        def feed(i):
            if name in SIZES or name in WORDS:
                i %= 8
                if i not in kept:
                    kept[i] = tuple(map(pinned, given(i)))
                return kept[i]
            return tuple(map(pinned, given(i)))

    def step(fed):
        if device != "cpu":
            fed = tuple(map(moved, fed))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(*fed)
        loss.backward()
        optimizer.step()
        return loss.item()

    step(feed(0))
    ready = time.perf_counter() - started
    found = timed(name, step, feed, seconds)
    found.update(ready_s=ready, import_mib=imported, peak_mib=memory(), version=torch.__version__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
