"""The trajectory leg beside the bare loop: ``python benchmarks/trajectory.py [CASE ...]``.

Cases: ``T1``, every step of an MLP 64-64-10 on digits, beside the loop, and beside the loop with
what nobody can leave out who keeps the same by hand: each row, the length of each step, and with a
file a checksum and a line for each row; ``T2``, every tenth step of 10^7 parameters to disk, beside
the loop that writes the same rows with ``ndarray.tofile`` and beside the loop that keeps nothing;
``sketch``, 200 rows of 10^7 parameters as sketches of 4096 columns, beside
the loop that keeps nothing: its memory is what the sketch is for; ``vectorize``, 16 runs of
64-32-10. Times are CPU seconds of all threads. Accuracy: the largest difference of the last row
from that of the loop; for the sketch, the errors of squared distances in units of sqrt(2 / 4096).
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from harness import main, timed

EPOCHS, BATCH, LR = 200, 128, 0.1
WIDE_ROWS, WIDE_STEPS, WIDE_BATCH = 128, 100, 128


def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def wide_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(WIDE_ROWS, 1000)).astype(np.float32)
    return X, rng.integers(0, 10, WIDE_ROWS)


def mlp():
    from skdmap import make_mlp

    return make_mlp(64, 10, hidden=64)


def wide():
    """10^7 parameters: 1000 - 2690 - 2690 - 10."""
    from skdmap import make_mlp

    return make_mlp(1000, 10, hidden=(2690, 2690))


def loop(make, data, n_steps, batch_size, on_step=None):
    """Train as one writes it by hand, on indexed tensors."""
    import torch

    from skdmap._random import SeedStreams

    seeds = SeedStreams(0)
    torch.manual_seed(seeds.seed("init", 0))
    module = make()
    X, y = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    criterion = torch.nn.CrossEntropyLoss()
    generator = torch.Generator().manual_seed(seeds.seed("batches", 0))
    step = 0
    while step < n_steps:
        for rows in torch.randperm(len(X), generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss = criterion(module(X[rows]), y[rows])
            loss.backward()
            optimizer.step()
            step += 1
            if on_step is not None:
                on_step(step, module, loss)
            if step == n_steps:
                break
    return module


def flat(module):
    import torch

    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()


def sampler(make, n_steps, batch_size, **options):
    from skdmap import TrajectorySampler

    return TrajectorySampler(
        make,
        optimizer_params={"lr": LR},
        max_epochs=None,
        max_steps=n_steps,
        batch_size=batch_size,
        random_state=0,
        **options,
    )


def in_folder(work):
    """Give the work a folder on the disk, and take it away again."""
    folder = Path(tempfile.mkdtemp())
    try:
        return work(folder)
    finally:
        shutil.rmtree(folder)


def small_steps():
    return EPOCHS * -(-1797 // BATCH)


def t1(**options):
    data = digits()
    sampler(mlp, 20, BATCH).fit(*data)  # warm

    def work(folder):
        where = {"store": folder / "store"} if options.get("with_store") else {}
        model = sampler(mlp, small_steps(), BATCH, **where)
        _, times = timed(lambda: model.fit(*data))
        error = np.abs(flat(loop(mlp, data, small_steps(), BATCH)) - model.snapshots_[-1]).max()
        return times | {"accuracy": f"difference {error:.0e}"}

    return in_folder(work)


def t1_loop(every_loss=True):
    data = digits()
    sampler(mlp, 20, BATCH).fit(*data)
    losses = []
    keep = (lambda step, module, loss: losses.append(loss.item())) if every_loss else None
    _, times = timed(lambda: loop(mlp, data, small_steps(), BATCH, keep))
    return times | {"accuracy": "no rows"}


def t1_floor(writes):
    """Rows, lengths of steps and losses kept by hand, and written with checksums or not."""
    import json
    import zlib

    import torch

    data = digits()
    sampler(mlp, 20, BATCH).fit(*data)
    rows = np.empty((small_steps(), 4810), dtype=np.float32)
    cells = []

    def work(folder):
        with (folder / "rows").open("wb", 0) as file, (folder / "lines").open("wb", 0) as journal:
            before = torch.zeros(4810)

            def keep(step, module, loss):
                nonlocal before
                theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
                cells.append((step, loss.item(), torch.dist(theta, before).item()))
                before, row = theta, theta.numpy()
                if writes:
                    file.write(row)
                    line = {"cell": cells[-1], "crc": zlib.crc32(row)}
                    journal.write(json.dumps(line).encode() + b"\n")
                else:
                    rows[step - 1] = row

            _, times = timed(lambda: loop(mlp, data, small_steps(), BATCH, keep))
        return times | {"accuracy": "rows by hand, one run, no header"}

    return in_folder(work)


def t2():
    data = wide_data()

    def work(folder):
        model = sampler(wide, WIDE_STEPS, WIDE_BATCH, record_every=10, store=folder / "store")
        _, times = timed(lambda: model.fit(*data))
        gigabytes = model.snapshots_.nbytes / 2**30
        return times | {"accuracy": f"{len(model.steps_)} rows, {gigabytes:.2f} GiB"}

    return in_folder(work)


def t2_loop(writes):
    data = wide_data()

    def work(folder):
        import os

        with (folder / "rows").open("wb") as file:

            def keep(step, module, loss):
                if step % 10 == 0 or step == 1:
                    flat(module).tofile(file)

            def train():
                loop(wide, data, WIDE_STEPS, WIDE_BATCH, keep if writes else None)
                os.fsync(file.fileno())

            _, times = timed(train)
        return times | {"accuracy": "11 rows, unchecked" if writes else "no rows"}

    return in_folder(work)


def sketch():
    from skdmap.trajectory._storage.sketch import sketch_part

    data = wide_data()
    model = sampler(wide, 199, 16, sketch_dim=4096)
    _, times = timed(lambda: model.fit(*data))
    errors = np.abs(model.sketch_error_[1:]) / np.sqrt(2 / 4096)
    row = np.random.default_rng(0).normal(size=10**7).astype(np.float32)
    _, one = timed(lambda: sketch_part(row, key=1, sketch_dim=4096))
    words = f"errors <= {errors.max():.1f}, one sketch {one['cpu']:.2f} s"
    return times | {"accuracy": words}


def sketch_loop():
    data = wide_data()
    _, times = timed(lambda: loop(wide, data, 199, 16))
    return times | {"accuracy": "no rows"}


def sixteen(vectorize):
    from skdmap import TrajectorySampler

    data = digits()
    options = {"n_runs": 16, "max_epochs": 14, "random_state": 0}
    TrajectorySampler(n_runs=2, max_epochs=1, vectorize=vectorize).fit(*data)
    model = TrajectorySampler(vectorize=vectorize, **options)
    _, times = timed(lambda: model.fit(*data))
    if not vectorize:
        return times | {"accuracy": "exact"}
    single = TrajectorySampler(**options).fit(*data)
    errors = [
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for run in range(16)
        for a, b in zip(
            model.snapshots_[model.run_ids_ == run][:101],
            single.snapshots_[single.run_ids_ == run][:101],
            strict=True,
        )
    ]
    return times | {"accuracy": f"100 steps to {max(errors):.0e}"}


CASES = {
    "T1": {
        "skdmap": t1,
        "skdmap, store": lambda: t1(with_store=True),
        "loop": t1_loop,
        "loop without losses": lambda: t1_loop(every_loss=False),
        "loop that keeps rows": lambda: t1_floor(False),
        "loop that writes rows": lambda: t1_floor(True),
    },
    "T2": {
        "skdmap": t2,
        "loop, tofile": lambda: t2_loop(True),
        "loop": lambda: t2_loop(False),
    },
    "sketch": {"skdmap": sketch, "loop": sketch_loop},
    "vectorize": {"skdmap": lambda: sixteen(True), "one after another": lambda: sixteen(False)},
}


if __name__ == "__main__":
    main(__file__, CASES)
