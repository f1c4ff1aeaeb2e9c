"""Training: a model, a criterion, learners, and the minibatches that drive them."""

from cogkit.train.trainer import *
