"""Residual and plain nets for small images, from layers only.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2: depth 6n + 2, three stages of n blocks
with 16, 32 and 64 maps, global average pooling, one dense layer.
"""

from itertools import count

import cogkit as C
import cogkit.layers as L

__all__ = ["network"]

WIDTHS = (16, 32, 64)
SHORTCUTS = ("none", "identity", "projection")


def network(x, depth: int, shortcut: str, classes: int, seed: int, stem_stride: int = 1, bn_time_constant: float = 4096):
    """Scores of `classes` for images x: (3, H, W).

    depth: 6n + 2.  shortcut: "none" (the plain net), "identity" (option A: zeros for the maps that are not there yet) or
    "projection" (option B: 1x1 convolutions where the shape changes, CNTK's choice).  stem_stride 2: a quarter of the positions.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(f"network: expected a depth of 6n + 2 (8, 14, 20, 32, ...), got {depth}")
    if shortcut not in SHORTCUTS:
        raise ValueError(f"network: expected a shortcut of {', '.join(SHORTCUTS)}, got '{shortcut}'")
    seeds = count(1000 * seed + 1)

    def conv_bn(x, filters: int, window: int = 3, stride: int = 1):
        init = C.he_normal(seed=next(seeds))
        h = L.Convolution2D((window, window), filters, init=init, strides=stride, pad=True, bias=False)(x)
        return L.BatchNormalization(map_rank=1, normalization_time_constant=bn_time_constant)(h)

    def skip(x, filters: int, stride: int):
        if stride == 1:
            return x
        if shortcut == "projection":
            return conv_bn(x, filters, window=1, stride=stride)
        seen = L.AveragePooling((1, 1), strides=stride)(x)
        return C.pad(seen, [(0, filters - x.shape[0]), (0, 0), (0, 0)])

    def block(x, filters: int, stride: int):
        h = conv_bn(C.relu(conv_bn(x, filters, stride=stride)), filters)
        return C.relu(h if shortcut == "none" else h + skip(x, filters, stride))

    h = C.relu(conv_bn(x, WIDTHS[0], stride=stem_stride))
    for stage, filters in enumerate(WIDTHS):
        for k in range(n):
            h = block(h, filters, 2 if stage > 0 and k == 0 else 1)
    h = L.GlobalAveragePooling()(h)
    return L.Dense(classes, init=C.glorot_uniform(seed=next(seeds)))(h)
