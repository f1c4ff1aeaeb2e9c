"""Defaults that a `with default_options(...)` block overrides for the layers built inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "default_options",
    "default_options_for",
    "default_override_or",
    "get_default_override",
    "get_global_option",
    "is_default_override",
    "set_global_option",
]

_overrides: list[tuple[tuple | None, dict[str, Any]]] = []
_global: dict[str, Any] = {}


class default_override_or:
    """Marks a default value that `default_options` may override: `def Dense(..., activation=default_override_or(identity))`."""

    def __init__(self, value: Any):
        self.value = value.value if isinstance(value, default_override_or) else value

    def __repr__(self) -> str:
        return f"default_override_or({self.value!r})"


def is_default_override(value: Any) -> bool:
    """Whether the caller left this argument at its overridable default."""
    return isinstance(value, default_override_or)


def get_default_override(function_or_class: Any, **kwargs: Any) -> Any:
    """The value of one keyword: as given, else the innermost override that applies to the function, else its default."""
    if len(kwargs) != 1:
        raise TypeError(f"get_default_override: expected exactly one keyword argument, got {len(kwargs)}")
    ((key, value),) = kwargs.items()
    if not isinstance(value, default_override_or):
        return value
    for scope, overrides in reversed(_overrides):
        if key in overrides and (scope is None or function_or_class in scope):
            return overrides[key]
    return value.value


@contextmanager
def default_options(**kwargs: Any) -> Iterator[None]:
    """Overrides defaults of every layer built inside the `with` block, e.g. `default_options(activation=C.relu, pad=True)`."""
    _overrides.append((None, kwargs))
    try:
        yield
    finally:
        _overrides.pop()


@contextmanager
def default_options_for(functions: Any, **kwargs: Any) -> Iterator[None]:
    """As `default_options`, for one layer function or several."""
    scope = tuple(functions) if isinstance(functions, (list, tuple, set)) else (functions,)
    _overrides.append((scope, kwargs))
    try:
        yield
    finally:
        _overrides.pop()


def get_global_option(key: str, default_value: Any) -> Any:
    """A process-wide option, or the default."""
    return _global.get(key, default_value)


def set_global_option(key: str, value: Any) -> None:
    """Sets a process-wide option."""
    _global[key] = value
