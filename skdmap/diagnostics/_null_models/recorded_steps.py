"""Snapshots -> the scalar products of their steps, which hold all that distances can tell.

A surrogate is matched to norms and scalar products only, so a snapshot matrix of any width is read
once, block of columns by block of columns, and never again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Columns are differenced in float64 in blocks of about this many bytes.
_BLOCK_BYTES = 2**25
_FEWEST_ROWS = 5


@dataclass(frozen=True)
class RecordedSteps:
    """Scalar products of the steps of several runs, and of where the runs start.

    Attributes
    ----------
    gram : ndarray of shape (n_runs - 1 + n_steps, n_runs - 1 + n_steps)
        Scalar products of the starts of the runs after the first, counted from the start of the
        first, followed by the steps of all runs, one run after the other.
    rows : tuple of ndarray
        For each run, the numbers of its snapshots, in order.
    labels : ndarray of shape (n_runs,)
        The label of each run.
    n_columns : int
        Number of columns of the snapshots.
    """

    gram: np.ndarray
    rows: tuple[np.ndarray, ...]
    labels: np.ndarray
    n_columns: int

    def run_gram(self, run: int) -> np.ndarray:
        """Return the scalar products (n_steps, n_steps) of the steps of one run."""
        steps = self.step_slice(run)
        return self.gram[steps, steps]

    def step_slice(self, run: int) -> slice:
        """Return where in ``gram`` the steps of one run stand."""
        counts = [len(rows) - 1 for rows in self.rows]
        first = len(self.rows) - 1 + sum(counts[:run])
        return slice(first, first + counts[run])


def recorded_steps(snapshots: ArrayLike, run_ids: ArrayLike | None = None) -> RecordedSteps:
    """Return the scalar products of the steps between successive snapshots.

    Parameters
    ----------
    snapshots : array-like of shape (n_snapshots, n_parameters)
        Rows in the order in which they were recorded; a memory map is read in blocks of columns.
    run_ids : array-like of shape (n_snapshots,), default=None
        The run of each row; None is one run.

    Returns
    -------
    RecordedSteps
        In float64, whatever the dtype of the snapshots.

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is not finite, a run has fewer than five rows or never
        moves.
    """
    snapshots = np.asarray(snapshots)
    if snapshots.ndim != 2 or snapshots.size == 0:
        raise ValueError(
            f"snapshots has shape {snapshots.shape}; it must be (n_snapshots, n_parameters). Pass "
            "the snapshot matrix of a trajectory."
        )
    labels, rows = _rows_of_runs(run_ids, len(snapshots))
    starts = np.array([run[0] for run in rows])
    gram = _gram(snapshots, starts, rows)
    recorded = RecordedSteps(gram=gram, rows=rows, labels=labels, n_columns=snapshots.shape[1])
    if not np.isfinite(gram).all():
        raise ValueError(
            "snapshots holds NaN, infinity or numbers whose squares overflow; every entry must be "
            "finite. Pass the rows before the run diverged."
        )
    squared = np.diag(gram)
    for run, label in enumerate(labels):
        if not squared[recorded.step_slice(run)].any():
            raise ValueError(
                f"run {label!r} of snapshots has {len(rows[run])} equal rows; at least one step "
                "must have a length above 0. Drop the run, or train it."
            )
    return recorded


def _rows_of_runs(
    run_ids: ArrayLike | None, n_rows: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    ids = np.zeros(n_rows, dtype=np.intp) if run_ids is None else np.asarray(run_ids)
    if ids.shape != (n_rows,):
        raise ValueError(
            f"run_ids has shape {ids.shape}; it must be ({n_rows},), one label per snapshot. Pass "
            "the run_ids_ that were recorded with the snapshots."
        )
    labels, first = np.unique(ids, return_index=True)
    labels = labels[np.argsort(first)]
    rows = tuple(np.flatnonzero(ids == label) for label in labels)
    for label, run in zip(labels, rows, strict=True):
        if len(run) < _FEWEST_ROWS:
            raise ValueError(
                f"run {label!r} has {len(run)} snapshots; it must have at least {_FEWEST_ROWS}. "
                "Record more often (record_every), or leave the run out."
            )
    return labels, rows


def _gram(snapshots: np.ndarray, starts: np.ndarray, rows: tuple[np.ndarray, ...]) -> np.ndarray:
    size = len(rows) - 1 + sum(len(run) - 1 for run in rows)
    gram = np.zeros((size, size))
    width = max(1, _BLOCK_BYTES // (8 * len(snapshots)))
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, snapshots.shape[1], width):
            block = snapshots[:, first : first + width].astype(np.float64)
            pieces = [block[starts[1:]] - block[starts[0]]]
            pieces += [np.diff(block[run], axis=0) for run in rows]
            vectors = np.concatenate(pieces)
            gram += vectors @ vectors.T
    return gram
