"""The loss of some samples as a function of the parameters, on private copies."""

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skdmap._parameters import (
    ParameterLayout,
    copy_module,
    flatten_parameters,
    unflatten_parameters,
)
from skdmap._random import forked_torch, seed_torch
from skdmap.hessian._operators.autodiff import Leaves, backward, evaluate, exact_mode
from skdmap.hessian._risk.batch_weights import Rows
from skdmap.hessian._risk.criterion import (
    as_targets,
    multi_margin_loss,
    no_sample_losses,
    takes_labels,
    unreduced,
)

_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
    whole: bool = False  # whether the module takes all samples at once only
    intercepted: bool = False  # whether each operation is intercepted, see Interception
    recomputes: bool = False  # whether backward calls the module again (activation checkpointing)
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
            criterion = _private_copy("criterion", criterion, dtype, device)
        data, targets = as_data("X", X, dtype, device), None
        if y is not None:
            targets = as_targets(criterion, as_data("y", y, dtype, device), dtype)
        module = _private_copy("module", module, dtype, device).train(training)
        return cls(module, criterion, data, targets, layout, training)

    @property
    def has_running_statistics(self) -> bool:
        """Whether a layer keeps running statistics, as BatchNorm does."""
        parts = self.module.modules()
        return any(getattr(part, "running_mean", None) is not None for part in parts)

    def own_point(self) -> torch.Tensor:
        """Return the module's own parameters (n_parameters,)."""
        return flatten_parameters(self.module, self.layout)

    def parts(self, theta: torch.Tensor) -> Leaves:
        """Return views of the flat vector, one for each parameter."""
        return tuple(unflatten_parameters(theta, self.layout).values())

    def of_flat(self, theta: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return the loss of these samples at a flat vector."""
        return self.of_rows(self.parts(theta), rows)

    def of_rows(self, parts: Leaves, rows: Rows) -> torch.Tensor:
        """Return the loss of these samples, a scalar tensor with a graph back to ``parts``."""
        return self.of_outputs(self.outputs(parts, rows), rows)

    def value_and_gradient(
        self, leaves: Leaves, rows: Rows, share: float = 1.0
    ) -> tuple[float, Leaves]:
        """Return ``share`` times the loss of these samples, and its gradient in parts."""
        value = share * evaluate(lambda parts: self.of_rows(parts, rows), leaves)
        with self.within(leaves):
            return float(value.detach()), backward([value], leaves)

    @contextmanager
    def within(self, parts: Leaves) -> Iterator[None]:
        """Hold ``parts`` in the module during a backward pass that calls the module again."""
        if not self.recomputes:
            yield
            return
        names = dict(zip(self.layout.names, parts, strict=True))
        own = dict(self.module.named_parameters(remove_duplicate=False))
        by_identity = {id(own[name]): part for name, part in names.items()}
        swapped = []
        for name, parameter in own.items():
            if id(parameter) in by_identity:
                path, _, last = name.rpartition(".")
                holder = self.module.get_submodule(path)._parameters
                swapped.append((holder, last, parameter))
                holder[last] = by_identity[id(parameter)]  # type: ignore[assignment]
        try:
            yield
        finally:
            for holder, last, parameter in swapped:
                holder[last] = parameter

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
        with restored_attributes(self.module), self._interception():
            return functional_call(self.module, state, (data,))

    def _interception(self) -> AbstractContextManager[Any]:
        return Interception(self.X.device.type) if self.intercepted else nullcontext()

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
        arguments: tuple[Any, ...] = (output,)
        if self.y is not None:
            targets = self.y[rows]
            targets = targets.clone() if self.in_place else targets
            labels = takes_labels(criterion)
            arguments = (output, match_column(targets, output, labels=labels))
        if not isinstance(criterion, torch.nn.Module):
            with self._interception():
                return criterion(*arguments)
        # A criterion that keeps a running average gives the same loss each time.
        state = {name: buffer.clone() for name, buffer in criterion.named_buffers()}
        with restored_attributes(criterion), self._interception():
            return functional_call(criterion, state, arguments) if state else criterion(*arguments)

    def with_in_place_checked(self, rows: torch.Tensor) -> Self:
        """Return the same loss with ``in_place`` set by a trial on these samples.
        Without writes in place no copies of samples are made, and none are kept in graphs.
        """
        few = replace(
            self,
            X=self.X[rows].clone(),
            y=None if self.y is None else self.y[rows].clone(),
            in_place=False,
        )
        before = few.X._version, None if few.y is None else few.y._version
        # Whether the loss draws at random is found out later.
        with exact_mode(), forked_torch(self.X.device):
            few.of_rows(self.parts(self.own_point()), slice(0, len(few.X)))
        # Torch counts every write into a tensor or a view of it.
        after = few.X._version, None if few.y is None else few.y._version
        return replace(self, in_place=before != after)

    def on_rows(self, rows: torch.Tensor, dtype: torch.dtype) -> Self:
        """Return the same loss on these samples only, in another dtype."""
        targets = None if self.y is None else self.y[rows]
        few = type(self).of(
            self.module, self.criterion, self.X[rows], targets, self.layout,
            dtype=dtype, device=self.X.device, training=self.training,
        )  # fmt: skip
        return replace(few, intercepted=self.intercepted, recomputes=self.recomputes)

    def __getstate__(self) -> dict[str, Any]:
        # A tensor pickles with its address, which would change the hash of equal objects.
        buffer = io.BytesIO()
        torch.save((self.module, self.criterion), buffer)
        state = dict(vars(self)) | {"module": None, "criterion": None, "buffers": None}
        state["X"] = self.X.cpu().numpy()
        state["y"] = None if self.y is None else self.y.cpu().numpy()
        return {"saved": buffer.getvalue(), "device": str(self.X.device), "state": state}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        module, criterion = torch.load(io.BytesIO(saved["saved"]), weights_only=False)
        state = saved["state"] | {"module": module, "criterion": criterion}
        for name in ("X", "y"):
            if state[name] is not None:
                state[name] = torch.from_numpy(state[name]).to(saved["device"])
        vars(self).update(state)


def _weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _hardsigmoid(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    return F.relu6(x + 3.0) / 6.0


# Operations whose second derivatives are wrong (weight_norm, seen in torch 2.13) or missing.
_REPLACED = {
    torch._weight_norm: _weight_norm,
    F.hardsigmoid: _hardsigmoid,
    F.multi_margin_loss: multi_margin_loss,
}


class Interception(TorchFunctionMode):
    """Runs each operation without autocast, and some as others of the same values.
    Autocast that is switched on inside is undone, and second derivatives are right.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self._device_type = device_type

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the operation, or the one in its place."""
        with torch.autocast(self._device_type, enabled=False):
            return _REPLACED.get(func, func)(*args, **(kwargs or {}))


_MODULE_ATTRIBUTES = frozenset(vars(torch.nn.Module())) - {"training"}


@contextmanager
def restored_attributes(module: torch.nn.Module) -> Iterator[None]:
    """Put back attributes that forward sets: counters, kept activations, computed weights."""
    before = []
    for part in module.modules():
        own = {name: value for name, value in vars(part).items() if name not in _MODULE_ATTRIBUTES}
        containers = [
            (value, copy.copy(value)) for value in own.values() if type(value) in (list, dict, set)
        ]
        before.append((part, own, containers))
    try:
        yield
    finally:
        for part, own, containers in before:
            attributes = vars(part)
            for name in [n for n in attributes if n not in own and n not in _MODULE_ATTRIBUTES]:
                del attributes[name]
            attributes.update(own)
            for container, content in containers:
                container.clear()
                container.extend(content) if isinstance(content, list) else container.update(
                    content
                )


def _private_copy(
    name: str, module: torch.nn.Module, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    try:
        module = copy_module(module).eval().requires_grad_(False)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{name}={type(module).__name__} cannot be copied: {error}. Remove attributes that "
            "cannot be copied (locks, open files, generators), or pass a module without them."
        ) from error
    for parameter in module.parameters():
        parameter.grad = None

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        # Module.to(dtype) drops imaginary parts.
        kind = dtype.to_complex() if tensor.is_complex() else dtype
        is_inexact = tensor.is_complex() or tensor.is_floating_point()
        return tensor.to(device=device, dtype=kind if is_inexact else None)

    return module._apply(convert)


def as_data(name: str, data: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a contiguous copy (n_samples, ...), a tensor: floats in ``dtype``, others as they are.
    Raises on no samples, what is not real numbers, NaN or infinity.
    """
    if not isinstance(data, torch.Tensor):
        data = _from_array(name, data)
    if data.layout != torch.strided or data.is_nested:
        raise TypeError(
            f"{name} is a sparse or nested tensor; it must be dense. Pass {name}.to_dense(), or "
            "pad the samples to one shape."
        )
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
    # Booleans stay: ~ and [] mean something else for integers.
    kind = data.dtype if data.dtype in _INTEGERS else torch.int64
    kind = dtype if data.is_floating_point() else kind
    data = data.detach().to(device=device, dtype=kind, copy=True)
    return data.contiguous()  # equal data have equal hashes, whatever their strides were


def _from_array(name: str, data: Any) -> torch.Tensor:
    if hasattr(data, "toarray"):
        raise TypeError(f"{name} is a sparse matrix; it must be dense. Pass {name}.toarray().")
    if np.ma.is_masked(data):
        raise ValueError(
            f"{name} is a masked array with masked entries. Fill or drop them: {name}.filled(...)."
        )
    array = np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be numbers. Encode labels as integers "
            "(sklearn.preprocessing.LabelEncoder) and pass an array or a tensor."
        )
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch can read neither
    return torch.as_tensor(array)


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
            f"with n_parameters = {shape[0]}. A row of a snapshot matrix is snapshots[i]; of a "
            "sketch, pass endpoints_[run][i], a full row."
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
    values = output.is_floating_point() and y.dtype != torch.bool
    return column.to(output.dtype) if values else column
