"""Wrong uses and the exact words they get: label, name, the user's line, the wish, the fact, the way out.

In a message `@` is the line of the use itself and `@x` that where the variable x was made; no line of cogkit's own is ever shown.
"""

import errno
import json
import os
import re
import struct

import numpy as np
import pytest
from cases.errors import WRONG
from cases.errors_sampled import WRONG as WRONG_SAMPLED
from cases.errors_training import WRONG as WRONG_TRAINING
from cases.ops import CASES
from test_goldens import here

import cogkit as C
from cogkit.engine.executable import Executable
from cogkit.errors import DataError, DeviceError, ModelFileError

L = C.layers
F4 = np.float32
ROWS = []


def wrong(name, use, message, kind=ValueError):
    ROWS.append(pytest.param(use, message, kind, id=name))


v = C.input_variable(3, name="v")
u = C.input_variable(3, name="u", needs_gradient=True)
image = C.input_variable((3, 32, 32), name="image")
last = C.input_variable((32, 32, 3), name="last")
step = C.input_variable(3, dynamic_axes=[C.Axis("steps")], name="step")
free = C.input_variable(C.FreeDimension, name="free")
seq = C.sequence.input_variable(3, name="seq")
other = C.sequence.input_variable(3, sequence_axis=C.Axis("t"), name="other")
p = C.placeholder(name="p")
w = C.parameter((4, 5), name="w")
plus = v * 2 + u
two = C.combine(v + 1, v + 2)
NAMED = {k: x for k, x in globals().items() if isinstance(x, C.Variable)}
HERE = {"plus": plus.root.where, "two": two.root.where}
ones = np.ones((2, 3), F4)


def shared(layer, first, second):
    """A layer whose first use decides its parameters' shapes."""
    layer(first)
    return layer(second)


