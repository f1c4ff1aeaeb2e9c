"""The table of cases over sequences, and how one is run: the same code under cogkit and under CNTK 2.7 (Python 3.6).

A case states its operands and one call; it runs on minibatches of mixed lengths, equal lengths, one long sequence among short ones, and
lengths of 1. Values depend on the case's name alone, so both sides see the same bits; they are whole multiples of 1/128.
"""

# ruff: noqa: UP031, B905, E501  (Python 3.6 reads this file too; one case a line)

import json
import zlib

import numpy as np

from cases import draw, stream

# lengths of the sequences of each minibatch, on the first sequence axis and on the second one
LENGTHS = {
    "ragged": ([3, 1, 5, 2], [2, 4, 1, 3]),
    "equal": ([4, 4, 4], [2, 2, 2]),
    "long": ([2, 200, 1, 7, 3], [3, 1, 120, 2, 5]),
    "ones": ([1, 1, 1], [1, 1, 1]),
}
SHOWN = 24  # of a longer sequence this many steps are recorded, first and last ones among them


class Operand:
    """kind: sequence, batch, param or const. axis: '' the default one, 'm' one with lengths of its own, 'twin' with equal ones.

    sparse: fed as CSR matrices. CNTK, whose sparse gradients cannot be read, is fed the same as dense arrays.
    """

    def __init__(self, kind, shape, domain="any", axis="", grad=True, sparse=False, value=None):
        self.kind, self.shape, self.domain, self.axis, self.sparse, self.value = kind, shape, domain, axis, sparse, value
        self.grad = grad and not sparse and kind != "const" and domain not in ("picks", "counts", "onehot", "binary", "ctc")


def S(*shape, **options):
    return Operand("sequence", shape, **options)


def B(*shape, **options):
    return Operand("batch", shape, **options)


def W(*shape, **options):
    return Operand("param", shape, **options)


def K(*shape, **options):
    return Operand("const", shape, **options)


class Case:
    """`name` is op/variant; `build(C, *operands)` makes the function under test.

    diff: it has gradients; `of`: the outputs whose gradient is asked for (those of one row space; none: all).  plain: the gradient is of
    the value itself, else of sum(r * y + y * y / 2).  least: shorter sequences are made this long.  only: names of minibatches.
    params: gradients of parameters are recorded.  cntk: another build, which CNTK runs.  rtol: of float32.  uses: names besides the op's own that must exist.
    departs: why cogkit's answer differs from CNTK's; `where` names what differs ('y0', 'long/d1', ...; none: all of it).
    """

    def __init__(self, family, name, build, operands, **options):
        self.family, self.name, self.build, self.operands = family, name, build, operands
        self.diff = self.params = True
        self.of, self.plain, self.least, self.only, self.uses = None, False, 1, None, ()
        self.cntk, self.departs, self.where = None, "", ()
        self.rtol = 1e-5
        for key, value in options.items():
            if not hasattr(self, key):
                raise TypeError("%s: no option %r" % (name, key))
            setattr(self, key, value)
        if self.only is None:
            self.only = ("once",) if not any(o.kind in ("sequence", "batch") for o in operands) else tuple(LENGTHS)

    @property
    def words(self):
        """Dotted names below C that the case needs."""
        return (self.name.split("/")[0],) + tuple(self.uses)

    def __repr__(self):
        return self.name


# values --------------------------------------------------------------------------------------------------------------------------


