"""New rows far outside of the training rows -> rows nearer by, with the same nearest neighbours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FarRows", "far_rows"]

# So many times farther than the training rows spread, only the direction of a row counts:
# squares of distances lose the differences between training rows, and overflow in the end.
_BEYOND = 2.0**26
# In the taxicab metric differences never get small beside each other; they lose digits slower.
_BEYOND_TAXICAB = 2.0**20
# p of the Minkowski distances that are known here.
_ORDERS = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}


class FarRows:
    """Draws rows nearer that are too far for distances to be told apart.

    Parameters
    ----------
    X : ndarray of shape (n_train, n_features)
        Training rows.
    order : float
        p of the Minkowski distance.

    Attributes
    ----------
    centre : ndarray of shape (n_features,)
        Mean of the training rows.
    """

    def __init__(self, X: NDArray[np.floating], order: float) -> None:
        self.centre = np.mean(X, axis=0, dtype=np.float64)
        reach = np.maximum(np.max(X, axis=0) - self.centre, self.centre - np.min(X, axis=0))
        factor = _BEYOND_TAXICAB if order == 1 else _BEYOND
        self._limit, self._order = factor * float(np.max(reach)), order

    def drawn_near(self, Z: Any) -> Any:
        """Return the rows; those that are farther than the limit from the centre at the limit.

        Parameters
        ----------
        Z : ndarray of shape (n_rows, n_features)
            New rows.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
            The same object where no row is so far. In the taxicab metric columns are cut off one
            by one, as what is beyond adds the same to all distances; else rows keep their
            direction.
        """
        size = np.abs(Z - self.centre).max(axis=1, keepdims=True)
        if not np.any(size > self._limit):
            return Z
        new = np.asarray(Z, dtype=np.float64) - self.centre
        if self._order == 1:
            near = np.clip(new, -self._limit, self._limit)
        else:
            near = new / np.maximum(size, self._limit) * self._limit
        return np.where(size > self._limit, near + self.centre, Z)


def far_rows(X: Any, metric: Any, params: Any) -> FarRows | None:
    """Return what draws new rows nearer, for plain rows and a metric of which that is known."""
    known = isinstance(X, np.ndarray) and not params and metric in tuple(_ORDERS)
    return FarRows(X, _ORDERS[metric]) if known else None
