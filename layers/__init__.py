"""Layers: functions that own parameters. Each call of a layer's maker makes new parameters; applying the result shares them."""

from cogkit.default_options import *
from cogkit.functions import BlockFunction
from cogkit.layers.composition import *
from cogkit.layers.convolution import *
from cogkit.layers.dense import *
from cogkit.layers.models import *
from cogkit.layers.normalization import *
from cogkit.layers.pooling import *
from cogkit.layers.recurrence import *
from cogkit.layers.sequence import *
from cogkit.layers.typing import *
