"""What a person sees of a training: progress lines, live progress, graphs as text and pictures."""

from cogkit.logging import graph
from cogkit.logging.graph import *
from cogkit.logging.progress import *
