"""From the user's graph to what an engine runs: one pass a file."""
