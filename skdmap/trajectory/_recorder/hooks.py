"""Steps of a module's optimizers, seen from outside: which of them count, and the loss of each."""

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


@dataclass(frozen=True)
class OptimizerStep:
    """A step that took place.

    Attributes
    ----------
    loss : Tensor, float or None
        At the parameters before the step; None where nobody told it. A tensor stays on its device
        until somebody asks for its value, because asking waits for the device.
    learning_rate : Tensor or float
        Of the optimizer's first parameter group, as the step found it.
    """

    loss: Any
    learning_rate: Any


class StepWatch:
    """Calls back after each step of the optimizers of a module, while it is started.

    A step within a step (a wrapper that is an optimizer itself, a class that calls its parent's
    ``step``) is one step, as is one of LBFGS with all its evaluations. A step that a GradScaler
    skips is none: plain optimizers are not called at all then, fused ones are, with ``found_inf``
    set.

    Parameters
    ----------
    module : torch.nn.Module
        Any optimizer that holds one of its parameters is watched.
    optimizer : torch.optim.Optimizer or None
        Only this one, with those that it wraps under the name ``optimizer``; None watches all.
    on_step : callable
        Given an :class:`OptimizerStep`. What it raises leaves the optimizer's ``step``.
    """

    def __init__(
        self, module: nn.Module, optimizer: Any, on_step: Callable[[OptimizerStep], None]
    ) -> None:
        self._module = module
        self._own: dict[int, nn.Parameter] = {}
        self._chosen = _wrapped(optimizer)
        self._on_step = on_step
        self._logged: list[Any] = []
        self._loss: Any = None
        self._learning_rate: Any = None
        self._outermost: FrameType | None = None
        self._handles: list[Any] = []

    def start(self) -> None:
        """Hook all optimizers of this process, those not yet made among them."""
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]

    def stop(self) -> None:
        """Leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._outermost = None

    def log(self, loss: Any) -> None:
        """Take a loss that belongs to the step to come."""
        # A copy: a loop may go on with it in place, as in ``loss /= n_accumulated``.
        self._logged.append(loss.detach().clone() if isinstance(loss, torch.Tensor) else loss)

    def _watches(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._chosen:
            return any(optimizer is one for one in self._chosen)
        if not _holds_any(optimizer, self._own):
            # Looked up again, because a trainer may put new parameters in place of the old.
            # The tensors are held, or their numbers could come to mean others.
            self._own = {id(parameter): parameter for parameter in self._module.parameters()}
            return _holds_any(optimizer, self._own)
        return True

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        # What a step leaves open that an exception ended is not on the stack any more.
        if _is_running(self._outermost) or not self._watches(optimizer):
            return None
        self._outermost = sys._getframe(1)
        self._learning_rate = first_learning_rate(optimizer)
        # What was logged before the step is meant; a closure may return a scaled or partial loss.
        self._loss = _mean(self._logged)
        # args[0] is the optimizer.
        if len(args) > 1 and args[1] is not None:
            return (args[0], self._noting_loss(args[1]), *args[2:]), kwargs
        if kwargs.get("closure") is not None:
            return args, kwargs | {"closure": self._noting_loss(kwargs["closure"])}
        return None

    def _noting_loss(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **kwargs: Any) -> Any:
            value = closure(*args, **kwargs)
            if self._loss is None:
                self._loss = _one_number(value)
            return value

        return noting

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._outermost is None or sys._getframe(1) is not self._outermost:
            return
        self._outermost = None
        # A closure may log its loss and return none.
        loss = self._logged[0] if self._loss is None and self._logged else self._loss
        self._loss, self._logged = None, []
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        self._on_step(OptimizerStep(loss, self._learning_rate))


def first_learning_rate(optimizer: torch.optim.Optimizer) -> Any:
    """Return the learning rate of the first parameter group, nan where it has none.

    A tensor is copied, because schedulers change it in place.
    """
    rate = optimizer.param_groups[0].get("lr", float("nan"))
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate


def _holds_any(optimizer: Any, own: Collection[int]) -> bool:
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def _wrapped(optimizer: Any) -> list[Any]:
    """Return an optimizer and those that it wraps: accelerate's and Lightning's are wrappers."""
    found: list[Any] = []
    while optimizer is not None and not any(optimizer is one for one in found):
        found.append(optimizer)
        optimizer = getattr(optimizer, "optimizer", None)
    return found


def _is_running(frame: FrameType | None) -> bool:
    if frame is None:
        return False
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None


def _one_number(value: Any) -> Any:
    """Return a loss that owns its memory, or None for what is no loss."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.numel() == 1 else None
    return value if isinstance(value, (int, float)) else None


def _mean(losses: list[Any]) -> Any:
    return sum(losses) / len(losses) if losses else None