# fmt: off - a row is a name, the use on one line, its words
# ------------------------------------------------------------------------------------------------------------ shapes and axes
wrong(
    "channels last",
    lambda: shared(L.Convolution2D((3, 3), 16, name="stem"), image, last),
    "Convolution2D 'stem' (@): expected (3, H, W), got (32, 32, 3); move channels first with C.transpose(x, (2, 0, 1))",
)
wrong(
    "dense, other inputs",
    lambda: shared(L.Dense(2, name="out"), v, C.input_variable(4)),
    "Dense 'out' (@): expected a left operand of shape (..., 3), got (4,); the right operand (3, 2) is (inputs, outputs)",
)
wrong(
    "dense of a free size",
    lambda: L.Dense(2, name="out")(free),
    "Dense 'out' (@): expected a known size for 'W' to take, got (*, 2); a free size is no size yet",
)
wrong(
    "dense, too many axes mapped",
    lambda: L.Dense(2, map_rank=1)(v),
    "Dense (@): expected fewer than 1 axes to map over in (3,), got 1; at least one must be summed over",
)
wrong(
    "dense, initial values",
    lambda: L.Dense(2, init=np.zeros((2, 2)))(v),
    "Parameter 'W' (@): expected an initial value of shape (3, 2), got (2, 2)",
)
wrong(
    "pooling window",
    lambda: L.MaxPooling((40, 40), name="pool")(image),
    "MaxPooling 'pool' (@): expected a window that fits an axis of size 32, got 40; pad the input (auto_padding) or use a smaller one",
)
wrong(
    "pooling of a vector",
    lambda: C.pooling(v, C.MAX_POOLING, (2, 2)),
    "Pooling (@): expected an operand of at least 2 axes for the window (2, 2), got (3,)",
)
wrong("pooling kind", lambda: C.pooling(image, 7, (2, 2)), "Pooling (@): expected C.MAX_POOLING or C.AVG_POOLING, got 7")
wrong(
    "stride 0",
    lambda: L.Convolution2D((3, 3), 4, strides=0, name="c")(image),
    "Convolution2D 'c' (@): expected strides of at least 1, got (0, 0)",
)
wrong(
    "three strides",
    lambda: L.Convolution2D((3, 3), 4, strides=(1, 2, 3)),
    "Convolution2D (@): expected strides as one value or 2, got (1, 2, 3)",
)
wrong(
    "window of three axes",
    lambda: L.Convolution2D((3, 3, 3), 4),
    "Convolution2D (@): expected filter_shape as one value or 2, got (3, 3, 3)",
)
wrong(
    "no filters",
    lambda: L.Convolution2D((3, 3), 0),
    "Convolution2D (@): expected a number of filters, got 0; more filter axes are a reshape of one",
)
wrong(
    "image without channels",
    lambda: L.Convolution2D((3, 3), 4)(C.input_variable((32, 32))),
    "Convolution2D (@): expected an operand of 3 axes for a kernel (4, ?, 3, 3), got (32, 32); the kernel is (filters, channels, spatial...)",
)
wrong(
    "groups",
    lambda: L.Convolution2D((3, 3), 4, groups=2)(image),
    "Convolution2D (@): expected channels divisible by groups = 2, got 3",
)
wrong(
    "transposed size",
    lambda: L.ConvolutionTranspose2D((3, 3), 4, strides=2, pad=True, output_shape=(65, 65))(image),
    "ConvolutionTranspose (@): expected an output size that a stride of 2 takes to 32, got 65 (taken to 33)",
)
wrong(
    "plus",
    lambda: v + C.input_variable(4),
    "Plus (@): expected operands whose shapes broadcast, got (3,) and (4,); sizes must be equal or 1, aligned at the last axis",
)
wrong(
    "times",
    lambda: C.times(v, w, name="scores"),
    "Times 'scores' (@): expected a left operand of shape (..., 4), got (3,); the right operand (4, 5) is (inputs, outputs)",
)
wrong(
    "output rank",
    lambda: C.times(v, w, output_rank=3),
    "Times (@): expected an output_rank in [1, 2] for a right operand (4, 5), got 3",
)
wrong("reshape", lambda: C.reshape(v, (2, 2)), "Reshape (@): expected a shape of 3 elements, got (2, 2) for (3,)")
wrong(
    "reshape, not whole",
    lambda: C.reshape(image, (7, C.InferredDimension)),
    "Reshape (@): expected a shape of 3072 elements, got (7, ?); the inferred size would not be whole",
)
wrong(
    "transpose",
    lambda: C.transpose(image, (0, 1)),
    "TransposeAxes (@): expected a permutation of the 3 static axes of (3, 32, 32), got (0, 1)",
)
wrong("slice", lambda: C.slice(v, 0, 0, 4), "Slice (@): expected bounds within the axis of size 3, got [0:4]")
wrong(
    "slice, fewer bounds",
    lambda: C.slice(image, [0, 1], [0], [1, 2]),
    "Slice (@): expected as many bounds as axes, got 2 axes, 1 begins, 2 ends, 2 strides",
)
wrong("index", lambda: v["a"], "[] (@): expected an index, a slice or a list of indices, got str", TypeError)
wrong(
    "splice",
    lambda: C.splice(image, last, axis=0),
    "Splice (@): expected shapes equal but for axis 0, got (3, 32, 32) and (32, 32, 3); a size of 1 stretches",
)
wrong(
    "axis",
    lambda: C.reduce_sum(v, 1),
    "ReduceElements (@): expected an axis in [-1, 1), got 1; axes count static dimensions only",
)
wrong(
    "axis by name",
    lambda: C.reduce_sum(v, "rows"),
    "ReduceElements (@): expected an axis as a number or C.Axis, got 'rows'",
    TypeError,
)
wrong("squeeze", lambda: C.squeeze(v, 0), "Squeeze (@): expected size 1 at axis 0, got 3 in (3,)")
wrong(
    "pad",
    lambda: C.pad(v, [(4, 0)], mode=C.REFLECT_PAD),
    "Pad (@): expected pads of at least 0 and at most 2, got (4, 0) for size 3",
)
wrong("pad without pairs", lambda: C.pad(v, [1, 1]), "Pad (@): expected a list of pairs (before, after), got [1, 1]", TypeError)
wrong(
    "gather from rows",
    lambda: C.gather(v, u),
    "GatherOp (@): expected a reference without rows (a parameter or constant), got [#](3,) float32",
)
wrong(
    "labels that are numbers",
    lambda: C.cross_entropy_with_softmax(v, C.input_variable(1)),
    "CrossEntropyWithSoftmax (@): expected outputs and targets of one shape, got (3,) and (1,); class labels are one-hot: C.one_hot(labels, n)",
)
wrong(
    "other labels",
    lambda: C.classification_error(v, C.input_variable(2)),
    "ClassificationError (@): expected outputs and targets of one shape, got (3,) and (2,); class labels are one-hot: C.one_hot(labels, n)",
)
wrong(
    "batch normalisation",
    lambda: C.batch_normalization(image, C.parameter(4), C.parameter(4), C.constant(0, (4,)), C.constant(1, (4,)), True),
    "BatchNormalization (@): expected scale of shape (3,) for an operand (3, 32, 32), got (4,); "
    "spatial normalisation has one value a channel, the first axis",
)
wrong(
    "row spaces",
    lambda: v + step,
    "Plus (@): expected operands of one row space, got [#] of 'v' and [steps] of 'step'; "
    "reconcile them with C.sequence.broadcast_as, C.sequence.last or C.sequence.unpack",
)
wrong(
    "assign",
    lambda: C.assign(C.parameter(3), v),
    "Assign (@): expected a value of its target's type (3,) float32, got [#](3,) float32; reduce over the batch first",
)
wrong(
    "a shape",
    lambda: C.input_variable((3, -7)),
    "shape (@): expected sizes >= 0 (or C.InferredDimension, C.FreeDimension), got (3, -7)",
)

