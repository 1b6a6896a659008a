"""The path of a module that somebody else trains: where it is, and how far it has come."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skdmap.trajectory._recorder_layout import FoundParameters

__all__ = ["ParameterPath"]

# Numbers that stay in a core's cache between two looks at them.
_CHUNK = 2**16


class ParameterPath:
    """Follows the parameters of a module step by step.

    Parameters
    ----------
    module : torch.nn.Module
        Its trainable parameters as they are now make the layout.
    patterns : str, sequence of str or None
        Which of them.
    keeps_mark : bool
        Whether :attr:`distance` is asked for; it needs the memory of the parameters once more.

    Attributes
    ----------
    layout : ParameterLayout
        Of ``theta``.
    theta : Tensor of shape (n_parameters,)
        After the last step followed; changed in place by the next.
    """

    def __init__(
        self, module: nn.Module, patterns: str | Sequence[str] | None, *, keeps_mark: bool
    ) -> None:
        self._keeps_mark = keeps_mark
        self._find = FoundParameters(module, patterns)
        self.layout = self._find.layout
        self._path: Any = 0.0
        self._mark: torch.Tensor | None = None
        wide = any(p.dtype == torch.float64 for p in self._find())
        self._dtype = torch.float64 if wide else torch.float32
        self.restart()

    def restart(self) -> None:
        """Take the parameters as they are for the place to start from."""
        self.theta = self._flat(self._find())
        self.mark()

    def follow(self) -> None:
        """Take note of one more step.

        Raises
        ------
        ValueError
            If the module has not the parameters any more that it had.
        """
        parameters = self._find()
        if self.theta.device != parameters[0].device:
            # Trainers move a module to its device after the recording has begun.
            self.theta = self.theta.to(parameters[0].device)
        if len(self.theta) <= _CHUNK:
            theta = self._flat(parameters)
            move = theta - self.theta
            squared, self.theta = torch.dot(move, move), theta
        else:
            squared = self._follow_in_place(parameters)
        self._path = self._path + squared.sqrt()

    def mark(self) -> None:
        """Measure from here on."""
        self._path = 0.0
        self._mark = self.theta.clone() if self._keeps_mark else None

    @property
    def length(self) -> float:
        """Sum of the lengths of the steps since the mark."""
        return float(self._path)

    @property
    def distance(self) -> float:
        """Straight distance from the mark; nan where none is kept."""
        if self._mark is None:
            return math.nan
        return float(torch.linalg.vector_norm(self.theta - self._mark.to(self.theta.device)))

    def put_mark(self, theta: torch.Tensor) -> None:
        """Measure from another place on; the path to here is taken for straight."""
        start = theta.to(self.theta.device, self.theta.dtype)
        self._path = torch.linalg.vector_norm(self.theta - start)
        self._mark = start if self._keeps_mark else None

    def _flat(self, parameters: list[torch.Tensor]) -> torch.Tensor:
        flat = [parameter.reshape(-1) for parameter in parameters]
        if any(part.device != flat[0].device for part in flat):  # spread over several devices
            flat = [part.to(flat[0].device) for part in flat]
        return torch.cat(flat).to(self._dtype)

    def _follow_in_place(self, parameters: list[torch.Tensor]) -> torch.Tensor:
        """Write the new place over the old one, with memory for one chunk."""
        # Elsewhere than on a CPU each operation is a launch, and a cache is no matter.
        size = _CHUNK if self.theta.device.type == "cpu" else len(self.theta)
        squared = torch.zeros((), dtype=self._dtype, device=self.theta.device)
        for parameter, part in zip(parameters, self.layout.slices, strict=True):
            places = self.theta[part].split(size)
            for place, now in zip(places, parameter.reshape(-1).split(size), strict=True):
                now = now.to(place.device, self._dtype)
                move = now - place
                squared += torch.dot(move, move)
                place.copy_(now)
        return squared
