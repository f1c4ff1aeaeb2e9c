"""cogkit.parallel: training on many ranks."""

from cogkit.parallel.asgd import *
from cogkit.parallel.block_momentum import *
from cogkit.parallel.communicator import *
from cogkit.parallel.data_parallel import *
from cogkit.parallel.delays import *
from cogkit.parallel.learner import *
from cogkit.parallel.minibatch_size import *
from cogkit.parallel.simulate import *
from cogkit.parallel.world import *
