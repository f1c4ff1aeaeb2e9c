"""Fused pointwise programs and their reductions on the GPU: planned once, then interpreted, or compiled where there is a compiler."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from cogkit.engine.cuda import images
from cogkit.engine.cuda.space import MOST_SHARED, THREADS, Space, plan, power_above
from cogkit.engine.cuda.table import CONTEXT, SCRATCH, B, Call, Table, fits, i64, kernel, launch
from cogkit.engine.geometry import code, program_of, rows, segments_of
from cogkit.engine.table import Made
from cogkit.lowering.steps import Step

__all__ = ["KINDS", "Program", "planned"]

KINDS = {"sum": 0, "prod": 1, "max": 2, "min": 3}
_ROOM = 496  # 64-bit words of a launch's largest parameter
_SLOTS = 1 << 14
VECTOR = {"f4": 4, "f8": 2}


@cache
def opcodes() -> dict[str, int]:
    """Numbers of the instructions, in the order of numbers.cuh."""
    text = (images.FOLDER / "numbers.cuh").read_text().replace("\\\n", " ")
    names: list[str] = []
    for part in ("UNARY", "UNARY_LONG", "BINARY", "BINARY_LONG", "TERNARY"):
        line = re.search(rf"#define CG_{part}\(X\)(.*)", text)
        assert line is not None
        names += re.findall(r"X\((\w+),", line[1])
    return {name: i for i, name in enumerate([*names, "rand", "randn", "const", "load", "store", "fold"])}


class Program:
    """A program in the order in which it runs.

    ops: (word, result, operands ...), ('const', result, number), ('rand' or 'randn', result, purpose); values 0 .. inputs-1 are the inputs.
    results: value of each output. code: what the interpreter reads; loads come at first use, stores when nothing is left to load, since an
    output may lie upon an input.
    """

    def __init__(self, program: Sequence[tuple], kinds: Sequence[str], outputs: Sequence[int]):
        self.kinds, self.results = tuple(kinds), tuple(outputs)
        self.inputs = self.kinds.count("in")
        self.reductions = [i for i, k in enumerate(self.kinds) if k in KINDS]
        self.stores = [i for i, k in enumerate(self.kinds) if k == "out"]
        self.random = any(op[0] in ("rand", "randn") for op in program)
        self.ops = joined(program, set(outputs))
        self._code()

    def _code(self) -> None:
        number = opcodes()
        uses: dict[int, int] = {}
        for op in self.ops:
            for v in operands_of(op):
                uses[v] = uses.get(v, 0) + 1
        for v in self.results:
            uses[v] = uses.get(v, 0) + 1
        unloaded = {v for v in uses if v < self.inputs}
        result_of = [(i, self.results[i - self.inputs]) for i in range(self.inputs, len(self.kinds))]
        waiting = [(i, v) for i, v in result_of if self.kinds[i] == "out"]
        sums = {i: n for n, i in enumerate(self.reductions)}
        slot: dict[int, int] = {}
        free: list[int] = []
        self.constants: list[float] = []
        self.code: list[int] = [KINDS[self.kinds[i]] | i << 8 for i in self.reductions]
        self.loads: list[tuple[int, int]] = []  # (place in the code, operand)
        self.slots = len(self.reductions)

        def fresh(v: int) -> int:
            if not free:
                free.append(self.slots)
                self.slots += 1
            slot[v] = free.pop()
            return slot[v]

        def used(v: int) -> None:
            uses[v] -= 1
            if not uses[v]:
                free.append(slot[v])

        def emit(word: str, d: int, a: int = 0, b: int = 0, c: int = 0) -> None:
            self.code.append(number[word] | d << 8 | a << 22 | b << 36 | c << 50)

        def there(v: int) -> int:
            if v in unloaded:
                unloaded.discard(v)
                self.loads.append((len(self.code), v))
                emit("load", fresh(v), v)
                made(v)
            return slot[v]

        def made(v: int) -> None:
            for i, w in result_of:
                if w == v and i in sums:
                    emit("fold", sums[i], slot[v])
                    used(v)

        def store() -> None:
            for i, v in list(waiting):
                if v in slot:
                    emit("store", slot[v], i)
                    waiting.remove((i, v))
                    used(v)

        for op in self.ops:
            word, v = op[0], op[1]
            if word == "const":
                self.constants.append(float(op[2]))
                emit(word, fresh(v), len(self.constants) - 1)
            elif word in ("rand", "randn"):
                self.code.append(number[word] | fresh(v) << 8 | (int(op[2]) & 0xFFFFFFFF) << 32)
            else:
                places = [there(w) for w in operands_of(op)]
                for w in operands_of(op):
                    used(w)
                emit(word, fresh(v), *places)
            made(v)
            if not unloaded:
                store()
        for v in sorted(unloaded):
            there(v)
        store()
        if self.slots >= _SLOTS:
            raise ValueError(f"cuda engine: expected a program of fewer than {_SLOTS} values at a time, got {self.slots}")

    def threads(self, itemsize: int) -> tuple[int, int]:
        """(threads of a block, elements of a group) for which the interpreter's values have room."""
        vector, threads = 16 // itemsize, THREADS
        if self.slots * vector * itemsize * threads > MOST_SHARED:
            vector = 1
        while threads > 32 and self.slots * vector * itemsize * threads > MOST_SHARED:
            threads //= 2
        return threads, vector


