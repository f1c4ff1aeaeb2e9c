"""Losses over very many classes: of samples of the classes, and in two steps. Only the rows of the classes drawn are read and trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit import ops
from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.initializer import glorot_normal
from cogkit.op import INFERRED, Op, Type, common_dtype, fits, join_axes, shown
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed, purpose_of
from cogkit.ops.sampling import chances, checked, drawn, weights_type
from cogkit.variables import Constant

__all__ = ["hierarchical_softmax_layer", "nce_loss", "sampled_softmax_loss"]

# operands of both losses: weights (classes, inputs), biases (classes, 1) or (classes,), inputs, one-hot labels, noise (classes,)


def _bind(types, attrs):
    weights, biases, inputs, labels, noise = (t.shape for t in types)
    size = (labels + noise)[0] if labels + noise else INFERRED
    if len(weights) == 2 and len(inputs) == 1:
        weights = tuple(m if n == INFERRED else n for n, m in zip(weights, (size, *inputs), strict=True))
    return [weights, tuple(size if n == INFERRED else n for n in biases[:1]) + biases[1:], inputs, labels, noise]


def _type(types, attrs):
    weights, biases, inputs, labels, noise = (t.shape for t in types)
    if len(weights) != 2 or types[0].axes:
        raise ValueError(("weights of shape (classes, inputs) without rows", f"{types[0]}", ""))
    weights_type(types[4], attrs["num_samples"], attrs["allow_duplicates"])
    wanted = [("biases", biases, weights[:1]), ("inputs", inputs, weights[1:]), ("labels", labels, weights[:1])]
    for name, have, wish in [*wanted, ("noise_distribution", noise, weights[:1])]:
        if not (fits(have, wish) or name == "biases" and fits(have, (*wish, 1))):
            raise ValueError((f"{name} of shape {shown(wish)} for weights {shown(weights)}", shown(have), ""))
    return [Type((), common_dtype(types), join_axes(types))]


def _number(labels):
    """The number of the class of one-hot labels, (1,); sparse ones stay so."""
    (classes,), dtype = labels.type.shape, labels.type.dtype
    if not labels.sparse:
        return labels.stop().node("argmax_axis", axis=0)
    numbers = Constant(np.arange(classes, dtype=dtype).reshape(classes, 1), dtype=dtype)
    column = labels.graph.leaf(numbers, numbers.type)
    product = labels.graph.node("matmul", [labels.reshape((1, classes)), column], ta=False, tb=False, sum_rows=False)
    return product.stop().reshape((1,))


def _logits(x, attrs):
    """Outputs of the true class (1,) and of the drawn ones (samples,), and the numbers of these classes."""
    weights, biases, inputs, labels, noise = x
    g, (classes, size), n = weights.graph, weights.type.shape, attrs["num_samples"]
    biases = biases.reshape((classes,))
    true, sample = _number(labels), drawn(noise, attrs)
    own = (g.node("gather", [weights, true]) * inputs.reshape((1, size))).node("reduce_sum", axes=(1,), rows=False).reshape((1,))
    others = g.node("matmul", [inputs.reshape((1, size)), g.node("gather", [weights, sample])], ta=False, tb=True, sum_rows=False)
    return own + g.node("gather", [biases, true]), others.reshape((n,)) + g.node("gather", [biases, sample]), true, sample


def _sum(v):
    return v.node("reduce_sum", axes=(0,), rows=False).reshape(())


def _nce(g, x, attrs, training):
    own, others, true, sample = _logits(x, attrs)
    noise = x[4].stop()
    expected = chances(noise, {**attrs, "allow_duplicates": True})
    rare, often = (g.node("gather", [expected, i]) for i in (true, sample))
    found = others.logaddexp(often.log())
    if not attrs["allow_duplicates"]:  # so that the sum keeps its mean
        found = found * (often / g.node("gather", [chances(noise, attrs), sample]))
    entropy = _sum((expected > 0.0).select(expected * expected.log(), 0.0))
    # the chance that a class comes from the data and not from the noise is sigmoid(logit - log expected count)
    return _sum((rare.log() - own).node("softplus")) + _sum(found) - entropy


def _sampled(g, x, attrs, training):
    own, others, true, sample = _logits(x, attrs)
    expected = chances(x[4], attrs)
    own, others = own - g.node("gather", [expected, true]).log(), others - g.node("gather", [expected, sample]).log()
    others = sample.eq(true).select(-1e30, others)  # a true class that was drawn is not its own rival
    every = g.node("concat", [own, others], axis=0)
    return (every.node("reduce_logsumexp", axes=(0,), rows=False) - own).reshape(())


Op(
    "nce_loss",
    "NCE",
    _type,
    None,
    "expand",
    "Gutmann and Hyvarinen 2010; Mnih and Teh 2012",
    expand=_nce,
    bind=_bind,
    stateful=True,
)
Op("sampled_softmax_loss", "SampledSoftmax", _type, None, "expand", "Jean 2015", expand=_sampled, bind=_bind, stateful=True)


def _make(op: str, label: str, operands: list[Any], num_samples: int, allow_duplicates: bool, seed: int, name: str) -> Function:
    noise = checked(label, operands[-1], num_samples, allow_duplicates)
    how = {"num_samples": int(num_samples), "allow_duplicates": bool(allow_duplicates), "seed": int(seed)}
    return apply(op, to_variables(*operands[:-1], noise), name, **how, purpose=purpose_of(seed))


def nce_loss(
    weights: Any,
    biases: Any,
    inputs: Any,
    labels: Any,
    noise_distribution: Any,
    num_samples: int = 32,
    allow_duplicates: bool = True,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """Noise-contrastive estimation: how well the true class is told from drawn ones, a value a row. Reads the rows of these classes only.

    log(1 + k_y / e^z_y) + sum over drawn classes of log(e^z_c + k_c) - sum over all of k log k, z = weights inputs + biases, k = num_samples
    times the share of a class in noise_distribution; without duplicates each drawn class counts k / (chance to be drawn). weights: (classes,
    inputs), biases: (classes, 1) or (classes,), labels: one-hot (classes,), noise_distribution: (classes,), above 0 for every label. One
    sample, that of a `random_sample` of equal seed, serves the whole minibatch; each evaluation draws another. Raises `ValueError` for
    shapes that do not fit and as `random_sample`.
    """
    operands = [weights, biases, inputs, labels, noise_distribution]
    return _make("nce_loss", "NCE", operands, num_samples, allow_duplicates, seed, name)


def sampled_softmax_loss(
    weights: Any,
    biases: Any,
    inputs: Any,
    labels: Any,
    noise_distribution: Any,
    num_samples: int = 32,
    allow_duplicates: bool = True,
    seed: int = SentinelValueForAutoSelectRandomSeed,
    name: str = "",
) -> Function:
    """Cross-entropy of a softmax over the true class and drawn ones, outputs less log k: close to that over all classes, a value a row.

    Arguments as `nce_loss`, k: how often a class is expected to be drawn; a drawn class that is the true one
    does not count. CNTK has no function for it, its examples do.
    """
    operands = [weights, biases, inputs, labels, noise_distribution]
    return _make("sampled_softmax_loss", "SampledSoftmax", operands, num_samples, allow_duplicates, seed, name)


def hierarchical_softmax_layer(
    input_var: Any, label_index: Any, label_dim: int, label_classes: int | None = None
) -> tuple[Function, Function, list[Function]]:
    """A softmax in two steps, over groups of classes and within the group of the label: (p of the label, p of groups, p of all classes).

    input_var: (inputs,). label_index: (1,), the number of the class. label_dim: classes. label_classes: groups, ceil(sqrt(label_dim)) where
    left out; each has ceil(label_dim / groups) classes in a row, the last ones more than there are. The first result (1, 1) reads the
    weights of one group a row; the third is a list of (classes a group,), one for each group. Raises `ValueError` for no classes, and
    where the inputs are no vector of known size. Biases start from `glorot_normal` too, as in CNTK.
    Source: Goodman 2001, classes for fast maximum entropy training.
    """
    (x,) = to_variables(input_var)
    groups = math.ceil(math.sqrt(label_dim)) if label_classes is None else int(label_classes)
    if label_dim < 1 or groups < 1:
        raise ValueError(here(f"hierarchical_softmax_layer: expected classes and groups, got {label_dim} in {groups}"))
    if x.shape is None or len(x.shape) != 1 or x.shape[0] < 0:
        raise ValueError(here(f"hierarchical_softmax_layer: expected an input of shape (inputs,), got {x!r}"))
    each, size = math.ceil(label_dim / groups), x.shape[0]
    w1 = ops.parameter((size, groups), init=glorot_normal(), name="hsoftmax_w1")
    b1 = ops.parameter((groups,), init=glorot_normal(), name="hsoftmax_b1")
    w2 = ops.parameter((groups, size, each), init=glorot_normal(), name="hsoftmax_w2s")
    b2 = ops.parameter((groups, each), init=glorot_normal(), name="hsoftmax_b2s")
    of_groups = ops.softmax(ops.times(x, w1) + b1)

    group = ops.floor(label_index / each)
    place = ops.one_hot(label_index - group * each, each)
    within = ops.softmax(ops.times(x, ops.reshape(ops.gather(w2, group), (size, each))) + ops.gather(b2, group), axis=-1)
    of_group = ops.reduce_sum(of_groups * ops.reshape(ops.one_hot(group, groups), (groups,)), axis=-1)
    of_label = ops.reshape(ops.reduce_sum(within * place, axis=-1), (1,)) * of_group

    every = []
    for i in range(groups):
        w, b = (ops.reshape(ops.slice(p, Axis(0), i, i + 1), p.shape[1:]) for p in (w2, b2))
        every.append(ops.softmax(ops.times(x, w) + b) * ops.slice(of_groups, Axis(0), i, i + 1))
    return ops.reshape(of_label, (1, 1)), of_groups, every
