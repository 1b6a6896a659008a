"""Parameters as one flat vector that follows them step by step, and how far each step goes."""

import math
from collections.abc import Sequence

import numpy as np
import torch

# Numbers that stay in a core's cache between two looks at them.
CHUNK = 2**16


def move_to(theta: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Write new values over a vector, with memory for one chunk.

    At 10^7 parameters this takes a quarter of the time of a new vector and ``torch.dist``, which
    pass over memory twice as often, and over memory that is new each time.

    Parameters
    ----------
    theta : Tensor of shape (n,)
        Changed in place.
    parts : sequence of Tensor
        Flat; together the new values. On other devices, or of other types, they are converted.

    Returns
    -------
    Tensor of shape ()
        Squared distance that ``theta`` has moved.

    Examples
    --------
    >>> theta = torch.zeros(3)
    >>> move_to(theta, [torch.tensor([3.0]), torch.tensor([0.0, 4.0])]), theta
    (tensor(25.), tensor([3., 0., 4.]))
    """
    # Elsewhere than on a CPU each operation is a launch, and a cache is no matter.
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
    """Follows parameters that somebody else changes.

    Parameters
    ----------
    parameters : sequence of Parameter
        On one device.

    Attributes
    ----------
    theta : Tensor of shape (n_parameters,)
        After the last call of :meth:`follow`, float64 where one of the parameters is, else
        float32. The next call may write over it.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> path = FlatPath([weight])
    >>> with torch.no_grad():
    ...     _ = weight.copy_(torch.tensor([3.0, 4.0]))
    >>> path.follow(), path.theta
    (5.0, tensor([3., 4.]))
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._views: list[torch.Tensor] = []
        wide = any(p.dtype == torch.float64 for p in self._parameters)
        self._dtype = torch.float64 if wide else torch.float32
        self.theta = torch.cat(self._flat()).to(self._dtype)
        self._is_long = len(self.theta) > CHUNK

    def follow(self) -> float:
        """Take the parameters as they are now, and return the distance from where they were."""
        if self._is_long:
            return math.sqrt(move_to(self.theta, self._flat()).item())
        before, self.theta = self.theta, torch.cat(self._flat()).to(self._dtype)
        move = self.theta - before
        return math.sqrt(torch.dot(move, move).item())

    def row(self, dtype: torch.dtype) -> np.ndarray:
        """Return the vector as an array that stays as it is."""
        return self.theta.to("cpu", dtype, copy=self._is_long).numpy()

    def _flat(self) -> list[torch.Tensor]:
        """Return flat views of the parameters, made anew where they do not fit any more."""
        pairs = zip(self._views, self._parameters, strict=False)
        if not self._views or any(v.data_ptr() != p.data_ptr() for v, p in pairs):
            # The first time, where a tensor was put in another's place, or where reshape copies.
            self._views = [p.detach().reshape(-1) for p in self._parameters]
        return self._views
