"""Checks of an EmpiricalRisk: its settings, and its loss on at most 64 samples."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from skdmap._argument_checks import is_integer
from skdmap._parameters import copy_module
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.hessian._operators.autodiff import backward, evaluate, graph_leaves
from skdmap.hessian._operators.base import CurvatureOperator, flat
from skdmap.hessian._operators.callables import short_name
from skdmap.hessian._operators.derivative_check import (
    check_derivatives,
    check_precision,
    least_precise_dtype,
    nearby_point,
    random_direction,
)
from skdmap.hessian._operators.hessian import checked_operator, is_finite
from skdmap.hessian._operators.memory_budget import graph_bytes
from skdmap.hessian._risk.batch_norm import MODES, batch_norm_layers
from skdmap.hessian._risk.batch_weights import Rows, batch_shares, even_batches
from skdmap.hessian._risk.criterion import check_targets, is_of_labels, reduction_of
from skdmap.hessian._risk.curvatures import chunk_graphs
from skdmap.hessian._risk.module_loss import ModuleLoss

# What torch and modules raise on input that does not fit.
_CALL_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
# Derivatives are checked on at least two samples, and on more while they keep so little memory
# (bytes saved by the forward pass) that the number of operations counts and not their length.
_MAX_ROWS, _LEAST_ROWS, _CHECKED_BYTES = 64, 2, 1e5
# Units of rounding: several times those by which sums of 64 samples in two orders differ.
_CLOSE = 50.0
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_settings(module: Any, batch_size: Any, weight_decay: float) -> None:
    """Raise on an object that is not a module or holds no numbers, or a setting out of range."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module={module!r} must be a torch.nn.Module. Pass the model itself.")
    _check_plain(module)
    if batch_size is not None and not (is_integer(batch_size) and batch_size >= 1):
        raise ValueError(
            f"batch_size={batch_size!r} must be an integer >= 1, or None for all samples."
        )
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"weight_decay={weight_decay} must be finite and >= 0. Set it to 0 for the loss alone."
        )