def drawn(rng, shape, domain):
    """Values of a domain (see `cases.draw`), as whole multiples of 1/128 where it has fractions."""
    name, _, argument = domain.partition(":")
    if name == "picks":  # 0 or 1, at least one 1 in each sequence
        v = (rng.uniform(size=shape) < 0.5).astype(float)
        v.reshape(len(v), -1)[rng.randint(len(v))] = 1
        return v
    if name == "counts":  # 0, 1, 2 or 3, not all 0
        v = rng.randint(0, 4, shape).astype(float)
        v.reshape(len(v), -1)[rng.randint(len(v))] = 2
        return v
    if name == "ctc":  # the labels of a sequence: 2 where one begins, 1 where the last goes on; the last class is the blank
        v = np.zeros(shape)
        n = max(1, len(v) // 3)
        at = rng.randint(0, shape[-1] - 1, n)
        v[np.arange(n), at] = 2
        v[n:, at[-1]] = 1
        return v
    v = draw(rng, shape, domain)
    return v if name in ("onehot", "binary", "whole") else np.round(v * 128) / 128


def lengths_of(case, minibatch, axis):
    return [max(n, case.least) for n in LENGTHS[minibatch][1 if axis == "m" else 0]]


def values(case, minibatch):
    """The operands' values: a list of arrays for sequences, else an array; float64."""
    found = []
    for i, o in enumerate(case.operands):
        if o.value is not None:
            v = np.asarray(o.value, np.float64)
        elif o.kind == "sequence":
            v = [
                drawn(stream(case.name, i, minibatch, k), (n,) + o.shape, o.domain)
                for k, n in enumerate(lengths_of(case, minibatch, o.axis))
            ]
        elif o.kind == "batch":
            v = drawn(stream(case.name, i, minibatch), (len(LENGTHS[minibatch][0]),) + o.shape, o.domain)
        else:
            v = drawn(stream(case.name, i), o.shape, o.domain)
        found.append(v)
    return found


def check_sum(case, minibatch):
    """A number that tells whether a case still asks what was asked when it was recorded."""
    crc = 0
    for v in values(case, minibatch):
        for a in v if isinstance(v, list) else [v]:
            crc = zlib.crc32(np.ascontiguousarray(a, "<f8").tobytes(), crc)
    return crc & 0xFFFFFFFF


# running a case ------------------------------------------------------------------------------------------------------------------


def as_function(C, made):
    return C.combine(list(made)) if isinstance(made, (tuple, list)) else C.combine([made])


def criterion(C, case, outputs, dtype):
    """A value a row whose gradient differs from element to element: sum of r * y + y * y / 2."""
    total = None
    for i, y in enumerate(outputs):
        if case.plain:
            return as_function(C, y)
        shape = y.shape if all(n > 0 for n in y.shape) else ()
        r = C.constant(np.asarray(drawn(stream(case.name, "root", i), shape, "any"), dtype), dtype=dtype)
        half = C.constant(np.asarray(0.5, dtype), dtype=dtype)
        part = C.reduce_sum(y * r + C.square(y) * half)
        total = part if total is None else total + part
    return total


def parameter_value(case, p):
    """Of the name and shape alone: which of two like-named parameters of one shape comes first is nobody's business."""
    v = drawn(stream(case.name, "p", p.name, p.shape), p.shape, "any") * 0.5
    return 0.8 + 0.2 * v if p.name == "alpha" else v


def joined(value):
    """A list of sequences as (steps of each, one array of all); a long sequence is thinned out."""
    kept = []
    for a in value:
        a = np.asarray(a)
        if len(a) > SHOWN:
            a = a[np.unique(np.linspace(0, len(a) - 1, SHOWN).astype(int))]
        kept.append(a)
    return np.asarray([len(a) for a in value]), np.concatenate(kept)


def put(found, key, value):
    """Adds a result: sequences as key and key_n (their lengths), anything else as it is."""
    if isinstance(value, list):
        found[key + "_n"], found[key] = joined(value)
    else:
        found[key] = np.asarray(value)


class Built:
    """A case built in one element type."""

    def __init__(self, C, case, dtype, oracle=False):
        self.C, self.case, self.dtype, self.oracle = C, case, np.dtype(dtype).type, oracle
        self.inputs = []
        axes = {"": C.Axis.default_dynamic_axis(), "m": C.Axis("m"), "twin": C.Axis("twin")}
        with C.default_options(dtype=self.dtype):
            operands = []
            for i, o in enumerate(case.operands):
                if o.kind in ("param", "const"):
                    v = np.asarray(drawn(stream(case.name, i), o.shape, o.domain) if o.value is None else o.value, self.dtype)
                    made = C.parameter(init=v, dtype=self.dtype, name="w%d" % i) if o.kind == "param" else C.constant(v, dtype=self.dtype)
                elif o.kind == "sequence":
                    made = C.sequence.input_variable(o.shape, dtype=self.dtype, needs_gradient=o.grad, is_sparse=o.sparse and not oracle, sequence_axis=axes[o.axis], name="x%d" % i)
                else:
                    made = C.input_variable(o.shape, dtype=self.dtype, needs_gradient=o.grad, name="x%d" % i)
                operands.append(made)
            build = case.cntk if oracle and case.cntk else case.build
            self.function = as_function(C, build(C, *operands))
            self.operands = operands
            for p in self.inner():
                p.value = np.asarray(parameter_value(case, p), self.dtype)
            self.loss = None
            if case.diff:
                outputs = [self.function.outputs[i] for i in (case.of or range(len(self.function.outputs)))]
                self.loss = criterion(C, case, outputs, self.dtype)

    def inner(self):
        """Parameters that the case itself made (layers)."""
        mine = set(o.uid for o in self.operands)
        return [p for p in self.function.parameters if p.uid not in mine] if self.case.params else []

    def feed(self, function, minibatch):
        used = set(a.uid for a in function.arguments)
        found = {}
        for o, made, v in zip(self.case.operands, self.operands, [] if minibatch == "once" else values(self.case, minibatch)):
            if o.kind in ("param", "const") or made.uid not in used:
                continue
            if o.kind == "sequence":
                found[made] = [self.one(o, a) for a in v]
            else:
                found[made] = np.ascontiguousarray(v, self.dtype)
        return found

    def one(self, o, a):
        a = np.ascontiguousarray(a, self.dtype)
        if o.sparse and not self.oracle:
            import scipy.sparse

            return scipy.sparse.csr_matrix(a.reshape(len(a), -1))
        return a

    def forward(self, minibatch, found):
        value = self.function.eval(self.feed(self.function, minibatch))
        for i, o in enumerate(self.function.outputs):
            put(found, "y%d" % i, value[o] if len(self.function.outputs) > 1 else value)

    def backward(self, minibatch, found):
        used = set(v.uid for v in list(self.loss.parameters) + list(self.loss.arguments))
        keys, groups = {}, {}
        for i, (o, made) in enumerate(zip(self.case.operands, self.operands)):
            if o.grad and made.uid in used:
                keys[made] = "d%d" % i
        for p in self.inner():
            if p.uid in used:
                groups.setdefault("dp_%s_%s" % (p.name, "x".join(str(n) for n in p.shape)), []).append(p)
        wrt = list(keys) + [p for group in groups.values() for p in group]
        if not wrt:
            return
        grads = self.loss.grad(self.feed(self.loss, minibatch), wrt=wrt)
        if not isinstance(grads, dict):
            grads = {wrt[0]: grads}
        for v, key in keys.items():
            put(found, key, grads[v])
        for key, group in groups.items():  # alike in name, shape and value: in the order of their gradients
            for k, g in enumerate(sorted((np.asarray(grads[p]) for p in group), key=lambda g: tuple(np.round(g.ravel(), 5)))):
                found["%s_%d" % (key, k)] = g

    def __call__(self, minibatch):
        found = {}
        self.forward(minibatch, found)
        if self.loss is not None:
            self.backward(minibatch, found)
        return found


def record(C, case, dtype, oracle=False):
    """Everything a case has to say: {'ragged/y0': array, ...}."""
    built = Built(C, case, dtype, oracle)
    found = {}
    for minibatch in case.only:
        for key, value in built(minibatch).items():
            found["%s/%s" % (minibatch, key)] = value
    return found


def recorded(path):
    """A file of golden values: {case: ({'type': 'f8', 'asked': {minibatch: check sum}, ...}, {'ragged/y0': array, ...})}."""
    with np.load(path, allow_pickle=False) as z:
        index, values = json.loads(z["index"].tobytes().decode()), z["values"]
    found = {}
    for name, entry in index.items():
        arrays = {}
        for key, at in entry["of"].items():
            n = int(np.prod(at[1:]))
            arrays[key] = values[at[0] : at[0] + n].reshape(at[1:])
        found[name] = entry, arrays
    return found


# the table -----------------------------------------------------------------------------------------------------------------------

CASES = []
FAMILY = [""]


def row(name, build, *operands, **options):
    CASES.append(Case(FAMILY[0], name, build, operands, **options))


def family(name):
    FAMILY[0] = name


def seq(op, *args, **kw):
    """A build that calls C.sequence.<op>(operands..., *args, **kw)."""
    return lambda C, *operands: getattr(C.sequence, op)(*(operands + args), **kw)


def layer(make):
    """A build that applies the layer that make(C.layers) gives."""
    return lambda C, *operands: make(C.layers)(*operands)


# ------------------------------------------------------------------------------------------------------------------ delays
family("delay")
for op in ("past_value", "future_value"):
    name = "sequence." + op
    row(name, seq(op), S(3))
    for n in (2, 3):
        row(name + "/step%d" % n, seq(op, time_step=n), S(2))
    row(name + "/scalar", seq(op), S())
    row(name + "/matrix", seq(op), S(2, 3))
    row(name + "/number", seq(op, initial_state=0.5), S(3))
    row(name + "/number_step3", seq(op, initial_state=-1.5, time_step=3), S(2))
    row(name + "/array", seq(op), S(3), K(3))
    row(name + "/array_matrix", seq(op), S(2, 3), K(2, 3))
    row(name + "/row", seq(op), S(2, 3), K(3))
    row(name + "/scalar_state", seq(op), S(3), K())
    row(name + "/parameter", seq(op), S(3), W(3))
    row(name + "/parameter_step2", seq(op, time_step=2), S(3), W(3))
    row(name + "/batch", seq(op), S(3), B(3))
    row(name + "/batch_step2", seq(op, time_step=2), S(3), B(3))
    row(name + "/batch_scalar", seq(op), S(), B())
    row(name + "/sequence_state", seq(op), S(3), S(3, axis="m"))
    row(name + "/same_axis_state", seq(op), S(3), S(3))
    row(name + "/twice", lambda C, x, op=op: getattr(C.sequence, op)(getattr(C.sequence, op)(x)), S(3))
    row(name + "/times", lambda C, x, w, op=op: C.times(getattr(C.sequence, op)(x), w), S(3), W(3, 2))
    row(name + "/sparse", lambda C, x, w, op=op: C.times(getattr(C.sequence, op)(x), w), S(4, domain="onehot", sparse=True), W(4, 2))
    row(name + "/other_axis", lambda C, x, y, op=op: C.sequence.last(getattr(C.sequence, op)(x)) + C.sequence.first(getattr(C.sequence, op)(y)), S(3), S(3, axis="m"))
row("sequence.delay", seq("delay"), S(3))
row("sequence.delay/none", lambda C, x: C.sequence.delay(C.square(x), time_step=0), S(3))
row("sequence.delay/step2", seq("delay", time_step=2), S(3))
row("sequence.delay/ahead2", seq("delay", time_step=-2), S(3))
row("sequence.delay/ahead_number", seq("delay", initial_state=2, time_step=-1), S(3))
row("sequence.delay/past_of_future", lambda C, x: C.sequence.past_value(C.sequence.future_value(x)), S(3))
row("sequence.delay/future_of_past", lambda C, x: C.sequence.future_value(C.sequence.past_value(x, 1.0), 2.0), S(3))
row("sequence.delay/window", lambda C, x: C.splice(*[C.sequence.delay(x, time_step=t) for t in (-2, -1, 0, 1, 2)]), S(2))
row("sequence.delay/window_dense", lambda C, x, w: C.times(C.splice(*[C.sequence.delay(x, time_step=t) for t in (-1, 0, 1)]), w), S(2), W(6, 3))
row("sequence.delay/window_new_axis", lambda C, x: C.splice(*[C.sequence.delay(x, time_step=t) for t in (-1, 0, 1)], axis=C.Axis.new_leading_axis()), S(2))
row("sequence.delay/difference", lambda C, x: x - C.sequence.past_value(x), S(3))
row("layers.Delay", layer(lambda L: L.Delay()), S(3))
row("layers.Delay/ahead2", layer(lambda L: L.Delay(-2)), S(3))
row("layers.Delay/none", layer(lambda L: L.Sequential([L.Delay(0), L.Dense(2)])), S(3))
row("layers.Delay/number", layer(lambda L: L.Delay(2, initial_state=0.25)), S(3))
row("layers.Delay/trigram", lambda C, x: C.layers.Sequential([tuple(C.layers.Delay(t) for t in (-1, 0, 1)), C.splice])(x), S(2))
for axis in (-2, -1):
    for back in (False, True):
        row("layers.PastValueWindow/axis%d%s" % (axis, "_back" if back else ""), lambda C, x, a=axis, b=back: C.layers.PastValueWindow(3, axis=a, go_backwards=b)(x).outputs, S(2))
row("layers.PastValueWindow/matrix", lambda C, x: C.layers.PastValueWindow(2, axis=-2)(x).outputs[:1], S(2, 3))

# ------------------------------------------------------------------------------------------------------------- single steps
family("steps")
for op in ("first", "last"):
    row("sequence." + op, seq(op), S(3))
    row("sequence." + op + "/scalar", seq(op), S())
    row("sequence." + op + "/matrix", seq(op), S(2, 3))
    row("sequence." + op + "/times", lambda C, x, w, op=op: C.times(getattr(C.sequence, op)(x), w), S(3), W(3, 2))
    row("sequence." + op + "/sparse", lambda C, x, w, op=op: C.times(getattr(C.sequence, op)(x), w), S(4, domain="onehot", sparse=True), W(4, 2))
for op in ("is_first", "is_last"):
    row("sequence." + op, seq(op), S(2, 3), diff=False)
    row("sequence." + op + "/times_value", lambda C, x, op=op: getattr(C.sequence, op)(x) * x, S(3))
    row("sequence." + op + "/select", lambda C, x, y, op=op: C.element_select(getattr(C.sequence, op)(x), x, y), S(3), S(3))
for begin, end, least in ((0, 1, 1), (0, 2, 2), (1, 2, 2), (1, 3, 3), (2, 4, 4), (-1, 0, 1), (-2, 0, 2), (-2, -1, 2), (-3, -1, 3), (0, -1, 2), (1, -1, 3), (1, 0, 2), (2, 0, 3), (-3, 0, 3)):
    row("sequence.slice/%d:%d" % (begin, end), seq("slice", begin, end), S(2), least=least)
row("sequence.slice/matrix", seq("slice", 1, 3), S(2, 3), least=3)
row("sequence.slice/of_slice", lambda C, x: C.sequence.slice(C.sequence.slice(x, 1, 4), 1, 3), S(2), least=4)
row("sequence.slice/sum_of_equal", lambda C, x, y: C.sequence.slice(x, 0, 2) + C.sequence.slice(y, 0, 2), S(2), S(2), least=2)
row("sequence.slice/delay", lambda C, x: C.sequence.past_value(C.sequence.slice(x, 1, 0)), S(2), least=2)
row("sequence.slice/reduce", lambda C, x: C.sequence.reduce_sum(C.sequence.slice(x, 1, 0)), S(2), least=2)
row("sequence.slice/sparse", lambda C, x, w: C.times(C.sequence.slice(x, 0, 2), w), S(4, domain="onehot", sparse=True), W(4, 2), least=2)

PICKS = S(1, domain="picks")
row("sequence.where", seq("where"), PICKS, diff=False)
row("sequence.where/scalar", seq("where"), S(domain="picks"), diff=False)
row("sequence.where/counts", seq("where"), S(1, domain="counts"), diff=False)
row("sequence.where/fraction", lambda C, x: C.sequence.where(C.sequence.broadcast_as(1.25, x)), S(2), diff=False, least=2)
row("sequence.where/is_last", lambda C, x: C.sequence.where(C.sequence.is_last(x)), S(2), diff=False)
row("sequence.gather", seq("gather"), S(3), PICKS)
row("sequence.gather/scalar_condition", seq("gather"), S(3), S(domain="picks"))
row("sequence.gather/scalar", seq("gather"), S(), S(domain="picks"))
row("sequence.gather/matrix", seq("gather"), S(2, 3), PICKS)
row("sequence.gather/counts", seq("gather"), S(3), S(1, domain="counts"))
row("sequence.gather/computed", lambda C, x: (lambda s: C.sequence.gather(x, C.greater_equal(s, C.sequence.broadcast_as(C.sequence.reduce_max(s), x) - 1.5)))(C.reduce_sum(x)), S(2))
row("sequence.gather/first", lambda C, x: C.sequence.gather(x, C.sequence.is_first(x)), S(3))
row("sequence.gather/not_first", lambda C, x: C.sequence.gather(x, 1 - C.sequence.is_first(x)), S(3), least=2)
row("sequence.gather/two_by_one", lambda C, x, y, c: C.sequence.gather(x, c) * C.sequence.gather(y, c), S(3), S(3), PICKS)
row("sequence.gather/twice", lambda C, x, c: C.sequence.gather(C.sequence.gather(x, c), C.sequence.is_last(C.sequence.gather(x, c))), S(3), PICKS)
row("sequence.gather/delay", lambda C, x, c: C.sequence.past_value(C.sequence.gather(x, c)), S(3), PICKS)
row("sequence.gather/softmax", lambda C, x, c: C.sequence.softmax(C.sequence.gather(x, c)), S(3), PICKS)
row("sequence.gather/reduce", lambda C, x, c: C.sequence.reduce_sum(C.sequence.gather(x, c)), S(3), PICKS)
row("sequence.gather/dense", lambda C, x, c, w: C.tanh(C.times(C.sequence.gather(C.times(x, w), c), w)), S(3), PICKS, W(3, 3))
row("sequence.gather/typeinfo_one", lambda C, x, b: C.sequence.gather(x, C.sequence.is_last(x), new_sequence_axis_typeinfo=(0, 1)) * b, S(3), B(3))
row("sequence.gather/typeinfo_all", lambda C, x, c: C.sequence.gather(x, C.greater(c, -1), new_sequence_axis_typeinfo=(1, 0)) * x, S(3), PICKS)
row("sequence.scatter/typeinfo", lambda C, x: C.sequence.scatter(C.sequence.first(x), C.sequence.is_last(x), new_sequence_axis_typeinfo=(1, 0)) + x, S(3))
row("sequence.gather/sparse", lambda C, x, c, w: C.times(C.sequence.gather(x, c), w), S(4, domain="onehot", sparse=True), PICKS, W(4, 2))
row("sequence.scatter/last_to_first", lambda C, x: C.sequence.scatter(C.sequence.last(x), C.sequence.is_first(x)), S(3))
row("sequence.scatter/of_gather", lambda C, x, c: C.sequence.scatter(C.sequence.gather(x, c), c), S(3), PICKS)
row("sequence.scatter/of_gather_scalar", lambda C, x, c: C.sequence.scatter(C.sequence.gather(x, c), c), S(), S(domain="picks"))
row("sequence.scatter/squares", lambda C, x, c: x + C.sequence.scatter(C.square(C.sequence.gather(x, c)), c), S(2, 3), PICKS)
row("sequence.scatter/sums", lambda C, x: C.sequence.scatter(C.sequence.reduce_sum(x), C.sequence.is_last(x)), S(3))

# -------------------------------------------------------------------------------------------------------- between row spaces
family("between")
row("sequence.broadcast_as", seq("broadcast_as"), B(3), S(2))
row("sequence.broadcast_as/scalar", seq("broadcast_as"), B(), S(2))
row("sequence.broadcast_as/matrix", seq("broadcast_as"), B(2, 3), S(2))
row("sequence.broadcast_as/number", lambda C, x: C.sequence.broadcast_as(1.5, x), S(2), diff=False)
row("sequence.broadcast_as/parameter", lambda C, x, w: C.sequence.broadcast_as(w, x) * x, S(3), W(3))
row("sequence.broadcast_as/last", lambda C, x: C.sequence.broadcast_as(C.sequence.last(x), x) * x, S(3))
row("sequence.broadcast_as/other", lambda C, x, y: C.sequence.broadcast_as(C.sequence.reduce_sum(x), y) - y, S(3), S(3, axis="m"))
row("sequence.broadcast_as/both_ways", lambda C, x, y: C.sequence.reduce_sum(C.sequence.broadcast_as(C.sequence.last(x), y) * y) * C.sequence.first(x), S(3), S(3, axis="m"))
row("sequence.broadcast_as/picked", lambda C, x, b, c: C.sequence.broadcast_as(b, C.sequence.gather(x, c)) * C.sequence.gather(x, c), S(3), B(3), PICKS)
row("sequence.unpack", lambda C, x: C.sequence.unpack(x, 0).outputs, S(3), of=[0])
row("sequence.unpack/padding", lambda C, x: C.sequence.unpack(x, -7.5).outputs, S(3), of=[0])
row("sequence.unpack/matrix", lambda C, x: C.sequence.unpack(x, 0).outputs, S(2, 3), of=[0])
row("sequence.unpack/scalar", lambda C, x: C.sequence.unpack(x, 0).outputs, S(), of=[0])
row("sequence.unpack/no_mask", seq("unpack", 0, True), S(3))
row("sequence.unpack/no_mask_padding", seq("unpack", 2, no_mask_output=True), S(3))
row("sequence.unpack/reduce", lambda C, x: C.reduce_sum(C.square(C.sequence.unpack(x, 0, True)), axis=0), S(3))
row("sequence.unpack/times", lambda C, x, w: C.times(C.sequence.unpack(x, 0, True), w), S(3), W(3, 2))
row("sequence.unpack/picked", lambda C, x, c: C.sequence.unpack(C.sequence.gather(x, c), 0, True), S(3), PICKS)
row("sequence.unpack/softmax_of_scalars", lambda C, x: C.softmax(C.sequence.unpack(x, -1e3, True), axis=0), S())
row("to_sequence", lambda C, x: C.to_sequence(x), B(4, 3))
row("to_sequence/lengths", lambda C, x, n: C.to_sequence(x, n), B(4, 3), B(value=[2, 4, 1, 3], grad=False), only=("ragged",))
row("to_sequence/lengths_column", lambda C, x, n: C.to_sequence(x, n), B(4, 3), B(1, value=[[2], [4], [1], [3]], grad=False), only=("ragged",))
row("to_sequence/delay", lambda C, x: C.sequence.past_value(C.to_sequence(x)), B(4, 3))
row("to_sequence/reduce", lambda C, x, n: C.sequence.reduce_sum(C.to_sequence(x, n)), B(4, 3), B(value=[2, 4, 1, 3], grad=False), only=("ragged",))
row("to_sequence/of_unpack", lambda C, x: C.to_sequence(C.sequence.unpack(x, 0, True), C.stop_gradient(C.sequence.reduce_sum(C.sequence.broadcast_as(1, x)))), S(3))
row("to_sequence/prefix", lambda C, x: C.to_sequence(x, sequence_axis_name_prefix="steps_"), B(4, 3))
row("to_sequence_like", lambda C, x: C.to_sequence_like(C.square(C.sequence.unpack(x, 0, True)), x), S(3))
row("to_sequence_like/matrix", lambda C, x: C.to_sequence_like(C.square(C.sequence.unpack(x, 0, True)), x), S(2, 3))
row("to_sequence_like/plus", lambda C, x: C.to_sequence_like(C.cos(C.sequence.unpack(x, 5, True)), x) + x, S(3))
row("to_sequence_like/batch_input", lambda C, x, y: C.to_sequence_like(y, x) * x, S(3), B(5, 3), only=("ragged",))
row("reconcile_dynamic_axes/twins", lambda C, x, y: x * C.reconcile_dynamic_axes(y, x), S(3), S(3, axis="twin"))
row("reconcile_dynamic_axes/picked", lambda C, x, c: C.reconcile_dynamic_axes(C.sequence.gather(x, C.greater(c, -1)), x) + x, S(3), PICKS)
row("reconcile_dynamic_axes/batch", lambda C, b, x: C.reconcile_dynamic_axes(b, x), B(3), S(3))
row("unpack_batch", lambda C, x: C.unpack_batch(x) * 2, B(3))
row("unpack_batch/to_batch", lambda C, x: C.to_batch(C.unpack_batch(x) * 2), B(3))
row("unpack_batch/reduce", lambda C, x: C.reduce_sum(C.square(C.unpack_batch(x)), axis=0), B(3))
row("to_batch/constant", lambda C, w: C.to_batch(w * 2), W(4, 3))

BETWEEN = {"plus": "any", "minus": "any", "element_times": "any", "element_divide": "nonzero", "element_max": "distinct", "log_add_exp": "any"}
for op, domain in sorted(BETWEEN.items()):
    # CNTK refuses some: there the batch value is broadcast by hand
    row(op + "/sequence_batch", lambda C, x, y, op=op: getattr(C, op)(x, y), S(3), B(3, domain=domain), cntk=lambda C, x, y, op=op: getattr(C, op)(x, C.sequence.broadcast_as(y, x)))
    row(op + "/batch_sequence", lambda C, x, y, op=op: getattr(C, op)(y, x), S(3, domain=domain), B(3), cntk=lambda C, x, y, op=op: getattr(C, op)(C.sequence.broadcast_as(y, x), x))
row("plus/sequence_scalar_batch", lambda C, x, y: x + y, S(2, 3), B())
row("plus/sequence_row_batch", lambda C, x, y: x + y, S(2, 3), B(3))
row("plus/sequence_wider_batch", lambda C, x, y: x + y, S(3), B(2, 3))
row("plus/sequence_parameter", lambda C, x, w: x + w, S(2, 3), W(3))
row("plus/minus_mean", lambda C, x: x - C.sequence.reduce_sum(x) / C.sequence.reduce_sum(C.sequence.broadcast_as(1, x)), S(3))
row("plus/minus_last", lambda C, x: x - C.sequence.last(x), S(3))
row("plus/two_axes", lambda C, x, y: C.sequence.reduce_sum(x) + C.sequence.reduce_max(y), S(3), S(3, axis="m"))
row("plus/three_spaces", lambda C, x, y, b: (x + b) * C.sequence.broadcast_as(C.sequence.last(y * b), x), S(3), S(3, axis="m"), B(3))
row("element_select/batch_flag", lambda C, f, x, y: C.element_select(f, x, y), B(1, domain="binary"), S(3), S(3), cntk=lambda C, f, x, y: C.element_select(C.sequence.broadcast_as(f, x), x, y))
row("element_select/sequence_flag", lambda C, f, x, y: C.element_select(f, x, y), S(1, domain="binary"), S(3), S(3))
row("equal/sequence_batch", lambda C, x, y: C.equal(x, y), S(3, domain="whole:2", grad=False), B(3, domain="whole:2", grad=False), diff=False)
row("greater/sequence_batch", lambda C, x, y: C.greater(x, y), S(3), B(3), diff=False)
row("splice/sequence_sequence", lambda C, x, y: C.splice(x, y), S(2), S(3))
row("splice/sequence_batch", lambda C, x, y: C.splice(x, C.sequence.broadcast_as(y, x)), S(2), B(3))
row("splice/sequence_batch_bare", lambda C, x, y: C.splice(x, y), S(2), B(3), cntk=lambda C, x, y: C.splice(x, C.sequence.broadcast_as(y, x)))
row("times/sequence_parameter", lambda C, x, w: C.times(x, w), S(3), W(3, 2))
row("times/sequence_matrix_batch", lambda C, x, y: C.times(x, C.sequence.broadcast_as(y, x)), S(3), B(3, 2))
row("times/sequence_batch_bare", lambda C, x, y: C.times(x, y), S(3), B(3, 2))
row("times/sequences", lambda C, x, y: C.times(x, y), S(2, 3), S(3, 2))
row("times/sparse", lambda C, x, w: C.times(x, w), S(5, domain="onehot", sparse=True), W(5, 3))
row("times/sparse_counts", lambda C, x, w: C.times(x, w), S(5, domain="counts", sparse=True), W(5, 3))
row("times/sparse_reduce", lambda C, x, w: C.sequence.reduce_sum(C.times(x, w)), S(5, domain="counts", sparse=True), W(5, 3))
row("times/sparse_wide", lambda C, x, w: C.tanh(C.times(x, w)), S(50, domain="onehot", sparse=True), W(50, 2))
row("layers.Embedding/sparse", layer(lambda L: L.Embedding(3)), S(6, domain="onehot", sparse=True))
row("layers.Embedding/dense", layer(lambda L: L.Embedding(3)), S(6, domain="onehot"))
row("layers.Dense/sequence", lambda C, x: C.layers.Dense(2, activation=C.tanh)(x), S(3))
row("layers.LayerNormalization/sequence", lambda C, x: C.layers.LayerNormalization()(x), S(4), rtol=3e-5)
row("layers.Convolution/sequence_of_images", lambda C, x: C.layers.Convolution((2, 2), 2, pad=True)(x), S(1, 3, 3))
row("layers.MaxPooling/sequence_of_images", lambda C, x: C.layers.MaxPooling((2, 2), strides=2)(x), S(1, 4, 4, domain="distinct"))
row("softmax/sequence", lambda C, x: C.softmax(x), S(4))
row("hardmax/sequence", lambda C, x: C.hardmax(x), S(4, domain="distinct"), diff=False)
row("reshape/sequence", lambda C, x: C.reshape(x, (3, 2)), S(2, 3))
row("transpose/sequence", lambda C, x: C.transpose(x, (1, 0)), S(2, 3))
row("slice/sequence", lambda C, x: C.slice(x, -1, 1, 3), S(4))
row("one_hot/sequence", lambda C, x: C.one_hot(x, 3), S(domain="whole:3", grad=False), diff=False)
row("gather/sequence", lambda C, w, x: C.gather(w, x), W(4, 2), S(1, domain="whole:4", grad=False))

# --------------------------------------------------------------------------------------------------------------- reductions
family("reduce")
for op, domain in (("reduce_sum", "any"), ("reduce_max", "distinct"), ("softmax", "any")):
    row("sequence." + op, seq(op), S(3, domain=domain))
    row("sequence." + op + "/scalar", seq(op), S(domain=domain))
    row("sequence." + op + "/matrix", seq(op), S(2, 3, domain=domain))
    row("sequence." + op + "/of_square", lambda C, x, op=op: getattr(C.sequence, op)(C.square(x)), S(3, domain=domain))
row("sequence.reduce_max/negative", lambda C, x: C.sequence.reduce_max(x - 40), S(3, domain="distinct"))
row("sequence.reduce_max/ties", lambda C, x: C.sequence.reduce_max(x), S(3, domain="whole:2"))
row("sequence.reduce_sum/mean", lambda C, x: C.sequence.reduce_sum(x) / C.sequence.reduce_sum(C.sequence.broadcast_as(1, x)), S(3))
row("sequence.reduce_sum/weighted", lambda C, x, a: C.sequence.reduce_sum(x * C.sequence.softmax(a)), S(3), S(1))
row("sequence.softmax/wide", seq("softmax"), S(3, domain="wide"))
row("sequence.softmax/then_last", lambda C, x: C.sequence.last(C.sequence.softmax(x)), S(3))
for op, domain in (("reduce_sum", "any"), ("reduce_mean", "any"), ("reduce_max", "distinct"), ("reduce_min", "distinct"), ("reduce_log_sum_exp", "any"), ("reduce_prod", "nonzero")):
    for word, axis in (("all", "all_axes"), ("static", "all_static_axes")):
        row("%s/%s" % (op, word), lambda C, x, op=op, axis=axis: getattr(C, op)(x, axis=getattr(C.Axis, axis)()), S(2, domain=domain))
    row("%s/last_axis" % op, lambda C, x, op=op: getattr(C, op)(x, axis=-1), S(2, 3, domain=domain))
row("times/over_steps", lambda C, x, y: C.times(x, y, infer_input_rank_to_map=C.ops.TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK), S(1), S(3), cntk=lambda C, x, y: C.sequence.reduce_sum(C.times(x, y)))
row("times/over_steps_outer", lambda C, x, y: C.times(x, y, infer_input_rank_to_map=C.ops.TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK), S(2), S(3), cntk=lambda C, x, y: C.sequence.reduce_sum(C.times(x, y)))
row("top_k/steps", lambda C, x: C.top_k(x, 2), S(4, domain="distinct"), of=(0,))
row("gather/steps", lambda C, i, w: C.gather(w, i), S(2, domain="whole:4", grad=False), W(4, 3))
row("gather/steps_axis", lambda C, i, w: C.gather(w, i, axis=1), S(2, domain="whole:3", grad=False), W(4, 3))
row("mean_variance_normalization/steps", lambda C, x: C.mean_variance_normalization(x), S(2, 3))
row("depth_to_space/steps", lambda C, x: C.depth_to_space(x, 2), S(4, 1, 2))
STEPS = {  # what CNTK does by another name
    "reduce_sum": lambda C, x: C.sequence.reduce_sum(x),
    "reduce_mean": lambda C, x: C.sequence.reduce_sum(x) / C.sequence.reduce_sum(C.sequence.broadcast_as(1, x)),
    "reduce_max": lambda C, x: C.sequence.reduce_max(x),
    "reduce_min": lambda C, x: 0 - C.sequence.reduce_max(0 - x),
}
for op, other in sorted(STEPS.items()):
    row("%s/steps" % op, lambda C, x, op=op: getattr(C, op)(x, axis=C.Axis.default_dynamic_axis()), S(2, domain="any" if op == "reduce_sum" else "distinct"), cntk=other)
row("reduce_sum/batch_of_batch", lambda C, x: C.reduce_sum(C.sequence.last(x), axis=C.Axis.default_batch_axis()), S(3))
row("reduce_mean/all_of_last", lambda C, x: C.reduce_mean(C.sequence.last(x), axis=C.Axis.all_axes()), S(3))
row("reduce_sum/all_picked", lambda C, x, c: C.reduce_sum(C.sequence.gather(x, c), axis=C.Axis.all_axes()), S(3), PICKS)
row("argmax/sequence", lambda C, x: C.argmax(x, axis=-1), S(4, domain="distinct"), diff=False)
row("top_k/sequence", lambda C, x: C.top_k(x, 2).outputs, S(4, domain="distinct"), diff=False)


# -------------------------------------------------------------------------------------------------------------------- loops
def loop(step, *states, **options):
    """A recurrence written by hand: step(C, delayed states, operands) gives the new states, and what to look at when that is more.

    states: for each state, how it is delayed: C, placeholder, operands -> delayed value.  shape: of the states, where it must be said.
    """

    def build(C, *operands):
        holders = [C.placeholder(name="state%d" % i, **options) for i in range(len(states))]
        new = step(C, [delay(C, p, operands) for delay, p in zip(states, holders)], operands)
        new, seen = new if isinstance(new, tuple) else (new, new)
        each = {s.uid: s for s in list(new) + list(seen)}
        C.combine(list(each.values())).replace_placeholders({p: s.output for p, s in zip(holders, new)})
        return C.combine(list({s.uid: s for s in seen}.values()))

    return build


def past(start=None, n=1):
    """Delays a state; start: a number, or the index of the operand that is the initial state as a word 'o1'."""
    return lambda C, p, o: C.sequence.past_value(p, o[int(start[1:])] if isinstance(start, str) else start, n)


def ahead(start=None, n=1):
    return lambda C, p, o: C.sequence.future_value(p, o[int(start[1:])] if isinstance(start, str) else start, n)


def simple(C, h, o):
    """tanh(x W + h R)"""
    return [C.tanh(C.times(o[0], o[1]) + C.times(h[0], o[2]))]


family("loop")
XWR = (S(3), W(3, 2), W(2, 2, domain="unit"))
for word, way in (("past_value", past), ("future_value", ahead)):
    name = "sequence.%s/loop" % word
    row(name, loop(simple, way()), *XWR)
    row(name + "_number", loop(simple, way(0.5)), *XWR)
    row(name + "_array", loop(simple, way("o3")), *(XWR + (K(2),)))
    row(name + "_parameter", loop(simple, way("o3")), *(XWR + (W(2),)))
    row(name + "_batch", loop(simple, way("o3")), *(XWR + (B(2),)))
    row(name + "_step2", loop(simple, way(None, 2)), *XWR)
    row(name + "_step3_array", loop(simple, way("o3", 3)), *(XWR + (K(2),)))
    row(name + "_sum", loop(lambda C, h, o: [h[0] + o[0]], way()), S(3))
    row(name + "_scalar", loop(lambda C, h, o: [0.5 * h[0] + o[0]], way(1.0)), S())
    row(name + "_max", loop(lambda C, h, o: [C.element_max(h[0], o[0])], way(-100)), S(3, domain="distinct"))
LOOP = "sequence.past_value/loop_"
row(LOOP + "count", loop(lambda C, h, o: [h[0] + C.sequence.broadcast_as(1, o[0])], past()), S(2), diff=False)
row(LOOP + "last", lambda C, *o: C.sequence.last(loop(simple, past())(C, *o)), *XWR)
row(LOOP + "last_dense", lambda C, x, w, r, v: C.times(C.sequence.last(loop(simple, past())(C, x, w, r)), v), *(XWR + (W(2, 3),)))
row(LOOP + "matrix_state", loop(lambda C, h, o: [C.tanh(o[0] + C.times(h[0], o[1]))], past()), S(2, 3), W(3, 3, domain="unit"))
row(LOOP + "elementwise", loop(lambda C, h, o: [C.sigmoid(o[0] * o[1] + h[0] * o[2])], past()), S(3), W(3), W(3))
row(LOOP + "broadcast_state", loop(lambda C, h, o: [C.tanh(o[0] + h[0] * o[1])], past()), S(2, 3), W(2, 1))
row(LOOP + "batch_operand", loop(lambda C, h, o: [C.tanh(C.times(h[0], o[1]) + o[0] + C.sequence.broadcast_as(o[2], o[0]))], past()), S(2), W(2, 2, domain="unit"), B(2))
row(LOOP + "batch_operand_bare", loop(lambda C, h, o: [C.tanh(C.times(h[0], o[1]) + o[0] + o[2])], past()), S(2), W(2, 2, domain="unit"), B(2))
row(LOOP + "matrix_input", loop(lambda C, h, o: [C.tanh(C.times(h[0], o[0]))], past("o1")), S(2, 2, domain="unit"), K(2))
row(LOOP + "two_states", loop(lambda C, h, o: [C.tanh(C.times(h[1], o[1]) + o[0]), C.sigmoid(C.times(h[0], o[2]) + o[0])], past(), past(0.25)), S(2), W(2, 2, domain="unit"), W(2, 2, domain="unit"))
row(LOOP + "two_shapes", loop(lambda C, h, o: [C.tanh(C.times(h[1], o[1]) + o[0]), C.sigmoid(C.times(h[0], o[2]))], past(), past()), S(2), W(3, 2), W(2, 3))
row(LOOP + "stacked_inside", loop(lambda C, h, o: (lambda a: [a, C.tanh(C.times(a, o[2]) + 0.5 * h[1])])(C.tanh(C.times(h[1], o[1]) + h[0] * 0.25 + o[0])), past(), past()), S(2), W(3, 2, domain="unit"), W(2, 3))
row(LOOP + "two_delays", loop(lambda C, h, o: [C.tanh(o[0] + 0.5 * h[0] - 0.25 * h[1])][:1] * 2, past(), past(None, 2)), S(2))
row(LOOP + "lstm", loop(lambda C, h, o: (lambda g: (lambda c: [C.sigmoid(C.slice(g, -1, 6, 8)) * C.tanh(c), c])(C.sigmoid(C.slice(g, -1, 2, 4)) * h[1] + C.sigmoid(C.slice(g, -1, 0, 2)) * C.tanh(C.slice(g, -1, 4, 6))))(C.times(o[0], o[1]) + C.times(h[0], o[2]) + o[3]), past(), past()), S(3), W(3, 8), W(2, 8), W(8))
row(LOOP + "layers", lambda C, x: loop(lambda C, h, o: [C.layers.Dense(3, activation=C.tanh)(C.splice(o[0], h[0]))], past())(C, x), S(2))
row(LOOP + "dense_normalised", lambda C, x: loop(lambda C, h, o: [C.tanh(C.layers.LayerNormalization()(C.layers.Dense(3)(o[0]) + C.layers.Dense(3, bias=False)(C.layers.Stabilizer()(h[0]))))], past())(C, x), S(2), rtol=1e-4, uses=("layers.Stabilizer",))
row(LOOP + "convolution", loop(lambda C, h, o: [C.tanh(o[0] + C.convolution(o[1], h[0], auto_padding=[False, True, True]))], past("o2")), S(2, 3, 3), W(2, 2, 3, 3, domain="unit"), K(2, 3, 3), rtol=1e-4)
row(LOOP + "convolution_of_input", loop(lambda C, h, o: [C.tanh(C.convolution(o[1], o[0], auto_padding=[False, True, True]) + 0.5 * C.convolution(o[2], h[0], auto_padding=[False, True, True]))], past("o3")), S(1, 3, 3), W(2, 1, 3, 3), W(2, 2, 2, 2, domain="unit"), K(2, 3, 3))
row(LOOP + "pooling", loop(lambda C, h, o: [o[0] + C.tanh(C.pooling(h[0], C.AVG_POOLING, (3, 3), (1, 1), auto_padding=[False, True, True]))], past("o1")), S(1, 3, 3), K(1, 3, 3))
row(LOOP + "softmax", loop(lambda C, h, o: [C.softmax(o[0] + C.times(h[0], o[1]))], past()), S(3), W(3, 3))
row(LOOP + "memory", loop(lambda C, h, o: [C.tanh(o[0] + C.times(C.softmax(C.times(h[0], C.transpose(o[1], (1, 0)))), o[1]))], past()), S(2), W(3, 2))
row(LOOP + "reduce", loop(lambda C, h, o: [C.tanh(o[0] - C.reduce_mean(h[0], axis=-1))], past()), S(3))
row(LOOP + "hold", loop(lambda C, h, o: [C.element_select(o[1], o[0], h[0])], past()), S(3), S(1, domain="binary"))
row(LOOP + "reset", loop(lambda C, h, o: [C.element_select(o[1], o[0], o[0] + 0.5 * h[0])], past()), S(3), S(1, domain="binary"))
row(LOOP + "is_first", loop(lambda C, h, o: [C.element_select(C.sequence.is_first(o[0]), o[0], o[0] * h[0])], past()), S(3))
row(LOOP + "output_aside", loop(lambda C, h, o: (lambda s: ([s], [C.times(s, o[3]) + o[0]]))(C.tanh(C.times(o[0], o[1]) + C.times(h[0], o[2]))), past()), S(3), W(3, 2), W(2, 2, domain="unit"), W(2, 3))
row(LOOP + "stopped", loop(lambda C, h, o: [C.tanh(C.times(o[0], o[1]) + C.times(C.stop_gradient(h[0]), o[2]))], past()), *XWR)
row(LOOP + "shared_twice", lambda C, x, w, r: C.times(loop(simple, past())(C, x, w, r), r) + loop(simple, past(0.5))(C, x, w, r), *XWR)
row(LOOP + "of_loop", lambda C, x, w, r, v: loop(simple, past())(C, loop(simple, past())(C, x, w, r), v, r), *(XWR + (W(2, 2),)))
row(LOOP + "both_ways", lambda C, x, w, r, v: C.splice(loop(simple, past())(C, x, w, r), loop(simple, ahead())(C, x, w, v)), *(XWR + (W(2, 2, domain="unit"),)))
row(LOOP + "ahead_of_past", lambda C, x, w, r, v: loop(simple, ahead())(C, loop(simple, past())(C, x, w, r), v, r), *(XWR + (W(2, 2),)))
row(LOOP + "picked", lambda C, x, w, r, c: loop(simple, past())(C, C.sequence.gather(x, c), w, r), *(XWR + (PICKS,)))
row(LOOP + "second_axis", lambda C, x, w, r, y: loop(simple, past("o3"))(C, y, w, r, C.sequence.last(loop(simple, past())(C, x, w, r))), *(XWR + (S(3, axis="m"),)))
row(LOOP + "sparse", lambda C, x, w, r: loop(simple, past())(C, x, w, r), S(5, domain="onehot", sparse=True), W(5, 2), W(2, 2, domain="unit"))
row(LOOP + "delayed_input", loop(lambda C, h, o: [C.tanh(C.times(o[0] + C.sequence.past_value(o[0], 0.5), o[1]) + C.times(h[0], o[2]))], past()), *XWR)
row(LOOP + "future_input", loop(lambda C, h, o: [C.tanh(C.times(C.sequence.future_value(o[0]), o[1]) + C.times(h[0], o[2]))], past()), *XWR)
row(LOOP + "product", loop(lambda C, h, o: [h[0] * (1 + 0.125 * o[0])], past(1.0)), S(2, domain="unit"))
row(LOOP + "splice", loop(lambda C, h, o: [C.tanh(C.times(C.splice(o[0], h[0]), o[1]))], past(), shape=(3,)), S(2), W(5, 3, domain="unit"))
row(LOOP + "transposed", loop(lambda C, h, o: [C.tanh(o[0] + C.times_transpose(h[0], o[1]))], past()), S(2), W(2, 2, domain="unit"))
row(LOOP + "cross_entropy", lambda C, x, w, r, t: C.cross_entropy_with_softmax(loop(simple, past())(C, x, w, r), t), *(XWR + (S(2, domain="onehot"),)), plain=True)

# ------------------------------------------------------------------------------------------------------------------- layers
family("layer")
CELLS = {"RNNStep": {}, "RNNUnit": {}, "GRU": {}, "LSTM": {}}


def recurrent(cell, shape, over=None, **options):
    """Recurrence(cell(shape, **options), **over)."""
    return lambda C, x, *start: C.layers.Recurrence(getattr(C.layers, cell)(shape, **{k: getattr(C, v) if isinstance(v, str) else v for k, v in options.items()}), **dict(over or {}, **({"initial_state": start if len(start) > 1 else start[0]} if start else {})))(x)


for cell in ("RNNStep", "RNNUnit", "GRU", "LSTM"):
    used = dict(uses=("layers." + cell,))
    name = "layers.Recurrence/" + cell
    if cell == "RNNUnit":  # CNTK's own stumbles over a missing import; it is RNNStep
        row(name, recurrent(cell, 3), S(2), cntk=recurrent("RNNStep", 3), **used)
        continue
    row(name, recurrent(cell, 3), S(2), **used)
    row(name + "_back", recurrent(cell, 3, dict(go_backwards=True)), S(2), **used)
    row(name + "_relu", recurrent(cell, 3, activation="relu"), S(2), only=("ragged", "equal", "ones") if cell == "RNNStep" else None, **used)
    row(name + "_number", recurrent(cell, 3, dict(initial_state=0.5)), S(2), **used)
    if cell != "GRU":  # CNTK's shapes do not fit
        row(name + "_projected", recurrent(cell, 3, cell_shape=4), S(2), **used)
        row(name + "_stable_projected_back", recurrent(cell, 3, dict(go_backwards=True), cell_shape=4, enable_self_stabilization=True), S(2), rtol=5e-5, **used)
    row(name + "_stable", recurrent(cell, 3, enable_self_stabilization=True), S(2), rtol=5e-5, **used)
    row(name + "_one", recurrent(cell, 1), S(1), **used)
    row(name + "_sparse", recurrent(cell, 2), S(5, domain="onehot", sparse=True), **used)
    row(name + "_last", lambda C, x, cell=cell: C.sequence.last(recurrent(cell, 3)(C, x)), S(2), **used)
    row("layers.Fold/" + cell, lambda C, x, cell=cell: C.layers.Fold(getattr(C.layers, cell)(3))(x), S(2), **used)
    row("layers.Fold/" + cell + "_back", lambda C, x, cell=cell: C.layers.Fold(getattr(C.layers, cell)(3), go_backwards=True)(x), S(2), **used)
for cell in ("RNNStep", "GRU"):
    row("layers.Recurrence/" + cell + "_array", recurrent(cell, 3), S(2), K(3), uses=("layers." + cell,))
    row("layers.Recurrence/" + cell + "_parameter", recurrent(cell, 3), S(2), W(3), uses=("layers." + cell,))
    row("layers.RecurrenceFrom/" + cell, lambda C, x, h, cell=cell: C.layers.RecurrenceFrom(getattr(C.layers, cell)(3))(h, x), S(2), B(3), uses=("layers." + cell,))
    row("layers.RecurrenceFrom/" + cell + "_back", lambda C, x, h, cell=cell: C.layers.RecurrenceFrom(getattr(C.layers, cell)(3), go_backwards=True)(h, x), S(2), B(3), uses=("layers." + cell,))
used = dict(uses=("layers.LSTM",))
name = "layers.Recurrence/LSTM"
row(name + "_array", recurrent("LSTM", 3), S(2), K(3), **used)
row(name + "_arrays", recurrent("LSTM", 3), S(2), K(3), K(3), **used)
row(name + "_parameters", recurrent("LSTM", 3), S(2), W(3), W(3), **used)
row(name + "_peepholes", recurrent("LSTM", 3, use_peepholes=True), S(2), **used)
row(name + "_peepholes_projected", recurrent("LSTM", 3, use_peepholes=True, cell_shape=4), S(2), **used)
row(name + "_peepholes_stable", recurrent("LSTM", 3, use_peepholes=True, enable_self_stabilization=True), S(2), rtol=5e-5, **used)
row(name + "_everything", recurrent("LSTM", 3, dict(go_backwards=True, initial_state=0.25), use_peepholes=True, enable_self_stabilization=True, cell_shape=4), S(2), rtol=5e-5, **used)
row(name + "_full", lambda C, x: C.layers.Recurrence(C.layers.LSTM(3), return_full_state=True)(x).outputs, S(2), **used)
row(name + "_full_projected_back", lambda C, x: C.layers.Recurrence(C.layers.LSTM(3, cell_shape=4), go_backwards=True, return_full_state=True)(x).outputs, S(2), **used)
row("layers.Fold/LSTM_full", lambda C, x: C.layers.Fold(C.layers.LSTM(3), return_full_state=True)(x).outputs, S(2), **used)
row("layers.Fold/LSTM_number", lambda C, x: C.layers.Fold(C.layers.LSTM(3), initial_state=0.5)(x), S(2), **used)
row("layers.Fold/plus", lambda C, x: C.layers.Fold(C.plus)(x), S(3))
row("layers.Fold/element_max", lambda C, x: C.layers.Fold(C.element_max, initial_state=-50)(x), S(3, domain="distinct"))
row("layers.RecurrenceFrom/LSTM", lambda C, x, h, c: C.layers.RecurrenceFrom(C.layers.LSTM(3))(h, c, x), S(2), B(3), B(3), **used)
row("layers.RecurrenceFrom/LSTM_full", lambda C, x, h, c: C.layers.RecurrenceFrom(C.layers.LSTM(3), return_full_state=True)(h, c, x).outputs, S(2), B(3), B(3), **used)
row("layers.RecurrenceFrom/LSTM_back", lambda C, x, h, c: C.layers.RecurrenceFrom(C.layers.LSTM(3), go_backwards=True)(h, c, x), S(2), B(3), B(3), **used)
row("layers.RecurrenceFrom/constants", lambda C, x, h, c: C.layers.RecurrenceFrom(C.layers.LSTM(3))(h, c, x), S(2), K(3), K(3), **used)
row("layers.RecurrenceFrom/sequence_state", lambda C, x, h: C.layers.RecurrenceFrom(C.layers.GRU(3))(h, x), S(2), S(3, axis="m"), uses=("layers.GRU",))
row("layers.Recurrence/plus", lambda C, x: C.layers.Recurrence(C.plus)(x), S(3))
row("layers.Recurrence/plus_array", lambda C, x, k: C.layers.Recurrence(C.plus, initial_state=k)(x), S(2), K(2))
row("layers.Recurrence/python_step", lambda C, x: C.layers.Recurrence(lambda h, x: C.tanh(0.5 * h + x))(x), S(3))
row("layers.Recurrence/python_two_states", lambda C, x: C.layers.Recurrence(lambda a, b, x: (C.tanh(0.5 * b + x), C.sigmoid(a - x)), return_full_state=True)(x).outputs, S(3))
row("layers.Recurrence/cell_then_dense", lambda C, x: C.layers.Recurrence(C.layers.GRU(3) >> C.layers.Dense(3))(x), S(2), uses=("layers.GRU",))
row("layers.Sequential/two_lstms", lambda C, x: C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Recurrence(C.layers.LSTM(2)), C.layers.Dense(4)])(x), S(2), **used)
row("layers.Sequential/tagger", lambda C, x: C.layers.Sequential([C.layers.Embedding(2), C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Dense(4)])(x), S(6, domain="onehot", sparse=True), **used)
row("layers.Sequential/classifier", lambda C, x: C.layers.Sequential([C.layers.Embedding(2), C.layers.Fold(C.layers.LSTM(3)), C.layers.Dense(4)])(x), S(6, domain="onehot"), **used)
row("layers.Sequential/bidirectional", lambda C, x: C.layers.Sequential([(C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Recurrence(C.layers.LSTM(2), go_backwards=True)), C.splice])(x), S(2), **used)
row("layers.Sequential/two_bidirectional", lambda C, x: C.layers.Sequential([(C.layers.Recurrence(C.layers.GRU(3)), C.layers.Recurrence(C.layers.GRU(2), go_backwards=True)), C.splice, (C.layers.Recurrence(C.layers.GRU(4)), C.layers.Recurrence(C.layers.RNNStep(2), go_backwards=True)), C.splice])(x), S(2), uses=("layers.GRU", "layers.RNNStep"))
row("layers.Sequential/lookahead", lambda C, x: C.layers.Sequential([C.layers.Embedding(2), (lambda x: x, C.layers.Delay(-1)), C.splice, C.layers.Recurrence(C.layers.LSTM(3))])(x), S(6, domain="onehot"), uses=("layers.LSTM", "layers.Delay"))
row("layers.Sequential/stable", lambda C, x: C.layers.Sequential([C.layers.Stabilizer(), C.layers.Recurrence(C.layers.LSTM(3, enable_self_stabilization=True)), C.layers.Stabilizer(), C.layers.Dense(2)])(x), S(2), rtol=5e-5, uses=("layers.LSTM", "layers.Stabilizer"))
row("layers.Sequential/residual", lambda C, x: (lambda h: h + C.layers.Recurrence(C.layers.LSTM(3))(h))(C.layers.Recurrence(C.layers.GRU(3))(x)), S(2), uses=("layers.LSTM", "layers.GRU"))
row("layers.Sequential/normalised", lambda C, x: C.layers.Sequential([C.layers.Recurrence(C.layers.GRU(3)), C.layers.LayerNormalization(), C.layers.Dense(2)])(x), S(2), rtol=1e-4, uses=("layers.GRU",))
row("layers.For/lstms", lambda C, x: C.layers.For(range(3), lambda i: C.layers.Recurrence(C.layers.LSTM(2 + i)))(x), S(2), **used)
row("layers.For/repeat_lstm", lambda C, x: C.layers.For(range(2), lambda: C.layers.Recurrence(C.layers.RNNStep(3)))(x), S(2), uses=("layers.RNNStep",))
row("layers.Stabilizer", lambda C, x: C.layers.Stabilizer()(x), S(3))
row("layers.Stabilizer/steepness", lambda C, x: C.layers.Stabilizer(steepness=2)(x), S(3))
row("layers.Stabilizer/off", lambda C, x: C.square(C.layers.Stabilizer(enable_self_stabilization=False)(x)), S(3))
row("layers.UnfoldFrom", lambda C, h, x: C.layers.UnfoldFrom(lambda s: C.tanh(2 * s))(h, x), B(3), S(1), diff=False)
row("layers.UnfoldFrom/gradient", lambda C, h, x, w: C.layers.UnfoldFrom(C.layers.Dense(3, activation=C.tanh))(h, x), B(3), S(1), W(1))
row("layers.UnfoldFrom/constant", lambda C, x: C.layers.UnfoldFrom(lambda s: s * 2)(C.constant(1.0, dtype=x.dtype), x), S(1), diff=False, only=("ragged", "equal", "ones"))
row("layers.UnfoldFrom/two_outputs", lambda C, h, x: C.layers.UnfoldFrom(lambda s: (C.reduce_sum(s), C.tanh(2 * s)))(h, x), B(3), S(1), diff=False)
row("layers.UnfoldFrom/until", lambda C, h, x: C.layers.UnfoldFrom(lambda s: s + 0.25, until_predicate=lambda s: C.greater(C.reduce_max(s), 1.5))(h, x), B(2), S(1), diff=False)
row("layers.UnfoldFrom/twice_as_long", lambda C, h, x: C.layers.UnfoldFrom(lambda s: s * 0.5, length_increase=2)(h, x), B(2), S(1), diff=False)
row("layers.UnfoldFrom/half_longer", lambda C, h, x: C.layers.UnfoldFrom(lambda s: s * 0.5, length_increase=1.5)(h, x), B(2), S(1), diff=False, least=2)
row("layers.RecurrenceFrom/encoder_decoder", lambda C, x, y: (lambda e: C.layers.Dense(3)(C.layers.RecurrenceFrom(C.layers.LSTM(2))(C.sequence.last(e.outputs[0]), C.sequence.last(e.outputs[1]), C.sequence.past_value(y))))(C.layers.Recurrence(C.layers.LSTM(2), return_full_state=True)(x)), S(2), S(3, axis="m"), **used)
row("layers.AttentionModel", lambda C, e, d: C.layers.AttentionModel(3)(e, d), S(2, axis="m"), S(4), rtol=5e-5)
row("layers.AttentionModel/plain", lambda C, e, d: C.layers.AttentionModel(3, enable_self_stabilization=False)(e, d), S(2, axis="m"), S(4))
row("layers.AttentionModel/same_axis", lambda C, e, d: C.layers.AttentionModel(3, enable_self_stabilization=False)(e, d), S(2), S(4))
row("layers.AttentionModel/window", lambda C, e, d: C.layers.AttentionModel(3, 4, -3, enable_self_stabilization=False)(e, d), S(2, axis="m"), S(4))
row("layers.AttentionModel/window_back", lambda C, e, d: C.layers.AttentionModel(3, 4, -3, go_backwards=True, enable_self_stabilization=False)(e, d), S(2, axis="m"), S(4))
row("layers.AttentionModel/in_decoder", lambda C, e, d: (lambda a, g: C.Function(lambda e, d: C.layers.Recurrence(C.Function(lambda h, x: g(h, C.splice(x, a(e, h)))))(d))(e, d))(C.layers.AttentionModel(3, enable_self_stabilization=False), C.layers.GRU(4)), S(2, axis="m"), S(3), uses=("layers.Recurrence", "layers.GRU"))
row("sequence.softmax/attention_by_hand", lambda C, e, d: (lambda q: C.sequence.reduce_sum(C.sequence.softmax(C.reduce_sum(C.sequence.broadcast_as(q, e) * e, axis=-1)) * e))(C.sequence.last(d)), S(3, axis="m"), S(3))
for word, options in (
    ("pad", dict(pad=True)),
    ("no_pad", dict()),
    ("stride2", dict(pad=True, strides=2)),
    ("no_bias", dict(pad=True, bias=False)),
):
    row("layers.SequentialConvolution/1d_" + word, lambda C, x, options=options: C.layers.SequentialConvolution((3,), 2, **options)(x), S(3), least=3)  # CNTK refuses a sequence shorter than the kernel, also with padding
