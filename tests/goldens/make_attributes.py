"""Records the names and settings of nodes in CNTK 2.7: run with CNTK's Python, writes attributes.json.

A case is Python over `C`: x an image (3, 8, 8), v and l vectors of 6, m a matrix (4, 6), s a sequence of vectors of 6, r a number,
W and T convolution maps, w a matrix (6, 7).
"""

import json
import os

CASES = """
C.elu(v, 0.5)
C.leaky_relu(v)
C.selu(v)
C.log_softmax(v)
C.softmax(m, axis=0)
C.times(v, w)
C.times(m, w, output_rank=1, infer_input_rank_to_map=0)
C.times_transpose(v, C.parameter((7, 6)))
C.convolution(W, x)
C.convolution(W, x, strides=2, auto_padding=[False, True, True], dilation=2, sharing=[True])
C.convolution(C.parameter((6, 1, 3, 3)), x, groups=3)
C.convolution(C.parameter((5, 3, 3)), C.input_variable((3, 8)), strides=(2,))
C.convolution_transpose(T, x, strides=2, output_shape=(5, 16, 16), auto_padding=[False, True, True])
C.pooling(x, C.MAX_POOLING, (3, 3), 2, [True])
C.pooling(x, C.AVG_POOLING, (3, 3), 2, [False], ceil_out_dim=True, include_pad=True)
C.unpooling(C.pooling(x, C.MAX_POOLING, (2, 2), 2), x, C.MAX_UNPOOLING, (2, 2), 2)
C.dropout(v, 0.3, seed=5)
C.reduce_sum(m, 1)
C.reduce_mean(m, 1)
C.reduce_max(m, 0)
C.reduce_min(m, 1)
C.reduce_log_sum_exp(m, 1)
C.reduce_prod(m, 1)
C.reduce_l1(m, 1)
C.reduce_l2(m, 1)
C.reduce_sum_square(m, 1)
C.reduce_sum(m, (0, 1), keepdims=False)
C.argmax(m, 1)
C.argmin(m, 0)
C.slice(m, 1, 0, 3)
C.slice(m, [0, 1], [0, 1], [2, 3])
C.slice(m, 1, 0, 3, 2)
m[0:2, 1]
C.splice(m, m, axis=0)
C.splice(m, m)
C.transpose(m, (1, 0))
C.transpose(x, (1, 2, 0))
C.swapaxes(m, 0, 1)
C.reshape(m, (2, 12))
C.reshape(m, (3, 2), 1, 2)
C.flatten(m)
C.squeeze(C.reshape(m, (4, 1, 6)), 1)
C.expand_dims(m, 1)
C.pad(m, [(1, 1), (0, 0)], C.CONSTANT_PAD, 1.0)
C.one_hot(C.input_variable(2), 4)
C.cast(v, np.float64)
C.zeros_like(v)
C.ones_like(v)
C.random.uniform((2,), np.float32, 0.0, 2.0, seed=3)
C.random.normal((2,), seed=3)
C.random.uniform_like(v, seed=3)
C.random.bernoulli((2,), mean=0.3, seed=3)
C.random.gumbel((2,), seed=3)
C.sequence.past_value(s)
C.sequence.future_value(s, time_step=2)
C.sequence.delay(s, 0, 2)
C.sequence.unpack(s, 0.0)
C.optimized_rnnstack(s, C.parameter((C.InferredDimension, 4), init=C.glorot_uniform()), 4, 2, True, "lstm")
C.forward_backward(C.labels_to_graph(s), s, 5, -1)
C.edit_distance_error(s, s, 0, 1, 0, squashInputs=True, tokensToIgnore=[1])
x + 1
C.plus(x, 1, name="sum")
C.combine([v + 1, v + 2])
C.layers.Dense(3, name="d")(x)
C.layers.Dense(3)
C.sequence.last(s)
C.times(s, C.parameter((6, 2)))
""".strip().split("\n")


def operands(C, np):
    """What the cases are written over."""
    return {
        "C": C, "np": np,
        "x": C.input_variable((3, 8, 8), name="x"), "v": C.input_variable(6), "l": C.input_variable(6), "m": C.input_variable((4, 6)),
        "s": C.sequence.input_variable(6, name="s"), "r": C.input_variable(1),
        "W": C.parameter((5, 3, 3, 3)), "T": C.parameter((3, 5, 3, 3)), "w": C.parameter((6, 7)),
    }  # fmt: skip


if __name__ == "__main__":
    import cntk
    import numpy

    here = operands(cntk, numpy)
    found = []
    for case in CASES:
        f = eval(case, here)
        root = f.root_function
        settings = {k: repr(a) for k, a in sorted(root.attributes.items())}
        found.append({"case": case, "op": root.op_name, "text": str(root), "attributes": settings})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "attributes.json"), "w") as file:
        json.dump(found, file, indent=1)
