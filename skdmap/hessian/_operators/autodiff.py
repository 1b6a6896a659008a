"""Autograd graphs of one term at one point: value, gradient, and products with its curvature."""

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

# torch.autograd.grad imports it for its first product, and with it sympy: half a second that would
# be taken for the time of the first risk.
import torch.fx.experimental.symbolic_shapes
from torch.nn.attention import SDPBackend, sdpa_kernel

Leaves = tuple[torch.Tensor, ...]
Term = Callable[[Leaves], torch.Tensor]
P = ParamSpec("P")
R = TypeVar("R")
# What backward passes run in; where forward passes are recomputed, it holds the parameters.
Within = Callable[[], AbstractContextManager[None]]


class _FastPath:
    """torch.backends.mha's switch, off while any thread evaluates a loss and then as before."""

    def __init__(self) -> None:
        self._lock, self._n_users, self._before = threading.Lock(), 0, True

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if self._n_users == 0:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if self._n_users == 0:
                    torch.backends.mha.set_fastpath_enabled(self._before)


_FAST_PATH, _INSIDE = _FastPath(), threading.local()


@contextmanager
def exact_mode() -> Iterator[None]:
    """Evaluate with gradients, in full precision and uncompiled, whatever the caller has set.
    Fused attention and the fast path of nn.TransformerEncoder have no second derivatives.
    """
    if vars(_INSIDE).get("active"):
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(_FAST_PATH.off())
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        _INSIDE.active = True
        try:
            yield
        finally:
            _INSIDE.active = False


def work_in_exact_mode() -> None:
    """Prepare a thread that works while another one is in :func:`exact_mode`, on one core.
    What that mode switches holds for all threads; what does not, is the default of a new one.
    """
    _INSIDE.active = True
    torch.set_num_threads(1)


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run in :func:`exact_mode`."""

    @wraps(function)
    def evaluated(*args: P.args, **kwargs: P.kwargs) -> R:
        with exact_mode():
            return function(*args, **kwargs)

    return evaluated


class GradientGraph:
    """The Hessian of a term, as backward passes through the kept graph of its gradient.
    ``value``: the term; ``gradient``: in parts, detached. Raises if it is not scalar and finite.
    """

    def __init__(self, term: Term, leaves: Leaves, within: Within = nullcontext) -> None:
        value = evaluate(term, leaves)
        self._leaves, self._within = leaves, within
        with within():
            self._graph = backward([value], leaves, keep="graph")
        self.value = float(value.detach())
        self.gradient = tuple(part.detach() for part in self._graph)

    @property
    def outputs(self) -> Leaves:
        """The gradient with its graph, in parts."""
        return self._graph

    def check(self) -> None:
        """Raise if a function marked ``once_differentiable`` cuts the gradient's graph."""
        for node in graph_nodes(self._graph):
            if node.name() == "torch::autograd::Error":
                raise not_twice_differentiable("a function is marked @once_differentiable")

    def product(self, v: Leaves) -> Leaves:
        """Return H v in parts, for ``v`` in parts; zeros where the gradient is constant."""
        with self._within():
            return backward(self._graph, self._leaves, v, keep="for more products")


def graph_nodes(tensors: Sequence[torch.Tensor]) -> Iterator[Any]:
    """Yield the nodes of the autograd graph of these tensors, each once."""
    seen, left = set(), [tensor.grad_fn for tensor in tensors]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            left.extend(following for following, _ in node.next_functions)


def mean_operation_bytes(tensors: Sequence[torch.Tensor]) -> float:
    """Return the mean size of the results of the operations in the graph of these tensors."""
    # One record for each tensor that a node gave in the forward pass.
    records = [
        record for node in graph_nodes(tensors) for record in getattr(node, "_input_metadata", ())
    ]
    sizes = [math.prod(record.shape) * record.dtype.itemsize for record in records]
    return sum(sizes) / max(1, len(sizes))


def graph_leaves(value: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors without history that require gradients in the graph of ``value``."""
    nodes = [node for node in graph_nodes([value]) if node.name().endswith("AccumulateGrad")]
    return [node.variable for node in nodes]


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
    with exact_mode():
        try:
            gradient = torch.autograd.grad(
                [outputs[i] for i in chosen],
                list(inputs),
                None if weights is None else [weights[i] for i in chosen],
                create_graph=keep == "graph",
                retain_graph=bool(keep),
                materialize_grads=True,
            )
            # nn.Embedding(sparse=True) gives sparse ones, which have no reshape.
            return tuple(part.to_dense() if part.is_sparse else part for part in gradient)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise not_twice_differentiable(error) from error


def evaluate(term: Term, leaves: Leaves) -> torch.Tensor:
    """Return the term's value (a scalar tensor) with its graph."""
    with exact_mode():
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
    text = str(reason)
    if "use_reentrant" in text or "Checkpointing is not compatible" in text:
        return ValueError(
            "loss cannot be differentiated twice: torch.utils.checkpoint with use_reentrant=True "
            "has no second derivative. Call checkpoint(..., use_reentrant=False), or switch "
            "activation checkpointing off."
        )
    return ValueError(
        f"loss cannot be differentiated twice: {text}. Replace the operation named "
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
        within: Within = nullcontext,
    ) -> None:
        self._output, self._metric, self._leaves, self._within = output, metric, leaves, within
        self._weights = torch.zeros_like(output, requires_grad=True)
        with within():
            self._transposed = backward([output], leaves, [self._weights], keep="graph")
            self.gradient = backward([output], leaves, [slope], keep="for more products")
        self.value = value

    @property
    def outputs(self) -> Leaves:
        """What J is the Jacobian of."""
        return (self._output,)

    def check(self) -> None:
        """Do nothing: a first derivative is enough, and a missing second one of A raises."""

    def product(self, v: Leaves) -> Leaves:
        """Return J' A J v in parts, for ``v`` in parts."""
        with self._within():
            (image,) = backward(self._transposed, [self._weights], v, keep="for more products")
            return backward(
                [self._output], self._leaves, [self._metric(image)], keep="for more products"
            )


def gauss_newton_graph(
    outputs: Callable[[Leaves], torch.Tensor],
    term_of_outputs: Callable[[torch.Tensor], torch.Tensor],
    leaves: Leaves,
    within: Within = nullcontext,
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

    return JacobianGraph(float(value.detach()), found[0], slope.detach(), metric, leaves, within)


def row_gradients_graph(
    row_terms: Callable[[Leaves], torch.Tensor],
    leaves: Leaves,
    within: Within = nullcontext,
    *,
    scale: float,
) -> JacobianGraph:
    """Return ``scale`` times the sum of g_i g_i'; g_i: gradient of entry i of ``row_terms``."""
    found: list[torch.Tensor] = []

    def term(parts: Leaves) -> torch.Tensor:
        found.append(row_terms(parts))
        return found[0].sum()

    value = evaluate(term, leaves)
    ones = torch.ones_like(found[0])
    return JacobianGraph(float(value.detach()), found[0], ones, lambda u: scale * u, leaves, within)
