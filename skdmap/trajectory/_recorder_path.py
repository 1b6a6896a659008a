"""The path of a module that somebody else trains: where it is, and how far it has come."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skdmap.trajectory._flat_path import CHUNK, move_to
from skdmap.trajectory._recorder_layout import FoundParameters

__all__ = ["ParameterPath"]


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
        if len(self.theta) <= CHUNK:
            theta = self._flat(parameters)
            move = theta - self.theta
            squared, self.theta = torch.dot(move, move), theta
        else:
            squared = move_to(self.theta, [p.reshape(-1) for p in parameters])
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
