"""The form of an op case, its values, and how to run it: the same code under cogkit and under CNTK 2.7 (Python 3.6).

A case states its inputs and one call. From it derive: golden values of CNTK, engine against engine, gradients by finite
differences, odd batch sizes, threads and seeds. Values depend on nothing but the case's name, so both sides see the same bits.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import zlib

import numpy as np

F4, F8 = "float32", "float64"


class Spec:
    """One operand: `role` is batch (an input with rows), static (an input without), param or const; `domain` says its values."""

    def __init__(self, shape, domain="any", role="batch", grad=True, value=None):
        self.shape, self.domain, self.role, self.grad, self.value = tuple(shape), domain, role, grad, value


def X(*shape, **options):
    return Spec(shape, **options)


def W(*shape, **options):
    return Spec(shape, role="param", **options)


def K(*shape, **options):
    return Spec(shape, role="const", grad=False, **options)


class Case:
    """`name` is op/variant; `build(C, *operands)` makes the function under test.

    diff: it has gradients.  golden: CNTK can run it.  fd: finite differences hold (no kink, no jump near the values).
    mode: 'eval', or 'train' for ops that differ while training.  later: an op that may not be there yet.
    departs: why cogkit's answer differs from CNTK's; `where` names the arrays that do (y0, d1, ...; none: all of them).
    """

    def __init__(self, family, name, build, specs, **options):
        self.family, self.name, self.build, self.specs = family, name, build, specs
        self.rows = 3
        self.diff = self.golden = self.fd = True
        self.f8 = False
        self.mode = "eval"
        self.later = self.exact = self.mixes_rows = False
        self.departs, self.where = "", ()
        self.rtol, self.atol = 1e-5, 1e-6
        for key, value in options.items():
            if not hasattr(self, key):
                raise TypeError("%s: no option %r" % (name, key))
            setattr(self, key, value)

    @property
    def op(self):
        return self.name.split("/")[0]

    def __repr__(self):
        return self.name

    @property
    def batched(self):
        return any(s.role == "batch" for s in self.specs)


def stream(*words):
    return np.random.RandomState(zlib.crc32("/".join(str(w) for w in words).encode()) & 0x7FFFFFFF)


def draw(rng, shape, domain):
    """Values of a domain, as float64 that float32 holds exactly."""
    name, _, argument = domain.partition(":")
    u = rng.uniform(-1, 1, shape)
    sign = np.where(rng.uniform(-1, 1, shape) < 0, -1.0, 1.0)
    size = int(np.prod(shape))
    if name == "any":
        v = 2 * u
    elif name == "positive":
        v = 1.4 + 1.1 * u
    elif name == "nonzero":  # away from the kink at 0
        v = sign * (1.15 + 0.85 * u)
    elif name == "unit":
        v = 0.9 * u
    elif name == "probability":
        v = 0.5 + 0.4 * u
    elif name == "wide":
        v = 40 * u
    elif name == "between":  # away from whole and half numbers
        v = np.round(3 * u) + sign * (0.25 + 0.1 * u)
    elif name == "binary":
        v = (u > 0).astype(float)
    elif name == "whole":  # 0 .. n-1
        v = np.floor((u + 1) / 2 * int(argument)).clip(0, int(argument) - 1)
    elif name == "distinct":  # every two values at least 0.1 apart, so that order is stable under small steps
        v = (rng.permutation(size).reshape(shape) - (size - 1) / 2.0) * (0.1 if size <= 60 else 6.0 / size) + 0.02 * u * (
            size <= 60
        )
    elif name == "onehot":
        v = np.zeros(shape)
        if size:
            flat = v.reshape(-1, shape[-1])
            flat[np.arange(len(flat)), rng.randint(0, shape[-1], len(flat))] = 1
    elif name == "soft":  # rows that sum to 1
        v = np.exp(u)
        v = v / v.sum(-1, keepdims=True) if size else v
    else:
        raise ValueError("no domain %r" % domain)
    return np.asarray(v, np.float32).astype(np.float64)


def values(case, rows):
    """The operands' values as float64 arrays."""
    found = []
    for i, s in enumerate(case.specs):
        if s.value is not None:
            found.append(np.asarray(s.value, np.float64))
        else:
            shape = (rows,) + s.shape if s.role == "batch" else s.shape
            found.append(draw(stream(case.name, i, rows if s.role == "batch" else ""), shape, s.domain))
    return found