# ------------------------------------------------------------------------------------------------------------- kinds and types
wrong(
    "two types",
    lambda: v + C.input_variable(3, dtype=np.float64),
    "Plus (@): expected operands of one type, got float32 and float64; convert one with C.cast(x, dtype)",
)
wrong(
    "whole numbers",
    lambda: C.input_variable(3, dtype=np.int32),
    "dtype (@): expected float16, float32, float64, int8 or int16, got int32",
    TypeError,
)
wrong(
    "nothing as operand",
    lambda: C.plus(v, None),
    "operand (@): expected a variable, a function, a number or an array, got NoneType",
    TypeError,
)
wrong(
    "words as operand", lambda: v + "a", "operand (@): expected a variable, a function, a number or an array, got str", TypeError
)
wrong(
    "ragged operand", lambda: C.plus(v, [1, [2, 3]]), "operand (@): expected an array, got rows of different lengths, [1, [2, 3]]"
)
wrong(
    "iteration",
    lambda: list(v),
    "iteration (@): expected an array, got Input('v', [#], [3]); take parts with C.slice or [] and bounds",
    TypeError,
)
wrong(
    "activation by name",
    lambda: L.Dense(3, activation="relu"),
    "layer (@): expected a function or a list of functions, got str",
    TypeError,
)
wrong(
    "a layer that is none",
    lambda: L.Sequential([L.Dense(3), 3]),
    "layer (@): expected a function or a list of functions, got int",
    TypeError,
)
wrong(
    "function of nothing",
    lambda: C.Function(lambda a: 3),
    "Function (@): expected <lambda> to return a function or variable, got int",
    TypeError,
)
wrong(
    "assign to an input",
    lambda: C.assign(v, u),
    "assign (@): expected a parameter or constant as target, got Input('v', [#], [3])",
    TypeError,
)
wrong("no parameter", lambda: v.as_parameter(), "Input 'v' (@v): expected a parameter, got input", TypeError)
wrong(
    "several outputs",
    lambda: C.relu(two),
    "Combine (@two): expected a function with one output, got 2 outputs; name one of .outputs",
)
wrong("nothing to combine", lambda: C.combine(), "combine (@): expected at least one function or variable, got none")

