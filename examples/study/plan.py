"""What the study computes: the trainings, then one task for each number it speaks of."""

from dataclasses import dataclass

import curvature
import dimension
import known
import projection
from settings import Setting, factorial_settings, shared_start, study_settings
from tasks import Task, training

# Steps for each row of R6, from coarse to fine: its table is shown at each of them.
STEPS_A_ROW = (3, 2, 1)
# Null models are compared over so many rows.
MOST_TESTED_ROWS = 121


@dataclass(frozen=True)
class Plan:
    """Settings, sizes and tasks of a study; equal plans give equal reports."""

    settings: list[Setting]
    cells: list[tuple[dict[str, int], Setting]]
    row_counts: list[int]
    n_rows: int
    n_surrogates: int
    n_projected: int
    tasks: dict[str, Task]

    @property
    def base(self) -> Setting:
        return self.settings[0]

    @property
    def trainings(self) -> list[Task]:
        unique = {s.key: s for s in [*self.settings, *(cell for _, cell in self.cells)]}
        return [training(setting) for setting in unique.values()]

    def shared(self) -> dict[str, bool]:
        """Tell for each setting whether its runs start where those of the base setting do."""
        return {setting.name: shared_start(setting, self.base) for setting in self.settings}


def make_plan(*, quick: bool, seed: int) -> Plan:
    """Return the plan of the quick or of the full study."""
    settings = study_settings(quick=quick, seed=seed)
    cells = factorial_settings(quick=quick, seed=seed)
    everything = [*settings, *(cell for _, cell in cells)]
    # Every setting has as many steps, so that equal numbers of rows are equally many steps apart.
    (n_steps,) = {setting.n_steps for setting in everything}
    row_counts = [1 + n_steps // steps for steps in STEPS_A_ROW]
    n_rows = min(MOST_TESTED_ROWS, row_counts[-1])
    # Enough for a p-value that survives Holm's correction over all settings.
    n_surrogates = 149 if quick else 299
    n_projected = 100 if quick else 300
    tasks = [
        *_curvature_tasks(settings[0], quick, seed, n_projected),
        *_map_tasks(settings, quick, seed, n_surrogates),
        Task("walk", dimension.walk_as_seen, (), {"n_rows": row_counts[-1], "seed": seed}),
        *(
            Task(
                f"measures {s.name}",
                dimension.measures,
                (s,),
                {"row_counts": row_counts, "seed": seed},
            )
            for s in everything
        ),
    ]
    for setting in settings:
        own = {"n_rows": n_rows, "n_surrogates": n_surrogates, "seed": seed}
        tasks.append(Task(f"claims {setting.name}", dimension.claims, (setting,), own))
    return Plan(
        settings,
        cells,
        row_counts,
        n_rows,
        n_surrogates,
        n_projected,
        {task.name: task for task in tasks},
    )


def _curvature_tasks(base: Setting, quick: bool, seed: int, n_projected: int) -> list[Task]:
    lengths = (
        {"n_chains": 2, "burn_in": 2000, "n_steps": 4000}
        if quick
        else {"n_chains": 4, "burn_in": 10000, "n_steps": 20000}
    )
    tasks = [Task("equilibrium", curvature.equilibrium, (base,), lengths | {"seed": seed})]
    for run in range(base.n_runs):
        of_run = {"run": run}
        tasks += [
            Task(f"hessian {run}", curvature.hessian_along, (base,), of_run),
            Task(f"noise {run}", curvature.noise_along, (base,), of_run),
            Task(
                f"top {run}", projection.top_space, (base,), of_run | {"n_steps": n_projected}
            ),
        ]  # fmt: skip
    return tasks


def _map_tasks(settings: list[Setting], quick: bool, seed: int, n_surrogates: int) -> list[Task]:
    base = settings[0]
    tasks = [
        Task("map of optimizers", dimension.map_of, tuple(settings[:3]), {"seed": seed}),
        Task("map of a run", dimension.map_of_run, (base,)),
    ]
    for draw in range(2 if quick else 10):
        own = {"n_rows": 2000 if quick else 6000, "lists": draw == 0, "seed": seed + draw}
        tasks.append(Task(f"known answer {draw}", known.known_answer, (), own))
    for null in dimension.NULLS:
        own = {"null": null, "seed": seed}
        tasks.append(Task(f"envelopes {null}", dimension.envelopes, (base,), own))
    for null in dimension.KEEPING:
        own = {"null": null, "n_surrogates": n_surrogates, "seed": seed}
        tasks.append(Task(f"windows {null}", dimension.windows, (base,), own))
    return tasks
