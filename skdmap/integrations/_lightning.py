"""A callback of Lightning's Trainer."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from skdmap.integrations._recording import RecordingCallback


def _bases() -> tuple[type, ...]:
    """Return the callback classes of the packages in use: Lightning comes under two names."""
    names = ("lightning.pytorch", "pytorch_lightning")
    loaded = [name for name in names if name in sys.modules]
    for name in loaded or names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        loaded = loaded or [name]
    if not loaded:
        raise ImportError("skdmap.integrations.LightningCallback needs lightning: pip install it.")
    return tuple(sys.modules[name].Callback for name in loaded)


_Callback: Any = type("_Callback", _bases(), {})


class LightningCallback(RecordingCallback, _Callback):
    """Record the parameters along a run of Lightning's ``Trainer``.

    Recording begins once the trainer has loaded its checkpoint, so that
    ``trainer.fit(module, ckpt_path=...)`` continues the rows of ``store``: rows after the
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
        first checkpoint.
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
    HuggingFaceCallback : The same for Hugging Face's trainer.

    Notes
    -----
    ``losses_`` are the means of what ``training_step`` returns, over the batches of a step. With
    manual optimization call ``callback.recorder_.log``.

    Examples
    --------
    >>> from skdmap.integrations import LightningCallback
    >>> callback = LightningCallback(record_every=10, store="run")

    ``Trainer(callbacks=[callback]).fit(module, loader)`` then records.
    """

    _trainer_call = "fit(..., ckpt_path='last')"
    _loaded: Mapping[str, Any] = {}  # of the checkpoint

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record; the trainer has loaded its checkpoint.

        Parameters
        ----------
        trainer, pl_module : object
            Passed by Lightning.
        """
        found, self._loaded = self._loaded, {}
        known = found.get("path") if found.get("global_step") == trainer.global_step else None
        self._begin(pl_module, trainer.global_step, known)
        self._trainer = trainer

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the recording.

        Parameters
        ----------
        trainer, pl_module : object
            Passed by Lightning.
        """
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the recording.

        Parameters
        ----------
        trainer, pl_module : object
            Passed by Lightning.
        exception : BaseException
            What ended the training.
        """
        self._end(exception)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed recording needs, for the trainer's checkpoint.

        Returns
        -------
        dict
            Numbers.
        """
        path = self._state()
        return {"global_step": self._trainer.global_step, "path": path} if path else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned.

        Parameters
        ----------
        state_dict : dict
            Of the checkpoint.
        """
        self._loaded = dict(state_dict)
