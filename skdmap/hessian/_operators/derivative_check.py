"""Gradients and products compared with difference quotients, in one random direction."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from skdmap.hessian._operators.autodiff import graph_nodes
from skdmap.hessian._operators.base import CurvatureOperator

# Steps in units of the square root of the rounding error, relative to each parameter. The first
# passes in nearly all cases. The smaller one crosses fewer kinks (ReLU, max-pooling), the larger
# one has less rounding error. An error needs all of them that rounding does not hide, two at
# least, to disagree.
_STEPS, _TOLERANCE, _ROUNDING, _HIDDEN = (10.0, -0.1, 1000.0), 1e-2, 30.0, 0.3

# theta -> loss, gradient (n_parameters,), and the least precise dtype in its graph
Evaluate = Callable[[torch.Tensor], tuple[float, torch.Tensor, torch.dtype]]


@dataclass(frozen=True)
class Claimed:
    """What autograd gives at a point: loss, gradient, and the product with a direction."""

    loss: float
    gradient: torch.Tensor  # (n_parameters,)
    direction: torch.Tensor  # (n_parameters,)
    product: torch.Tensor  # (n_parameters,)
    scale: torch.Tensor  # (n_parameters,), in whose units vectors are compared
    eps: float  # relative rounding error of the loss


def check_derivatives(
    operator: CurvatureOperator,
    evaluate_at: Evaluate,
    theta: torch.Tensor,
    direction: torch.Tensor,
    scale: torch.Tensor,
    product: torch.Tensor,
) -> None:
    """Raise if the operator's gradient at ``theta`` and its product with ``direction`` do not fit
    the losses and gradients around; ``direction, scale`` are from :func:`random_direction`.
    """
    gradient = operator.gradient.to(theta.dtype)
    eps = torch.finfo(theta.dtype).eps
    claimed = Claimed(operator.loss, gradient, direction, product, scale, eps)
    differs = _disagreement(claimed, evaluate_at, theta)
    if differs is not None:
        raise ValueError(
            f"loss has derivatives that do not fit its values: {differs}; the same at other step "
            "sizes. Something hides a dependence on the parameters from autograd: detach(), "
            ".item() or .data, a tensor created anew (torch.tensor), or a custom backward that "
            "keeps values on ctx, is marked @once_differentiable, or is not the derivative of its "
            "forward (a straight-through estimator). Use differentiable operations there."
        )


def nearby_point(theta: torch.Tensor) -> torch.Tensor:
    """Return a point (n_parameters,) 5 % away: off kinks, and with outputs that are not all equal.
    Outputs are all equal where a last layer starts at zero, which hides what else samples do.
    """
    direction, _ = random_direction(theta, seed=1)
    return theta + 0.05 * direction


def check_precision(dtype: torch.dtype) -> None:
    """Raise if the least precise dtype in a graph is below float32."""
    if torch.finfo(dtype).eps > torch.finfo(torch.float32).eps:
        raise ValueError(
            f"loss computes in {dtype}, in which curvature is lost: something in it converts "
            "tensors, whatever the dtype of parameters and data. Remove the conversion (.half(), "
            ".bfloat16(), .to(dtype)) or autocast."
        )


def least_precise_dtype(value: torch.Tensor) -> torch.dtype:
    """Return the least precise floating dtype in the autograd graph of a tensor."""
    found = {value.dtype}
    for node in graph_nodes([value]):
        # One record for each tensor that the node gave in the forward pass.
        found |= {record.dtype for record in getattr(node, "_input_metadata", ())}
    real = [kind.to_real() for kind in found if kind.is_floating_point or kind.is_complex]
    return max(real, key=lambda kind: torch.finfo(kind).eps)


def random_direction(theta: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a random direction (n_parameters,) and the scale of each entry: of its parameter,
    but at least a tenth of the root mean square of all.
    """
    generator = torch.Generator().manual_seed(seed)  # its own: the global one is not advanced
    draw = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    sizes = theta.detach().cpu().double().abs()
    least = 0.1 * float(sizes.square().mean().sqrt())
    scale = sizes.clamp(min=least) if least > 0 else torch.ones_like(sizes)
    return (draw * scale).to(theta.device, theta.dtype), scale.to(theta.device, theta.dtype)


def _disagreement(claimed: Claimed, evaluate_at: Evaluate, theta: torch.Tensor) -> str | None:
    """Return what differs from its difference quotients at all steps, or None."""
    # At each step None where they agree, "" where rounding hides it, else how they differ.
    of_loss: list[str | None] = []
    of_gradient: list[str | None] = []
    for factor in _STEPS:
        step = factor * claimed.eps**0.5
        try:
            loss, gradient, dtype = evaluate_at(theta + step * claimed.direction)
        except ValueError:  # the loss is not defined there
            return None
        check_precision(dtype)
        if torch.finfo(dtype).eps > claimed.eps:  # something is computed in float32: larger steps
            return _disagreement(replace(claimed, eps=torch.finfo(dtype).eps), evaluate_at, theta)
        of_loss.append(_loss_differs(claimed, loss, step))
        of_gradient.append(_gradient_differs(claimed, gradient, step))
        if None in of_loss and None in of_gradient:
            return None
    for found, what in (
        (of_loss, "the gradient times a random direction is"),
        (of_gradient, "the Hessian times a random direction has norm"),
    ):
        texts = [text for text in found if text]
        if None not in found and len(texts) > 1:
            return f"{what} {texts[0]}"
    return None


def _loss_differs(claimed: Claimed, loss: float, step: float) -> str | None:
    quotient = (loss - claimed.loss) / step
    slope = float(claimed.gradient @ claimed.direction)
    bend = 0.5 * step * float(claimed.direction @ claimed.product)
    size = max(abs(slope), abs(quotient), 0.1 * float((claimed.scale * claimed.gradient).norm()))
    rounding = _ROUNDING * claimed.eps * max(abs(loss), abs(claimed.loss)) / abs(step)
    if not abs(quotient - slope - bend) > _TOLERANCE * (size + abs(bend)) + rounding:
        # Also where one of them is not finite.
        resolved = max(abs(slope), abs(quotient), 1e-3 * abs(loss))
        return "" if rounding > _HIDDEN * resolved else None
    return f"{slope:.6g}, but the difference quotient of the loss is {quotient:.6g}"


def _gradient_differs(claimed: Claimed, gradient: torch.Tensor, step: float) -> str | None:
    quotient = (gradient - claimed.gradient) / step
    error, found, expected, *slopes = (
        float((claimed.scale * vector).norm())
        for vector in (
            quotient - claimed.product, quotient, claimed.product, gradient, claimed.gradient
        )
    )  # fmt: skip
    rounding = _ROUNDING * claimed.eps * max(slopes) / abs(step)
    if not error > _TOLERANCE * max(found, expected) + rounding:
        return "" if rounding > _HIDDEN * max(found, expected, 1e-3 * max(slopes)) else None
    return (
        f"{expected:.6g}, but the difference quotient of the gradient has norm {found:.6g} "
        f"(their difference {error:.6g})"
    )
