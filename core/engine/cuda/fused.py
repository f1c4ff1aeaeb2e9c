"""CUDA text of pointwise programs: straight code instead of interpretation, compiled once for all programs of one shape.

COGKIT_CUDA_FUSED: 'generated' or 'interpreted'; by itself texts are compiled where there is a compiler and a real GPU. Both give the same bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from cogkit.engine.cuda import images
from cogkit.engine.cuda.device import current
from cogkit.errors import DeviceError

if TYPE_CHECKING:
    from cogkit.engine.cuda.pointwise import Program

__all__ = ["Text", "compile_all", "function_of", "generates", "text_of"]

Text = tuple[str, str]  # name of the module, text
_failed: set[str] = set()
_done: set[tuple[str, str]] = set()  # what has been compiled, or tried
_compiles: list[bool] = []  # whether the compiler has made any text; empty: not known yet


def generates() -> bool:
    """Whether programs are compiled. Raises `ValueError` for a wish that is none."""
    wish = os.environ.get("COGKIT_CUDA_FUSED", "")
    if wish not in ("", "generated", "interpreted"):
        raise ValueError(f"COGKIT_CUDA_FUSED: expected 'generated' or 'interpreted', got {wish!r}")
    if wish:
        return wish == "generated"
    return _compiles != [False] and not current().emulated and images.compiler() is not None


def function_of(text: Text) -> int | None:
    """The handle of a text's kernel; None, with a warning, where it cannot be compiled: programs are interpreted then."""
    name, source = text
    if name in _failed:
        return None
    try:
        found = images.module(name, source).function("fused")
        _compiles[:] = [True]
        return found
    except DeviceError as e:
        _failed.add(name)
        what = "the program is"
        if not _compiles:  # the first one: it is the compiler, not the text
            _compiles[:] = [False]
            what = "programs are"
        warnings.warn(f"{e}; {what} interpreted, which gives the same numbers more slowly", RuntimeWarning, stacklevel=2)
        return None


def compile_all(texts: Iterable[Text]) -> None:
    """Compiles texts side by side, so that `function_of` finds them in the cache."""
    arch = current().arch
    todo = {name: text for name, text in texts if (name, arch) not in _done}
    _done.update((name, arch) for name in todo)
    if len(todo) < 2:
        return

    def one(item: Text) -> None:
        with contextlib.suppress(DeviceError):  # `function_of` says it
            images.compiled(*item, arch)

    with ThreadPoolExecutor(min(len(todo), os.cpu_count() or 1, 16)) as pool:
        list(pool.map(one, todo.items()))


@lru_cache(maxsize=4096)
def text_of(p: Program, shape: tuple, dtype: str, inside: bool, room: int) -> Text:
    """The text of a program for spaces of a shape (`Space.shape`).

    inside: one segment, whose words are in the parameter; room: 64-bit words of the parameter.
    """
    vector, kept, _, lanes, strides = shape
    source = _Writer(p, vector, kept, lanes, strides, dtype).text(inside, room)
    return "fused_" + hashlib.sha256(source.encode()).hexdigest()[:16], source


