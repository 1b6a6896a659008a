"""What a cheap operator near to the true one holds for most wanted outside of a space."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ._subspace import orthogonalise, rotate
from ._wanted import KEYS, Quotas

__all__ = ["scout"]

Vector = NDArray[np.float64]


def scout(
    surrogate: Callable[[Vector], Vector],
    rows: Vector,
    n_known: int,
    n_vectors: int,
    quotas: Quotas,
    negligible: float,
) -> int:
    """Find the most wanted Ritz vectors of an operator that is projected off a space.

    A few Lanczos steps are enough where an eigenvector has been skipped: it stands out there.

    Parameters
    ----------
    surrogate : callable
        Maps a float64 array of shape (n,) to the operator times it.
    rows : ndarray of shape (n_known + n_steps + 1, n)
        Orthonormal rows that span the space, then a random one, then room for what is found.
    n_known : int
        Dimension of the space.
    n_vectors : int
        How many vectors, in [1, n_steps].
    quotas : list of (str, int)
        From ``quotas_of``: from which end. For both, each vector is a sum of one from either.
    negligible : float
        A remainder of this part of the largest product ends the steps.

    Returns
    -------
    int
        How many vectors now stand behind the space; fewer where the steps ended, none where a
        product is not finite.
    """
    scouts, n_steps = rows[n_known:], len(rows) - n_known - 1
    orthogonalise(scouts[0], rows[:n_known])
    projected = np.zeros((n_steps, n_steps))
    largest = 0.0
    for step in range(n_steps):
        scouts[step] /= np.linalg.norm(scouts[step])
        following = scouts[step + 1]
        following[:] = surrogate(scouts[step])
        length = float(np.linalg.norm(following))
        if not np.isfinite(length):
            return 0
        largest = max(largest, length)
        before = rows[: n_known + step + 1]
        taken = orthogonalise(following, before, n_passes=1, most_passes=1)[n_known:]
        projected[step, : step + 1] = projected[: step + 1, step] = taken
        if np.linalg.norm(following) <= negligible * largest:
            n_steps = step + 1
            break
    values, rotation = np.linalg.eigh(projected[:n_steps, :n_steps])
    n_found = min(n_vectors, n_steps)
    mixed = np.zeros((n_found, n_steps))
    for key, _ in quotas:
        mixed += rotation.T[np.argsort(-KEYS[key](values), kind="stable")[:n_found]]
    rotate(scouts[:n_steps], mixed)
    return n_found
