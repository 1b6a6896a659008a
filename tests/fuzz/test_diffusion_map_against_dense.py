"""Random fits of DiffusionMap beside a dense reference of the documented convention.

The reference is written from docs/theory.md alone and imports nothing private. A hundred fits run
by default, `FITS` with `-m slow`; set SKDMAP_FUZZ_FITS for another number. A table of warnings is
printed (`-s` shows it).
"""

import os
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from skdmap import DiffusionMap
from skdmap.exceptions import (
    BandwidthWarning,
    ConvergenceWarning,
    DisconnectedGraphWarning,
    LocalizedCoordinateWarning,
)

FITS = int(os.environ.get("SKDMAP_FUZZ_FITS", "5000"))
CHUNKS = 20
SMALL_COMPONENT = 10


# ---------------------------------------------------------------- the reference


def merged(X, weight, *, merge=True):
    """Distinct rows of positive weight, their weights (sum 1), and the index of each row's."""
    if not merge:
        kept = np.flatnonzero(weight > 0)
        index = np.full(len(X), -1)
        index[kept] = np.arange(kept.size)
        return kept, weight[kept] / weight[kept].sum(), index
    _, first, inverse = np.unique(X, axis=0, return_index=True, return_inverse=True)
    mass = np.bincount(inverse.ravel(), weights=weight)
    kept = np.flatnonzero(mass > 0)
    index = np.full(mass.size, -1)
    index[kept] = np.arange(kept.size)
    return first[kept], mass[kept] / mass[kept].sum(), index[inverse.ravel()]


def nearest(own, k):
    """k-th smallest finite entry of each row (1-based); beyond the last twice the largest."""
    ordered, counts = np.sort(own, axis=1), np.isfinite(own).sum(axis=1)
    k = np.broadcast_to(k, counts.shape)
    inside = np.minimum(k, counts) - 1
    found = np.take_along_axis(ordered, inside[:, None], axis=1)[:, 0]
    return np.where(k <= counts, found, 2 * found)


