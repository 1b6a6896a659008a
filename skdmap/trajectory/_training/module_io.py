"""A run before and between its training calls: built, seeded, checked; continued."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skdmap._parameters import parameter_layout
from skdmap._random import SeedStreams, forked_torch, get_torch_state, seed_torch
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._training.factories import build_module, build_optimizer, build_scheduler
from skdmap.trajectory._training.module_state import kept_buffers, module_device
from skdmap.trajectory._training.run_state import Run
from skdmap.trajectory._training.targets import match_outputs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# What torch and modules raise on input that does not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError)


def resolve_device(device: Any) -> torch.device | None:
    """Return the device, or None for the module's own.

    Parameters
    ----------
    device : str, torch.device or None
        As the user gave it.

    Returns
    -------
    torch.device or None
        One that holds tensors.

    Raises
    ------
    InvalidParameterError
        If there is no such device here.
    """
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InvalidParameterError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]}. Pass None for the "
            "module's own device, 'cpu', or 'cuda' where there is a GPU for it."
        ) from error


def start_run(
    index: int,
    seeds: SeedStreams,
    module: Any,
    module_params: Mapping[str, Any] | None,
    *,
    example: np.ndarray,
    n_outputs: int,
    device: torch.device | None,
) -> Run:
    """Return a run with a freshly initialised module and seeded streams.

    Parameters
    ----------
    index : int
        Number of the run.
    seeds : SeedStreams
        Seeds of all runs.
    module, module_params : object
        As the user gave them.
    example : ndarray of shape (n, n_features, ...)
        Some rows of X: what module=None and lazy layers take their width from.
    n_outputs : int
        Width of the output of module=None.
    device : torch.device or None
        Where to train. The module is initialised on the CPU, so that all devices start alike.

    Returns
    -------
    Run
        At step 0.

    Raises
    ------
    ValueError
        If the module cannot be built or does not take the rows, or has no trainable parameters.
    """
    cpu = torch.device("cpu")
    with forked_torch(cpu):
        seed_torch(seeds.seed("init", index), cpu)
        built = build_module(
            module, module_params, n_features=example.shape[1], n_outputs=n_outputs
        )
        if any(is_lazy(p) for p in built.parameters()):
            with torch.no_grad():  # a first call gives them their shapes and values
                _outputs(built.eval(), cast_inputs(example, built))
    parameter_layout(built)  # an error where nothing is trainable
    if device is not None:
        built = built.to(device)
    with forked_torch(module_device(built)):
        seed_torch(seeds.seed("dropout", index), module_device(built))
        dropout = get_torch_state(module_device(built))
    batches = torch.Generator().manual_seed(seeds.seed("batches", index)).get_state()
    return Run(index, built, batches, dropout, seeds.seed("label_noise", index))


def cast_inputs(X: np.ndarray, module: nn.Module) -> torch.Tensor:
    """Return X on the module's device, in the type of its first floating-point parameter."""
    values = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    # Not the user's memory where torch would warn (read-only) or fail (negative strides).
    values = np.require(values, requirements=["C", "W"])
    return torch.from_numpy(values).to(module_device(module), _module_dtype(module))


def output_width(module: nn.Module, example: np.ndarray) -> int:
    """Return the number of columns of what a module returns, in eval mode, module left as found.

    0 where it returns no tensor of two dimensions or more: what :func:`cast_targets` refuses.
    """
    inputs = cast_inputs(example, module)
    was_training = module.training
    with torch.no_grad(), forked_torch(inputs.device), kept_buffers(module):
        try:
            outputs = _outputs(module.eval(), inputs)
        finally:
            module.train(was_training)
    is_table = isinstance(outputs, torch.Tensor) and outputs.ndim >= 2
    return int(outputs.shape[1]) if is_table else 0


def cast_targets(
    values: np.ndarray, inputs: torch.Tensor, module: nn.Module, criterion: Loss
) -> torch.Tensor:
    """Return targets on the module's device, in the shape of its outputs.

    Parameters
    ----------
    values : ndarray of shape (n,) or (n, n_outputs)
        int64 codes stay integers, values take the type of the module.
    inputs : Tensor of shape (n, ...)
        Rows; two of them are sent through the module in eval mode.
    module : torch.nn.Module
        Left as found.
    criterion : callable
        Tried on the same rows.

    Returns
    -------
    Tensor of shape (n, ...)
        What the criterion is given.

    Raises
    ------
    ValueError
        If the module does not take the rows, its outputs do not fit y, or the loss is no scalar
        that depends on them.
    """
    targets = torch.from_numpy(values).to(inputs.device)
    if targets.is_floating_point():
        targets = targets.to(inputs.dtype)
    was_training = module.training
    with forked_torch(inputs.device):
        try:
            outputs = _outputs(module.eval(), inputs[:2])
        finally:
            module.train(was_training)
        if not isinstance(outputs, torch.Tensor):
            raise ValueError(
                f"module returns {type(outputs).__name__}, must return one tensor. Wrap it in a "
                "module that picks the output."
            )
        targets = match_outputs(targets, outputs, criterion)
        loss = _loss(criterion, outputs, targets[:2])
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss)
        raise ValueError(
            f"criterion returns {found}, must return one number that can be differentiated by the "
            "module's parameters. Use reduction='mean', and no detach()."
        )
    return targets


