"""Ops that a user writes in C, C++ or Cython: functions of `cogkit_user.h` that the executor calls without Python; or in CUDA.

A registered function is two addresses, or the text of two kernels of `cogkit_user.cuh`, or both; what it takes and gives is said in Python
when the graph is built.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.errors import here
from cogkit.functions import Function
from cogkit.op import Op, Type, constant_gradient
from cogkit.ops.graph import output_variable
from cogkit.ops.user import USER_OPS, Deserializer, UserFunction, UserNode, typed, untyped
from cogkit.variables import Variable

__all__ = ["native_user_function", "native_user_include", "register_native_user_function"]

Infer = Callable[[Sequence[Variable], dict[str, Any]], list[Variable]]


@dataclass(frozen=True)
class Native:
    """A registered function: addresses (forward None: for the GPU alone; backward None: no gradient flows), its shape rule, what must stay
    alive, and the text of its CUDA kernels.
    """

    name: str
    forward: int | None
    backward: int | None
    infer: Infer
    keep: tuple[Any, ...]
    cuda: str | None = None

    @property
    def has_backward(self) -> bool:
        """Whether gradients can be taken, on the CPU or on a GPU."""
        return self.backward is not None or bool(self.cuda and kernel_in(self.cuda, "backward"))


_natives: dict[str, Native] = {}


def kernel_in(text: str, name: str) -> bool:
    """Whether a .cu text defines a kernel."""
    return re.search(rf"^\s*CG_KERNEL\(\s*{name}\s*,", text, re.M) is not None


def cuda_text(given: str | os.PathLike) -> str:
    """The text of kernels, given itself or by its path. Raises `ValueError` where it defines no kernel `forward`, `OSError` for no file."""
    text = given if isinstance(given, str) and "\n" in given else Path(given).read_text()
    if not kernel_in(text, "forward"):
        raise ValueError(
            here("register_native_user_function: expected CUDA text with CG_KERNEL(forward, cogkit_call c), got none")
        )
    return text


class _Made(ctypes.Structure):
    _fields_ = [("forward", ctypes.c_void_p), ("backward", ctypes.c_void_p)]


def native_user_include() -> str:
    """The folder of `cogkit_user.h`, for the compiler; `cuda/cogkit_user.cuh` in it is for kernels."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "engine")


def address_of(function: Any, what: str) -> int:
    """The address of a C function: a number, a PyCapsule, a ctypes or cffi function pointer, or what has an `address` (numba).

    Raises `TypeError` for anything else, `ValueError` for a null pointer.
    """
    found: Any = None
    kind = type(function)
    if isinstance(function, int) and not isinstance(function, bool):
        found = function
    elif kind.__name__ == "PyCapsule":
        api = ctypes.pythonapi
        api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
        api.PyCapsule_GetPointer.restype = ctypes.c_void_p
        api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        found = api.PyCapsule_GetPointer(function, api.PyCapsule_GetName(function))
    elif isinstance(function, (ctypes._CFuncPtr, ctypes.c_void_p)):  # type: ignore[attr-defined]
        found = ctypes.cast(function, ctypes.c_void_p).value
    elif kind.__module__ == "_cffi_backend":
        import _cffi_backend

        found = int(_cffi_backend.FFI().cast("uintptr_t", function))
    elif isinstance(getattr(function, "address", None), int):
        found = function.address
    else:
        raise TypeError(
            here(
                f"register_native_user_function: expected {what} as an address, a PyCapsule, a ctypes or cffi function pointer,"
                f" got {kind.__name__}"
            )
        )
    if not found:
        raise ValueError(here(f"register_native_user_function: expected {what} at an address, got a null pointer"))
    return int(found)


def _like_first(inputs: Sequence[Variable], attributes: dict[str, Any]) -> list[Variable]:
    return [output_variable(inputs[0].shape, inputs[0].dtype, inputs[0].dynamic_axes)]


def register_native_user_function(
    op_id: str,
    module_name: str | os.PathLike | None = None,
    factory_method_name: str | None = None,
    *,
    forward: Any = None,
    backward: Any = None,
    infer_outputs: Infer | None = None,
    cuda: str | os.PathLike | None = None,
) -> None:
    """Names a function written in C, for `native_user_function`.

    forward, backward: C functions of `cogkit_user.h` (in `native_user_include()`), as addresses, PyCapsules (a Cython module's
    `__pyx_capi__`), ctypes or cffi pointers; or module_name: a shared library with a function factory_method_name that fills in a
    `cogkit_native`. cuda: the text of kernels `forward` and `backward` of `cogkit_user.cuh`, or the path of a .cu file; compiled when the
    GPU first wants it. Without it the GPU's plans run the C functions on the host, on copies. infer_outputs(inputs, attributes) gives the
    outputs, made by `C.output_variable` (default: one like the first input). Raises `ValueError` for a name that is taken, `OSError` for a
    library or file that cannot be loaded.
    """
    if op_id in _natives:
        raise ValueError(here(f"register_native_user_function: expected an op id that is free, got {op_id!r}"))
    keep: tuple[Any, ...] = (forward, backward)
    if module_name is not None:
        if factory_method_name is None or forward is not None or backward is not None:
            raise ValueError(
                here("register_native_user_function: expected a library and its factory, or functions, got neither or both")
            )
        library = ctypes.CDLL(os.fspath(module_name))
        factory = getattr(library, factory_method_name, None)
        if factory is None:
            raise ValueError(
                here(f"register_native_user_function: expected a function {factory_method_name} in {module_name}, got none")
            )
        made = _Made()
        code = factory(ctypes.byref(made))
        if code:
            raise ValueError(here(f"register_native_user_function: expected {factory_method_name} to return 0, got {code}"))
        forward, backward = made.forward or 0, made.backward
        keep = (library,)
    if forward is None and cuda is None:
        raise ValueError(here("register_native_user_function: expected forward or the name of a library, got neither"))
    found = [None if f is None else address_of(f, what) for f, what in ((forward, "forward"), (backward, "backward"))]
    text = None if cuda is None else cuda_text(cuda)
    _natives[op_id] = Native(op_id, found[0], found[1], infer_outputs or _like_first, keep, text)


