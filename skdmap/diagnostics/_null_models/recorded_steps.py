"""The Gram matrix of a trajectory's steps, which determines all its distances.

Surrogates are matched to it alone, so that a snapshot matrix of any width is read once, in blocks
of columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Columns are subtracted in float64 in blocks of about this many bytes.
_BLOCK_BYTES = 2**25
_FEWEST_ROWS = 5


@dataclass(frozen=True)
class RecordedSteps:
    """The Gram matrix of the steps of several runs, and of the points where they start."""

    # Of the starts of runs 1, 2, ... relative to that of run 0, then of the steps of all runs.
    gram: np.ndarray
    rows: tuple[np.ndarray, ...]  # indices of each run's snapshots, in order
    labels: np.ndarray  # (n_runs,)
    n_columns: int

    def run_gram(self, run: int) -> np.ndarray:
        """Return the Gram matrix (n_steps, n_steps) of the steps of one run."""
        steps = self.step_slice(run)
        return self.gram[steps, steps]

    def step_slice(self, run: int) -> slice:
        """Return the position in ``gram`` of the steps of one run."""
        counts = [len(rows) - 1 for rows in self.rows]
        first = len(self.rows) - 1 + sum(counts[:run])
        return slice(first, first + counts[run])


def recorded_steps(snapshots: ArrayLike, run_ids: ArrayLike | None = None) -> RecordedSteps:
    """Return the Gram matrix, in float64, of the steps between successive snapshots of each run."""
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
            "snapshots contains NaN, infinity, or numbers whose squares overflow; every entry must "
            "be finite. Pass only the snapshots before the run diverged."
        )
    squared = np.diag(gram)
    for run, label in enumerate(labels):
        if not squared[recorded.step_slice(run)].any():
            raise ValueError(
                f"run {label} never moves: its {len(rows[run])} snapshots are equal. Leave the "
                "run out of snapshots."
            )
    return recorded


def _rows_of_runs(
    run_ids: ArrayLike | None, n_rows: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    ids = np.zeros(n_rows, dtype=np.intp) if run_ids is None else np.asarray(run_ids)
    if ids.shape != (n_rows,):
        raise ValueError(
            f"run_ids has shape {ids.shape}; it must be ({n_rows},), one label per snapshot. Pass "
            "the run_ids_ recorded with the snapshots."
        )
    labels, first = np.unique(ids, return_index=True)
    labels = labels[np.argsort(first)]
    rows = tuple(np.flatnonzero(ids == label) for label in labels)
    for label, run in zip(labels, rows, strict=True):
        if len(run) < _FEWEST_ROWS:
            raise ValueError(
                f"run {label} has {len(run)} snapshots; it must have at least {_FEWEST_ROWS}. "
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
