"""A private copy of a module, a criterion and data: parameters and rows -> loss of these rows."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.func import functional_call

from .._parameters import ParameterLayout, flatten_parameters, unflatten_parameters
from ._arrays import as_data, match_column
from ._criterion import as_targets, takes_labels

__all__ = ["ModuleLoss"]

Rows = slice | torch.Tensor


@dataclass(frozen=True)
class ModuleLoss:
    """The loss of some rows as a function of a flat parameter vector; draws and changes nothing.

    Attributes
    ----------
    module : torch.nn.Module
        In eval mode, without gradients, shared with nobody.
    criterion : callable
        Likewise where it is a module.
    X : Tensor of shape (n_rows, ...)
        The data.
    y : Tensor of shape (n_rows, ...) or None
        The targets.
    layout : ParameterLayout
        Of the flat vector.
    """

    module: torch.nn.Module
    criterion: Callable[..., torch.Tensor]
    X: torch.Tensor
    y: torch.Tensor | None
    layout: ParameterLayout

    @classmethod
    def of(
        cls,
        module: torch.nn.Module,
        criterion: Callable[..., torch.Tensor],
        X: Any,
        y: Any,
        layout: ParameterLayout,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Return the loss of copies, of the data too."""
        if isinstance(criterion, torch.nn.Module):
            criterion = _private_copy(criterion, dtype, device)
        data, targets = as_data("X", X, dtype, device), None
        if y is not None:
            targets = as_targets(criterion, as_data("y", y, dtype, device), dtype)
        return cls(_private_copy(module, dtype, device), criterion, data, targets, layout)

    @property
    def has_running_statistics(self) -> bool:
        """Whether a layer keeps means over batches, as BatchNorm does."""
        parts = self.module.modules()
        return any(getattr(part, "running_mean", None) is not None for part in parts)

    def own_point(self) -> torch.Tensor:
        """Return the module's own parameters, shape (n_parameters,)."""
        return flatten_parameters(self.module, self.layout)

    def of_rows(self, theta: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return the loss of these rows alone, a scalar tensor.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
            The parameters.
        rows : slice or Tensor of int64
            Which rows.

        Returns
        -------
        Tensor
            With a graph back to ``theta`` where gradients are enabled.
        """
        return self.of_outputs(self.outputs(theta, rows), rows)

    def outputs(self, theta: torch.Tensor, rows: Rows) -> Any:
        """Return what the module makes of these rows."""
        # Clones, so that a module that writes into its buffers or its input leaves these alone.
        state = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        state.update(unflatten_parameters(theta, self.layout))
        return functional_call(self.module, state, (self.X[rows].clone(),))

    def of_outputs(self, output: Any, rows: Rows) -> torch.Tensor:
        """Return the loss of these rows, whose outputs are known."""
        if self.y is None:
            return self.criterion(output)
        targets = match_column(self.y[rows].clone(), output, labels=takes_labels(self.criterion))
        return self.criterion(output, targets)

    def on_rows(self, rows: torch.Tensor, dtype: torch.dtype) -> Self:
        """Return the same loss on these rows only, in another dtype."""
        targets = None if self.y is None else self.y[rows]
        return type(self).of(
            self.module,
            self.criterion,
            self.X[rows],
            targets,
            self.layout,
            dtype=dtype,
            device=self.X.device,
        )

    def __getstate__(self) -> dict[str, Any]:
        # A tensor pickles with its address, which would change the hash of equal objects.
        buffer = io.BytesIO()
        torch.save((self.module, self.criterion), buffer)
        return {
            "saved": buffer.getvalue(),
            "device": str(self.X.device),
            "X": self.X.cpu().numpy(),
            "y": None if self.y is None else self.y.cpu().numpy(),
            "layout": self.layout,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        module, criterion = torch.load(io.BytesIO(state["saved"]), weights_only=False)
        X, y = (
            None if data is None else torch.from_numpy(data).to(state["device"])
            for data in (state["X"], state["y"])
        )
        self.__dict__.update(module=module, criterion=criterion, X=X, y=y, layout=state["layout"])


def _private_copy(
    module: torch.nn.Module, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    module = copy.deepcopy(module).eval().requires_grad_(False).to(device=device, dtype=dtype)
    for parameter in module.parameters():
        parameter.grad = None
    return module
