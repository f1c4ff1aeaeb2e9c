"""The settings of a node under CNTK's names, derived from its own: what `Function.attributes` shows and `set_attribute` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.nodes import Primitive

__all__ = ["AUTO_SEED", "cntk_attributes", "settable"]

AUTO_SEED = 18446744073709551613  # `SentinelValueForAutoSelectRandomSeed` of the random ops
_Shapes = Sequence[tuple[int, ...]]  # of the operands
_Rule = Callable[[dict[str, Any], _Shapes], dict[str, Any]]
_DTYPES = {"float32": 1, "float64": 2, "float16": 4, "int8": 5, "int16": 6}  # CNTK's numbers of element types
_USERS = {"user_function", "native_function"}  # their settings have the names that the user gave them
_HIDDEN = {"purpose", "type"}  # what keeps the random numbers of one node apart from others' has no name in CNTK
_REDUCTIONS = {"sum": "Sum", "mean": "Mean", "max": "Max", "min": "Min", "logsumexp": "LogSum", "prod": "Prod"}
# Names that are more than a change of style, for any op; `_RULES` has those whose value changes too.
_NAMES = {"seed": "rngSeed"}


def cntk_attributes(node: Primitive) -> dict[str, Any]:
    """The settings of a node: names and values as CNTK 2.7 gives them, static axes counted from the last, as there.

    A setting that CNTK does not have keeps its own name in CNTK's style; a name that is missing here was missing there.
    """
    if node.op.name in _USERS:
        return dict(node.attributes)
    if node.label.startswith("Sequence::"):
        return {}
    rule = _RULES.get(node.op.name)
    found = (
        dict(rule(node.attributes, [v.type.shape or () for v in node.operands]))
        if rule
        else {cntk_name(k): v for k, v in node.attributes.items()}
    )
    if "seed" in node.attributes:
        seed = node.attributes["seed"]
        # what stands for an automatic seed is a number too
        found["rngSeed"] = node.attributes["purpose"] if seed == AUTO_SEED else seed
        found["rngOffset"] = 0
    return {k: v for k, v in found.items() if k not in _HIDDEN}


def cntk_name(name: str) -> str:
    """`dropout_rate` as `dropoutRate`."""
    first, *rest = name.split("_")
    return _NAMES.get(name) or first + "".join(w.capitalize() for w in rest)


def settable(node: Primitive) -> dict[str, str]:
    """The settings that may be changed: CNTK's name and ours."""
    return {k if node.op.name in _USERS else cntk_name(k): k for k in node.attributes if k not in _HIDDEN}


def _axis(axis: Any, rank: int = 0) -> Any:
    """An axis as CNTK shows it. rank: given where CNTK settles negative numbers when the node is made."""
    if isinstance(axis, Axis):
        if axis.is_static_axis:
            return _axis(axis.static_axis_index(), rank)
        return ("unordered" if axis.is_batch_axis else "ordered", "dynamic", axis.name)
    if axis is None:
        return None
    k = -1 - int(axis)
    return "ordered", "static", k + rank if k < 0 and rank else k


def _axes(axes: Any, rank: int = 0) -> list[Any]:
    return [_axis(a, rank) for a in (axes if isinstance(axes, (tuple, list)) else [axes]) if a is not None]


def _spread(values: Sequence[Any], rank: int) -> tuple[Any, ...]:
    """One value for each axis of the kernel: a single one stands for all, those of leading axes may be left out."""
    values = tuple(values)
    return values * rank if len(values) == 1 else (values[:1] * (rank - len(values)) + values if len(values) < rank else values)


def _convolution(transpose: bool) -> _Rule:
    def rule(a: dict, shapes: _Shapes) -> dict:
        kernel, rank = shapes[0], len(shapes[1])
        return {
            "autoPadding": list(_spread(a["auto_padding"], rank)),
            "dilation": _spread(a["dilation"], rank),
            "groups": a.get("groups", 1),
            "kernelShape": kernel[-rank:],
            "lowerPad": (0,) * rank,
            "maxTempMemSizeInSamples": 0,
            "outputShape": tuple(a.get("output_shape") or (0,)),
            "sequential": False,
            "sharing": [True] * rank,
            "strides": _spread(a["strides"], rank),
            "transpose": transpose,
            "upperPad": (0,) * rank,
        }

    return rule


def _pooling(a: dict, shapes: _Shapes) -> dict:
    return {
        "autoPadding": list(a["auto_padding"]),
        "ceilOutDim": a["ceil"],
        "includePad": a["include_pad"],
        "lowerPad": (0,),
        "poolingType": a["mode"],
        "poolingWindowShape": a["window"],
        "strides": a["strides"],
        "upperPad": (0,),
    }


def _unpooling(a: dict, shapes: _Shapes) -> dict:
    return {
        "autoPadding": list(a["auto_padding"]),
        "lowerPad": (0,),
        "poolingType": 0,
        "strides": a["strides"],
        "unpoolingWindowShape": a["window"],
        "upperPad": (0,),
    }


def _batch_normalization(a: dict, shapes: _Shapes) -> dict:
    return {
        "blendTimeConstant": a["blend_time_constant"],
        "disableRegularization": a["disable_regularization"],
        "epsilon": a["epsilon"],
        "normalizationTimeConstant": a["normalization_time_constant"],
        "spatial": a["spatial"],
        "useCuDNNEngine": False,
    }


def _reduction(a: dict, shapes: _Shapes) -> dict:
    found = {"axisVec": _axes(a["axis"]), "reductionKeepDimensions": a["keepdims"]}
    name = _REDUCTIONS.get(a["reduction"])
    return found if name is None else {**found, "reductionOpName": name}