def continue_optimizer(
    run: Run,
    optimizer: Any,
    params: Mapping[str, Any] | None,
    scheduler: Any = None,
    scheduler_params: Mapping[str, Any] | None = None,
) -> tuple[torch.optim.Optimizer, Any]:
    """Return optimizer and scheduler of a run with the state (momentum, ...) that they had.

    Parameters
    ----------
    run : Run
        Its module is optimized.
    optimizer, params, scheduler, scheduler_params : object
        As the user gives them now. Keys of ``params`` that are new or have another value than
        before win over those of the saved state; another class starts without state.

    Returns
    -------
    optimizer : torch.optim.Optimizer
        Ready to step.
    scheduler : object or None
        Of it.
    """
    given = dict(params or {})
    built = build_optimizer(optimizer, params, run.module.parameters())
    schedule: Any = build_scheduler(scheduler, scheduler_params, built)
    if run.optimizer is not None and run.optimizer[0] is type(built):
        # A scheduler sets rates when it is made, so that the state is loaded afterwards.
        built.load_state_dict(run.optimizer[1])
        kind, state = (None, {}) if run.scheduler is None else run.scheduler
        goes_on = kind is type(schedule)
        if goes_on:
            schedule.load_state_dict(state)
            _take_over(given, run, built, schedule)
        else:
            _take_over(given, run, built, None)
            # One that is new begins from the rates that there are.
            schedule = build_scheduler(scheduler, scheduler_params, built)
    run.optimizer_params = given
    return built, schedule


def _take_over(
    given: Mapping[str, Any], run: Run, built: torch.optim.Optimizer, schedule: Any
) -> None:
    """Put settings that the user has changed since in place of those of the saved state."""
    changed = {
        key: value
        for key, value in given.items()
        if key not in run.optimizer_params or run.optimizer_params[key] != value
    }
    for group in built.param_groups:
        group.update({key: value for key, value in changed.items() if key in group})
        if schedule is not None and "lr" in changed and "initial_lr" in group:
            group["initial_lr"] = changed["lr"]
    if schedule is not None and "lr" in changed and hasattr(schedule, "base_lrs"):
        schedule.base_lrs = [changed["lr"]] * len(schedule.base_lrs)


def mean_loss(
    module: nn.Module, criterion: Loss, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int
) -> float:
    """Return the loss of all rows in eval mode; outputs are computed batch by batch."""
    was_training = module.training
    with torch.no_grad(), forked_torch(inputs.device):
        outputs = torch.cat([module.eval()(part.clone()) for part in inputs.split(batch_size)])
        module.train(was_training)
        return float(criterion(outputs, targets))


def _outputs(module: nn.Module, rows: torch.Tensor) -> Any:
    """Return what the module makes of some rows, or say that it does not take them."""
    try:
        # A copy, because a module may change its input in place, and the memory may be the user's.
        return module(rows.clone())
    except torch.OutOfMemoryError:
        raise
    except _MISFITS as error:
        shape = tuple(rows.shape[1:])
        raise ValueError(
            f"module={type(module).__name__} fails on rows of shape {shape}: {error}. Pass a "
            f"module that takes a batch of shape (n, {', '.join(map(str, shape))}), or reshape X."
        ) from error


def _loss(criterion: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> Any:
    """Return the loss of some rows, or say that the criterion does not take them."""
    try:
        return criterion(outputs, targets)
    except torch.OutOfMemoryError:
        raise
    except _MISFITS as error:
        title = getattr(criterion, "__name__", type(criterion).__name__)
        raise ValueError(
            f"criterion={title} fails on outputs of shape {tuple(outputs.shape)} and targets of "
            f"shape {tuple(targets.shape)} and dtype {targets.dtype}: {error}. Change "
            "criterion_params, or what module returns; criterion=None chooses by the type of y."
        ) from error


def _module_dtype(module: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())
