"""The Gram matrix of a trajectory's steps, which determines all its distances.

Surrogates are matched to it alone, so that a snapshot matrix of any width is read once, in blocks
of columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skdmap._snapshots import Snapshots, snapshots_of

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
    steps: np.ndarray | None = None  # (n_snapshots,), training steps, where a recording has them
    sketch_dim: int | None = None  # columns of the sketch, where the snapshots are known to be one

    def run_gram(self, run: int) -> np.ndarray:
        """Return the Gram matrix (n_steps, n_steps) of the steps of one run."""
        steps = self.step_slice(run)
        return self.gram[steps, steps]

    def step_slice(self, run: int) -> slice:
        """Return the position in ``gram`` of the steps of one run."""
        counts = [len(rows) - 1 for rows in self.rows]
        first = len(self.rows) - 1 + sum(counts[:run])
        return slice(first, first + counts[run])


def recorded_steps(snapshots: Any, run_ids: ArrayLike | None = None) -> RecordedSteps:
    """Return the Gram matrix, in float64, of the steps between successive snapshots of each run."""
    given = snapshots_of(snapshots)
    n_rows, n_columns = given.shape
    labels, rows = _rows_of_runs(given.run_ids if run_ids is None else run_ids, n_rows)
    starts = np.array([run[0] for run in rows])
    gram = _gram(given, starts, rows)
    recorded = RecordedSteps(
        gram=gram,
        rows=rows,
        labels=labels,
        n_columns=n_columns,
        steps=given.steps,
        sketch_dim=given.sketch_dim,
    )
    if not np.isfinite(gram).all():
        raise ValueError(_not_finite(given))
    squared = np.diag(gram)
    for run, label in enumerate(labels):
        if not squared[recorded.step_slice(run)].any():
            raise ValueError(
                f"run {label} never moves: its {len(rows[run])} snapshots are equal. Leave the "
                "run out of snapshots."
            )
    return recorded


def _not_finite(given: Snapshots) -> str:
    """Return the message for NaN, infinity or overflow, with the first row that has one."""
    bad = np.zeros(given.shape[0], dtype=bool)
    for block in _blocks(given):
        bad |= ~np.isfinite(block).all(axis=1)
    if not bad.any():
        return (
            "snapshots contains numbers whose squares overflow. Divide all snapshots by one number."
        )
    first = int(np.flatnonzero(bad)[0])
    return (
        f"snapshots contains NaN or infinity, first in row {first} ({bad.sum()} of {len(bad)} "
        "rows); every entry must be finite. A run that diverged has such rows: pass only the "
        "snapshots before."
    )


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


def _blocks(given: Snapshots) -> Iterator[np.ndarray]:
    """Yield blocks of columns (n_snapshots, width) in float64."""
    n_rows, n_columns = given.shape
    width = max(1, _BLOCK_BYTES // (8 * n_rows))
    for first in range(0, n_columns, width):
        yield given.columns(first, first + width)


def _gram(given: Snapshots, starts: np.ndarray, rows: tuple[np.ndarray, ...]) -> np.ndarray:
    size = len(rows) - 1 + sum(len(run) - 1 for run in rows)
    gram = np.zeros((size, size))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(given):
            pieces = [block[starts[1:]] - block[starts[0]]]
            pieces += [np.diff(block[run], axis=0) for run in rows]
            vectors = np.concatenate(pieces)
            gram += vectors @ vectors.T
    return gram