# ---------------------------------------------------------------------------------------------------------------- what is fed
wrong(
    "missing feed",
    lambda: plus.eval({v: ones}),
    "Input 'u' (@u): expected data for this input, got none; feed it: {variable: array}",
)
wrong(
    "nothing fed",
    lambda: plus.eval({v: ones, u: None}),
    "Input 'u' (@u): expected data for this input, got None; feed it: {variable: array}",
)
wrong(
    "unknown feed",
    lambda: Executable([plus.output]).run({v: ones, u: ones, step: ones}),
    "Plus (@plus): expected data for its inputs v, u, got some for Input('step', [steps], [3]) too; leave it out",
)
wrong("unknown name", lambda: plus.eval({"v": ones, "q": ones}), "Plus (@plus): expected inputs named v, u, got 'q'")
wrong(
    "a parameter fed",
    lambda: plus.eval({v: ones, u: ones, w: ones}),
    "Plus (@plus): expected data for inputs, got some for Parameter('w', [], [4 x 5]); a value is set by .value = ...",
    TypeError,
)
wrong(
    "a number as key",
    lambda: plus.eval({0: ones}),
    "Plus (@plus): expected variables or their names to feed, got 0; feed {variable: array}",
    TypeError,
)
wrong("one array for two inputs", lambda: plus.eval(ones), "Plus (@plus): expected a dict that feeds v, u, got ndarray")
wrong(
    "fed shape", lambda: plus.eval({v: np.ones((2, 4)), u: ones}), "Input 'v' (@v): expected data of shape (batch, 3), got (2, 4)"
)
wrong(
    "fed channels last",
    lambda: C.relu(image).eval({image: np.ones((2, 32, 32, 3))}),
    "Input 'image' (@image): expected data of shape (batch, 3, 32, 32), got (2, 32, 32, 3); move channels first with x.transpose(0, 3, 1, 2)",
)
wrong(
    "fed rows",
    lambda: plus.eval({v: ones, u: np.ones((3, 3))}),
    "Input 'u' (@u): expected 2 samples in [#], as fed to 'v', got 3",
)
wrong(
    "fed sequences",
    lambda: C.relu(v).eval({v: [[1, 2, 3], [1, 2]]}),
    "Input 'v' (@v): expected an array of shape (batch, 3), got samples of different shapes; "
    "sequences need a sequence axis: C.sequence.input_variable",
)
wrong(
    "fed words",
    lambda: C.relu(v).eval({v: [["a", "b", "c"]]}),
    "Input 'v' (@v): expected an array of numbers of shape (batch, 3), got str",
    TypeError,
)
wrong(
    "fed complex numbers",
    lambda: C.relu(v).eval({v: np.ones((2, 3), complex)}),
    "Input 'v' (@v): expected numbers, got an array of complex128",
    TypeError,
)
wrong(
    "free sizes that differ",
    lambda: (free + C.alias(v)).eval({free: np.ones((1, 4)), v: ones[:1]}),
    "Plus (@): expected operands whose shapes broadcast, got (4,) and (3,); sizes must be equal or 1, aligned at the last axis",
)
wrong(
    "placeholder left",
    lambda: C.relu(p).eval({}),
    "Placeholder 'p' (@p): expected a variable in its place, got none; call the function with an input or use replace_placeholders",
)
wrong(
    "gradient of no gradient",
    lambda: C.relu(v).grad({v: ones}),
    "ReLU (@): expected a variable that needs a gradient, got none; make the input with needs_gradient=True",
)
wrong(
    "gradient by an input without",
    lambda: plus.grad({v: ones, u: ones}, wrt=[v]),
    "Input 'v' (@v): expected a variable that needs a gradient, got one that does not; make it with needs_gradient=True",
)
wrong(
    "gradient by a stranger",
    lambda: plus.grad({v: ones, u: ones}, wrt=[w]),
    "Plus (@plus): expected inputs and parameters of this function to differentiate by, got Parameter('w', [], [4 x 5])",
)
wrong(
    "backward without forward",
    lambda: plus.backward(None, ones, [u]),
    "Plus (@plus): expected the state of a forward with keep_for_backward, got None",
)

# ------------------------------------------------------------------------------------------------------------------ the graph
wrong(
    "too many arguments",
    lambda: C.Function(lambda a, b: a + b)(v, u, v),
    "Plus (@): expected at most 2 arguments, got 3",
    TypeError,
)
wrong(
    "too few arguments", lambda: C.Function(lambda a, b: a + b)(v), "Plus (@): expected 2 arguments, got 1; missing: b", TypeError
)
wrong(
    "unknown argument",
    lambda: C.Function(lambda a, b: a + b)(a=v, c=u),
    "Plus (@): expected arguments named a, b, got 'c'",
    TypeError,
)
wrong(
    "replace an input",
    lambda: plus.replace_placeholders({v: u}),
    "Plus (@plus): expected a placeholder to replace, got Input('v', [#], [3]); use clone with substitutions for other variables",
)
wrong(
    "replace a stranger",
    lambda: plus.replace_placeholders({p: u}),
    "Plus (@plus): expected a placeholder of this function, got Placeholder('p', [???], [???])",
)
wrong("replace the only one", lambda: plus.replace_placeholder(u), "Plus (@plus): expected exactly one placeholder, got 0")
wrong(
    "clone with a stranger",
    lambda: plus.clone("share", {w: v}),
    "Plus (@plus): expected a variable of this function to replace, got Parameter('w', [], [4 x 5])",
)
wrong("clone how", lambda: plus.clone("copy"), "clone (@): expected 'share', 'clone' or 'freeze', got 'copy'")
wrong(
    "one name twice",
    lambda: (C.relu(v, name="n") + C.relu(u, name="n")).find_by_name("n"),
    "Plus (@): expected one node named 'n', got 2; use find_all_with_name",
)
wrong(
    "a name given twice",
    lambda: setattr(C.relu(v, name="n"), "name", "m"),
    "ReLU 'n' (@): expected a function without a name, got a new name 'm'; names are given once; use C.alias(x, name)",
)
wrong(
    "no such setting",
    lambda: C.dropout(v, 0.5).set_attribute("rate", 1),
    "Dropout (@): expected an attribute it has (dropoutRate, rngSeed), got 'rate'",
)
wrong("no such node", lambda: plus.weights, "Function 'Plus' has no attribute, parameter or node named 'weights'", AttributeError)

