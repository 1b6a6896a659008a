"""What each coordinate of a diffusion map is, and how many to keep."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from skdmap._argument_checks import check_number
from skdmap._sklearn_compat import InvalidParameterError
from skdmap._threads import one_thread
from skdmap.diagnostics._harmonics import harmonic_residuals, leave_one_out_error

_LARGEST_SAMPLE = 1000
_N_NEIGHBORS = 15
# Least width of the weights in standard deviations of the coordinates: finer structure, such as the
# tiny values of a coordinate on a branch of a tree where it vanishes, explains nothing.
_WIDTH = 0.1
# More than this, unexplained by the new directions themselves, makes another one: a direction that
# close eigenvalues mix with harmonics leaves little unexplained by all coordinates before it.
_HIDDEN = 0.8
# Of more directions, pairs of the one that explains best and another are tried.
_MOST_PAIRED = 3
# Relative to the spread of the neighbours; keeps a fit along a curve in several coordinates stable.
_RIDGE = 1e-2
# A fit to few samples may extrapolate: so many standard deviations of the neighbours at most.
_REACH = 3.0
# As in LocalizedCoordinateWarning.
_EFFECTIVE_SAMPLES, _EFFECTIVE_SHARE = 10, 0.25
_LARGEST_SHARE = 0.5
_SMALLEST_GROUP = 10
# In more coordinates, parts of a group without gaps seem to be groups.
_MOST_SEPARATING = 20
# Mean silhouette of a group that stands apart. Halves of a piece without a gap reach 0.75; "strong
# structure" in Kaufman & Rousseeuw (1990), doi:10.1002/9780470316801, begins at 0.71.
_STRONG = 0.75
_KEPT_WORDS = ("new direction", "separates components")


@dataclass(frozen=True)
class CoordinateSummary:
    """What each coordinate of a diffusion map is.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n_components,)
        Of the Markov operator.
    laplacian_eigenvalues : ndarray of shape (n_components,)
        ``laplacian_eigenvalues_`` of the map.
    residuals : ndarray of shape (n_components,)
        ``residuals_`` of the map: how well the eigenproblem was solved.
    participation : ndarray of shape (n_components,)
        ``participation_`` of the map.
    unexplained : ndarray of shape (n_components,)
        Share of the coordinate that all coordinates before it leave unexplained, in [0, 1]
        (:func:`harmonic_residuals`). Where finer fits to the suggested ones before it leave more,
        and more than 0.8, it is that share.
    words : tuple of str
        "new direction"; "function of 0, 1", with the coordinates that it is a function of; "few
        samples"; "separates components"; "not resolved". Coordinates count from 0.
    suggested : ndarray of shape (n_suggested,)
        Coordinates that are new directions or separate components.
    threshold : float
        Coordinates with a larger unexplained share count as new directions.
    n_groups : int
        Number of groups of samples that stand apart in the first ``n_groups - 1`` coordinates; 1
        where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import DiffusionMap
    >>> from skdmap.diagnostics import coordinate_summary
    >>> strip = np.random.default_rng(0).random((500, 2)) * [2.5, 1.0]
    >>> mapping = DiffusionMap(4, bandwidth="auto").fit(strip)
    >>> coordinate_summary(mapping).words
    ('new direction', 'function of 0', 'new direction', 'function of 0, 2')
    """

    eigenvalues: np.ndarray
    laplacian_eigenvalues: np.ndarray
    residuals: np.ndarray
    participation: np.ndarray
    unexplained: np.ndarray
    words: tuple[str, ...]
    suggested: np.ndarray
    threshold: float
    n_groups: int = 1

    @property
    def n_suggested(self) -> int:
        """Number of coordinates suggested."""
        return len(self.suggested)

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            A sentence with the coordinates suggested, and a line for each coordinate.
        """
        chosen = ", ".join(map(str, self.suggested)) or "none"
        verb = "is suggested" if self.n_suggested == 1 else "are suggested"
        lines = [
            f"{self.n_suggested} of {len(self.words)} coordinates {verb}: {chosen}. A coordinate "
            f"is a new direction where more than {self.threshold:g} of it is unexplained by "
            "others before it."
        ]
        if self.n_groups == 2:
            lines[0] += " 2 groups of samples stand apart in coordinate 0."
        if self.n_groups > 2:
            lines[0] += (
                f" {self.n_groups} groups of samples stand apart in coordinates 0 to "
                f"{self.n_groups - 2}, which are therefore new directions."
            )
        if self.n_suggested == len(self.words):
            lines[0] += " All are suggested, so there may be more: fit more coordinates."
        for k, word in enumerate(self.words):
            lines.append(
                f"{k}: {word} (eigenvalue {self.eigenvalues[k]:.4g}, unexplained "
                f"{self.unexplained[k]:.2f}, participation {self.participation[k]:.2g})"
            )
        return "\n".join(lines)

    def to_frame(self) -> Any:
        """Return the table as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            One row for each coordinate.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(
            {
                "eigenvalue": self.eigenvalues,
                "laplacian_eigenvalue": self.laplacian_eigenvalues,
                "residual": self.residuals,
                "participation": self.participation,
                "unexplained": self.unexplained,
                "word": self.words,
                "suggested": np.isin(np.arange(len(self.words)), self.suggested),
            }
        ).rename_axis("coordinate")


def coordinate_summary(mapping: Any, *, threshold: float = 0.35) -> CoordinateSummary:
    """Say of each coordinate of a diffusion map what it is, and which to keep.

    The eigenfunctions of a curve are cos(k pi s): the second is a function of the first and no
    second dimension. :func:`harmonic_residuals` gives the share of a coordinate that is no smooth
    function of those before it; a coordinate with more than ``threshold`` is a new direction. This
    misses directions that close eigenvalues mix with a harmonic. A second, finer test finds these:
    a coordinate is also new if local linear fits to one, two or all of the new directions before it
    leave more than 0.8 of it unexplained. The weights of these fits have a width of a tenth of a
    standard deviation, at least half the distance to the 15th nearest sample. The set that explains
    best is named.

    Groups of samples that stand apart are points in two or three coordinates already, and any
    coordinate is a function of them. But G groups are corners of a simplex in G - 1 coordinates, as
    spectral clustering uses them, so the first G - 1 coordinates are new directions as well. To
    find G, k-means looks for m + 1 groups in the first m coordinates, for m up to 20. Groups with a
    mean silhouette above 0.75 stand apart, and all other samples count as one more group. G is the
    largest number over all m, and 1 if no group stands apart in coordinate 0 alone.

    Words other than "new direction" and "function of": "separates components" for eigenvalue 1,
    "few samples" for a coordinate that lives on a few of them, "not resolved" for an eigenpair that
    has not converged.

    Parameters
    ----------
    mapping : DiffusionMap
        Fitted. Of more than 1,000 samples 1,000 are drawn with a fixed seed.
    threshold : float, default=0.35
        Coordinates with a larger unexplained share count as new directions; in (0, 1). Noise
        raises all shares, so look at them.

    Returns
    -------
    CoordinateSummary
        Numbers and a word for each coordinate, and the coordinates suggested.

    Raises
    ------
    NotFittedError
        If the map is not fitted.
    InvalidParameterError
        If ``mapping`` is not a DiffusionMap, or ``threshold`` is out of range.

    See Also
    --------
    coordinate_gradients : Which columns of the data move along a coordinate.

    References
    ----------
    Dsilva, C. J., Talmon, R., Coifman, R. R. & Kevrekidis, I. G. (2018). Parsimonious
    representation of nonlinear dynamical systems through manifold learning: a chemotaxis case
    study. Applied and Computational Harmonic Analysis 44, 759-773.
    https://doi.org/10.1016/j.acha.2015.06.008

    Rousseeuw, P. J. (1987). Silhouettes: a graphical aid to the interpretation and validation of
    cluster analysis. Journal of Computational and Applied Mathematics 20, 53-65.
    https://doi.org/10.1016/0377-0427(87)90125-7

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import DiffusionMap
    >>> from skdmap.diagnostics import coordinate_summary
    >>> angle = np.random.default_rng(0).random(400) * 2 * np.pi
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> coordinate_summary(DiffusionMap(6, bandwidth="auto").fit(circle)).suggested
    array([0, 1])
    """
    threshold = check_number("threshold", threshold, low=0.0, high=1.0)
    is_estimator = hasattr(mapping, "fit")
    if is_estimator:
        check_is_fitted(mapping)
    if not is_estimator or not hasattr(mapping, "stationary_distribution_"):
        raise InvalidParameterError(
            f"mapping={type(mapping).__name__} is not a DiffusionMap; it must be a fitted one. "
            "Pass a fitted DiffusionMap, such as pipeline[-1]."
        )
    mass = np.asarray(mapping.stationary_distribution_, dtype=np.float64)
    rows = np.flatnonzero(mass > 0)
    if len(rows) > _LARGEST_SAMPLE:
        drawn = np.random.default_rng(0).choice(len(rows), _LARGEST_SAMPLE, replace=False)
        drawn.sort()
    else:
        drawn = np.arange(len(rows))
    psi = np.asarray(mapping.eigenvectors_, dtype=np.float64)[rows]
    special = _special_words(mapping, psi, mass[rows])
    with one_thread(), threadpool_limits(1, user_api="openmp"):
        n_groups = _n_groups(psi[drawn], special)
        words, unexplained, suggested = _words(psi[drawn], special, n_groups - 1, threshold)
    return CoordinateSummary(
        eigenvalues=np.asarray(mapping.eigenvalues_),
        laplacian_eigenvalues=np.asarray(mapping.laplacian_eigenvalues_),
        residuals=np.asarray(mapping.residuals_),
        participation=np.asarray(mapping.participation_),
        unexplained=unexplained,
        words=tuple(words),
        suggested=np.array(suggested, dtype=int),
        threshold=threshold,
        n_groups=n_groups,
    )


def _special_words(mapping: Any, psi: np.ndarray, mass: np.ndarray) -> list[str]:
    """Return a word for each coordinate that separates components or is not to be trusted."""
    eigenvalues = np.asarray(mapping.eigenvalues_)
    shares = mass[:, None] * psi**2
    limit = min(_EFFECTIVE_SAMPLES, _EFFECTIVE_SHARE * len(mass))
    few = (1.0 / np.sum(shares**2, axis=0) < limit) | (shares.max(axis=0) > _LARGEST_SHARE)
    few &= len(mass) >= 2 * _EFFECTIVE_SAMPLES  # fewer samples carry no other coordinates
    limits = np.maximum(1e-12, np.minimum(mapping.tol, 1e-2 * (1.0 - eigenvalues)))
    words = np.where(few, "few samples", "")
    words = np.where(np.asarray(mapping.residuals_) > limits, "not resolved", words)
    return np.where(eigenvalues == 1.0, "separates components", words).tolist()


def _n_groups(psi: np.ndarray, special: list[str]) -> int:
    """Return how many groups of rows stand apart in the leading columns of ``psi`` (n, k)."""
    found = 0
    for m in range(1, min(psi.shape[1], _MOST_SEPARATING) + 1):
        # A coordinate of few samples would make a group of these.
        if special[m - 1] not in ("", "separates components") or m + 1 >= len(psi):
            break
        leading = psi[:, :m]
        labels = KMeans(m + 1, n_init=4, random_state=0).fit(leading).labels_
        sizes = np.bincount(labels, minlength=m + 1)
        if (sizes == 0).any():
            break
        silhouettes = np.bincount(labels, silhouette_samples(leading, labels)) / sizes
        is_strong = (silhouettes > _STRONG) & (sizes >= _SMALLEST_GROUP)
        if not is_strong.any() and m == 1:
            break
        found = max(found, min(int(is_strong.sum()), m))
    return found + 1


def _words(
    psi: np.ndarray, special: list[str], n_separating: int, threshold: float
) -> tuple[list[str], np.ndarray, list[int]]:
    """Return words, unexplained shares (k,) and suggested columns of ``psi`` (n, k), the first
    ``n_separating`` among them.
    """
    words: list[str] = []
    suggested: list[int] = []
    unexplained = harmonic_residuals(psi).residuals
    for k, word in enumerate(special):
        if not word and k >= n_separating:
            names: tuple[int, ...] = ()
            named = least = 1.0
            for size in sorted({1, 2, len(suggested)}):
                sets = list(combinations(suggested, size)) if size else []
                if size == 2 and len(suggested) > _MOST_PAIRED:
                    sets = [pair for pair in sets if names[0] in pair]
                errors = [_unexplained(psi[:, list(chosen)], psi[:, k]) for chosen in sets]
                least = min([least, *errors])
                # A larger set is named only where it halves what is left.
                if errors and (not names or min(errors) < named / 2):
                    named, names = min(errors), sets[int(np.argmin(errors))]
            if least > _HIDDEN:
                unexplained[k] = max(unexplained[k], least)
            if unexplained[k] <= threshold:
                word = f"function of {', '.join(map(str, names))}"
        words.append(word or "new direction")
        if words[-1] in _KEPT_WORDS:
            suggested.append(k)
    return words, unexplained, suggested


def _unexplained(before: np.ndarray, target: np.ndarray) -> float:
    """Return the relative error of leave-one-out local linear fits of ``target`` (n,)."""
    if np.ptp(target) == 0:
        return 0.0
    before, target = before / before.std(axis=0), target / target.std()
    distances = squareform(pdist(before))
    np.fill_diagonal(distances, np.inf)
    nearest = min(_N_NEIGHBORS, len(before) - 1) - 1
    width = np.maximum(_WIDTH, np.partition(distances, nearest, axis=1)[:, [nearest]] / 2)
    exponents = 0.5 * (distances / width) ** 2
    error = leave_one_out_error(before, target, exponents, ridge=_RIDGE, reach=_REACH)
    return float(np.sqrt(min(error / len(target), 1.0)))
