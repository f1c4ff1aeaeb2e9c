"""Model files: one safetensors file a model, its graph as JSON in the metadata; nothing in them is ever executed."""

from cogkit.store.files import write_file_aside
from cogkit.store.model import ModelFormat, graph_from_json, graph_to_json, load_model, restore, save
from cogkit.store.tensors import read_json, read_tensors, write_tensors

__all__ = ["ModelFormat", "load_model"]  # what the face shows; the rest is for the loop and the tests
