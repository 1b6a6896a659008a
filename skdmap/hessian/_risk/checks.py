"""Checks of an EmpiricalRisk: its settings, and its loss on at most 64 samples."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any

import torch

from skdmap.hessian._operators.callables import short_name
from skdmap.hessian._operators.hessian import HessianOperator, check_deterministic, checked_operator
from skdmap.hessian._risk.batch_norm import MODES, batch_norm_layers
from skdmap.hessian._risk.batch_weights import Rows, batch_shares, even_batches
from skdmap.hessian._risk.criterion import check_targets, reduction_of
from skdmap.hessian._risk.module_loss import ModuleLoss

# What torch and modules raise on input that does not fit.
_CALL_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_settings(module: Any, batch_size: Any, weight_decay: float) -> None:
    """Raise on an object that is not a module or holds no numbers, or a setting out of range."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module={module!r} must be a torch.nn.Module. Pass the model itself.")
    _check_materialized(module)
    integral = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if batch_size is not None and not (integral and batch_size >= 1):
        raise ValueError(
            f"batch_size={batch_size!r} must be an integer >= 1, or None for all samples."
        )
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"weight_decay={weight_decay} must be finite and >= 0. Set it to 0 for the loss alone."
        )


def _check_materialized(module: torch.nn.Module) -> None:
    """Raise on parameters or buffers on the meta device."""
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    found = [name for name, tensor in tensors if tensor.is_meta]
    if found:
        names = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise ValueError(
            f"module has {names} on the meta device, where tensors hold no numbers. Call "
            "module.to_empty(device='cpu') and load a state_dict, or create the module on another "
            "device."
        )


def check_mode(mode: Any, module: Any, batch_size: int | None, single_process: bool) -> None:
    """Raise on an unknown mode, or on mode="train" with BatchNorm and samples in several parts."""
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} must be one of {', '.join(map(repr, MODES))}. 'eval' is the network as "
            "it predicts."
        )
    if mode != "train" or not batch_norm_layers(module):
        return
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} with mode='train': the batch statistics of BatchNorm need "
            "all samples in one batch. Set batch_size=None, or mode='recalibrate'."
        )
    if not single_process:
        raise ValueError(
            "mode='train' with a process_group: the batch statistics of BatchNorm need all samples "
            "in one process. Set mode='recalibrate' or 'eval'."
        )


def check_real(module: torch.nn.Module, names: Sequence[str]) -> None:
    """Raise on complex parameters among ``names``: the flat vector is real."""
    found = [name for name in names if module.get_parameter(name).is_complex()]
    if found:
        raise ValueError(
            f"module has complex parameters ({', '.join(found)}); they must be real. Hold real and "
            "imaginary parts as parameters (torch.view_as_complex), or select others (parameters)."
        )


def resolve_dtype(dtype: Any) -> torch.dtype:
    """Return torch.float32 or torch.float64 for its name or itself; raise on any other."""
    found: Any = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise ValueError(
            f"dtype={dtype!r} must be torch.float32 or torch.float64, or 'float32' or 'float64': "
            "curvature is lost below that. Set dtype='float32'; the module is copied, not changed."
        )
    return found


def resolve_device(device: Any) -> torch.device:
    """Return the device, or raise if torch cannot put numbers there."""
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]}. Pass None for the "
            "module's own device, 'cpu', or 'cuda' where there is a GPU for it."
        ) from error
    if found.type == "meta":
        raise ValueError(
            f"device={device!r} cannot be used: it holds no numbers. Pass None for the module's "
            "own device, or 'cpu'."
        )
    return found


def check_lengths(loss: ModuleLoss) -> None:
    """Raise if there are not as many targets as samples."""
    n_rows, targets = len(loss.X), loss.y
    if targets is not None and len(targets) != n_rows:
        raise ValueError(
            f"y has {len(targets)} samples; it must have as many as X: {n_rows}. Pass the targets "
            "of these samples."
        )