def _check_plain(module: torch.nn.Module) -> None:
    """Raise on parameters that cannot be replaced, or that hold no numbers (lazy, meta device)."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise TypeError(
                f"module{'.' * bool(name)}{name} is a torch.jit.ScriptModule, whose parameters "
                "cannot be replaced. Pass the module that it was made from."
            )
    lazy = [name for name, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(
            f"module has the lazy parameter {lazy[0]!r}, whose shape is not known yet. Call the "
            "module on one batch first."
        )
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


def adapted_loss(loss: ModuleLoss, *, batched: bool) -> ModuleLoss:
    """Return the loss in a form that module and criterion take, or raise.
    Tried are some samples, then all at once, with integers as they are, then as int64.
    """
    own = loss.own_point()
    if not torch.isfinite(own).all():
        raise ValueError(
            "module has parameters that are NaN or infinite. Load finite parameters first, from "
            "before training diverged."
        )
    failures: list[tuple[Any, Exception]] = []  # outputs (None: the module failed), and the error
    with _forked_generators(own):
        for whole in (False, True) if len(loss.X) > _MAX_ROWS and not batched else (False,):
            for X in _integer_forms(loss.X):
                form = replace(loss, whole=whole, X=X)
                rows = rows_to_check(form, torch.ones(len(X)))
                try:
                    parts = (part.clone().requires_grad_(True) for part in form.parts(own))
                    outputs = form.outputs(tuple(parts), rows)
                except torch.OutOfMemoryError:
                    raise
                except _CALL_ERRORS as error:
                    failures.append((None, error))
                    continue
                check_targets(form.criterion, form.y, outputs)
                for y in _integer_forms(form.y):
                    form = replace(form, y=y)
                    try:
                        value = form.of_outputs(outputs, rows)
                    except torch.OutOfMemoryError:
                        raise
                    except _CALL_ERRORS as error:
                        failures.append((outputs, error))
                        continue
                    _check_one_number(form, value, len(rows))
                    return form
    outputs, reason = next((pair for pair in failures if pair[0] is not None), failures[0])
    raise (_module_fails if outputs is None else _criterion_fails)(
        loss, outputs, reason
    ) from reason


def _integer_forms(data: torch.Tensor | None) -> list[Any]:
    """Return the data, and as int64 where they are other integers or booleans."""
    if data is None or data.is_floating_point() or data.dtype == torch.int64:
        return [data]
    return [data, data.long()]


def _module_fails(loss: ModuleLoss, outputs: None, error: Exception) -> ValueError:
    shape, kind = tuple(loss.X.shape[1:]), loss.X.dtype
    return ValueError(
        f"module={type(loss.module).__name__} fails on samples of shape {shape} and dtype "
        f"{kind}: {error}. Pass a module that takes such samples, or reshape X; use "
        "X.astype(float) where a layer takes floats, integers where it takes indices. Set "
        "batch_size=None for a module that takes all samples at once."
    )


def _check_one_number(loss: ModuleLoss, value: Any, n_rows: int) -> None:
    """Raise where the criterion returns one loss for each sample or entry."""
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise ValueError(
            f"criterion={short_name(loss.criterion)} returned shape {tuple(value.shape)} for "
            f"{n_rows} samples; it must return one number, their mean or sum. Use "
            "reduction='mean', or take the mean."
        )


def _criterion_fails(loss: ModuleLoss, outputs: Any, error: Exception) -> ValueError:
    """Return the error with the shapes of the samples tried, which are those in torch's text."""
    shape = getattr(outputs, "shape", None)
    found = type(outputs).__name__ if shape is None else f"shape {tuple(shape)}"
    if loss.y is None:
        targets, remedy = "", "Pass a criterion that takes what the module returns."
    else:
        kind = tuple(loss.y.shape[1:])
        # As many samples are tried as the module returned outputs.
        tried = kind if shape is None or len(shape) == 0 else (shape[0], *kind)
        targets = f" and y of shape {tried} and dtype {loss.y.dtype}"
        if is_of_labels(loss.criterion) and shape is not None and tuple(shape[1:-1]) == kind != ():
            remedy = (
                "Classes must be on axis 1 of the outputs and are on the last one: pass a function "
                "that moves them, lambda outputs, y: criterion(outputs.movedim(-1, 1), y)."
            )
        else:
            remedy = (
                "Pass labels as integers of shape (n,), values as floats of the outputs' shape; "
                "samples are on axis 0."
            )
    of_some = f", tried on {shape[0]} of {len(loss.X)} samples" if shape else ""
    return ValueError(
        f"criterion={short_name(loss.criterion)} fails on outputs of {found}{targets}{of_some}: "
        f"{str(error).rstrip('.')}. {remedy}"
    )


def _forked_generators(point: torch.Tensor) -> AbstractContextManager[None]:
    """Let a loss draw at random without advancing the global generators."""
    return torch.random.fork_rng(devices=[point.device] if point.is_cuda else [])


