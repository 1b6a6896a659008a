"""The estimator: rows -> graph -> kernel -> Markov operator -> eigenpairs -> embedding."""

from __future__ import annotations

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
from skdmap._sklearn_compat import (
    HasMethods,
    Interval,
    StrOptions,
    validate_data,
    validate_parameters,
)
from skdmap.diffusion._bandwidth import MeasuredGraph, measured_graph
from skdmap.diffusion._eigenfunctions import (
    Coordinates,
    Spectrum,
    diffusion_spectrum,
    markov_coordinates,
    time_factors,
)
from skdmap.diffusion._kernel import LocalScale, fit_scale
from skdmap.diffusion._markov import MarkovFit
from skdmap.diffusion._nystrom import extend, nystrom_extension
from skdmap.diffusion._preimage import far_from_embedding, preimage
from skdmap.diffusion._results import all_rows
from skdmap.diffusion._score import held_out_log_density, score_units
from skdmap.diffusion._training_set import TrainingInput, columns_of, training_input
from skdmap.diffusion._validation import (
    check_new_distances,
    check_sample_weight,
    check_together,
    validated_rows,
)
from skdmap.diffusion._warnings import warn_far_coordinates, warn_far_rows
from skdmap.diffusion._wide.column_reader import WIDE, is_dask, without_distances
from skdmap.diffusion._wide.dask_arrays import map_row_blocks

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


def _has_rows(self: DiffusionMap) -> bool:
    if self.metric == "precomputed":
        raise AttributeError(
            "inverse_transform needs rows; with metric='precomputed' only distances are known."
        )
    return True


class DiffusionMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Diffusion map: coordinates of rows that keep the geometry of diffusion between them.

    A random walk on the rows steps to near rows with a probability that a Gaussian kernel gives.
    The leading eigenfunctions of its Markov operator P are smooth coordinates of the set that the
    rows lie on, slowest first; how far two rows are apart in them is how far apart the walks are
    that start there. New rows go in by ``transform``, coordinates back by ``inverse_transform``.

    Parameters
    ----------
    n_components : int, default=2
        Number k of coordinates; below the number of distinct rows of positive weight.
    bandwidth : float or {"auto", "median", "local"}, default="auto"
        A length h, in the units of X: the standard deviation of the Gaussian
        exp(-d^2 / (2 h^2)). In the notation exp(-d^2 / (4 eps)), eps = h^2 / 2.

        - "auto": near the lower end of the first plateau of the slope of log S against log h,
          S = sum_ij k_ij, and large enough to leave no row hanging that is no outlier.
        - "median": median distance of all pairs; over a sparse kernel, median of r_i / 3.
        - "local": one length for each row, the distance to its 9th nearest training row, its own
          counted, kept within a factor 2 of their geometric mean.
    alpha : float, default=1.0
        How far the density of the rows is divided out, in [0, 1]: 0 graph Laplacian, 1/2
        Fokker-Planck, 1 Laplace-Beltrami, which does not see the density.
    diffusion_time : float, default=1.0
        Power t >= 0 of the eigenvalues in the coordinates lambda^t psi. 0 gives the bare
        eigenfunctions. A fraction needs eigenvalues that are not negative.
    n_neighbors : int, None or "auto", default="auto"
        None: the kernel has all pairs. An int: it has the pairs with d <= max(r_i, r_j), r the
        distance to the nearest training row of this number, the row itself not counted. "auto":
        all pairs up to 5000 rows; above, what lets the kernel fall to 1e-2, between 32 and 256.
        Where an "auto" bandwidth needs more: all pairs up to 10,000 rows, then a warning.
    neighbors_algorithm : {"auto", "exact", "pynndescent"} or transformer, default="auto"
        Who finds neighbours. "auto": trees in few columns, else matrix products, and pynndescent
        once compiling it pays ("pynndescent" compiles for half a minute in each new process). A
        transformer is unfitted and has the interface of
        :class:`~sklearn.neighbors.KNeighborsTransformer`; its own n_neighbors and metric count.
    metric : str or callable, default="euclidean"
        Any metric of scikit-learn's neighbours, a function of two rows, or "precomputed": X holds
        distances, dense and square, or sparse as a list of neighbours. In a list stored zeros are
        distances, ``n_neighbors`` is ignored, and a pair counts when d <= min(r_i, r_j), r the
        largest distance stored in a row.
    metric_params : dict, default=None
        Keyword arguments of the metric.
    bandwidth_exponent : float, default=0.0
        Power beta of a bandwidth that varies as h rho(x), rho = q(x)^beta, q the density of the
        rows; rho is divided by its geometric mean and kept in [1/2, 2]. 0 is a fixed bandwidth,
        -1/2 usual. ``alpha`` keeps its meaning.
    eigen_solver : {"auto", "dense", "lanczos", "arpack", "lobpcg"}, default="auto"
        "auto": dense up to 1500 rows; above, block Lanczos for all pairs and ARPACK for a sparse
        kernel, then dense or LOBPCG where that does not converge. Over a sparse kernel of more than
        5000 rows a multilevel method comes first, whose residuals are about a tenth of ``tol``; it
        runs on as many threads as BLAS may use. Where Lanczos gives up over all pairs of up to
        12,000 rows, many of them nearly cut off, it comes before LOBPCG.
    tol : float, default=1e-6
        Residual at which an eigenpair counts as converged. The warning's threshold is
        max(1e-12, min(tol, 1e-2 (1 - lambda))).
    disconnected : {"warn", "raise", "largest"}, default="warn"
        What to do when the kernel connects the rows in c > 1 components. "warn": the first c - 1
        coordinates tell the components apart, with eigenvalue 1. "largest": only the component of
        the largest weight is mapped; the other rows get the coordinates that ``transform`` gives.
    random_state : int, RandomState instance or None, default=None
        Start vectors of the iterative solvers, and the seed of an approximate search.
    n_jobs : int, default=None
        Threads of the neighbour search, as in scikit-learn; but k-d trees take as many as BLAS may
        use where it is None.
    verbose : int, default=0
        Above 0: a progress bar, on a terminal.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_samples, n_components)
        Coordinates lambda_k^t psi_k(x_i), the trivial pair left out; in the dtype of X.
    eigenvalues_ : ndarray of shape (n_components,)
        Of the Markov operator P, descending, in [-1, 1], the trivial 1 left out. With a variable
        bandwidth exp(-eps * ``laplacian_eigenvalues_``).
    eigenvectors_ : ndarray of shape (n_samples, n_components)
        Right eigenvectors psi of P, with sum_i pi_i psi_k(i)^2 = 1.
    stationary_distribution_ : ndarray of shape (n_samples,)
        pi, sums to 1.
    laplacian_eigenvalues_ : ndarray of shape (n_components,)
        In 1 / length^2, >= 0: estimates the spectrum of minus the generator. For a fixed bandwidth
        (1 - lambda_k) / (eps s / d), s = sum k d_ij^2 / (h^2 sum k) over a sparse kernel and d the
        rounded dimension; s / d is 1 for all pairs.
    bandwidth_ : float or ndarray of shape (n_samples,)
        h; with "local" one length for each row.
    epsilon_ : float
        eps = h^2 / 2; with "local" of the geometric mean of the lengths.
    intrinsic_dimension_ : float
        Slope of log S against log h at its maximum; for lists of neighbours, from how distances
        grow along each list.
    residuals_ : ndarray of shape (n_components,)
        Norm of S v - lambda v for each pair of the symmetric form S.
    participation_ : ndarray of shape (n_components,)
        1 / sum_i pi_i psi_k(i)^4, in (0, 1]: the share of the mass that carries coordinate k. A
        cosine has 2/3, one isolated row its pi.
    bandwidth_curve_ : object
        With fields ``bandwidths``, ``log_kernel_sum`` and ``slope``, each of shape (n_grid,): what
        :class:`~skdmap.plotting.BandwidthDisplay` draws.
    n_neighbors_ : int or None
        Neighbours of a row; None for all pairs.
    n_connected_components_ : int
        Of the kernel, those of fewer than ten rows left out, unless all are.
    component_labels_ : ndarray of shape (n_samples,)
        0 is the component of the largest weight. -1 for rows of weight 0 or of negligible mass, and
        for rows in pieces of fewer than ten rows.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where X has column names.

    See Also
    --------
    sklearn.manifold.SpectralEmbedding : The graph Laplacian of one sample; no new rows.
    sklearn.decomposition.KernelPCA : Eigenvectors of a kernel that is not normalised.
    sklearn.manifold.Isomap : Keeps path lengths along the neighbour graph.
    skdmap.plotting.EmbeddingDisplay : Draws the coordinates.
    skdmap.plotting.BandwidthDisplay : Draws where the bandwidth lies.

    Notes
    -----
    With weights w (equal ones by default, only ratios matter) and a fixed bandwidth [1]_::

        k_ij = exp(-d_ij^2 / (2 h^2))           kernel, k_ii = 1
        q_i  = sum_j k_ij w_j                   density
        K_ij = k_ij / (q_i q_j)^alpha
        d_i  = sum_j K_ij w_j
        P_ij = K_ij w_j / d_i                   Markov operator, rows sum to 1
        pi_i = w_i d_i / sum                    its stationary distribution
        P psi_k = lambda_k psi_k                what is solved, in symmetric form

    For many rows and small h, (P - 1) / eps tends to the generator
    f -> Laplacian f + 2 (1 - alpha) grad log q . grad f. A variable bandwidth [2]_ is normalised so
    that its limit is the same. Over a sparse kernel the value at the cut-off R = max(r_i, r_j) is
    taken off the Gaussian, so that nothing jumps when a neighbour changes.

    A new row y has p_j = k(y, x_j) w_j q_j^-alpha / sum, in which q(y)^alpha has cancelled, and the
    coordinates lambda^(t - 1) sum_j p_j psi_j, the Nyström extension [3]_, [4]_. So a training
    row gets its ``embedding_`` back, and one row alone what it gets in company.

    Coordinates have a fixed sign, but those of (nearly) equal eigenvalues are defined up to a
    rotation only. Where a few rows hang on the rest by a thread they have coordinates of their own,
    with eigenvalues near 1 and a small ``participation_``; a warning names the rows.

    References
    ----------
    .. [1] R. Coifman and S. Lafon, Diffusion maps, Appl. Comput. Harmon. Anal. 21, 5-30, 2006,
       https://doi.org/10.1016/j.acha.2006.04.006
    .. [2] T. Berry and J. Harlim, Variable bandwidth diffusion kernels, Appl. Comput. Harmon. Anal.
       40, 68-96, 2016, https://doi.org/10.1016/j.acha.2015.01.001
    .. [3] Y. Bengio et al., Learning eigenfunctions links spectral embedding and kernel PCA, Neural
       Comput. 16, 2197-2219, 2004, https://doi.org/10.1162/0899766041732396
    .. [4] R. Coifman and S. Lafon, Geometric harmonics, Appl. Comput. Harmon. Anal. 21, 31-52,
       2006, https://doi.org/10.1016/j.acha.2005.07.005

    Examples
    --------
    Equispaced points on a circle have the eigenvalues I_m(1 / h^2) / I_0(1 / h^2), each twice, I_m
    the modified Bessel functions:

    >>> import numpy as np
    >>> from scipy.special import ive
    >>> from skdmap import DiffusionMap
    >>> angle = 2 * np.pi * np.arange(200) / 200
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> mapping = DiffusionMap(n_components=4, bandwidth=0.3).fit(circle)
    >>> m, kappa = np.array([1, 1, 2, 2]), 1 / 0.3**2
    >>> bool(abs(mapping.eigenvalues_ - ive(m, kappa) / ive(0, kappa)).max() < 1e-12)
    True

    A new point of the circle gets coordinates between those of its neighbours, and comes back:

    >>> new = np.array([[np.cos(0.5), np.sin(0.5)]])
    >>> coordinates = mapping.transform(new)
    >>> bool(abs(mapping.inverse_transform(coordinates) - new).max() < 0.01)
    True

    The first coordinate of a swiss roll is, but for a cosine, the length along the roll:

    >>> from skdmap.datasets import make_swiss_roll
    >>> roll = make_swiss_roll(2000, random_state=0)
    >>> slowest = DiffusionMap(n_components=1).fit_transform(roll.X)[:, 0]
    >>> bool(abs(np.corrcoef(slowest, np.cos(np.pi * roll.arc_length))[0, 1]) > 0.99)
    True
    """

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
        "eigen_solver": [StrOptions({"auto", "dense", "lanczos", "arpack", "lobpcg"})],
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
        eigen_solver: Literal["auto", "dense", "lanczos", "arpack", "lobpcg"] = "auto",
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
        """Find the coordinates of the rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Rows, or their distances with ``metric="precomputed"``. From 16,384 columns on
            Euclidean rows are read by blocks of columns and never copied; X may then be a memory
            map or any object with ``shape``, ``dtype`` and two-dimensional slices (zarr, dask).
        y : Ignored
            Present for the interface; its length is not looked at.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative: the measure that each row stands for. Only ratios matter; a row of weight
            2 equals two equal rows. One of weight 0 takes no part in the fit and gets the
            coordinates that ``transform`` gives it. None weighs all rows alike.

        Returns
        -------
        self : DiffusionMap
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, the weights or the distances are out of range, fewer than two rows
            differ, ``n_components`` is no less than the number of rows that take part,
            ``disconnected="raise"`` meets several components, or ``diffusion_time`` is a fraction
            and an eigenvalue negative.
        """
        validate_parameters(self, _REMEDIES)
        check_together(
            bandwidth=self.bandwidth,
            bandwidth_exponent=self.bandwidth_exponent,
            metric=self.metric,
            neighbors_algorithm=self.neighbors_algorithm,
        )
        X = self._validate(X, reset=True)
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
            bar.update()
            markov, coordinates = markov_coordinates(
                measured.graph,
                scale,
                given.rows.weight,
                given.rows.index,
                n_components=self.n_components,
                alpha=self.alpha,
                dimension=dimension,
                disconnected=self.disconnected,
                solver=self.eigen_solver,
                tol=self.tol,
                rng=rng,
                X=None if self._is_precomputed else given.train,
            )
            bar.update()
            spectrum = diffusion_spectrum(
                coordinates,
                markov,
                scale,
                dimension=dimension,
                time=self.diffusion_time,
                tol=self.tol,
                index=given.rows.index,
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

        Each row is treated alone: its coordinates do not depend on its company.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; for ``metric="precomputed"`` their distances to the training rows, of shape
            (n_samples, n_train). A dask array of fewer than 16,384 columns is mapped block by
            block: what comes back is a dask array, not yet computed.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            ``embedding_`` for the training rows. Far from them it tends to the coordinates of the
            nearest; a warning names such rows.
        """
        check_is_fitted(self)
        if is_dask(X) and X.shape[1] < WIDE:
            validate_data(self, X, reset=False, skip_check_array=True)
            return map_row_blocks(self.transform, X, self._n_features_out)
        X = self._validate_new(X)
        coordinates, nearest = extend(self._extension, X)
        warn_far_rows(nearest)
        return coordinates.astype(X.dtype, copy=False)

    @available_if(_has_rows)
    def inverse_transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Map coordinates back to rows, by local linear regression in the embedding.

        The fit is to the max(30, 3 n_components) nearest training rows. There is no such method for
        ``metric="precomputed"``, which knows no rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Diffusion coordinates, as ``transform`` gives them.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features)
            Dense, in the dtype of X. Each is a weighted sum of training rows.

        Raises
        ------
        ValueError
            If X has not one column for each coordinate.
        """
        check_is_fitted(self)
        Z = check_array(X, dtype=_DTYPES, input_name="X")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns, must be {self._n_features_out}: one per coordinate. "
                "Pass what transform returns."
            )
        warn_far_coordinates(far_from_embedding(Z, self._train_embedding), len(Z))
        weight = self._rows.weight[self._kept]
        rows = preimage(Z, self._train_embedding, self._fit_X, self._kept, weight)
        return rows.astype(Z.dtype, copy=False)

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the held-out log-likelihood of the kernel's density; higher is better.

        Made for ``GridSearchCV(DiffusionMap(), {"bandwidth": grid}).fit(X)``, without labels. It is
        the mean over rows z of::

            log [sum_j w_j exp(-|z - x_j|^2 / (2 h^2)) / h^d + eps / n] - (d / 2) log(2 pi)

        with lengths in units of the training rows' spread (root mean square distance from their
        mean), so that scaling X changes no ranking. The sum is a kernel density estimate [1]_; its
        held-out likelihood falls where the bandwidth leaves rows alone and where it smooths over
        what tells rows apart. eps = 2.2e-16 is the share of rows that may lie anywhere: no outlier
        outweighs the rest, and the score is finite.

        The dimension d is the least for which no bandwidth above h10, at which a typical training
        row has ten effective neighbours, has a better likelihood on the training rows than h10,
        and 6 % more: with less, large bandwidths win wherever folds of the data come close to each
        other, with the number of columns, bandwidths that cut rows off. docs/choosing compares.

        The score depends on the data and the bandwidth only: it is constant in ``alpha``,
        ``diffusion_time`` and ``n_components``; search those by the held-out error of
        ``inverse_transform``. It is comparable only at equal ``n_neighbors``, of which it favours
        large values. Where the bandwidth varies each training row has its own h_j in place of h.

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
            Mean log density per row, in nats; finite.

        References
        ----------
        .. [1] Duin 1976, "On the choice of smoothing parameters for Parzen estimators of
           probability density functions", doi:10.1109/TC.1976.1674577.

        Examples
        --------
        >>> from sklearn.model_selection import GridSearchCV
        >>> from skdmap import DiffusionMap
        >>> from skdmap.datasets import make_swiss_roll
        >>> roll = make_swiss_roll(800, random_state=0)
        >>> search = GridSearchCV(DiffusionMap(), {"bandwidth": [1.5, 3.0, 6.0, 12.0]})
        >>> search.fit(roll.X).best_params_
        {'bandwidth': 1.5}
        """
        check_is_fitted(self)
        X = self._validate_new(X)
        weight = check_sample_weight(sample_weight, X.shape[0])
        log_density = held_out_log_density(
            X, self._extension, self._rows.weight, units=self._score_units
        )
        return float(np.average(log_density, weights=weight))

    @property
    def _n_features_out(self) -> int:
        return int(self.eigenvalues_.size)

    @property
    def _is_precomputed(self) -> bool:
        return isinstance(self.metric, str) and self.metric == "precomputed"

    def _validate(self, X: Any, *, reset: bool) -> Any:
        return validated_rows(
            self,
            X,
            metric=self.metric,
            metric_params=self.metric_params,
            algorithm=self.neighbors_algorithm,
            reset=reset,
        )

    def _validate_new(self, X: Any) -> Any:
        X = self._validate(X, reset=False)
        if not self._is_precomputed:
            return X
        check_new_distances(X, listed=self._from_lists)
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
        # New rows come with distances of their own: those of the fit are not kept.
        self._fit_X = None if self._is_precomputed else without_distances(given.train)
        self._from_lists = self._is_precomputed and sp.issparse(X)
        self._rows, self._kept = given.rows, markov.kept
        self._extension = nystrom_extension(
            measured.search,
            scale,
            markov,
            coordinates,
            factors=time_factors(spectrum.eigenvalues, self.diffusion_time),
        )
        everybody = all_rows(
            given.everything,
            given.rows,
            markov,
            coordinates,
            self._extension,
        )
        self._train_embedding = everybody.embedding[given.rows.index[markov.kept]]
        self._score_units = score_units(
            given.train, given.rows.weight, given.settings, measured.graph, measured.profile
        )
        self.embedding_ = everybody.embedding.astype(X.dtype, copy=False)
        self.eigenvectors_ = everybody.eigenfunctions.astype(X.dtype, copy=False)
        self.eigenvalues_ = spectrum.eigenvalues
        self.laplacian_eigenvalues_ = spectrum.laplacian_eigenvalues
        self.stationary_distribution_ = everybody.stationary
        self.residuals_ = coordinates.residuals
        self.participation_ = spectrum.participation
        self.epsilon_ = scale.epsilon
        varies = scale.kind == "neighbor"
        self.bandwidth_ = scale.bandwidth * (everybody.scale if varies else 1.0)
        self.intrinsic_dimension_ = measured.dimension
        self.bandwidth_curve_ = measured.curve
        self.n_neighbors_ = measured.search.n_neighbors
        self.n_connected_components_ = int(markov.labels.max()) + 1
        self.component_labels_ = everybody.labels
