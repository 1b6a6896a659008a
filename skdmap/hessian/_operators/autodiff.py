"""Autograd graphs of one term at one point: value, gradient, and products with its curvature."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Leaves = tuple[torch.Tensor, ...]
Term = Callable[[Leaves], torch.Tensor]


class GradientGraph:
    """The Hessian of a term, as backward passes through the kept graph of its gradient.
    ``value``: the term; ``gradient``: in parts, detached. Raises if it is not scalar and finite.
    """

    def __init__(self, term: Term, leaves: Leaves) -> None:
        value = evaluate(term, leaves)
        self._leaves = leaves
        self._graph = backward([value], leaves, keep="graph")
        self.value = float(value.detach())
        self.gradient = tuple(part.detach() for part in self._graph)

    def check(self) -> None:
        """Raise if a function marked ``once_differentiable`` cuts the gradient's graph."""
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
        """Return H v in parts, for ``v`` in parts; zeros where the gradient is constant."""
        return backward(self._graph, self._leaves, v, keep="for more products")


def backward(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor | None] | None = None,
    *,
    keep: str = "",
) -> Leaves:
    """Return the gradient of weighted outputs in the inputs; zeros if there is no graph.
    ``keep``: keep the graph "for more products", or give the gradient a "graph" of its own.
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
    """Return the term's value (a scalar tensor) with its graph."""
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = term(leaves)
        _check_value(value)
        return value.reshape(())


def _check_value(value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"loss returned {type(value).__name__}; it must be a scalar torch tensor computed from "
            "the parameter tensor with torch operations."
        )
    if value.numel() != 1:
        raise ValueError(
            f"loss returned a tensor of shape {tuple(value.shape)}; it must be a scalar. Take its "
            "mean or sum (a criterion needs reduction='mean' or 'sum')."
        )
    if not value.requires_grad:
        raise ValueError(
            "loss is not differentiable: its value does not depend on the parameters through torch "
            "operations. Compute it from the tensor passed in, without detach(), numpy() or "
            "no_grad()."
        )
    if not torch.isfinite(value):
        raise ValueError(
            f"loss={float(value.detach())} at this point; it must be finite. Take the Hessian at a "
            "snapshot from before training diverged (point), or check the data."
        )


def not_twice_differentiable(reason: RuntimeError | str) -> ValueError:
    """Return the error that names the operation without a second derivative."""
    return ValueError(
        f"loss cannot be differentiated twice: {reason}. Replace the operation named "
        "by one with a second derivative."
    )


class JacobianGraph:
    """A matrix J' A J, as backward passes through J' w; J is the Jacobian of ``output``.
    ``slope``: derivative of the term in the output; ``metric``: u -> A u.
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
        """Return J' A J v in parts, for ``v`` in parts."""
        (image,) = backward(self._transposed, [self._weights], v, keep="for more products")
        return backward(
            [self._output], self._leaves, [self._metric(image)], keep="for more products"
        )


def gauss_newton_graph(
    outputs: Callable[[Leaves], torch.Tensor],
    term_of_outputs: Callable[[torch.Tensor], torch.Tensor],
    leaves: Leaves,
) -> JacobianGraph:
    """Return J' A J with A the second derivative of the term in the module's outputs.
    Raises if the module does not return one tensor of floats.
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
    """Return ``scale`` times the sum of g_i g_i'; g_i: gradient of entry i of ``row_terms``."""
    found: list[torch.Tensor] = []

    def term(parts: Leaves) -> torch.Tensor:
        found.append(row_terms(parts))
        return found[0].sum()

    value = evaluate(term, leaves)
    ones = torch.ones_like(found[0])
    return JacobianGraph(float(value.detach()), found[0], ones, lambda u: scale * u, leaves)
