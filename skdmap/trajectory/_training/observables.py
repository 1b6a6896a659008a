"""What is recorded in place of the parameters: outputs on probe rows, or what a function says."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._random import forked_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._storage.manifest import setting
from skdmap.trajectory._training.module_io import cast_inputs
from skdmap.trajectory._training.module_state import kept_buffers, kept_gradients
from skdmap.trajectory._training.targets import gives_log_probabilities

# Rows at a time, so that hidden layers of many probe rows need not be there at once.
_CHUNK = 4096
Observe = Callable[[nn.Module], torch.Tensor]


def check_record(record: Any, X: np.ndarray) -> Any:
    """Return ``record`` with its probe rows as an array.

    Parameters
    ----------
    record : "parameters", "outputs", ("outputs", X_probe) or callable
        As the user gave it.
    X : ndarray of shape (n, n_features, ...)
        Rows to train on.

    Returns
    -------
    "parameters", ndarray or callable
        An array holds the probe rows.

    Raises
    ------
    InvalidParameterError
        If it is something else, or the probe rows are not finite or of another shape than those of
        X.
    """
    if isinstance(record, str) and record in ("parameters", "outputs"):
        return X if record == "outputs" else record
    if callable(record):
        return record
    is_pair = isinstance(record, (tuple, list)) and len(record) == 2
    if not is_pair or not isinstance(record[0], str) or record[0] != "outputs":
        raise InvalidParameterError(
            f"record={record!r} must be 'parameters', 'outputs', ('outputs', X_probe) or a "
            "function from the module to a vector."
        )
    try:
        probe = np.asarray(record[1], dtype=None if hasattr(record[1], "dtype") else np.float64)
        probe = probe if probe.dtype in (np.float32, np.float64) else probe.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(
            f"record=('outputs', X_probe): X_probe is no array of numbers: {error}."
        ) from error
    if probe.shape[1:] != X.shape[1:] or len(probe) == 0:
        raise InvalidParameterError(
            f"record=('outputs', X_probe): X_probe has shape {probe.shape}, must have shape (n, "
            f"{', '.join(map(str, X.shape[1:]))}) with n >= 1, as the rows of X."
        )
    if not np.isfinite(probe).all():
        raise InvalidParameterError(
            "record=('outputs', X_probe): X_probe holds NaN or inf, must be finite. Drop or fill "
            "these rows."
        )
    return probe


def observable(record: Any, module: nn.Module, criterion: Any) -> Observe | None:
    """Return what makes a vector of a module, or None where its parameters are recorded.

    Parameters
    ----------
    record : "parameters", ndarray or callable
        From :func:`check_record`.
    module : torch.nn.Module
        Tells the device and type of the probe rows.
    criterion : callable
        Outputs become log-probabilities where it is a cross-entropy; those for NLL are that
        already.

    Returns
    -------
    callable or None
        Leaves mode, buffers, gradients and random streams of a module as found.
    """
    if isinstance(record, str):
        return None
    if callable(record):
        return lambda one: undisturbed(one, lambda: as_row(record(one), record))
    inputs = cast_inputs(record, module)
    is_logits = gives_log_probabilities(criterion)

    def outputs(one: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            values = torch.cat([one(part.clone()) for part in inputs.split(_CHUNK)])
            # Of log-probabilities this changes rounding only.
            values = torch.log_softmax(values, dim=1) if is_logits else values
            return values.reshape(-1)

    return lambda one: undisturbed(one, lambda: outputs(one))


def undisturbed(module: nn.Module, look: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Look at a module in eval mode; it and the random streams are left as found."""
    modes = [(part, part.training) for part in module.modules()]
    device = next(module.parameters()).device
    with forked_torch(device), kept_buffers(module), kept_gradients(module):
        module.eval()
        try:
            return look()
        finally:
            for part, training in modes:
                part.training = training


def as_row(value: Any, record: Any) -> torch.Tensor:
    """Return what the function ``record`` gave as a vector of its own, or raise a ValueError."""
    found = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    if found.ndim != 1 or found.numel() == 0:
        title = getattr(record, "__name__", type(record).__name__)
        raise ValueError(
            f"record={title} returned shape {tuple(found.shape)}, must return a tensor of one "
            "dimension with at least one entry. Flatten it: values.reshape(-1)."
        )
    # A copy: what it returned may be a view of the parameters.
    return found.detach().clone()


def recorder_observable(record: Any, module: nn.Module) -> Callable[[], torch.Tensor] | None:
    """Return what reads a row off a module; None where rows are its parameters.

    Parameters
    ----------
    record : "parameters", ("outputs", X_probe) or callable
        As the user gave it.
    module : torch.nn.Module
        Called in eval mode without gradients; left as found, as are torch's generators.

    Returns
    -------
    callable or None
        () -> Tensor of shape (n_columns,).

    Raises
    ------
    InvalidParameterError
        If ``record`` is none of these.
    """
    if isinstance(record, str) and record == "parameters":
        return None
    if isinstance(record, str) and record == "outputs":
        raise InvalidParameterError(
            "record='outputs': the recorder does not see your rows. Pass ('outputs', X_probe) with "
            "the rows to follow."
        )
    if isinstance(record, tuple) and len(record) == 2 and record[0] == "outputs":
        probe = torch.as_tensor(copy.copy(record[1]))

        def outputs() -> torch.Tensor:
            first = next(module.parameters())
            dtype = first.dtype if probe.is_floating_point() else probe.dtype
            with torch.no_grad():
                return _flat_outputs(module(probe.to(first.device, dtype).clone()))

        return lambda: undisturbed(module, outputs)
    if callable(record):

        def said() -> torch.Tensor:
            with torch.no_grad():
                return as_row(record(module), record)

        return lambda: undisturbed(module, said)
    raise InvalidParameterError(
        f"record={setting(record)!r} must be 'parameters', ('outputs', X_probe), or a callable "
        "module -> 1-D tensor."
    )


def _flat_outputs(values: Any) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        raise ValueError(
            f"record=('outputs', X_probe): module returns {type(values).__name__}, must return a "
            "tensor. Pass a function that picks it: module -> 1-D tensor."
        )
    return values.detach().reshape(-1)