def check_sample(
    weights: torch.Tensor, y: torch.Tensor | None = None, n_rows: int = _MAX_ROWS
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
    n_rare = min(n_rows // 2, len(first_of_kind) - 1)
    rare = first_of_kind[len(first_of_kind) - n_rare :]
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


def rows_to_check(loss: ModuleLoss, weights: torch.Tensor) -> torch.Tensor:
    """Return the samples (int64) on which a loss is checked: a few, or all that go together."""
    return torch.arange(len(loss.X)) if loss.whole else check_sample(weights, loss.y)


def rows_to_differentiate(loss: ModuleLoss, weights: torch.Tensor) -> torch.Tensor:
    """Return those of ``rows_to_check`` on which derivatives are checked: so few that the graph is
    small, where there is a choice. Some twenty gradients are taken, in float64.
    """
    rows = rows_to_check(loss, weights)
    if loss.whole or loss.training:
        return rows
    few = check_sample(weights, loss.y, _LEAST_ROWS)
    leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(loss.own_point()))
    try:
        with _forked_generators(leaves[0]):
            n_bytes, _ = graph_bytes(
                lambda: evaluate(lambda parts: loss.of_rows(parts, few), leaves), leaves
            )
    except torch.OutOfMemoryError:
        raise
    except _CALL_ERRORS:  # samples that go together, or a loss that the checks refuse
        return rows
    n_rows = int(len(few) * _CHECKED_BYTES / max(1, n_bytes))
    return rows if n_rows >= len(rows) else check_sample(weights, loss.y, max(_LEAST_ROWS, n_rows))


def check_graph(loss: ModuleLoss, rows: torch.Tensor, module: torch.nn.Module) -> ModuleLoss:
    """Return the loss in full precision; raise if it computes in half precision all the same,
    or depends on parameters that are not those of its module.
    """
    leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(loss.own_point()))
    with _forked_generators(leaves[0]):
        first = evaluate(lambda parts: loss.of_rows(parts, rows), leaves)
        if torch.finfo(least_precise_dtype(first)).eps > torch.finfo(torch.float32).eps:
            loss = replace(loss, intercepted=True)
            first = evaluate(lambda parts: loss.of_rows(parts, rows), leaves)
            check_precision(least_precise_dtype(first))
        again = evaluate(lambda parts: loss.of_rows(parts, rows), leaves)
    # What forward creates itself, as the coordinates of a PINN, is new in each evaluation.
    found, others = ({id(leaf): leaf for leaf in graph_leaves(value)} for value in (first, again))
    known = {id(leaf) for leaf in leaves}
    _check_foreign([leaf for key, leaf in found.items() if key in others and key not in known],
                   loss, module)  # fmt: skip
    return loss


def _check_foreign(
    foreign: Sequence[torch.Tensor], loss: ModuleLoss, module: torch.nn.Module
) -> None:
    """Raise if the loss uses parameters of the user's module; warn of other trainable tensors."""
    if not foreign:
        return
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    own = [names[id(leaf)] for leaf in foreign if id(leaf) in names]
    shapes = Counter(tuple(p.shape) for p in loss.module.parameters())
    copies = not Counter(tuple(leaf.shape) for leaf in foreign) - shapes
    if own or copies:
        left_out = ", ".join(own[:5]) + (", ..." if len(own) > 5 else "")
        left_out = left_out or f"{len(foreign)} of the shapes that the module's parameters have"
        raise ValueError(
            f"loss depends on trainable parameters from outside ({left_out}): criterion, or a "
            "forward that was replaced, holds a model of its own, whose terms (such as a penalty "
            "on model.parameters()) would be left out. Pass weight_decay for a squared penalty, "
            "add the term in the module's forward, or pass HessianSpectrum a function of the flat "
            "vector. Call requires_grad_(False) on parameters that are to be held fixed."
        )
    warn(
        f"loss depends on {len(foreign)} trainable tensors that are not parameters of module "
        f"(shapes {', '.join(str(tuple(leaf.shape)) for leaf in foreign[:3])}). They are held "
        "fixed. Call requires_grad_(False) on them, or make them parameters of module.",
        SkdmapWarning,
    )


def check_loss(
    loss: ModuleLoss, few: torch.Tensor, weights: torch.Tensor, *, batched: bool
) -> tuple[ModuleLoss, bool]:
    """Return the loss in the form that passed, and whether it is the sum of its batches; raise if
    it has no Hessian on the samples ``few``, or (if ``batched``) is not that sum.
    """
    rows = rows_to_check(loss, weights)
    with _forked_generators(loss.X):
        loss = _differentiable_form(loss, few)
        if len(rows) == 1:
            return loss, True
        try:
            _check_additive(loss, rows, weights[rows])
        except (ValueError, *_CALL_ERRORS) as error:
            fails = not isinstance(error, ValueError)  # the module, on a part of the samples
            if not batched:
                return replace(loss, whole=loss.whole or fails), False
            if fails:
                raise _module_fails(loss, None, error) from error
            raise
    return loss, True


def _differentiable_form(loss: ModuleLoss, rows: torch.Tensor) -> ModuleLoss:
    """Return the loss in the first form whose derivatives are right, or raise."""
    try:
        _check_derivatives(loss, rows)
    except ValueError as error:
        # Activation checkpointing, weight normalisation, or both.
        for recomputes, intercepted in ((True, False), (False, True), (True, True)):
            form = replace(loss, recomputes=recomputes, intercepted=intercepted)
            try:
                _check_derivatives(form, rows)
            except ValueError:
                continue
            return form
        raise error from error.__cause__
    return loss