# --------------------------------------------------------------------------------------------------- parameters and settings
wrong("parameter of no shape", lambda: C.parameter(), "Parameter (@): expected a shape or an initial array, got neither")
wrong(
    "shape not inferred",
    lambda: C.parameter((C.InferredDimension, 2), name="W").value,
    "Parameter 'W' (@): expected a known shape, got (?, 2); apply the function to an input first, so that the shape is inferred",
)
wrong(
    "value of another shape",
    lambda: setattr(w, "value", np.zeros((5, 4))),
    "Parameter 'w' (@w): expected a value of shape (4, 5), got (5, 4)",
)
wrong(
    "initial value",
    lambda: C.parameter((2, 3), init=np.zeros((3, 2)), name="W"),
    "Parameter 'W' (@): expected an initial value of shape (2, 3), got (3, 2)",
)
wrong(
    "initialiser by name",
    lambda: C.parameter((2, 3), init="glorot_uniform"),
    "Parameter (@): expected a number, an array or an initialiser such as C.glorot_uniform(), got 'glorot_uniform'",
    TypeError,
)
wrong("scale 0", lambda: C.glorot_uniform(0), "glorot_uniform (@): expected a scale above 0, got 0")
wrong(
    "ranks",
    lambda: C.parameter(3, init=C.he_normal(output_rank=1, filter_rank=2), name="W"),
    "Parameter 'W' (@): expected at least 3 axes for he_normal(scale=1, output_rank=1, filter_rank=2), got (3,)",
)
wrong("bilinear", lambda: C.bilinear(3, 4), "bilinear (@): expected a square kernel, got (3, 4)")
wrong("dropout rate", lambda: L.Dropout(1.5), "Dropout (@): expected a rate in [0, 1), got 1.5")
wrong("dropout of what", lambda: L.Dropout(), "Dropout (@): expected exactly one of dropout_rate and keep_prob, got neither")
wrong("embedding of what", lambda: L.Embedding(), "Embedding (@): expected exactly one of shape and weights, got neither")
wrong(
    "both ranks",
    lambda: L.Dense(3, input_rank=1, map_rank=1),
    "Dense (@): expected at most one of input_rank and map_rank, got both",
)
wrong("map rank", lambda: L.BatchNormalization(map_rank=2), "BatchNormalization (@): expected map_rank None, 0 or 1, got 2")
wrong(
    "constructor",
    lambda: L.For(range(3), lambda a, b: None),
    "For (@): expected a constructor of one argument or none, got one of 2",
    TypeError,
)
wrong("top 0", lambda: C.classification_error(v, u, topN=0), "ClassificationError (@): expected topN >= 1, got 0")

# ------------------------------------------------------------------------------------------------------- learners and devices
z = L.Dense(2, name="z")(v)
target = C.input_variable(2, name="target")
criterion = (C.squared_error(z, target), None)
mine = list(z.parameters)
wrong("a parameter twice", lambda: C.sgd(mine + mine, 0.1), "sgd: expected each parameter once, got one twice")
wrong("no parameters", lambda: C.sgd([], 0.1), "sgd: expected at least one parameter, got an empty list; pass model.parameters")
wrong(
    "an input to learn",
    lambda: C.sgd([v], 0.1),
    "sgd: expected parameters, got Input('v', [#], [3]); pass model.parameters",
    TypeError,
)
wrong(
    "momentum",
    lambda: C.momentum_sgd(mine, 0.1, 1.5),
    "momentumsgd: expected momentum within 0 and 1, got Schedule(1.5; sweeps; for any minibatch)",
)
wrong(
    "two learners for one",
    lambda: C.Trainer(z, criterion, [C.sgd(mine, 0.1), C.sgd(mine[:1], 0.1)]),
    f"Trainer: expected one learner for each parameter, got two for {mine[0]!r}",
)
wrong(
    "a learner of a stranger",
    lambda: C.Trainer(z, criterion, [C.sgd([*mine, w], 0.1)]),
    "Trainer: expected learners of the model's parameters, got one of Parameter('w', [], [4 x 5]), which the model has not",
)
wrong(
    "a minibatch without targets",
    lambda: C.Trainer(z, criterion, [C.sgd(mine, 0.1)]).train_minibatch({v: ones}),
    "train_minibatch: expected data for Input('target', [#], [2]), got none; feed it: {variable: array}",
)
wrong(
    "no GPU",
    lambda: C.gpu(77),
    re.compile("device: expected the number of a GPU that is there, got 77 of .*; see python -m cogkit doctor"),
    DeviceError,
)
wrong("engine", lambda: C.device.use_engine("none").__enter__(), "engine: expected one of reference, cpu, cuda, got 'none'")

