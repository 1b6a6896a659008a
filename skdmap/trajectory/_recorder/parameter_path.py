"""The path of a module that somebody else trains: where it is, and how far it has come."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skdmap._parameters import parameter_layout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._flat_parameters import CHUNK, move_to
from skdmap.trajectory._recorder.distributed import check_whole


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


class FoundParameters:
    """Finds the parameters of a row, and says so where the module has become another.

    Parameters
    ----------
    module : torch.nn.Module
        Its trainable parameters as they are now make the layout.
    patterns : str, sequence of str or None
        Which of them.

    Attributes
    ----------
    layout : ParameterLayout
        Of a row.
    """

    def __init__(self, module: nn.Module, patterns: str | Sequence[str] | None) -> None:
        self._module = module
        self.layout = parameter_layout(module, patterns)
        named = dict(module.named_parameters())
        self._shapes = {name: tuple(p.shape) for name, p in named.items()}
        self._frozen = {name: p for name, p in named.items() if not p.requires_grad}
        self._remember(named)

    def __call__(self) -> list[torch.Tensor]:
        """Return the tensors, in the order of the layout.

        Raises
        ------
        ValueError
            If names or shapes are other than they were.
        """
        if not self._is_as_remembered():
            named = dict(self._module.named_parameters())
            self._check_unchanged(named)
            self._remember(named)
        if any(parameter.requires_grad for parameter in self._frozen.values()):
            self._warn_thawed()
        return [parameter.detach() for parameter, _ in self._recorded]

    def _remember(self, named: dict[str, Any]) -> None:
        # To walk through the names costs as much as a step of a small network; to see that no part
        # of the module was replaced or added takes a comparison for each part.
        parts = list(self._module.modules())
        tables = [table for part in parts for table in (part._parameters, part._modules)]
        self._tables = [(table, [*map(id, table.values())]) for table in tables]
        # Held, or their numbers could come to mean others.
        self._held = [*parts, *named.values()]
        self._recorded = [(named[name], named[name].shape) for name in self.layout.names]
        self._frozen = {name: named[name] for name in self._frozen}

    def _is_as_remembered(self) -> bool:
        for table, numbers in self._tables:
            if [*map(id, table.values())] != numbers:
                return False
        return all(parameter.shape == shape for parameter, shape in self._recorded)

    def _check_unchanged(self, named: dict[str, Any]) -> None:
        shapes = {name: tuple(p.shape) for name, p in named.items()}
        if shapes != self._shapes:
            check_whole(self._module)
            changed = [
                f"{name} was {self._shapes.get(name, 'absent')}, is {shapes.get(name, 'absent')}"
                for name in {**self._shapes, **shapes}
                if shapes.get(name) != self._shapes.get(name)
            ]
            raise ValueError(
                f"module has other parameters than when its recording began ({changed[0]}; "
                f"{len(changed)} changed), must keep names and shapes. Begin a new recording, or "
                "give layers to be added their place before."
            )

    def _warn_thawed(self) -> None:
        thawed = [name for name, parameter in self._frozen.items() if parameter.requires_grad]
        for name in thawed:
            del self._frozen[name]
        warn(
            f"{', '.join(sorted(thawed))}: frozen when the recording began, trainable now, and no "
            "part of the rows. Begin a new recording to have them in.",
            SkdmapWarning,
        )