def _in_float64(loss: ModuleLoss, rows: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
    """Return the loss of these samples in float64, or as it is if something insists on its dtype.
    In float64, rounding of large outputs is not mistaken for a difference of small losses.
    """
    try:
        double = loss.on_rows(rows, torch.float64)
        everything = torch.arange(len(rows))
        double.of_flat(double.own_point(), everything)
    except (RuntimeError, TypeError):
        return loss, rows
    return double, everything


def _check_derivatives(loss: ModuleLoss, rows: torch.Tensor) -> None:
    _operator(loss, rows, loss.own_point()).close()  # in its own dtype
    few, rows = _in_float64(loss, rows)
    own = few.own_point()
    point = nearby_point(own)
    if not is_finite(lambda theta: few.of_flat(theta, rows), point):
        point = own

    def evaluate_at(theta: torch.Tensor) -> tuple[float, torch.Tensor, torch.dtype]:
        leaves = tuple(part.clone().requires_grad_(True) for part in few.parts(theta))
        value = evaluate(lambda parts: few.of_rows(parts, rows), leaves)
        dtype = least_precise_dtype(value)
        with few.within(leaves):
            gradient = backward([value], leaves)
        return float(value.detach()), flat(gradient), dtype

    direction, scale = random_direction(point)
    hessian, product = checked_operator(lambda: _operator(few, rows, point), direction)
    with hessian:
        check_derivatives(hessian, evaluate_at, point, direction, scale, product)


def _operator(loss: ModuleLoss, rows: torch.Tensor, theta: torch.Tensor) -> CurvatureOperator:
    chunks = chunk_graphs(loss, "hessian", ((rows, 1.0),), total=1.0, n_rows=len(rows))
    return CurvatureOperator(chunks, theta, shapes=loss.layout.shapes)


def _check_additive(loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor) -> None:
    if loss.training:  # dropout masks are drawn for each batch
        loss = replace(loss, module=copy_module(loss.module).eval(), training=False)
    difference, scale, _ = _sum_of_parts(loss, rows, weights)
    # Float64 is several times slower, and asked where this leaves a doubt.
    if difference <= _CLOSE * torch.finfo(loss.own_point().dtype).eps * scale:
        return
    loss, rows = _in_float64(loss, rows)
    difference, scale, found = _sum_of_parts(loss, rows, weights)
    eps = torch.finfo(loss.own_point().dtype).eps
    # The constant term allows for small losses of large outputs.
    if not difference <= eps**0.5 * scale + 100 * eps:
        raise ValueError(
            f"criterion={loss.criterion!r}: the loss of {len(rows)} samples is {found[0]:.6g}, but "
            f"two batches of them, weighted by size, give {found[1]:.6g}. batch_size needs a "
            "criterion that is a mean over samples or a sum (its reduction attribute 'mean' or "
            "'sum', class weights inside a CrossEntropyLoss or NLLLoss object) and a module that "
            "treats each sample separately. Otherwise set batch_size=None."
        )


def _sum_of_parts(
    loss: ModuleLoss, rows: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float, tuple[float, float]]:
    """Return by how much the loss of samples (weights: (n,)) differs from the sum over two unequal
    batches of them, the size of both, and both.
    """

    def loss_of(theta: torch.Tensor, part: Rows) -> float:
        return float(loss.of_flat(theta, rows[part]).detach())

    # Next to its own point a module treats samples differently even where its outputs are equal.
    n_rows, own = len(rows), loss.own_point()
    point = nearby_point(own)
    whole = loss_of(point, slice(0, n_rows))
    if not math.isfinite(whole):
        point, whole = own, loss_of(own, slice(0, n_rows))
    batches = even_batches(n_rows, -(-2 * n_rows // 3))
    shares = batch_shares(weights, reduction_of(loss.criterion), batches)
    parts = [share * loss_of(point, part) for part, share in shares]
    scale = max(abs(whole), sum(abs(part) for part in parts))
    return abs(whole - sum(parts)), scale, (whole, sum(parts))
