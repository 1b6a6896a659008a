"""The attributes that tell what was recorded, and a module made of one row."""

from dataclasses import fields
from typing import Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._recording import Recording
from skdmap.trajectory._runs import restored_module
from skdmap.trajectory._table import Trajectory, pass_history
from skdmap.trajectory._training import Run

__all__ = ["SnapshotAttributesMixin"]


class SnapshotAttributesMixin:
    """Holds the columns of a :class:`Trajectory` as attributes that end in ``_``."""

    snapshots_: np.ndarray
    buffers_: np.ndarray
    run_ids_: np.ndarray
    parameter_layout_: ParameterLayout
    burn_in: int
    modules_: list[nn.Module]

    def module_at(self, i: int) -> nn.Module:
        """Return a copy of the module with the parameters and buffers of row ``i``.

        Parameters
        ----------
        i : int
            Row of ``snapshots_``; negative ones count from the end.

        Returns
        -------
        torch.nn.Module
            In eval mode.

        Raises
        ------
        ValueError
            If only some of the parameters were recorded.
        """
        check_is_fitted(self)
        module = next(run.module for run in self._runs if run.index == self.run_ids_[i])
        return restored_module(module, self.parameter_layout_, self.snapshots_[i], self.buffers_[i])

    @property
    def _n_features_out(self) -> int:
        return int(self.snapshots_.shape[1])

    def _trajectory(self) -> Trajectory:
        return Trajectory(**{c.name: getattr(self, f"{c.name}_") for c in fields(Trajectory)})

    def _keep(self, recording: Recording, continued: list[Run] | None = None) -> Self:
        trajectory = recording.trajectory
        if continued is not None:
            trajectory = self._trajectory().followed_by(trajectory)
        runs = continued or recording.runs
        if not len(trajectory.steps) and all(run.diverged for run in runs):
            raise ValueError(
                f"burn_in={self.burn_in}: every run diverged before that step, at step "
                f"{max(run.step for run in runs)} at the latest, so that no row was recorded. "
                "Lower optimizer_params['lr'], scale X and y, or lower burn_in."
            )
        for column in fields(Trajectory):
            setattr(self, f"{column.name}_", getattr(trajectory, column.name))
        self._runs = runs
        self.modules_ = [run.module for run in self._runs]
        self.module_ = self.modules_[-1]
        self.parameter_layout_ = recording.layout
        self.history_ = pass_history(self._runs)
        self.interrupted_ = recording.interrupted
        return self
