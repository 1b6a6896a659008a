"""The estimator: graph -> bandwidth -> kernel -> Markov operator -> eigenpairs -> coordinates."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.neighbors import VALID_METRICS
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import check_is_fitted

from skdmap._argument_checks import validate_parameters
from skdmap._progress import stages
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import (
    CallbackSupportMixin,
    DocLinkMixin,
    HasMethods,
    Interval,
    StrOptions,
    available_if,
    validate_data,
    with_callbacks,
)
from skdmap._threads import one_thread
from skdmap.diffusion._bandwidth import (
    Bandwidth,
    NeighborGraph,
    neighbor_graph,
    resolve_bandwidth,
)
from skdmap.diffusion._eigenfunctions import (
    Spectrum,
    diffusion_spectrum,
    eigenfunctions,
    time_factors,
)
from skdmap.diffusion._eigensolvers.choice import leading_eigenpairs
from skdmap.diffusion._kernel import GaussianKernel, gaussian_kernel
from skdmap.diffusion._landmarks import choose_landmarks
from skdmap.diffusion._markov import MarkovFit, component_vectors, markov_operator
from skdmap.diffusion._neighbors.metrics import nan_euclidean
from skdmap.diffusion._nystrom import NystromExtension, extend, nystrom_extension
from skdmap.diffusion._preimage import preimage
from skdmap.diffusion._results import FitResults, for_all_samples
from skdmap.diffusion._score import HeldOutDensity, held_out_density, held_out_log_density
from skdmap.diffusion._training_set import Landmarks, TrainingSet, columns_of, training_set
from skdmap.diffusion._unique_rows import UniqueRows
from skdmap.diffusion._validation import (
    check_n_components,
    check_new_pairs,
    check_parameter_combination,
    check_sample_weight,
    has_density,
    has_samples,
    is_gaussian,
    uses_pairs,
    validated_samples,
)
from skdmap.diffusion._warnings import (
    check_components,
    check_multiscale,
    check_spectrum,
    warn_alpha,
    warn_cutoff,
    warn_extension,
    warn_far_coordinates,
    warn_far_samples,
    warn_pole,
    warn_ties,
)
from skdmap.diffusion._wide.column_reader import WIDE, is_dask, without_distances
from skdmap.diffusion._wide.dask_arrays import map_row_blocks

_DTYPES = [np.float64, np.float32]
_METRICS = {"precomputed", *(name for names in VALID_METRICS.values() for name in names)}
_REMEDIES = {
    "n_components": "Ask for at least one coordinate.",
    "bandwidth": "Pass a length in the units of X, or leave it to 'local' or 'auto'.",
    "n_landmarks": "Use None for a map of all samples, or some thousands for millions of samples.",
    "alpha": "Use 0 (graph Laplacian), 0.5 (Fokker-Planck) or 1 (Laplace-Beltrami).",
    "diffusion_time": "Use 1 for one step, 0 for bare eigenfunctions, 'multiscale' for all.",
    "n_neighbors": "Use None for all pairs, or 'auto'.",
    "tol": "Use the default 1e-6.",
}

# Up to so many samples and entries of X a fit has one thread: others would mostly wait, and keep
# processors from other work meanwhile.
_ONE_THREAD_ROWS, _ONE_THREAD_ENTRIES = 12_000, 200_000


class DiffusionMap(
    DocLinkMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Diffusion maps: nonlinear dimensionality reduction with out-of-sample extension.

    A Gaussian kernel defines a random walk on the samples. The leading eigenfunctions of its Markov
    operator P are smooth coordinates of the manifold that the samples lie on, slowest first;
    Euclidean distance between coordinates is the diffusion distance between samples. ``transform``
    maps new samples, ``inverse_transform`` maps coordinates back.

    Parameters
    ----------
    n_components : int, default=2
        Number k of coordinates. Must be below the number of distinct samples of positive weight.
    kernel : {"gaussian", "precomputed"} or callable, default="gaussian"
        - "gaussian": of the distances between samples, as the parameters below say.
        - "precomputed": X holds affinities, dense or sparse, >= 0 and symmetric to 1e-6 of the
          largest, such as the connectivities of scanpy. The diagonal is used as given. Samples are
          connected where k >= 2.2e-16 max k. A sample without any affinity has component label -1,
          stationary probability 0 and nan coordinates, and a warning names it. ``transform`` takes
          affinities to the training samples.
        - callable: ``kernel(X, Y)`` returns the affinities of shape (n_X, n_Y), dense or sparse, as
          the functions of :mod:`sklearn.metrics.pairwise` do.

        With affinities, ``bandwidth``, ``n_neighbors``, ``neighbors_algorithm``, ``metric``,
        ``metric_params`` and ``bandwidth_exponent`` must have their defaults.
    n_landmarks : int, default=None
        Number m of landmarks, for more samples than a neighbour graph holds; some thousands serve
        millions of samples. Landmarks are spread evenly over the samples and weighted with those
        nearest to each. The map is that of the weighted landmarks, with a sparse kernel, and is
        extended to all samples by ``transform``. X may be a memory map or a dask array: one pass
        weighs the landmarks, one finds the coordinates. With a dask array these passes run on its
        scheduler, and ``embedding_`` is a dask array, not computed yet.

        For rates set ``bandwidth`` to "auto" or a number, which with ``alpha`` keep their meaning.
        "local" gives the map of the landmarks: h counts these, and they are spread more evenly than
        the samples. Euclidean metric only.
    bandwidth : float or {"local", "auto", "median"}, default="local"
        Standard deviation h of the Gaussian exp(-d^2 / (2 h^2)), a length in the units of X. In
        the notation exp(-d^2 / (4 eps)), eps = h^2 / 2.

        - "local": the self-tuning kernel exp(-d^2 / (2 h_i h_j)) [5]_. h_i is the distance of
          sample i to its 7th nearest training sample, itself not counted (to its n_neighbors-th if
          that is less), kept within a factor 20 of the median h. It follows the density and keeps
          outliers from taking coordinates. For rates of a generator use "auto" or a number.
        - "auto": near the lower end of the first plateau of the slope of log S against log h,
          S = sum_ij k_ij, and large enough to leave no sample weakly connected, outliers excepted.
        - "median": median distance of all pairs; for a sparse kernel, median of r_i / 3.
    alpha : float, default=1.0
        Strength of the density normalisation, in [0, 1]: 0 graph Laplacian, 1/2 Fokker-Planck, 1
        Laplace-Beltrami, which is independent of the sampling density. With bandwidth="local" the
        limit is the same for every alpha, and values other than 1 warn.
    diffusion_time : float or "multiscale", default=1.0
        - float: power t >= 0 of the eigenvalues in the coordinates lambda^t psi. 0 gives the
          eigenfunctions themselves. A value that is not an integer requires eigenvalues >= 0.
        - "multiscale": coordinates lambda / (1 - lambda) psi, the sum over all times t >= 1.
          Euclidean distances between them are those of diffusion pseudotime [7]_, [8]_. Requires
          one connected component, or ``disconnected="largest"``.
    n_neighbors : int, None or "auto", default="auto"
        - None: the kernel has all pairs.
        - int: the kernel has the pairs with d <= max(r_i, r_j), where r_i is the distance of sample
          i to its n_neighbors-th nearest training sample, itself not counted. n_samples - 1 is all
          pairs. If the nearest third of the neighbours is within 1 % of r_i, as on lattices and in
          binary data, r_i moves outwards (to at most 8 (n_neighbors + 1) neighbours).
        - "auto": 15 for bandwidth="local". Otherwise all pairs up to 5000 samples; above, as many
          neighbours as let the kernel fall to 1e-2, between 32 and 256; if bandwidth="auto" needs
          more, all pairs up to 10,000 samples.
    neighbors_algorithm : {"auto", "exact", "pynndescent"} or transformer, default="auto"
        Algorithm of the neighbour search.

        - "auto": trees for few features, matrix products otherwise, pynndescent where it is faster
          including its compilation.
        - "exact": trees or matrix products.
        - "pynndescent": approximate. It compiles for half a minute in each new process.
        - transformer: an unfitted estimator with the interface of
          :class:`~sklearn.neighbors.KNeighborsTransformer`. Its own ``n_neighbors`` and ``metric``
          are used.
    metric : str or callable, default="euclidean"
        Any metric of scikit-learn's neighbours, a function of two samples, or "precomputed": X
        holds distances, either dense and square, or sparse as a neighbour graph. In a neighbour
        graph stored zeros are distances, ``n_neighbors`` is ignored, a pair counts when either of
        its rows stores it, and r is the largest distance stored in a row. "nan_euclidean" takes
        missing values (nan) in X, and holds the distances of all pairs in memory.
    metric_params : dict, default=None
        Keyword arguments of the metric.
    bandwidth_exponent : float, default=0.0
        Exponent beta of a variable bandwidth h rho(x), rho = q(x)^beta, where q is the density of
        the samples. rho is divided by its geometric mean and clipped to [1/2, 2]. 0 is a fixed
        bandwidth, -1/2 a usual value. ``alpha`` keeps its meaning.
    eigen_solver : str, default="auto"
        "dense", "lanczos", "arpack", "lobpcg", "multilevel", "shift-invert", or "auto": dense up to
        1500 samples; above, block Lanczos for all pairs, and for a sparse kernel "shift-invert"
        where its factors stay small, as on curves and surfaces with 15 neighbours up to about
        15,000 samples, else
        ARPACK up to 5000 samples and "multilevel" above. Where one does not converge, another
        follows. Residuals of "shift-invert" and "multilevel" are about a tenth of ``tol``.
    tol : float, default=1e-6
        Residual at which an eigenpair counts as converged. A warning is raised above
        max(1e-12, min(tol, 1e-2 (1 - lambda))).
    disconnected : {"warn", "raise", "largest"}, default="warn"
        What to do when the kernel graph has c > 1 connected components.

        - "warn": the first c - 1 coordinates, of eigenvalue 1, tell the components apart.
        - "raise": raise a ValueError.
        - "largest": only the component of the largest weight is mapped; the other samples get the
          coordinates that ``transform`` gives, which are nan for affinities where none leads to a
          sample in the fit.
    random_state : int, RandomState instance or None, default=None
        Start vectors of the iterative solvers, choice of landmarks, and seed of an approximate
        neighbour search.
    n_jobs : int, default=None
        Threads of the neighbour search, as in scikit-learn. None uses as many threads for k-d trees
        as BLAS uses.
    verbose : int, default=0
        Above 0: show progress, as a bar in terminals and notebooks, as lines elsewhere.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_samples, n_components)
        Coordinates lambda_k^t psi_k(x_i), or lambda_k / (1 - lambda_k) psi_k(x_i), without the
        trivial pair, in the dtype of X. A dask array with landmarks of a dask array.
    landmarks_ : {ndarray, sparse matrix} of shape (n_landmarks, n_features) or None
        Landmarks. Then ``eigenvectors_``, ``stationary_distribution_``, ``component_labels_`` and
        ``bandwidth_`` of "local" have one row per landmark, and ``inverse_transform`` and ``score``
        use the landmarks in place of the samples.
    landmark_weights_ : ndarray of shape (n_landmarks,) or None
        Number of samples nearest to each landmark, or the sum of their weights.
    eigenvalues_ : ndarray of shape (n_components,)
        Eigenvalues of P, descending, in [-1, 1], without the trivial 1. For a variable bandwidth
        exp(-eps * ``laplacian_eigenvalues_``).
    eigenvectors_ : ndarray of shape (n_samples, n_components)
        Right eigenvectors psi of P, with sum_i pi_i psi_k(i)^2 = 1.
    stationary_distribution_ : ndarray of shape (n_samples,)
        Stationary distribution pi of P. Sums to 1.
    laplacian_eigenvalues_ : ndarray of shape (n_components,)
        Estimates of the eigenvalues of minus the generator, >= 0, in 1 / length^2. For a fixed
        bandwidth (1 - lambda_k) / (eps s / d), where s = sum k d_ij^2 / (h^2 sum k) and d is the
        rounded dimension for a sparse kernel, and s / d = 1 for all pairs. For "local"
        (1 - lambda_k) / ``epsilon_``, which does not estimate the generator: on a circle it is .5
        to .6 of it. For affinities 1 - lambda_k, the eigenvalues of the random-walk Laplacian.
    bandwidth_ : float or ndarray of shape (n_samples,)
        Bandwidth h; for "local" one length per sample; nan for affinities.
    epsilon_ : float
        eps = h^2 / 2; for "local" the weighted mean of h_i^2 / 2; nan for affinities.
    intrinsic_dimension_ : float
        Largest slope of log S against log h. For "local" and for a neighbour graph, estimated from
        how distances grow from neighbour to neighbour [6]_. nan for affinities.
    residuals_ : ndarray of shape (n_components,)
        Norm of S v - lambda v of each eigenpair of the symmetric form S of P.
    eigen_solver_ : str
        The solver that found the eigenpairs; "none" where components alone are told apart.
    participation_ : ndarray of shape (n_components,)
        Share 1 / sum_i pi_i psi_k(i)^4 of the mass that carries coordinate k, in (0, 1]. It is 2/3
        for a cosine, and pi_i for a coordinate of sample i alone.
    bandwidth_curve_ : object or None
        Fields ``bandwidths``, ``log_kernel_sum`` and ``slope``, each of shape (n_grid,), which
        :class:`~skdmap.plotting.BandwidthDisplay` draws. None for bandwidth="local" and for
        affinities.
    n_neighbors_ : int or None
        Number of neighbours used; None for all pairs and for affinities.
    n_connected_components_ : int
        Number of connected components of the kernel graph. Those of fewer than ten samples are not
        counted, unless all are so small or they hold more than a tenth of the weight. With
        bandwidth="local" lengths and components are computed anew without these samples.
    component_labels_ : ndarray of shape (n_samples,)
        Component of each sample; 0 has the largest weight. -1 for samples of weight 0, of
        negligible mass or without affinity, and for those in components of fewer than ten samples.
    n_features_in_ : int
        Number of features seen during ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features seen during ``fit``. Defined only when X has feature names.

    See Also
    --------
    sklearn.manifold.SpectralEmbedding : Laplacian eigenmaps, without out-of-sample extension.
    sklearn.decomposition.KernelPCA : Eigenvectors of a kernel without normalisation.
    sklearn.manifold.Isomap : Preserves path lengths along the neighbour graph.
    skdmap.plotting.EmbeddingDisplay : Draws the coordinates.
    skdmap.plotting.BandwidthDisplay : Draws the curve on which the bandwidth is chosen.

    Notes
    -----
    With weights w (equal by default; only ratios matter) and a fixed bandwidth [1]_::

        k_ij = exp(-d_ij^2 / (2 h^2))           kernel, k_ii = 1
        q_i  = sum_j k_ij w_j                   density
        K_ij = k_ij / (q_i q_j)^alpha
        d_i  = sum_j K_ij w_j
        P_ij = K_ij w_j / d_i                   Markov operator, rows sum to 1
        pi_i = w_i d_i / sum                    stationary distribution
        P psi_k = lambda_k psi_k                solved in symmetric form

    For many samples and small h, (P - 1) / eps tends to the generator
    f -> Laplacian f + 2 (1 - alpha) grad log q . grad f. A variable bandwidth [2]_ is normalised to
    have the same limit. In a sparse kernel the value of the Gaussian at the cut-off
    R = max(r_i, r_j) is subtracted, so that the kernel is continuous when a neighbour changes.
    With bandwidth="local" h^2 is h_i h_j, and the limit of (P - 1) / eps is a multiple below 1 of
    (h / h_rms)^2 (Laplacian + (1 - 2 / d) grad log q . grad) for every alpha.

    A new sample y has transition probabilities p_j = k(y, x_j) w_j q_j^-alpha / sum (q(y)^alpha
    cancels) and the coordinates lambda^(t - 1) sum_j p_j psi_j, for "multiscale"
    sum_j p_j psi_j / (1 - lambda): the Nyström extension [3]_, [4]_. So ``transform`` returns
    ``embedding_`` for training samples, and the result for one sample does not depend on the other
    samples passed. There are two exceptions. Over a precomputed neighbour graph that is not
    symmetric, a new sample has only the pairs that it stores. With a variable bandwidth, where the
    extension divides by less than 1e-3, ``embedding_`` is lambda^t psi, and warnings name the
    samples.

    Signs of coordinates are fixed, but coordinates of (nearly) equal eigenvalues are defined up to
    a rotation only. A few samples that are weakly connected to the others have coordinates of their
    own, with eigenvalues near 1. A warning names such samples where 1 / sum_i (pi_i psi_k(i)^2)^2
    is below 10 (of fewer than 40 samples, below a quarter of them), or one sample holds more than a
    half of sum_i pi_i psi_k(i)^2.

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
    .. [5] L. Zelnik-Manor and P. Perona, Self-tuning spectral clustering, Advances in Neural
       Information Processing Systems 17, 2004
    .. [6] E. Levina and P. Bickel, Maximum likelihood estimation of intrinsic dimension, Advances
       in Neural Information Processing Systems 17, 2004
    .. [7] L. Haghverdi et al., Diffusion pseudotime robustly reconstructs lineage branching, Nat.
       Methods 13, 845-848, 2016, https://doi.org/10.1038/nmeth.3971
    .. [8] M. Setty et al., Characterization of cell fate probabilities in single-cell data with
       Palantir, Nat. Biotechnol. 37, 451-460, 2019, https://doi.org/10.1038/s41587-019-0068-4

    Examples
    --------
    The eigenvalues of equispaced points on a circle are I_m(1 / h^2) / I_0(1 / h^2), each twice,
    where I_m are modified Bessel functions:

    >>> import numpy as np
    >>> from scipy.special import ive
    >>> from skdmap import DiffusionMap
    >>> angle = 2 * np.pi * np.arange(200) / 200
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> mapping = DiffusionMap(n_components=4, bandwidth=0.3).fit(circle)
    >>> m, kappa = np.array([1, 1, 2, 2]), 1 / 0.3**2
    >>> bool(abs(mapping.eigenvalues_ - ive(m, kappa) / ive(0, kappa)).max() < 1e-12)
    True

    A new point is mapped to coordinates and back:

    >>> new = np.array([[np.cos(0.5), np.sin(0.5)]])
    >>> coordinates = mapping.transform(new)
    >>> bool(abs(mapping.inverse_transform(coordinates) - new).max() < 0.01)
    True

    The first coordinate of a swiss roll is a cosine of the arc length along the roll:

    >>> from skdmap.datasets import make_swiss_roll
    >>> roll = make_swiss_roll(2000, random_state=0)
    >>> slowest = DiffusionMap(n_components=1).fit_transform(roll.X)[:, 0]
    >>> bool(abs(np.corrcoef(slowest, np.cos(np.pi * roll.arc_length))[0, 1]) > 0.99)
    True

    Affinities take the place of distances, as a matrix or as a function of samples:

    >>> from functools import partial
    >>> from sklearn.metrics.pairwise import rbf_kernel
    >>> kernel = partial(rbf_kernel, gamma=1 / (2 * 0.3**2))
    >>> of_function = DiffusionMap(n_components=4, kernel=kernel).fit(circle)
    >>> of_matrix = DiffusionMap(n_components=4, kernel="precomputed").fit(kernel(circle))
    >>> bool(abs(of_function.eigenvalues_ - mapping.eigenvalues_).max() < 1e-12)
    True
    >>> bool(abs(of_matrix.transform(kernel(circle)) - of_matrix.embedding_).max() < 1e-10)
    True

    2000 landmarks stand for 20,000 samples:

    >>> many = make_swiss_roll(20_000, random_state=0)
    >>> mapping = DiffusionMap(n_landmarks=2000, bandwidth=1.5, alpha=1.0, random_state=0)
    >>> slowest = mapping.fit_transform(many.X)[:, 0]
    >>> bool(abs(np.corrcoef(slowest, np.cos(np.pi * many.arc_length))[0, 1]) > 0.999)
    True
    >>> mapping.landmarks_.shape, int(mapping.landmark_weights_.sum())
    ((2000, 3), 20000)
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "kernel": [StrOptions({"gaussian", "precomputed"}), callable],
        "n_landmarks": [None, Interval(Integral, 2, None, closed="left")],
        "bandwidth": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto", "median", "local"}),
        ],
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "diffusion_time": [
            Interval(Real, 0, None, closed="left"),
            StrOptions({"multiscale"}),
        ],
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
        "eigen_solver": [
            StrOptions(
                {"auto", "dense", "lanczos", "arpack", "lobpcg", "multilevel", "shift-invert"}
            )
        ],
        "tol": [Interval(Real, 0, None, closed="left")],
        "disconnected": [StrOptions({"warn", "raise", "largest"})],
        "random_state": ["random_state"],
        "n_jobs": [Interval(Integral, None, None, closed="neither"), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        kernel: Any = "gaussian",
        n_landmarks: int | None = None,
        bandwidth: float | Literal["auto", "median", "local"] = "local",
        alpha: float = 1.0,
        diffusion_time: float | Literal["multiscale"] = 1.0,
        n_neighbors: int | Literal["auto"] | None = "auto",
        neighbors_algorithm: Any = "auto",
        metric: Any = "euclidean",
        metric_params: dict[str, Any] | None = None,
        bandwidth_exponent: float = 0.0,
        eigen_solver: Literal[
            "auto", "dense", "lanczos", "arpack", "lobpcg", "multilevel", "shift-invert"
        ] = "auto",
        tol: float = 1e-6,
        disconnected: Literal["warn", "raise", "largest"] = "warn",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.n_landmarks = n_landmarks
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
        pairwise = uses_pairs(self) and self.metric != "nan_euclidean"
        tags.input_tags.pairwise = tags.input_tags.positive_only = pairwise
        tags.input_tags.allow_nan = self.metric == "nan_euclidean"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Compute the diffusion coordinates of the samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            Training samples, or their distances for ``metric="precomputed"``, or their affinities
            for ``kernel="precomputed"``. From 16,384 features on Euclidean samples are read by
            blocks of columns, and with ``n_landmarks`` by blocks of rows, and never copied; X may
            then be a memory map or any object with ``shape``, ``dtype`` and two-dimensional slices
            (zarr, dask). A recorder, a sampler, a stored trajectory or a list of them stands for
            its snapshots, one below the other; in ``transform``, too.
        y : Ignored
            Not used, present for API consistency. Its length is not checked.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0; only their ratios matter. A sample of weight 2 equals two equal samples. A
            sample of weight 0 is left out of the fit and gets the coordinates that ``transform``
            gives. None weighs all samples equally.

        Returns
        -------
        self : DiffusionMap
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, a weight, a distance or an affinity is out of range, there are fewer
            than two distinct samples, ``n_components`` is not below the number of samples in the
            fit, the kernel graph is not connected and ``disconnected="raise"``, or
            ``diffusion_time`` is not an integer and an eigenvalue is negative, or "multiscale" and
            another eigenvalue than the trivial one is 1.
        """
        training, rng = self._validate_training(X, sample_weight)
        density: HeldOutDensity | None = None
        with self._threads(training), stages(7, self) as begin:
            # Again without small components, where bandwidths depend on neighbours.
            while True:
                begin("neighbour graph")
                graph = neighbor_graph(training, self.n_neighbors, self.bandwidth)
                begin("bandwidth")
                bandwidth = resolve_bandwidth(training, graph, self.n_neighbors, self.bandwidth)
                graph = bandwidth.graph
                begin("kernel")
                kernel = gaussian_kernel(
                    graph.distances,
                    training.weight,
                    bandwidth=bandwidth.length,
                    exponent=self.bandwidth_exponent,
                    n_neighbors=graph.n_neighbors,
                )
                begin("Markov operator")
                options: dict[str, Any] = {"alpha": self.alpha, "dimension": bandwidth.dimension}
                options["largest_only"] = self.disconnected == "largest"
                markov = markov_operator(graph.distances, kernel, training.weight, **options)
                density = density or held_out_density(training, graph, kernel)
                small = np.flatnonzero(markov.labels == -1)
                if kernel.kind != "local" or small.size == 0:
                    break
                training = training.without(small)
            named = self._check_graph(density.rows, training, graph, kernel, markov)
            # A second time without samples of negligible mass, if these have eigenvectors.
            for drop_negligible in (False, True):
                if drop_negligible:
                    options["drop_negligible"] = True
                    markov = markov_operator(graph.distances, kernel, training.weight, **options)
                check_n_components(self.n_components, markov.kept.size)
                begin("eigenpairs")
                pairs = leading_eigenpairs(
                    markov.operator,
                    max(0, self.n_components - markov.n_connected + 1),
                    locked=component_vectors(markov),
                    solver=self.eigen_solver,
                    tol=self.tol,
                    rng=rng,
                )
                functions = eigenfunctions(markov, pairs, self.n_components, training.samples)
                if not functions.on_negligible:
                    break
            begin("coordinates")
            spectrum = diffusion_spectrum(functions, markov, kernel, bandwidth.dimension)
            check_spectrum(
                training, kernel, markov, functions, spectrum, self.diffusion_time, self.tol
            )
            warn_pole(functions.theta, kernel)
            powers = time_factors(spectrum.eigenvalues, self.diffusion_time)
            extension = nystrom_extension(graph.index, kernel, markov, functions, powers)
            begin("extension")
            results = for_all_samples(training, markov, functions, extension, self.verbose)
            warn_extension(results.embedding, results.near_pole, training=True, named=named)
            self._store(training, graph, bandwidth, markov, spectrum, extension, results, density)
        return self

    def _threads(self, training: TrainingSet) -> AbstractContextManager[Any]:
        """Return what holds the threads of BLAS during a fit."""
        n_rows, n_columns = training.weight.size, self.n_features_in_
        few = n_rows <= _ONE_THREAD_ROWS and n_rows * n_columns <= _ONE_THREAD_ENTRIES
        return one_thread() if few and self.n_landmarks is None else nullcontext()

    def fit_transform(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.floating]:
        """Fit the model and return the coordinates of the training samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_samples)
            As for ``fit``.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            As for ``fit``.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            ``embedding_``, in the dtype of X.
        """
        return self.fit(X, y, sample_weight=sample_weight).embedding_

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Map new samples to diffusion coordinates by the Nyström extension.

        The coordinates of a sample do not depend on the other samples in X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features) or (n_samples, n_train)
            New samples, or their distances to the training samples for ``metric="precomputed"``, or
            their affinities to these for ``kernel="precomputed"``. A dask array of fewer than
            16,384 columns is mapped lazily, block by block, to a dask array.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Coordinates; ``embedding_`` for the training samples. Far from these, a sample gets the
            coordinates of the nearest one, and a warning names it; without any affinity to them,
            nan.
        """
        check_is_fitted(self)
        if is_dask(X) and X.shape[1] < WIDE:
            validate_data(self, X, reset=False, skip_check_array=True)
            # Coordinates of the samples of the fit need not travel to each worker.
            light = copy(self)
            del light.embedding_
            return map_row_blocks(light.transform, X, self._n_features_out)
        X = self._validate_new(X, self._training_rows)
        extended = extend(self._extension, X)
        far = np.flatnonzero(extended.is_far)
        is_given, stored = not is_gaussian(self), self._stored_distances
        warn_far_samples(far, X.shape[0], is_given=is_given, stored=stored)
        near_pole = np.flatnonzero(extended.near_pole)
        warn_extension(extended.coordinates, near_pole, training=False)
        return extended.coordinates.astype(X.dtype, copy=False)

    @available_if(has_samples)
    def inverse_transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Map coordinates back to convex combinations of training samples.

        The weights are those on the 200 nearest training samples in the embedding whose mean is at
        the given coordinates and that are closest to a Gaussian around these, in relative entropy
        [1]_. Where no such mean exists, between groups or beyond the embedding, it is the nearest
        that the neighbours have. The result never leaves the range of the training samples. A
        warning names samples whose coordinates are more than 0.4 of the embedding's range from
        those of any training sample, unless these lie as far apart there. Not available for
        ``metric="precomputed"``, ``metric="nan_euclidean"`` and ``kernel="precomputed"``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Diffusion coordinates, as returned by ``transform``.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Samples, dense, in the dtype of X. Each is a weighted mean of training samples.

        Raises
        ------
        ValueError
            If the number of columns of X is not the number of coordinates.

        References
        ----------
        .. [1] M. Arroyo and M. Ortiz, Local maximum-entropy approximation schemes, Int. J. Numer.
           Meth. Engng 65, 2167-2202, 2006, https://doi.org/10.1002/nme.1534
        """
        check_is_fitted(self)
        Z = check_array(X, dtype=_DTYPES, input_name="X")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns; it must have {self._n_features_out}: one per "
                "coordinate. Pass coordinates returned by transform."
            )
        weight = self._training_rows.weight[self._kept]
        rows, off = preimage(Z, self._train_embedding, self._fit_X, self._kept, weight)
        warn_far_coordinates(off, len(Z))
        return rows.astype(Z.dtype, copy=False)

    @available_if(has_density)
    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the held-out log-likelihood of the kernel's density; higher is better.

        Use it to choose the bandwidth without labels:
        ``GridSearchCV(DiffusionMap(), {"bandwidth": grid}).fit(X)``. It is the mean over samples
        z of::

            log [sum_j w_j exp(-|z - x_j|^2 / (2 h^2)) / h^d + eps / n] - (d / 2) log(2 pi)

        a kernel density estimate [1]_ with lengths in units of the root mean square distance of the
        training samples from their mean, so that scaling X changes no ranking. The held-out
        likelihood penalises bandwidths that isolate samples and bandwidths that smooth over the
        structure. eps = 2.2e-16 bounds the influence of outliers and makes the score finite.

        The dimension d is the least for which no bandwidth above h10, at which a typical training
        sample has ten effective neighbours, has a better likelihood on the training samples than
        h10, plus 6 %. A smaller d lets large bandwidths win where parts of the manifold come close;
        a much larger one, such as the number of features, lets bandwidths win that isolate samples.
        For a local or variable bandwidth each training sample has its own h_j in place of h.

        The sum is over all training samples, whatever ``n_neighbors`` is, so the score depends on
        the data and the bandwidth only; for "local" it is the same for every ``n_neighbors`` >= 7,
        and comparable with that of a number. Choose ``alpha``, ``diffusion_time``,
        ``n_components`` and ``n_neighbors`` by the held-out error of ``inverse_transform``. For
        ``metric="precomputed"`` the sum is over the distances in X; scores of neighbour graphs are
        comparable at equal numbers of neighbours. Not available for another kernel than the
        Gaussian.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Held-out samples, as for ``transform``.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean over samples.

        Returns
        -------
        score : float
            Mean log density per sample, in nats; finite.

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
        X = self._validate_new(X, self._density.rows)
        weight = check_sample_weight(sample_weight, X.shape[0])
        log_density = held_out_log_density(X, self._density)
        return float(np.average(log_density, weights=weight))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open maps of version 0.1: all Gaussian; score took its samples from the extension."""
        state = {"kernel": "gaussian", "n_landmarks": None, **state}
        if "_score_units" in state and "_density" not in state:
            extension = state["_extension"]
            density = HeldOutDensity(
                extension.index, state["_training_rows"], extension.kernel, state["_score_units"]
            )
            state = {**state, "_density": density}
        super().__setstate__(state)

    @property
    def _n_features_out(self) -> int:
        return int(self.eigenvalues_.size)

    def _validate_training(
        self, X: Any, sample_weight: ArrayLike | None
    ) -> tuple[TrainingSet, np.random.Generator]:
        """Check parameters, samples and weights; return them with the generator of the fit."""
        validate_parameters(self, _REMEDIES)
        check_parameter_combination(self)
        if is_gaussian(self) and self.bandwidth == "local" and self.alpha != 1.0:
            warn_alpha(self.alpha)
        X = self._validate(X, reset=True)
        rng = numpy_generator(self.random_state)
        seed = int(rng.integers(2**31 - 1))
        landmarks: Landmarks | None = None
        if self.n_landmarks is not None:
            landmarks = choose_landmarks(
                X,
                sample_weight,
                self.n_landmarks,
                seed=int(rng.integers(2**63)),
                n_jobs=self.n_jobs,
                verbose=bool(self.verbose),
            )
        training = training_set(
            X,
            sample_weight,
            n_components=self.n_components,
            metric="precomputed" if uses_pairs(self) else self.metric,
            metric_params=self.metric_params,
            algorithm=self.neighbors_algorithm,
            n_jobs=self.n_jobs,
            seed=seed,
            kernel=self.kernel,
            landmarks=landmarks,
        )
        return training, rng

    def _validate(self, X: Any, *, reset: bool) -> Any:
        X = validated_samples(
            self,
            X,
            metric=self.metric,
            metric_params=self.metric_params,
            algorithm=self.neighbors_algorithm,
            reset=reset,
        )
        if isinstance(self.metric, str) and self.metric == "nan_euclidean":
            if reset:
                self._samples_with_gaps = X.copy()
            return nan_euclidean(X, self._samples_with_gaps)
        return X

    def _validate_new(self, X: Any, rows: UniqueRows) -> Any:
        """Check new samples, or their pairs, of which those with the unique rows are kept."""
        X = self._validate(X, reset=False)
        if not uses_pairs(self):
            return X
        check_new_pairs(X, kernel=self.kernel, stored=self._stored_distances)
        return columns_of(X, rows)

    def _check_graph(
        self,
        rows: UniqueRows,
        training: TrainingSet,
        graph: NeighborGraph,
        kernel: GaussianKernel,
        markov: MarkovFit,
    ) -> NDArray[np.intp]:
        """Raise or warn of what neighbours and components show; ``rows`` are all unique ones.
        Return the samples that are named as parts of small components.
        """
        check_multiscale(markov.n_connected, self.diffusion_time)
        # "auto" over neighbours that are given: what the warning advises, a smaller bandwidth, made
        # eight of ten maps over 15 neighbours worse.
        given = self.n_neighbors != "auto" or graph.distances.listed is not None
        if not (self.bandwidth == "auto" and given):
            warn_cutoff(graph.distances, kernel)
        warn_ties(graph.distances, graph.n_neighbors)
        # Of all samples, equal ones included; the last entry stands for those of no group.
        labels = np.append(markov.labels, -1)[training.rows.group]
        weighty = (rows.group >= 0) & (rows.share > 0)
        small = np.flatnonzero(weighty & (labels == -1))
        check_components(
            labels[weighty],
            small,
            np.flatnonzero(weighty & (labels == -2)),
            self.disconnected,
            kind=kernel.kind,
            all_pairs=graph.n_neighbors is None,
            noun=training.noun,
        )
        return small[:0] if self.disconnected == "largest" else small

    def _store(
        self,
        training: TrainingSet,
        graph: NeighborGraph,
        bandwidth: Bandwidth,
        markov: MarkovFit,
        spectrum: Spectrum,
        extension: NystromExtension,
        results: FitResults,
        density: HeldOutDensity,
    ) -> None:
        """Set the fitted attributes, and keep what new samples need."""
        self._training_rows, self._kept, self._extension = training.rows, markov.kept, extension
        self._fit_X = without_distances(training.samples)
        self._stored_distances = training.has_stored_distances
        self._train_embedding = results.embedding[training.rows.index[markov.kept]]
        self._density = density
        dtype = training.all_samples.dtype
        self.embedding_: NDArray[Any] = results.represented.astype(dtype, copy=False)
        landmarks = training.landmarks
        self.landmarks_ = None if landmarks is None else landmarks.array
        self.landmark_weights_ = None if landmarks is None else landmarks.weight
        self.eigenvectors_ = results.eigenfunctions.astype(dtype, copy=False)
        self.eigenvalues_ = spectrum.eigenvalues
        self.laplacian_eigenvalues_ = spectrum.laplacian_eigenvalues
        self.stationary_distribution_ = results.stationary
        self.residuals_ = spectrum.residuals
        self.eigen_solver_ = spectrum.solver
        self.participation_ = spectrum.participation
        self.epsilon_ = extension.kernel.epsilon
        self.bandwidth_ = results.bandwidth
        self.intrinsic_dimension_ = bandwidth.intrinsic_dimension
        self.bandwidth_curve_ = bandwidth.curve
        self.n_neighbors_ = graph.n_neighbors
        self.n_connected_components_ = int(markov.labels.max()) + 1
        self.component_labels_ = results.labels
