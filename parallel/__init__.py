"""cogkit.parallel: training on many ranks."""

from cogkit.parallel.communicator import *
from cogkit.parallel.simulate import *
from cogkit.parallel.world import *
