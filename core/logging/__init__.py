"""What a person sees of a training: progress lines, live progress, graphs as text and pictures."""

from cogkit.logging.progress import *
