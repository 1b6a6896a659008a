"""What the callbacks share: a recorder that begins once the trainer has loaded its checkpoint."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from torch import nn

from skdmap.trajectory import TrajectoryRecorder
from skdmap.trajectory._recorder.row_writer import PathState


class RecordingCallback:
    """One recorder at a time, entered and left by a callback; base of the callbacks."""

    recorder_: TrajectoryRecorder
    _trainer_call: ClassVar[str]  # how a user has the trainer load a checkpoint

    def __init__(
        self,
        *,
        record_every: Any = 1,
        burn_in: int = 0,
        record: Any = "parameters",
        parameters: str | Sequence[str] | None = None,
        sketch_dim: int | None = None,
        store: Any = None,
        resume: bool | None = None,
        dtype: Any = "float32",
    ) -> None:
        self._resume, self._store = resume, store
        self._settings = {
            "record_every": record_every,
            "burn_in": burn_in,
            "record": record,
            "parameters": parameters,
            "sketch_dim": sketch_dim,
            "dtype": dtype,
        }
        self._is_open = False
        self._last_state: dict[str, Any] = {}

    def _begin(self, module: nn.Module, step: int, state: dict[str, Any] | None) -> None:
        """Record from ``step`` on, which a checkpoint with ``state`` may have been saved at."""
        self._end()
        known = PathState(**state) if state else None
        resume = self._resume
        if resume is None:
            resume = step > 0 and self._store is not None
        self.recorder_ = TrajectoryRecorder(
            module,
            first_step=step if known is None else known.step,
            store=self._store,
            resume=resume,
            **self._settings,
        )
        self.recorder_._resumed = known
        self.recorder_._trainer_call = self._trainer_call
        self.recorder_.__enter__()
        self._is_open = True

    def _log(self, loss: Any) -> None:
        """Log a loss, while a recorder is open."""
        if self._is_open:
            self.recorder_.log(loss)

    def _state(self) -> dict[str, Any]:
        """Return what a checkpoint of the trainer is to hold; JSON can write it."""
        found = self.recorder_._path_state() if self._is_open else None
        return self._last_state if found is None else asdict(found)

    def _end(self, error: BaseException | None = None) -> None:
        """Leave the recorder, if it is open: its attributes are there afterwards."""
        if not self._is_open:
            return
        self._last_state = self._state()
        self._is_open = False
        self.recorder_.__exit__(None if error is None else type(error), error, None)