# ------------------------------------------------------------------------------------------------------------------- sequences
S = C.sequence
wrong(
    "two row spaces",
    lambda: seq + other,
    "Plus (@): expected operands of one row space, got [#, *] of 'seq' and [#, t] of 'other'; "
    "reconcile them with C.sequence.broadcast_as, C.sequence.last or C.sequence.unpack",
)
wrong(
    "no steps",
    lambda: S.last(v),
    "Sequence::Slice (@): expected an operand with a sequence axis, got [#](3,) float32; "
    "make its input with C.sequence.input_variable, or use broadcast_as",
)
wrong(
    "delay of the batch",
    lambda: S.past_value(v, name="before"),
    "PastValue 'before' (@): expected an operand with a sequence axis, got [#](3,) float32; "
    "make its input with C.sequence.input_variable, or use broadcast_as",
)
wrong(
    "delay of no step",
    lambda: S.past_value(seq, time_step=0),
    "past_value (@): expected a time_step of at least 1, got 0; 0 is the value itself, the other way is the other op",
)
wrong(
    "initial state",
    lambda: S.past_value(seq, C.constant(np.ones(2, F4))),
    "PastValue (@): expected an initial state that broadcasts to (3,), got (2,)",
)
wrong(
    "condition of several numbers",
    lambda: S.gather(seq, seq),
    "Sequence::Gather (@): expected a condition of one number a step, got (3,)",
)
wrong(
    "condition over other sequences",
    lambda: S.gather(seq, S.is_first(other, name="start")),
    "Sequence::Gather (@): expected a sequence and a condition of one row space, got [#, *] of 'seq' and [#, t] of 'start'; "
    "reconcile them with C.reconcile_dynamic_axes",
)
wrong(
    "broadcast of a sequence",
    lambda: S.broadcast_as(seq, other),
    "Sequence::BroadcastAs (@): expected an operand without a sequence axis, got [#, *] to broadcast as [#, t]; "
    "sequences of equal lengths are reconciled with C.reconcile_dynamic_axes",
)
wrong(
    "sequence taken to the batch",
    lambda: C.reconcile_dynamic_axes(seq, v),
    "ReconcileDynamicAxis (@): expected a value over sequences to take the axes of, got [#] for [#, *]; "
    "take C.sequence.last or reduce over steps first",
)
wrong(
    "slice of nothing",
    lambda: S.slice(seq, 2, 1),
    "sequence.slice (@): expected begin_index < end_index, got [2:1]",
)
wrong(
    "sequence of a sequence",
    lambda: C.to_sequence(seq),
    "ToSequenceOp (@): expected an operand of the batch, got [#, *](3,) float32; its first static axis becomes the sequence axis",
)
wrong(
    "batch axis of sequences",
    lambda: C.reduce_sum(seq, C.Axis.default_batch_axis()),
    "ReduceElements (@): expected an operand without a sequence axis, got [#, *](3,) float32; "
    "reduce over C.Axis.all_axes(), or first over the sequence axis",
)
wrong(
    "sequence axis that is none",
    lambda: S.input_variable(3, sequence_axis=C.Axis(0)),
    "sequence_axis (@): expected a sequence axis such as C.Axis('t'), got Axis('staticAxisIdx=0')",
    TypeError,
)
wrong(
    "steps of another shape",
    lambda: (seq * 2).eval({seq: [np.ones((2, 4), F4)]}),
    "Input 'seq' (@seq): expected sequences of shape (steps, 3), got (2, 4) as sequence 0",
)
wrong(
    "no sequence",
    lambda: (seq * 2).eval({seq: []}),
    "Input 'seq' (@seq): expected at least one sequence, got none",
)
wrong(
    "fewer sequences than samples",
    lambda: (seq * v).eval({seq: [np.ones((2, 3), F4)], v: np.ones((2, 3), F4)}),
    "Input 'v' (@v): expected 1 samples in [#], as fed to 'seq', got 2",
)
wrong(
    "other lengths",
    lambda: (seq * S.input_variable(3, name="more")).eval({"seq": [ones, ones], "more": [ones, ones[:1]]}),
    "Input 'more' (@): expected sequences of the lengths fed to 'seq' in [#, *], got 1 steps in sequence 1, not 2; "
    "lengths of its own need an axis of its own: C.sequence.input_variable(..., sequence_axis=C.Axis('name'))",
)
wrong(
    "relabelled to other lengths",
    lambda: C.reconcile_dynamic_axes(seq, other).eval({seq: [ones], other: [ones[:1]]}),
    "sequences: expected equal lengths in [#, *] and [#, t], got [2] and [1]",
)
wrong(
    "more steps than there are",
    lambda: C.to_sequence(C.input_variable((2, 3), name="a"), C.input_variable((), name="n")).eval(
        {"a": np.ones((1, 2, 3), F4), "n": np.array([3], F4)}
    ),
    "to_sequence: expected whole sequence_lengths in [0, 2], got [3.0]",
)
wrong(
    "text as a sequence",
    lambda: (seq * 2).eval({seq: ["a"]}),
    "Input 'seq' (@seq): expected sequences of shape (steps, 3), got list that holds no arrays of numbers",
)
wrong(
    "lengths that do not fit",
    lambda: C.Value.of_steps(np.ones((3, 3), F4), [1, 1]),
    "Value (@): expected lengths that sum to the 3 steps, got [1, 1]",
)
wrong(
    "a class that is none",
    lambda: C.Value.one_hot([[0, 5]], 4),
    "Value.one_hot (@): expected classes in [0, 4), got 5",
)