def radii(own, N):
    """r by the rule for ties; ``own`` (m, n): distances to the distinct training rows, or listed
    ones and inf; ``N`` neighbours, one number or (m,)."""
    a, r = nearest(own, -(-N // 3) + 1), nearest(own, N + 1)
    for M in (2 * N + 2, 4 * N + 4, 8 * N + 8):
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.clip(1 - (1 - a / r) / 0.01, 0, 1)
        t = np.where(r > 0, t, 1.0)
        r = r + t * (nearest(own, M) - r)
    return r


def gaussian(D, hh, R=None):
    """k = exp(-d^2 / 2hh'), less its value at the cut-off R and 0 beyond it."""
    k = np.exp(-(D**2) / (2 * hh))
    if R is None:
        return k
    # What is nearer to R than to rounding, which depends on how distances are computed, is at R.
    rest = np.where(R - D > 1e-10 * R, (R - D) * (R + D), 0.0)
    # A list of equal rows only ends at 0: nothing can be cut off there.
    return np.where((D == 0) & (R == 0), 1.0, -k * np.expm1(-rest / (2 * hh)))


def components(k, threshold):
    n, labels = sp.csgraph.connected_components(sp.csr_matrix(k >= threshold), directed=False)
    return n, labels


class Kernel:
    """The kernel by the book: of training rows, and from new rows to these."""

    def __init__(self, own, w, bandwidth, n_neighbors, *, lists=False):
        n, self.lists, self.local = len(w), lists, bandwidth == "local"
        if isinstance(n_neighbors, str):
            n_neighbors = min(15, n - 1)
        self.N = n - 1 if n_neighbors is None else min(n_neighbors, n - 1)
        self.all_pairs = np.isfinite(own).all() if lists else n - 1 == self.N
        self.r = None if self.all_pairs else self.radii(own)
        self.h = np.full(n, float(bandwidth) if not self.local else np.nan)
        if self.local:
            self.bounds = 0.0, np.inf
            h = self.lengths(own)
            order = np.argsort(h[h > 0])
            mass = np.cumsum(w[h > 0][order])
            median = h[h > 0][order][np.argmax(mass >= mass[-1] / 2 * (1 - 1e-12))]
            self.bounds = median / 20, 20 * median
            self.h = np.clip(h, *self.bounds)

    def listed(self, own):
        return np.isfinite(own).sum(axis=1) - 1 if self.lists else np.array(self.N)

    def radii(self, own):
        return radii(own, self.listed(own))

    def lengths(self, own):
        """h of rows with these distances to the training rows, inf where not listed."""
        if not self.local:
            return np.full(len(own), self.h[0])
        return np.clip(nearest(own, np.minimum(7, self.listed(own)) + 1), *self.bounds)

    def between(self, own, D, counted=True):
        """k (m, n) of new rows; of the pairs that count."""
        R = None if self.all_pairs else np.maximum(self.radii(own)[:, None], self.r)
        return np.where(counted, gaussian(D, self.lengths(own)[:, None] * self.h, R), 0.0)


@dataclass
class Reference:
    """What the documented convention gives for one map."""

    kept: np.ndarray  # which of the distinct rows are included
    first: np.ndarray  # row of X of each distinct row
    index: np.ndarray  # distinct row of each row of X, -1 where it has no weight
    pi: np.ndarray  # of the included ones
    P: np.ndarray
    S: np.ndarray
    labels: np.ndarray
    n_components: int
    values: np.ndarray  # all eigenvalues but one trivial one, descending
    kernel: Kernel  # of the rows that are ``alive``: not treated as rows of weight 0
    alive: np.ndarray
    k: np.ndarray  # of these
    q: np.ndarray
    w: np.ndarray
    dropped: int
    D: np.ndarray


def reference(
    D, first, w, index, *, bandwidth, n_neighbors, alpha, disconnected, inside=None, listed=None
):
    """The map by the book; ``inside``: an included sample, which decides between equal masses."""
    alive, local = np.arange(len(w)), bandwidth == "local"
    while True:
        part = np.ix_(alive, alive)
        mass_of = w[alive] / w[alive].sum()
        own = D[part] if listed is None else np.where(listed[part], D[part], np.inf)
        kernel = Kernel(own, mass_of, bandwidth, n_neighbors, lists=listed is not None)
        either = True if listed is None else listed[part] | listed[part].T
        k = kernel.between(own, D[part], either)
        # Two rows have one length each, and one cut-off.
        k = np.maximum(k, k.T)
        n, labels = components(k, 5e-324 if local else np.finfo(float).eps * k.max())
        counts = np.bincount(labels)
        mass = np.bincount(labels, weights=mass_of)
        small = counts < SMALL_COMPONENT
        if small.all() or mass[small].sum() > 0.1:
            small[:] = False
        if not (local and small.any()):
            break
        alive = alive[~small[labels]]
    counted = int((~small).sum())  # labels tell them apart, included in the fit or not
    dropped = n - counted + len(w) - len(alive)
    if disconnected == "largest":
        tied = np.flatnonzero(~small & (mass >= mass[~small].max() * (1 - 1e-12)))
        place = np.flatnonzero(alive == inside)
        largest = labels[place[0]] if place.size and labels[place[0]] in tied else tied[0]
        small = np.arange(n) != largest
    chosen = np.flatnonzero(~small[labels])
    kept = alive[chosen]
    inner, w_, D_ = k[np.ix_(chosen, chosen)], w[kept] / w[kept].sum(), labels[chosen]
    _, D_ = np.unique(D_, return_inverse=True)
    # Components are apart: what is left between them lies below the threshold of connection.
    inner = np.where(D_[:, None] == D_, inner, 0.0)
    q = inner @ w_  # a density
    K = inner / np.outer(q**alpha, q**alpha)
    d = K @ w_
    P = K * w_ / d[:, None]
    root = np.sqrt(w_ / d)
    S = root[:, None] * K * root
    pi = w_ * d / (w_ @ d)
    values = np.linalg.eigvalsh(S)[::-1]
    return Reference(
        kept, first, index, pi, P, S, D_, counted, values[1:], kernel, alive, k, q, w_, dropped, D
    )


# ---------------------------------------------------------------- the cases


def points(rng, kind, n):
    d = int(rng.integers(1, 9))
    if kind == "normal":
        return rng.standard_normal((n, d))
    if kind == "blobs":
        centres = 6 * rng.standard_normal((int(rng.integers(2, 5)), d))
        return centres[rng.integers(len(centres), size=n)] + 0.5 * rng.standard_normal((n, d))
    if kind == "circle":
        t = 2 * np.pi * (np.arange(n) if rng.random() < 0.5 else n * rng.random(n)) / n
        return np.column_stack([np.cos(t), np.sin(t)])
    if kind == "lattice":
        side = int(np.sqrt(n))
        return np.array([(i, j) for i in range(side) for j in range(side)], float)
    if kind == "binary":
        return (rng.random((n, d + 4)) < 0.4).astype(float)
    if kind == "one-hot":
        return np.eye(12)[rng.integers(12, size=n)] + np.eye(12)[rng.integers(12, size=n)]
    if kind == "ordinal":
        return rng.integers(0, 5, size=(n, d + 2)).astype(float)
    if kind == "heavy":
        return rng.standard_t(1.5, size=(n, min(d, 3)))
    if kind == "outlier":
        X = rng.standard_normal((n, d))
        X[0] += 10.0 ** rng.uniform(1, 6)
        return X
    if kind == "curve":
        t = np.sort(rng.random(n))[:, None]
        return np.hstack([t, np.sin(6 * t), t**2]) + 0.01 * rng.standard_normal((n, 3))
    raise AssertionError(kind)


KINDS = (
    "normal", "blobs", "circle", "lattice", "binary", "one-hot", "ordinal", "heavy", "outlier",
    "curve",
)  # fmt: skip


def case(seed):
    """Rows, new rows, weights, settings, distinct rows and distances of one fit."""
    rng = np.random.default_rng(seed)
    X = points(rng, KINDS[seed % len(KINDS)], int(rng.integers(12, 301)))
    if rng.random() < 0.2:
        X = np.vstack([X, X[rng.integers(len(X), size=max(1, len(X) // 5))]])
    X = X * 10.0 ** rng.choice([0, 0, 0, -6, 6]) + rng.choice([0, 0, 0, 100]) * X.std()
    weight = None
    if rng.random() < 0.3:
        weight = rng.random(len(X)) + 0.05
        if rng.random() < 0.3:
            weight[rng.random(len(X)) < 0.1] = 0.0
    first, w, index = merged(X, np.ones(len(X)) if weight is None else weight)
    n = len(first)
    if n < 4:
        return None
    metric = str(rng.choice(["euclidean", "euclidean", "cityblock", "chebyshev", "precomputed"]))
    measure = "euclidean" if metric == "precomputed" else metric
    D = cdist(X[first], X[first], measure)
    # New rows: near, between and away from those of the fit.
    new = X[rng.integers(len(X), size=6)] * np.array([1, 1, 1, 1, 1, 1.5])[:, None]
    new[1:5] += rng.standard_normal((4, X.shape[1])) * np.median(D) * rng.choice([1e-3, 0.3])
    settings = {
        "metric": metric,
        "n_components": int(rng.integers(1, min(8, n - 2) + 1)),
        "alpha": float(rng.choice([0.0, 0.5, 1.0])),
        "diffusion_time": float(rng.choice([1.0, 1.0, 0.0, 2.0, 0.5])),
        "disconnected": str(rng.choice(["warn", "warn", "largest"])),
        "eigen_solver": str(rng.choice(["auto", "auto", "auto", "dense", "arpack", "lanczos"])),
        "random_state": seed,
    }
    # A third each: all pairs, few neighbours, many.
    neighbours = rng.choice(["all", "few", "many"])
    settings["n_neighbors"] = {
        "all": None,
        "few": int(rng.integers(3, 16)),
        "many": int(rng.integers(16, 65)),
    }[str(neighbours)]
    if settings["n_neighbors"] is not None:
        settings["n_neighbors"] = min(settings["n_neighbors"], n - 1)
    positive = D[D > 0]
    quantile = float(np.quantile(positive, rng.choice([0.01, 0.05, 0.2, 0.5])))
    settings["bandwidth"] = quantile * float(rng.choice([0.3, 1.0, 3.0]))
    if rng.random() < 0.15:
        settings["bandwidth"] = str(rng.choice(["auto", "median"]))
    lists = None
    if rng.random() < 0.5:
        settings["bandwidth"] = "local"
        if rng.random() < 0.4:
            settings["n_neighbors"] = "auto"
        elif settings["n_neighbors"] is not None and rng.random() < 0.2:
            settings["n_neighbors"] = min(int(rng.integers(1, 10)), n - 1)
    # Half of the precomputed ones as lists of the nearest, in which equal samples stay apart.
    if metric == "precomputed" and settings["n_neighbors"] is not None and rng.random() < 0.5:
        first, w, index = merged(X, np.ones(len(X)) if weight is None else weight, merge=False)
        count = 15 if settings["n_neighbors"] == "auto" else settings["n_neighbors"]
        lists = [of_nearest(cdist(rows, X), count + 1) for rows in (X, new)]
        np.fill_diagonal(lists[0], True)
    return X, new, weight, settings, measure, first, w, index, lists


def of_nearest(D, count):
    """Which pairs are among the nearest of their row."""
    return np.argsort(np.argsort(D, axis=1, kind="stable"), axis=1) < count


def as_lists(D, listed):
    """Distances of some pairs, zeros stored."""
    return sp.csr_matrix((D[listed], np.nonzero(listed)), shape=D.shape)


# ---------------------------------------------------------------- the comparison


def confirmed(category, message, model, ref, settings):
    """Whether the reference shows what a warning says."""
    if category is DisconnectedGraphWarning:
        return ref.n_components > 1 or ref.dropped > 0
    if category is ConvergenceWarning:
        return model.residuals_.max() > 1e-12
    if category is LocalizedCoordinateWarning:
        inside = inside_rows(model, ref)
        share = ref.pi[:, None] * model.eigenvectors_[inside] ** 2
        n_effective = 1 / np.maximum((share**2).sum(axis=0), 1e-300)
        return bool(((n_effective < 10) | (share.max(axis=0) > 0.5)).any())
    if category is BandwidthWarning:
        if "cut off" in message:
            h, r = model.bandwidth_, ref.kernel.r
            return r is not None and np.median(np.exp(-(r**2) / (2 * h**2))) > 1e-2
        if "alpha" in message:
            return settings["bandwidth"] == "local" and settings["alpha"] != 1
        if "equally far" in message:
            part = ref.D[np.ix_(ref.alive, ref.alive)]
            ordered, N = np.sort(part, axis=1), ref.kernel.N
            last = ordered[:, 8 * N + 7]
            tied = ordered[:, -(-N // 3)] >= last * (1 - 1e-9)
            return int(message.split()[0]) == int(tied.sum())
        if "igenvalue" in message:
            return bool((np.abs(model.eigenvalues_) <= 1e-6).any())
        return "auto" in str(settings["bandwidth"])
    return False


def inside_rows(model, ref):
    """Row of X of each distinct row that is included."""
    return ref.first[ref.kept]


def check(seed, fired, unconfirmed):
    made = case(seed)
    if made is None:
        return 0
    X, new, weight, settings, measure, first, w, index, lists = made
    given, given_new, options = X, new, {}
    D, D_new = cdist(X[first], X[first], measure), cdist(new, X[first], measure)
    own, own_new = cdist(X, X[first], measure), D_new  # of the pairs that are listed
    if settings["metric"] == "precomputed":
        given, given_new = cdist(X, X), cdist(new, X)
    if lists is not None:
        options["listed"] = lists[0][np.ix_(first, first)]
        own, own_new = (
            np.where(listed[:, first], distances, np.inf)
            for listed, distances in zip(lists, (own, D_new), strict=True)
        )
        given, given_new = as_lists(given, lists[0]), as_lists(given_new, lists[1])
    for name in ("n_neighbors", "alpha", "disconnected"):
        options[name] = settings[name]
    model = DiffusionMap(**settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(given, sample_weight=weight)
        except ValueError as error:
            text = str(error)
            fired[("ValueError", text.split("=")[0][:30])] += 1
            if "diffusion_time" in text:  # a fraction of a negative eigenvalue
                assert settings["diffusion_time"] == 0.5
                return 1
            assert "n_components" in text, text
            bandwidth = settings["bandwidth"]
            if bandwidth not in ("auto", "median"):
                ref = reference(D, first, w, index, bandwidth=bandwidth, **options)
                assert settings["n_components"] >= len(ref.kept) - 1, text
            return 1
    if any("Zeros were probably dropped" in str(item.message) for item in caught):
        return 1  # short lists of many equal rows: the reference adds no distance of 0
    local = settings["bandwidth"] == "local"
    ref = reference(
        D, first, w, index, bandwidth="local" if local else model.bandwidth_,
        inside=index[np.argmax(model.component_labels_ == 0)], **options,
    )  # fmt: skip
    for item in caught:
        fired[(item.category.__name__, str(item.message).split(":")[0][:40])] += 1
        if not confirmed(item.category, str(item.message), model, ref, settings):
            unconfirmed.append((seed, item.category.__name__, str(item.message)[:90]))
    quiet = {item.category for item in caught}
    slack = 1e-9 + 2 * model.residuals_.max()
    inside, k = inside_rows(model, ref), settings["n_components"]
    negligible = ref.pi <= 1e-14
    if negligible.any():
        return 1  # solved without these rows; the reference has no such rule
    # A numerical value at the threshold of connection may fall on either side.
    assert model.n_connected_components_ == ref.n_components or near_threshold(ref, local)
    if model.n_connected_components_ != ref.n_components:
        return 1
    if local:
        lengths = ref.kernel.lengths(own[:, ref.alive])
        known = np.isfinite(own[:, ref.alive]).any(axis=1)
        np.testing.assert_allclose(model.bandwidth_[known], lengths[known], rtol=1e-9)
        mass = w[ref.alive] / w[ref.alive].sum()
        np.testing.assert_allclose(model.epsilon_, mass @ ref.kernel.h**2 / 2, rtol=1e-9)
        np.testing.assert_array_equal(
            model.laplacian_eigenvalues_, (1 - model.eigenvalues_) / model.epsilon_
        )
    pi = model.stationary_distribution_
    counted = np.bincount(index[index >= 0], weights=pi[index >= 0], minlength=len(first))
    np.testing.assert_allclose(counted[ref.kept], ref.pi, rtol=1e-8, atol=1e-14)
    missed = np.abs(model.eigenvalues_ - ref.values[:k]) > slack
    if ConvergenceWarning not in quiet:
        assert not missed.any(), (model.eigenvalues_, ref.values[:k])
    psi = model.eigenvectors_[inside].astype(float)
    gram = psi.T @ (ref.pi[:, None] * psi)
    np.testing.assert_allclose(gram, np.eye(k), atol=1e-6)
    left = ref.P @ psi - psi * model.eigenvalues_
    np.testing.assert_array_less(np.sqrt((ref.pi[:, None] * left**2).sum(axis=0)), slack + 1e-8)
    t = settings["diffusion_time"]
    large = np.abs(model.eigenvalues_) > 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.abs(model.eigenvalues_) ** (t - 1) * (ref.P @ psi)
    if t in (0.0, 1.0, 2.0):
        expected = model.eigenvalues_ ** (t - 1) * (ref.P @ psi)
    scale = np.abs(expected[:, large]).max(initial=1e-300)
    np.testing.assert_allclose(
        model.embedding_[inside][:, large], expected[:, large], rtol=1e-6, atol=1e-6 * scale
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = model.transform(given)
        one = model.transform(given[:1])
        placed = model.transform(given_new)
    if lists is None:  # else new rows have only the pairs that they list
        np.testing.assert_allclose(
            again[:, large], model.embedding_[:, large], rtol=1e-8, atol=1e-8 * scale
        )
    np.testing.assert_allclose(one[:, large], again[:1][:, large], rtol=1e-9, atol=1e-9 * scale)
    wanted, sure = extended(ref, psi, model, D_new[:, ref.alive], own_new[:, ref.alive], settings)
    shape = np.ix_(sure, large)
    np.testing.assert_allclose(placed[shape], wanted[shape], rtol=1e-6, atol=1e-6 * scale)
    return 1


def extended(ref, psi, model, D_new, own_new, settings):
    """lambda^(t-1) sum_j p(z, j) psi_j of new rows, and which are not too far for this formula."""
    t = settings["diffusion_time"]
    k = ref.kernel.between(own_new, D_new, np.isfinite(own_new))
    k = k[:, np.searchsorted(ref.alive, ref.kept)]
    p = k * ref.w / ref.q ** settings["alpha"]
    sure = k.max(axis=1) > 1e-12  # farther rows have a rule of their own
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (p @ psi) / p.sum(axis=1)[:, None]
        power = np.abs(model.eigenvalues_) ** (t - 1)
        if t in (0.0, 1.0, 2.0):
            power = model.eigenvalues_ ** (t - 1)
    return power * mean, sure


def near_threshold(ref, local):
    threshold = 1e-300 if local else np.finfo(float).eps * ref.k.max()
    return bool(((ref.k > (0 if local else 0.5 * threshold)) & (ref.k < 2 * threshold)).any())


def test_a_few_fits_are_right():
    for seed in range(100):
        check(seed, Counter(), [])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_fit_is_wrong_without_a_warning_and_few_warn_in_vain(chunk):
    fired, unconfirmed, n_fits = Counter(), [], 0
    for seed in range(chunk, FITS, CHUNKS):
        n_fits += check(seed, fired, unconfirmed)
    print(f"\n{n_fits} fits")
    for (category, text), count in sorted(fired.items()):
        print(f"{count:6d}  {category}: {text}")
    assert len(unconfirmed) <= 0.01 * n_fits, unconfirmed[:10]