def operands_of(op: tuple) -> tuple[int, ...]:
    """The values that an instruction reads."""
    return () if op[0] in ("const", "rand", "randn") else op[2:]


def joined(program: Sequence[tuple], outputs: set[int]) -> list[tuple]:
    """Instructions without those that nobody reads; a sum of a product rounds once, and x^2 is x x."""
    constants = {op[1]: op[2] for op in program if op[0] == "const"}
    ops = [("mul", op[1], op[2], op[2]) if op[0] == "pow" and constants.get(op[3]) == 2.0 else tuple(op) for op in program]
    made = {op[1]: op for op in ops}
    readers: dict[int, int] = dict.fromkeys(outputs, 2)
    for op in ops:
        for v in operands_of(op):
            readers[v] = readers.get(v, 0) + 1
    out = []
    for op in ops:
        if op[0] == "add":
            for v, other in ((op[2], op[3]), (op[3], op[2])):
                if readers[v] == 1 and v in made and made[v][0] == "mul":
                    op = ("fma", op[1], *made[v][2:], other)
                    break
        out.append(op)
    wanted = set(outputs)
    kept = []
    for op in reversed(out):
        if op[1] in wanted:
            wanted.update(operands_of(op))
            kept.append(op)
    return kept[::-1]


@lru_cache(maxsize=4096)
def planned(program: tuple[tuple, ...], kinds: tuple[str, ...], outputs: tuple[int, ...]) -> Program:
    """A program, planned once."""
    return Program(program, kinds, outputs)


class Segment:
    """A segment of a step: its planned space and its first buffer."""

    def __init__(
        self,
        p: Program,
        number: int,
        dims: Sequence[int],
        strides: Sequence[Sequence[int]],
        index: Sequence[int],
        flow: int,
        size: int,
    ):
        self.first = number * len(p.kinds)
        strides = list(strides)
        if p.random:
            strides += [[0, *index], [1] + [0] * len(index)]
        threads, vector = p.threads(size)
        self.space = plan(dims, strides, p.stores, p.reductions, vector, flow, 2 if p.random else 0, threads)


def interpreted(p: Program, space: Space, dtype: str, form: str, room: int) -> tuple[str, str, list[Any], int]:
    """(family, kernel, arguments that say what it does, bytes of shared memory) of the interpreter."""
    name = f"{form}_{dtype}_{space.vector}" + (f"_{room}" if form == "each" else "")
    words = np.array(p.code, np.uint64)
    for at, operand in p.loads:
        if space.vector == 1 or space.lanes[operand]:
            words[at] |= np.uint64(1 << 36)
    shared = p.slots * space.vector * (4 if dtype == "f4" else 8) * space.threads
    constants = np.array(p.constants or [0.0])
    return "pointwise", name, [Table(words), Table(constants), i64(len(words)), i64(len(p.reductions))], shared


