"""Training: a model, a criterion, learners, the minibatches that drive them, and what happens every so often meanwhile."""

from cogkit.train import fit
from cogkit.train.configs import *
from cogkit.train.session import *
from cogkit.train.trainer import *
