"""Module, loss, optimizer and scheduler from a name, class, factory or instance."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from skdmap._argument_checks import did_you_mean
from skdmap._parameters import copy_module
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._make_mlp import make_mlp
from skdmap.trajectory._training.run_state import Run

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# torch's own 1e-3 hardly moves a network in ten epochs.
DEFAULT_SGD_LR = 0.1


def build_module(
    module: Any, params: Mapping[str, Any] | None, *, n_features: int, n_outputs: int
) -> nn.Module:
    """Return a module to train, never the user's own object; None is ``make_mlp``."""
    params = dict(params or {})
    if isinstance(module, nn.Module):
        _refuse_params(module, params, "module")
        return copy_module(module)
    if module is None:
        check_keys(make_mlp, params, "module", n_given=2)
        return make_mlp(n_features, n_outputs, **params)
    check_keys(module, params, "module")
    # Copies, because modules among params would be trained in place, and shared by all runs.
    built = module(**own_copy(params))
    if not isinstance(built, nn.Module):
        raise InvalidParameterError(
            f"module={module!r} returned {type(built).__name__}; it must return a torch.nn.Module."
        )
    # A factory may return an object that the user keeps.
    return built if inspect.isclass(module) else copy_module(built)


def build_criterion(criterion: Any, params: Mapping[str, Any] | None, device: torch.device) -> Loss:
    """Return the loss as a function of outputs and targets, its tensors on ``device``."""
    params = dict(params or {})
    if isinstance(criterion, nn.Module):
        _refuse_params(criterion, params, "criterion")
        return copy.deepcopy(criterion).to(device)
    if inspect.isclass(criterion):
        check_keys(criterion, params, "criterion")
        built: Any = criterion(**own_copy(params))
        return built.to(device) if isinstance(built, nn.Module) else built
    # A function is the loss itself.
    check_keys(criterion, params, "criterion", n_given=2)
    return functools.partial(criterion, **params) if params else criterion