class _Writer:
    """Writes one text. Values are v0, v1 ...: a number, or, where it is not the same all along a group, V of them."""

    def __init__(self, p: Program, vector: int, kept: int, lanes: tuple[int, ...], strides: tuple, dtype: str):
        self.p, self.vector, self.kept, self.lanes, self.strides = p, vector, kept, lanes, strides
        self.number = "float" if dtype == "f4" else "double"
        self.wide: set[int] = set()  # values of V numbers
        self.lines: list[str] = []
        self.constants = 0
        self.loaded: dict[int, None] = {}

    def at(self, value: int) -> str:
        """A number of a value, inside of a loop over lanes."""
        return f"v{value}.v[e]" if value in self.wide else f"v{value}"

    def offset(self, operand: int, dims: int | None = None) -> str:
        """Where an operand's element is."""
        all_dims = len(self.strides)
        terms = [
            f"(int64_t)c[{d}] * s[{operand * all_dims + d}]"
            for d in range(all_dims if dims is None else dims)
            if self.strides[d][operand]
        ]
        return " + ".join(terms) or "0"

    def define(self, value: int, wide: bool, formula: str) -> None:
        """A value by a formula in numbers of lanes."""
        if wide:
            self.wide.add(value)
            self.lines.append(f"Lanes<T, V> v{value};")
            self.lines.append(f"CG_LANES v{value}.v[e] = {formula};")
        else:
            self.lines.append(f"const T v{value} = {formula};")

    def load(self, value: int) -> None:
        if value >= self.p.inputs or value in self.loaded:
            return
        self.loaded[value] = None
        if self.lanes[value]:
            self.wide.add(value)
            self.lines.append(f"const Lanes<T, V> v{value} = load<T, V, FAST>(p{value}, count);")
        else:
            self.lines.append(f"const T v{value} = *p{value};")

    def instruction(self, op: tuple) -> None:
        word, result, *operands = op
        if word == "const":
            self.lines.append(f"const T v{result} = (T)__longlong_as_double((long long)constants[{self.constants}]);")
            self.constants += 1
        elif word in ("rand", "randn"):
            n = len(self.p.kinds)
            index, row = self.offset(n), self.offset(n + 1)
            self.wide.add(result)
            self.lines.append(
                f"const Lanes<T, V> v{result} = random<T, V>(*f.context, (uint32_t)constants[{self.constants}], {str(word == 'randn').lower()}, "
                f"f.g[W_FLOW], (uint64_t)({index}), {self.lanes[n]}, {row}, {self.lanes[n + 1]});"
            )
            self.constants += 1
        else:
            for v in operands:
                self.load(v)
            wide = any(v in self.wide for v in operands)
            self.define(result, wide, f"op_{word}({', '.join(self.at(v) for v in operands)})")

    def body(self) -> tuple[list[str], list[str], list[str]]:
        """(definitions of pointers, of which those that go along a group, what is done with a group)."""
        p = self.p
        for op in p.ops:
            self.instruction(op)
        for v in p.results:
            self.load(v)
        result_of = dict(enumerate(p.results, p.inputs))
        for n, i in enumerate(p.reductions):
            value = self.at(result_of[i])
            self.lines.append(
                f"CG_LANES if (FAST || e < count) gathered[{n}][e] = joined({p.kinds[i].upper()}, gathered[{n}][e], {value});"
            )
        for i in p.stores:
            v = result_of[i]
            if self.vector == 1:
                self.lines.append(f"*p{i} = v{v}{'.v[0]' if v in self.wide else ''};")
            elif v in self.wide:
                self.lines.append(f"store<T, V, FAST>(p{i}, v{v}, count);")
            else:
                self.lines.append(f"{{ Lanes<T, V> all; CG_LANES all.v[e] = v{v}; store<T, V, FAST>(p{i}, all, count); }}")
        pointers = [f"const T *const p{i} = (const T *)f.address[{i}] + ({self.offset(i)});" for i in self.loaded]
        pointers += [f"T *const p{i} = (T *)f.address[{i}] + ({self.offset(i)});" for i in p.stores]
        return pointers, [f"p{i}" for i in (*self.loaded, *p.stores) if self.lanes[i]], self.lines

    def reductions(self) -> str:
        """What a body with reductions has besides."""
        p, last = self.p, self.p.reductions[-1]

        def choose(what: Callable[[int], str]) -> str:
            return "".join(f"i == {n} ? {what(i)} : " for n, i in enumerate(p.reductions[:-1])) + what(last)

        return f"""
    T gathered[FOLDS][V];
    __device__ static int kind(int i) {{ return {choose(lambda i: p.kinds[i].upper())}; }}
    __device__ void begin() {{ CG_UNROLL for (int i = 0; i < FOLDS; i++) CG_LANES gathered[i][e] = neutral<T>(kind(i)); }}
    __device__ State state(int i, int e) const {{ return gathered[i][e]; }}
    template <class S> __device__ S join(int i, S x, S y) const {{ return joined(kind(i), x, y); }}
    __device__ void keep(int i, const uint32_t *c, int e, State v) const {{
        const int64_t *s = f.g + W_FIRST + 2 * DIMS;
        ((T *)f.address[{choose(str)}])[({choose(lambda i: self.offset(i, self.kept))}) + e] = v;
    }}"""

    def text(self, inside: bool, room: int) -> str:
        """The whole text."""
        p = self.p
        pointers, along, lines = self.body()
        dims, folds = len(self.strides), len(p.reductions)
        indent = "\n        "
        fast = "".join(f" && fits<T, V>({x})" for x in along)
        run = (
            "run<true>(c, count)" if self.vector == 1 else f"if (count == V{fast}) run<true>(c, count); else run<false>(c, count)"
        )
        end = "reduced(body, body.f, partials);" if folds else "each_group(body, body.f, block);"
        more = "double *partials, " if folds else ""
        if inside:  # where everything is in the parameter is known here
            n = len(p.kinds)
            head = f"const Context *context, {more}"
            frame = f"""const int64_t block = blockIdx.x;
    body.f = {{(const int64_t *)p.w + {n + self.constants}, p.w, context}};
    body.constants = p.w + {n};"""
        else:
            head = f"Whole w, int64_t segment_words, {more}"
            frame = f"""int64_t block;
    body.f = frame(w, p, (int)segment_words, block);
    body.constants = p.w + w.addresses - {self.constants};"""
        return f"""#include "pointwise.cuh"

struct Body {{
    typedef {self.number} T;
    typedef T State;
    typedef double Partial;
    static constexpr int V = {self.vector}, KEPT_DIMS = {self.kept}, DIMS = {dims}, MOST = {max(dims, 1)}, FOLDS = {folds};
    Frame f;
    const uint64_t *constants;{self.reductions() if folds else ""}
    template <bool FAST> __device__ void run(const uint32_t *c, int count) {{
        const int64_t *s = f.g + W_FIRST + 2 * DIMS;
        {indent.join((*pointers, *lines))}
    }}
    __device__ void run(const uint32_t *c, int count) {{
        const int64_t *s = f.g + W_FIRST + 2 * DIMS;
        {indent.join((*pointers, run))};
    }}
}};

CG_KERNEL(fused, {head}const __grid_constant__ Parameters<{room}> p) {{
    Body body;
    {frame}
    {end}
}}
"""
