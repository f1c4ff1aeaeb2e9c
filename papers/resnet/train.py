"""One run: a residual or plain net on small images, by the recipe of CNTK's ResNet example.

Momentum 0.9 with unit gain, learning rates for the mean gradient of a minibatch (ten times the paper's, which has no unit gain),
L2 1e-4 on all parameters, minibatches of 128, images padded by 4, cropped and flipped.
"""

import numpy as np

import cogkit as C
from cogkit.data import ArrayDeserializer, MinibatchSource, StreamDef, StreamDefs, open_dataset, transforms
from cogkit.papers.resnet.model import network
from cogkit.papers.training import PaperSession

__all__ = ["METRICS", "run"]

METRICS = {"train_error": "training error, %", "test_error": "test error, %", "parameters": "parameters"}
TEST_BATCH = 500


def run(row, data, out):
    """Trains one row. train_error: of the last epoch's minibatches as they were trained on; test_error: of the final model."""
    dataset = open_dataset(data[0])
    train = dataset["train"]
    classes = len(train.streams["labels"].classes)
    mean = train.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    schedule = read_schedule(row.schedule)
    epochs = sum(length for length, _ in schedule)

    x, y = C.input_variable(train.features.shape[1:]), C.input_variable(classes)
    z = network(x, row.depth, row.shortcut, classes, row.seed, row.stem_stride)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    rates = C.learning_parameter_schedule(
        [(round(10 * length), rate) for length, rate in schedule], minibatch_size=row.batch, epoch_size=train.count // 10
    )
    momentum = C.momentum_schedule(row.momentum, minibatch_size=row.batch)
    learner = C.momentum_sgd(z.parameters, rates, momentum, unit_gain=True, l2_regularization_weight=row.l2)
    trainer = C.Trainer(z, (loss, error), [learner])

    last = round(epochs * train.count)
    source = images(train, mean, classes, row.seed, last, augment=True)
    streams = {x: source.streams.features, y: source.streams.labels}
    out.expect(last)

    def test() -> dict[str, float]:
        return {"test_error": evaluate(trainer, x, y, dataset["test"], mean, classes)}

    session = PaperSession(out, trainer, source, row.batch, streams, train.count, test)
    if (found := out.resume()) is not None:
        session.resume(found[0])
    session.train()
    return {
        "train_error": out.curve[-1]["train_error"],
        "test_error": out.curve[-1]["test_error"],
        "parameters": sum(int(np.prod(p.shape)) for p in z.parameters),
    }


def read_schedule(text: str) -> list[tuple[float, float]]:
    """`1.0x80 0.1x40` -> [(80.0, 1.0), (40.0, 0.1)]: epochs at each learning rate. Raises ValueError."""
    steps = []
    for word in text.split():
        rate, sign, length = word.partition("x")
        try:
            steps.append((float(length), float(rate)))
        except ValueError:
            raise ValueError(f"schedule: expected RATExEPOCHS as in 1.0x80, got '{word}'") from None
    if not steps or sum(length for length, _ in steps) % 1:
        raise ValueError(f"schedule: expected a whole number of epochs in all, got '{text}'")
    return steps


def images(split, mean: np.ndarray, classes: int, seed: int, samples: int, augment: bool) -> MinibatchSource:
    """A source over one split: mean image taken off, about unit variance; padded, cropped and flipped where asked."""
    steps = [transforms.normalize(mean, 1 / 64)] + ([transforms.pad_crop_flip(4)] if augment else [])
    streams = StreamDefs(features=StreamDef(field="features", transforms=steps), labels=StreamDef(field="labels", shape=classes))
    return MinibatchSource(ArrayDeserializer(split, streams), max_samples=samples, randomization_seed=seed, randomize=augment)


def evaluate(trainer, x, y, split, mean: np.ndarray, classes: int) -> float:
    """Error on a whole split in per cent, with the running statistics of batch normalisation."""
    source = images(split, mean, classes, 0, split.count, augment=False)
    streams = {x: source.streams.features, y: source.streams.labels}
    wrong = 0.0
    while minibatch := source.next_minibatch(TEST_BATCH, input_map=streams):
        wrong += trainer.test_minibatch(minibatch) * minibatch[x].num_samples
    return 100 * wrong / split.count