row("layers.SequentialConvolution/1d_even", lambda C, x: C.layers.SequentialConvolution((2,), 2, pad=True)(x), S(3), least=3)
row("layers.SequentialConvolution/1d_scalars", lambda C, x: C.layers.SequentialConvolution((3,), 2, reduction_rank=0, pad=True)(x), S(), least=3)
row("layers.SequentialConvolution/1d_one_map", lambda C, x: C.layers.SequentialConvolution((3,), pad=True)(x), S(3), least=3)
row("layers.SequentialConvolution/2d", lambda C, x: C.layers.SequentialConvolution((3, 2), 2, pad=True)(x), S(2, 4), least=3)
row("layers.SequentialConvolution/2d_no_pad", lambda C, x: C.layers.SequentialConvolution((3, 2), 2)(x), S(2, 4), least=3)
row("layers.SequentialConvolution/2d_stride", lambda C, x: C.layers.SequentialConvolution((3, 2), 2, strides=(2, 1), pad=(True, False))(x), S(2, 4), least=3)
row("layers.SequentialConvolution/2d_scalars", lambda C, x: C.layers.SequentialConvolution((2, 3), 2, reduction_rank=0, pad=True)(x), S(4), least=3)
row("layers.SequentialConvolution/then_lstm", lambda C, x: C.layers.Sequential([C.layers.SequentialConvolution((3,), 2, pad=True, activation=C.tanh), C.layers.Recurrence(C.layers.LSTM(3))])(x), S(3), least=3, **used)
row("convolution/sequential", lambda C, x, w: C.convolution(w, x, sequential=True, auto_padding=[False, True]), S(3), W(2, 3, 3), least=3)
row("convolution/sequential_stride", lambda C, x, w: C.convolution(w, x, sequential=True, strides=(2,), auto_padding=[False, True]), S(3), W(2, 3, 3), least=3)


