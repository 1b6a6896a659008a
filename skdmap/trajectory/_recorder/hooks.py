"""Steps of a module's optimizers, seen from outside: which of them count, and the loss of each."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from skdmap.trajectory._recorder.losses import LoggedLosses
from skdmap.trajectory._recorder.wrappers import (
    FrameWatch,
    MethodPatch,
    is_hooked,
    is_lightning_module,
    is_optimizer,
    is_running,
    lightning_module_around,
    optimizers_within,
    outermost_step,
    passes_on,
)


@dataclass(frozen=True)
class OptimizerStep:
    """A step that took place."""

    loss: Any  # at the parameters before the step; None if not logged, a tensor is not read yet
    late_loss: Any  # at the parameters before the previous step, if it was logged after that step
    learning_rate: Any  # of the first optimizer's first parameter group, as its step found it


class StepWatch:
    """Call back after each step of the optimizers of a module, between ``start`` and ``stop``."""

    # A step within a step (a wrapper around another optimizer, a class that calls its parent's
    # ``step``) is one step, which ends when the outermost returns, as is one of LBFGS with all its
    # evaluations. A step that a GradScaler skips does not count: plain optimizers are not called
    # at all then, fused ones are, with ``found_inf`` set.

    def __init__(
        self,
        module: nn.Module,
        optimizers: list[Any],
        on_step: Callable[[OptimizerStep], None],
        has_moved: Callable[[], bool],
        on_first_step: Callable[[], None],
    ) -> None:
        """Watch the optimizers given, one step of all being one step; none: all of the module."""
        self._module, self._given = module, optimizers
        self._on_step, self._has_moved, self._on_first_step = on_step, has_moved, on_first_step
        self.losses = LoggedLosses()
        self.n_steps = 0
        self.saw_lookalike = False
        self._own: dict[int, nn.Parameter] = {}
        self._known = [one for given in optimizers for one in optimizers_within(given)]
        self._patches: dict[tuple[int, str], Callable[[], None]] = {}
        self._unwrapped: set[tuple[Any, ...]] = set()
        self._holds_others: dict[int, tuple[Any, bool]] = {}
        self._frame: FrameType | None = None  # of the step that is running
        self._top: Any = None
        self._inner_stepped = False
        self._has_begun = False  # a step of any optimizer
        self._overdue = False
        self._learning_rate: Any = None
        self._has_stepped = [False] * len(optimizers)
        self._closing: int | None = None
        self._turns: dict[int, list[int]] = {}  # which of the given optimizers a step is of
        self._strangers: set[int] = set()
        self._stepped: set[int] = set()  # optimizers that made steps since the last loss
        self._lightning: Any = None  # the module whose training steps are noted

    def start(self) -> None:
        """Watch all optimizers of this process, those made later too."""
        for optimizer in self._given:
            if not is_hooked(optimizer):
                self._patch(optimizer, "step")
        if is_lightning_module(self._module):
            self._note_training_steps(self._module)
        _WATCHES.add(self)

    def stop(self) -> None:
        """Watch no longer, and leave no patch behind."""
        self._end_overdue()
        _WATCHES.remove(self)
        for remove in self._patches.values():
            remove()
        self._patches = {}
        self._frame = None

    def log(self, loss: Any) -> None:
        """Take a loss that the loop logs."""
        self._end_overdue()
        in_step = is_running(self._frame)
        self.losses.log(loss, in_step=in_step, n_optimizers=len(self._stepped))
        if not in_step:
            self._stepped.clear()

    def end_by_hand(self) -> tuple[Any, Any]:
        """End a step without an optimizer; return its loss, and a late one of the step before."""
        found = self.losses.end_step(counts=True)
        self._mark_gradient()
        return found

    def _mark_gradient(self) -> None:
        if self.losses.needs_mark:
            self.losses.mark.set(self._module.parameters())

    def settle(self) -> None:
        """Call back for a step that has ended unseen, before the loop asks for a row."""
        self._end_overdue()

    def before(
        self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any, frame: FrameType
    ) -> Any:
        """Take note that ``frame`` begins a step of a hooked optimizer; return other arguments."""
        if is_running(self._frame):
            return None
        self._end_overdue()
        if not self._watches(optimizer) and not self._adopts(optimizer, frame):
            self._has_begun = True
            return None
        top, outer = self._outermost(optimizer, frame)
        self._begin(top, outer)
        if outer is frame or passes_on(top, optimizer):
            self._look_at_first_step()
        if outer is not frame:  # in the middle of its step
            self._overdue = True
            FrameWatch(outer, self._end_overdue_of(outer)).start()
            name = outer.f_code.co_name
            self._patch(top, name if hasattr(top, name) else "step")
        noted = self._with_noted_closure(args, kwargs)
        if noted is not None and self._lightning is None:
            within = lightning_module_around(frame)  # of which the module recorded is a part
            if within is not None and within.automatic_optimization:
                self._note_training_steps(within)
                # Where it accumulates gradients, the other parts of the loss have gone by.
                self.losses.ignores_notes = within.trainer.accumulate_grad_batches > 1
        return noted

    def after(self, optimizer: torch.optim.Optimizer, frame: FrameType) -> None:
        """Take note that the step of a hooked optimizer ends."""
        if self._frame is None:
            return
        if self._frame is frame:
            self._end()
        elif not _found_inf(optimizer):
            self._inner_stepped = True

    def _adopts(self, optimizer: Any, frame: FrameType) -> bool:
        """Watch an optimizer of other tensors from now on if one around it holds the module's."""
        if self.n_steps or id(optimizer) in self._strangers:
            return False
        self._strangers.add(id(optimizer))
        self.saw_lookalike |= _shapes(optimizer) == _shapes(self._module)
        top = outermost_step(optimizer, frame)[0]
        if top is optimizer or not self._watches(top):
            return False
        self._known.append(optimizer)  # of float32 copies of half-precision parameters
        return True

    def _watches(self, optimizer: Any) -> bool:
        if self._given:
            if not any(optimizer is one for one in self._known):
                self._known = [one for g in self._given for one in optimizers_within(g)]
            return any(optimizer is one for one in self._known)
        if _holds_any(optimizer, self._own) or any(optimizer is one for one in self._known):
            return True
        # Looked up again, because a trainer may replace parameters by new ones. The tensors are
        # held: the id of a freed one can be given to another.
        self._own = {id(parameter): parameter for parameter in self._module.parameters()}
        return _holds_any(optimizer, self._own)

    def _outermost(self, optimizer: Any, frame: FrameType) -> tuple[Any, FrameType]:
        # To look through the stack costs as much as a step of a small network: once a caller.
        first = frame.f_back
        second = None if first is None else first.f_back
        codes = tuple(None if one is None else one.f_code for one in (first, second))
        key = (id(optimizer), id(vars(optimizer).get("step")), *codes)
        if key in self._unwrapped:
            return optimizer, frame
        if any(code and code.co_filename.endswith("grad_scaler.py") for code in codes):
            self.losses.may_skip = True
        top, outer = outermost_step(optimizer, frame)
        if outer is frame:
            self._unwrapped.add(key)
        return top, outer

    def _patch(self, owner: Any, name: str) -> None:
        if (id(owner), name) in self._patches:
            return

        def around(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if is_running(self._frame):
                return original(*args, **kwargs)
            self._end_overdue()
            self._begin(owner, sys._getframe())
            self._look_at_first_step()
            noted = self._with_noted_closure((owner, *args), kwargs)
            args, kwargs = (args, kwargs) if noted is None else (noted[0][1:], noted[1])
            result = original(*args, **kwargs)
            self._end()
            return result

        try:
            self._patches[id(owner), name] = MethodPatch.add(owner, name, around)
        except (AttributeError, TypeError):  # __slots__: its frame is watched at each step instead
            return

    def _begin(self, top: Any, frame: FrameType) -> None:
        self._top, self._frame, self._inner_stepped = top, frame, False
        if len(self._given) < 2:
            self._learning_rate = first_learning_rate(top)
        elif self._learning_rate is None or 0 in self._turns_of(top):
            self._learning_rate = first_learning_rate(self._given[0])

    def _look_at_first_step(self) -> None:
        if not self._has_begun:
            self._on_first_step()

    def _end(self) -> None:
        top, self._top, self._frame, self._overdue = self._top, None, None, False
        self._has_begun = True
        counts = self._inner_stepped
        if not counts and not _found_inf(top):
            # A wrapper may accumulate, and call the optimizer within at some steps only.
            counts = not self._holds_optimizers(top) or self._has_moved()
        if counts and self._given:
            counts = self._completes(top)
            if not counts:
                return
        loss, late_loss = self.losses.end_step(counts=counts)
        if counts:
            self.n_steps += 1
            if not self._given:
                self._stepped.add(id(top))
            self._mark_gradient()
            rate, self._learning_rate = self._learning_rate, None
            self._on_step(OptimizerStep(loss, late_loss, rate))

    def _end_overdue(self) -> None:
        if self._overdue and not is_running(self._frame):
            self._end()

    def _end_overdue_of(self, frame: FrameType) -> Callable[[], None]:
        def end() -> None:
            if self._overdue and self._frame is frame:
                self._end()

        return end

    def _completes(self, top: Any) -> bool:
        """Return whether a step of one of the given optimizers makes a step of all of them."""
        last = 0
        for last in self._turns_of(top):
            self._has_stepped[last] = True
        if not all(self._has_stepped):
            return False
        # The first round tells the order. The one that closed it closes all: a discriminator may
        # make several steps to one of the generator, and a GradScaler may skip one of the two.
        self._closing = last if self._closing is None else self._closing
        if last != self._closing:
            return False
        self._has_stepped = [False] * len(self._given)
        return True

    def _turns_of(self, top: Any) -> list[int]:
        """Return which of the given optimizers a step of ``top`` is a step of."""
        if id(top) not in self._turns:
            within = [optimizers_within(given) for given in self._given]
            held = optimizers_within(top)
            self._turns[id(top)] = [
                i
                for i, given in enumerate(self._given)
                if any(one is top for one in within[i]) or any(one is given for one in held)
            ]
        return self._turns[id(top)]

    def _holds_optimizers(self, top: Any) -> bool:
        if id(top) not in self._holds_others:
            self._holds_others[id(top)] = (top, len(optimizers_within(top)) > 1)
        return self._holds_others[id(top)][1]

    def _with_noted_closure(self, args: Any, kwargs: Any) -> Any:
        if self._lightning is not None and self._lightning.automatic_optimization:
            return None
        if len(args) > 1 and callable(args[1]):  # args[0] is the optimizer
            return (args[0], self._noting_loss(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, kwargs | {"closure": self._noting_loss(kwargs["closure"])}
        return None

    def _noting_loss(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        begun = [_sample(self._module)]

        def noting(*args: Any, **kwargs: Any) -> Any:
            # Sharpness-aware steps call it at other parameters than those of the row.
            is_at_row = bool(begun) and torch.equal(_sample(self._module), begun.pop())
            value = closure(*args, **kwargs)
            if is_at_row:
                self.losses.note(value, in_step=True)
            return value

        return noting

    def _note_training_steps(self, module: Any) -> None:
        self._lightning = module
        key = (id(module), "training_step")
        self._patches[key] = MethodPatch.add(module, "training_step", self._training_step)

    def _training_step(self, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note what Lightning's training step returns: its closure sees the last part only."""
        value = original(*args, **kwargs)
        if self._lightning.automatic_optimization:
            self.losses.note(value, in_step=is_running(self._frame))
        return value


def first_learning_rate(optimizer: Any) -> Any:
    """Return the learning rate of the first parameter group, nan without one."""
    groups = getattr(optimizer, "param_groups", None)
    rate = groups[0].get("lr", float("nan")) if groups else float("nan")
    # Schedulers change a tensor in place.
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate


class _Watches:
    """The watches that are started, which each step of this process asks."""

    # Torch walks its global hooks in each step of each thread, and raises where another thread
    # adds or removes one meanwhile. So ours are registered once, and the tuple is replaced.

    def __init__(self) -> None:
        self.started: tuple[StepWatch, ...] = ()
        self._lock = threading.Lock()

    def add(self, watch: StepWatch) -> None:
        with self._lock:
            self.started = (*self.started, watch)

    def remove(self, watch: StepWatch) -> None:
        with self._lock:
            self.started = tuple(one for one in self.started if one is not watch)


_WATCHES = _Watches()


def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
    changed = None
    for watch in _WATCHES.started:
        result = watch.before(optimizer, args, kwargs, sys._getframe(1))
        if result is not None:
            args, kwargs = changed = result
    return changed


def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for watch in _WATCHES.started:
        watch.after(optimizer, sys._getframe(1))


# A compiled step calls them as they are.
vars(_before_step)["_torchdynamo_disable"] = vars(_after_step)["_torchdynamo_disable"] = True
register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)


def _found_inf(optimizer: Any) -> bool:
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def _holds_any(optimizer: Any, own: dict[int, nn.Parameter]) -> bool:
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def _sample(module: nn.Module) -> torch.Tensor:
    """Return up to eight entries of each parameter, which tell whether it was changed."""
    found = []
    for parameter in module.parameters():
        flat = parameter.detach().reshape(-1)
        found.append(flat[:: max(1, len(flat) // 8)][:8].to("cpu", torch.float64))
    return torch.cat(found)


def _shapes(source: Any) -> list[tuple[int, ...]]:
    """Return the sorted shapes of the parameters of a module or an optimizer."""
    if is_optimizer(source):
        parameters = [p for group in source.param_groups for p in group["params"]]
    else:
        parameters = list(source.parameters())
    return sorted(tuple(parameter.shape) for parameter in parameters)
