"""Speed and memory beside peers, measured in one run: `python -m benchmarks` from the repository's root (`make bench`)."""
