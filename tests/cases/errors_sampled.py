"""Wrong uses of random ops, samplers, losses, metrics and initialisers: rows of test_errors.py."""

import numpy as np

import cogkit as C

WRONG = []


def wrong(name, use, message, kind=ValueError):
    WRONG.append((name, use, message, kind))


x, y = C.input_variable(3, name="x"), C.input_variable(5, name="y")
image = C.input_variable((2, 3), name="image")
W, b = C.parameter((5, 3), name="W"), C.parameter((5, 1), name="b")
number = C.input_variable(1, name="number")
rate = C.constant(np.ones((3,), "f"), name="rate")
noise = np.ones(5, "f")

# ruff: noqa: E501 - a row is a name, the use, its words
wrong("samples, none", lambda: C.random_sample([1.0, 2.0], 0, True), "RandomSample (@): expected num_samples of 1 or more, got 0")
wrong(
    "samples, half a one",
    lambda: C.random_sample([1.0, 2.0], 1.5, True),
    "RandomSample (@): expected num_samples of 1 or more, got 1.5",
)
wrong(
    "samples, negative weight",
    lambda: C.random_sample([1.0, -2.0], 1, True),
    "RandomSample (@): expected finite weights of 0 or more, got -2",
)
wrong(
    "samples, infinite weight",
    lambda: C.random_sample([1.0, np.inf], 1, True),
    "RandomSample (@): expected finite weights of 0 or more, got inf",
)
wrong(
    "samples, too few classes",
    lambda: C.random_sample([1.0, 2.0], 3, False),
    "RandomSample (@): expected at most 2 samples without duplicates of 2 classes, got 3",
)
wrong(
    "samples, too few weights",
    lambda: C.random_sample([1.0, 0.0, 0.0], 2, False),
    "RandomSample (@): expected at least 2 weights above 0, got 1",
)
wrong(
    "samples, no weight",
    lambda: C.random_sample([0.0, 0.0], 1, True),
    "RandomSample (@): expected at least 1 weights above 0, got 0",
)
wrong(
    "samples, weights of rows",
    lambda: C.random_sample(x, 2, True),
    "RandomSample (@): expected weights of shape (classes,) without rows, got [#](3,) float32",
)
wrong(
    "samples, a matrix",
    lambda: C.random_sample(np.ones((2, 3), "f"), 2, True),
    "RandomSample (@): expected weights of shape (classes,) without rows, got (2, 3) float32",
)
wrong(
    "frequency, none",
    lambda: C.random_sample_inclusion_frequency([1.0, 2.0], -1, True),
    "RandomSampleInclusionFrequency (@): expected num_samples of 1 or more, got -1",
)
wrong(
    "frequency, too few classes",
    lambda: C.random_sample_inclusion_frequency([1.0, 2.0], 3, False),
    "RandomSampleInclusionFrequency (@): expected at most 2 samples without duplicates of 2 classes, got 3",
)
wrong(
    "nce, inputs",
    lambda: C.nce_loss(W, b, C.input_variable(4), y, noise),
    "NCE (@): expected inputs of shape (3,) for weights (5, 3), got (4,)",
)
wrong(
    "nce, labels",
    lambda: C.nce_loss(W, b, x, C.input_variable(4), noise),
    "NCE (@): expected labels of shape (5,) for weights (5, 3), got (4,)",
)
wrong(
    "nce, biases",
    lambda: C.nce_loss(W, C.parameter((4,)), x, y, noise),
    "NCE (@): expected biases of shape (5,) for weights (5, 3), got (4,)",
)
wrong(
    "nce, noise",
    lambda: C.nce_loss(W, b, x, y, np.ones(4, "f")),
    "NCE (@): expected noise_distribution of shape (5,) for weights (5, 3), got (4,)",
)
wrong(
    "nce, weights",
    lambda: C.nce_loss(C.parameter((5,)), b, x, y, noise),
    "NCE (@): expected weights of shape (classes, inputs) without rows, got (5,) float32",
)
wrong("nce, noise below 0", lambda: C.nce_loss(W, b, x, y, -noise), "NCE (@): expected finite weights of 0 or more, got -1")
wrong(
    "nce, samples",
    lambda: C.nce_loss(W, b, x, y, noise, num_samples=6, allow_duplicates=False),
    "NCE (@): expected at most 5 samples without duplicates of 5 classes, got 6",
)
wrong(
    "sampled softmax, inputs",
    lambda: C.losses.sampled_softmax_loss(W, b, image, y, noise),
    "SampledSoftmax (@): expected inputs of shape (3,) for weights (5, 3), got (2, 3)",
)
wrong(
    "hierarchical softmax, no classes",
    lambda: C.losses.hierarchical_softmax_layer(x, number, 0),
    "hierarchical_softmax_layer (@): expected classes and groups, got 0 in 0",
)
wrong(
    "hierarchical softmax, image",
    lambda: C.losses.hierarchical_softmax_layer(image, number, 9),
    "hierarchical_softmax_layer (@): expected an input of shape (inputs,), got Input('image', [#], [2 x 3])",
)
wrong(
    "lambda rank, vectors",
    lambda: C.losses.lambda_rank(x, number, number),
    "LambdaRank (@): expected one number a row as score, gain and query, got (3,)",
)
wrong(
    "lambda rank, no rows",
    lambda: C.losses.lambda_rank(C.constant(1.0), C.constant(2.0), C.constant(1.0)),
    "LambdaRank (@): expected values with rows, got values without; a ranking is one of a minibatch's rows",
)
wrong(
    "ndcg, vectors",
    lambda: C.metrics.ndcg_at_1(number, x, number),
    "NDCG (@): expected one number a row as score, gain and query, got (3,)",
)
wrong(
    "negative samples, none",
    lambda: C.cosine_distance_with_negative_samples(x, x, 1, 0),
    "CosDistanceWithNegativeSamples (@): expected a shift of 0 or more and num_negative_samples of 1 or more, got shift 1 and num_negative_samples 0",
)
wrong(
    "negative samples, no rows",
    lambda: C.cosine_distance_with_negative_samples(rate, rate, 1, 1),
    "CosDistanceWithNegativeSamples (@): expected vectors with rows, got none; the other rows of a minibatch are the negative samples",
)
wrong("f-measure, beta", lambda: C.losses.fmeasure(x, x, -1), "FMeasure (@): expected a beta of 0 or more, got -1")
wrong(
    "f-measure, shapes",
    lambda: C.losses.fmeasure(x, y),
    "FMeasure (@): expected outputs and targets of one shape, got (3,) and (5,); class labels are one-hot: C.one_hot(labels, n)",
)
wrong("focal loss, gamma", lambda: C.losses.focal_loss(x, x, -1), "FocalLoss (@): expected a gamma of 0 or more, got -1")
wrong(
    "focal loss, alpha",
    lambda: C.losses.focal_loss(y, y, 2, rate),
    "FocalLoss (@): expected alpha as a number or of shape (5,), got (3,)",
)
wrong("top 0", lambda: C.classification_error(y, y, topN=0), "ClassificationError (@): expected topN >= 1, got 0")
wrong("initialiser, scale", lambda: C.initializer.glorot_uniform(0), "glorot_uniform (@): expected a scale above 0, got 0")
wrong(
    "initialiser, too few axes",
    lambda: C.parameter((4,), init=C.initializer.he_normal(output_rank=1, filter_rank=2)),
    "Parameter (@): expected at least 3 axes for he_normal(scale=1, output_rank=1, filter_rank=2), got (4,)",
)
wrong("bilinear, not square", lambda: C.initializer.bilinear(3, 4), "bilinear (@): expected a square kernel, got (3, 4)")
wrong(
    "bilinear, channels",
    lambda: C.parameter((2, 3, 4, 4), init=C.initializer.bilinear(4, 4)),
    "Parameter (@): expected as many input as output channels for bilinear, got (2, 3, 4, 4); each channel is interpolated alone",
)
