"""Module, loss and optimizer from what the user gave: a name, a class, a factory, an object."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._make_mlp import make_mlp
from skdmap.trajectory._nested_params import did_you_mean

# torch's own 1e-3 hardly moves a network in ten epochs.
DEFAULT_SGD_LR = 0.1


def build_module(
    module: Any, params: Mapping[str, Any] | None, *, n_features: int, n_outputs: int
) -> nn.Module:
    """Return a module of its own to train.

    Parameters
    ----------
    module : None, torch.nn.Module, class or factory
        None is ``make_mlp(n_features, n_outputs, **params)``; a class or factory is called with
        ``params``; an instance is deep-copied.
    params : mapping or None
        Keyword arguments.
    n_features, n_outputs : int
        Used for None only.

    Returns
    -------
    torch.nn.Module
        Never the user's own object.

    Raises
    ------
    InvalidParameterError
        If a key is unknown, an instance comes with keys, or a factory returns no module.
    """
    params = dict(params or {})
    if isinstance(module, nn.Module):
        _refuse_params(module, params, "module")
        return copy.deepcopy(module)
    if module is None:
        check_keys(make_mlp, params, "module", n_given=2)
        return make_mlp(n_features, n_outputs, **params)
    check_keys(module, params, "module")
    # Of the run's own: parts that were given would be trained in place, and shared by all runs.
    built = module(**own_copy(params))
    if not isinstance(built, nn.Module):
        raise InvalidParameterError(
            f"module={module!r} returned {type(built).__name__}, must return a torch.nn.Module."
        )
    # A factory may hand out an object that the user keeps.
    return built if inspect.isclass(module) else copy.deepcopy(built)


def build_criterion(
    criterion: Any, params: Mapping[str, Any] | None, device: torch.device
) -> Callable[..., torch.Tensor]:
    """Return the loss as a function of outputs and targets.

    Parameters
    ----------
    criterion : class, torch.nn.Module or function
        A class is called with ``params``. An instance is deep-copied. A function is the loss
        itself, and ``params`` are keyword arguments of it.
    params : mapping or None
        Keyword arguments.
    device : torch.device
        Where its tensors are put.

    Returns
    -------
    callable
        (outputs, targets) -> scalar tensor.

    Raises
    ------
    InvalidParameterError
        If a key is unknown, or an instance comes with keys.
    """
    params = dict(params or {})
    if isinstance(criterion, nn.Module):
        _refuse_params(criterion, params, "criterion")
        return copy.deepcopy(criterion).to(device)
    if inspect.isclass(criterion):
        check_keys(criterion, params, "criterion")
        built: Any = criterion(**own_copy(params))
        return built.to(device) if isinstance(built, nn.Module) else built
    check_keys(criterion, params, "criterion", n_given=2)
    return functools.partial(criterion, **params) if params else criterion


def build_optimizer(
    optimizer: Any, params: Mapping[str, Any] | None, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return an optimizer of the trainable ones among the parameters.

    Parameters
    ----------
    optimizer : str, class or factory
        A name in ``torch.optim``, or what is called as ``optimizer(parameters, **params)``.
    params : mapping or None
        Keyword arguments. SGD without "lr" gets ``DEFAULT_SGD_LR``.
    parameters : iterable of torch.nn.Parameter
        Those that do not require a gradient are left out.

    Returns
    -------
    torch.optim.Optimizer
        Ready to step.

    Raises
    ------
    InvalidParameterError
        If the name or a key is unknown, a value is refused, or something else than an optimizer
        comes out.
    """
    if isinstance(optimizer, str):
        optimizer = _optimizer_class(optimizer)
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
            f"optimizer={optimizer!r} returned {type(built).__name__}, must return a "
            "torch.optim.Optimizer."
        )
    return built


