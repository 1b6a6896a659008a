"""Recording of a training loop that is not ours: hooks, path, rows, processes."""
