"""The path of a module that somebody else trains: where it is, and how far it has come."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skdmap._parameters import check_real, parameter_layout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._flat_parameters import CHUNK, move_to
from skdmap.trajectory._recorder.distributed import check_whole


class ParameterPath:
    """Follow the recorded parameters of a module step by step.
    ``theta`` (n_parameters,) holds them after the last step; the next one changes it in place.
    """

    def __init__(
        self, module: nn.Module, patterns: str | Sequence[str] | None, *, keeps_mark: bool
    ) -> None:
        """``keeps_mark``: distances from the mark are asked for, which takes a second copy."""
        self._keeps_mark = keeps_mark
        self._keeps_last = False
        self._last: torch.Tensor | None = None  # where the last step began
        self._length_to_last: Any = 0.0  # from the mark before it
        self._move: Any = 0.0
        self._parameters = RecordedParameters(module, patterns)
        self.layout = self._parameters.layout
        self._length: Any = 0.0
        self._mark: torch.Tensor | None = None
        wide = any(p.dtype == torch.float64 for p in self._parameters())
        self._dtype = torch.float64 if wide else torch.float32
        self.restart()

    def restart(self) -> None:
        """Start from the parameters as they are."""
        parameters = self._parameters()
        self._dtypes = [parameter.dtype for parameter in parameters]
        self.theta = self._flat(parameters)
        self.mark()

    def follow(self) -> None:
        """Add one step to the path; ValueError where the module has other parameters now."""
        parameters = self._parameters()
        if self.theta.device != parameters[0].device:
            # Trainers move a module to its device after the recording has begun.
            self.theta = self.theta.to(parameters[0].device)
        self._length_to_last = self._length
        if len(self.theta) <= CHUNK:
            theta = self._flat(parameters)
            move = theta - self.theta
            squared, self._last, self.theta = torch.dot(move, move), self.theta, theta
        else:
            self._last = self.theta.clone() if self._keeps_last else None
            squared = move_to(self.theta, [p.reshape(-1) for p in parameters])
        self._move = squared.sqrt()
        self._length = self._length + self._move

    def follow_again(self) -> float:
        """Let the last step end at the parameters as they are; return the length with it."""
        self._keeps_last = True
        theta = self._flat(self._parameters()).to(self.theta.device)
        if self._last is None:  # of a large module the start of the step is kept from now on
            before, last = self._length_to_last + self._move, self.theta
        else:
            before, last = self._length_to_last, self._last.to(self.theta.device)
        self.theta = theta
        self._length = before + torch.linalg.vector_norm(theta - last)
        return float(self._length)

    def has_moved(self) -> bool:
        """Return whether the parameters differ from those after the last step followed.
        A module of another type of numbers has not moved: they are rounded.
        """
        parameters = self._parameters()
        if [parameter.dtype for parameter in parameters] != self._dtypes:
            return False
        theta = self._flat(parameters).to(self.theta.device)
        same = (theta == self.theta) | (theta.isnan() & self.theta.isnan())
        return not bool(same.all())

    def mark(self) -> None:
        """Measure from here on."""
        self._length = 0.0
        self._mark = self.theta.clone() if self._keeps_mark else None

    @property
    def length(self) -> float:
        """Sum of the lengths of the steps since the mark."""
        return float(self._length)

    @property
    def lazy_length(self) -> Any:
        """The same, not read yet where it is a tensor."""
        return self._length

    @property
    def distance(self) -> float:
        """Straight distance from the mark; nan where none is kept."""
        if self._mark is None:
            return math.nan
        return float(torch.linalg.vector_norm(self.theta - self._mark.to(self.theta.device)))

    def put_mark(self, theta: torch.Tensor) -> None:
        """Measure from ``theta`` (n_parameters,) on; the path from there to here is straight."""
        start = theta.to(self.theta.device, self.theta.dtype)
        self._length = torch.linalg.vector_norm(self.theta - start)
        self._mark = start if self._keeps_mark else None

    def set_length(self, length: float) -> None:
        """Take the length of the path from the mark to here, where it is known otherwise."""
        self._length = length

    def _flat(self, parameters: list[torch.Tensor]) -> torch.Tensor:
        flat = [parameter.reshape(-1) for parameter in parameters]
        if any(part.device != flat[0].device for part in flat):  # spread over several devices
            flat = [part.to(flat[0].device) for part in flat]
        return torch.cat(flat).to(self._dtype)


class RecordedParameters:
    """Look up the parameters of a row; raise where the module has changed its names or shapes."""

    def __init__(self, module: nn.Module, patterns: str | Sequence[str] | None) -> None:
        self._module = module
        self.layout = parameter_layout(module, patterns)
        check_real(module, self.layout.names)
        named = dict(module.named_parameters())
        self._shapes = {name: tuple(p.shape) for name, p in named.items()}
        self._frozen = {name: p for name, p in named.items() if not p.requires_grad}
        self._remember(named)

    def __call__(self) -> list[torch.Tensor]:
        """Return the tensors in the order of the layout, detached."""
        if not self._is_as_remembered():
            named = dict(self._module.named_parameters())
            self._check_unchanged(named)
            self._remember(named)
        if any(parameter.requires_grad for parameter in self._frozen.values()):
            self._warn_thawed()
        return [parameter.detach() for parameter, _ in self._recorded]

    def _remember(self, named: dict[str, Any]) -> None:
        # Walking through the names costs as much as a step of a small network; comparing the
        # tables of each submodule is enough to see that none was replaced or added.
        modules = list(self._module.modules())
        tables = [table for one in modules for table in (one._parameters, one._modules)]
        self._tables = [(table, [*map(id, table.values())]) for table in tables]
        # References are held: the id of a freed object can be given to a new one.
        self._held = [*modules, *named.values()]
        self._recorded = [(named[name], named[name].shape) for name in self.layout.names]
        self._frozen = {name: named[name] for name in self._frozen}

    def _is_as_remembered(self) -> bool:
        for table, ids in self._tables:
            if [*map(id, table.values())] != ids:
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
                f"{len(changed)} changed); names and shapes must stay. Start a new recording, or "
                "add all layers before this one starts."
            )

    def _warn_thawed(self) -> None:
        thawed = [name for name, parameter in self._frozen.items() if parameter.requires_grad]
        for name in thawed:
            del self._frozen[name]
        warn(
            f"{', '.join(sorted(thawed))} were frozen when the recording began and are trainable "
            "now. The rows do not contain them. Start a new recording to include them.",
            SkdmapWarning,
        )
