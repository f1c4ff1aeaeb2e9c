"""Primitives of sparse values: the lowering puts them in the place of products, gathers and sums; no user writes them."""

from __future__ import annotations

from cogkit.op import Op, Type, common_dtype, constant_gradient

__all__: list[str] = []


def _like(types, attrs):
    return [types[0]]


Op("densify", "Densify", _like, lambda n, dy: [dy], "densify", "the same numbers, 0 where there is no entry")


# products: a CSR (m, k), b (k, n), or (n, k) with tb -----------------------------------------------------------------------------


def _times_type(types, attrs):
    a, b = types
    (m, k), n = a.shape, b.shape[0 if attrs["tb"] else 1]
    if b.shape[1 if attrs["tb"] else 0] != k:
        raise ValueError(("matrices whose inner sizes agree", f"{a.shape} and {b.shape}", ""))
    return [Type((m, n), common_dtype(types), a.axes)]


def _times_gradient(n, dy):
    a, b = n.inputs
    tb = n.attrs["tb"]
    if a.type.axes and dy.type.axes != a.type.axes:
        dy = dy.expand(Type(dy.type.shape, dy.type.dtype, a.type.axes))
    db = dy.graph.node("csr_transposed", [a, dy])
    return [
        dy.graph.node("matmul", [dy, b], ta=False, tb=not tb, sum_rows=False),
        db.node("transpose", perm=(1, 0)) if tb else db,
    ]


def _transposed_type(types, attrs):
    a, dy = types
    return [Type((a.shape[1], dy.shape[1]), common_dtype(types), ())]


def _transposed_gradient(n, g):
    a, dy = n.inputs
    return [
        g.graph.node("matmul", [dy, g], ta=False, tb=True, sum_rows=False),
        g.graph.node("csr_times", [a, g], tb=False),
    ]


Op("csr_times", "Times", _times_type, _times_gradient, "csr_times", "definition")
Op(
    "csr_transposed",
    "Times",
    _transposed_type,
    _transposed_gradient,
    "csr_transposed",
    "the transpose of csr_times: a list of the rows that are not 0",
)


# lists of rows -------------------------------------------------------------------------------------------------------------------

Op(
    "scatter_rows",
    "ScatterAdd",
    lambda types, attrs: [Type(attrs["shape"], types[1].dtype, ())],
    lambda n, dy: [None, dy.graph.node("gather", [dy, n.inputs[0]], **{k: a for k, a in n.attrs.items() if k == "zeros"})],
    "scatter_rows",
    "the transpose of gather: a list of the rows that are not 0",
)
Op("rows_add", "Plus", _like, lambda n, dy: [dy, dy], "rows_add", "definition")


def _update_type(types, attrs):
    return [Type((), types[0].dtype, ())]


# attrs rule, average, norm, epsilon: see UpdateRows and LaggingRows of engine.cpu.sparse. Operands w, g (a list of rows), states, numbers of
# the rule, scale, limit; w and states are changed in place, those of rules with momentum later where g is 0; the result is of no use
Op("update_rows", "UpdateRows", _update_type, constant_gradient, "update_rows", "learners.rules", writes=True)
