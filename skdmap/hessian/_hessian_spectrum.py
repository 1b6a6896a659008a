"""Snapshots -> curvature directions of the loss at one of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from .._random import numpy_generator
from .._validation import HasMethods, Interval, StrOptions, validate_data, validate_parameters
from ._doubt import warn_of_doubt
from ._lanczos import WHICH, RitzPairs, dense_eigenpairs, lanczos
from ._operators import HessianOperator, hessian_operator
from ._point import resolve_point
from ._projection import lift, orient_rows, project

__all__ = ["HessianSpectrum"]


class HessianSpectrum(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Eigenpairs of the Hessian of a loss at a snapshot; projects snapshots on them.

    What PCA is to the data, this is to the loss: rows of X are parameter vectors, and
    :meth:`transform` gives their coordinates along the directions of extreme curvature.

    Parameters
    ----------
    loss : EmpiricalRisk or callable, default=None
        A callable maps a float64 torch tensor of shape (n_parameters,) to a scalar tensor. None is
        an error in :meth:`fit`. A lambda works, but cannot be pickled.
    n_components : int, default=10
        Number of eigenpairs; cut to n_parameters where that is less.
    which : {"largest", "smallest", "magnitude", "both"}, default="largest"
        Algebraically largest, smallest, of largest absolute value, or half from each end (the odd
        one from the top). Most wanted first; "both" is in descending order.
    point : {"last", "first", "mean"}, int or array of shape (n_parameters,), default="last"
        Where the Hessian is taken: a row of X, the mean of its rows, or a vector.
    center : bool, default=True
        Whether ``transform`` subtracts ``point_`` first.
    tol : float, default=1e-3
        Largest residual, relative to the largest absolute eigenvalue seen. The error of an
        eigenvalue is of the order of its square over the gap: at 1e-3 about 1e-4 of the eigenvalue.
    max_matvecs : int, default=None
        Most Hessian-vector products; None is ``100 + 30 * n_components``. The explicit Hessian
        (n_parameters <= 200 or n_components > n_parameters / 4) always takes n_parameters.
    random_state : int, RandomState instance, Generator or None, default=None
        Draws the start vector.
    verbose : int, default=0
        Above 0: a progress bar of products, on a terminal only.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_parameters)
        Orthonormal eigenvectors as rows; the entry of largest magnitude is positive.
    eigenvalues_ : ndarray of shape (n_components_,)
        In loss per squared parameter.
    residuals_ : ndarray of shape (n_components_,)
        Norm of H v - lambda v, in the unit of the eigenvalues: how far the nearest eigenvalue of H
        can be, up to the rounding of a product.
    point_ : ndarray of shape (n_parameters,)
        Where the Hessian was taken.
    loss_ : float
        The loss there.
    gradient_norm_ : float
        Euclidean norm of its gradient there.
    n_matvecs_ : int
        Hessian-vector products made.
    orthogonality_error_ : float
        Largest entry of ``components_ @ components_.T - identity``.
    n_components_ : int
        Number of eigenpairs.
    n_features_in_ : int
        n_parameters.
    feature_names_in_ : ndarray of shape (n_parameters,)
        Only where X has column names.

    See Also
    --------
    EmpiricalRisk : Loss of a module on data as a function of one vector.
    skdmap.DiffusionMap : The geometry of the snapshots without the loss.

    Notes
    -----
    Lanczos with full reorthogonalisation in float64, whatever the dtype of the loss. ``nn.MSELoss``
    averages over entries: its eigenvalues differ by a factor from those of half the sum of squares.
    No eigenvector is given twice. All copies of an exactly multiple eigenvalue are found where the
    explicit Hessian is used or the Krylov space closes; otherwise further copies may be left out.
    Small residuals say that each value is near an eigenvalue, not that no more extreme one was
    skipped; so ten products follow in which the values must stand still by ``tol``. Without a
    warning a skipped one is unlikely, not excluded.

    References
    ----------
    .. [1] C. Lanczos, An iteration method for the solution of the eigenvalue problem of linear
       differential and integral operators, J. Res. Natl. Bur. Stand. 45, 255-282, 1950,
       https://doi.org/10.6028/jres.045.026
    .. [2] K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
       SIAM J. Matrix Anal. Appl. 22, 602-616, 2000, https://doi.org/10.1137/S0895479898334605

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap import HessianSpectrum
    >>> def bowl(theta):
    ...     return theta[0] ** 2 + 3 * theta[1] ** 2
    >>> spectrum = HessianSpectrum(bowl, n_components=2).fit([[1.0, 1.0], [0.0, 0.5]])
    >>> spectrum.eigenvalues_
    array([6., 2.])
    >>> spectrum.transform([[2.0, 1.5]])
    array([[1., 2.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "loss": [HasMethods("operator_at"), callable, None],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "which": [StrOptions(set(WHICH))],
        "point": [StrOptions({"last", "first", "mean"}), Integral, "array-like"],
        "center": ["boolean"],
        "tol": [Interval(Real, 0, 1, closed="neither")],
        "max_matvecs": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }
    _remedies = {
        "n_components": "It is cut to the number of parameters, so any positive integer will do.",
        "tol": "1e-3 gives eigenvalues to about 1e-4, 1e-2 is enough for a sharpness.",
        "loss": "Pass an EmpiricalRisk, or a function of one flat torch tensor.",
    }

    def __init__(
        self,
        loss: Any = None,
        n_components: int = 10,
        *,
        which: str = "largest",
        point: Any = "last",
        center: bool = True,
        tol: float = 1e-3,
        max_matvecs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.loss = loss
        self.n_components = n_components
        self.which = which
        self.point = point
        self.center = center
        self.tol = tol
        self.max_matvecs = max_matvecs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the eigenpairs at one row of X.

        Parameters
        ----------
        X : array of shape (n_snapshots, n_parameters)
            Snapshot matrix.
        y : object, default=None
            Ignored, so that a pipeline may pass the targets of the data.

        Returns
        -------
        HessianSpectrum
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of range, X does not fit the loss, or the loss is not scalar,
            finite, twice differentiable and deterministic.
        """
        validate_parameters(self, self._remedies)
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        _check_loss(self.loss, X.shape[1])
        n_pairs = min(self.n_components, X.shape[1])
        _check_budget(self.max_matvecs, n_pairs)
        self.point_ = resolve_point(self.point, X)
        with hessian_operator(self.loss, self.point_) as operator:
            self.loss_ = operator.loss
            self.gradient_norm_ = float(operator.gradient.norm())
            with _counted(operator, self.verbose) as product:
                pairs = self._eigenpairs(product, operator, n_pairs)
        warn_of_doubt(pairs, self.tol, _precision(operator))
        self.components_ = orient_rows(pairs.vectors)
        self.eigenvalues_, self.residuals_ = pairs.eigenvalues, pairs.residuals
        self.n_matvecs_, self.n_components_ = pairs.n_matvecs, n_pairs
        self.orthogonality_error_ = pairs.orthogonality_error
        return self

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
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return project(X, self.components_, self.point_ if self.center else None)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Return the snapshots that lie in the span of the eigenvectors.

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
                f"Z has {Z.shape[1]} columns, must have n_components_ = {self.n_components_}, as "
                "transform returns them."
            )
        return lift(Z, self.components_, self.point_ if self.center else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _eigenpairs(
        self, product: Callable[[np.ndarray], np.ndarray], operator: HessianOperator, n_pairs: int
    ) -> RitzPairs:
        size = operator.size
        if size <= 200 or 4 * n_pairs > size:
            return dense_eigenpairs(product, size, n_pairs=n_pairs, which=self.which)
        return lanczos(
            product,
            size,
            n_pairs=n_pairs,
            rng=numpy_generator(self.random_state),
            which=self.which,
            tol=self.tol,
            max_matvecs=self.max_matvecs,
            precision=_precision(operator),
        )


@contextmanager
def _counted(
    operator: HessianOperator, verbose: int
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    # disable=None: on a terminal only.
    with tqdm(desc="Hessian-vector products", disable=None if verbose else True) as bar:

        def product(v: np.ndarray) -> np.ndarray:
            bar.update()
            return operator(v)

        yield product


def _precision(operator: HessianOperator) -> float:
    return torch.finfo(operator.dtype).eps


def _check_loss(loss: Any, n_parameters: int) -> None:
    if loss is None:
        raise ValueError(
            "loss=None: a loss is needed. Pass an EmpiricalRisk, or a function that maps a flat "
            "torch tensor of shape (n_parameters,) to a scalar tensor."
        )
    expected = getattr(loss, "n_parameters", n_parameters)
    if expected != n_parameters:
        raise ValueError(
            f"X has {n_parameters} columns, but loss has n_parameters = {expected}. Rows of X are "
            "parameter vectors of the module in loss, as loss.snapshot() or a TrajectorySampler of "
            "the same module gives them."
        )


def _check_budget(max_matvecs: int | None, n_pairs: int) -> None:
    if max_matvecs is not None and max_matvecs < n_pairs:
        raise ValueError(
            f"max_matvecs={max_matvecs} must be >= n_components = {n_pairs}: each eigenpair takes "
            "at least one product. Raise it, or set it to None."
        )
