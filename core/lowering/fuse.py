"""Pass 4, fuse: pointwise neighbours over one iteration space become one program, with the sums of its results.

Every node has a level: a pointwise node has that of its deepest pointwise producer over the same space, else one more. Connected pointwise nodes
of one space and level become a step; a path between two of them through another step would have to climb a level, so steps never wait
for each other in a circle.

A value that another step needs is stored only if loading it is cheaper than computing it again from what that step loads anyway: so masks,
centred inputs and the like are never written to memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cogkit.lowering.ir import Graph, Inside, Node, Value
from cogkit.lowering.steps import Step
from cogkit.op import Type
from cogkit.ops.rows import has_steps

__all__ = ["COSTLY", "fuse"]

COSTLY = {"exp", "log", "pow", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid",
           "softplus", "logaddexp", "randn"}  # fmt: skip
_SUMS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"}
_OPERANDS, _NODES = 64, 128  # of a program, before what it computes again
_MOST = 120  # operands that a program can have
_AGAIN = 6  # a load is worth about this many cheap operations, a store and a load twice as many


def is_pointwise(n: Node) -> bool:
    """Whether the node can be an instruction of a program."""
    return n.op is not None and n.op.kernel == "pointwise"


def is_view(n: Node) -> bool:
    """Whether the node's output is its input's buffer."""
    return n.op is not None and n.op.kernel == "view"


def is_slice(n: Node) -> bool:
    """Whether the node's output is read where it lies in its input."""
    return n.name == "take" and n.outputs[0].inside is not None


def is_readable_slice(n: Node) -> bool:
    """Whether the node is a slice of a value that is held dense."""
    return n.name == "take" and not n.inputs[0].sparse


def whole(v: Value) -> bool:
    """Whether a value, through views, has a buffer of its own."""
    while v.producer.op is not None and is_view(v.producer):
        v = v.producer.inputs[0]
        if v.inside is not None:
            return False
    return True


def domain_of(n: Node) -> Type:
    """The iteration space of a pointwise node or a reduction."""
    return n.inputs[0].type if n.name in _SUMS else n.outputs[0].type


def fuse(graph: Graph) -> list[Step]:
    """The steps of a graph, in an order in which they can run."""
    return _Fuser(graph).run()


