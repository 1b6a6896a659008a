"""v -> H v, the Hessian of a loss at one point times a vector; no eigen-anything.

A loss is a sum of terms, each a function of one flat parameter tensor (a term is a batch). The
graph of each term's gradient is kept, so that one product is one backward pass through it.
"""

import inspect
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ._calls import misfit, title

__all__ = ["GradientGraph", "HessianOperator", "accumulator_dtype", "hessian_operator"]

Term = Callable[[torch.Tensor], torch.Tensor]


def accumulator_dtype(theta: torch.Tensor) -> torch.dtype:
    """Return the dtype in which terms are added up: float64 where the device has it."""
    return theta.dtype if theta.device.type == "mps" else torch.float64


class GradientGraph:
    """One term at one point, with the graph of its gradient.

    Parameters
    ----------
    term : callable
        Maps a tensor of shape (n_parameters,) to a scalar tensor.
    theta : Tensor of shape (n_parameters,)
        The point.

    Attributes
    ----------
    value : float
        The term at ``theta``.
    gradient : Tensor of shape (n_parameters,)
        Its gradient, detached.

    Raises
    ------
    TypeError
        If the term does not return a tensor.
    ValueError
        If its value is not scalar, not finite or not differentiable.
    """

    def __init__(self, term: Term, theta: torch.Tensor) -> None:
        self._leaf = theta.detach().clone().requires_grad_(True)
        value = _evaluate(term, self._leaf)
        _check_value(value)
        try:
            with torch.enable_grad():  # the caller may have switched gradients off
                (self._graph,) = torch.autograd.grad(
                    value.reshape(()), self._leaf, create_graph=True, materialize_grads=True
                )
        except RuntimeError as error:
            raise _not_twice_differentiable(error) from error
        self.value = float(value.detach())
        self.gradient = self._graph.detach()
        if not torch.isfinite(self.gradient).all():
            raise ValueError(
                f"loss={self.value:.6g} has a gradient with entries that are not finite at this "
                "point. Take the Hessian at another row (point), or smooth the loss there."
            )

    def check(self) -> None:
        """Raise if the gradient's graph is cut at a function marked ``once_differentiable``.

        Torch leaves an error node there that leads nowhere, and the derivative through it would
        count as zero without a word.

        Raises
        ------
        ValueError
            If it is cut.
        """
        seen, left = set(), [self._graph.grad_fn]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            if node.name() == "torch::autograd::Error":
                raise _not_twice_differentiable("a function is marked @once_differentiable")
            seen.add(node)
            left.extend(following for following, _ in node.next_functions)

    def product(self, v: torch.Tensor) -> torch.Tensor:
        """Return H v, shape (n_parameters,), for ``v`` of the dtype and device of the point.

        Parameters
        ----------
        v : Tensor of shape (n_parameters,)
            The vector.

        Returns
        -------
        Tensor of shape (n_parameters,)
            Zeros where the gradient is constant.

        Raises
        ------
        ValueError
            If torch has no second derivative for an operation, or the product is not finite.
        """
        if not self._graph.requires_grad:  # the gradient is a constant: a linear term
            return torch.zeros_like(v)
        try:
            (product,) = torch.autograd.grad(
                self._graph, self._leaf, v, retain_graph=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise _not_twice_differentiable(error) from error
        if not torch.isfinite(product).all():
            raise ValueError(
                "loss has a Hessian with entries that are not finite at this point. Take the "
                "Hessian at another row (point), or smooth the loss there."
            )
        return product


class HessianOperator:
    """The Hessian of a sum of terms at one point, as a function of a vector.

    A context manager: leaving it frees the graphs.

    Parameters
    ----------
    terms : iterable of callable
        Each maps a tensor of shape (n_parameters,) to a scalar tensor; the loss is their sum.
    theta : Tensor of shape (n_parameters,)
        The point; its dtype and device are those of the products.

    Attributes
    ----------
    size : int
        n_parameters.
    dtype : torch.dtype
        In which products are computed.
    loss : float
        The loss at the point.
    gradient : Tensor of shape (n_parameters,)
        The gradient there, added up over the terms in float64.
    n_matvecs : int
        Products made so far.

    Examples
    --------
    >>> import torch
    >>> from skdmap.hessian import HessianOperator
    >>> with HessianOperator([lambda t: t[0] ** 2 * t[1]], torch.tensor([1.0, 3.0])) as hessian:
    ...     hessian(torch.tensor([1.0, 0.0])).tolist()
    [6.0, 2.0]
    """

    def __init__(self, terms: Iterable[Term], theta: torch.Tensor) -> None:
        self._theta = theta.detach()
        self._sum_dtype = accumulator_dtype(theta)
        self._graphs: list[GradientGraph] | None = [GradientGraph(term, theta) for term in terms]
        self.size = theta.numel()
        self.dtype = theta.dtype
        self.loss = sum(graph.value for graph in self._graphs)
        self.gradient = torch.zeros(self.size, dtype=self._sum_dtype, device=theta.device)
        for graph in self._graphs:
            self.gradient += graph.gradient
        self.n_matvecs = 0

    def __call__(self, v: Any) -> Any:
        """Return H v: a float64 array for an array, a tensor for a tensor.

        Parameters
        ----------
        v : array or Tensor of shape (n_parameters,)
            The vector.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            The product; a tensor has the dtype and device of the point.

        Raises
        ------
        ValueError
            If ``v`` has another shape.
        RuntimeError
            If the operator has been closed.
        """
        if self._graphs is None:
            raise RuntimeError("This operator is closed; make products inside its with block.")
        vector = torch.as_tensor(v).to(device=self._theta.device, dtype=self.dtype)
        if vector.shape != (self.size,):
            raise ValueError(f"v has shape {tuple(vector.shape)}, must be ({self.size},).")
        total = torch.zeros(self.size, dtype=self._sum_dtype, device=self._theta.device)
        for graph in self._graphs:
            total += graph.product(vector)
        self.n_matvecs += 1
        if isinstance(v, torch.Tensor):
            return total.to(self.dtype)
        return total.cpu().numpy().astype(np.float64, copy=False)

    def check_graphs(self) -> None:
        """Raise if a part of the loss has a first derivative only.

        Raises
        ------
        ValueError
            If a function marked ``once_differentiable`` is in it.
        """
        for graph in self._graphs or ():
            graph.check()

    def close(self) -> None:
        """Free the graphs; no product can be made any more."""
        self._graphs = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def hessian_operator(loss: Any, theta: np.ndarray) -> HessianOperator:
    """Return the Hessian operator of a loss at a point.

    Parameters
    ----------
    loss : EmpiricalRisk or callable
        A callable maps a float64 tensor of shape (n_parameters,) to a scalar tensor. An
        EmpiricalRisk computes in its own dtype.
    theta : array of shape (n_parameters,)
        The point.

    Returns
    -------
    HessianOperator
        A context manager. For a callable two products more are made, to try its symmetry; an
        EmpiricalRisk has tried that on some rows when it was made.

    Raises
    ------
    ValueError
        If the loss is not scalar, finite, differentiable and deterministic, or if its second
        derivatives are not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.hessian import hessian_operator
    >>> with hessian_operator(lambda t: (t**4).sum() / 12, np.array([1.0, 2.0])) as hessian:
    ...     print(hessian.loss * 12, hessian(np.ones(2)))
    17.0 [1. 4.]
    """
    if hasattr(loss, "operator_at"):
        return loss.operator_at(theta)
    point = torch.as_tensor(np.array(theta, dtype=np.float64))
    _check_callable(loss, point)
    try:
        operator = HessianOperator([loss], point)
        check_deterministic(operator, [loss], point)
    except Exception as error:
        error.add_note(
            f"Raised while calling loss with a float64 tensor of shape ({point.numel()},). A loss "
            "is an EmpiricalRisk, or a function of this flat parameter vector."
        )
        raise
    check_second_derivatives(operator)
    return operator


def check_deterministic(
    operator: HessianOperator, terms: Iterable[Term], theta: torch.Tensor
) -> None:
    """Raise if the loss is not what it was when the operator was made.

    Parameters
    ----------
    operator : HessianOperator
        Of these terms at this point.
    terms : iterable of callable
        Evaluated once more, in the same way.
    theta : Tensor of shape (n_parameters,)
        The point.

    Raises
    ------
    ValueError
        If the two values differ by more than rounding.
    """
    leaf = theta.detach().clone().requires_grad_(True)
    first, again = operator.loss, sum(float(_evaluate(term, leaf).detach()) for term in terms)
    # Half of the digits: sums on a GPU may be added in another order each time.
    eps = torch.finfo(theta.dtype).eps
    if abs(first - again) > eps**0.5 * max(abs(first), abs(again)) + 100 * eps:
        raise ValueError(
            f"loss is not deterministic: {first:.8g} and {again:.8g} at the same point. A Hessian "
            "needs one function: fix the batch, the dropout mask or the seed inside the loss."
        )


def check_second_derivatives(hessian: HessianOperator) -> None:
    """Raise on a loss for which torch would return second derivatives that are wrong.

    Parameters
    ----------
    hessian : HessianOperator
        Two products are made and taken off its count.

    Raises
    ------
    ValueError
        If a part of the loss has a first derivative only, or if the Hessian is not symmetric:
        |H v|^2 differs from v' H (H v) for a random vector by more than rounding.
    """
    hessian.check_graphs()
    generator = torch.Generator().manual_seed(0)  # its own: the global one is not advanced
    v = torch.randn(hessian.size, generator=generator).to(hessian.gradient.device, hessian.dtype)
    image = hessian(v)
    twice = hessian(image)
    hessian.n_matvecs -= 2
    square, paired = float(image @ image), float(v @ twice)
    eps = torch.finfo(hessian.dtype).eps
    # Loose: a flat minimum in float32 has small curvature, made up of rounding in part.
    rounding = eps**0.25 * square + 10 * eps * float(v.norm() * twice.norm())
    if not abs(square - paired) <= rounding:
        raise ValueError(
            "loss has second derivatives that are not symmetric: |H v|^2 = "
            f"{square:.6g}, v' H H v = {paired:.6g}. A custom backward in it is not the derivative "
            "of its forward; correct it."
        )


def _check_callable(loss: Any, point: torch.Tensor) -> None:
    """Raise on a criterion, which takes outputs and targets, where a loss of theta is wanted."""
    reason = "it is a class" if inspect.isclass(loss) else misfit(loss, 1)
    if reason is None:
        return
    raise ValueError(
        f"loss={title(loss)} cannot be called with one flat tensor of shape ({point.numel()},): "
        f"{reason}. Pass an EmpiricalRisk(module, criterion, X, y), or a function that maps the "
        "flat parameter vector to a scalar tensor."
    )


def _evaluate(term: Term, leaf: torch.Tensor) -> torch.Tensor:
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        return term(leaf)


def _check_value(value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"loss returned {type(value).__name__}, must be a scalar torch tensor computed from "
            "the parameter tensor with torch operations."
        )
    if value.numel() != 1:
        raise ValueError(
            f"loss returned a tensor of shape {tuple(value.shape)}, must be a scalar. Take its "
            "mean or sum (a criterion needs reduction='mean' or 'sum')."
        )
    if not value.requires_grad:
        raise ValueError(
            "loss is not differentiable: its value does not depend on the parameters through torch "
            "operations. Compute it from the tensor given, without detach(), numpy() or no_grad()."
        )
    if not torch.isfinite(value):
        raise ValueError(
            f"loss={float(value.detach())} at this point, must be finite. Take the Hessian at a "
            "row where training had not diverged (point), or check the data."
        )


def _not_twice_differentiable(reason: RuntimeError | str) -> ValueError:
    return ValueError(
        f"loss cannot be differentiated twice: {reason}. Replace the operation named "
        "by one with a second derivative."
    )
