"""What a row holds in place of the parameters: outputs on probe samples, or a user's function."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._storage.manifest import setting
from skdmap.trajectory._training.module_state import (
    kept_buffers,
    kept_gradients,
    without_gradients,
)

Observe = Callable[[nn.Module], torch.Tensor]


def check_record(record: Any, X: np.ndarray | None = None) -> Any:
    """Return "parameters", the probe samples or the callable that ``record`` stands for.
    X: the training data, whose outputs "outputs" records; None where they are not known.
    """
    if isinstance(record, str) and record == "parameters":
        return record
    if isinstance(record, str) and record == "outputs":
        if X is None:
            raise InvalidParameterError(
                "record='outputs': the recorder does not see your data. Pass ('outputs', X_probe) "
                "with the samples to follow."
            )
        return X
    if callable(record):
        return record
    is_pair = isinstance(record, (tuple, list)) and len(record) == 2
    if not is_pair or not isinstance(record[0], str) or record[0] != "outputs":
        options = "('outputs', X_probe), or a function from the module to a 1-D tensor"
        options = options if X is None else f"'outputs', {options}"
        raise InvalidParameterError(f"record={setting(record)!r} must be 'parameters', {options}.")
    if X is None:
        return torch.as_tensor(copy.copy(record[1]))
    return _probe(record[1], X)


def observer(
    record: Any,
    *,
    log_softmax: bool = False,
    with_gradients: bool = False,
    chunk: int | None = None,
) -> Observe | None:
    """Return the function from a module to a row, shape (n_columns,); None for "parameters".
    It leaves the module as found. ``chunk``: probe samples at a time; None is all at once.
    """
    if isinstance(record, str):
        return None

    def observe(module: nn.Module) -> torch.Tensor:
        with torch.set_grad_enabled(with_gradients):
            return _as_row(record(module), record)

    def outputs(module: nn.Module) -> torch.Tensor:
        first = next(module.parameters())
        dtype = first.dtype if record.is_floating_point() else record.dtype
        parts = record.to(first.device, dtype).split(chunk or max(1, len(record)))
        values = [without_gradients(lambda x: _tensor(module(x)), part) for part in parts]
        found = torch.cat(values) if len(values) > 1 else values[0]
        return (found.log_softmax(1) if log_softmax else found.detach()).reshape(-1)

    look = outputs if isinstance(record, torch.Tensor) else observe
    return lambda module: _undisturbed(module, look)


def _undisturbed(module: nn.Module, look: Observe) -> torch.Tensor:
    """Return ``look(module)`` in eval mode; module and random generators are left as found."""
    modes = [(part, part.training) for part in module.modules()]
    device = next(module.parameters()).device
    with forked_torch(device), kept_buffers(module), kept_gradients(module):
        module.eval()
        try:
            return look(module)
        finally:
            for part, training in modes:
                part.training = training


def _probe(values: Any, X: np.ndarray) -> np.ndarray:
    """Return probe samples as finite numbers of the shape of the samples in X, integers as such."""
    try:
        probe = np.asarray(values)
        if probe.dtype.kind not in "biu" and probe.dtype not in (np.float32, np.float64):
            probe = probe.astype(np.float64)
        if X.dtype.kind in "biu" and probe.dtype.kind == "f" and (probe == np.rint(probe)).all():
            probe = probe.astype(X.dtype)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(
            f"record=('outputs', X_probe): X_probe is not an array of numbers: {error}."
        ) from error
    if probe.shape[1:] != X.shape[1:] or len(probe) == 0:
        raise InvalidParameterError(
            f"record=('outputs', X_probe): X_probe has shape {probe.shape}; it must have shape (n, "
            f"{', '.join(map(str, X.shape[1:]))}) with n >= 1, as the samples in X."
        )
    if not np.isfinite(probe).all():
        raise InvalidParameterError(
            "record=('outputs', X_probe): X_probe contains NaN or inf; it must be finite. Drop or "
            "fill these samples."
        )
    return probe


def _as_row(value: Any, record: Any) -> torch.Tensor:
    """Return what the user's function ``record`` returned as a vector of its own."""
    found = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    if found.ndim != 1 or found.numel() == 0:
        title = getattr(record, "__name__", type(record).__name__)
        raise ValueError(
            f"record={title} returned shape {tuple(found.shape)}; it must return a tensor of one "
            "dimension with at least one entry. Flatten it: values.reshape(-1)."
        )
    # A copy: it may be a view of the parameters.
    return found.detach().clone()


def _tensor(values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values
    raise ValueError(
        f"record=('outputs', X_probe): module returns {type(values).__name__}; it must return a "
        "tensor. Pass a function that selects it: module -> 1-D tensor."
    )
