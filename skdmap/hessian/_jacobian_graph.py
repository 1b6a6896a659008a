"""Rows of a loss at one point -> v -> J' A J v, J the Jacobian of some function of theta.

With the module's outputs and A the second derivative of the loss in them this is the generalised
Gauss-Newton matrix, with the loss of each row and A the identity the empirical Fisher.
"""

from collections.abc import Callable

import torch

from ._gradient_graph import Leaves, backward, evaluate

__all__ = ["JacobianGraph", "gauss_newton_graph", "row_gradients_graph"]


class JacobianGraph:
    """A matrix J' A J, with the graphs of J' w in theta and in w.

    Reverse mode only: J v is the gradient of J' w in w, and jvp fails on recurrent and attention
    layers.

    Parameters
    ----------
    value : float
        The term at the point.
    output : Tensor
        What J is the Jacobian of, with its graph.
    slope : Tensor
        The derivative of the term in it.
    metric : callable
        u -> A u, for u of the shape of ``output``.
    leaves : tuple of Tensor
        The point, in parts.

    Attributes
    ----------
    value : float
        The term at the point.
    gradient : tuple of Tensor
        Its gradient in parts.
    """

    def __init__(
        self,
        value: float,
        output: torch.Tensor,
        slope: torch.Tensor,
        metric: Callable[[torch.Tensor], torch.Tensor],
        leaves: Leaves,
    ) -> None:
        self._output, self._metric, self._leaves = output, metric, leaves
        self._weights = torch.zeros_like(output, requires_grad=True)
        self._transposed = backward([output], leaves, [self._weights], keep="graph")
        self.value = value
        self.gradient = backward([output], leaves, [slope], keep="for more products")

    def check(self) -> None:
        """Do nothing: a first derivative is enough, and a missing second one of A raises."""

    def product(self, v: Leaves) -> Leaves:
        """Return J' A J v in parts, for ``v`` in parts.

        Parameters
        ----------
        v : tuple of Tensor
            The vector, of the dtype and device of the point.

        Returns
        -------
        tuple of Tensor
            Of the shapes of ``v``.
        """
        (image,) = backward(self._transposed, [self._weights], v, keep="for more products")
        return backward(
            [self._output], self._leaves, [self._metric(image)], keep="for more products"
        )


def gauss_newton_graph(
    outputs: Callable[[Leaves], torch.Tensor],
    term_of_outputs: Callable[[torch.Tensor], torch.Tensor],
    leaves: Leaves,
) -> JacobianGraph:
    """Return J' (second derivative of the term in the outputs) J.

    Parameters
    ----------
    outputs : callable
        Maps the parts of the flat vector to what the module returns.
    term_of_outputs : callable
        Maps that to a scalar tensor.
    leaves : tuple of Tensor
        The point, in parts.

    Returns
    -------
    JacobianGraph
        With products.

    Raises
    ------
    ValueError
        If the module does not return one tensor that depends on the parameters.
    """
    found: list[torch.Tensor] = []

    def term(parts: Leaves) -> torch.Tensor:
        output = outputs(parts)
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            raise ValueError(
                f"curvature='ggn' needs a module that returns one tensor of floats, not "
                f"{type(output).__name__}. Wrap the module in one whose forward returns the "
                "logits, or use curvature='hessian'."
            )
        found.append(output)
        return term_of_outputs(output)

    value = evaluate(term, leaves)
    inner = found[0].detach().requires_grad_(True)
    (slope,) = backward([evaluate(lambda parts: term_of_outputs(parts[0]), (inner,))], [inner],
                        keep="graph")  # fmt: skip

    def metric(u: torch.Tensor) -> torch.Tensor:
        return backward([slope], [inner], [u], keep="for more products")[0]

    return JacobianGraph(float(value.detach()), found[0], slope.detach(), metric, leaves)


def row_gradients_graph(
    row_terms: Callable[[Leaves], torch.Tensor], leaves: Leaves, *, scale: float
) -> JacobianGraph:
    """Return ``scale`` times the sum of g_i g_i', g_i the gradient of each row's term.

    Parameters
    ----------
    row_terms : callable
        Maps the parts of the flat vector to what each row adds to the loss, shape (n,).
    leaves : tuple of Tensor
        The point, in parts.
    scale : float
        The factor.

    Returns
    -------
    JacobianGraph
        With products; its value and gradient are those of the sum of the terms.
    """
    found: list[torch.Tensor] = []

    def term(parts: Leaves) -> torch.Tensor:
        found.append(row_terms(parts))
        return found[0].sum()

    value = evaluate(term, leaves)
    ones = torch.ones_like(found[0])
    return JacobianGraph(float(value.detach()), found[0], ones, lambda u: scale * u, leaves)
