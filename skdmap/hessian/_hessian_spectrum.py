"""Estimator of eigenpairs of a loss's curvature at a snapshot."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skdmap._argument_checks import validate_parameters
from skdmap._random import numpy_generator
from skdmap._sklearn_compat import (
    CallbackSupportMixin,
    DocLinkMixin,
    HasMethods,
    Interval,
    StrOptions,
    validate_data,
    with_callbacks,
)
from skdmap._snapshots import matrix_of
from skdmap.hessian._convergence_warnings import warn_unless_converged
from skdmap.hessian._krylov.basis import WHICH
from skdmap.hessian._projection import lift, orient_rows, project
from skdmap.hessian._risk.curvatures import CURVATURES
from skdmap.hessian._spectrum_at import spectrum_at
from skdmap.hessian._validation import (
    DIVERGED,
    check_block_size,
    check_loss_fits,
    check_max_matvecs,
)


class HessianSpectrum(
    DocLinkMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Eigenpairs of the Hessian of a loss at a snapshot, and projection of snapshots on them.

    Rows of X are parameter vectors. Like PCA for the covariance of X, this finds eigenvectors of
    the Hessian; :meth:`transform` returns coordinates along them.

    Parameters
    ----------
    loss : EmpiricalRisk or callable, default=None
        A callable maps a float64 torch tensor of shape (n_parameters,) to a scalar tensor. None
        raises an error in :meth:`fit`. A lambda works, but cannot be pickled.
    n_components : int, default=10
        Number of eigenpairs, at most n_parameters: a larger number is reduced.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        Algebraically largest or smallest, largest in absolute value, or half from each end (the odd
        one from the top). Most wanted first; "both" is in descending order. ``tol`` is relative to
        the largest absolute eigenvalue, so the end of smaller magnitude is less precise.
    curvature : {"hessian", "ggn", "fisher", "gradient_covariance"}, default="hessian"
        The matrix; see :meth:`EmpiricalRisk.operator_at`. Matrices other than "hessian" need an
        EmpiricalRisk.
    point : {"last", "first", "mean"}, int or array of shape (n_parameters,), default="last"
        Where the Hessian is evaluated: a row of X, the mean of its rows, or a vector.
    center : bool, default=True
        Whether ``transform`` subtracts ``point_`` first.
    n_probes : int, default=1
        Number of random vectors for trace and density. The first is the start vector of the
        eigenpairs and costs nothing; each further one costs as many products again, at least 15.
    tol : float, default=1e-3
        Largest residual, relative to the largest absolute eigenvalue seen. The error of an
        eigenvalue is at most its residual, and about the squared residual over the gap to the next
        eigenvalue. A warning names eigenvalues that are smaller than three times their residuals;
        lower ``tol`` for them.
    max_matvecs : int, default=None
        Largest number of Hessian-vector products for the eigenpairs; None is
        ``100 + 30 * n_components``, or somewhat more to end the verification. The explicit Hessian
        (n_parameters <= 200 or n_components > n_parameters / 4) always takes n_parameters.
    n_verify : int, default=None
        Largest number of these products that the verification takes once nothing more is found. It
        ends earlier where ``missed_eigenvalue_bound_`` is down to about ``tol``. None is a third of
        the products before, and at least 10. More of them give a smaller bound.
    block_size : int, default=1
        Number of random vectors that the search starts from, in [1, n_components]. For eigenvalues
        in clusters, such as those of a linear regression with several outputs: a block as large as
        the clusters needs fewer products. For well separated eigenvalues it needs more.
    memory_budget : int or "auto", default="auto"
        Bytes for graphs and Krylov vectors; "auto" is a quarter of the free memory. A smaller
        budget costs time, not accuracy.
    random_state : int, RandomState instance, Generator or None, default=None
        Draws the random vectors.
    verbose : int, default=0
        Above 0: count products, in a bar in terminals and notebooks, in lines elsewhere.
    callback : callable, default=None
        Called during a fit as ``callback(n_matvecs, eigenvalues, residuals)``. A true result ends
        the fit, as an interrupt (Ctrl-C) does: pairs that have converged are kept. With the
        explicit Hessian it is called once, at the end.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_parameters)
        Orthonormal eigenvectors as rows; the entry of largest magnitude is positive.
    eigenvalues_ : ndarray of shape (n_components_,)
        In loss per squared parameter.
    residuals_ : ndarray of shape (n_components_,)
        Norm of H v - lambda v, and at least the rounding error of a product. An eigenvalue of H
        lies within this distance.
    missed_eigenvalue_bound_ : float
        How far a wanted eigenvalue may have been missed: with a probability of 99 %, each differs
        from the one in ``eigenvalues_`` by at most this share of the largest absolute eigenvalue.
        Infinity if the fit ended before its verification.
    density_ : SpectralDensity
        ``nodes``, ``weights`` that sum to 1, ``evaluate(grid, width)``, ``cdf(grid)``. Converged
        eigenpairs are atoms of mass 1 / n_parameters.
    trace_ : float
        Trace of the matrix. Converged eigenvalues count exactly, probes estimate the rest.
    trace_stderr_ : float
        Standard error of the trace; 0 for the explicit matrix.
    frobenius_norm_ : float
        Frobenius norm, estimated from the same probes.
    point_ : ndarray of shape (n_parameters,)
        Where the Hessian was evaluated.
    loss_ : float
        Loss at the point.
    gradient_norm_ : float
        Euclidean norm of the gradient at the point.
    n_matvecs_ : int
        Number of Hessian-vector products, including those of probes.
    converged_ : ndarray of shape (n_components_,) of bool
        Whether the residual of a pair is at most ``tol`` times the largest absolute eigenvalue.
    interrupted_ : bool
        Whether the fit ended early, by an interrupt or by ``callback``.
    orthogonality_error_ : float
        Largest entry of ``components_ @ components_.T - identity``.
    n_components_ : int
        Number of eigenpairs; fewer than asked for after an interrupt.
    n_features_in_ : int
        n_parameters.
    feature_names_in_ : ndarray of shape (n_parameters,)
        Only if X has column names.

    See Also
    --------
    EmpiricalRisk : Loss of a module on data as a function of one vector.
    hessian_spectrum_path : The spectrum at successive snapshots.
    skdmap.DiffusionMap : Geometry of the snapshots without the loss.

    Notes
    -----
    Lanczos with full reorthogonalisation in float64, whatever the dtype of the loss. ``nn.MSELoss``
    averages over entries: its eigenvalues differ by a factor from those of half the sum of squares.

    Small residuals show that each value is near an eigenvalue, not that none was missed. So a
    second run, from a random vector orthogonal to what the first has resolved, looks for more
    extreme eigenvalues and further copies of multiple ones, and bounds what it does not find [3]_;
    see ``n_verify``.

    The start vector of the eigenpairs also yields ``density_`` and ``trace_``. With 21 nodes, ten
    of them atoms, the Wasserstein distance to the true distribution is about a fifth of the mean
    absolute eigenvalue; with ten probes of 60 steps a fourteenth.

    References
    ----------
    .. [1] C. Lanczos, An iteration method for the solution of the eigenvalue problem of linear
       differential and integral operators, J. Res. Natl. Bur. Stand. 45, 255-282, 1950,
       https://doi.org/10.6028/jres.045.026
    .. [2] K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
       SIAM J. Matrix Anal. Appl. 22, 602-616, 2000, https://doi.org/10.1137/S0895479898334605
    .. [3] J. van Dorsselaer, M. Hochstenbach and H. van der Vorst, Computing probabilistic bounds
       for extreme eigenvalues of symmetric matrices with the Lanczos method, 1999,
       https://ir.cwi.nl/pub/4505

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import HessianSpectrum
    >>> def bowl(theta):
    ...     return theta[0] ** 2 + 3 * theta[1] ** 2
    >>> spectrum = HessianSpectrum(bowl, n_components=2).fit([[1.0, 1.0], [0.0, 0.5]])
    >>> spectrum.eigenvalues_
    array([6., 2.])
    >>> spectrum.trace_, spectrum.density_.weights
    (8.0, array([0.5, 0.5]))
    >>> spectrum.transform([[2.0, 1.5]])
    array([[1., 2.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "loss": [HasMethods("operator_at"), callable, None],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "which": [StrOptions(set(WHICH))],
        "curvature": [StrOptions(set(CURVATURES))],
        "point": [
            StrOptions({"last", "first", "mean"}),
            Interval(Integral, None, None, closed="neither"),
            "array-like",
        ],
        "center": ["boolean"],
        "n_probes": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, 1, closed="neither")],
        "max_matvecs": [Interval(Integral, 1, None, closed="left"), None],
        "n_verify": [Interval(Integral, 1, None, closed="left"), None],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "memory_budget": [Interval(Real, 1, None, closed="left"), StrOptions({"auto"})],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
        "callback": [callable, None],
    }
    _remedies = {
        "n_components": "Any positive integer works: it is reduced to the number of parameters.",
        "tol": "1e-3 gives eigenvalues to about 1e-4; 1e-2 is enough for a sharpness.",
        "n_probes": "1 costs nothing beyond the eigenpairs; 10 give a reliable standard error.",
        "block_size": "Use 1 for separate eigenvalues, the size of the clusters for clusters.",
        "n_verify": "None suits most fits; 20 or 30 give a smaller missed_eigenvalue_bound_.",
        "memory_budget": "Pass bytes, such as 2e9, or 'auto' for a quarter of the free memory.",
        "loss": "Pass an EmpiricalRisk, or a function of one flat torch tensor.",
    }

    def __init__(
        self,
        loss: Any = None,
        n_components: int = 10,
        *,
        which: str = "largest",
        curvature: str = "hessian",
        point: Any = "last",
        center: bool = True,
        n_probes: int = 1,
        tol: float = 1e-3,
        max_matvecs: int | None = None,
        n_verify: int | None = None,
        block_size: int = 1,
        memory_budget: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
        callback: Any = None,
    ) -> None:
        self.loss = loss
        self.n_components = n_components
        self.which = which
        self.curvature = curvature
        self.point = point
        self.center = center
        self.n_probes = n_probes
        self.tol = tol
        self.max_matvecs = max_matvecs
        self.n_verify = n_verify
        self.block_size = block_size
        self.memory_budget = memory_budget
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the eigenpairs at a row of X.

        Parameters
        ----------
        X : array of shape (n_snapshots, n_parameters)
            Snapshot matrix, or a recorder, a sampler, a stored trajectory or a list of them.
        y : object, default=None
            Ignored, so that a pipeline may pass the targets of the data.

        Returns
        -------
        HessianSpectrum
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of range, X does not fit the loss, the memory budget is too small
            for the vectors, or the loss is not scalar, finite, twice differentiable and
            deterministic.
        KeyboardInterrupt
            If it is raised before any pair has converged.
        """
        validate_parameters(self, self._remedies)
        X = self._snapshots(X, reset=True)
        check_loss_fits(self.loss, X.shape[1])
        n_pairs = min(self.n_components, X.shape[1])
        check_max_matvecs(self.max_matvecs, n_pairs)
        check_block_size(self.block_size, self.n_components)
        self.point_ = resolve_point(self.point, X)
        found = spectrum_at(
            self.loss, self.point_, n_pairs=n_pairs, **self._settings(), fitted=self
        )
        pairs = found.pairs
        warn_unless_converged(
            pairs, self.tol, found.precision, n_pairs, complete=not found.interrupted
        )
        self.components_ = orient_rows(pairs.vectors)
        self.eigenvalues_, self.residuals_ = pairs.eigenvalues, pairs.residuals
        self.converged_ = pairs.residuals <= self.tol * pairs.scale
        self.loss_, self.gradient_norm_ = found.loss, found.gradient_norm
        self.density_, self.trace_ = found.density, found.trace.trace
        self.trace_stderr_ = found.trace.stderr
        self.frobenius_norm_ = found.trace.frobenius_norm
        self.n_matvecs_, self.n_components_ = found.n_matvecs, len(pairs.eigenvalues)
        self.orthogonality_error_ = pairs.orthogonality_error
        self.interrupted_ = found.interrupted
        self.missed_eigenvalue_bound_ = pairs.missed_eigenvalue_bound
        return self

    def _snapshots(self, X: Any, *, reset: bool) -> np.ndarray:
        """Return the snapshot matrix, checked."""
        return validate_data(
            self, matrix_of(X), dtype=[np.float64, np.float32], reset=reset, remedy=DIVERGED
        )

    def transform(self, X: Any) -> np.ndarray:
        """Return coordinates along the eigenvectors.

        Parameters
        ----------
        X : array of shape (n_snapshots, n_parameters)
            Snapshots.

        Returns
        -------
        ndarray of shape (n_snapshots, n_components_)
            ``(X - point_) @ components_.T``, in parameter units; float32 for float32 rows.
        """
        check_is_fitted(self)
        X = validate_data(
            self, matrix_of(X), dtype=[np.float64, np.float32], reset=False, remedy=DIVERGED
        )
        return project(X, self.components_, self.point_ if self.center else None)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Return the snapshots with the given coordinates in the span of the eigenvectors.

        Parameters
        ----------
        Z : array of shape (n_snapshots, n_components_)
            Coordinates.

        Returns
        -------
        ndarray of shape (n_snapshots, n_parameters)
            ``Z @ components_ + point_``; float32 for float32 rows.

        Raises
        ------
        ValueError
            If Z has another number of columns.
        """
        check_is_fitted(self)
        Z = check_array(Z, dtype=[np.float64, np.float32], input_name="Z")
        if Z.shape[1] != self.n_components_:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, but n_components_ = {self.n_components_}. Pass "
                "coordinates as transform returns them."
            )
        return lift(Z, self.components_, self.point_ if self.center else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _settings(self) -> dict[str, Any]:
        return {
            "rng": numpy_generator(self.random_state),
            "which": self.which,
            "curvature": self.curvature,
            "tol": self.tol,
            "max_matvecs": self.max_matvecs,
            "n_verify": self.n_verify,
            "block_size": self.block_size,
            "memory_budget": self.memory_budget,
            "n_probes": self.n_probes,
            "callback": self.callback,
            "verbose": self.verbose,
        }


def resolve_point(point: Any, X: np.ndarray) -> np.ndarray:
    """Return the vector (n_parameters,) that ``point`` stands for, a float64 copy."""
    if isinstance(point, str):
        row = {"last": X[-1], "first": X[0]}.get(point)
        return X.mean(axis=0, dtype=np.float64) if row is None else row.astype(np.float64)
    if isinstance(point, Integral):
        row_number = int(point)
        if not -len(X) <= row_number < len(X):
            raise ValueError(
                f"point={point} must be a row of X, in [{-len(X)}, {len(X) - 1}]. Use 'last' for "
                "the last row."
            )
        return X[row_number].astype(np.float64)
    vector = np.array(point, dtype=np.float64)
    if vector.shape != (X.shape[1],) or not np.isfinite(vector).all():
        raise ValueError(
            f"point of shape {vector.shape} must be a finite vector of shape ({X.shape[1]},), one "
            "entry for each column of X."
        )
    return vector
