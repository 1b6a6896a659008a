"""The loss of some samples as a function of the parameters, on private copies."""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch.func import functional_call

from skdmap._parameters import ParameterLayout, flatten_parameters, unflatten_parameters
from skdmap._random import forked_torch, seed_torch
from skdmap.hessian._operators.autodiff import Leaves
from skdmap.hessian._risk.batch_weights import Rows
from skdmap.hessian._risk.criterion import as_targets, no_sample_losses, takes_labels, unreduced


@dataclass(frozen=True)
class ModuleLoss:
    """The loss of a module on samples, as a function of a flat vector.
    It draws nothing from the global generators and changes nothing.
    """

    module: torch.nn.Module  # a private copy without gradients, in eval or train mode
    criterion: Callable[..., torch.Tensor]
    X: torch.Tensor  # (n_samples, ...)
    y: torch.Tensor | None  # (n_samples, ...)
    layout: ParameterLayout
    training: bool = False  # train mode, with fixed dropout masks
    in_place: bool = True  # whether module or criterion write into their input: they get copies
    buffers: Mapping[str, torch.Tensor] | None = None  # put in place of the module's own

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
        training: bool = False,
    ) -> Self:
        """Return the loss of private copies of module, criterion and data."""
        if isinstance(criterion, torch.nn.Module):
            criterion = _private_copy(criterion, dtype, device)
        data, targets = as_data("X", X, dtype, device), None
        if y is not None:
            targets = as_targets(criterion, as_data("y", y, dtype, device), dtype)
        module = _private_copy(module, dtype, device).train(training)
        return cls(module, criterion, data, targets, layout, training)

    @property
    def has_running_statistics(self) -> bool:
        """Whether a layer keeps running statistics, as BatchNorm does."""
        parts = self.module.modules()
        return any(getattr(part, "running_mean", None) is not None for part in parts)

    def own_point(self) -> torch.Tensor:
        """Return the module's own parameters (n_parameters,)."""
        return flatten_parameters(self.module, self.layout)

    def parts(self, theta: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return views of the flat vector, one for each parameter."""
        return tuple(unflatten_parameters(theta, self.layout).values())

    def of_flat(self, theta: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return the loss of these samples at a flat vector."""
        return self.of_rows(self.parts(theta), rows)

    def of_rows(self, parts: Leaves, rows: Rows) -> torch.Tensor:
        """Return the loss of these samples, a scalar tensor with a graph back to ``parts``."""
        return self.of_outputs(self.outputs(parts, rows), rows)

    def outputs(self, parts: Leaves, rows: Rows) -> Any:
        """Return the module's outputs for these samples; in train mode one fixed mask a batch."""
        if not self.training:
            return self._call(parts, rows)
        with forked_torch(self.X.device):
            # One mask a batch, the same in each product; the first batch has seed 0.
            seed_torch(rows.start if isinstance(rows, slice) else 0, self.X.device)
            return self._call(parts, rows)

    def _call(self, parts: Leaves, rows: Rows) -> Any:
        # Clones, so that a module that writes into its buffers or its input leaves these alone.
        own = dict(self.module.named_buffers()) | dict(self.buffers or {})
        state = {name: buffer.clone() for name, buffer in own.items()}
        state.update(zip(self.layout.names, parts, strict=True))
        data = self.X[rows]
        data = data.clone() if self.in_place else data
        return functional_call(self.module, state, (data,))

    def of_outputs(self, output: Any, rows: Rows) -> torch.Tensor:
        """Return the loss of these samples, given their outputs."""
        return self._criterion_value(self.criterion, output, rows)

    def of_each_row(self, parts: Leaves, rows: Rows) -> torch.Tensor:
        """Return the losses with reduction="none", shape (n, n_entries)."""
        output = self.outputs(parts, rows)
        losses = self._criterion_value(unreduced(self.criterion), output, rows)
        n_rows = len(self.X[rows])
        if not isinstance(losses, torch.Tensor) or losses.dim() == 0 or len(losses) != n_rows:
            raise no_sample_losses(self.criterion)
        return losses.reshape(n_rows, -1)

    def _criterion_value(self, criterion: Callable[..., Any], output: Any, rows: Rows) -> Any:
        if self.y is None:
            return criterion(output)
        targets = self.y[rows]
        targets = targets.clone() if self.in_place else targets
        return criterion(output, match_column(targets, output, labels=takes_labels(criterion)))

    def with_in_place_checked(self) -> Self:
        """Return the same loss with ``in_place`` set by a trial on two samples.
        Without writes in place no copies of samples are made, and none are kept in graphs.
        """
        rows = slice(0, min(2, len(self.X)))
        few = replace(
            self,
            X=self.X[rows].clone(),
            y=None if self.y is None else self.y[rows].clone(),
            in_place=False,
        )
        # Whether the loss draws at random is found out later.
        with torch.no_grad(), forked_torch(self.X.device):
            few.of_rows(self.parts(self.own_point()), slice(0, len(few.X)))
        # Torch counts every write into a tensor or a view of it.
        written = few.X._version + (0 if few.y is None else few.y._version)
        return replace(self, in_place=written > 0)

    def on_rows(self, rows: torch.Tensor, dtype: torch.dtype) -> Self:
        """Return the same loss on these samples only, in another dtype."""
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
            "training": self.training,
            "in_place": self.in_place,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        module, criterion = torch.load(io.BytesIO(state["saved"]), weights_only=False)
        X, y = (
            None if data is None else torch.from_numpy(data).to(state["device"])
            for data in (state["X"], state["y"])
        )
        rest = {name: state[name] for name in ("layout", "training", "in_place")}
        self.__dict__.update(module=module, criterion=criterion, X=X, y=y, buffers=None, **rest)


def _private_copy(
    module: torch.nn.Module, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.grad = None

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        # Module.to(dtype) drops imaginary parts.
        kind = dtype.to_complex() if tensor.is_complex() else dtype
        is_inexact = tensor.is_complex() or tensor.is_floating_point()
        return tensor.to(device=device, dtype=kind if is_inexact else None)

    return module._apply(convert)


def as_data(name: str, data: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a contiguous copy (n_samples, ...), a tensor: floats in ``dtype``, integers as int64.
    Raises on no samples, what is not real numbers, NaN or infinity.
    """
    if not isinstance(data, torch.Tensor):
        array = np.asarray(data)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{name} has dtype {array.dtype}; it must be numbers. Encode labels as integers "
                "(sklearn.preprocessing.LabelEncoder) and pass an array or a tensor."
            )
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()  # torch can read neither
        data = torch.as_tensor(array)
    if data.is_complex():
        raise TypeError(
            f"{name} has dtype {data.dtype}; it must be real numbers. Pass "
            f"torch.view_as_real({name}) and convert back to complex in the module."
        )
    if data.is_meta:
        raise ValueError(
            f"{name} is on the meta device, where tensors hold no numbers. Pass an array, or a "
            "tensor on another device."
        )
    if data.dim() == 0 or len(data) == 0:
        raise ValueError(f"{name} has shape {tuple(data.shape)}; it must have at least one sample.")
    if data.is_floating_point() and not torch.isfinite(data).all():
        raise ValueError(f"{name} contains NaN or infinity. Drop or impute these samples.")
    kind = dtype if data.is_floating_point() else torch.int64
    data = data.detach().to(device=device, dtype=kind, copy=True)
    return data.contiguous()  # equal data have equal hashes, whatever their strides were


def as_vectors(
    name: str, data: Any, shape: tuple[int, int | None] | tuple[int], like: torch.Tensor
) -> torch.Tensor:
    """Return a vector, or vectors as columns, as a tensor of the dtype and device of ``like``.
    ``shape``: what it must be; None for any number of vectors.
    """
    if not isinstance(data, torch.Tensor):
        data = torch.from_numpy(np.array(data, dtype=np.float64))
    fits = data.dim() == len(shape) and all(
        wanted in (None, actual) for wanted, actual in zip(shape, data.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n_vectors" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} has shape {tuple(data.shape)}; it must be ({wanted}{',' * (len(shape) == 1)}) "
            f"with n_parameters = {shape[0]}. A row of a snapshot matrix is snapshots[i]."
        )
    return data.detach().to(device=like.device, dtype=like.dtype)


def like(result: torch.Tensor, given: Any) -> Any:
    """Return ``result`` as a tensor if ``given`` is one, else as an array."""
    return result if isinstance(given, torch.Tensor) else result.cpu().numpy()


def match_column(y: torch.Tensor, output: Any, *, labels: bool) -> torch.Tensor:
    """Return targets (n,) or (n, 1) in the shape and dtype of outputs (n, 1) or (n,); others as is.
    Left as they are, they would broadcast to all pairs. ``labels``: integers are classes, kept.
    """
    one_each = isinstance(output, torch.Tensor) and output.numel() == y.numel() == len(y)
    if not one_each or (labels and not y.is_floating_point()):
        return y
    column = y.reshape(output.shape)
    return column.to(output.dtype) if output.is_floating_point() else column