def check_calls(loss: ModuleLoss) -> None:
    """Raise if the module does not take X or the criterion does not take y, with torch's error."""
    own = loss.own_point()
    if not torch.isfinite(own).all():
        raise ValueError(
            "module has parameters that are NaN or infinite. Load finite parameters first, from "
            "before training diverged."
        )
    rows = check_sample(torch.ones(len(loss.X)))
    with torch.no_grad(), _forked_generators(own):
        try:
            outputs = loss.outputs(loss.parts(own), rows)
        except torch.OutOfMemoryError:
            raise
        except _CALL_ERRORS as error:
            shape, kind = tuple(loss.X.shape[1:]), loss.X.dtype
            raise ValueError(
                f"module={type(loss.module).__name__} fails on samples of shape {shape} and dtype "
                f"{kind}: {error}. Pass a module that takes such samples, or reshape X; use "
                "X.astype(float) where a layer takes floats, integers where it takes indices."
            ) from error
        check_targets(loss.criterion, loss.y, outputs)
        try:
            loss.of_outputs(outputs, rows)
        except torch.OutOfMemoryError:
            raise
        except _CALL_ERRORS as error:
            raise _criterion_fails(loss, outputs, error) from error


def _criterion_fails(loss: ModuleLoss, outputs: Any, error: Exception) -> ValueError:
    shape = getattr(outputs, "shape", None)
    found = type(outputs).__name__ if shape is None else f"samples of shape {tuple(shape[1:])}"
    if loss.y is None:
        targets, remedy = "", "Pass a criterion that takes what the module returns."
    else:
        targets = f" and y of shape {tuple(loss.y.shape)} and dtype {loss.y.dtype}"
        remedy = "Pass labels as integers of shape (n,), values as floats of the outputs' shape."
    return ValueError(
        f"criterion={short_name(loss.criterion)} fails on outputs of {found}{targets}: {error}. "
        f"{remedy}"
    )


def _forked_generators(point: torch.Tensor) -> AbstractContextManager[None]:
    """Let a loss draw at random without advancing the global generators."""
    return torch.random.fork_rng(devices=[point.device] if point.is_cuda else [])


