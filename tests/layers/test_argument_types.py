"""Types of arguments: annotations, `Signature`, `update_signature`; what they give is what CNTK 2.7 gives for the same lines."""

import numpy as np
import pytest

import cogkit as C
from cogkit.layers.typing import ParameterTensor, Sequence, SequenceOver, Signature, SparseTensor, Tensor, tensor

L = C.layers


def told(variables):
    return [str(v) for v in variables]


def test_annotated_arguments():
    @C.Function
    def f(x: Tensor[3, 2]):
        return x * x

    assert f.shape == (3, 2) and told(f.arguments) == ["Input('x', [#], [3 x 2])"]
    np.testing.assert_array_equal(f([[[2, 1], [5, 2], [1, 3]]]), [np.array([[2, 1], [5, 2], [1, 3]]) ** 2])

    @C.Function
    def part(x: Sequence[Tensor[3]], y):
        return x * y

    assert told(part.arguments) == ["Input('x', [#, *], [3])", "Placeholder('y', [???], [???])"]

    @C.BlockFunction("Square", "square")
    def block(x: Tensor[2]):
        return x * x

    assert told(block.arguments) == ["Input('x', [#], [2])"] and block.root_function.op_name == "Square"


def test_signatures():
    axis = C.Axis("t")

    @C.Function
    @Signature(SequenceOver[axis][Tensor[3]], y=SparseTensor[5])
    def f(x, y):
        return C.sequence.last(x)[0] + C.reduce_sum(y)

    x, y = f.arguments
    assert told((x, y)) == ["Input('x', [#, t], [3])", "Input('y', [#], [5])"] and y.is_sparse and not x.is_sparse
    g = C.Function.with_signature(Tensor[()])(lambda x: x * 2)
    assert told(g.arguments) == ["Input('x', [#], [])"]
    for types, named, words in [
        ((Tensor[1], Tensor[2]), {}, "expected types of x, got 2"),
        ((), {"z": Tensor[1]}, "expected types of x, got z"),
        ((Tensor[1],), {"x": Tensor[1]}, "expected types of x, got x"),
    ]:
        with pytest.raises(TypeError, match=words):
            Signature(*types, **named)(lambda x: x)


def test_update_signature():
    f = C.Function(lambda x, y: x * y)
    f.update_signature(Sequence[Tensor[2]], y=Tensor[2])
    assert told(f.arguments) == ["Input('x', [#, *], [2])", "Input('y', [#], [2])"]
    with C.default_options(dtype=np.float64):
        g = L.Fold(C.plus)
        g.update_signature(Sequence[Tensor[1]])
    assert g.arguments[0].dtype == np.float64
    np.testing.assert_array_equal(g([np.array([[2.0], [6], [4]])]), [[12]])
    h = C.Function(lambda x: x + 1)
    h.update_signature(ParameterTensor[2])
    assert told(h.arguments) == ["Input('x', [], [2])"]
    i = C.Function(lambda x: x + 1)
    i.update_signature((2, 3))
    assert told(i.arguments) == ["Input('x', [#], [2 x 3])"]


def test_types_are_settings_of_inputs():
    assert str(C.input_variable(**Sequence[Tensor[3]], name="x")) == "Input('x', [#, *], [3])"
    assert Tensor[3].shape == (3,) and Tensor[C.FreeDimension, 2].shape == (C.FreeDimension, 2) and tensor.shape is None
    with pytest.raises(TypeError, match="expected a type such as"):
        Sequence[Sequence[Tensor[3]]]
    with pytest.raises(TypeError, match="expected a sequence axis"):
        SequenceOver[C.Axis.default_batch_axis()]
    with pytest.raises(ValueError, match="expected sizes"):
        Tensor[2.5]
