"""Update rules, their schedules and their state."""

from cogkit.learners.schedules import *
