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
    """A step that took place."""

    loss: Any  # at the parameters before the step; None if not logged, a tensor is not read yet
    learning_rate: Any  # of the optimizer's first parameter group, as the step found it


class StepWatch:
    """Call back after each step of the optimizers of a module, between ``start`` and ``stop``."""

    # A step within a step (a wrapper that is an optimizer itself, a class that calls its parent's
    # ``step``) is one step, as is one of LBFGS with all its evaluations. A step that a GradScaler
    # skips does not count: plain optimizers are not called at all then, fused ones are, with
    # ``found_inf`` set.

    def __init__(
        self, module: nn.Module, optimizer: Any, on_step: Callable[[OptimizerStep], None]
    ) -> None:
        """Watch one optimizer and those it wraps; None watches all that hold a parameter."""
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
        """Hook all optimizers of this process, those made later too."""
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]

    def stop(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._outermost = None

    def log(self, loss: Any) -> None:
        """Take a loss for the next step."""
        # A copy: a loop may go on with it in place, as in ``loss /= n_accumulated``.
        self._logged.append(loss.detach().clone() if isinstance(loss, torch.Tensor) else loss)

    def _watches(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._chosen:
            return any(optimizer is one for one in self._chosen)
        if not _holds_any(optimizer, self._own):
            # Looked up again, because a trainer may replace parameters by new ones. The tensors
            # are held: the id of a freed one can be given to another.
            self._own = {id(parameter): parameter for parameter in self._module.parameters()}
            return _holds_any(optimizer, self._own)
        return True

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        # A step that an exception ended left its frame here, but it is no longer on the stack.
        if _is_running(self._outermost) or not self._watches(optimizer):
            return None
        self._outermost = sys._getframe(1)
        self._learning_rate = first_learning_rate(optimizer)
        # A logged loss comes first; a closure may return a scaled or partial one.
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
        # A closure may log its loss and return nothing.
        loss = self._logged[0] if self._loss is None and self._logged else self._loss
        self._loss, self._logged = None, []
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        self._on_step(OptimizerStep(loss, self._learning_rate))


def first_learning_rate(optimizer: torch.optim.Optimizer) -> Any:
    """Return the learning rate of the first parameter group, nan without one."""
    rate = optimizer.param_groups[0].get("lr", float("nan"))
    # Schedulers change a tensor in place.
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate


def _holds_any(optimizer: Any, own: Collection[int]) -> bool:
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def _wrapped(optimizer: Any) -> list[Any]:
    """Return an optimizer and those it wraps under the name ``optimizer``, as accelerate does."""
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
    """Return a copy of a loss, or None for what is not one."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.numel() == 1 else None
    return value if isinstance(value, (int, float)) else None


def _mean(losses: list[Any]) -> Any:
    return sum(losses) / len(losses) if losses else None
