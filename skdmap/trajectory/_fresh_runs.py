"""Runs that have not begun, and targets that speak of the outputs of their module."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from skdmap._random import SeedStreams
from skdmap.trajectory._run import Run
from skdmap.trajectory._runs import output_width, resolve_device, start_run
from skdmap.trajectory._targets import Targets, settle_classes

__all__ = ["fresh_runs"]


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
    """Return runs at step 0, and the targets for them.

    Parameters
    ----------
    example : ndarray of shape (n, n_features, ...)
        Some rows of X.
    targets : Targets
        Labels in sorted order, or values.
    criterion : callable or None
        As built; None leaves the targets as they are.
    module, module_params, n_runs, device : object
        As the user gave them.
    seeds : SeedStreams
        Of all runs.

    Returns
    -------
    runs : iterable of Run
        Each is built when its turn comes.
    targets : Targets
        As ``settle_classes`` makes them, with the width of the first module.

    Raises
    ------
    ValueError
        If the module cannot be built, or y does not fit it.
    """
    # Without a module of the user's the labels decide on the width, not the width on them.
    if module is None:
        targets = settle_classes(targets, criterion, None)
    where = resolve_device(device)

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
    if width:  # else the outputs are none that any target fits, which training says
        targets = settle_classes(targets, criterion, width)
    return chain([first], runs), targets
