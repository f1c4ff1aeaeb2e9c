"""Weighted samples of classes, and how often a sample holds each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.errors import here
from cogkit.functions import Function, apply, to_variable
from cogkit.op import Op, Type, constant_gradient
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed, purpose_of

__all__ = ["random_sample", "random_sample_inclusion_frequency"]


def weights_type(t: Type, count: int, duplicates: bool) -> Type:
    """The type of weights of classes; `ValueError` where they are no vector without rows or have too few classes."""
    if t.axes or len(t.shape) != 1:
        raise ValueError(("weights of shape (classes,) without rows", str(t), ""))
    if not duplicates and 0 <= t.shape[0] < count:
        raise ValueError((f"at most {t.shape[0]} samples without duplicates of {t.shape[0]} classes", str(count), ""))
    return t


def checked(label: str, weights: Any, count: Any, duplicates: bool) -> Any:
    """The weights as a variable; `ValueError` for a count below 1, and for constants that are no weights of so many classes."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(here(f"{label}: expected num_samples of 1 or more, got {count!r}"))
    weights = to_variable(weights)
    if weights.is_constant:
        w = weights.value
        bad = ~((w >= 0) & np.isfinite(w))
        if bad.any():
            raise ValueError(here(f"{label}: expected finite weights of 0 or more, got {w[bad].ravel()[0]:g}"))
        able = int((w > 0).sum())
        need = 1 if duplicates else int(count)
        if w.ndim == 1 and able < need <= w.size:
            raise ValueError(here(f"{label}: expected at least {need} weights above 0, got {able}"))
    return weights


# primitives: weights (classes,) -> numbers of classes (count,); -> a chance for each class
Op(
    "sample_classes",
    "RandomSample",
    lambda types, attrs: [types[0]._replace(shape=(attrs["count"],))],
    constant_gradient,
    "sample_classes",
    "Philox4x32-10; without duplicates Efraimidis and Spirakis 2006",
)
Op(
    "inclusion_frequency",
    "RandomSampleInclusionFrequency",
    lambda types, attrs: [types[0]],
    constant_gradient,
    "inclusion_frequency",
    "1 - (1 - p)^t, t so that the sum is the number of samples",
)


def _sample_type(types, attrs):
    t = weights_type(types[0], attrs["num_samples"], attrs["allow_duplicates"])
    return [t._replace(shape=(attrs["num_samples"], *t.shape))]


def drawn(weights: Any, attrs: dict[str, Any]) -> Any:
    """The numbers of the classes drawn, (num_samples,)."""
    how = {"count": attrs["num_samples"], "duplicates": attrs["allow_duplicates"], "purpose": attrs["purpose"]}
    return weights.stop().node("sample_classes", **how)


def chances(weights: Any, attrs: dict[str, Any]) -> Any:
    """How often each class is expected in a sample."""
    w, n = weights.stop(), attrs["num_samples"]
    if attrs["allow_duplicates"]:
        return w * (float(n) / w.node("reduce_sum", axes=(0,), rows=False))
    return w.node("inclusion_frequency", count=n)


def _sample(g, x, attrs, training):
    indices = drawn(x[0], attrs).reshape((attrs["num_samples"], 1))
    return indices.node("one_hot", classes=x[0].type.shape[0], axis=1, sparse=True)


Op("random_sample", "RandomSample", _sample_type, None, "expand", "CNTK v2", expand=_sample, stateful=True)
Op(
    "random_sample_inclusion_frequency",
    "RandomSampleInclusionFrequency",
    lambda types, attrs: [weights_type(types[0], attrs["num_samples"], attrs["allow_duplicates"])],
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: chances(x[0], attrs),
)


def random_sample(
    weights: Any, num_samples: int, allow_duplicates: bool, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = ""
) -> Function:
    """Classes drawn with chances in proportion to weights, one-hot (num_samples, classes), in the order of the draws; no gradient.

    The value is sparse: evaluated alone it is a CSR matrix, times a matrix it takes rows of that.

    weights: (classes,), 0 or more, without rows. allow_duplicates: draws are independent; else each class is drawn once at most. New ones
    at each evaluation; equal seeds draw equal samples. Weights that only show while running are negative, not finite or too few above 0
    give rows of zeros. Raises `ValueError` for a count below 1, weights that are none, and more samples than classes without duplicates
    (CNTK wants fewer than classes).
    """
    w = checked("RandomSample", weights, num_samples, allow_duplicates)
    how = {"num_samples": int(num_samples), "allow_duplicates": bool(allow_duplicates), "seed": int(seed)}
    return apply("random_sample", [w], name, **how, purpose=purpose_of(seed))


def random_sample_inclusion_frequency(
    weights: Any, num_samples: int, allow_duplicates: bool, seed: int = SentinelValueForAutoSelectRandomSeed, name: str = ""
) -> Function:
    """How often `random_sample` is expected to draw each class, (classes,): n w / sum w, or the chance to be drawn without duplicates.

    Without duplicates 1 - (1 - p)^t, with the number of tries t for which it sums to num_samples; CNTK estimates t from a few draws.
    seed is not used. Raises `ValueError` as `random_sample` does.
    """
    w = checked("RandomSampleInclusionFrequency", weights, num_samples, allow_duplicates)
    how = {"num_samples": int(num_samples), "allow_duplicates": bool(allow_duplicates), "seed": int(seed)}
    return apply("random_sample_inclusion_frequency", [w], name, **how)
