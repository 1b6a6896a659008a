"""The Hessian of a loss at one point, checked: scalar, deterministic, twice differentiable."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from skdmap.hessian._operators.autodiff import (
    GradientGraph,
    Leaves,
    backward,
    evaluate,
    exact_mode,
    exactly,
)
from skdmap.hessian._operators.base import Chunk, CurvatureOperator
from skdmap.hessian._operators.callables import short_name, signature_mismatch
from skdmap.hessian._operators.derivative_check import (
    check_derivatives,
    check_precision,
    least_precise_dtype,
    nearby_point,
    random_direction,
)
from skdmap.hessian._operators.memory_budget import MemoryBudget

Term = Callable[[torch.Tensor], torch.Tensor]


class HessianOperator(CurvatureOperator):
    """The Hessian of a sum of terms at one point, as a function of a vector.

    It is a context manager: leaving it frees the graphs.

    Parameters
    ----------
    terms : iterable of callable
        Each maps a tensor of shape (n_parameters,) to a scalar tensor; the loss is their sum.
    theta : Tensor of shape (n_parameters,)
        The point; its dtype and device are those of the products.
    memory_budget : MemoryBudget, default=None
        Graphs beyond it are rebuilt for each product; None keeps all.

    Attributes
    ----------
    size : int
        n_parameters.
    dtype : torch.dtype
        Dtype of the products.
    loss : float
        The loss at the point.
    gradient : Tensor of shape (n_parameters,)
        The gradient there, added up over the terms in float64.
    n_matvecs : int
        Number of products so far.
    n_chunks : int
        Number of terms.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian import HessianOperator
    >>> with HessianOperator([lambda t: t[0] ** 2 * t[1]], torch.tensor([1.0, 3.0])) as hessian:
    ...     hessian(torch.tensor([1.0, 0.0])).tolist()
    [6.0, 2.0]
    """

    def __init__(
        self,
        terms: Iterable[Term],
        theta: torch.Tensor,
        *,
        memory_budget: MemoryBudget | None = None,
    ) -> None:
        super().__init__([_of_flat(term) for term in terms], theta, memory_budget=memory_budget)


def _of_flat(term: Term) -> Chunk:
    return lambda leaves: GradientGraph(_of_parts(term), leaves)


@exactly
def hessian_operator(
    loss: Any,
    theta: np.ndarray,
    curvature: str = "hessian",
    *,
    memory_budget: MemoryBudget | None = None,
) -> CurvatureOperator:
    """Return the curvature operator of a loss at a point.

    Parameters
    ----------
    loss : EmpiricalRisk or callable
        A callable maps a float64 tensor of shape (n_parameters,) to a scalar tensor. An
        EmpiricalRisk computes in its own dtype.
    theta : array of shape (n_parameters,)
        The point.
    curvature : {"hessian", "ggn", "fisher", "gradient_covariance"}, default="hessian"
        As for ``EmpiricalRisk.operator_at``; a callable has a Hessian only.
    memory_budget : MemoryBudget, default=None
        Graphs beyond it are rebuilt for each product. None is a quarter of the free memory for an
        EmpiricalRisk, and keeps the graph of a callable.

    Returns
    -------
    CurvatureOperator
        A context manager. A callable is checked first, at the cost of three gradients and two
        products; an EmpiricalRisk has been checked when it was constructed.

    Raises
    ------
    ValueError
        If the loss is not scalar, finite, differentiable and deterministic, if its second
        derivatives are not symmetric, or if derivatives do not fit difference quotients.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import hessian_operator
    >>> with hessian_operator(lambda t: (t**4).sum() / 12, np.array([1.0, 2.0])) as hessian:
    ...     print(hessian.loss * 12, hessian(np.ones(2)))
    17.0 [1. 4.]
    """
    if hasattr(loss, "operator_at"):
        return loss.operator_at(theta, curvature, memory_budget=memory_budget)
    if curvature != "hessian":
        raise ValueError(
            f"curvature={curvature!r} needs an EmpiricalRisk: a function of the parameters has "
            "no outputs and samples. Pass EmpiricalRisk(module, criterion, X, y), or "
            "curvature='hessian'."
        )
    point = torch.as_tensor(np.array(theta, dtype=np.float64))
    _check_callable(loss, point)

    def make() -> HessianOperator:
        try:
            return HessianOperator([loss], point, memory_budget=memory_budget)
        except Exception as error:
            error.add_note(
                f"Raised while calling loss with a float64 tensor of shape ({point.numel()},). A "
                "loss is an EmpiricalRisk, or a function of this flat parameter vector."
            )
            raise

    try:
        direction, scale = random_direction(point)
        operator, product = checked_operator(make, direction)
        _check_of_callable(operator, loss, point, direction, scale, product)
    except ValueError:
        _check_precision_of(loss, point)  # the reason, if it raises
        raise
    return operator


def _check_precision_of(loss: Term, point: torch.Tensor) -> None:
    try:
        value = evaluate(_of_parts(loss), (point.clone().requires_grad_(True),))
    except Exception:  # the caller has an error to raise
        return
    check_precision(least_precise_dtype(value))


def _check_of_callable(
    operator: CurvatureOperator, loss: Term, point: torch.Tensor, *claimed: torch.Tensor
) -> None:
    """Compare with difference quotients, at a kink of the loss (|t| at 0) next to it."""

    def evaluate_at(theta: torch.Tensor) -> tuple[float, torch.Tensor, torch.dtype]:
        leaf = theta.detach().clone().requires_grad_(True)
        value = evaluate(_of_parts(loss), (leaf,))
        dtype = least_precise_dtype(value)
        return float(value.detach()), backward([value], (leaf,))[0], dtype

    try:
        check_derivatives(operator, evaluate_at, point, *claimed)
    except ValueError:
        near = nearby_point(point)
        if not is_finite(loss, near):
            raise
        with HessianOperator([loss], near) as nearby:
            direction, scale = random_direction(near)
            check_derivatives(nearby, evaluate_at, near, direction, scale, nearby(direction))


def is_finite(term: Term, theta: torch.Tensor) -> bool:
    """Return whether a term is defined at a point."""
    try:
        with exact_mode():
            return bool(torch.isfinite(term(theta)).all())
    except (RuntimeError, ValueError):
        return False


def checked_operator(
    make: Callable[[], CurvatureOperator], v: torch.Tensor
) -> tuple[CurvatureOperator, torch.Tensor]:
    """Return an operator that gives the same symmetric matrix each time, and its product with v.
    ``make`` is called twice: losses and gradients may agree where their derivatives do not.
    """
    with make() as first:
        first.check_graphs()
        image = first(v)
    hessian = make()
    check_same_loss(first.loss, hessian.loss, hessian.dtype)
    curvature = float(image.norm() / v.norm())
    _check_same_slope(first.gradient, hessian.gradient, curvature, hessian.dtype)
    size = float(image.norm())
    unit = image / (size if size > 0 else 1.0)
    twice = hessian(unit)
    paired = float(v @ twice)
    eps = torch.finfo(hessian.dtype).eps
    # Loose: a flat minimum in float32 has small curvature, made up of rounding in part.
    rounding = eps**0.25 * size + 10 * eps * float(v.norm() * twice.norm())
    if not abs(size - paired) <= rounding:
        again = float(unit @ hessian(v))  # |H v| of one Hessian, but not of two
        if not abs(size - again) <= rounding:
            raise _not_deterministic("the norm of a product with its Hessian", size, again)
        raise ValueError(
            "loss has second derivatives that are not symmetric: for a random v and w = H v / "
            f"|H v|, w' H v = {size:.6g}, but v' H w = {paired:.6g}. A custom backward in it is "
            "not the derivative of its forward. Correct it."
        )
    hessian.n_matvecs = 0
    return hessian, image


def check_same_loss(first: float, again: float, dtype: torch.dtype) -> None:
    """Raise if two evaluations of the loss at one point differ by more than rounding."""
    # Half of the digits: sums on a GPU may be added in another order each time.
    eps = torch.finfo(dtype).eps
    if abs(first - again) > eps**0.5 * max(abs(first), abs(again)) + 100 * eps:
        raise _not_deterministic("the loss", first, again)


def _check_same_slope(
    first: torch.Tensor, again: torch.Tensor, curvature: float, dtype: torch.dtype
) -> None:
    # At a minimum the gradient is rounding: a step of rounding makes one of the curvature's size.
    eps = torch.finfo(dtype).eps
    size, other = float(first.norm()), float(again.norm())
    if float((first - again).norm()) > eps**0.5 * max(size, other, curvature) + 100 * eps:
        raise _not_deterministic("the norm of its gradient", size, other)


def _not_deterministic(what: str, first: float, again: float) -> ValueError:
    return ValueError(
        f"loss is not deterministic: {what} is {first:.8g} and {again:.8g} at the same point. A "
        "Hessian needs one function: fix the batch, the dropout mask or the seed inside the loss."
    )


def _check_callable(loss: Any, point: torch.Tensor) -> None:
    """Raise on a criterion, which takes outputs and targets, where a loss of theta is wanted."""
    reason = "it is a class" if inspect.isclass(loss) else signature_mismatch(loss, 1)
    if reason is None:
        return
    raise ValueError(
        f"loss={short_name(loss)} cannot be called with one flat tensor of shape "
        f"({point.numel()},): {reason}. Pass an EmpiricalRisk(module, criterion, X, y), or a "
        "function that maps the flat parameter vector to a scalar tensor."
    )


def _of_parts(term: Term) -> Callable[[Leaves], torch.Tensor]:
    return lambda parts: term(parts[0])