class _Fuser:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.readers: dict[Value, list[Node]] = {}
        for n in graph.nodes:
            for v in n.inputs:
                self.readers.setdefault(v, []).append(n)
        self.wanted = set(graph.outputs)
        self.numbers = {n for n in graph.nodes if n.name == "fill"}  # constants of the programs that read them
        self.level: dict[Node, int] = {}
        self.stored: set[Value] = set()
        self.parts: set[int] = set()  # groups that are parts of a larger one
        self.exact: set[Value] = set()  # stored, and never computed again: another program might round otherwise

    def run(self) -> list[Step]:
        epilogues = self.find_epilogues()
        self.find_insides()
        self.set_levels()
        groups = self.find_groups()
        steps: list[tuple[int, int, Step]] = []
        position = {n: i for i, n in enumerate(self.graph.nodes)}
        for n in self.graph.nodes:
            if n.op is None or is_view(n) or n in self.group_of or n in self.absorbed or n in self.numbers or is_slice(n):
                continue
            reads = [] if n.name == "row_count" else list(n.inputs)  # of its operand only the row space counts
            step = epilogues.get(n) or Step(n.op.kernel, [n], reads, list(n.outputs))
            step.level = self.level[n]
            steps.append((step.level, position[n], step))
        for nodes in groups:
            step = self.program(nodes)
            if step is not None:
                step.attrs.update({"part": True} if self.group_of[nodes[0]] in self.parts else {})
                steps.append((step.level, position[nodes[0]], step))
        steps.sort(key=lambda s: s[:2])
        return order(batch([s for _, _, s in steps]))

    # bias and activation inside matrix products and convolutions ----------------------------------------------------------------

    def find_epilogues(self) -> dict[Node, Step]:
        """Products followed by a sum and relu take them in: they are added while the result is still in registers."""
        self.absorbed: set[Node] = set()
        found: dict[Node, Step] = {}
        for n in self.graph.nodes:
            if n.name not in ("conv", "matmul") or n.outputs[0].type.dtype.name != "float32" or n.attrs.get("sum_rows"):
                continue
            if any(0 in v.type.shape for v in n.inputs):  # a sum of nothing is filled in, by no product
                continue
            v, chain = n.outputs[0], []
            while v not in self.wanted and len(self.readers.get(v, ())) == 1 and self.readers[v][0].name == "reshape":
                chain.append(self.readers[v][0])
                v = chain[-1].outputs[0]
            if v in self.wanted or len(self.readers.get(v, ())) != 1:
                continue
            add = self.readers[v][0]
            if add.name != "add" or add in self.absorbed or add.inputs[0] is add.inputs[1] or add.outputs[0].type != v.type:
                continue
            bias = add.inputs[1] if add.inputs[0] is v else add.inputs[0]
            what = "bias" if self.is_bias(n, v.type, bias) else "added" if self.is_added(n, v.type, bias) else ""
            if not what:
                continue
            out, absorbed, relu = add.outputs[0], [*chain, add], False
            if out not in self.wanted and len(self.readers.get(out, ())) == 1 and self.readers[out][0].name == "relu":
                absorbed.append(self.readers[out][0])
                out, relu = absorbed[-1].outputs[0], True
            step = Step(n.op.kernel, [n], [*n.inputs, bias], [out])
            step.attrs.update({what: bias, "relu": relu})
            found[n] = step
            self.absorbed.update(absorbed)
        return found

    @staticmethod
    def is_added(n: Node, t: Type, other: Value) -> bool:
        """A value to which the product of sequences with weights is added, as that of a state to that of an input."""
        if n.name != "matmul" or n.attrs["ta"] or n.inputs[1].type.axes:
            return False
        return has_steps(n.inputs[0].type.axes) and other.type == t

    @staticmethod
    def is_bias(n: Node, t: Type, bias: Value) -> bool:
        """One value a column of a product, or a channel of a convolution, that is there before the product runs."""
        p = bias.producer
        while is_view(p):
            p = p.inputs[0].producer
        if bias.type.axes or p.op is not None:
            return False
        shape = (1,) * (len(t.shape) - len(bias.type.shape)) + bias.type.shape
        if n.name == "conv":
            return len(t.shape) >= 2 and t.shape == n.outputs[0].type.shape and shape == (t.shape[0],) + (1,) * (len(t.shape) - 1)
        return (
            len(t.shape) >= 1 and shape == (1,) * (len(t.shape) - 1) + t.shape[-1:] and t.shape[-1] == n.outputs[0].type.shape[1]
        )

    # slices and splices -----------------------------------------------------------------------------------------------------------

    def find_insides(self) -> None:
        """A slice that programs alone read is read where it lies; a part of a splice that a program makes is written where it goes."""
        for n in self.graph.nodes:
            for v in n.outputs:
                v.inside = None
        for n in self.graph.nodes:
            if is_readable_slice(n) and n.outputs[0] not in self.wanted and self.in_programs(n.outputs[0]) and whole(n.inputs[0]):
                n.outputs[0].inside = Inside(n.inputs[0], n.attrs["axis"], n.attrs["first"], n.attrs["stride"])
            elif n.name == "concat":
                at, times = 0, Counter(n.inputs)
                for v in n.inputs:
                    mine = self.free_node(v.producer) and v not in self.wanted and times[v] == 1
                    if mine and v.inside is None and self.in_programs(v, n):
                        v.inside = Inside(n.outputs[0], n.attrs["axis"], at, 1)
                    at += v.type.shape[n.attrs["axis"]]

    def in_programs(self, v: Value, but: Node | None = None) -> bool:
        """Whether programs alone read a value, or one other node too."""
        readers = self.readers.get(v, ())
        return bool(readers) and all(r is but or self.fusable(r) for r in readers)

    # levels and groups ----------------------------------------------------------------------------------------------------------

    def free_node(self, n: Node) -> bool:
        """Whether the node is an instruction of a program, not part of a product."""
        return is_pointwise(n) and n not in self.absorbed and n not in self.numbers

    def fusable(self, n: Node) -> bool:
        return n.name in _SUMS or self.free_node(n)

    def set_levels(self) -> None:
        for n in self.graph.nodes:
            top = 0
            domain = domain_of(n) if n.op is not None and self.fusable(n) else None
            for v in n.inputs:
                p = v.producer
                if p.op is not None and p not in self.numbers:
                    joins = (
                        is_view(n)
                        or is_slice(n)
                        or n in self.absorbed
                        or (domain is not None and self.free_node(p) and domain_of(p) == domain)
                    )
                    top = max(top, self.level[p] + (0 if joins else 1))
            self.level[n] = top

    def find_groups(self) -> list[list[Node]]:
        """Connected pointwise nodes and sums of one space and level, last level first."""
        parent: dict[Node, Node] = {}

        def find(n: Node) -> Node:
            while parent[n] is not n:
                parent[n] = parent[parent[n]]
                n = parent[n]
            return n

        loads: dict[tuple, Node] = {}
        members = [n for n in self.graph.nodes if n.op is not None and self.fusable(n)]
        # a number that others than programs read is filled into memory
        members += [
            n for n in self.numbers if n.outputs[0] in self.wanted or any(not self.fusable(r) for r in self.readers[n.outputs[0]])
        ]
        for n in members:
            parent[n] = n
            if n in self.numbers:
                self.stored.add(n.outputs[0])
                continue
            domain, level = domain_of(n), self.level[n]
            for v in n.inputs:
                p = v.producer
                if p in parent and self.free_node(p) and domain_of(p) == domain and self.level[p] == level:
                    parent[find(n)] = find(p)
                elif v.type == domain:
                    parent[find(n)] = find(loads.setdefault((v, level), n))
        groups: dict[Node, list[Node]] = {}
        for n in members:
            groups.setdefault(find(n), []).append(n)
        out = []
        for group in groups.values():
            # a program sums over one set of axes; other sums read what it stores
            kinds = [(n.attrs["axes"], n.attrs["rows"]) for n in group if n.name in _SUMS]
            kept = max(set(kinds), key=lambda k: (kinds.count(k), -kinds.index(k))) if kinds else None
            alone = [n for n in group if n.name in _SUMS and (n.attrs["axes"], n.attrs["rows"]) != kept]
            out.extend([n] for n in alone)
            rest = [n for n in group if n not in alone]
            if rest:
                parts = self.split(rest)
                self.parts.update(range(len(out), len(out) + len(parts)) if len(parts) > 1 else ())
                out.extend(reversed(parts))  # last first, as programs are made
        self.group_of = {n: i for i, g in enumerate(out) for n in g}
        self.mark_stored()
        return sorted(out, key=lambda g: -self.level[g[0]])

    def split(self, group: list[Node]) -> list[list[Node]]:
        """Parts of a group that are small enough for a program each, in an order in which they can run."""
        mine = set(group)
        parts: list[list[Node]] = [[]]
        inside: set[Node] = set()  # of the part that grows
        loads: set[Value] = set()
        waits: dict[Value, int] = {}  # values of the part that others read, and by how many
        for n in postorder(group):
            v = n.outputs[0]
            loads.update(w for w in n.inputs if w.producer not in inside and w.producer not in self.numbers)
            if parts[-1] and (len(loads) + len(waits) >= _OPERANDS or len(parts[-1]) >= _NODES):
                parts.append([])
                inside, waits = set(), {}
                loads = {w for w in n.inputs if w.producer not in self.numbers}
            parts[-1].append(n)
            inside.add(n)
            for w in set(n.inputs) & set(waits):
                waits[w] -= 1
                if not waits[w]:
                    del waits[w]
            readers = set(self.readers.get(v, ()))
            if readers or v in self.wanted or n.name in _SUMS:
                waits[v] = len(readers & mine) + (v in self.wanted or n.name in _SUMS or not readers <= mine)
        return parts

    def mark_stored(self) -> None:
        """Values that are in memory whatever happens: read by others than programs over the same space, wanted, or written to a variable."""
        for n in self.graph.nodes:
            for v in n.outputs:
                if n in self.numbers:
                    continue
                readers = self.readers.get(v, ())
                if len(readers) > 1 and any(r.name in ("reduce_max", "reduce_min") for r in readers):  # compared with its extreme
                    self.stored.add(v)
                    self.exact.add(v)
                if not self.free_node(n) or v in self.wanted:
                    self.stored.add(v)
                    continue
                for r in readers:
                    apart = not self.fusable(r) or domain_of(r) != domain_of(n)
                    if apart or (self.group_of[r] != self.group_of[n] and self.level[r] == self.level[n]):
                        self.stored.add(v)

    # programs -------------------------------------------------------------------------------------------------------------------

    def program(self, group: list[Node]) -> Step | None:
        """The step of one group: its nodes, what it computes again, its loads and stores. Groups come last level first, so that
        what later steps want of this one is known."""
        step = self.program_of(group, True)
        if step is not None and (len(step.inputs) + len(step.outputs) > _MOST or len(step.nodes) > 2 * _NODES):
            step = self.program_of(group, False)
        return step

    def program_of(self, group: list[Node], again: bool) -> Step | None:
        domain, mine = domain_of(group[0]), set(group)
        reach: set[Node] = set()
        stack = [n for n in group if n.name in _SUMS or n.outputs[0] in self.stored]
        loads: dict[Value, None] = {}
        outside: dict[Value, None] = {}
        while stack:
            n = stack.pop()
            if n in reach:
                continue
            reach.add(n)
            for v in n.inputs:
                p = v.producer
                if p in self.numbers:
                    reach.add(p)
                elif p in mine and p.name not in _SUMS:
                    stack.append(p)
                elif self.free_node(p) and domain_of(p) == domain:
                    outside[v] = None
                else:
                    loads[v] = None
        if not reach:
            return None  # each of its values is computed where it is used
        for v in sorted(outside, key=lambda v: v.producer.serial):
            extra = self.recompute(v, domain, loads) if again else None
            if extra is None:
                self.stored.add(v)
                loads[v] = None
            else:
                reach |= extra[0]
                loads.update(dict.fromkeys(extra[1]))
        computed = {n.outputs[0] for n in reach}
        nodes = sorted(reach, key=lambda n: n.serial)
        used = {v for n in nodes for v in n.inputs} - computed
        inputs = [v for v in loads if v in used]
        outputs = [n.outputs[0] for n in nodes if n in mine and (n.name in _SUMS or n.outputs[0] in self.stored)]
        return Step("pointwise", nodes, inputs, outputs, domain, self.level[group[0]])

    def recompute(self, v: Value, domain: Type, loads: Iterable[Value]) -> tuple[set[Node], list[Value]] | None:
        """Nodes that compute v again and what they load, or None where loading v is better."""
        have = set(loads)
        nodes: set[Node] = set()
        more: list[Value] = []
        budget = _AGAIN if v in self.stored else 2 * _AGAIN
        stack = [v]
        while stack:
            w = stack.pop()
            n = w.producer
            if n in nodes or w in have or w in more:
                continue
            if n in self.numbers:
                nodes.add(n)
                continue
            if self.free_node(n) and domain_of(n) == domain and (w not in self.stored or self.at_hand(w, domain, have)):
                budget -= 100 if n.name in COSTLY else 1
                if budget < 0:
                    return None
                nodes.add(n)
                stack.extend(n.inputs)
            else:
                more.append(w)
        extra = sum(w.type == domain for w in more)
        return (nodes, more) if extra <= (0 if v in self.stored else 1) else None

    def at_hand(self, w: Value, domain: Type, have: set[Value]) -> bool:
        """Whether a stored value can be computed again without any load of its size."""
        budget, stack, seen = _AGAIN, [w], set()
        while stack:
            u = stack.pop()
            if u in have or u in seen or u.producer in self.numbers:
                continue
            seen.add(u)
            n = u.producer
            if self.free_node(n) and domain_of(n) == domain and u not in self.exact:
                budget -= 100 if n.name in COSTLY else 1
                if budget < 0:
                    return False
                stack.extend(n.inputs)
            elif u.type == domain:
                return False
        return True


