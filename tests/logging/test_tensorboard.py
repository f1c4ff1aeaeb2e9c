"""Event files: read back by a reader written from the formats' texts; by TensorBoard's own where it is installed."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

import cogkit as C
import cogkit.layers as L
from cogkit.logging import TensorBoardProgressWriter


def crc32c(data):
    """Bit by bit, as the polynomial is written."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        (n,) = struct.unpack_from("<Q", data)
        assert struct.unpack_from("<I", data, 8)[0] == masked(data[:8])
        event = data[12 : 12 + n]
        assert struct.unpack_from("<I", data, 12 + n)[0] == masked(event)
        yield event
        data = data[16 + n :]


def fields(message):
    """[(number, value)] of a protocol buffer: whole numbers, bytes, 8 and 4 bytes as floats."""
    out, at = [], 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 2:
            n = varint()
            value, at = message[at : at + n], at + n
        else:
            form, n = ("<d", 8) if key & 7 == 1 else ("<f", 4)
            value, at = struct.unpack_from(form, message, at)[0], at + n
        out.append((key >> 3, value))
    assert at == len(message)
    return out


def read(folder):
    """(scalars [(step, tag, value)], images {tag: array}, graph [(name, op, inputs)]) of the one file in a folder."""
    (file,) = folder.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    scalars, images, graph = [], {}, []
    events = [fields(e) for e in records(file.read_bytes())]
    assert dict(events[0])[3] == b"brain.Event:2"
    for event in events[1:]:
        e = dict(event)
        assert e[1] > 1.7e9
        if 4 in e:
            for number, node in fields(e[4]):
                if number == 1:
                    parts = fields(node)
                    n = dict(parts)
                    graph.append((n[1].decode(), n[2].decode(), [v.decode() for k, v in parts if k == 3]))
        if 5 in e:
            value = dict(fields(dict(fields(e[5]))[1]))
            tag = value[1].decode()
            if 2 in value:
                scalars.append((e.get(2, 0), tag, value[2]))
            else:
                picture = dict(fields(value[4]))
                pixels = np.asarray(Image.open(io.BytesIO(picture[4])))
                assert pixels.shape[:2] == (picture[1], picture[2]) and (pixels.ndim == 2) == (picture[3] == 1)
                images[tag] = pixels
    return scalars, images, graph


def train(writer, net=None):
    """Two epochs of five minibatches, each with a test of two."""
    x, y = C.input_variable(2), C.input_variable(1)
    z = net(x) if net else L.Dense(1, init=0.5)(x)
    error = C.squared_error(z, y)
    trainer = C.Trainer(z, (error, error), [C.sgd(z.parameters, [0.1, 0.01])], [writer])
    batch = {x: np.zeros((6, 2), "f"), y: np.ones((6, 1), "f")}
    for _ in range(2):
        for i in range(5):
            trainer.train_minibatch(batch, is_sweep_end=i == 4)
        trainer.summarize_training_progress()
        trainer.test_minibatch(batch)
        trainer.test_minibatch(batch)
        trainer.summarize_test_progress()
    return z


def test_scalars(tmp_path):
    """Tags and steps are CNTK 2.7's; the learning rate and the speed are ours."""
    writer = TensorBoardProgressWriter(2, tmp_path)
    train(writer)
    writer.write_value("norm", 2.5, 7)
    writer.close()
    writer.write_value("late", 1.0, 8)
    scalars, _, _ = read(tmp_path)
    assert [(s, t) for s, t, _ in scalars if "per_second" not in t] == [
        *((0, "learning rate"), (2, "minibatch/avg_loss"), (2, "minibatch/avg_metric"), (4, "minibatch/avg_loss")),
        *((4, "minibatch/avg_metric"), (1, "summary/avg_loss"), (1, "summary/avg_metric"), (5, "minibatch/test_avg_metric")),
        *((5, "learning rate"), (7, "minibatch/avg_loss"), (7, "minibatch/avg_metric"), (9, "minibatch/avg_loss")),
        *((9, "minibatch/avg_metric"), (2, "summary/avg_loss"), (2, "summary/avg_metric"), (10, "minibatch/test_avg_metric")),
        (7, "norm"),
    ]
    values = {(s, t): v for s, t, v in scalars}
    assert values[0, "learning rate"] == np.float32(0.1) and values[7, "norm"] == 2.5
    mean = [(1 - (1 - (1 - 0.1 * 2) ** k)) ** 2 for k in range(2)]  # the bias goes a fifth of its way to 1 in each minibatch
    assert values[2, "minibatch/avg_loss"] == pytest.approx(sum(mean) / 2, rel=1e-5)


