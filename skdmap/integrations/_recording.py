"""What the callbacks share: a recorder that begins once the trainer has loaded its checkpoint."""

from dataclasses import asdict
from typing import Any

from torch import nn

from skdmap.trajectory import TrajectoryRecorder
from skdmap.trajectory._recorder.row_writer import PathState


class Recording:
    """One recorder at a time, entered and left by a callback."""

    def __init__(self, resume: bool | None, settings: dict[str, Any], trainer_call: str) -> None:
        """``trainer_call`` is how a user has the trainer load a checkpoint."""
        self._resume, self._settings, self._trainer_call = resume, settings, trainer_call
        self.recorder: TrajectoryRecorder | None = None
        self._is_open = False
        self._last_state: dict[str, Any] = {}

    def begin(self, module: nn.Module, step: int, state: dict[str, Any] | None) -> None:
        """Record from ``step`` on, which a checkpoint with ``state`` may have been saved at."""
        self.end()
        known = PathState(**state) if state else None
        resume = self._resume
        if resume is None:
            resume = step > 0 and self._settings["store"] is not None
        self.recorder = TrajectoryRecorder(
            module,
            first_step=step if known is None else known.step,
            resume=resume,
            **self._settings,
        )
        self.recorder._resumed = known
        self.recorder._trainer_call = self._trainer_call
        self.recorder.__enter__()
        self._is_open = True

    def log(self, loss: Any) -> None:
        """Log a loss, while a recorder is open."""
        if self._is_open and self.recorder is not None:
            self.recorder.log(loss)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint of the trainer is to hold; JSON can write it."""
        found = self.recorder._path_state() if self._is_open and self.recorder is not None else None
        return self._last_state if found is None else asdict(found)

    def end(self, error: BaseException | None = None) -> None:
        """Leave the recorder, if it is open: its attributes are there afterwards."""
        if not self._is_open or self.recorder is None:
            return
        self._last_state = self.state()
        self._is_open = False
        self.recorder.__exit__(None if error is None else type(error), error, None)