def build_optimizer(
    optimizer: Any, params: Mapping[str, Any] | None, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return an optimizer of those parameters that require a gradient."""
    if isinstance(optimizer, str):
        optimizer = _class_named(optimizer, torch.optim, torch.optim.Optimizer, "optimizer")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidParameterError(
            f"optimizer={type(optimizer).__name__} instance holds the parameters of another "
            "module. Pass its class, and its arguments as optimizer_params."
        )
    params = dict(params or {})
    if optimizer is torch.optim.SGD:
        params.setdefault("lr", DEFAULT_SGD_LR)
    check_keys(optimizer, params, "optimizer", n_given=1)
    try:
        built = optimizer([p for p in parameters if p.requires_grad], **own_copy(params))
    except ValueError as error:
        raise InvalidParameterError(f"optimizer_params={params!r} is refused: {error}.") from error
    if not isinstance(built, torch.optim.Optimizer):
        raise InvalidParameterError(
            f"optimizer={optimizer!r} returned {type(built).__name__}; it must return a "
            "torch.optim.Optimizer."
        )
    return built


def build_scheduler(
    scheduler: Any, params: Mapping[str, Any] | None, optimizer: torch.optim.Optimizer
) -> Any:
    """Return a scheduler of an optimizer, or None."""
    if scheduler is None:
        if params:
            raise InvalidParameterError(
                f"scheduler_params={dict(params)!r} needs a scheduler, and scheduler=None. Pass "
                "its name too, as in scheduler='StepLR'."
            )
        return None
    if isinstance(scheduler, str):
        scheduler = _class_named(scheduler, lr_scheduler, lr_scheduler.LRScheduler, "scheduler")
    params = dict(params or {})
    check_keys(scheduler, params, "scheduler", n_given=1)
    try:
        built = scheduler(optimizer, **own_copy(params))
    except (ValueError, TypeError) as error:
        raise InvalidParameterError(f"scheduler_params={params!r} is refused: {error}.") from error
    for name in ("step", "state_dict", "load_state_dict"):
        if not callable(getattr(built, name, None)):
            raise InvalidParameterError(
                f"scheduler={scheduler!r} returned {type(built).__name__}, which has no {name}(). "
                "Pass a class of torch.optim.lr_scheduler, its name, or a factory."
            )
    return built


def check_length(scheduler: Any, n_steps: int) -> None:
    """Raise where a scheduler that ends would be stepped beyond its end, in the middle of a run."""
    # Of torch's own, OneCycleLR ends; the others never end.
    if not isinstance(scheduler, lr_scheduler.OneCycleLR):
        return
    needed = scheduler.last_epoch + n_steps
    if needed > scheduler.total_steps:
        raise InvalidParameterError(
            f"scheduler={type(scheduler).__name__} ends after total_steps={scheduler.total_steps} "
            f"steps of its own, and would be stepped {needed} times; it must have at least that "
            f"many. Pass scheduler_params={{'total_steps': {needed}, ...}}, or lower max_epochs or "
            "max_steps."
        )


def step_scheduler(scheduler: Any, mean_loss: float) -> None:
    """Step a scheduler; ReduceLROnPlateau is given the mean loss since its last step."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(mean_loss)
    else:
        scheduler.step()


def continue_optimizer(
    run: Run,
    optimizer: Any,
    params: Mapping[str, Any] | None,
    scheduler: Any = None,
    scheduler_params: Mapping[str, Any] | None = None,
) -> tuple[torch.optim.Optimizer, Any]:
    """Return optimizer and scheduler of a run, with the state that they had in the last call.
    Settings in ``params`` that have changed since win; another class starts without state.
    """
    given = dict(params or {})
    built = build_optimizer(optimizer, params, run.module.parameters())
    schedule = build_scheduler(scheduler, scheduler_params, built)
    if run.optimizer is not None and run.optimizer[0] is type(built):
        # A scheduler sets rates when it is made, so that the state is loaded afterwards.
        built.load_state_dict(run.optimizer[1])
        kind, state = run.scheduler or (None, {})
        is_same = kind is type(schedule)
        if is_same:
            schedule.load_state_dict(state)
            _apply_changes(given, run, built, schedule)
        else:
            _apply_changes(given, run, built, None)
            # A new one begins with the rates that the optimizer has now.
            schedule = build_scheduler(scheduler, scheduler_params, built)
    run.optimizer_params = given
    return built, schedule


def own_copy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a value whose tensors and modules, also within dicts, lists and tuples, are copies."""
    # A scheduler changes a learning rate that is a tensor in place, and training changes modules:
    # the user's own stay as they are, and each run begins with them. What is shared stays shared.
    memo = {} if memo is None else memo
    if isinstance(value, (torch.Tensor, nn.Module)):
        return copy.deepcopy(value, memo)
    if type(value) is dict:
        return {key: own_copy(entry, memo) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(own_copy(entry, memo) for entry in value)
    return value


def check_keys(
    target: Callable[..., Any], params: Mapping[str, Any], name: str, *, n_given: int = 0
) -> None:
    """Raise for a key of ``<name>_params`` that the target does not take.
    ``n_given``: the first so many arguments of the target are given anyway.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # written in C, without a signature: the call itself checks
        return
    arguments = list(signature.parameters.values())
    if any(a.kind is a.VAR_KEYWORD for a in arguments):
        return
    taken = [
        a.name for a in arguments[n_given:] if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)
    ]
    for key in params:
        if key not in taken:
            title = getattr(target, "__name__", type(target).__name__)
            raise InvalidParameterError(
                f"{name}_params has the key {key!r}, which {title} does not take. "
                f"{did_you_mean(key, taken) if taken else 'It takes no keys.'}"
            )


def _apply_changes(
    given: Mapping[str, Any], run: Run, built: torch.optim.Optimizer, schedule: Any
) -> None:
    """Write the settings that have changed since the last call over those of the saved state."""
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


def _refuse_params(value: Any, params: Mapping[str, Any], name: str) -> None:
    if params:
        raise InvalidParameterError(
            f"{name}_params={dict(params)!r} cannot be applied to {name}, which is an instance of "
            f"{type(value).__name__} already. Pass the class, or leave {name}_params empty."
        )


def _class_named(name: str, namespace: Any, base: type, parameter: str) -> Any:
    """Return the public class of that name among those in a module of torch."""
    known = {
        key: value
        for key, value in vars(namespace).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value is not base
        and not key.startswith("_")
    }
    if name not in known:
        raise InvalidParameterError(
            f"{parameter}={name!r} is not in {namespace.__name__}. {did_you_mean(name, known)}"
        )
    return known[name]
