"""Fused pointwise programs and their reductions on the GPU: planned once, then interpreted, or compiled where there is a compiler."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from cogkit.engine.cuda import fused, images
from cogkit.engine.cuda.driver import Launch
from cogkit.engine.cuda.space import MOST_SHARED, THREADS, plan, power_above
from cogkit.engine.cuda.table import CONTEXT, SCRATCH, TABLE, B, Call, Table, fits, i64, kernel, launch
from cogkit.engine.geometry import code, program_of, rows, segments_of
from cogkit.engine.table import Made
from cogkit.lowering.steps import Step

__all__ = ["KINDS", "Program", "planned"]

KINDS = {"sum": 0, "prod": 1, "max": 2, "min": 3}
_ROOM = 496  # 64-bit words of a launch's largest parameter
_ROOMS = (16, 32, 48, 64, 128, 256, _ROOM)  # of compiled programs' ones
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
        self.kinds = tuple(kinds)
        self.inputs = self.kinds.count("in")
        self.reductions = [i for i, k in enumerate(self.kinds) if k in KINDS]
        self.stores = [i for i, k in enumerate(self.kinds) if k == "out"]
        self.random = any(op[0] in ("rand", "randn") for op in program)
        self.ops, self.results = joined(program, outputs)
        # numbers of a compiled program, by which its text does not differ: bits of constants, purposes of random numbers
        self.numbers = [
            int(np.float64(op[2]).view(np.uint64)) if op[0] == "const" else int(op[2]) & 0xFFFFFFFF
            for op in self.ops
            if op[0] in ("const", "rand", "randn")
        ]
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


def joined(program: Sequence[tuple], outputs: Sequence[int]) -> tuple[list[tuple], tuple[int, ...]]:
    """(instructions, value of each output) without copies and what nobody reads; a sum of a product rounds once, and x^2 is x x."""
    constants = {op[1]: op[2] for op in program if op[0] == "const"}
    same: dict[int, int] = {}
    ops: list[tuple] = []
    for op in program:
        if operands_of(op):
            op = (*op[:2], *(same.get(v, v) for v in op[2:]))
        if op[0] == "copy":
            same[op[1]] = op[2]
        elif op[0] == "pow" and constants.get(op[3]) == 2.0:
            ops.append(("mul", op[1], op[2], op[2]))
        else:
            ops.append(tuple(op))
    results = tuple(same.get(v, v) for v in outputs)
    made = {op[1]: op for op in ops}
    readers: dict[int, int] = dict.fromkeys(results, 2)
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
    wanted = set(results)
    kept = []
    for op in reversed(out):
        if op[1] in wanted:
            wanted.update(operands_of(op))
            kept.append(op)
    return kept[::-1], results


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


class Batch:
    """Segments of one shape that run in one launch."""

    def __init__(self, p: Program, segments: Sequence[Segment], dtype: str):
        self.p, self.segments, self.dtype = p, segments, dtype
        self.space = segments[0].space
        self.operands = len(p.kinds)
        self.words = np.concatenate([x.space.words for x in segments])

    def room(self, numbers: int, rooms: Sequence[int]) -> tuple[bool, int]:
        """(whether the words of the segments are part of the parameter, 64-bit words of the parameter), of those that there are."""
        fixed = self.operands * len(self.segments) + numbers
        inside = len(self.segments) == 1 and fixed + len(self.words) <= _ROOM
        need = fixed + (len(self.words) if inside else 0)
        return inside, next(r for r in rooms if r >= need)

    def text(self) -> fused.Text:
        """The text that runs it."""
        return fused.text_of(self.p, self.space.shape, self.dtype, *self.room(len(self.p.numbers), _ROOMS))

    def launches(self) -> list[Any]:
        """The launch, and one that joins what its blocks have where they share results."""
        p, space = self.p, self.space
        blocks = sum(x.space.blocks for x in self.segments)
        function = fused.function_of(self.text()) if fused.generates() else None
        more = [SCRATCH] if p.reductions else []
        if function is not None:
            whole, parameters, _ = self.arguments(p.numbers, _ROOMS)
            inside = self.room(len(p.numbers), _ROOMS)[0]
            head = [CONTEXT] if inside else [*whole, i64(len(space.words))]
            out: list[Any] = [Launch("fused", function, (blocks,), (space.threads,), [*head, *more, *parameters])]
        else:
            shared = p.slots * space.vector * (4 if self.dtype == "f4" else 8) * space.threads
            out = [self.interpreted("reduce" if p.reductions else "each", blocks, shared, *more)]
        if space.parts > 1:
            results = min(32, power_above(space.elements))
            out.append(self.interpreted("combine", -(-space.elements // results) * len(p.reductions), 0, SCRATCH, i64(results)))
        return out

    def arguments(self, numbers: Sequence[int], rooms: Sequence[int]) -> tuple[list[Any], list[Any], int]:
        """(the `Whole` of pointwise.cuh, the parameter: addresses, numbers, words; its size in words)."""
        n = self.operands * len(self.segments)
        inside, room = self.room(len(numbers), rooms)
        which: Any = i64(0)
        if len(self.segments) > 1:
            which = Table(
                np.concatenate([np.arange(x.space.blocks, dtype=np.int64) | i << 32 for i, x in enumerate(self.segments)])
            )
        whole = [i64(0) if inside else Table(self.words), which, CONTEXT, i64(self.operands), i64(n + len(numbers))]
        rest = np.zeros(room - n, np.uint64)
        rest[: len(numbers)] = numbers
        if inside:
            rest[len(numbers) :][: len(self.words)] = self.words.view(np.uint64)
        return whole, [*(B(x.first + o) for x in self.segments for o in range(self.operands)), rest.tobytes()], room

    def interpreted(self, form: str, blocks: int, shared: int, *more: Any) -> Any:
        """A launch of the interpreter."""
        p, space = self.p, self.space
        whole, parameters, room = self.arguments((), (64, _ROOM) if form == "each" else (_ROOM,))
        name = f"{form}_{self.dtype}_{space.vector}" + (f"_{room}" if form == "each" else "")
        code = np.array(p.code, np.uint64)
        for at, operand in p.loads:
            if space.vector == 1 or space.lanes[operand]:
                code[at] |= np.uint64(1 << 36)
        what = [Table(code), Table(np.array(p.constants or [0.0])), i64(len(code)), i64(len(p.reductions)), i64(len(space.words))]
        return launch("pointwise", name, blocks, space.threads, [*whole, *what, *more, *parameters], shared)


def batches_of(s: Step, sizes: dict) -> tuple[list[Batch], list[Any]]:
    """What is to run of a step, and its buffers."""
    program, kinds, outputs, _ = program_of(s)
    spaces, buffers, index, flow = segments_of(s, sizes)
    p = planned(tuple(program), tuple(kinds), tuple(outputs))
    return batches(p, spaces, index, flow, code(s.segment_outputs[0])), buffers


@kernel("pointwise")
def _pointwise(s: Step, sizes: dict) -> Made:
    found, buffers = batches_of(s, sizes)
    call = made_of(found, len(buffers))
    if call is None:
        return None
    call.rows = rows_of(s, sizes)
    return call, buffers


def prepare(steps: Sequence[Step], sizes: dict) -> None:
    """Compiles the texts of a plan side by side, so that makers find them."""
    if fused.generates():
        fused.compile_all(b.text() for s in steps if s.kind == "pointwise" for b in batches_of(s, sizes)[0])


TABLE.prepare = prepare


class PointwiseCall(Call):
    """The launches of a pointwise step; rows: the numbers of rows that they are for."""

    rows: tuple[int, ...] = ()


def batches(p: Program, spaces: Sequence[tuple], index: Sequence[Sequence[int]], flow: Sequence[int], dtype: str) -> list[Batch]:
    """What is to run of a program over segments: those of one shape together, as far as a launch has room; with reductions one by one."""
    groups: dict[tuple, list[Segment]] = {}
    for i, (dims, strides) in enumerate(spaces):
        x = Segment(p, i, dims, strides, index[i], flow[i], 4 if dtype == "f4" else 8)
        if x.space.elements and (p.reductions or 0 not in dims):
            groups.setdefault(x.space.shape, []).append(x)
    most = 1 if p.reductions else (_ROOM - len(p.numbers)) // len(p.kinds)
    return [Batch(p, some[at : at + most], dtype) for some in groups.values() for at in range(0, len(some), most)]


def made_of(found: Sequence[Batch], nbuf: int) -> PointwiseCall | None:
    """A call that runs batches, which share scratch; None where nothing is to do."""
    if not found:
        return None
    partials = max(len(b.p.reductions) * b.space.parts * b.space.elements if b.space.parts > 1 else 0 for b in found)
    return PointwiseCall(nbuf, [x for b in found for x in b.launches()], 8 * partials)


def rows_of(s: Step, sizes: dict) -> tuple[int, ...]:
    """Rows of each segment."""
    return tuple(int(rows(x.domain, sizes)) for x in s.segments if x.domain is not None)


@fits("pointwise")
def _fit(call: PointwiseCall, s: Step, sizes: dict) -> bool:
    return call.rows == rows_of(s, sizes)
