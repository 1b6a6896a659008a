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
        """Return one table with the rows of ``later`` at the end."""
        names = [field.name for field in fields(self)]
        return type(self)(
            *(np.concatenate([getattr(self, name), getattr(later, name)]) for name in names)
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
        "run", "epoch", "loss" and "learning_rate".
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
        Most rows that may come; pages that are never written cost nothing.
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
