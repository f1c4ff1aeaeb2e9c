"""Model files: one safetensors file a model, its graph as JSON in the metadata; nothing in them is ever executed."""

from cogkit.store.files import *
from cogkit.store.model import *
from cogkit.store.tensors import *
