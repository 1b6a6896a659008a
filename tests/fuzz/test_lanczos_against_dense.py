"""1,000 random spectra: eigenvalues, their certified bound and warnings against the known ones.

Prints a table of what fired how often (``pytest -m slow -s tests/fuzz``). SKDMAP_N_FUZZ sets the
number of fits.
"""

import collections
import os
import warnings

import numpy as np
import pytest

from skdmap.exceptions import ConvergenceWarning
from skdmap.hessian import lanczos
from skdmap.hessian._convergence_warnings import warn_unless_converged

pytestmark = pytest.mark.slow
N_FITS = int(os.environ.get("SKDMAP_N_FUZZ", "1000"))
EPS = np.finfo(np.float64).eps


def gaussian_orthogonal(rng, n):
    G = rng.standard_normal((n, n))
    return np.linalg.eigvalsh((G + G.T) / 2)


SPECTRA = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "uniform": lambda rng, n: rng.random(n),
    "random matrix": gaussian_orthogonal,
    "outliers": lambda rng, n: np.r_[rng.standard_normal(n - 12) * 0.05, rng.exponential(1, 12)],
    "clustered": lambda rng, n: np.r_[
        rng.standard_normal(n - 15) * 0.1,
        1 + rng.standard_normal(5) * 1e-3,
        0.7 + rng.standard_normal(5) * 1e-4,
        0.5 + rng.standard_normal(5) * 1e-5,
    ],
    "multiple": lambda rng, n: np.r_[
        np.repeat(rng.exponential(1, 6), 5), rng.standard_normal(n - 30) * 0.05
    ],
    "negative": lambda rng, n: -np.r_[rng.exponential(0.1, n - 20), rng.exponential(1, 20)],
    "power law": lambda rng, n: np.arange(1, n + 1) ** -1.0 * rng.choice([1, 1, 1, -0.3], n),
    "six values": lambda rng, n: rng.integers(0, 6, n) * 1.0,
    "low rank": lambda rng, n: np.r_[rng.standard_normal(15), np.zeros(n - 15)],
}
WHICH = ("largest", "smallest", "magnitude", "both")


def wanted(spectrum, which, k):
    descending = np.sort(spectrum)[::-1]
    return {
        "largest": descending[:k],
        "smallest": descending[::-1][:k],
        "magnitude": spectrum[np.argsort(-np.abs(spectrum))][:k],
        "both": np.r_[descending[: k - k // 2], descending[len(descending) - k // 2 :]],
    }[which]


def product_with(spectrum, rng):
    """A matrix with this spectrum and dense eigenvectors, as a product: Householder's."""
    w = rng.standard_normal(len(spectrum))
    w /= np.linalg.norm(w)

    def reflected(v):
        return v - 2 * (w @ v) * w

    return lambda v: reflected(spectrum * reflected(v))


def outcome(seed):
    """Return the kind of spectrum and of its end, what happened, and the number of products."""
    rng = np.random.default_rng([1, seed])
    kind, which = list(SPECTRA)[seed % len(SPECTRA)], WHICH[seed // len(SPECTRA) % 4]
    n, k = int(rng.integers(600, 2001)), int(rng.choice([1, 3, 10, 20]))
    tol = float(rng.choice([1e-2, 1e-3, 1e-4]))
    spectrum = SPECTRA[kind](rng, n)
    pairs = lanczos(product_with(spectrum, rng), n, n_pairs=k, rng=rng, which=which, tol=tol)
    exact, scale = wanted(spectrum, which, k), float(np.abs(spectrum).max())
    found = pairs.eigenvalues
    if which == "magnitude":
        exact, found = np.abs(exact), np.abs(found)
    errors = np.abs(np.sort(found) - np.sort(exact))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        warn_unless_converged(pairs, tol, EPS, k)
    texts = " ".join(str(warning.message) for warning in caught)
    events = {"fits"}
    if errors.max() > 2 * tol * scale:
        events.add("off by more than 2 tol")
    if errors.max() > pairs.missed_eigenvalue_bound * pairs.scale * (1 + 1e-9):
        events.add("off by more than certified")
        if not caught:
            events.add("silently off by more than certified")
    if pairs.missed_eigenvalue_bound <= 2 * tol:
        events.add("certified to 2 tol")
    if "did not converge" in texts or "too few to verify" in texts:
        events.add("not converged")
        if pairs.residuals.max() <= tol * pairs.scale and errors.max() <= tol * scale:
            events.add("false alarm: converged and complete")
    if "not resolved" in texts:
        events.add("not resolved")
        order = np.argsort(found)
        named = pairs.residuals[order] > np.abs(found[order]) / 3
        if not (errors[named] > 0.1 * np.abs(np.sort(exact))[named]).any():
            events.add("false alarm: known to a tenth")
    distance = np.abs(pairs.eigenvalues[:, None] - spectrum).min(axis=1)
    if (distance > pairs.residuals).any():
        events.add("no eigenvalue within a residual")
    return kind, which, events, pairs.n_matvecs


def test_no_eigenvalue_is_missed_by_more_than_is_certified():
    table = collections.defaultdict(collections.Counter)
    for seed in range(N_FITS):
        kind, which, events, n_matvecs = outcome(seed)
        for name in (kind, which, "all"):
            table[name].update(events)
            table[name]["products"] += n_matvecs
    columns = sorted({event for counts in table.values() for event in counts})
    print()
    for column in columns:
        print(f"{column:40s}", *(f"{name}: {table[name][column]}" for name in table), sep="  ")
    total = table["all"]
    assert total["silently off by more than certified"] <= N_FITS / 1000
    alarms = sum(count for event, count in total.items() if event.startswith("false alarm"))
    assert alarms <= max(1, N_FITS / 100)
    assert total["no eigenvalue within a residual"] == 0
