"""Random loops around a recorder, killed at random moments: resumed, they end as if undisturbed.

The loop keeps checkpoints of its own. While a recording is resumed, another process reads its rows
through an open memory map. The environment variable SKDMAP_FUZZ_CASES sets the number of cases, 20
where it is not set.
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
    from skdmap import Displacement, LogSpaced, TrajectoryRecorder, WallClock, open_trajectory

    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    pick = random.Random(seed)
    PROBE = torch.linspace(-1, 1, 18).reshape(3, 6)


    class Plain(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
            )


    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
            self.again, self.last = self.first, nn.Linear(6, 3)

        def forward(self, X):
            return self.last(self.again(self.first(X)))


    def function(module):
        return torch.cat([p.detach().abs().sum().reshape(1) for p in module.parameters()])


    def settings():
        n_steps, record = pick.randint(20, 80), pick.choice(
            ["parameters"] * 4 + [("outputs", PROBE), function]
        )
        dtype, sketch_dim = pick.choice(
            [("float32", None), ("float64", None), ("float16", None), ("float32", 16)]
        )
        every = pick.choice([
            1, 1, 3, 7, LogSpaced(9, total=n_steps), Displacement(0.05),
            Displacement(0.2, along="path"), [0, 1, 2, 5, n_steps - 1], WallClock(0.002),
        ])
        if isinstance(every, WallClock):  # its rows are compared with those of all steps
            dtype, sketch_dim = pick.choice(["float32", "float64"]), None
        return {
            "module": pick.choice([Plain, Shared]), "n_steps": n_steps,
            "optimizer": pick.choice(["SGD", "Adam", "LBFGS", "two"]),
            "schedule": pick.choice([False, True]), "order": pick.choice("ban"),
            "accumulate": pick.choice([1, 1, 2]), "checkpoint": pick.choice([1, 4, 10]),
        }, {
            "record_every": every, "burn_in": pick.choice([0, 0, 3]), "record": record,
            "parameters": pick.choice([None, None, "*weight*"]),
            "dtype": dtype, "sketch_dim": sketch_dim,
        }


    # What torch imports with its first optimizer takes longer than a run.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()
    loop, params = settings()
    store._STATE_EVERY = pick.choice([0.0, 0.01, 0.05])
    store._SYNC_EVERY = pick.choice([0.0, 0.02])
    name = pick.choice(["rows", "rows", "rows.zarr"])
    pause = pick.choice([0.0, 0.002])
    by_clock = isinstance(params["record_every"], WallClock)
    by_length = isinstance(params["record_every"], Displacement)
    warnings.simplefilter("ignore")


    def make():
        torch.manual_seed(seed)
        module = loop["module"]()
        groups = [list(module.parameters())]
        if loop["optimizer"] == "two":
            groups = [groups[0][:2], groups[0][2:]]
        kind = {"LBFGS": torch.optim.LBFGS, "Adam": torch.optim.Adam}.get(
            loop["optimizer"], torch.optim.SGD
        )
        more = {"max_iter": 3} if kind is torch.optim.LBFGS else {}
        return module, [kind(group, lr=0.05, **more) for group in groups]


    def train(path, checkpoint, **changed):
        """Go on from the checkpoint, if there is one."""
        module, optimizers = make()
        first = 0
        if checkpoint.exists():
            first, states = torch.load(checkpoint, weights_only=True)
            for one, state in zip((module, *optimizers), states):
                one.load_state_dict(state)
        (path.parent / "starts").open("a").write(f"{first}\\n")
        n_parts = 1 if loop["optimizer"] == "LBFGS" else loop["accumulate"]
        recorder = TrajectoryRecorder(
            module, optimizers, store=path, resume=True, first_step=first, **{**params, **changed}
        )
        with recorder:
            for step in range(first, loop["n_steps"]):
                torch.manual_seed(1000 * seed + step)
                if loop["schedule"]:
                    for one in optimizers:
                        one.param_groups[0]["lr"] = 0.05 / (1 + step / 10)
                X = torch.randn(n_parts, 8, 6)

                def closure():
                    torch.manual_seed(step)
                    for one in optimizers:
                        one.zero_grad()
                    total = 0.0
                    for part in X:
                        loss = (module(part) - part[:, :3].square()).square().mean() / n_parts
                        loss.backward()
                        total += loss.item()
                    return total

                if loop["optimizer"] == "LBFGS":
                    optimizers[0].step(lambda: torch.tensor(closure(), requires_grad=True))
                else:
                    total = closure()
                    if loop["order"] == "b":
                        recorder.log(total)
                    for one in optimizers:
                        one.step()
                    if loop["order"] == "a":
                        recorder.log(total)
                time.sleep(pause)
                if (step + 1) % loop["checkpoint"] == 0:
                    if by_clock or by_length:  # whatever is measured begins at a row
                        recorder.step()
                    states = [one.state_dict() for one in (module, *optimizers)]
                    torch.save((step + 1, states), checkpoint.with_suffix(".tmp"))
                    checkpoint.with_suffix(".tmp").replace(checkpoint)


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


    def run(path, *, seconds=None, **changed):
        """Return whether the loop came to its end, and how long that took."""
        path.parent.mkdir(exist_ok=True)
        begin = time.monotonic()
        pid = child(lambda: train(path, path.parent / "checkpoint.pt", **changed))
        if seconds is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL and seconds is not None, status
            return False, None
        assert os.WEXITSTATUS(status) == 0, "the loop raised"
        return True, time.monotonic() - begin


    def columns(path):
        found = open_trajectory(path, verify=True)
        names = ["steps_", "losses_", "learning_rates_", "path_lengths_", "buffers_",
                 "sketch_error_", "step_lengths_", "start_distances_"]
        values = {n: getattr(found, n) for n in names}
        values["snapshots_"] = np.asarray(found.snapshots_)
        values |= {f"ends {k}": v for k, v in (found.endpoints_ or {}).items()}
        return {n: None if v is None else np.asarray(v) for n, v in values.items()}


    def room(rows):
        """How far half-precision rows may be off, which begin anew when resumed."""
        if params["dtype"] != "float16" or not len(rows):
            return 0.0
        return 2.0**-10 * np.abs(np.diff(rows, axis=0)).max(initial=0.0) + 1e-7


    def read(path, stop, all_rows, all_steps):
        """Read the rows of an open map until told to stop; each is right, or an error says why."""
        if not (path / "skdmap-store.json").exists():
            return
        found = open_trajectory(path)
        steps, rows = found.steps_, found.snapshots_
        at = {step: i for i, step in enumerate(all_steps)}
        n_reads = 0
        while n_reads < 3 or not select.select([stop], [], [], 0.001)[0]:
            try:
                seen = np.asarray(rows[:])
            except ValueError as error:
                assert str(path) in str(error), error
                return
            if by_clock:  # rows of other steps may take the places of those dropped
                right = {row.tobytes() for row in all_rows}
                assert all(row.tobytes() in right for row in seen)
            else:
                wanted = all_rows[[at[step] for step in steps.tolist()]]
                np.testing.assert_allclose(seen, wanted, rtol=0, atol=room(all_rows))
            n_reads += 1


    # Every step, in the same format; in half precision what was rounded.
    every_step = {"record_every": 1, "burn_in": 0}
    if params["dtype"] == "float16":
        every_step["dtype"] = "float32"
    run(folder / "all" / name, **every_step)
    everything = columns(folder / "all" / name)
    changed = {"record_every": 1} if by_clock else {}
    _, seconds = run(folder / "whole" / name, **changed)
    whole, n_kills, n_readers = columns(folder / "whole" / name), 0, 0
    path, is_over = folder / "killed" / name, False
    while not is_over:
        stop, told = os.pipe()
        reader = None
        if path.exists():
            reader = child(read, path, stop, everything["snapshots_"], everything["steps_"])
        limit = None if n_kills == 4 else pick.uniform(0.0, 1.1) * seconds
        is_over, _ = run(path, seconds=limit)
        n_kills += not is_over
        os.write(told, b".")
        if reader is not None:
            _, status = os.waitpid(reader, 0)
            assert status == 0, f"the reader ended with {status}"
            n_readers += 1
        os.close(stop), os.close(told)
        if (path / "skdmap-store.json").exists():
            open_trajectory(path, verify=True)
    got, bad = columns(path), []
    starts = {int(line) for line in (path.parent / "starts").read_text().split()}
    reference = whole
    if by_clock:
        at = {step: i for i, step in enumerate(whole["steps_"])}
        places = [at[step] for step in got["steps_"]]
        reference = {n: None if v is None or n.startswith("ends") else v[places]
                     for n, v in whole.items()}
        if not (np.diff(got["steps_"]) > 0).all() or got["steps_"][-1] != loop["n_steps"]:
            bad.append("steps")
    # The first row after each start: lengths may be unknown, or straight up to the start.
    resumed = np.zeros(len(got["steps_"]), dtype=bool)
    for start in starts - {0}:
        resumed[np.searchsorted(got["steps_"], start):][:2] = True
    for n in {**reference, **got}:
        if by_clock and n in ("path_lengths_", "step_lengths_", "sketch_error_"):
            continue
        mine, right = got.get(n), reference.get(n)
        if (mine is None) != (right is None):
            bad += [] if by_clock else [n]
        elif mine is None:
            continue
        elif mine.shape != right.shape:
            bad.append(f"{n} {mine.shape} {right.shape}")
        elif n == "path_lengths_":
            sure = ~resumed & ~np.isnan(right)
            if not np.allclose(mine[sure], right[sure], rtol=1e-5):
                bad.append(n)
            if (mine[resumed] > right[resumed] * (1 + 1e-5) + 1e-7).any():
                bad.append(f"{n} after a resume")
        elif n in ("step_lengths_", "sketch_error_"):
            # After a resume the row before is not known in full.
            is_right = np.isclose(mine, right, rtol=1e-5, atol=1e-5, equal_nan=True)
            if not (is_right | (np.isnan(mine) & resumed)).all():
                bad.append(n)
        elif n == "learning_rates_":
            if not np.array_equal(mine[~resumed], right[~resumed], equal_nan=True):
                bad.append(n)
        elif n == "snapshots_" and params["dtype"] == "float16":
            if np.abs(mine - right).max() > room(everything["snapshots_"]):
                bad.append(n)
        elif not np.array_equal(mine, right, equal_nan=True):
            bad.append(n)
    print(f"{n_kills} kills, {n_readers} readers, {len(got['steps_'])} rows, differences: {bad}; "
          f"{name} state {store._STATE_EVERY} starts {sorted(starts)} {loop} "
          f"{ {k: str(v)[:40] for k, v in params.items()} }")
    sys.exit(bool(bad))
''')


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(N_CASES))
def test_a_killed_recording_resumes_as_an_undisturbed_one(seed, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed), str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
