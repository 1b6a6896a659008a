"""One term of a loss at one point -> its value, its gradient, and v -> H v from a kept graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Leaves = tuple[torch.Tensor, ...]
Term = Callable[[Leaves], torch.Tensor]


class GradientGraph:
    """The Hessian of one term, with the graph of its gradient.

    The flat vector comes in parts, one a parameter: a gradient by parts is not added up from
    vectors of full length that are zero but for one part.

    Parameters
    ----------
    term : callable
        Maps a tuple of tensors, the parts of the flat vector, to a scalar tensor.
    leaves : tuple of Tensor
        The point, in parts that require gradients.

    Attributes
    ----------
    value : float
        The term at the point.
    gradient : tuple of Tensor
        Its gradient in parts, detached.

    Raises
    ------
    TypeError
        If the term does not return a tensor.
    ValueError
        If its value is not scalar, not finite or not differentiable.
    """

    def __init__(self, term: Term, leaves: Leaves) -> None:
        value = evaluate(term, leaves)
        self._leaves = leaves
        self._graph = backward([value], leaves, keep="graph")
        self.value = float(value.detach())
        self.gradient = tuple(part.detach() for part in self._graph)

    def check(self) -> None:
        """Raise if the gradient's graph is cut at a function marked ``once_differentiable``.

        Torch leaves an error node there that leads nowhere, and the derivative through it would
        count as zero without a word.

        Raises
        ------
        ValueError
            If it is cut.
        """
        seen, left = set(), [part.grad_fn for part in self._graph]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            if node.name() == "torch::autograd::Error":
                raise not_twice_differentiable("a function is marked @once_differentiable")
            seen.add(node)
            left.extend(following for following, _ in node.next_functions)

    def product(self, v: Leaves) -> Leaves:
        """Return H v in parts, for ``v`` in parts.

        Parameters
        ----------
        v : tuple of Tensor
            The vector, of the dtype and device of the point.

        Returns
        -------
        tuple of Tensor
            Zeros where the gradient is constant.

        Raises
        ------
        ValueError
            If torch has no second derivative for an operation.
        """
        return backward(self._graph, self._leaves, v, keep="for more products")


def backward(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor | None] | None = None,
    *,
    keep: str = "",
) -> Leaves:
    """Return the gradient of weighted outputs in the inputs; zeros where there is none.

    Parameters
    ----------
    outputs : sequence of Tensor
        Those without a graph are constants.
    inputs : sequence of Tensor
        Leaves of their graphs.
    weights : sequence of Tensor, default=None
        Of the shapes of the outputs; None is 1 for scalars.
    keep : {"", "for more products", "graph"}, default=""
        Whether the graph of the outputs is kept, and whether the gradient gets a graph itself.

    Returns
    -------
    tuple of Tensor
        Of the shapes of the inputs.

    Raises
    ------
    ValueError
        If torch has no derivative for an operation.
    """
    chosen = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not chosen:
        return tuple(torch.zeros_like(part) for part in inputs)
    # The caller may have switched gradients off.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            return torch.autograd.grad(
                [outputs[i] for i in chosen],
                list(inputs),
                None if weights is None else [weights[i] for i in chosen],
                create_graph=keep == "graph",
                retain_graph=bool(keep),
                materialize_grads=True,
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise not_twice_differentiable(error) from error


def evaluate(term: Term, leaves: Leaves) -> torch.Tensor:
    """Return the term's value with its graph.

    Parameters
    ----------
    term : callable
        Maps the parts to a scalar tensor.
    leaves : tuple of Tensor
        The point.

    Returns
    -------
    Tensor
        Of shape ().

    Raises
    ------
    TypeError
        If it is no tensor.
    ValueError
        If it is not scalar, not finite or not differentiable.
    """
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = term(leaves)
        _check_value(value)
        return value.reshape(())


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


def not_twice_differentiable(reason: RuntimeError | str) -> ValueError:
    """Return the error that names the operation without a second derivative."""
    return ValueError(
        f"loss cannot be differentiated twice: {reason}. Replace the operation named "
        "by one with a second derivative."
    )


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
