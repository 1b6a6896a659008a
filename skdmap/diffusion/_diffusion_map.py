"""The estimator: rows -> graph -> kernel -> Markov operator -> eigenpairs -> embedding."""

from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.neighbors import VALID_METRICS
from sklearn.utils import Tags, check_array
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from skdmap._random import numpy_generator
from skdmap._validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_data,
    validate_parameters,
)
from skdmap.diffusion import _checks as checks
from skdmap.diffusion._embedding import time_factors
from skdmap.diffusion._everybody import all_rows, column_covariances
from skdmap.diffusion._extension import extend
from skdmap.diffusion._input import TrainingInput, check_together, columns_of, training_input
from skdmap.diffusion._likelihood import held_out_log_density
from skdmap.diffusion._preimage import preimage
from skdmap.diffusion._scale import LocalScale, fit_scale
from skdmap.diffusion._spectrum import Spectrum, diffusion_spectrum
from skdmap.diffusion._stages import (
    Coordinates,
    MarkovFit,
    MeasuredGraph,
    diffusion_coordinates,
    markov_operator,
    measured_graph,
    nystrom_extension,
)

__all__ = ["DiffusionMap"]

_DTYPES = [np.float64, np.float32]
_METRICS = {"precomputed", *(name for names in VALID_METRICS.values() for name in names)}
_REMEDIES = {
    "n_components": "Ask for at least one coordinate.",
    "bandwidth": "Pass a length in the units of X, or leave it to 'auto'.",
    "alpha": "Use 0 (graph Laplacian), 0.5 (Fokker-Planck) or 1 (Laplace-Beltrami).",
    "diffusion_time": "Use 1 for one step, 0 for bare eigenfunctions.",
    "n_neighbors": "Use None for all pairs, or 'auto'.",
    "tol": "Use the default 1e-6.",
}


def _has_rows(self: "DiffusionMap") -> bool:
    if self.metric == "precomputed":
        raise AttributeError(
            "inverse_transform needs rows; with metric='precomputed' only distances are known."
        )
    return True


class DiffusionMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Diffusion map."""

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "bandwidth": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto", "median", "local"}),
        ],
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "diffusion_time": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [
            None,
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "neighbors_algorithm": [
            StrOptions({"auto", "exact", "pynndescent"}),
            HasMethods(["fit_transform", "transform"]),
        ],
        "metric": [StrOptions(_METRICS), callable],
        "metric_params": [dict, None],
        "bandwidth_exponent": [Interval(Real, None, None, closed="neither")],
        "eigen_solver": [StrOptions({"auto", "dense", "arpack", "lobpcg"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "disconnected": [StrOptions({"warn", "raise", "largest"})],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        bandwidth: float | Literal["auto", "median", "local"] = "auto",
        alpha: float = 1.0,
        diffusion_time: float = 1.0,
        n_neighbors: int | Literal["auto"] | None = "auto",
        neighbors_algorithm: Any = "auto",
        metric: Any = "euclidean",
        metric_params: dict[str, Any] | None = None,
        bandwidth_exponent: float = 0.0,
        eigen_solver: Literal["auto", "dense", "arpack", "lobpcg"] = "auto",
        tol: float = 1e-6,
        disconnected: Literal["warn", "raise", "largest"] = "warn",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.alpha = alpha
        self.diffusion_time = diffusion_time
        self.n_neighbors = n_neighbors
        self.neighbors_algorithm = neighbors_algorithm
        self.metric = metric
        self.metric_params = metric_params
        self.bandwidth_exponent = bandwidth_exponent
        self.eigen_solver = eigen_solver
        self.tol = tol
        self.disconnected = disconnected
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.input_tags.positive_only = self.metric == "precomputed"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:

        validate_parameters(self, _REMEDIES)
        check_together(
            bandwidth=self.bandwidth,
            bandwidth_exponent=self.bandwidth_exponent,
            metric=self.metric,
            neighbors_algorithm=self.neighbors_algorithm,
        )
        X = validate_data(self, X, accept_sparse="csr", dtype=_DTYPES, ensure_min_samples=2)
        rng = numpy_generator(self.random_state)
        given = training_input(
            X,
            sample_weight,
            n_components=self.n_components,
            metric=self.metric,
            metric_params=self.metric_params,
            algorithm=self.neighbors_algorithm,
            n_jobs=self.n_jobs,
            seed=int(rng.integers(2**31 - 1)),
        )
        with tqdm(total=4, desc="DiffusionMap", disable=None if self.verbose else True) as bar:
            measured = measured_graph(
                given.train,
                given.rows.weight,
                given.settings,
                n_neighbors=self.n_neighbors,
                bandwidth=self.bandwidth,
            )
            bar.update()
            scale = fit_scale(
                measured.graph,
                given.rows.weight,
                bandwidth=measured.bandwidth,
                exponent=self.bandwidth_exponent,
            )
            dimension = max(1, round(measured.dimension))
            markov = markov_operator(
                measured.graph,
                scale,
                given.rows.weight,
                alpha=self.alpha,
                dimension=dimension,
                largest_only=self.disconnected == "largest",
            )
            checks.warn_cutoff(measured.graph, scale, markov.scale)
            checks.check_components(markov.labels, given.rows.index, self.disconnected)
            checks.check_n_components(self.n_components, markov.kept.size)
            bar.update()
            coordinates = diffusion_coordinates(
                markov,
                self.n_components,
                solver=self.eigen_solver,
                tol=self.tol,
                rng=rng,
                columns=None if self._is_precomputed else partial(column_covariances, given.train),
            )
            bar.update()
            spectrum = diffusion_spectrum(
                coordinates,
                markov,
                scale,
                dimension=dimension,
                time=self.diffusion_time,
                tol=self.tol,
            )
            self._keep(X, given, measured, scale, markov, coordinates, spectrum)
            bar.update()
        return self

    def fit_transform(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.floating]:
        """Fit, and return the coordinates of the rows: ``embedding_``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As for ``fit``.
        y : Ignored
            Present for the interface.
        sample_weight : array-like of shape (n_samples,), default=None
            As for ``fit``.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Diffusion coordinates, in the dtype of X.
        """
        return self.fit(X, y, sample_weight=sample_weight).embedding_

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Extend the coordinates to new rows (Nyström).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; for ``metric="precomputed"`` their distances to the training rows, of shape
            (n_samples, n_train).

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            ``embedding_`` for the training rows. Far from them it tends to the coordinates of the
            nearest; a warning names such rows.
        """
        check_is_fitted(self)
        X = self._validate_new(X)
        coordinates, nearest = extend(self._extension, X)
        checks.warn_far_rows(nearest)
        return coordinates.astype(X.dtype, copy=False)

    @available_if(_has_rows)
    def inverse_transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Map coordinates back to rows, by local linear regression in the embedding.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Diffusion coordinates, as ``transform`` gives them.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features)
            Dense, in the dtype of X. Each is a weighted sum of training rows.
        """
        check_is_fitted(self)
        Z = check_array(X, dtype=_DTYPES, input_name="X")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns, must be {self._n_features_out}: one per coordinate. "
                "Pass what transform returns."
            )
        weight = self._rows.weight[self._kept]
        rows = preimage(Z, self._train_embedding, self._fit_X, self._kept, weight)
        return rows.astype(Z.dtype, copy=False)

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Held-out log-likelihood of the density that the kernel defines; higher is better.

        It depends on the data and the bandwidth only, is constant in alpha, diffusion_time and
        n_components, and is comparable only at equal n_neighbors, of which it favours large values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows that were not in the fit, as for ``transform``.
        y : Ignored
            Present for the interface.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean over rows.

        Returns
        -------
        score : float
            Mean log density per row, lengths in units of the training rows' spread.
        """
        check_is_fitted(self)
        X = self._validate_new(X)
        weight = checks.check_sample_weight(sample_weight, X.shape[0])
        log_density = held_out_log_density(
            X,
            self._extension,
            self._rows.weight,
            dimension=self._score_dimension,
            spread=self._spread,
        )
        return float(np.average(log_density, weights=weight))

    @property
    def _n_features_out(self) -> int:
        return int(self.eigenvalues_.size)

    @property
    def _is_precomputed(self) -> bool:
        return isinstance(self.metric, str) and self.metric == "precomputed"

    def _validate_new(self, X: Any) -> Any:
        X = validate_data(self, X, accept_sparse="csr", dtype=_DTYPES, reset=False)
        if not self._is_precomputed:
            return X
        checks.check_new_distances(X, listed=sp.issparse(self._fit_X))
        return columns_of(X, self._rows)

    def _keep(
        self,
        X: Any,
        given: TrainingInput,
        measured: MeasuredGraph,
        scale: LocalScale,
        markov: MarkovFit,
        coordinates: Coordinates,
        spectrum: Spectrum,
    ) -> None:
        self._fit_X, self._rows, self._kept = given.train, given.rows, markov.kept
        self._extension = nystrom_extension(
            measured.search,
            scale,
            markov,
            coordinates,
            factors=time_factors(spectrum.eigenvalues, self.diffusion_time),
        )
        everybody = all_rows(
            columns_of(X, given.rows) if self._is_precomputed else X,
            given.rows,
            markov,
            coordinates,
            self._extension,
        )
        self._train_embedding = everybody.embedding[given.rows.index[markov.kept]]
        self._spread, self._score_dimension = measured.spread, 1.25 * measured.dimension
        self.embedding_ = everybody.embedding.astype(X.dtype, copy=False)
        self.eigenvectors_ = everybody.eigenfunctions.astype(X.dtype, copy=False)
        self.eigenvalues_ = spectrum.eigenvalues
        self.laplacian_eigenvalues_ = spectrum.laplacian_eigenvalues
        self.stationary_distribution_ = everybody.stationary
        self.residuals_ = coordinates.residuals
        self.participation_ = spectrum.participation
        self.epsilon_ = scale.epsilon
        self.bandwidth_ = np.sqrt(2.0 * scale.epsilon)
        if scale.kind == "neighbor":
            self.bandwidth_ = self.bandwidth_ * everybody.scale
        self.intrinsic_dimension_ = measured.dimension
        self.bandwidth_curve_ = measured.curve
        self.n_neighbors_ = measured.search.n_neighbors
        self.n_connected_components_ = int(markov.labels.max()) + 1
        self.component_labels_ = everybody.labels