def rnnstack(size, layers, both, op):
    """C.optimized_rnnstack; CNTK has it on a GPU only, on the CPU it turns it into layers."""
    options = (size, layers, both, op)

    def converted(C, x, w):
        from cntk.misc.optimized_rnnstack_converter import convert_optimized_rnnstack

        blob = C.parameter(init=w.value, name="blob")
        return convert_optimized_rnnstack(C.optimized_rnnstack(x, blob, *options))

    return dict(build=lambda C, x, w: C.optimized_rnnstack(x, w, *options), cntk=converted)


for op, gates in (("lstm", 4), ("rnnTanh", 1), ("rnnReLU", 1)):
    for layers in (1, 2):
        for both in (False, True):
            ways, size, inner = 1 + both, 3, 2
            count = sum(ways * gates * size * ((inner if i == 0 else ways * size) + size + 2) for i in range(layers))
            made = rnnstack(size, layers, both, op)
            row("optimized_rnnstack/%s_%d%s" % (op, layers, "_both" if both else ""), made["build"], S(inner), W(count, grad=False, domain="unit"), cntk=made["cntk"], params=False, rtol=3e-5)

# ------------------------------------------------------------------------------------------------------- losses and metrics
family("loss")
for op in ("cross_entropy_with_softmax", "classification_error", "squared_error", "binary_cross_entropy", "cosine_distance"):
    domain, target = {"binary_cross_entropy": ("probability", "binary"), "squared_error": ("any", "any"), "cosine_distance": ("any", "any")}.get(op, ("distinct", "onehot"))
    plain = dict(plain=True, diff=op != "classification_error")
    row(op + "/frames", lambda C, x, t, op=op: getattr(C, op)(x, t), S(4, domain=domain), S(4, domain=target), **plain)
    row(op + "/steps_summed", lambda C, x, t, op=op: C.sequence.reduce_sum(getattr(C, op)(x, t)), S(4, domain=domain), S(4, domain=target), **plain)
    row(op + "/last", lambda C, x, t, op=op: getattr(C, op)(C.sequence.last(x), t), S(4, domain=domain), B(4, domain=target), **plain)
