"""The settings and texts of nodes, beside those that CNTK 2.7 gives (goldens/make_attributes.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
from goldens.make_attributes import operands

import cogkit as C

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "attributes.json").read_text())
# Ops that are a label of their own here.
LABELS = {"ConstantOp", "ReduceL1", "ReduceL2", "ReduceSumSquare"}


@pytest.mark.parametrize("golden", GOLDENS, ids=[g["case"] for g in GOLDENS])
def test_attributes_are_cntks(golden):
    root = eval(golden["case"], operands(C, np)).root_function
    assert {k: repr(v) for k, v in root.attributes.items()} == golden["attributes"]
    if golden["op"] not in LABELS and root.op_name not in ("Argmax", "Argmin", "ConvolutionTranspose"):
        assert root.op_name == golden["op"]
        if root.op_name != "Convolution":  # CNTK's pads the axis of the channels too where one flag stands for all
            assert str(root) == golden["text"]


def test_settings_are_set_under_either_name():
    f = C.dropout(C.input_variable(3), 0.25, seed=7)
    f.set_attribute("dropoutRate", 0.5)
    f.set_attribute("seed", 9)
    assert f.attributes == {"dropoutRate": 0.5, "rngSeed": 9, "rngOffset": 0}
    with pytest.raises(ValueError, match="expected an attribute it has .dropoutRate, rngSeed., got 'rate'"):
        f.set_attribute("rate", 0.5)


def test_custom_attributes(tmp_path):
    f = C.input_variable(2) + 1
    assert f.custom_attributes == {}
    f.custom_attributes = {"text": "a", "deep": {"list": [1, 2.5], "none": None}}
    f.root_function.custom_attributes["later"] = True
    f.save(tmp_path / "m")
    kept = {"text": "a", "deep": {"list": [1, 2.5], "none": None}, "later": True}
    assert C.load_model(tmp_path / "m").custom_attributes == kept
    copy = f.clone("share")
    assert copy.custom_attributes == kept and copy.custom_attributes["deep"] is not f.custom_attributes["deep"]
    assert (f + 1).custom_attributes == {}