# fmt: on


def told(use, kind):
    with pytest.raises(kind) as caught:
        use()
    return str(caught.value)


for row in (*WRONG, *WRONG_SAMPLED, *WRONG_TRAINING):
    wrong(*row)


@pytest.mark.parametrize(("use", "message", "kind"), ROWS)
def test_the_exact_words(use, message, kind):
    if isinstance(message, re.Pattern):  # what it says besides depends on the machine
        assert message.fullmatch(told(use, kind))
        return
    for name, x in sorted(NAMED.items(), key=lambda item: -len(item[0])):
        message = message.replace(f"(@{name})", f"({x.where})")
    for name, where in HERE.items():
        message = message.replace(f"(@{name})", f"({where})")
    message = message.replace("(@)", f"({os.path.basename(use.__code__.co_filename)}:{use.__code__.co_firstlineno})")
    assert told(use, kind) == message


def test_there_are_many():
    assert len(ROWS) >= 120


def test_the_line_is_where_it_was_made():
    line = test_the_line_is_where_it_was_made.__code__.co_firstlineno
    stem = L.Convolution2D((3, 3), 16, name="stem")  # line + 2
    net = L.Sequential([L.Dense(4, activation=C.relu), L.MaxPooling((2, 2), name="pool")])  # line + 3
    stem(image)
    assert told(lambda: stem(last), ValueError).startswith(f"Convolution2D 'stem' (test_errors.py:{line + 2}): ")
    assert told(lambda: net(image), ValueError).startswith(f"MaxPooling 'pool' (test_errors.py:{line + 3}): ")


def test_a_block_of_the_users_own_lets_its_nodes_speak():
    @C.BlockFunction("Mine", "mine")
    def block(x):
        return C.times(x, w)

    line = block.root.composite.root.where
    assert told(lambda: block(v), ValueError).startswith(f"Times ({line}): expected a left operand of shape (..., 4)")


def test_an_unnamed_layer_in_a_named_block_bears_its_name():
    @C.BlockFunction("Unit", "unit3")
    def unit(x):
        return L.Convolution2D((3, 3), 4, pad=True)(x)

    unit(image)
    assert told(lambda: unit(C.input_variable((2, 8, 8))), ValueError).startswith("Convolution2D 'unit3' (test_errors.py:")


# -------------------------------------------------------------------------------------------------------------- files and data
def model_file(path):
    L.Dense(2, name="d")(v).save(str(path))
    return path.read_bytes()


def forged(data, edit):
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size])
    edit(head)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def unknown_op(head):
    head["__metadata__"]["graph"] = head["__metadata__"]["graph"].replace('"times"', '"system"')


