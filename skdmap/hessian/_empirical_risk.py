"""A module and data as a function of one flat vector, ``theta -> loss``."""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch

from .._parameters import parameter_layout
from .._warning import warn
from ..exceptions import SkdmapWarning
from ._arrays import as_vectors, like
from ._batch_shares import batch_shares, check_left_out, row_weights
from ._criterion import resolve_criterion
from ._module_loss import ModuleLoss
from ._operators import GradientGraph, HessianOperator, accumulator_dtype
from ._self_check import check_calls, check_loss
from ._settings import check_settings, resolve_device, resolve_dtype

__all__ = ["EmpiricalRisk"]


class EmpiricalRisk:
    """Loss of a module on data, as a function of one flat parameter vector.

    The module is copied and put in eval mode; the one passed in is never touched. The risk does
    not change after construction, so clones of an estimator that holds it share it.

    Parameters
    ----------
    module : torch.nn.Module
        The model. Its own parameters are the point of :meth:`snapshot`.
    criterion : class, torch.nn.Module or function
        ``criterion(module(X), y)``, or ``criterion(module(X))`` when y is None, is a scalar tensor.
        A class is called without arguments first.
        Batches are weighed by what it divides by: rows, the class weights of the targets that count
        for ``CrossEntropyLoss`` and ``NLLLoss``, nothing for ``reduction="sum"``.
    X : array or Tensor of shape (n_rows, ...)
        The data, copied. Floats take the dtype of the risk, integers stay integers.
    y : array or Tensor of shape (n_rows, ...), default=None
        The targets, likewise; integers become floats for a criterion of values (``MSELoss`` and
        its like). One entry a row is matched to outputs
        of one entry a row: in shape, and in dtype unless it numbers classes.
    parameters : str or sequence of str, default=None
        Shell patterns that select some of the trainable parameters; the others are held fixed.
    batch_size : int, default=None
        Rows that go through the module at once; None for all. The results do not depend on it.
    dtype : {"float32", "float64"} or torch.dtype, default=None
        Of parameters and data, by name or as torch.float32 or torch.float64; None keeps that of the
        module. In float32 products, and so eigenvalues, are right to about 1e-6 of the largest
        eigenvalue.
    device : torch.device or str, default=None
        None keeps that of the module.
    weight_decay : float, default=0.0
        Adds weight_decay / 2 times the squared norm of the flat vector: the loss that SGD with this
        ``weight_decay`` follows.

    Attributes
    ----------
    n_parameters : int
        Length of the flat vector.
    parameter_layout : ParameterLayout
        Names, shapes and slices of the parameters in it.

    Raises
    ------
    TypeError
        If ``module`` is no module, or X or y no numbers.
    ValueError
        If a parameter is out of range, the lengths of X and y differ, the module has no trainable
        parameters or does not take X, the criterion does not take y, or the loss at the module's
        own parameters is not scalar, finite, deterministic, differentiable, or not the sum of its
        batches.

    See Also
    --------
    HessianSpectrum : The spectrum of the Hessian of this loss.

    Notes
    -----
    Vectors go in as arrays or tensors of shape (n_parameters,), and what comes out is of the same
    kind, in the dtype of the risk.

    Examples
    --------
    For a linear model and the mean of squares the Hessian is 2 X'X / n_rows.

    >>> import numpy as np, torch
    >>> from skdmap import EmpiricalRisk
    >>> X, y = np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([1.0, 3.0])
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> risk = EmpiricalRisk(line, torch.nn.MSELoss(), X, y, dtype=torch.float64)
    >>> risk(np.array([1.0, 1.0]))
    0.0
    >>> bool(np.allclose(risk.matmat(np.zeros(2), np.eye(2)), 2 * X.T @ X / 2))
    True
    """

    def __init__(
        self,
        module: torch.nn.Module,
        criterion: Callable[..., torch.Tensor],
        X: Any,
        y: Any = None,
        *,
        parameters: Any = None,
        batch_size: int | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        check_settings(module, batch_size, weight_decay)
        criterion = resolve_criterion(criterion, y)
        self.parameter_layout = layout = parameter_layout(module, parameters)
        first = module.get_parameter(layout.names[0])
        self._dtype = resolve_dtype(first.dtype if dtype is None else dtype)
        self._device = first.device if device is None else resolve_device(device)
        self._loss = ModuleLoss.of(
            module, criterion, X, y, layout, dtype=self._dtype, device=self._device
        )
        n_rows, targets = len(self._loss.X), self._loss.y
        if targets is not None and len(targets) != n_rows:
            raise ValueError(
                f"y has {len(targets)} rows, must have as many as X: {n_rows}. Pass the targets of "
                "these rows."
            )
        check_calls(self._loss)
        weights = row_weights(self._loss.criterion, targets, n_rows)
        reduction = getattr(criterion, "reduction", "mean")
        self._batches = batch_shares(weights, reduction, batch_size)
        check_left_out(self._loss.criterion, targets, self._batches)
        self._weight_decay = float(weight_decay)
        check_loss(self._loss, weights, batched=len(self._batches) > 1)

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector."""
        return self.parameter_layout.n_parameters

    def snapshot(self) -> np.ndarray:
        """Return the module's own parameters.

        Returns
        -------
        ndarray of shape (1, n_parameters)
            A snapshot matrix of one row.
        """
        return self._loss.own_point().cpu().numpy()[None]

    def __call__(self, theta: Any) -> float:
        """Return the loss at ``theta``; it may be infinite where it overflows.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.

        Returns
        -------
        float
            The loss.
        """
        point = self._point(theta)
        with torch.no_grad():
            return math.fsum(float(term(point)) for term in self._terms())

    def gradient(self, theta: Any) -> Any:
        """Return the gradient at ``theta``.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            Of the kind of ``theta``.
        """
        point = self._point(theta)
        total = torch.zeros(self.n_parameters, dtype=accumulator_dtype(point), device=self._device)
        for term in self._terms():
            total += GradientGraph(term, point).gradient
        return like(total.to(self._dtype), theta)

    def hvp(self, theta: Any, v: Any) -> Any:
        """Return the Hessian at ``theta`` times one vector.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.
        v : array or Tensor of shape (n_parameters,)
            The vector.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            Of the kind of ``v``.
        """
        vector = as_vectors("v", v, (self.n_parameters,), self._loss.own_point())
        return like(self.matmat(theta, vector[:, None])[:, 0], v)

    def matmat(self, theta: Any, V: Any) -> Any:
        """Return the Hessian at ``theta`` times several vectors.

        Holds the graph of one batch at a time.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.
        V : array or Tensor of shape (n_parameters, n_vectors)
            The vectors, as columns.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters, n_vectors)
            Of the kind of ``V``.
        """
        point = self._point(theta)
        vectors = as_vectors("V", V, (self.n_parameters, None), point)
        total = torch.zeros(vectors.shape, dtype=accumulator_dtype(point), device=self._device)
        for term in self._terms():
            graph = GradientGraph(term, point)
            for column in range(vectors.shape[1]):
                total[:, column] += graph.product(vectors[:, column])
        return like(total.to(self._dtype), V)

    def operator_at(self, theta: Any) -> HessianOperator:
        """Return v -> H v at ``theta``, with the graphs of all batches kept.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.

        Returns
        -------
        HessianOperator
            A context manager; leaving it frees the graphs.
        """
        return HessianOperator(self._terms(), self._point(theta))

    def __repr__(self) -> str:
        return f"EmpiricalRisk(n_parameters={self.n_parameters}, n_rows={len(self._loss.X)})"

    def __sklearn_clone__(self) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _terms(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        def batch_term(rows: slice, share: float) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda theta: share * self._loss.of_rows(theta, rows)

        terms = [batch_term(rows, share) for rows, share in self._batches]
        if self._weight_decay:
            terms.append(lambda theta: 0.5 * self._weight_decay * theta.square().sum())
        return terms

    def _point(self, theta: Any) -> torch.Tensor:
        own = self._loss.own_point()
        point = as_vectors("theta", theta, (self.n_parameters,), own)
        if not torch.isfinite(point).all():
            raise ValueError(
                "theta holds NaN or infinity. Take a snapshot from before training diverged."
            )
        if self._loss.has_running_statistics and not torch.equal(point, own):
            warn(
                "theta differs from the module's own parameters, but its running statistics "
                "(BatchNorm) fit those only: the loss may be far off. Build the EmpiricalRisk from "
                "a module that holds the parameters and the buffers of this snapshot.",
                SkdmapWarning,
            )
        return point
