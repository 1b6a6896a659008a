"""A callback of Hugging Face's Trainer."""

from typing import Any

from skdmap.integrations._recording import RecordingCallback

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "skdmap.integrations.HuggingFaceCallback needs transformers. Run: pip install "
        "'transformers[torch]'"
    ) from error

_KEY = "skdmap.HuggingFaceCallback"


class HuggingFaceCallback(RecordingCallback, TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Record the parameters along a run of Hugging Face's ``Trainer``.

    Recording begins once the trainer has loaded its checkpoint, so that
    ``trainer.train(resume_from_checkpoint=True)`` continues the rows of ``store``: rows after the
    checkpoint are dropped, and a checkpoint that does not fit the rows is an error before anything
    is written. Rows, steps, losses and path lengths are then those of an undisturbed run.

    Parameters
    ----------
    record_every : int, sequence of int, LogSpaced, Displacement or WallClock, default=1
        When to keep a row, as in :class:`~skdmap.TrajectoryRecorder`. The last step is always kept.
    burn_in : int, default=0
        No row is kept before this step.
    record : "parameters", ("outputs", X_probe) or callable, default="parameters"
        What a row is.
    parameters : str, sequence of str or None, default=None
        Patterns of names of the parameters to record.
    sketch_dim : int or None, default=None
        Keep a random sketch of each row with this many columns instead of the row.
    store : path-like or None, default=None
        Folder to which each row is written at once. None keeps the rows in memory.
    resume : bool or None, default=None
        Whether to continue the rows in ``store``. None continues them if the trainer itself starts
        from a checkpoint. True also continues them from step 0, after a run that ended before its
        first checkpoint; the later rows are dropped with a warning.
    dtype : {"float32", "float64", "float16"}, default="float32"
        Type of the rows.

    Attributes
    ----------
    recorder_ : TrajectoryRecorder
        The recorder of the present or last run. Its attributes (``snapshots_``, ``steps_``, ...)
        are set when training ends.

    See Also
    --------
    TrajectoryRecorder : The same for a loop of your own, and for a trainer that does not resume.
    LightningCallback : The same for Lightning.

    Notes
    -----
    ``losses_`` are those that the trainer logs: with ``logging_steps=1`` each row has the loss of
    its batch, else they are nan where the trainer logs the mean of several steps.

    The trainer calls no callback when an exception ends the training. Rows in ``store`` are on disk
    then; call :meth:`close` to have the attributes.

    Examples
    --------
    >>> from skdmap.integrations import HuggingFaceCallback
    >>> callback = HuggingFaceCallback(record_every=10, store="run")

    ``Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()`` then records.
    """

    _trainer_call = "train(resume_from_checkpoint=True)"
    _logged_at = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to record; the trainer has loaded its checkpoint.

        Parameters
        ----------
        args, state, control : object
            Of the trainer.
        **kwargs : object
            ``model`` is recorded.
        """
        found = state.stateful_callbacks.get(_KEY, {})
        known = found.get("path") if found.get("global_step") == state.global_step else None
        self._logged_at = state.global_step
        self._begin(kwargs["model"], state.global_step, known)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the trainer's next checkpoint what a resumed recording needs.

        Parameters
        ----------
        args, state, control : object
            Of the trainer.
        **kwargs : object
            Not used.
        """
        if control.should_save:
            path = self._state()
            state.stateful_callbacks[_KEY] = {"global_step": state.global_step, "path": path}

    on_epoch_end = on_step_end

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the loss of a step, if the trainer logs it alone.

        Parameters
        ----------
        args, state, control : object
            Of the trainer.
        **kwargs : object
            ``logs`` may have a loss.
        """
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            is_one_step = state.global_step == self._logged_at + 1
            self._logged_at = state.global_step
            if is_one_step:
                self._log(logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the recording.

        Parameters
        ----------
        args, state, control : object
            Of the trainer.
        **kwargs : object
            Not used.
        """
        self._end()

    def close(self) -> None:
        """End the recording of a run that an exception ended."""
        self._end(RuntimeError("The training was ended by an exception."))
