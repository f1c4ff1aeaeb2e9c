"""CNTK's module names: what a script imports from them is what cogkit has."""

import importlib
import subprocess
import sys

import pytest

import cogkit as C
from cogkit.cntk_modules import CNTK_MODULES


@pytest.mark.parametrize("name", sorted(CNTK_MODULES))
def test_every_module_can_be_imported(name):
    if any(importlib.util.find_spec(m) is None for m in CNTK_MODULES[name]):
        pytest.skip(f"cogkit.{name} stands for a part that is not there")
    module = importlib.import_module(f"cogkit.{name}")
    assert all(hasattr(module, n) for n in module.__all__)


def test_a_script_of_cntk_imports_what_it_needs():
    """In a process of its own: nothing was imported before."""
    script = """
from cogkit.io import CTFDeserializer, MinibatchSource, StreamDef, StreamDefs
import cogkit.io.transforms as xforms
from cogkit.layers.blocks import LSTM
from cogkit.layers import Dense, Sequential
from cogkit.ops.functions import load_model, Function
from cogkit.device import cpu, try_set_default_device
from cogkit.logging.progress_print import ProgressPrinter
from cogkit.train.trainer import Trainer
from cogkit.eval import Evaluator
import cogkit.tensor
from cogkit.layers.layers import *
import cogkit as C
assert Dense is C.layers.Dense and MinibatchSource is C.io.MinibatchSource and xforms.scale is C.io.transforms.scale
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_in_no_module_is_an_attribute_error():
    module = importlib.import_module("cogkit.layers.blocks")
    with pytest.raises(AttributeError, match="cogkit.layers.blocks"):
        _ = module.no_such_layer
    with pytest.raises(ImportError):
        importlib.import_module("cogkit.no_such_module")
    assert "LSTM" in dir(module) and module.LSTM is C.layers.LSTM
