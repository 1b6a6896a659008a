"""kill -9 at random moments: no row is wrong, and resuming ends as if nothing had happened."""

import random
import time
import warnings
from textwrap import dedent

import numpy as np
import pytest

from skdmap import open_trajectory

SCRIPT = dedent("""
    import sys
    import numpy as np
    import torch
    torch.set_num_threads(1)
    import skdmap.trajectory._storage.store as store
    from skdmap import TrajectorySampler
    store._STATE_EVERY, store._SYNC_EVERY = 0.05, 0.02
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 20)).astype(np.float32), rng.integers(0, 4, 200)
    module = lambda: torch.nn.Sequential(
        torch.nn.Linear(20, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.2),
        torch.nn.Linear(16, 4))
    options = eval(sys.argv[2])
    print("ready", flush=True)
    TrajectorySampler(
        module, max_epochs=20, batch_size=8, store=sys.argv[1], resume=True, random_state=0,
        **options).fit(X, y)
    print("over", flush=True)
""")
KINDS = {
    "momentum": {"optimizer_params": {"lr": 0.05, "momentum": 0.9}},
    "adam and two runs": {"optimizer": "Adam", "n_runs": 2},
    "scheduler": {
        "scheduler": "CosineAnnealingLR", "scheduler_params": {"T_max": 20}, "n_runs": 2,
    },
    "sketch": {"optimizer": "Adam", "sketch_dim": 64, "n_runs": 2},
    "half precision": {"dtype": "float16", "record_every": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def started(start_script):
    """Return a function that starts a run and waits until its fit begins."""

    def start(folder, kind):
        script = start_script(SCRIPT, folder, repr(KINDS[kind]))
        while script.is_alive() and "ready" not in script.output():
            time.sleep(0.001)
        return script

    return start


def files_of(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".npy", ".jsonl")
        or path.name in ("skdmap-store.json", "skdmap-results.json")
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, started):
    """Folders of runs that nobody killed, with the seconds that they took, made when asked for."""
    made = {}

    def folder(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp("whole") / "s"
            script, begin = started(path, kind), time.monotonic()
            done = script.wait()
            assert done.returncode == 0, done.stderr
            made[kind] = path, time.monotonic() - begin
        return made[kind]

    return folder


@pytest.mark.parametrize(
    ("kind", "n_kills"),
    [
        ("momentum", 2),
        *(pytest.param(kind, 20, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_kill_nine_and_resume_until_it_is_over(kind, n_kills, undisturbed, started, tmp_path):
    whole, seconds = undisturbed(kind)
    expected = open_trajectory(whole, verify=True)
    moments, folder, landed = random.Random(kind), tmp_path / "s", 0
    for _ in range(4 * n_kills):
        script = started(folder, kind)
        time.sleep(moments.uniform(0, 1.2 * seconds / max(1, n_kills / 4)))
        script.kill()
        done = script.wait()
        assert done.returncode == -9 or "over" in done.stdout, done.stderr
        landed += done.returncode == -9
        check_rows(folder, expected)
        if landed == n_kills:
            break
    done = started(folder, kind).wait()
    assert done.returncode == 0, done.stderr
    assert files_of(folder) == files_of(whole)


def check_rows(folder, expected):
    """The store opens; its rows are the first ones of the run that nobody killed."""
    if not (folder / "skdmap-store.json").exists():
        return  # killed before there was anything
    with warnings.catch_warnings():
        # A line that was being written is said, and is no row.
        warnings.simplefilter("ignore")
        found = open_trajectory(folder, verify=True)
    n_rows = len(found.steps_)
    for name in ("snapshots_", "buffers_", "steps_", "run_ids_", "losses_", "learning_rates_"):
        np.testing.assert_array_equal(
            np.asarray(getattr(found, name)), np.asarray(getattr(expected, name))[:n_rows]
        )
