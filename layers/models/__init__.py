"""Layers that are models of their own."""

from cogkit.layers.models.attention import *
