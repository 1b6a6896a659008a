"""Parameters as one flat vector that is updated step by step, and the length of each step."""

import math
from collections.abc import Sequence

import numpy as np
import torch

# Entries that fit into a core's cache.
CHUNK = 2**16


def move_to(theta: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Write the flat ``parts`` over the vector ``theta`` and return its squared displacement.
    Parts on other devices, or of other types, are converted.
    """
    # Chunk by chunk: at 10^7 parameters this takes a quarter of the time of a new vector and
    # torch.dist, which pass over memory twice as often, and over memory that is new each time.
    # On other devices than a CPU each operation is a launch, and caches do not matter.
    size = CHUNK if theta.device.type == "cpu" else max(1, len(theta))
    squared = torch.zeros((), dtype=theta.dtype, device=theta.device)
    start = 0
    for part in parts:
        places = theta[start : start + len(part)].split(size)
        start += len(part)
        for place, now in zip(places, part.split(size), strict=True):
            now = now.to(place.device, place.dtype)
            move = now - place
            squared += torch.dot(move, move)
            place.copy_(now)
    return squared


class FlatPath:
    """The vector of parameters that something else changes, in ``theta``; ``follow`` updates it.
    float64 where one of the parameters is, else float32. A later call may write over ``theta``.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._views: list[torch.Tensor] = []
        self._places: list[int] = []
        wide = any(p.dtype == torch.float64 for p in self._parameters)
        self._dtype = torch.float64 if wide else torch.float32
        self.theta = torch.cat(self._flat()).to(self._dtype)
        self._is_long = len(self.theta) > CHUNK

    def follow(self) -> float:
        """Read the parameters as they are now, and return the distance from where they were."""
        if self._is_long:
            return math.sqrt(move_to(self.theta, self._flat()).item())
        before, theta = self.theta, torch.cat(self._flat())
        # At small modules a conversion that does nothing counts.
        self.theta = theta if theta.dtype == self._dtype else theta.to(self._dtype)
        move = self.theta - before
        return math.sqrt(torch.dot(move, move).item())

    def row(self, dtype: torch.dtype) -> np.ndarray:
        """Return the vector as an array that later calls do not change."""
        return self.theta.to("cpu", dtype, copy=self._is_long).numpy()

    def _flat(self) -> list[torch.Tensor]:
        """Return flat views of the parameters, made anew where they do not fit any more."""
        if self._places != [p.data_ptr() for p in self._parameters]:
            # The first time, where a tensor was put in another's place, or where reshape copies.
            self._views = [p.detach().reshape(-1) for p in self._parameters]
            self._places = [view.data_ptr() for view in self._views]
        return self._views
