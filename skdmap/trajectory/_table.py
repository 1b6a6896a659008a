"""Snapshots of several runs, stacked in the order in which they come."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from skdmap.trajectory._training import Run, Snapshot

__all__ = ["SnapshotTable", "Trajectory", "pass_history", "snapshot_frame"]


@dataclass(frozen=True)
class Trajectory:
    """Snapshots as columns of one table.

    Attributes
    ----------
    snapshots : ndarray of shape (n_snapshots, n_parameters)
        One row per snapshot.
    buffers : ndarray of float64, shape (n_snapshots, n_buffer_entries)
        Buffers of the same moments.
    steps, epochs, run_ids : ndarray of int64, shape (n_snapshots,)
        Steps made, passes completed, number of the run.
    losses, learning_rates : ndarray of float64, shape (n_snapshots,)
        As in ``Snapshot``.
    """

    snapshots: np.ndarray
    buffers: np.ndarray
    steps: np.ndarray
    epochs: np.ndarray
    run_ids: np.ndarray
    losses: np.ndarray
    learning_rates: np.ndarray

    def followed_by(self, later: Self) -> Self:
        """Return one table with the rows of ``later`` at the end.

        A moment of a run that both hold stays one row, with the loss that ``later`` gives it.
        """
        moments = zip(self.run_ids.tolist(), self.steps.tolist(), strict=True)
        row_of = {moment: row for row, moment in enumerate(moments)}
        moments = zip(later.run_ids.tolist(), later.steps.tolist(), strict=True)
        rows = np.array([row_of.get(moment, -1) for moment in moments], dtype=np.int64)
        losses = self.losses.copy()
        losses[rows[rows >= 0]] = later.losses[rows >= 0]
        earlier = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{
                name: np.concatenate([column, getattr(later, name)[rows < 0]])
                for name, column in (earlier | {"losses": losses}).items()
            }
        )


def snapshot_frame(trajectory: Trajectory, columns: np.ndarray) -> Any:
    """Return the snapshots as a pandas frame with the index (run, step).

    Parameters
    ----------
    trajectory : Trajectory
        Rows.
    columns : ndarray of str, shape (n_parameters,)
        Names.

    Returns
    -------
    pandas.DataFrame
        Of shape (n_snapshots, n_parameters).
    """
    import pandas as pd

    moments = [trajectory.run_ids, trajectory.steps]
    index = pd.MultiIndex.from_arrays(moments, names=["run", "step"])
    return pd.DataFrame(trajectory.snapshots, index=index, columns=columns)


def pass_history(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return one entry per pass over the rows, run after run.

    Parameters
    ----------
    runs : sequence of Run
        After training.

    Returns
    -------
    dict of ndarray, shape (n_passes,)
        "run", "epoch", "loss" and "learning_rate". The loss is the mean of what the criterion gave
        for the batches, a batch counted by its rows.
    """
    passes = [(run.index, one) for run in runs for one in run.passes if one.n_rows]
    return {
        "run": np.array([index for index, _ in passes], dtype=np.int64),
        "epoch": np.array([one.epoch for _, one in passes], dtype=np.int64),
        "loss": np.array([one.loss_sum / one.n_rows for _, one in passes]),
        "learning_rate": np.array([one.learning_rate for _, one in passes]),
    }


class SnapshotTable:
    """Collects snapshots in memory that is set aside once.

    A list of rows, stacked at the end, would need the memory twice.

    Parameters
    ----------
    n_parameters, n_buffer_entries : int
        Widths.
    dtype : str
        Of the snapshots.
    capacity : int
        Rows to expect, at least 1; pages that are never written cost nothing. More rows fit, but
        are copied.
    """

    def __init__(self, n_parameters: int, n_buffer_entries: int, dtype: str, capacity: int) -> None:
        self._snapshots = np.empty((capacity, n_parameters), dtype=dtype)
        self._buffers = np.empty((capacity, n_buffer_entries))
        self._cells: list[tuple[int, int, int, float, float]] = []

    def __len__(self) -> int:
        """Rows so far."""
        return len(self._cells)

    def append(self, run: int, snapshot: Snapshot) -> None:
        """Add a row."""
        row = len(self)
        if len(snapshot.buffers) != self._buffers.shape[1]:
            raise ValueError(
                f"module has {len(snapshot.buffers)} buffer entries at step {snapshot.step} of run "
                f"{run}, must have {self._buffers.shape[1]} as at the start. Give buffers that "
                "change their size no place among the buffers (register_buffer)."
            )
        if row == len(self._snapshots):
            # Runs that stand at different steps may record more rows than the first of them.
            self._snapshots = np.concatenate([self._snapshots, np.empty_like(self._snapshots)])
            self._buffers = np.concatenate([self._buffers, np.empty_like(self._buffers)])
        self._snapshots[row] = snapshot.theta
        self._buffers[row] = snapshot.buffers
        self._cells.append(
            (snapshot.step, snapshot.epoch, run, snapshot.loss, snapshot.learning_rate)
        )

    def trajectory(self) -> Trajectory:
        """Return the rows so far; the table must not be used afterwards."""
        n_rows = len(self)
        cells = np.array(self._cells, dtype=float).reshape(n_rows, 5)
        steps, epochs, run_ids = cells[:, :3].astype(np.int64).T.copy()
        losses, learning_rates = cells[:, 3:].T.copy()
        return Trajectory(
            self._snapshots[:n_rows], self._buffers[:n_rows],
            steps, epochs, run_ids, losses, learning_rates,
        )  # fmt: skip