def own_copy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a value whose tensors and modules are copies, also within dicts, lists and tuples.

    A scheduler changes a learning rate that is a tensor in place, and training the modules that a
    module was given: the user's own must stay as they are, and each run begin with them.

    Parameters
    ----------
    value : object
        Keyword arguments, or part of them. What is neither is passed on as it is.
    memo : dict or None, default=None
        Of ``copy.deepcopy``.

    Returns
    -------
    object
        The copy.

    Examples
    --------
    >>> given = {"lr": torch.tensor(0.1), "betas": (0.9, 0.99)}
    >>> _ = own_copy(given)["lr"].mul_(0)
    >>> given["lr"]
    tensor(0.1000)
    """
    # What is there twice stays one: layers may be shared.
    memo = {} if memo is None else memo
    if isinstance(value, (torch.Tensor, nn.Module)):
        return copy.deepcopy(value, memo)
    if type(value) is dict:
        return {key: own_copy(entry, memo) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(own_copy(entry, memo) for entry in value)
    return value


def _optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    known = {
        key: value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
    }
    if name not in known:
        raise InvalidParameterError(
            f"optimizer={name!r} is no optimizer of torch.optim. {did_you_mean(name, known)}"
        )
    return known[name]


def _refuse_params(value: Any, params: Mapping[str, Any], name: str) -> None:
    if params:
        raise InvalidParameterError(
            f"{name}_params={dict(params)!r} cannot reach {name}, which is an instance of "
            f"{type(value).__name__} already. Pass the class, or leave {name}_params empty."
        )


def check_keys(
    target: Callable[..., Any], params: Mapping[str, Any], name: str, *, n_given: int = 0
) -> None:
    """Raise an InvalidParameterError for a key of ``<name>_params`` that the target does not take.

    Parameters
    ----------
    target : callable
        What is called.
    params : mapping
        Keyword arguments for it.
    name : str
        Of the parameter, for the message.
    n_given : int, default=0
        Arguments that it is given anyway, the first ones.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # written in C, without a signature: the call itself will tell
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
                f"{did_you_mean(key, taken) if taken else 'It takes none.'}"
            )


def build_scheduler(
    scheduler: Any, params: Mapping[str, Any] | None, optimizer: torch.optim.Optimizer
) -> Any:
    """Return a scheduler of an optimizer.

    Parameters
    ----------
    scheduler : str, class, factory or None
        A name in ``torch.optim.lr_scheduler``, or what is called as
        ``scheduler(optimizer, **params)``. None gives None.
    params : mapping or None
        Keyword arguments.
    optimizer : torch.optim.Optimizer
        Whose learning rate it sets.

    Returns
    -------
    object or None
        With ``step``, ``state_dict`` and ``load_state_dict``.

    Raises
    ------
    InvalidParameterError
        If the name or a key is unknown, a value is refused, or something else comes out.
    """
    if scheduler is None:
        if params:
            raise InvalidParameterError(
                f"scheduler_params={dict(params)!r} needs a scheduler, and scheduler=None. Pass "
                "its name too, as in scheduler='StepLR'."
            )
        return None
    if isinstance(scheduler, str):
        scheduler = _scheduler_class(scheduler)
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
    """Raise where a scheduler that ends would be stepped beyond its end, in the middle of a run.

    Parameters
    ----------
    scheduler : object or None
        Of torch's own, OneCycleLR ends; the others go on for ever.
    n_steps : int
        How many more times it will be stepped.

    Raises
    ------
    InvalidParameterError
        If ``total_steps`` is less than that.
    """
    if not isinstance(scheduler, lr_scheduler.OneCycleLR):
        return
    needed = scheduler.last_epoch + n_steps
    if needed > scheduler.total_steps:
        raise InvalidParameterError(
            f"scheduler={type(scheduler).__name__} ends after total_steps={scheduler.total_steps} "
            f"steps of its own, and would be stepped {needed} times, must be at least that. Pass "
            f"scheduler_params={{'total_steps': {needed}, ...}}, or lower max_epochs or max_steps."
        )


def step_scheduler(scheduler: Any, mean_loss: float) -> None:
    """Step a scheduler; one that waits for a plateau is given the mean loss since its last step."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(mean_loss)
    else:
        scheduler.step()


def _scheduler_class(name: str) -> Any:
    known = {
        key: value
        for key, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and not key.startswith("_")
        and value is not lr_scheduler.LRScheduler
    }
    if name not in known:
        raise InvalidParameterError(
            f"scheduler={name!r} is no scheduler of torch.optim.lr_scheduler. "
            f"{did_you_mean(name, known)}"
        )
    return known[name]
