"""Every single-bit flip of every file of a small store is seen by verify=True, or harmless.

SKDMAP_FLIPS is how many flips of each kind of store are tried, spread evenly; 0 stands for all.
"""

import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from skdmap import TrajectorySampler, open_trajectory

N_FLIPS = int(os.environ.get("SKDMAP_FLIPS", "2000"))
COLUMNS = (
    "snapshots_", "buffers_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_",
    "path_lengths_",
)  # fmt: skip
KINDS = {
    "rows": {},
    "zarr": {},
    "sketch": {"sketch_dim": 4},
    "float16": {"dtype": "float16"},
}
X = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))


def numbers(folder):
    """Return all that a store gives, as bytes by name."""
    found = open_trajectory(folder, verify=True, module=network)
    result = {name: np.ascontiguousarray(getattr(found, name)).tobytes() for name in COLUMNS}
    for name, tensor in found.module_.state_dict().items():
        result[f"module.{name}"] = tensor.numpy().tobytes()
    for run, pair in (found.endpoints_ or {}).items():
        result[f"endpoints.{run}"] = pair.tobytes()
    for name, column in found.history_.items():
        result[f"history.{name}"] = column.tobytes()
    return result | {"interrupted": found.interrupted_}


def resumed_rows(folder, options):
    sampler = TrajectorySampler(
        network, max_steps=3, batch_size=4, random_state=0, store=folder, resume=True, **options
    )
    return np.asarray(sampler.fit(X, Y).snapshots_).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_gives_other_numbers_without_a_word(kind, tmp_path, monkeypatch):
    if kind == "zarr":
        pytest.importorskip("zarr")
    good = tmp_path / ("good.zarr" if kind == "zarr" else "good")
    rows = resumed_rows(good, KINDS[kind])
    expected = numbers(good)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    paths = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())
    flips = [
        (path, place, bit)
        for path in paths
        for place in range((good / path).stat().st_size)
        for bit in range(8)
    ]
    step = max(1, len(flips) // N_FLIPS) if N_FLIPS else 1
    silent, unclear = [], []
    bad = shutil.copytree(good, tmp_path / f"bad{good.suffix}")
    for path, place, bit in flips[::step]:
        content = bytearray((good / path).read_bytes())
        content[place] ^= 1 << bit
        (bad / path).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                is_silent = numbers(bad) != expected
            except Exception as error:
                # A warning, or an error that names the file; not one of a parser's.
                if str(bad) not in str(error):
                    unclear.append((str(path), place, bit, repr(error)))
                is_silent = False
        if is_silent:
            silent.append((str(path), place, bit))
        (bad / path).write_bytes((good / path).read_bytes())
    print(f"{kind}: {len(flips[::step])} of {len(flips)} flips in {len(paths)} files")
    assert silent == []
    assert unclear == []
    assert resumed_rows(bad, KINDS[kind]) == rows
