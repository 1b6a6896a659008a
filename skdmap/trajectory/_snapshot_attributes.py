"""The attributes that tell what was recorded, and a module made of one row."""

from dataclasses import fields
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdmap._parameters import ParameterLayout
from skdmap.trajectory._keeper import Keeper, KeptTable
from skdmap.trajectory._recording import Recording
from skdmap.trajectory._run import Run
from skdmap.trajectory._runs import restored_module
from skdmap.trajectory._table import pass_history

__all__ = ["SnapshotAttributesMixin"]

_COLUMNS = tuple(f"{column.name}_" for column in fields(KeptTable))


class SnapshotAttributesMixin:
    """Holds the columns of a :class:`KeptTable` as attributes that end in ``_``."""

    snapshots_: np.ndarray
    buffers_: np.ndarray
    run_ids_: np.ndarray
    steps_: np.ndarray
    sketch_error_: np.ndarray | None
    parameter_layout_: ParameterLayout
    burn_in: int
    modules_: list[nn.Module]
    _runs: list[Run]
    _keeper: Keeper | None
    _rows_are_parameters: bool

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
            If only some of the parameters were recorded, or something else than parameters.
        """
        check_is_fitted(self)
        if not self._rows_are_parameters or self.sketch_error_ is not None:
            setting = "sketch_dim" if self.sketch_error_ is not None else "record"
            raise ValueError(
                f"The rows are no parameters ({setting} is set), so that no module can be made of "
                "one. Fit with record='parameters' and sketch_dim=None; modules_ holds the last "
                "module of each run."
            )
        module = next(run.module for run in self._runs if run.index == self.run_ids_[i])
        theta = np.asarray(self.snapshots_[i])
        return restored_module(module, self.parameter_layout_, theta, self.buffers_[i])

    @property
    def _n_features_out(self) -> int:
        return int(self.snapshots_.shape[1])

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        if state.get("_keeper") is not None:
            # They are views of what the keeper holds, and would be written twice.
            state = {name: value for name, value in state.items() if name not in _COLUMNS}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        if state.get("_keeper") is not None:
            self._show(state["_keeper"].table())

    def _show(self, table: KeptTable) -> None:
        for column in fields(KeptTable):
            setattr(self, f"{column.name}_", getattr(table, column.name))

    def _keep(self, recording: Recording, continued: list[Run] | None = None) -> Self:
        runs = continued or recording.runs
        if not len(recording.table.steps) and all(run.diverged for run in runs):
            raise ValueError(
                f"burn_in={self.burn_in}: every run diverged before that step, at step "
                f"{max(run.step for run in runs)} at the latest, so that no row was recorded. "
                "Lower optimizer_params['lr'], scale X and y, or lower burn_in."
            )
        self._show(recording.table)
        self._runs, self._keeper = runs, recording.keeper
        self.modules_ = [run.module for run in self._runs]
        self.module_ = self.modules_[-1]
        self.parameter_layout_ = recording.layout
        self.history_ = pass_history(self._runs)
        self.interrupted_ = recording.interrupted
        return self
