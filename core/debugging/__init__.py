"""Tools for looking into a model: stepping, values and gradients of nodes, where NaN comes from, where time goes, checks of gradients."""

from cogkit.debugging.check import *
from cogkit.debugging.dump import *
from cogkit.debugging.gradients import *
from cogkit.debugging.profiler import *
from cogkit.debugging.settings import *
from cogkit.debugging.stepping import *
