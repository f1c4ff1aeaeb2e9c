"""A residual net for small images, from layers only.

Zheng et al., ICML 2017, train the ResNet-20 of He et al. 2016, section 4.2: depth 6n + 2, three stages of n blocks, identity shortcuts
(zeros for new maps), batch normalisation after each convolution, global average pooling, one dense layer.
"""

from itertools import count

import cogkit as C
import cogkit.layers as L

__all__ = ["network"]


def network(x, depth: int, width: int, classes: int, seed: int, stem_stride: int = 1, bn_time_constant: float = 4096):
    """Scores of `classes` for images x: (3, H, W).

    depth: 6n + 2.  width: maps of the first stage, the others have twice and four times as many.  stem_stride 2: a quarter of the
    positions.  bn_time_constant: samples of one worker.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(f"network: expected a depth of 6n + 2 (8, 14, 20, 32, ...), got {depth}")
    seeds = count(1000 * seed + 1)

    def conv_bn(x, filters: int, stride: int):
        init = C.he_normal(seed=next(seeds))
        h = L.Convolution2D((3, 3), filters, init=init, strides=stride, pad=True, bias=False)(x)
        return L.BatchNormalization(map_rank=1, normalization_time_constant=bn_time_constant)(h)

    def skip(x, filters: int, stride: int):
        if stride == 1:
            return x
        return C.pad(L.AveragePooling((1, 1), strides=stride)(x), [(0, filters - x.shape[0]), (0, 0), (0, 0)])

    h = C.relu(conv_bn(x, width, stem_stride))
    for stage in range(3):
        for block in range(n):
            filters, stride = width << stage, 2 if stage and not block else 1
            inner = conv_bn(C.relu(conv_bn(h, filters, stride)), filters, 1)
            h = C.relu(inner + skip(h, filters, stride))
    return L.Dense(classes, init=C.glorot_uniform(seed=next(seeds)))(L.GlobalAveragePooling()(h))
