"""cogkit.parallel: distributed learners."""
