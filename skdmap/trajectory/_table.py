"""What is told beside the rows: passes over the data, and rows with names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from skdmap.trajectory._run import Run

__all__ = ["pass_history", "snapshot_frame"]


def snapshot_frame(
    snapshots: Any, run_ids: np.ndarray, steps: np.ndarray, columns: np.ndarray
) -> Any:
    """Return the snapshots as a pandas frame with the index (run, step).

    Parameters
    ----------
    snapshots : array of shape (n_snapshots, n_columns)
        Rows.
    run_ids, steps : ndarray of int64, shape (n_snapshots,)
        Which run, and when.
    columns : ndarray of str, shape (n_columns,)
        Names.

    Returns
    -------
    pandas.DataFrame
        Of shape (n_snapshots, n_columns).
    """
    import pandas as pd

    index = pd.MultiIndex.from_arrays([run_ids, steps], names=["run", "step"])
    return pd.DataFrame(np.asarray(snapshots), index=index, columns=columns)


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
