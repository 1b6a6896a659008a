"""The parameters of a module that somebody else trains, found again at each step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skdmap._parameters import parameter_layout
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._recorder_whole import check_whole

__all__ = ["FoundParameters"]


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
