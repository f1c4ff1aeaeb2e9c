"""Losses and metrics over the order in which a minibatch's rows of one query are ranked."""

from __future__ import annotations

from typing import Any

from cogkit.functions import Function, apply
from cogkit.op import Op, Type, common_dtype, constant_gradient, join_axes, shown

__all__ = ["lambda_rank", "ndcg_at_1"]


def _number(types, attrs):
    for t in types:
        if t.shape not in ((), (1,)):
            raise ValueError(("one number a row as score, gain and query", shown(t.shape), ""))
    if join_axes(types) == ():
        raise ValueError(("values with rows", "values without", "a ranking is one of a minibatch's rows"))
    return [Type((), common_dtype(types), ())]


def _slopes(types, attrs):
    return [Type((), common_dtype(types), ()), types[0]]


def _slopes_gradient(n, dloss, dslope):
    if dslope is not None:
        raise ValueError(("first derivatives", "a derivative of the gradient of a LambdaRank", ""))
    return [None if dloss is None else dloss * n.outputs[1], None, None]


# score, gain, query: a number a row -> 100 rows mean over queries of 1 - NDCG, and lambda of each row
Op("lambda_rank", "LambdaRank", _slopes, _slopes_gradient, "lambda_rank", "Burges 2010, from RankNet to LambdaRank to LambdaMART")
# score, gain, query -> 100 rows mean over queries of gain of the best score / largest gain
Op("ndcg_at_1", "NDCG", lambda t, attrs: [_slopes(t, attrs)[0]], constant_gradient, "ndcg_at_1", "Jarvelin and Kekalainen 2002")


def _operands(x):
    """Score, gain and query of every row, the last two without gradients."""
    axes = join_axes([v.type for v in x])
    score, gain, query = (v if v.type.axes == axes else v.expand(v.type._replace(axes=axes)) for v in x)
    return [score, gain.stop(), query.stop()]


Op(
    "lambda_rank_loss",
    "LambdaRank",
    _number,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: g.node("lambda_rank", _operands(x))[0],
)
Op(
    "ndcg_at_1_metric",
    "NDCG",
    _number,
    constant_gradient,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: g.node("ndcg_at_1", _operands(x)),
)


def lambda_rank(output: Any, gain: Any, group: Any, name: str = "") -> Function:
    """100 (1 - NDCG), mean over the queries of a minibatch, times its rows: one number, whose gradient is LambdaRank's.

    output: scores, the best first; gain: how good each row is; group: the number of its query; one number a row each. Discounts are
    1 / log(1 + rank) and gains count as they are. Equal scores rank the least gain first; a query without gain counts 1. The gradient
    of a score is the sum, over rows of another gain, of |change of NDCG if both swapped places| / (1 + exp(difference of scores)), not
    multiplied by 100 or rows. CNTK takes runs of equal groups as queries and their rows as sorted by gain; here neither order matters.
    """
    return apply("lambda_rank_loss", [output, gain, group], name)


def ndcg_at_1(output: Any, gain: Any, group: Any, name: str = "") -> Function:
    """100 gain of the best-scored row / largest gain, mean over the queries of a minibatch, times its rows: one number, no gradient.

    Arguments and ties as `lambda_rank`; a query without gain counts 0.
    """
    return apply("ndcg_at_1_metric", [output, gain, group], name)
