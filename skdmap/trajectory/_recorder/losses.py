"""Which logged loss belongs to which step."""

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning


class GradientMark:
    """Whether a backward pass has taken place since a step, told by one gradient."""

    def __init__(self) -> None:
        self._parameter: Any = None
        self._gradient: Any = None  # a weak reference, so that it can be freed
        self._version = -1

    def set(self, parameters: Iterable[torch.Tensor]) -> None:
        """Take note of the gradient that a step has used."""
        if self._parameter is None or self._parameter.grad is None:
            self._parameter = next((p for p in parameters if p.grad is not None), None)
        if self._parameter is not None:
            self._gradient = weakref.ref(self._parameter.grad)
            self._version = self._parameter.grad._version

    def has_changed(self) -> bool | None:
        """Return whether there is a new gradient; None where no gradient tells."""
        now = None if self._parameter is None else self._parameter.grad
        if now is None:
            return None
        if self._gradient() is now and now._version == self._version:
            return False
        return True if bool(now.any()) else None  # set to zero


class LoggedLosses:
    """Losses logged before or after the steps; the first event of a block decides which."""

    # Before: the losses since the last step are those of the parameters that the next step finds.
    # After: a loss is that of the parameters before the step just made. Where steps come first, a
    # backward pass between the last of them and the first loss shows that it belongs to the next:
    # losses of every tenth step, logged before it, begin so. Events cannot tell a
    # change of order from an irregular log with certainty. One pattern is taken for it: every step
    # had its loss, then one step had none, and the next has one again.

    def __init__(self) -> None:
        self._order = ""
        self._logged: list[Any] = []
        self._noted: list[Any] = []
        self._noted_in_step = False
        self.ignores_notes = False  # until the step ends
        self._steps_since: int | None = None  # the last log
        self._pattern = "each"
        self._counts: list[int] = []  # of losses before the first and the second step
        # A step that a GradScaler skips is not seen, and may leave two losses after one step.
        self.may_skip = False
        self._n_steps = 0
        self._has_warned = False
        self.mark = GradientMark()  # of the last step before the first loss

    @property
    def needs_mark(self) -> bool:
        """Whether the first loss, which decides the order, is still to come after a step."""
        return self._steps_since is None

    def log(self, loss: Any, *, in_step: bool, n_optimizers: int = 1) -> None:
        """Take a loss; ValueError where the order has changed.
        ``n_optimizers`` have made the steps since the last one, each a step of its own.
        """
        if in_step:  # a closure that logs its loss, maybe of the last of several batches
            if self._logged and self._order == "before" and not self._noted_in_step:
                self._logged.append(_copied(loss))
            self.note(loss, in_step=True)
            return
        self._order = self._order or "before"
        if self._order == "after" and self.needs_mark:
            self._reconsider(is_told=n_optimizers > 1)
        if self._order == "after" and n_optimizers > 1:
            self._warn_of_several(n_optimizers)
        if self._order == "before":
            self._check_before()
        elif self._logged and not self.may_skip:
            raise ValueError(
                "recorder.log was called twice after one step, but the first step of this block "
                "had its loss logged after it: it is not known to which step the second loss "
                "belongs. Log the loss of each step once after it, or of all steps before them."
            )
        self._logged.append(_copied(loss))
        self._steps_since = 0

    def note(self, value: Any, *, in_step: bool) -> None:
        """Take what a closure or a training step returned; of several in one step the first."""
        loss = _one_number(value)
        if loss is None or self.ignores_notes or (in_step and self._noted_in_step):
            return
        self._noted.append(loss)
        self._noted_in_step = in_step

    def end_step(self, *, counts: bool) -> tuple[Any, Any]:
        """Return the loss before this step, and the one before the previous step if logged now."""
        noted, self._noted, self._noted_in_step = self._noted, [], False
        self.ignores_notes = False
        if not counts:
            if self._order == "before":
                self._logged = []
            return None, None
        self._order = self._order or "after"
        self._n_steps += 1
        logged, self._logged = self._logged, []
        if len(self._counts) < 2:
            self._counts.append(len(logged))
        if self._steps_since is not None:
            self._steps_since += 1
        if self._order == "after":
            return _mean(noted), logged[0] if logged else None
        return _mean(logged if logged else noted), None

    @property
    def late_loss(self) -> Any:
        """The loss before the last step, if it was logged after it."""
        return self._logged[0] if self._order == "after" and self._logged else None

    def _warn_of_several(self, n_optimizers: int) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warn(
            f"recorder.log was called once after steps of {n_optimizers} optimizers. Each counts "
            "as a step, and the loss is taken for that before the last of them. If they make one "
            "step together, pass all of them: TrajectoryRecorder(module, optimizer=[a, b]). Else "
            "log a loss after each.",
            SkdmapWarning,
        )

    def _reconsider(self, *, is_told: bool) -> None:
        """Decide by the gradients whether the first loss, after steps without, comes after them."""
        is_new = self.mark.has_changed()
        if is_new:
            self._order = "before"
        elif is_new is None and self._n_steps > 1 and not is_told:
            warn(
                f"The first loss of this block was logged after {self._n_steps} steps without one, "
                "and nothing tells whether it is that of the last step or of the next one: it is "
                "taken for the last. If losses are logged before their steps, call recorder.log "
                "after backward(), or in the first step too.",
                SkdmapWarning,
            )

    def _check_before(self) -> None:
        steps, self._steps_since = self._steps_since, 0
        first, second = self._counts if len(self._counts) == 2 else (0, 0)
        if first > 0 and second == first + 1 and not self.may_skip:
            raise ValueError(
                f"recorder.log was called {first} times before the first step and {second} times "
                "before the second one: it seems that the last loss of each step is logged after "
                "it. Log each loss before the step that it belongs to."
            )
        if not steps:  # the first log, or several before one step
            return
        if self._pattern == "gap" and steps == 1:
            raise ValueError(
                "recorder.log was called before each step of this block, then not before one step, "
                "and then again: it is unclear whether the losses are logged after the steps "
                "now. Log the losses of all steps before them, or of all steps after them."
            )
        if self._pattern == "each" and steps <= 2:
            self._pattern = "each" if steps == 1 else "gap"
        else:
            self._pattern = "irregular"


def check_loss(loss: Any) -> None:
    """Raise where ``loss`` is not one number."""
    is_number = isinstance(loss, (int, float, np.number))
    if not is_number and not (isinstance(loss, torch.Tensor) and loss.numel() == 1):
        shape = getattr(loss, "shape", type(loss).__name__)
        raise ValueError(f"loss={shape} must be one number. Log loss.mean().")


def _one_number(value: Any) -> Any:
    """Return a copy of a loss, or None for what is not one."""
    if isinstance(value, dict):  # of a training step
        value = value.get("loss")
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    is_scalar = isinstance(value, torch.Tensor) and value.numel() == 1
    return _copied(value) if is_number or is_scalar else None


def _copied(loss: Any) -> Any:
    # A loop may change it in place, as in ``loss /= n_accumulated``.
    return loss.detach().clone() if isinstance(loss, torch.Tensor) else loss


def _mean(losses: list[Any]) -> Any:
    return sum(losses) / len(losses) if losses else None