def native_user_function(
    op_id: str, operands: Sequence[Any], attributes: dict[str, Any] | None = None, user_function_instance_name: str = ""
) -> Function:
    """A registered C function applied to operands. attributes: settings that files keep; the C function gets the numbers among them, in order.

    Raises `ValueError` for a name that is not registered.
    """
    native = _natives.get(op_id)
    if native is None:
        have = ", ".join(sorted(_natives)) or "none"
        raise ValueError(
            here(
                f"native_user_function: expected a registered op id ({have}), got {op_id!r}; use C.register_native_user_function"
            )
        )
    made = NativeFunction(native, operands, dict(attributes or {}), user_function_instance_name)
    _ = made.root.types
    return Function(made.root)


class NativeNode(UserNode):
    """The node of a C function."""

    record = "native_function"

    def lowered(self, g: Any, x: list[Any], types: list[Type], free: tuple[bool, ...]) -> list[Any]:
        """Its values in a lowered graph."""
        if any(free):
            raise self.misfit("outputs of sizes that follow from those of its inputs", str(self.types[free.index(True)]))
        made = g.node("native_forward", x, call=self, types=tuple(types))
        return made if isinstance(made, list) else [made]

    def c_function(self, back: bool) -> int:
        """The address of its C function. Raises `Misfit` where only CUDA kernels are registered."""
        native = self.function.native
        found: int | None = native.backward if back else native.forward
        if found is None:
            raise self.misfit(f"a C function as {'backward' if back else 'forward'}", "a CUDA kernel alone", "run it on a GPU")
        return found

    @property
    def settings(self) -> list[float]:
        """The numbers among its attributes."""
        return [float(v) for v in self.attributes.values() if isinstance(v, (bool, int, float, np.number))]


class NativeFunction(UserFunction):
    """A registered C function with its operands."""

    node = NativeNode

    def __init__(self, native: Native, inputs: Sequence[Any], attributes: dict[str, Any], name: str):
        self.native = native
        super().__init__(inputs, attributes=attributes, name=name)

    @property
    def op_name(self) -> str:  # type: ignore[override]
        """The name that it is registered under."""
        return self.native.name

    def infer_outputs(self) -> list[Variable]:
        """What its shape rule says."""
        return self.native.infer(self.inputs, self.root.attributes)

    def clone(self, cloned_inputs: Any) -> NativeFunction:  # type: ignore[override]
        """The same of other operands."""
        return NativeFunction(self.native, cloned_inputs, dict(self.root.attributes), self.name)

    def serialize(self) -> None:
        """There is no state but the attributes."""


def _maker(user: str, attributes: dict[str, Any]) -> Deserializer | None:
    native = _natives.get(user)
    return None if native is None else lambda inputs, name, state: NativeFunction(native, inputs, dict(attributes), name)


def _expand(g: Any, x: list[Any], attrs: dict[str, Any], training: bool) -> list[Any]:
    node = g.origin
    return node.lowered(g, x, *node.concrete([v.type for v in x], None))


def _forward_gradient(n: Any, *dy: Any) -> list[Any]:
    node = n.attrs["call"]
    given = tuple(d is not None and v.flows for d, v in zip(dy, node.outputs, strict=True))
    needs = tuple(v.needs_gradient for v in node.operands)
    if not any(given) or not any(needs):
        return [None] * len(n.inputs)
    if not node.function.native.has_backward:
        raise node.misfit(
            "a backward to take the gradient of", "none", "register one, or make its outputs with needs_gradient=False"
        )
    whole = [d.expand(v.type) for d, v, use in zip(dy, n.outputs, given, strict=True) if use]
    types = tuple(v.type for v, need in zip(n.inputs, needs, strict=True) if need)
    made = n.graph.node("native_backward", [*n.inputs, *n.outputs, *whole], call=node, given=given, needs=needs, types=types)
    found = iter(made if isinstance(made, list) else [made])
    return [next(found) if need else None for need in needs]


Op("native_function", "NativeUserFunction", untyped, None, "expand", "CNTK v2", expand=_expand)
# attrs call: the `NativeNode`; types: of the outputs
Op("native_forward", "NativeUserFunction", typed, _forward_gradient, "native_forward", "the user's", own_rows=True)
# inputs: x, y, dy of the outputs `given`; outputs: dx of the inputs `needs`
Op("native_backward", "NativeUserFunction", typed, constant_gradient, "native_backward", "the user's", own_rows=True)
USER_OPS["native_function"] = _maker
