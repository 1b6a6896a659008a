"""Runs at step 0: module built and initialised, random streams seeded, labels checked."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skdmap._parameters import parameter_layout
from skdmap._random import SeedStreams, forked_torch, seed_torch, seeded_states
from skdmap._sklearn_compat import InvalidParameterError
from skdmap.trajectory._training.factories import build_module
from skdmap.trajectory._training.module_io import cast_inputs, module_outputs, output_width
from skdmap.trajectory._training.module_state import module_device
from skdmap.trajectory._training.run_state import Run
from skdmap.trajectory._training.targets import Targets, settle_classes
from skdmap.trajectory._training.torch_context import on_cpu


def fresh_runs(
    example: np.ndarray,
    targets: Targets,
    criterion: Any,
    *,
    module: Any,
    module_params: Mapping[str, Any] | None,
    n_runs: int,
    device: Any,
    seeds: SeedStreams,
) -> tuple[Iterable[Run], Targets]:
    """Return runs, each built when its turn comes, and the targets for the width of the module.
    ``example``: some samples of X; ``criterion``: as built, None for the default one.
    """
    # Without a module of the user's, the labels decide on the width; else the width on the labels.
    if module is None:
        targets = settle_classes(targets, criterion, None)
    where = resolve_device(device)
    default = torch.get_default_device()
    if where is None and default.type != "cpu" and not isinstance(module, nn.Module):
        where = default  # a module that is made there is initialised on the CPU all the same

    def one_by_one() -> Iterator[Run]:
        for index in range(n_runs):
            yield start_run(
                index,
                seeds,
                module,
                module_params,
                example=example,
                n_outputs=targets.n_outputs,
                device=where,
            )

    runs = one_by_one()
    if module is None or criterion is None:
        return runs, targets
    first = next(runs)
    width = output_width(first.module, example)
    if width:  # else no target fits the outputs, which make_task reports
        targets = settle_classes(targets, criterion, width)
    return chain([first], runs), targets


def start_run(
    index: int,
    seeds: SeedStreams,
    module: Any,
    module_params: Mapping[str, Any] | None,
    *,
    example: np.ndarray,
    n_outputs: int,
    device: torch.device | None,
) -> Run:
    """Return a run at step 0, with a freshly initialised module and seeded streams."""
    # Initialised on the CPU, so that all devices start alike.
    cpu = torch.device("cpu")
    with forked_torch(cpu), on_cpu():
        seed_torch(seeds.seed("init", index), cpu)
        built = build_module(
            module, module_params, n_features=example.shape[1], n_outputs=n_outputs
        )
        if any(is_lazy(p) for p in built.parameters()):
            with torch.no_grad():  # a first call gives them their shapes and values
                module_outputs(built.eval(), cast_inputs(example, built))
    parameter_layout(built)  # an error where nothing is trainable
    if device is not None:
        built = built.to(device)
    dropout = seeded_states(seeds.seed("dropout", index), module_device(built))
    batches = torch.Generator().manual_seed(seeds.seed("batches", index)).get_state()
    return Run(index, built, batches, dropout, seeds.seed("label_noise", index))


def resolve_device(device: Any) -> torch.device | None:
    """Return the device, one that holds tensors, or None for the module's own."""
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InvalidParameterError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]}. Pass None for the "
            "module's own device, 'cpu', or 'cuda' where there is a GPU for it."
        ) from error
