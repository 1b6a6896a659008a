"""Random settings of the sampler, killed at random moments: resumed, they end bit for bit alike.

While a fit is resumed, another process reads its rows through an open memory map. The environment
variable SKDMAP_FUZZ_CASES sets the number of cases, 20 where it is not set.
"""

import os
import subprocess
import sys
from textwrap import dedent

import pytest

N_CASES = int(os.environ.get("SKDMAP_FUZZ_CASES", "20"))

# One process that forks: torch is imported once, and a child is killed without its parent.
SCRIPT = dedent('''
    import os, random, select, signal, sys, time, traceback, warnings
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn

    torch.set_num_threads(1)
    import skdmap.trajectory._storage.store as store
    from skdmap import Displacement, LogSpaced, TrajectorySampler, WallClock, open_trajectory

    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    pick = random.Random(seed)
    rng = np.random.default_rng(seed)
    N = 60
    REAL, TOKENS = rng.normal(size=(N, 6)), rng.integers(0, 9, (N, 6))
    LABELS, VALUES = rng.integers(0, 3, N), rng.normal(size=(N, 3))


    class Noisy(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
            )


    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.cell = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True)
            self.out, self.drop = nn.Linear(4, 3), nn.Dropout(0.2)

        def forward(self, words):
            return self.out(self.drop(self.cell(self.table(words))[0][:, -1]))


    class Langevin(torch.optim.SGD):
        def step(self, closure):
            loss = super().step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.add_(1e-3 * torch.randn_like(p))
            return loss


    def function(module):
        return torch.cat([p.detach().abs().sum().reshape(1) for p in module.parameters()])


    def settings():
        module = pick.choice([None, Noisy, Words])
        X = TOKENS if module is Words else REAL
        y = VALUES if pick.random() < 0.3 else LABELS
        max_epochs, batch_size = pick.randint(6, 20), pick.choice([7, 16, None])
        optimizer, optimizer_params = pick.choice([
            ("SGD", {"lr": 0.05, "momentum": 0.9}), ("SGD", {}), ("Adam", {"lr": 0.01}),
            ("RMSprop", {"lr": 0.003}), ("LBFGS", {"lr": 0.1, "max_iter": 3}),
            (Langevin, {"lr": 0.05}),
        ])
        interval = pick.choice(["epoch", "step"])
        scheduler, scheduler_params = pick.choice([
            (None, None), ("StepLR", {"step_size": 2, "gamma": 0.7}),
            ("CosineAnnealingLR", {"T_max": 9}), ("ReduceLROnPlateau", {"patience": 0}),
            ("ExponentialLR", {"gamma": 0.98}),
        ])
        dtype, sketch_dim = pick.choice([
            ("float32", None), ("float64", None), ("float16", None), ("float32", 16),
        ])
        record = pick.choice(["parameters"] * 3 + ["outputs", ("outputs", X[:4]), function])
        if record != "parameters":
            sketch_dim = None
        clock = WallClock(pick.choice([0.002, 0.02]))
        every = pick.choice([
            1, 2, 5, "epoch", LogSpaced(9), Displacement(0.05), Displacement(0.2, along="path"),
            [0, 1, 2, 3], [1, 3], clock,
        ])
        if every is clock:  # rows are compared with those of all steps
            dtype, sketch_dim = pick.choice(["float32", "float64"]), None
        return X, y, {
            "module": module, "optimizer": optimizer, "optimizer_params": optimizer_params,
            "scheduler": scheduler, "scheduler_params": scheduler_params,
            "scheduler_interval": interval, "max_epochs": max_epochs, "batch_size": batch_size,
            "record_every": every, "burn_in": pick.choice([0, 0, 3]), "record": record,
            "parameters": pick.choice([None, None, "*weight*"]), "n_runs": pick.randint(1, 3),
            "label_noise": pick.choice([0.0, 0.0, 0.1]), "dtype": dtype, "sketch_dim": sketch_dim,
            "random_state": pick.choice([seed, {"seed": seed, "init": 1}]),
        }


    # What torch imports with its first optimizer takes longer than a run.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()
    X, y, params = settings()
    store._STATE_EVERY = pick.choice([0.0, 0.01, 0.05])
    store._SYNC_EVERY = pick.choice([0.0, 0.02])
    name = pick.choice(["rows", "rows", "rows.zarr"])
    warnings.simplefilter("ignore")


    def fit(path, resume, changed):
        TrajectorySampler(store=path, resume=resume, **{**params, **changed}).fit(X, y)


    def child(call, *args):
        pid = os.fork()
        if pid:
            return pid
        try:
            call(*args)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)


    def run(path, *, resume=False, seconds=None, **changed):
        """Return whether the fit came to its end, and how long that took."""
        begin = time.monotonic()
        pid = child(fit, path, resume, changed)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL and seconds is not None, status
            return False, None
        assert os.WEXITSTATUS(status) == 0, "the fit raised"
        return True, time.monotonic() - begin


    def columns(path):
        found = open_trajectory(path, verify=True)
        names = ["steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_",
                 "buffers_", "sketch_error_", "step_lengths_", "start_distances_"]
        values = {n: getattr(found, n) for n in names}
        values["snapshots_"] = np.asarray(found.snapshots_)
        values |= {f"history {k}": v for k, v in (found.history_ or {}).items()}
        values |= {f"ends {k}": v for k, v in (found.endpoints_ or {}).items()}
        return {n: None if v is None else np.asarray(v) for n, v in values.items()}


    def read(path, stop, whole):
        """Read the rows of an open map until told to stop; each is right, or an error says why."""
        found = open_trajectory(path)
        rows, keys = found.snapshots_, list(zip(found.run_ids_, found.steps_))
        at = {key: i for i, key in enumerate(zip(whole["run_ids_"], whole["steps_"]))}
        known = {row.tobytes() for row in whole["snapshots_"]}
        n_reads = 0
        while n_reads < 3 or not select.select([stop], [], [], 0.001)[0]:
            try:
                seen = np.asarray(rows[:])
            except ValueError as error:
                assert str(path) in str(error), error
                return
            if by_clock:  # rows of other steps may take the places of those dropped
                assert all(row.tobytes() in known for row in seen)
            else:
                wanted = whole["snapshots_"][[at[key] for key in keys]]
                np.testing.assert_array_equal(seen, wanted)
            n_reads += 1


    by_clock = isinstance(params["record_every"], WallClock)
    changed = {"record_every": 1} if by_clock else {}
    _, seconds = run(folder / "whole" / name, **changed)
    whole, n_kills, n_readers = columns(folder / "whole" / name), 0, 0
    path = folder / "killed" / name
    is_over = False
    while not is_over:
        stop, told = os.pipe()
        reader = None
        if (path / "skdmap-store.json").exists():
            open_trajectory(path, verify=True)
            reader = child(read, path, stop, whole)
        limit = None if n_kills == 4 else pick.uniform(0.0, 1.1) * seconds
        is_over, _ = run(path, resume=True, seconds=limit)
        n_kills += not is_over
        os.write(told, b".")
        if reader is not None:
            _, status = os.waitpid(reader, 0)
            assert status == 0, f"the reader ended with {status}"
            n_readers += 1
        os.close(stop), os.close(told)
    got = columns(path)
    if by_clock:
        at = {(r, s): i for i, (r, s) in enumerate(zip(whole["run_ids_"], whole["steps_"]))}
        places = [at[key] for key in zip(got["run_ids_"], got["steps_"])]
        names = ["snapshots_", "losses_", "learning_rates_", "buffers_", "epochs_"]
        bad = [n for n in names if not np.array_equal(got[n], whole[n][places], equal_nan=True)]
        for r in set(got["run_ids_"]):
            own = got["steps_"][got["run_ids_"] == r]
            if not (np.diff(own) > 0).all() or own[-1] != max(s for q, s in at if q == r):
                bad.append(f"steps of run {r}")
    else:
        bad = [n for n in {**whole, **got} if (whole.get(n) is None) != (got.get(n) is None)
               or whole[n] is not None and not np.array_equal(whole[n], got[n], equal_nan=True)]
    print(f"{n_kills} kills, {n_readers} readers, {len(got['steps_'])} rows, differences: {bad}; "
          f"{name} state {store._STATE_EVERY} { {k: str(v)[:40] for k, v in params.items()} }")
    sys.exit(bool(bad))
''')


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(N_CASES))
def test_a_killed_fit_resumes_bit_for_bit(seed, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed), str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
