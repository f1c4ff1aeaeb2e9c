"""Delay compensation: asynchronous SGD whose gradients are corrected for what other workers did meanwhile."""
