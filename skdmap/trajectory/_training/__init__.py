"""Training runs of the sampler."""