def check_sample(
    weights: torch.Tensor, y: torch.Tensor | None = None, n_rows: int = 64
) -> torch.Tensor:
    """Return the numbers (int64) of at most ``n_rows`` samples of positive weight, spread over all.
    Up to half are the first of each rare kind of target; common kinds first, rare ones last.
    """
    # Two parts of them then differ in kind as much as they can, so that a criterion that weighs or
    # leaves out one kind shows.
    counting = weights.nonzero().ravel()
    kinds = _target_kinds(None if y is None else y.cpu()[counting], len(counting))
    grouped = kinds.argsort(stable=True)
    first_of_kind = grouped[kinds.bincount().cumsum(0) - kinds.bincount()]
    rare = first_of_kind[1:][-(n_rows // 2) :]
    n_spread = len(counting) if len(counting) <= n_rows else n_rows - len(rare)
    spread = torch.linspace(0, len(counting) - 1, n_spread, dtype=torch.float64).round().long()
    chosen = torch.cat([rare, spread]).unique()
    return counting[chosen[kinds[chosen].argsort(stable=True)]]


def _target_kinds(y: torch.Tensor | None, n_rows: int) -> torch.Tensor:
    """Return the kind of each sample's target (n_rows,): 0 the most common, negative ones last.
    A kind is a label, or the sign of a float; of several in a sample, the least and the greatest.
    """
    if y is None or y[0].numel() == 0:
        return torch.zeros(n_rows, dtype=torch.int64)
    entries = y.reshape(n_rows, -1)
    ends = torch.stack([entries.amin(dim=1), entries.amax(dim=1)], dim=1)
    ends = ends.sign() if y.is_floating_point() else ends
    found, kinds, counts = ends.unique(dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(n_rows * (found[:, 0] < 0) - counts, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank[kinds]


def check_loss(loss: ModuleLoss, weights: torch.Tensor, *, batched: bool) -> bool:
    """Raise if the loss has no Hessian, or (if ``batched``) is not the sum of its batches.
    Returns whether it is the sum of its batches.
    """
    own, rows = loss.own_point(), check_sample(weights, loss.y)
    with _forked_generators(own):
        HessianOperator([lambda theta: loss.of_flat(theta, rows)], own).close()
        few, rows_of_few = _in_float64(loss, rows)
        _check_derivatives(few, rows_of_few)
        if len(rows) == 1:
            return True
        try:
            _check_additive(few, rows_of_few, weights[rows])
        except ValueError:
            if batched:
                raise
            return False
    return True


def _in_float64(loss: ModuleLoss, rows: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
    """Return the loss of these samples in float64, or as it is if something insists on its dtype.
    In float64, rounding of large outputs is not mistaken for a difference of small losses.
    """
    try:
        double = loss.on_rows(rows, torch.float64)
        everything = torch.arange(len(rows))
        with torch.no_grad():
            double.of_flat(double.own_point(), everything)
    except (RuntimeError, TypeError):
        return loss, rows
    return double, everything


def _check_derivatives(loss: ModuleLoss, rows: torch.Tensor) -> None:
    own = loss.own_point()
    terms = [lambda theta: loss.of_flat(theta, rows)]
    checked_operator(lambda: HessianOperator(terms, own)).close()
    near = _nearby_point(own)
    if _is_finite(loss, near, rows):
        with HessianOperator(terms, near) as hessian:
            check_deterministic(hessian, terms, near)


def _nearby_point(own: torch.Tensor) -> torch.Tensor:
    """Return a point at which outputs differ between samples, though they may be equal at ``own``.
    They are equal where a last layer starts at zero, which hides what else the samples do.
    """
    generator = torch.Generator().manual_seed(0)  # its own: the global one is not advanced
    step = torch.randn(len(own), generator=generator, dtype=torch.float64)
    return own + 0.05 * step.to(own.device, own.dtype)


def _is_finite(loss: ModuleLoss, point: torch.Tensor, rows: torch.Tensor) -> bool:
    """Return whether the loss is defined at a point."""
    try:
        with torch.no_grad():
            return bool(torch.isfinite(loss.of_flat(point, rows)).all())
    except (RuntimeError, ValueError):
        return False


def _check_additive(loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor) -> None:
    own = loss.own_point()
    near = _nearby_point(own)
    points = [own, near] if _is_finite(loss, near, rows) else [own]
    with torch.no_grad():
        for point in points:

            def loss_of(part: Rows, point: torch.Tensor = point) -> float:
                return float(loss.of_flat(point, rows[part]))

            _check_sum_of_parts(loss.criterion, loss_of, weights, torch.finfo(own.dtype).eps)


def _check_sum_of_parts(
    criterion: Any, loss_of: Callable[[Rows], float], weights: torch.Tensor, eps: float
) -> None:
    """Raise if two unequal batches of the samples (weights: (n,)) do not give the loss of all."""
    n_rows = len(weights)
    batches = even_batches(n_rows, -(-2 * n_rows // 3))
    shares = batch_shares(weights, reduction_of(criterion), batches)
    parts = [share * loss_of(part) for part, share in shares]
    whole = loss_of(slice(0, n_rows))
    scale = max(abs(whole), sum(abs(part) for part in parts))
    # The constant term allows for small losses of large outputs.
    if not abs(whole - sum(parts)) <= eps**0.5 * scale + 100 * eps:
        raise ValueError(
            f"criterion={criterion!r}: the loss of {n_rows} samples is {whole:.6g}, but two "
            f"batches of them, weighted by size, give {sum(parts):.6g}. batch_size needs a "
            "criterion that is a mean over samples or a sum (its reduction attribute 'mean' or "
            "'sum', class weights inside a CrossEntropyLoss or NLLLoss object) and a module that "
            "treats each sample separately. Otherwise set batch_size=None."
        )
