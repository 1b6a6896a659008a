"""Pivots: samples that groups of near samples are measured from.

Distances within a group, and between groups whose pivots are near each other, come from offsets
from the pivots, so that nothing is lost where samples are close and far from the origin.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Groups of at most so many samples: on a random walk squared offsets are about 24 squared steps.
_GROUP_ROWS = 48


def _unknown() -> NDArray[np.float64]:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Pivots:
    """The pivots, the group of each sample and, after a pass over the columns, where it lies."""

    centres: NDArray[np.intp]  # (n_groups,), rows of the source
    labels: NDArray[np.intp]  # (n_rows,), group of each sample
    scale: float  # a power of two that offsets are multiplied by, so that their squares fit
    spans: tuple[tuple[int, int], ...]  # columns, from and to, by which samples find their group
    sample: NDArray[np.float64]  # (n_groups, n_sampled), these columns of the pivots
    # With u = x - c, c the sample's own pivot, and c' any:
    squares: NDArray[np.float64] = field(default_factory=_unknown)  # (n_rows,), |u|^2
    along: NDArray[np.float64] = field(default_factory=_unknown)  # (n_rows, n_groups), u.(c - c')
    between: NDArray[np.float64] = field(default_factory=_unknown)  # (n_groups,) * 2, |c - c'|^2

    def rows(self, index: Any) -> "Pivots":
        """The record of some of the samples."""
        return replace(
            self,
            labels=self.labels[index],
            squares=self.squares[index],
            along=self.along[index],
        )

    def of_new(self, labels: NDArray[np.intp]) -> "Pivots":
        """The record of other samples, in these groups, before a pass."""
        return replace(self, labels=labels, squares=_unknown(), along=_unknown())

    def for_pass(self) -> "Pivots":
        """What a pass needs, without the large arrays."""
        return replace(
            self, sample=_unknown(), squares=_unknown(), along=_unknown(), between=_unknown()
        )


def group_samples(
    sample: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Centres, labels and scale: halve the samples at gaps until groups are small."""
    labels = np.empty(len(sample), dtype=np.intp)
    centres: list[int] = []
    pending = [np.arange(len(sample))]
    largest = 0.0
    while pending:
        members = pending.pop()
        offsets = sample[members] - sample[members].mean(axis=0)
        squares = np.einsum("ij,ij->i", offsets, offsets)
        if members.size > _GROUP_ROWS:
            pending.extend(_halves(members, offsets, squares))
            continue
        labels[members] = len(centres)
        centres.append(int(members[squares.argmin()]))
        largest = max(largest, float(np.abs(offsets).max(initial=0.0)))
    exponent = -np.frexp(largest)[1] if 0.0 < largest < np.inf else 0
    # Within these bounds squares and their sums are far from the ends of single precision.
    scale = float(2.0**exponent) if abs(exponent) > 24 else 1.0
    return np.array(centres, dtype=np.intp), labels, scale


def nearest_pivot(sample: NDArray[np.float64], pivots: NDArray[np.float64]) -> NDArray[np.intp]:
    """The group of each new sample (n_rows, n_sampled): that of the nearest pivot."""
    new, known = sample - pivots[0], pivots - pivots[0]
    squares = np.einsum("ij,ij->i", known, known)[None, :] - 2.0 * (new @ known.T)
    return squares.argmin(axis=1)


def _halves(
    members: NDArray[np.intp], offsets: NDArray[np.float64], squares: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """Cut between two far samples, at the largest gap of the middle half."""

    def from_row(row: int) -> NDArray[np.float64]:
        return squares - 2.0 * (offsets @ offsets[row])

    first = int(squares.argmax())
    near_first = from_row(first)
    along = near_first - from_row(int((near_first + squares[first]).argmax()))
    order = np.argsort(along, kind="stable")
    low, high = members.size // 4, 3 * members.size // 4
    gaps = np.diff(along[order])[low:high]
    cut = low + 1 + int(gaps.argmax()) if gaps.max() > 0 else members.size // 2
    return [members[order[:cut]], members[order[cut:]]]