row("cross_entropy_with_softmax/sparse", lambda C, x, t: C.cross_entropy_with_softmax(x, t), S(4), S(4, domain="onehot", sparse=True), plain=True)
row("classification_error/sparse", lambda C, x, t: C.classification_error(x, t), S(4), S(4, domain="onehot", sparse=True), diff=False)
row("cross_entropy_with_softmax/twin_axes", lambda C, x, t: C.cross_entropy_with_softmax(x, C.reconcile_dynamic_axes(t, x)), S(4), S(4, domain="onehot", axis="twin"), plain=True)
row("cross_entropy_with_softmax/picked", lambda C, x, t, c: C.cross_entropy_with_softmax(C.sequence.gather(x, c), C.sequence.gather(t, c)), S(4), S(4, domain="onehot"), PICKS, plain=True)

BOUND = dict(departs="with a delay CNTK bounds the last blank by what lies behind its table, and values and gradients by two rules; here the last blank is free")
for word, delay, options in (("", -1, {}), ("_slack", 1000, {}), ("_delay1", 1, BOUND), ("_delay3", 3, BOUND)):
    row("forward_backward/labels" + word, lambda C, x, t, d=delay: C.forward_backward(C.labels_to_graph(t), x, 4, d), S(5), S(5, domain="ctc"), plain=True, least=3, uses=("labels_to_graph",), rtol=5e-5, **options)
