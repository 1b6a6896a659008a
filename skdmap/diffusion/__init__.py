"""Rows -> graph -> kernel -> Markov operator -> eigenpairs -> embedding, and back."""

from skdmap.diffusion._diffusion_map import DiffusionMap

__all__ = ["DiffusionMap"]