def test_graph(tmp_path):
    model = L.Sequential([L.Dense(4, activation=C.relu, name="hidden"), L.Dense(1)])
    x = C.input_variable(2, name="x")
    z = model(x)
    TensorBoardProgressWriter(log_dir=tmp_path, model=z).close()
    _, _, graph = read(tmp_path)
    names = [name for name, _, _ in graph]
    assert len(set(names)) == len(names) and ("x", "Input", []) in graph
    assert ("hidden/W", "Parameter", []) in graph and any(op == "ReLU" and n.startswith("hidden/") for n, op, _ in graph)
    assert all(i in names for _, _, inputs in graph for i in inputs), "every edge has two ends"


def test_graph_of_a_recurrence(tmp_path):
    x = C.sequence.input_variable(3, name="x")
    z = L.Sequential([L.Recurrence(L.LSTM(4)), L.Dense(2)])(x)
    TensorBoardProgressWriter(log_dir=tmp_path, model=z).close()
    _, _, graph = read(tmp_path)
    assert "PastValue" in {op for _, op, _ in graph}


def test_images(tmp_path):
    writer = TensorBoardProgressWriter(log_dir=tmp_path)
    x = C.input_variable((3, 4, 5))
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    grey = np.linspace(-1, 1, 20, dtype="f").reshape(1, 1, 4, 5)
    writer.write_image("colour", {x: colour}, 1)
    writer.write_image("grey", grey, 2)
    writer.close()
    _, images, _ = read(tmp_path)
    assert np.array_equal(images["colour/1"], colour[1].transpose(1, 2, 0))
    assert images["grey/0"].min() == 0 and images["grey/0"].max() == 255 and images["grey/0"].shape == (4, 5)


def test_extremes(tmp_path):
    """A diverged loss is an infinity, a rank other than 0 writes nothing, files of one second have names of their own."""
    writer = TensorBoardProgressWriter(1, tmp_path / "a")
    for x in (1e300, -1e300, float("nan"), 1e-300):
        writer.write_value("x", x, 1)
    writer.close()
    got = [v for _, _, v in read(tmp_path / "a")[0]]
    assert got[0] == np.inf and got[1] == -np.inf and np.isnan(got[2]) and got[3] == 0
    other = TensorBoardProgressWriter(1, tmp_path / "b", rank=1)
    other.write_value("x", 1.0, 1)
    other.close()
    assert not (tmp_path / "b").exists()
    for _ in range(3):
        TensorBoardProgressWriter(1, tmp_path / "c").close()
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_tensorboard_reads_it(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    writer = TensorBoardProgressWriter(1, tmp_path)
    train(writer)
    writer.write_image("x", np.zeros((1, 1, 3, 3), "f"), 1)
    writer.close()
    (file,) = tmp_path.iterdir()
    events = list(loader.LegacyEventFileLoader(str(file)).Load())
    assert sum(v.HasField("simple_value") for e in events for v in e.summary.value) == len(read(tmp_path)[0])


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (lambda p: TensorBoardProgressWriter(-1, p), ValueError, "expected freq of 0 or more"),
        (lambda p: TensorBoardProgressWriter(1, p, model=3), TypeError, "expected a function as model, got int"),
        (
            lambda p: TensorBoardProgressWriter(1, p).write_image("x", np.zeros((2, 5, 5)), 1),
            ValueError,
            "got one of shape \\(2, 5, 5\\)",
        ),
    ],
)
def test_refusals(use, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        use(tmp_path)