def postorder(group: list[Node]) -> list[Node]:
    """The nodes, each just before its first reader where that is possible."""
    mine, done, out = set(group), set(), []
    for last in reversed(group):
        stack = [(last, False)]
        while stack:
            n, ready = stack.pop()
            if ready:
                out.append(n)
            elif n not in done:
                done.add(n)
                stack.append((n, True))
                stack.extend((v.producer, False) for v in reversed(n.inputs) if v.producer in mine and v.producer not in done)
    return out


def batch(steps: list[Step]) -> list[Step]:
    """Equal programs of one level, each over its own values, become one call with several segments: a learner updates all parameters at once."""
    out: list[Step] = []
    known: dict[tuple, Step] = {}
    for s in steps:
        # parts of one group wait for each other, though they are of one level
        alone = s.kind != "pointwise" or "part" in s.attrs or any(n.name in _SUMS for n in s.nodes)
        key = None if alone else (s.level, signature(s))
        first = known.get(key) if key is not None else None
        if first is None or set(first.outputs) & set(s.inputs) or set(s.outputs) & set(first.inputs):
            out.append(s)
            if key is not None:
                known[key] = s
            continue
        first.segments.append(s)
        first.inputs = [*first.inputs, *s.inputs]
        first.outputs = [*first.outputs, *s.outputs]
    return out


