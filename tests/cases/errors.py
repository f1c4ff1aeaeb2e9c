"""Wrong uses of ops and layers and the words they get: a name, the use on one line, its words (`@` is that line), the kind of error."""

import numpy as np

import cogkit as C

L = C.layers
F4 = np.float32
WRONG = []


def wrong(name, use, message, kind=ValueError):
    WRONG.append((name, use, message, kind))


def run(f):
    """f of zeros, a batch of one."""
    return f.eval({x: np.zeros((1, *x.shape), F4) for x in f.arguments})


v = C.input_variable(3, name="v")
image = C.input_variable((3, 32, 32), name="image")
seq = C.sequence.input_variable(3, name="seq")
w = C.parameter((4, 5), name="w")

# fmt: off - a row is a name, the use on one line, its words
wrong(
    "top_k of more than there are",
    lambda: C.top_k(v, 4),
    "TopK (@): expected k of at most 3, the size of axis 0 of (3,), got 4",
)
wrong("top_k of none", lambda: C.top_k(v, 0), "TopK (@): expected k of at least 1, got 0")
wrong(
    "top_k of a number",
    lambda: C.top_k(C.input_variable(()), 1),
    "TopK (@): expected an operand with an axis to look along, got a number",
)
wrong(
    "top_k over all axes",
    lambda: C.top_k(image, 2, C.Axis.all_static_axes()),
    "TopK (@): expected one static axis, got all; flatten the operand first: C.reshape(x, (C.InferredDimension,))",
)
wrong(
    "top_k, other axis",
    lambda: C.top_k(v, 1, 1),
    "TopK (@): expected an axis in [-1, 1), got 1; axes count static dimensions only",
)
wrong(
    "top_k along the batch",
    lambda: C.top_k(v, 1, C.Axis.default_batch_axis()),
    "Axis 'defaultBatchAxis': expected a static axis, got a dynamic one; it has no index",
)
wrong(
    "argmax of nothing",
    lambda: C.argmax(C.input_variable((0, 3)), 0),
    "Argmax (@): expected at least one entry to find an index among, got (0, 3)",
)
wrong(
    "argmin along an axis that is not there",
    lambda: C.argmin(v, 3),
    "Argmin (@): expected an axis in [-1, 1), got 3; axes count static dimensions only",
)
wrong(
    "hardmax of nothing",
    lambda: C.hardmax(C.input_variable((2, 0))),
    "Hardmax (@): expected at least one entry to find an index among, got (2, 0)",
)
wrong(
    "softmax along an axis that is not there",
    lambda: C.softmax(image, 3),
    "Softmax (@): expected an axis in [-3, 3), got 3; axes count static dimensions only",
)
wrong(
    "gather along another axis",
    lambda: C.gather(w, v, axis=2),
    "GatherOp (@): expected an axis in [-2, 2), got 2; axes count static dimensions only",
)
wrong(
    "gather from a number",
    lambda: C.gather(C.parameter(()), v),
    "GatherOp (@): expected a reference with an axis to take entries of, got a number",
)
wrong("one_hot of no class", lambda: C.one_hot(v, 0), "OneHotOp (@): expected at least one class, got 0")
wrong(
    "one_hot along another axis",
    lambda: C.one_hot(v, 4, axis=3),
    "OneHotOp (@): expected an axis in [-2, 2), got 3; axes count static dimensions only",
)
wrong(
    "depth to space, channels",
    lambda: C.depth_to_space(image, 2),
    "DepthToSpace (@): expected channels divisible by block_size squared = 4, got 3",
)
wrong(
    "depth to space of a matrix",
    lambda: C.depth_to_space(w, 2),
    "DepthToSpace (@): expected an operand (channels, height, width), got (4, 5)",
)
wrong(
    "depth to space, half a block",
    lambda: C.depth_to_space(image, 1.5),
    "DepthToSpace (@): expected a whole block_size of at least 1, got 1.5",
)
wrong(
    "space to depth, no block",
    lambda: C.space_to_depth(image, 0),
    "SpaceToDepth (@): expected a whole block_size of at least 1, got 0",
)
wrong(
    "space to depth, height",
    lambda: C.space_to_depth(image, 5),
    "SpaceToDepth (@): expected a height and a width divisible by block_size = 5, got (32, 32)",
)
wrong(
    "crop of a vector",
    lambda: C.crop_manual(v, image, 0, 0),
    "Crop (@): expected images, whose last axes are height and width, got (3,)",
)
wrong(
    "crop beyond the image",
    lambda: C.crop_manual(image, image, 1, 0),
    "Crop (@): expected a crop within (32, 32), got (32, 32) from (0, 1) on",
)
wrong(
    "crop before the image",
    lambda: C.crop_manual(image, image, -1, 0),
    "Crop (@): expected offsets of at least 0, got -1 and 0",
)
wrong(
    "crop of strangers",
    lambda: run(C.crop_automatic(image, C.input_variable((1, 9, 9)))),
    "Crop (@): expected two images with a common ancestor, over convolutions, pools and pointwise ops, got none; "
    "name ancestors with C.crop_automatic_with_ancestors, or the offsets with C.crop_manual",
)
wrong(
    "crop of another scale",
    lambda: run(C.crop_automatic(image, C.pooling(image, C.MAX_POOLING, (2, 2), strides=(2, 2)))),
    "Crop (@): expected images of one scale, got steps of 1 and 2 in their ancestor; scale one with convolution_transpose",
)
wrong(
    "crop before an image",
    lambda: run(C.crop_automatic(C.pooling(image, C.MAX_POOLING, (3, 3)), image[:, :8, :8])),
    "Crop (@): expected a crop within (30, 30), got (8, 8) from (-1, -1) on",
)
wrong(
    "image_scaler, biases",
    lambda: C.image_scaler(image, 1.0, [1.0, 2.0]),
    "ImageScaler (@): expected 3 biases, one a channel, got 2",
)
wrong(
    "image_scaler, no list",
    lambda: C.image_scaler(image, 1.0, 1.0),
    "ImageScaler (@): expected biases as a list of numbers, got 1.0",
)
wrong(
    "image_scaler of a vector",
    lambda: C.image_scaler(v, 1.0, [1.0, 2.0, 3.0]),
    "ImageScaler (@): expected an operand (channels, height, width), got (3,)",
)
wrong(
    "regions, kind",
    lambda: C.roipooling(image, C.input_variable((2, 4)), 7, (3, 3), 1.0),
    "ROIPooling (@): expected C.MAX_POOLING or C.AVG_POOLING, got 7",
)
wrong(
    "regions of five numbers",
    lambda: C.roipooling(image, C.input_variable((2, 5)), C.MAX_POOLING, (3, 3), 1.0),
    "ROIPooling (@): expected regions of shape (regions, 4), got (2, 5); a region is x1, y1, x2, y2",
)
wrong(
    "regions, one size",
    lambda: C.roipooling(image, C.input_variable((2, 4)), C.MAX_POOLING, 3, 1.0),
    "ROIPooling (@): expected a roi_output_shape of two sizes of at least 1, got 3",
)
wrong(
    "regions, no bins",
    lambda: C.roipooling(image, C.input_variable((2, 4)), C.MAX_POOLING, (3, 0), 1.0),
    "ROIPooling (@): expected a roi_output_shape of two sizes of at least 1, got (3, 0)",
)
wrong(
    "regions, scale",
    lambda: C.roipooling(image, C.input_variable((2, 4)), C.MAX_POOLING, (3, 3), 0.0),
    "ROIPooling (@): expected a spatial_scale above 0, got 0.0",
)
wrong(
    "regions of a matrix",
    lambda: C.roipooling(w, C.input_variable((2, 4)), C.MAX_POOLING, (3, 3), 1.0),
    "ROIPooling (@): expected an operand (channels, height, width), got (4, 5)",
)
wrong(
    "unpooling, window",
    lambda: C.unpooling(image, v, C.MAX_UNPOOLING, (2, 2)),
    "Unpooling (@): expected an operand of at least 2 axes for the window (2, 2), got (3,)",
)
wrong(
    "unpooling, sizes",
    lambda: C.unpooling(image, image, C.MAX_UNPOOLING, (2, 2), strides=(2, 2)),
    "Unpooling (@): expected an operand of the shape (3, 16, 16) to which this window pools (3, 32, 32), got (3, 32, 32)",
)
wrong("unpooling, kind", lambda: C.unpooling(image, image, 3, (2, 2)), "Unpooling (@): expected C.MAX_UNPOOLING, got 3")
wrong(
    "batch of what has rows",
    lambda: C.to_batch(v),
    "ToBatchAxis (@): expected an operand without rows, got [#](3,) float32; C.unpack_batch makes the batch a static axis",
)
wrong(
    "batch of a number",
    lambda: C.to_batch(C.parameter(())),
    "ToBatchAxis (@): expected an operand with an axis to make a batch of, got a number",
)
wrong(
    "no batch to unpack",
    lambda: C.unpack_batch(w),
    "UnpackBatchAxis (@): expected an operand of the batch, without a sequence axis, got (4, 5) float32",
)
wrong(
    "sequences to unpack as a batch",
    lambda: C.unpack_batch(seq),
    "UnpackBatchAxis (@): expected an operand of the batch, without a sequence axis, got [#, *](3,) float32; "
    "C.sequence.unpack comes first",
)
wrong(
    "two batches",
    lambda: run(v * C.to_batch(C.parameter((4, 3)), name="four")),
    "ElementTimes (@): expected operands of one row space, got [#] of 'v' and [batchOf_4] of 'four'; "
    "reconcile them with C.sequence.broadcast_as, C.sequence.last or C.sequence.unpack",
)
wrong(
    "eye of a vector",
    lambda: C.eye_like(C.parameter(3)),
    "EyeLikeOp (@): expected two axes, the batch axis counted, and no sequence axis, got (3,) float32",
)
wrong(
    "eye of an image",
    lambda: C.eye_like(image),
    "EyeLikeOp (@): expected two axes, the batch axis counted, and no sequence axis, got [#](3, 32, 32) float32",
)
wrong(
    "eye of sequences",
    lambda: C.eye_like(seq),
    "EyeLikeOp (@): expected two axes, the batch axis counted, and no sequence axis, got [#, *](3,) float32",
)
wrong(
    "normalisation of a number",
    lambda: C.mean_variance_normalization(C.input_variable(())),
    "MeanVarianceNormalization (@): expected an operand with an axis to normalise over, got a number",
)
wrong(
    "normalisation, epsilon",
    lambda: C.mean_variance_normalization(v, epsilon=-1),
    "MeanVarianceNormalization (@): expected an epsilon of at least 0, got -1",
)
wrong(
    "per-dimension normalisation",
    lambda: C.per_dim_mean_variance_normalize(v, np.zeros(2, F4), np.ones(2, F4)),
    "PerDimMeanVarianceNormalize (@): expected operands whose shapes broadcast, got (3,) and (2,) and (2,); "
    "sizes must be equal or 1, aligned at the last axis",
)
wrong(
    "per-dimension normalisation of more",
    lambda: C.per_dim_mean_variance_normalize(v, np.zeros((2, 3), F4), np.ones((2, 3), F4)),
    "PerDimMeanVarianceNormalize (@): expected a mean and a deviation that broadcast to (3,), got (2, 3) and (2, 3)",
)
wrong(
    "response normalisation of a vector",
    lambda: C.local_response_normalization(v, 1, 1, 1, 1),
    "LocalResponseNormalization (@): expected an operand (channels, 1 to 3 spatial axes), got (3,)",
)
wrong(
    "response normalisation, radius",
    lambda: C.local_response_normalization(image, -1, 1, 1, 1),
    "LocalResponseNormalization (@): expected a depth_radius of at least 0, got -1",
)
wrong(
    "pad, mode",
    lambda: C.pad(v, [(1, 1)], mode=5),
    "Pad (@): expected a mode among CONSTANT_PAD, REFLECT_PAD and SYMMETRIC_PAD, got 5",
)
wrong("pad, pairs", lambda: C.pad(image, [(1, 1)]), "Pad (@): expected a pair for each static axis of (3, 32, 32), got 1")
wrong(
    "pad, symmetric",
    lambda: C.pad(v, [(4, 0)], mode=C.SYMMETRIC_PAD),
    "Pad (@): expected pads of at least 0 and at most 3, got (4, 0) for size 3",
)
wrong("slice, stride 0", lambda: C.slice(v, 0, 0, 2, 0), "Slice (@): expected a stride other than 0, got 0")
wrong(
    "slice, other axis",
    lambda: C.slice(v, 1, 0, 2),
    "Slice (@): expected an axis in [-1, 1), got 1; axes count static dimensions only",
)
wrong(
    "swapaxes",
    lambda: C.swapaxes(v),
    "TransposeAxes (@): expected an axis in [-1, 1), got 1; axes count static dimensions only",
)
wrong(
    "expand_dims",
    lambda: C.expand_dims(v, 2),
    "ExpandDims (@): expected an axis in [-1, 1), got 2; axes count static dimensions only",
)
wrong("flatten", lambda: C.flatten(v, 3), "Flatten (@): expected an axis in [-2, 2), got 3; axes count static dimensions only")
wrong(
    "reshape, two inferred",
    lambda: C.reshape(image, (-1, -1)),
    "Reshape (@): expected at most one inferred size, got (?, ?)",
)
wrong("reshape, turned axes", lambda: C.reshape(image, (3,), 2, 1), "Reshape (@): expected begin_axis <= end_axis, got 2 and 1")
wrong(
    "reduce over nothing",
    lambda: C.reduce_sum(v, ()),
    "ReduceElements (@): expected at least one axis to reduce over, got none; None is all static axes",
)
wrong(
    "reduce over steps of none",
    lambda: C.reduce_sum(v, C.Axis.default_dynamic_axis()),
    "ReduceElements (@): expected an operand with a sequence axis, got [#](3,) float32; "
    "reduce over the batch axis or static axes",
)
wrong(
    "product over steps",
    lambda: C.reduce_prod(seq, C.Axis.default_dynamic_axis()),
    "ReduceElements (@): expected sum, mean, max or min over a sequence axis, got prod",
)
wrong(
    "sum over steps of no sequence",
    lambda: C.times(v, w[:3], infer_input_rank_to_map=C.TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK),
    "Sequence::ReduceElements (@): expected an operand with a sequence axis, got [#](5,) float32; "
    "make its input with C.sequence.input_variable, or use broadcast_as",
)
wrong(
    "times_transpose",
    lambda: C.times_transpose(v, w),
    "TransposeTimes (@): expected last axes of one size, got (3,) and (4, 5); the right operand is (outputs, inputs)",
)
wrong(
    "convolution, groups below 1",
    lambda: C.convolution(C.parameter((2, -1, 3, 3)), image, groups=0),
    "Convolution (@): expected groups of at least 1, got 0",
)
wrong(
    "convolution, four axes",
    lambda: C.convolution(C.parameter((2, 3, 1, 1, 1, 1)), C.input_variable((3, 2, 2, 2, 2))),
    "Convolution (@): expected a kernel of at most 3 spatial axes, got (2, 3, 1, 1, 1, 1); "
    "the kernel is (filters, channels, spatial...)",
)
wrong(
    "convolution, kernels by place",
    lambda: C.convolution(C.parameter((2, 3, 3, 3)), image, sharing=[False]),
    "Convolution (@): expected sharing = True, got False; kernels that differ from place to place are not supported",
)
wrong(
    "transposed, channels",
    lambda: C.convolution_transpose(C.parameter((2, 4, 3, 3)), image),
    "ConvolutionTranspose (@): expected 2 channels, got 3 in (3, 32, 32); the kernel is (channels in, filters, spatial...)",
)
wrong(
    "transposed, sizes",
    lambda: C.convolution_transpose(C.parameter((3, 4, 3, 3)), image, output_shape=(5,)),
    "ConvolutionTranspose (@): expected an output_shape of 2 sizes, got (5,)",
)
wrong(
    "transposed, no filters",
    lambda: L.ConvolutionTranspose2D((3, 3), None),
    "ConvolutionTranspose (@): expected a number of filters, got None",
)
wrong(
    "transposed, reduction",
    lambda: L.ConvolutionTranspose2D((3, 3), 2, reduction_rank=0),
    "ConvolutionTranspose (@): expected reduction_rank = 1, got 0; give x a channel axis",
)
wrong(
    "transposed layer, window",
    lambda: L.ConvolutionTranspose1D((3, 3), 2),
    "ConvolutionTranspose1D (@): expected filter_shape as one value or 1, got (3, 3)",
)
wrong(
    "bias of other filters",
    lambda: L.Convolution2D((3, 3), 4, init_bias=np.ones(3)),
    "Parameter 'b' (@): expected an initial value of shape (4, 1, 1), got (3, 1, 1)",
)
wrong(
    "For, two arguments",
    lambda: L.For(range(2), lambda a, b: L.Dense(3)),
    "For (@): expected a constructor of one argument or none, got one of 2",
    TypeError,
)
wrong("no clique", lambda: L.SequentialClique([]), "SequentialClique (@): expected at least one layer, got none")
wrong(
    "dropout, both",
    lambda: L.Dropout(0.5, keep_prob=0.5),
    "Dropout (@): expected exactly one of dropout_rate and keep_prob, got both",
)
wrong("dropout, neither", lambda: L.Dropout(), "Dropout (@): expected exactly one of dropout_rate and keep_prob, got neither")
wrong("dropout of all", lambda: L.Dropout(1.0), "Dropout (@): expected a rate in [0, 1), got 1.0")
wrong(
    "unpooling layer",
    lambda: L.MaxUnpooling((2, 2), strides=(1, 2, 3)),
    "MaxUnpooling (@): expected strides as one value or 2, got (1, 2, 3)",
)
wrong(
    "normalised channels",
    lambda: L.BatchNormalization(map_rank=2),
    "BatchNormalization (@): expected map_rank None, 0 or 1, got 2",
)
wrong(
    "a transposed weight",
    lambda: L.Convolution((3, 3), 4, transpose_weight=True),
    "Convolution (@): expected transpose_weight = False, got True; use ConvolutionTranspose",
)
wrong("sum of nothing", lambda: C.sum(), "sum (@): expected at least one operand, got none")
wrong(
    "assign, other shape",
    lambda: C.assign(C.parameter((2, 3)), C.parameter(3)),
    "Assign (@): expected a value of its target's type (2, 3) float32, got (3,) float32",
)
# fmt: on
