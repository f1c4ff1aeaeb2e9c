"""The same workloads in PyTorch, as its users write them for this CPU.

usage: python peers.py WORKLOAD SECONDS VARIANT; VARIANT: eager, channels_last, compile, compile_channels_last.
The last line printed is a JSON record as of workloads.py.
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# run as a script: its own folder is on the path only where PYTHONSAFEPATH is not set
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from workloads import MOMENTUM, RATE, SIZES, data, memory, timed  # noqa: E402


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


def mlp(classes):
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes))


def main():
    name, seconds, variant = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    imported = memory()
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    started = time.perf_counter()
    model = {"mlp": mlp, "resnet20": resnet20, "vgg13_fer": vgg13_fer}[name](SIZES[name][2])
    batches = [(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in data(name)]
    if variant.endswith("channels_last"):
        model = model.to(memory_format=torch.channels_last)
        batches = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in batches]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, foreach=True)

    def loss_of(images, labels):
        return F.cross_entropy(model(images), labels)

    if variant.startswith("compile"):
        loss_of = torch.compile(loss_of)
    at = [0]

    def step():
        images, labels = batches[at[0] % len(batches)]
        at[0] += 1
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    ready = time.perf_counter() - started
    found = timed(step, seconds)
    found.update(ready_s=ready, import_mib=imported, peak_mib=memory(), version=torch.__version__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
