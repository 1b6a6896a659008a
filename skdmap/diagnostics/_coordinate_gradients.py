"""Slopes of diffusion coordinates along the columns of the data."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

_N_NEIGHBORS = 30
# Local directions with less than this share of the largest spread are left out: a coordinate is a
# smooth function on the manifold, so along its thin directions the slope is rounding and curvature.
_SPREAD = 0.1
_BLOCK = 2**22  # entries of a block of differences
_KEPT = 2**24  # entries of slopes that are returned for each sample


@dataclass(frozen=True)
class CoordinateGradients:
    """Slopes of each coordinate along each column.

    Attributes
    ----------
    gradients : ndarray of shape (n_samples, n_components, n_features) or None
        Slope of coordinate k along column j at each sample, per unit of the column; None where
        these are more than 2^24 numbers.
    rms : ndarray of shape (n_components, n_features)
        Root mean square of the slopes over the samples.
    ranking : ndarray of shape (n_components, n_features)
        For each coordinate, the indices of the columns by descending ``rms``.
    names : ndarray of shape (n_features,)
        Names of the columns.
    explained : ndarray of shape (n_components,)
        The check of the slopes. At each sample they are fitted to every other neighbour and
        predict the change of the coordinate to the remaining ones; this is 1 minus the sum of
        squared errors divided by the sum of squared changes. Near 1, the coordinate is a smooth
        function of the columns; near 0, the slopes say nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import coordinate_gradients
    >>> X = np.random.default_rng(0).random((200, 3))
    >>> print(coordinate_gradients(X @ [[0.0], [3.0], [1.0]], X).summary(n_columns=2))
    Coordinate 0 moves with x1 (90 % of the squared slope), x2 (10 %); the slopes explain 100 % of
    the changes between neighbours.
    """

    gradients: np.ndarray | None
    rms: np.ndarray
    ranking: np.ndarray
    names: np.ndarray
    explained: np.ndarray

    def summary(self, n_columns: int = 5) -> str:
        """Describe the result in words.

        Parameters
        ----------
        n_columns : int, default=5
            Number of columns named for each coordinate.

        Returns
        -------
        str
            One sentence for each coordinate.
        """
        lines = []
        for k, order in enumerate(self.ranking):
            shares = 100 * self.rms[k] ** 2 / max(np.sum(self.rms[k] ** 2), np.finfo(float).tiny)
            named = [
                f"{self.names[j]} ({shares[j]:.0f} %{' of the squared slope' if i == 0 else ''})"
                for i, j in enumerate(order[:n_columns])
            ]
            lines.append(
                f"Coordinate {k} moves with {', '.join(named)}; the slopes explain "
                f"{100 * self.explained[k]:.0f} % of the changes between neighbours."
            )
        return " ".join(lines)

    def shares_by_layer(self, layout: Any) -> dict[str, np.ndarray]:
        """Divide the squared slopes among the layers of a network.

        Parameters
        ----------
        layout : ParameterLayout
            ``parameter_layout_`` of a sampler, recorder or stored trajectory, or
            ``parameter_layout`` of an EmpiricalRisk.

        Returns
        -------
        dict of str to ndarray of shape (n_components,)
            For each submodule with parameters, its share of the sum of squared slopes. The shares
            of a coordinate sum to 1, unless all its slopes are 0.

        Raises
        ------
        ValueError
            If the layout has another number of parameters than the data have columns.
        """
        squared = self.rms**2
        if layout.n_parameters != squared.shape[1]:
            raise ValueError(
                f"layout has {layout.n_parameters} parameters and the data have "
                f"{squared.shape[1]} columns; they must be equal. Pass the layout of the module "
                "that was recorded."
            )
        total = squared.sum(axis=1)
        total[total == 0] = 1.0
        shares: dict[str, np.ndarray] = {}
        for name, part in zip(layout.names, layout.slices, strict=True):
            layer = name.rpartition(".")[0] or name
            shares[layer] = shares.get(layer, 0.0) + squared[:, part].sum(axis=1) / total
        return shares


def coordinate_gradients(
    mapping: Any, X: ArrayLike, *, columns: ArrayLike | None = None
) -> CoordinateGradients:
    """Find which columns of the data move along each diffusion coordinate.

    At each sample a linear function of the columns is fitted to the coordinate over the 30 nearest
    samples, by least squares with Gaussian weights, the width half the distance to the farthest.
    Of all slopes that fit equally well, the smallest is taken: it lies in the span of the
    differences to the neighbours. Directions in which the neighbours spread less than a tenth as
    far as in the widest are left out.

    Parameters
    ----------
    mapping : DiffusionMap or array-like of shape (n_samples, n_components)
        A fitted map, whose ``eigenvectors_`` are used, or the coordinates.
    X : array-like of shape (n_samples, n_features)
        The samples of the map in the same order: those that it was fitted on, or other columns of
        them, such as all genes where the map saw principal components. Slopes are per unit of a
        column, so columns in different units should be standardised. A memory map is read in
        blocks. Of a map with landmarks, ``landmarks_``.
    columns : array-like of str of shape (n_features,), default=None
        Names of the columns; None takes those of a DataFrame, else x0, x1, ...

    Returns
    -------
    CoordinateGradients
        Slopes, their root mean squares, the ranking of the columns, and the check.

    Raises
    ------
    NotFittedError
        If the map is not fitted.
    ValueError
        If ``X`` does not have a row for each sample of the map, contains NaN or infinity or has
        fewer than three rows, or ``columns`` does not have a name for each column.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import DiffusionMap
    >>> from skdmap.diagnostics import coordinate_gradients
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 6), scale=0.1)
    >>> X[:, [2, 4]] += 3 * rng.random((300, 1))
    >>> mapping = DiffusionMap(1, bandwidth="auto").fit(X)
    >>> sorted(coordinate_gradients(mapping, X).ranking[0, :2].tolist())
    [2, 4]
    """
    if hasattr(mapping, "fit"):
        check_is_fitted(mapping)
    given_names: Any = getattr(X, "columns", None) if columns is None else columns
    given: np.ndarray = check_array(
        getattr(mapping, "eigenvectors_", mapping), dtype=np.float64, ensure_all_finite="allow-nan"
    )
    data: np.ndarray = check_array(X, dtype=[np.float64, np.float32], input_name="X")
    if len(given) != len(data):
        remedy = "Pass the data that the map was fitted on."
        if getattr(mapping, "landmarks_", None) is not None:
            remedy = "A map with landmarks has these as samples: pass its landmarks_ as X."
        raise ValueError(
            f"X has {len(data)} rows and the map has {len(given)} samples; they must be the same "
            f"samples in the same order. {remedy}"
        )
    if given_names is None:
        given_names = [f"x{j}" for j in range(data.shape[1])]
    names = np.asarray(given_names, dtype=object)
    if names.shape != (data.shape[1],):
        raise ValueError(
            f"columns has shape {names.shape}; it must be ({data.shape[1]},), one name for each "
            "column of X. Pass the names of the columns of X."
        )
    complete = np.flatnonzero(np.isfinite(given).all(axis=1))
    if len(complete) < 5:
        raise ValueError(
            f"{len(complete)} samples have finite coordinates; there must be at least 5. Pass "
            "more samples."
        )
    whole = len(complete) == len(data)
    return _gradients(given, data if whole else data[complete], complete, names)


def _gradients(
    given: np.ndarray, X: np.ndarray, complete: np.ndarray, names: np.ndarray
) -> CoordinateGradients:
    """Return the record for X (n_complete, p), the samples whose coordinates are finite."""
    values = given[complete]
    (n, k), p = values.shape, X.shape[1]
    index = NearestNeighbors(n_neighbors=min(_N_NEIGHBORS, n - 1) + 1).fit(X)
    gradients = np.full((len(given), k, p), np.nan) if len(given) * k * p <= _KEPT else None
    squares, errors, totals = np.zeros((k, p)), np.zeros(k), np.zeros(k)
    step = max(1, _BLOCK // index.n_neighbors**2)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        distances, near = index.kneighbors(X[rows])
        changes = values[near] - values[rows, None]
        products = np.zeros((len(rows), near.shape[1], near.shape[1]))
        for _, differences in _differences(X, rows, near):
            products += differences @ differences.transpose(0, 2, 1)
        half = np.maximum(distances[:, -1:], np.finfo(float).tiny) / 2
        weights = np.exp(-0.5 * (distances / half) ** 2)
        errors += _held_out_errors(products, weights, changes)
        totals += np.sum(changes**2, axis=(0, 1))
        coefficients = _coefficients(products, weights, changes).transpose(0, 2, 1)
        for part, differences in _differences(X, rows, near):
            slopes = coefficients @ differences
            squares[:, part] += np.sum(slopes**2, axis=0)
            if gradients is not None:
                gradients[complete[rows], :, part] = slopes
    rms = np.sqrt(squares / n)
    return CoordinateGradients(
        gradients=gradients,
        rms=rms,
        ranking=np.argsort(-rms, axis=1, kind="stable"),
        names=names,
        explained=1.0 - errors / np.where(totals > 0, totals, 1.0),
    )


def _differences(
    X: np.ndarray, rows: np.ndarray, near: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (columns, differences (n_rows, m, n_columns) of the neighbours to their sample)."""
    width = max(1, _BLOCK // near.size)
    for start in range(0, X.shape[1], width):
        part = slice(start, min(start + width, X.shape[1]))
        block = X[:, part].astype(np.float64)
        yield part, block[near] - block[rows, None]


def _coefficients(products: np.ndarray, weights: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return a (n, m, k): the slopes at a sample are sum_j a_j (x_j - x).
    ``products`` (n, m, m) of the differences x_j - x; ``changes`` (n, m, k) of the coordinates.
    """
    m = weights.shape[1]
    weights = weights / weights.sum(axis=1, keepdims=True)
    roots = np.sqrt(weights)[:, :, None]
    centring = roots * (np.eye(m) - weights[:, None, :])  # (n, m, m)
    spread, vectors = np.linalg.eigh(centring @ products @ centring.transpose(0, 2, 1))
    wide = spread > _SPREAD**2 * spread[:, -1:]
    inverse = np.where(wide, 1.0 / np.where(wide, spread, 1.0), 0.0)
    target = vectors.transpose(0, 2, 1) @ (centring @ changes)
    return centring.transpose(0, 2, 1) @ (vectors @ (inverse[:, :, None] * target))


def _held_out_errors(products: np.ndarray, weights: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return (k,): squared errors at every other neighbour of slopes fitted to the rest."""
    errors = np.zeros(changes.shape[2])
    for offset in (0, 1):
        fitted, left = np.s_[:, offset::2], np.s_[:, 1 - offset :: 2]
        inner = products[:, offset::2, offset::2]
        coefficients = _coefficients(inner, weights[fitted], changes[fitted])
        predicted = products[:, 1 - offset :: 2, offset::2] @ coefficients
        errors += np.sum((changes[left] - predicted) ** 2, axis=(0, 1))
    return errors
