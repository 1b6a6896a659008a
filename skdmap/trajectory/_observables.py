"""What is recorded in place of the parameters: outputs on probe rows, or what a function says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from skdmap._random import forked_torch
from skdmap._validation import InvalidParameterError
from skdmap.trajectory._buffers import kept_buffers
from skdmap.trajectory._gradients import kept_gradients
from skdmap.trajectory._runs import cast_inputs
from skdmap.trajectory._targets import gives_log_probabilities
from skdmap.trajectory._task import Observe

__all__ = ["as_row", "check_record", "observable", "undisturbed"]

# Rows at a time, so that hidden layers of many probe rows need not be there at once.
_CHUNK = 4096


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