row("forward_backward/short", lambda C, x, t: C.forward_backward(C.labels_to_graph(t), x, 4), S(5), S(5, domain="ctc"), plain=True, uses=("labels_to_graph",), rtol=5e-5)
row("forward_backward/dense", lambda C, x, w, t: C.forward_backward(C.labels_to_graph(t), C.times(x, w), 4), S(3), W(3, 5), S(5, domain="ctc"), plain=True, least=3, uses=("labels_to_graph",), rtol=5e-5)
row("forward_backward/lstm", lambda C, x, t: C.forward_backward(C.labels_to_graph(t), C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Dense(5)])(x), 4), S(2), S(5, domain="ctc"), plain=True, least=3, uses=("labels_to_graph", "layers.LSTM"), rtol=5e-5)
EDITS = {
    "": (),
    "penalties": (2, 3, 5),
    "no_substitution": (0, 1, 1),
    "squash": (1, 1, 1, True),
    "ignore": (1, 1, 1, False, [1]),
    "ignore_two": (1, 1, 1, False, [0, 2]),
    "everything": (0.5, 2, 3, True, [1]),
}
for word, arguments in sorted(EDITS.items()):
    row("edit_distance_error/" + (word or "plain"), lambda C, a, b, arguments=arguments: C.edit_distance_error(a, b, *arguments), S(3, domain="onehot"), S(3, domain="onehot"), diff=False)
