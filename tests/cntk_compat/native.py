"""CNTK's own example of an op written in C++, which its tests name by a library of CNTK's: here it is the one in `tests/native`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from native import compiled

import cogkit as C
from cogkit.ops import native

__all__ = ["is_native_user_function_registered", "register_native_user_function"]


def is_native_user_function_registered(op_id: str) -> bool:
    """Whether an op id is taken."""
    return op_id in native._natives


def _product(inputs: Sequence[C.Variable], attributes: dict[str, Any]) -> list[C.Variable]:
    return [C.output_variable(inputs[0].shape[1:], inputs[0].dtype, inputs[1].dynamic_axes)]


def register_native_user_function(op_id: str, module_name: str, factory_method_name: str) -> None:
    """Names an op of a library; CNTK's example stands for the product in `tests/native`."""
    if module_name.startswith("Cntk.ExtensibilityExamples-") and factory_method_name == "CreateUserTimesFunction":
        C.register_native_user_function(op_id, compiled(), "create_times", infer_outputs=_product)
    else:
        C.register_native_user_function(op_id, module_name, factory_method_name)
