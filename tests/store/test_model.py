"""Model files: what goes in comes out; damaged and forged ones are refused with one kind of error and without big allocations."""

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cogkit import functions, ops, store
from cogkit.errors import ModelFileError
from cogkit.functions import CloneMethod, Function
from cogkit.store import model as M
from cogkit.variables import Parameter


def small_model():
    r = np.random.RandomState(3)
    x = ops.input_variable((4,), name="x")
    w = ops.parameter((4, 3), init=r.randn(4, 3).astype("f"), name="W")
    b = ops.parameter((3,), init=r.randn(3).astype("f"))
    h = ops.relu(ops.times(x, w) + b, name="h")
    inner = functions.BlockFunction("Scaled", "scaled")(lambda y: ops.clip(y * 2.0, -1.0, float("inf")))
    y = inner(h)
    return ops.combine([ops.reshape(y, (1, 3), name="y"), ops.dropout(h, 0.5, seed=7), ops.random_normal((2,), seed=3)])


def text(function):
    graph, tensors = store.graph_to_json(function)
    return json.dumps(graph), {k: v.tobytes() for k, v in tensors.items()}


def test_round_trip(tmp_path):
    model = small_model()
    store.save(model, tmp_path / "m")
    loaded = store.load_model(tmp_path / "m")
    assert text(loaded) == text(model)
    assert [v.name for v in loaded.arguments] == ["x"]
    assert [(v.shape, v.name) for v in loaded.outputs] == [(v.shape, v.name) for v in model.outputs]
    assert [p.name for p in loaded.parameters] == [p.name for p in model.parameters]
    for a, b in zip(model.parameters, loaded.parameters, strict=True):
        assert np.array_equal(a.value, b.value) and a.dtype == b.dtype
    assert text(store.load_model((tmp_path / "m").read_bytes())) == text(model)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = small_model()
    store.save(model, tmp_path / "a")
    store.save(store.load_model(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float64_scalars_and_empty_tensors(tmp_path):
    a = ops.parameter((), init=0.1, dtype=np.float64, name="a")
    b = ops.parameter((0, 3), dtype=np.float64, name="b")
    store.save(ops.combine([ops.exp(a), ops.exp(b)]), tmp_path / "m")
    loaded = store.load_model(tmp_path / "m")
    assert [(p.dtype, p.shape) for p in loaded.parameters] == [(np.float64, ()), (np.float64, (0, 3))]
    assert loaded.parameters[0].value == 0.1


def test_shared_parameters_stay_shared(tmp_path):
    w = ops.parameter((3, 3), name="W")
    x = ops.input_variable((3,))
    store.save(ops.times(ops.times(x, w), w), tmp_path / "m")
    assert len(store.load_model(tmp_path / "m").parameters) == 1


def test_a_function_with_placeholders(tmp_path):
    f = Function(lambda a, b: a + 2.0 * b)
    store.save(f, tmp_path / "m")
    g = store.load_model(tmp_path / "m")
    assert [v.name for v in g.arguments] == ["a", "b"]
    x, y = ops.input_variable((2,)), ops.input_variable((2,))
    assert g(x, y).shape == (2,)


def test_a_clone_of_a_loaded_model(tmp_path):
    store.save(small_model(), tmp_path / "m")
    loaded = store.load_model(tmp_path / "m")
    assert text(loaded.clone(CloneMethod.clone)) == text(loaded)


def test_restore(tmp_path):
    model, other = small_model(), small_model()
    other.parameters[0].value = other.parameters[0].value + 1
    store.save(other, tmp_path / "m")
    store.restore(model, tmp_path / "m")
    assert np.array_equal(model.parameters[0].value, other.parameters[0].value)
    x = ops.input_variable((4,))
    w = ops.parameter((4, 2), name="W")
    before = w.value
    with pytest.raises(ModelFileError, match="the file is of another model"):
        store.restore(ops.times(x, w), tmp_path / "m")
    assert np.array_equal(w.value, before)


def test_unknown_shapes_are_refused(tmp_path):
    w = ops.parameter((-1, 3), init=lambda shape, dtype: np.zeros(shape, dtype), name="W")
    with pytest.raises(ModelFileError, match="apply the model to an input before saving it"):
        store.save(ops.times(ops.placeholder(), w), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def forge(path, change):
    """A valid file whose graph or metadata `change` has altered."""
    metadata, tensors = store.read_tensors(path)
    graph = json.loads(metadata["graph"])
    change(metadata, graph)
    metadata["graph"] = json.dumps(graph)
    store.write_tensors(path, tensors, metadata)


def node(graph, op):
    return next(n for n in graph["nodes"] if n["op"] == op)


FORGED = {
    "version": (
        lambda m, g: m.update(version="2"),
        "expected a model of version 1 to 1, got version '2'; read it with the cogkit",
    ),
    "format": (lambda m, g: m.update(format="pt"), "expected a cogkit model, got 'pt'; write it with Function.save"),
    "unknown op": (lambda m, g: node(g, "times").update(op="system"), "expected ops that cogkit knows, got 'system'"),
    "inner op": (lambda m, g: node(g, "times").update(op="fill"), "expected ops that cogkit knows, got 'fill'"),
    "cycle": (lambda m, g: node(g, "times")["in"].__setitem__(0, [len(g["nodes"]) - 1, 0]), "a delay in every cycle"),
    "itself": (lambda m, g: node(g, "times")["in"].__setitem__(0, [0, 0]), "a delay in every cycle"),
    "dangling leaf": (lambda m, g: node(g, "times")["in"].__setitem__(0, 99), "a reference to 99"),
    "negative": (lambda m, g: node(g, "times")["in"].__setitem__(0, -1), "a reference to -1"),
    "no root": (lambda m, g: g.pop("root"), "KeyError"),
    "shape": (lambda m, g: node(g, "reshape")["attributes"].update(shape={"tuple": [7, 7]}), "reshape|Reshape"),
    "missing tensor": (lambda m, g: g["leaves"][0].update(kind="parameter", tensor="none"), "KeyError"),
    "many outputs": (lambda m, g: node(g, "times").update(outputs=10**9), "1000000000 outputs"),
    "name": (lambda m, g: node(g, "times").update(name=[1]), "a name that is a list"),
    "mark": (lambda m, g: node(g, "clip").update(attributes={"x": {"pickle": "!"}}), "unknown mark 'pickle'"),
    "borrowed block": (
        lambda m, g: g["nodes"].append(dict(node(g, "block"))) or g.update(root=len(g["nodes"]) - 1),
        "not its own",
    ),
    "nested": (lambda m, g: node(g, "clip").update(attributes={"x": json.loads("[" * 400 + "]" * 400)}), "."),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files(tmp_path, name):
    path = tmp_path / "m"
    store.save(small_model(), path)
    change, message = FORGED[name]
    forge(path, change)
    if name == "nested":
        try:
            store.load_model(path)
        except ModelFileError:
            return
        return
    with pytest.raises(ModelFileError, match=message) as error:
        store.load_model(path)
    assert str(path) in str(error.value)


def header(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    made = json.loads(data[8 : 8 + length])
    change(made)
    new = json.dumps(made).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])


def end(h):
    return max(e["data_offsets"][1] for name, e in h.items() if name != "__metadata__")


HEADERS = {
    "overflowing shape": (lambda h: h["W.1"].update(shape=[2**62, 4, 3]), "has 48 bytes, where its shape .* takes"),
    "negative size": (lambda h: h["W.1"].update(shape=[-4, -3]), "has a shape that is none"),
    "many dimensions": (lambda h: h["W.1"].update(shape=[1] * 10_000), "has a shape that is none"),
    "offsets beyond": (lambda h: h["W.1"].update(data_offsets=[2**40, 2**40 + 48]), "begins at 48, not at 0"),
    "overlap": (lambda h: h["W.1"].update(data_offsets=[4, 52]), "begins at"),
    "type": (lambda h: h["W.1"].update(dtype="BF16"), "element type 'BF16', not one of"),
    "float size": (lambda h: h["W.1"].update(shape=[4.0, 3]), "has a shape that is none"),
    "bool size": (lambda h: h["W.1"].update(shape=[True, 12]), "has a shape that is none"),
    "metadata": (lambda h: h.update(__metadata__={"version": 1}), "expected texts as metadata"),
    "extra tensor": (
        lambda h: h.update(z={"dtype": "F32", "shape": [2**40], "data_offsets": [end(h), end(h) + 2**42]}),
        "expected 4398046511.* bytes of tensors",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_forged_headers(tmp_path, name):
    path = tmp_path / "m"
    store.save(small_model(), path)
    change, message = HEADERS[name]
    header(path, change)
    with pytest.raises(ModelFileError, match=message):
        store.load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes"),
        (b"\x00" * 9, "got 9 bytes"),
        (b"\xff" * 100, "expected a header within the file's 100 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "expected a header within"),
        ((2).to_bytes(8, "little") + b"[]", "expected a header of named tensors"),
        ((2).to_bytes(8, "little") + b"{}", "expected a cogkit model, got 'tensors without a graph'"),
        ((4).to_bytes(8, "little") + b"{}  " + b"x", "cut or has been added to"),
        ((40).to_bytes(8, "little") + b'{"a":1,"a":2}'.ljust(40), "expected every key once"),
        ((9).to_bytes(8, "little") + b'{"a":NaN}', "expected numbers, got NaN"),
        ((20000).to_bytes(8, "little") + b"[" * 20000, "expected JSON"),
        (b"PK\x03\x04" + b"\x00" * 60, "cut or is no model|expected"),
    ],
)
def test_what_is_no_model(tmp_path, content, message):
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        store.load_model(path)
    with pytest.raises(ModelFileError, match=message):
        store.load_model(content)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        store.load_model(tmp_path / "none")
    with pytest.raises(ModelFileError, match="got a folder"):
        store.load_model(tmp_path)


def attempt(data):
    with contextlib.suppress(ModelFileError):
        store.load_model(data)


def test_fuzzed_bytes(tmp_path):
    """Flips and cuts: a model or a ModelFileError, nothing else."""
    path = tmp_path / "m"
    store.save(small_model(), path)
    data = path.read_bytes()
    r = random.Random(5)
    for _ in range(1500):
        bad = bytearray(data)
        for _ in range(r.choice([1, 1, 2, 8])):
            bad[r.randrange(len(bad))] = r.randrange(256)
        attempt(bytes(bad[: r.randrange(len(bad))] if r.random() < 0.3 else bad))


def mutate(value, r):
    """One random change somewhere in plain data."""
    if isinstance(value, dict) and value and r.random() < 0.9:
        key = r.choice(list(value))
        if r.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate(value[key], r)}
    if isinstance(value, list) and value and r.random() < 0.9:
        i = r.randrange(len(value))
        if r.random() < 0.1:
            return value[:i] + value[i + 1 :]
        return value[:i] + [mutate(value[i], r)] + value[i + 1 :]
    return r.choice(
        [None, True, -1, 0, 1, 2, 7, 2**31, 2**70, 1.5, "", "x", [], {}, [0], [1, 0], {"tuple": [2**40]}, {"axis": 1}, "block"]
    )


def test_fuzzed_graphs(tmp_path):
    """Well-formed files around a graph that makes no sense."""
    path = tmp_path / "m"
    store.save(small_model(), path)
    metadata, tensors = store.read_tensors(path)
    graph = json.loads(metadata["graph"])
    r = random.Random(6)
    refused = 0
    for _ in range(3000):
        bad = mutate(graph, r)
        if r.random() < 0.3:
            bad = mutate(bad, r)
        try:
            M.graph_from_json(bad, tensors, "m")
        except ModelFileError:
            refused += 1
    assert refused > 1000


def test_nothing_beyond_the_file_is_allocated(tmp_path):
    """Reading a forged file that promises terabytes under a cap on memory."""
    path = tmp_path / "m"
    store.save(small_model(), path)
    header(path, lambda h: h["W.1"].update(shape=[2**20, 2**20], data_offsets=[0, 2**42]))
    code = f"""
        import resource
        from cogkit import store
        from cogkit.errors import ModelFileError
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        try:
            store.load_model({str(path)!r})
        except ModelFileError as error:
            print("refused")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "refused", run.stderr


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The limit on file size stands for the disk: the write fails half-way in the kernel."""
    path = tmp_path / "m"
    big = Parameter((200_000,), 1.0, name="big")
    store.save(ops.exp(Parameter((2,), 1.0)), path)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.save(ops.exp(big), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


def test_saving_into_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        store.save(small_model(), tmp_path / "none" / "m")