def signature(s: Step) -> tuple:
    """What two programs must share to be run as one."""
    number = {v: i for i, v in enumerate(s.inputs)}
    for n in s.nodes:
        number[n.outputs[0]] = len(number)
    body = tuple((n.name, tuple(number[v] for v in n.inputs), n.attrs.get("value"), n.attrs.get("purpose")) for n in s.nodes)
    return body, tuple(number[v] for v in s.outputs), s.domain.dtype.name, bool(s.domain.axes)


def order(steps: list[Step]) -> list[Step]:
    """Steps in an order in which they can run, as close as possible to the given one; writers of variables after their readers."""
    made: dict[Value, Step] = {}
    for s in steps:
        for v in s.outputs:
            made[v] = s
    done: set[Step] = set()
    out: list[Step] = []

    def sources(s: Step) -> Iterable[Step]:
        for v in s.inputs:
            while v not in made and (is_view(v.producer) or is_slice(v.producer)):
                v = v.producer.inputs[0]
            if v in made:
                yield made[v]

    for start in steps:
        stack = [(start, iter(sources(start)))]
        if start in done:
            continue
        done.add(start)
        while stack:
            s, rest = stack[-1]
            for p in rest:
                if p not in done:
                    done.add(p)
                    stack.append((p, iter(sources(p))))
                    break
            else:
                out.append(s)
                stack.pop()
    return out
