"""Learning-rate schedules from what the user gave, and when they step."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from skdmap._validation import InvalidParameterError
from skdmap.trajectory._build import check_keys, own_copy
from skdmap.trajectory._nested_params import did_you_mean

__all__ = ["build_scheduler", "check_length", "step_scheduler"]


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
