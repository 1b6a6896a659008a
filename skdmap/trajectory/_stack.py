"""Many runs of one small network as tensors with an axis of runs, and the losses of all at once."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from skdmap._random import forked_torch
from skdmap.trajectory._run import Run
from skdmap.trajectory._training import module_device

__all__ = ["Stack", "module_tensors", "stack_runs"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Functions of each entry by itself, without parameters and without chance.
_ACTIVATIONS = (
    nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Identity,
)  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """The runs of one network as tensors with a leading axis of runs.

    Attributes
    ----------
    runs : tuple of Run
        Those that are trained; brought up to date when training ends.
    module : torch.nn.Module
        A copy in training mode, for its forward only.
    parameters : dict of Parameter
        Trainable ones, of shape (n_runs, ...).
    fixed : dict of Tensor
        Other parameters, and buffers, of shape (n_runs, ...).
    X, y : Tensor of shape (n, ...)
        Rows to train on.
    criterion : callable
        (outputs, targets) -> scalar.
    is_chain : bool
        Whether the module is linear layers and entrywise functions in a row, on rows of numbers.
    is_entropy : bool
        Whether the criterion is the plain mean cross-entropy of class indices.
    """

    runs: tuple[Run, ...]
    module: nn.Module
    parameters: dict[str, nn.Parameter]
    fixed: dict[str, torch.Tensor]
    X: torch.Tensor
    y: torch.Tensor
    criterion: Loss
    is_chain: bool
    is_entropy: bool

    def losses(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of each run on its own batch; ``rows`` has shape (n_runs, b)."""
        inputs, targets = _take(self.X, rows), _take(self.y, rows)
        tensors = {**self.parameters, **self.fixed}
        if self.is_chain:
            outputs = _chain_outputs(self.module, tensors, inputs)
        else:
            outputs = vmap(self._outputs)(tensors, inputs)
        if self.is_entropy:
            # vmap takes nll_loss apart into many small steps; and with the classes as channels
            # of one image torch is three times faster than with them as short rows.
            image = outputs.flatten(0, 1).T.unsqueeze(0)
            each = nn.functional.cross_entropy(image, targets.view(1, -1), reduction="none")
            return each.view(rows.shape).mean(1)
        return vmap(self.criterion)(outputs, targets)

    def _outputs(self, tensors: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return functional_call(self.module, tensors, (inputs,))


def stack_runs(runs: Sequence[Run], X: torch.Tensor, y: torch.Tensor, criterion: Loss) -> Stack:
    """Return the runs as one stack.

    Parameters
    ----------
    runs : sequence of Run
        With modules of one class and equal shapes, at the same step.
    X, y : Tensor of shape (n, ...)
        Rows to train on.
    criterion : callable
        (outputs, targets) -> scalar.

    Returns
    -------
    Stack
        Copies of the modules' tensors.

    Raises
    ------
    ValueError
        If the modules differ, draw random numbers or change their buffers in training mode, or
        cannot be vectorised.
    """
    first = runs[0].module
    shapes = {name: t.shape for name, t in module_tensors(first).items()}
    for run in runs[1:]:
        if {name: t.shape for name, t in module_tensors(run.module).items()} != shapes:
            raise ValueError(
                f"vectorize=True: the modules of runs {runs[0].index} and {run.index} differ in "
                "their parameters or buffers, must be alike. Set vectorize=False."
            )
    _refuse_state(first, X[:2])
    each = [module_tensors(run.module) for run in runs]
    stacked = {name: torch.stack([tensors[name] for tensors in each]) for name in shapes}
    trainable = [name for name, p in first.named_parameters() if p.requires_grad]
    stack = Stack(
        runs=tuple(runs),
        module=copy.deepcopy(first).train(),
        parameters={name: nn.Parameter(stacked.pop(name)) for name in trainable},
        fixed=stacked,
        X=X,
        y=y,
        criterion=criterion,
        is_chain=_is_chain(first, X),
        is_entropy=_is_plain_entropy(criterion, y),
    )
    try:
        with forked_torch(module_device(first)):
            stack.losses(torch.zeros(len(runs), min(2, len(X)), dtype=torch.int64))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"vectorize=True: module or criterion cannot be vectorised over runs: "
            f"{str(error).splitlines()[0]} Dropout and what draws random numbers, and steps that "
            "depend on values, need vectorize=False."
        ) from error
    return stack


def module_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, detached."""
    return {n: p.detach() for n, p in (*module.named_parameters(), *module.named_buffers())}


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of each run, of shape (n_runs, b, ...)."""
    taken = values.index_select(0, rows.flatten().to(values.device))
    return taken.view(*rows.shape, *values.shape[1:])


def _is_chain(module: nn.Module, X: torch.Tensor) -> bool:
    parts = list(module) if type(module) is nn.Sequential else []
    hooks = any(part._forward_hooks or part._forward_pre_hooks for part in (module, *parts))
    # A layer that is there twice is there under one name only.
    is_plain = len(parts) == len(set(parts)) and not hooks and X.ndim == 2
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    is_untied = names == {name for name, _ in module.named_parameters()}
    known = all(type(part) in (nn.Linear, *_ACTIVATIONS) for part in parts)
    return bool(parts) and is_plain and is_untied and known


def _chain_outputs(
    module: nn.Module, tensors: dict[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Return outputs of shape (n_runs, b, n_outputs); one product a layer, without vmap."""
    values = inputs
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            weight = tensors[f"{name}.weight"].transpose(1, 2)
            if part.bias is None:
                values = torch.bmm(values, weight)
            else:
                values = torch.baddbmm(tensors[f"{name}.bias"].unsqueeze(1), values, weight)
        else:
            values = part(values)
    return values


def _is_plain_entropy(criterion: Any, y: torch.Tensor) -> bool:
    return (
        type(criterion) is nn.CrossEntropyLoss
        and criterion.reduction == "mean"
        and criterion.weight is None
        and criterion.label_smoothing == 0
        and y.ndim == 1
        and not y.is_floating_point()
        and not bool((y == criterion.ignore_index).any())
    )


def _refuse_state(module: nn.Module, rows: torch.Tensor) -> None:
    """Refuse a module that changes its buffers, such as BatchNorm, or draws random numbers."""
    tried = copy.deepcopy(module).train()
    before = [buffer.clone() for buffer in tried.buffers()]
    with torch.no_grad(), forked_torch(module_device(module)):
        state = torch.get_rng_state()
        outputs = []
        # A module that fails on two rows fails with its own message when it is stacked.
        with suppress(RuntimeError, ValueError):
            outputs = [tried(rows.clone()) for _ in range(2)]
        drew = not torch.equal(state, torch.get_rng_state())
    changed = any(not torch.equal(a, b) for a, b in zip(before, list(tried.buffers()), strict=True))
    # numpy's generator, or one of the module's own, would give all runs the same noise.
    drew = drew or (not changed and len(outputs) == 2 and not _are_alike(*outputs))
    if drew or changed:
        what = "draws random numbers (dropout)" if drew else "changes its buffers (BatchNorm)"
        raise ValueError(
            f"vectorize=True: module={type(module).__name__} {what} in training mode, which runs "
            "that are trained together cannot do. Set vectorize=False."
        )


def _are_alike(first: Any, second: Any) -> bool:
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return True
    return torch.allclose(first, second, equal_nan=True)
