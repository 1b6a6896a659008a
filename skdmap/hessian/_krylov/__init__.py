"""Lanczos iteration on any operator with a product: eigenpairs, trace, spectral density."""