def _arg(name: str) -> _Rule:
    return lambda a, shapes: {"axis": _axis(a["axis"], len(shapes[0])), "reductionKeepDimensions": True, "reductionOpName": name}


def _slice(a: dict, shapes: _Shapes) -> dict:
    rank = len(shapes[0])
    if len(a["axes"]) > 1:
        return {
            "axisVec": _axes(a["axes"], rank),
            "beginIndexVec": list(a["begin"]),
            "endIndexVec": list(a["end"]),
            "sliceStridesVec": list(a["strides"]),
        }
    ((axis, begin, end, stride),) = zip(a["axes"], a["begin"], a["end"], a["strides"], strict=True)
    return {"axis": _axis(axis, rank), "beginIndex": begin, "endIndex": end, "sliceStrides": stride}


def _reshape(a: dict, shapes: _Shapes) -> dict:
    rank = len(shapes[0])
    begin, end = 0 if a["begin"] is None else a["begin"], rank if a["end"] is None else a["end"]
    begin, end = (n + rank if n < 0 else n for n in (begin, end))
    found = {"beginAxis": ("ordered", "static", rank - end), "endAxis": ("ordered", "static", rank - begin)}
    return {**found, "newShape": tuple(a["shape"])}


def _pad(a: dict, shapes: _Shapes) -> dict:
    heads, feet = zip(*reversed(a["pattern"]), strict=True)
    return {"paddingConstantValue": a["value"], "paddingFoot": list(feet), "paddingHead": list(heads), "paddingMode": a["mode"]}


def _random(a: dict, shapes: _Shapes) -> dict:
    n = 1 if a["distribution"] == "bernoulli" else 2
    found: dict[str, Any] = {
        "randomDistributionArgs": list(a["arguments"][:n]),
        "randomDistributionType": a["distribution"],
    }
    if a["type"] is not None:
        found |= {"newDataType": _DTYPES[np.dtype(a["type"].dtype).name], "newShape": a["type"].shape}
    return found


def _edit_distance(a: dict, shapes: _Shapes) -> dict:
    substitution, deletion, insertion = a["penalties"]
    penalties = {"SubstitutionPenalty": substitution, "DeletionPenalty": deletion, "InsertionPenalty": insertion}
    return {**penalties, "SquashInputs": a["squash"], "TokensToIgnore": list(a["ignored"])}


def _times(a: dict, shapes: _Shapes) -> dict:
    return {"inferInputRankToMap": a["map_rank"], "outputRank": a["output_rank"]}


def _named(*pairs: str) -> _Rule:
    """Some settings under other names: `own=CNTK's`; those that are not named do not show."""
    names = dict(p.split("=") for p in pairs)
    return lambda a, shapes: {theirs: a[own] for own, theirs in names.items()}


_RULES: dict[str, _Rule] = {
    "convolution": _convolution(False),
    "convolution_transpose": _convolution(True),
    "pooling": _pooling,
    "unpooling": _unpooling,
    "batch_normalization": _batch_normalization,
    "times": _times,
    "times_transpose": lambda a, shapes: {"outputRank": a.get("output_rank", 1)},
    "reduce": _reduction,
    "argmax": _arg("Argmax"),
    "argmin": _arg("Argmin"),
    "softmax": lambda a, shapes: {} if a["axis"] is None else {"axis": _axis(a["axis"])},
    "log_softmax": lambda a, shapes: {"axis": _axis(a["axis"])},
    "slice": _slice,
    "splice": lambda a, shapes: {"axis": _axis(a["axis"], len(shapes[0]))},
    "transpose": lambda a, shapes: {"axisVec": _axes(a["perm"], len(shapes[0]))[::-1]},
    "swapaxes": lambda a, shapes: {"axis1": _axis(a["axis1"], len(shapes[0])), "axis2": _axis(a["axis2"], len(shapes[0]))},
    "reshape": _reshape,
    "flatten": lambda a, shapes: {
        "axis": ("ordered", "static", len(shapes[0])) if a["axis"] is None else _axis(a["axis"], len(shapes[0]))
    },
    "squeeze": lambda a, shapes: {"axisVec": _axes(a["axes"])},
    "expand_dims": lambda a, shapes: {},
    "pad": _pad,
    "gather_op": lambda a, shapes: {} if a.get("axis") is None else {"axis": _axis(a["axis"])},
    "one_hot_op": lambda a, shapes: {"numClass": a["num_class"], "oneHotOutputSparse": False, "onehotAxis": _axis(a["axis"])},
    "cast": lambda a, shapes: {"newDataType": _DTYPES[a["dtype"]]},
    "custom_proxy": lambda a, shapes: {
        "customOp": a["custom_op"],
        "outputShape": a["output_shape"],
        "newDataType": _DTYPES[a["dtype"]],
    },
    "zeros_like": lambda a, shapes: {"fillValue": 0.0},
    "ones_like": lambda a, shapes: {"fillValue": 1.0},
    "random_distribution": _random,
    "past_value": lambda a, shapes: {"offset": a["steps"]},
    "future_value": lambda a, shapes: {"offset": -a["steps"]},
    "unpack_sequence": _named("padding=sequenceUnpackPaddingValue", "no_mask=sequenceUnpackSuppressMaskOutput"),
    "forward_backward": _named("blank=BlankTokenId", "delay=DelayConstraint"),
    "edit_distance_error": _edit_distance,
}
