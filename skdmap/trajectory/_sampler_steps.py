"""The steps between the parameters of the sampler and the runs."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from skdmap._random import SeedStreams, resolve_seeds
from skdmap._sklearn_compat import InvalidParameterError, validate_data, validate_parameters
from skdmap.trajectory._build import build_criterion
from skdmap.trajectory._callbacks import after_row
from skdmap.trajectory._constraints import REMEDIES
from skdmap.trajectory._fresh_runs import fresh_runs
from skdmap.trajectory._label_noise import noisy_targets
from skdmap.trajectory._observables import check_record
from skdmap.trajectory._plan import Plan
from skdmap.trajectory._recording import Recording, record_runs
from skdmap.trajectory._resume_state import checksum, describe, stored_seeds
from skdmap.trajectory._run import Run
from skdmap.trajectory._targets import Targets, encode_targets

_PASSED_ON = (
    "label_noise", "optimizer", "optimizer_params", "scheduler", "scheduler_params",
    "scheduler_interval", "batch_size", "record_every", "burn_in", "parameters", "sketch_dim",
    "store", "resume", "vectorize", "callbacks", "verbose",
)  # fmt: skip
# What may differ between a recording and its continuation: it changes no bit of a row.
_FREE = ("store", "resume", "warm_start", "callbacks", "verbose", "random_state")


class SamplerSteps:
    """What ``fit`` and ``partial_fit`` of the sampler share; the sampler holds the parameters."""

    _keep: Callable[..., Self]
    _runs: list[Run]
    get_params: Callable[..., dict[str, Any]]
    module: Any
    module_params: Any
    criterion: Any
    criterion_params: Any
    n_runs: int
    device: Any
    dtype: Any
    record: Any
    store: Any
    resume: bool
    random_state: Any
    label_noise: float
    callbacks: Any

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, Targets]:
        validate_parameters(self, REMEDIES)
        if self.resume and self.store is None:
            raise InvalidParameterError(
                "resume=True needs store=, the folder to go on with. Pass it, or resume=False."
            )
        after_row(self.callbacks)  # an error where one cannot be called
        X, y = validate_data(self, X, y, reset=reset, multi_output=True, allow_nd=True)
        if self.module is None and X.ndim != 2:
            raise ValueError(
                f"X has shape {X.shape}, must have two dimensions for module=None. Reshape it, or "
                "pass a module that takes it."
            )
        known = None if reset else vars(self).get("classes_")
        targets = encode_targets(y, self._indexing_criterion(), known)
        self._note_classes(targets, reset=reset)
        return X, targets

    def _note_classes(self, targets: Targets, *, reset: bool) -> None:
        if targets.classes is not None:
            self.classes_ = targets.classes
        elif reset:
            self.__dict__.pop("classes_", None)

    def _indexing_criterion(self) -> Any:
        """Return a given criterion as built, so that its weight and ignore_index can be read."""
        if self.criterion is None:  # without settings, and y may hold any labels
            return None
        return build_criterion(self.criterion, self.criterion_params, torch.device("cpu"))

    def _begin(self, X: np.ndarray, targets: Targets, n_steps: int) -> Self:
        """Make fresh runs and record them."""
        seeds = (
            stored_seeds(self.random_state, self.store)
            if self.resume
            else resolve_seeds(self.random_state)
        )
        runs, targets = fresh_runs(
            X[:2],
            targets,
            self._indexing_criterion(),
            module=self.module,
            module_params=self.module_params,
            n_runs=self.n_runs,
            device=self.device,
            seeds=seeds,
        )
        self._note_classes(targets, reset=False)
        noisy_targets(targets, self.label_noise, seed=0)  # an error before anything is built
        self._settings = {} if self.store is None else self._described(X, targets, seeds)
        plan = self._plan(X, targets, n_steps, self.n_runs, goes_on=False)
        return self._take(record_runs(runs, plan), plan)

    def _go_on(self, X: np.ndarray, targets: Targets, n_steps: int) -> Self:
        """Go on with the runs that there are."""
        plan = self._plan(X, targets, n_steps, len(self._runs), goes_on=True)
        recording = record_runs(self._runs, plan, vars(self).get("_keeper"))
        return self._take(recording, plan, self._runs)

    def _take(self, recording: Recording, plan: Plan, runs: list[Run] | None = None) -> Self:
        self._rows_are_parameters = isinstance(plan.record, str)
        return self._keep(recording, runs)

    def _criterion(self, targets: Targets) -> Callable[[torch.device], Any]:
        default = nn.MSELoss if targets.classes is None else nn.CrossEntropyLoss
        criterion = default if self.criterion is None else self.criterion
        return partial(build_criterion, criterion, self.criterion_params)

    def _plan(
        self, X: np.ndarray, targets: Targets, n_steps: int, n_runs: int, *, goes_on: bool
    ) -> Plan:
        return Plan(
            X=X,
            targets=targets,
            criterion=self._criterion(targets),
            n_runs=n_runs,
            n_steps=n_steps,
            goes_on=goes_on,
            record=check_record(self.record, X),
            dtype=self._dtype(),
            settings=self._settings,
            **{name: getattr(self, name) for name in _PASSED_ON},
        )

    def _dtype(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _described(self, X: np.ndarray, targets: Targets, seeds: SeedStreams) -> dict[str, Any]:
        """Return what a resumed recording must share with the one that it goes on with."""
        params = self.get_params(deep=False)
        settings = {name: describe(v) for name, v in params.items() if name not in _FREE}
        settings["module"] = "make_mlp" if self.module is None else settings["module"]
        settings["dtype"] = self._dtype()
        settings["seeds"] = {"master": seeds.master, "held": dict(seeds.held)}
        settings["data"] = {"X": checksum(X), "y": checksum(targets.values)}
        settings["n_threads"] = torch.get_num_threads()
        return settings

    def _refuse_resume(self) -> None:
        folder = None if self.store is None else os.fspath(self.store)
        if self.resume:
            raise InvalidParameterError(
                f"resume=True with store={folder!r}: partial_fit cannot tell which pass the folder "
                "ends with. Call fit, or go on with the sampler that wrote it."
            )