class Built:
    """A case built in one element type: operands, function, feed, and every parameter that the gradient is asked for."""

    def __init__(self, C, case, dtype, rows, operands=None):
        self.C, self.case, self.dtype = C, case, np.dtype(dtype).type
        given = values(case, rows) if operands is None else operands
        self.operands, self.feed, self.wrt = [], {}, {}
        with C.default_options(dtype=self.dtype):
            for i, (s, v) in enumerate(zip(case.specs, given)):
                v = np.ascontiguousarray(v, self.dtype)
                if s.role == "param":
                    o = C.parameter(init=v, dtype=self.dtype, name="w%d" % i)
                elif s.role == "const":
                    o = C.constant(v, dtype=self.dtype)
                elif s.role == "static":
                    o = C.input_variable(s.shape, dtype=self.dtype, dynamic_axes=[], needs_gradient=s.grad, name="x%d" % i)
                else:
                    o = C.input_variable(s.shape, dtype=self.dtype, needs_gradient=s.grad, name="x%d" % i)
                if s.role in ("batch", "static"):
                    self.feed[o] = v
                if s.grad and case.diff and s.role != "const":
                    self.wrt["d%d" % i] = o
                self.operands.append(o)
            self.function = case.build(C, *self.operands)
        self.outputs = list(self.function.outputs)
        mine = set(o.uid for o in self.operands if hasattr(o, "uid"))
        inner = [p for p in self.function.parameters if p.uid not in mine]
        inner.sort(key=lambda p: (p.name, p.shape))
        for i, p in enumerate(inner):  # parameters that the case itself made (layers): values by order
            p.value = np.asarray(draw(stream(case.name, "p", i), p.shape, "any") * 0.5, self.dtype)
            if case.diff:
                self.wrt["dp%d_%s" % (i, p.name)] = p
        used = set(v.uid for v in list(self.function.parameters) + list(self.function.arguments))
        self.wrt = {k: v for k, v in self.wrt.items() if v.uid in used}
        self.feed = {k: v for k, v in self.feed.items() if k.uid in used}

    def forward(self):
        """The outputs as arrays (inference)."""
        found = self.function.eval(self.feed)
        if len(self.outputs) == 1:
            return [as_array(found)]
        return [as_array(found[o]) for o in self.outputs]

    def root(self, shape):
        """The gradient that comes from above: fixed by the case's name and the shape."""
        return np.asarray(draw(stream(self.case.name, "root", len(shape)), shape, "any"), self.dtype)

    def backward(self):
        """The training outputs, and gradients of sum(root * first output) by operand."""
        first = self.outputs[0]
        state, found = self.function.forward(self.feed, self.outputs, set([first]))
        outs = [as_array(found[o]) for o in self.outputs]
        if not self.wrt:
            return outs, {}
        grads = self.function.backward(state, {first: self.root(outs[0].shape)}, set(self.wrt.values()))
        return outs, {k: as_array(grads[v]) for k, v in self.wrt.items()}


def as_array(value):
    """CNTK gives a list of one array for some outputs without a batch axis."""
    return np.asarray(value)


def record(C, case, dtype, rows=None, gradients=True):
    """Everything a case has to say: inputs, outputs (eval; train where it differs) and gradients."""
    rows = case.rows if rows is None else rows
    built = Built(C, case, dtype, rows)
    found = {}
    for i, o in enumerate(built.forward()):
        found["y%d" % i] = o
    if gradients and case.diff or case.mode == "train":
        outs, grads = built.backward()
        if case.mode == "train":
            for i, o in enumerate(outs):
                found["t%d" % i] = o
        found.update(grads)
    return found