CUT = "the file is cut or is no model"
FILES = {
    "empty": (lambda d: b"", f"expected a model file, got 0 bytes; {CUT}"),
    "cut in the header": (lambda d: d[:100], f"expected a header within the file's 100 bytes, got one of @; {CUT}"),
    "cut in the tensors": (lambda d: d[:-4], "expected 32 bytes of tensors, got 28; the file is cut or has been added to"),
    "added to": (lambda d: d + b"x", "expected 32 bytes of tensors, got 33; the file is cut or has been added to"),
    "a text": (
        lambda d: b"hello world, no model",
        f"expected a header within the file's 21 bytes, got one of 8031924123371070824; {CUT}",
    ),
    "a huge header": (
        lambda d: struct.pack("<Q", 1 << 60) + b"{}",
        f"expected a header within the file's 10 bytes, got one of 1152921504606846976; {CUT}",
    ),
    "a forged shape": (
        lambda d: forged(d, lambda h: next(v for k, v in h.items() if k[0] == "W").update(shape=[1 << 40, 2])),
        "tensor 'W.1' has 24 bytes, where its shape (1099511627776, 2) takes 8796093022208; the file is damaged",
    ),
    "a forged op": (
        lambda d: forged(d, unknown_op),
        "expected ops that cogkit knows, got 'system'; the file is from a newer cogkit or forged",
    ),
    "no graph": (
        lambda d: forged(d, lambda h: h.pop("__metadata__")),
        "expected a cogkit model, got 'tensors without a graph'; write it with Function.save",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_model_files(name, tmp_path):
    data = model_file(tmp_path / "m")
    change, message = FILES[name]
    path = tmp_path / "bad"
    path.write_bytes(change(data))
    message = message.replace("@", str(struct.unpack("<Q", data[:8])[0]))
    assert told(lambda: C.load_model(str(path)), ModelFileError) == f"{path}: {message}"


def test_no_model_file(tmp_path):
    path = tmp_path / "none"
    message = f"{path}: expected a model file, got none; write one with Function.save"
    assert told(lambda: C.load_model(str(path)), FileNotFoundError) == message


def test_no_folder_to_save_to(tmp_path):
    path = tmp_path / "none" / "m"
    message = f"{path}: expected a folder {path.parent} to write to, got none; make it first"
    assert told(lambda: plus.save(str(path)), FileNotFoundError) == message


def test_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "m"
    model_file(path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = f"{path}: expected room for the file in {tmp_path}, got No space left on device; free some or choose another place"
    assert told(lambda: plus.save(str(path)), OSError) == message
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_a_device_is_not_replaced():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    assert told(lambda: plus.save("/dev/full"), OSError) == "/dev/full: expected a file or nothing to write to, got a device"


def test_values_of_another_model(tmp_path):
    path = tmp_path / "m"
    model_file(path)
    other = L.Dense(5)(v)
    message = f"{path}: expected float32 (3, 5) for {other.W!r}, got float32 (3, 2); the file is of another model"
    assert told(lambda: other.restore(str(path)), ModelFileError) == message


def test_no_checkpoint(tmp_path):
    trainer = C.Trainer(z, criterion, [C.sgd(mine, 0.1)])
    path = tmp_path / "none"
    message = f"{path}: expected a checkpoint, got nothing; write one with save_checkpoint"
    assert told(lambda: trainer.restore_from_checkpoint(str(path)), FileNotFoundError) == message


def test_no_data_set(tmp_path):
    path = tmp_path / "none.cgd"
    message = (
        f"{path}: expected a prepared data set, got no such file; make it with python -m cogkit.data prepare NAME --out {path}"
    )
    assert told(lambda: C.data.open_dataset(path), DataError) == message
    assert told(lambda: C.data.load("cifar11"), DataError).startswith("data set 'cifar11': expected one of an4, ")


# ------------------------------------------------------------------------------------------------------ every op, operands changed
def changed(shape, free):
    """Shapes near this one: axes more and less, sizes other, none and free."""
    more = tuple(n + 1 for n in shape)
    near = {
        (),
        (1,),
        (*shape, 2),
        (2, *shape),
        shape[1:],
        shape[:-1],
        more,
        tuple(0 for _ in shape),
        shape[::-1],
        shape[:1] + more[1:],
    }
    return sorted((near | ({(C.FreeDimension,) * len(shape)} if free else set())) - {shape})


def operand(spec, shape):
    if spec.role in ("param", "const"):
        return (C.parameter if spec.role == "param" else C.constant)(np.ones(shape, F4) if spec.role == "const" else shape)
    return C.input_variable(shape, needs_gradient=spec.grad, dynamic_axes=[C.Axis.default_batch_axis()] * (spec.role == "batch"))


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_a_misfit_is_a_sentence_or_no_misfit(case):
    """Whatever the shapes, an op runs or says in the one form what is wrong: never an error of the inside, at no stage."""
    here(case)
    if case.op == "batch_normalization":
        pytest.skip("the case itself asks for the operand's first axis")
    for i, spec in enumerate(case.specs):
        for shape in changed(spec.shape, spec.role not in ("param", "const")):
            operands = [operand(s, shape if j == i else s.shape) for j, s in enumerate(case.specs)]
            try:
                f = case.build(C, *operands)
                feed = {
                    v: np.ones((2,) * len(v.dynamic_axes) + tuple(3 if n == C.FreeDimension else n for n in v.shape), F4)
                    for v in f.arguments
                }
                f.eval(feed)
                wrt = [v for v in (*f.arguments, *f.parameters) if v.needs_gradient]
                if wrt and case.diff:
                    f.grad(feed, wrt=wrt, grad_root=f.outputs[0])
            except (ValueError, TypeError) as e:
                assert len(e.args) == 1 and isinstance(e.args[0], str), (case.name, i, shape, e)
                assert ": expected " in e.args[0] and ", got " in e.args[0], (case.name, i, shape, e)
