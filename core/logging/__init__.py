"""What a person sees of a training: progress lines, live progress, TensorBoard's files, graphs as text and pictures."""

from cogkit.logging import graph
from cogkit.logging.graph import *
from cogkit.logging.live import *
from cogkit.logging.printer import *
from cogkit.logging.progress import *
from cogkit.logging.tensorboard import *