def launches(p: Program, segments: Sequence[Segment], dtype: str) -> list[Any]:
    """Launches of segments of one shape, as many of them together as a launch has room for; those with reductions one by one."""
    out: list[Any] = []
    operands = len(p.kinds)
    most = 1 if p.reductions else _ROOM // operands
    for at in range(0, len(segments), most):
        out += _launches(p, segments[at : at + most], dtype)
    return out


def _launches(p: Program, some: Sequence[Segment], dtype: str) -> list[Any]:
    space, operands = some[0].space, len(p.kinds)
    n = operands * len(some)
    words = np.concatenate([x.space.words for x in some])
    inline = len(some) == 1 and n + len(words) <= _ROOM
    room = 64 if n + (len(words) if inline else 0) <= 64 and not p.reductions else _ROOM
    which: Any = i64(0)
    if len(some) > 1:
        which = Table(np.concatenate([np.arange(x.space.blocks, dtype=np.int64) | i << 32 for i, x in enumerate(some)]))
    whole = [i64(0) if inline else Table(words), which, CONTEXT, i64(operands), i64(n)]
    rest = words.tobytes() if inline else b""
    parameters = [B(x.first + o) for x in some for o in range(operands)]
    parameters.append(rest + bytes(8 * (room - n) - len(rest)))
    length = i64(len(space.words))

    def run(form: str, blocks: int, *more: Any) -> Any:
        family, name, what, shared = interpreted(p, space, dtype, form, room)
        return launch(
            family, name, blocks, space.threads, [*whole, *what, length, *more, *parameters], 0 if form == "combine" else shared
        )

    if not p.reductions:
        return [run("each", sum(x.space.blocks for x in some))]
    out = [run("reduce", space.blocks, SCRATCH)]
    if space.parts > 1:
        results = min(32, power_above(space.elements))
        out.append(run("combine", -(-space.elements // results) * len(p.reductions), SCRATCH, i64(results)))
    return out


@kernel("pointwise")
def _pointwise(s: Step, sizes: dict) -> Made:
    program, kinds, outputs, _ = program_of(s)
    spaces, buffers, index, flow = segments_of(s, sizes)
    dtype = code(s.segment_outputs[0])
    p = planned(tuple(program), tuple(kinds), tuple(outputs))
    made = made_of(p, spaces, index, flow, dtype, len(buffers))
    if made is None:
        return None
    made.rows = rows_of(s, sizes)
    return made, buffers


class PointwiseCall(Call):
    """The launches of a pointwise step; rows: the numbers of rows that they are for."""

    rows: tuple[int, ...] = ()


def made_of(
    p: Program, spaces: Sequence[tuple], index: Sequence[Sequence[int]], flow: Sequence[int], dtype: str, nbuf: int
) -> PointwiseCall | None:
    """The call of a program over segments; None where nothing is to do."""
    groups: dict[tuple, list[Segment]] = {}
    size = 4 if dtype == "f4" else 8
    for i, (dims, strides) in enumerate(spaces):
        x = Segment(p, i, dims, strides, index[i], flow[i], size)
        if x.space.elements and (p.reductions or 0 not in dims):
            groups.setdefault(x.space.shape, []).append(x)
    found = [i for some in groups.values() for i in launches(p, some, dtype)]
    partials = max((x.space.parts * x.space.elements for some in groups.values() for x in some if x.space.parts > 1), default=0)
    return PointwiseCall(nbuf, found, 8 * partials * len(p.reductions)) if found else None


def rows_of(s: Step, sizes: dict) -> tuple[int, ...]:
    """Rows of each segment."""
    return tuple(int(rows(x.domain, sizes)) for x in s.segments if x.domain is not None)


@fits("pointwise")
def _fit(call: PointwiseCall, s: Step, sizes: dict) -> bool:
    return call.rows == rows_of(s, sizes)
