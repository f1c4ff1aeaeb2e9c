"""Walking, finding and drawing graphs."""

import shutil

import pytest

import cogkit as C
import cogkit.layers as L
from cogkit import functions, ops
from cogkit.logging import graph as G


def model():
    x = ops.input_variable((4,), name="x")
    w = ops.parameter((4, 3), name="W")
    h = ops.relu(ops.times(x, w, name="product"), name="h")
    inner = functions.BlockFunction("Twice", "twice")(lambda y: ops.exp(y + y, name="inside"))
    return inner(ops.alias(h, name="same")), x, w


def test_depth_first_search():
    z, x, w = model()
    everything = G.depth_first_search(z, lambda v: True)
    assert everything[0].name == "twice"
    assert [v for v in everything if v is x] and [v for v in everything if v is w]
    assert len({id(v.root) if isinstance(v, functions.Function) else id(v) for v in everything}) == len(everything)
    assert not any(v.name == "inside" for v in everything)
    assert [v.name for v in G.depth_first_search(z, lambda v: v.name == "inside", depth=1)] == ["inside"]
    assert [v.name for v in G.depth_first_search(z, lambda v: v.name == "inside", depth=-1)] == ["inside"]


def test_find():
    z, x, w = model()
    assert G.find_by_name(z, "W") is w
    assert G.find_by_name(z, "product").op_name == "Times"
    assert G.find_by_name(z, "none") is None
    assert G.find_by_uid(z, x.uid) is x
    assert [f.name for f in G.find_all_with_name(z, "h")] == ["h"]
    with pytest.raises(ValueError, match="expected one node named 'W', got 2; use find_all_with_name"):
        G.find_by_name(ops.combine(z, ops.parameter((1,), name="W") + 1.0), "W")
    with pytest.raises(TypeError, match="expected a name as text"):
        G.find_by_name(z, 3)
    assert "product" in {v.name for v in G.get_node_outputs(z)}


def test_plot_text():
    z, *_ = model()
    lines = G.plot(z).splitlines()
    assert lines[0] == "Times 'product'(x, W) -> product [#](3)"
    assert lines[-1].startswith("Twice 'twice'(same) -> twice [#](3)")
    assert C.logging.graph.plot(z) == C.logging.plot(z)


def test_plot_dot(tmp_path):
    z, *_ = model()
    G.plot(z, tmp_path / "m.dot")
    text = (tmp_path / "m.dot").read_text()
    assert text.startswith("digraph") and '"x"' in text and "Times" in text


def test_plot_picture(tmp_path, monkeypatch):
    z, *_ = model()
    if shutil.which("dot"):
        G.plot(z, tmp_path / "m.svg")
        assert "<svg" in (tmp_path / "m.svg").read_text()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="expected the program 'dot' for a .svg picture, found none; install Graphviz"):
        G.plot(z, tmp_path / "n.svg")
    with pytest.raises(ValueError, match="expected a file name that ends in .dot, .svg, .png or .pdf"):
        G.plot(z, tmp_path / "n.gif")


def test_log_number_of_parameters(capsys):
    z, *_ = model()
    C.logging.log_number_of_parameters(z, 1)
    assert capsys.readouterr().out.splitlines() == ["12 parameters in 1 tensor", "  W: 4 x 3"]


@pytest.mark.parametrize(
    ("depth", "inside"),
    [
        (0, []),
        (1, ["Dense"]),
        (2, ["Dense", "Plus", "Plus", "Times", "Times"]),
        (-1, ["Convolution", "Dense", "Plus", "Plus", "Plus", "Pooling", "ReLU", "Times", "Times"]),
    ],
)
def test_depth_counts_the_blocks_on_the_way(depth, inside):
    """The numbers of nodes are CNTK's."""
    dense = L.Dense(10)
    outer = functions.BlockFunction("Outer", "outer")(lambda x: dense(x))
    layers = [L.Convolution((5, 5), 2, activation=C.relu), L.MaxPooling((3, 3), strides=2), L.Dense(10), outer]
    z = L.Sequential(layers)(C.input_variable((3, 32, 32), name="image"))
    found = G.depth_first_search(z, lambda v: True, depth)
    assert [v.kind for v in found if not isinstance(v, functions.Function)].count("Placeholder") == 0
    names = [v.op_name for v in found if isinstance(v, functions.Function)]
    assert sorted(names) == sorted(["Convolution", "MaxPooling", "Dense", "Outer", *inside])
    assert sum(1 for v in found if isinstance(v, C.Parameter)) == 6
