"""Update rules, their schedules and their state."""

from cogkit.learners.custom import *
from cogkit.learners.learner import *
from cogkit.learners.rules import *
from cogkit.learners.schedules import *
