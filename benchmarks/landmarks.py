"""Maps of millions of samples by 3,000 landmarks: ``python benchmarks/landmarks.py [CASE ...]``.

L1 and L2 have known answers: the sphere's Laplacian and harmonics, the arc length of a swiss roll.
L3 is a swiss roll with noise 0.05, turned into ten float32 columns of a memory map, of 10^5, 10^6
and 10^7 rows (400 MB of disk, in ``SKDMAP_BENCHMARK_FOLDER`` or the folder for temporary files;
removed afterwards), and normal samples of ten dimensions, whose neighbours take longest. Its memory
is the peak of anonymous pages, libraries included, without the embedding. L4 is the memory map as a
dask array on two local workers, next to the same array without dask; accuracy is the largest
difference relative to the largest coordinate.
"""

import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from harness import main, timed

N_SAMPLES = 1_000_000
N_LANDMARKS = 3000
BANDWIDTH = 0.1
FOLDER = "SKDMAP_BENCHMARK_FOLDER"
BLOCK = 250_000


def canonical_correlation(first, second):
    """Return the least canonical correlation of two sets of coordinates."""
    bases = [np.linalg.qr(A - A.mean(axis=0))[0] for A in (first, second)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).min()


def fitted(X, n_components, **settings):
    from skdmap import DiffusionMap

    mapping = DiffusionMap(n_components, n_landmarks=N_LANDMARKS, random_state=0, **settings)
    return timed(lambda: mapping.fit(X))


def sphere():
    from skdmap.datasets import make_sphere, sphere_eigenfunctions

    X = make_sphere(N_SAMPLES, design="random", random_state=0).X
    mapping, times = fitted(X, 8, bandwidth=BANDWIDTH, alpha=1.0)
    harmonics = sphere_eigenfunctions(X, 8)
    told = []
    for degree, part in ((1, slice(0, 3)), (2, slice(3, 8))):
        rates = mapping.laplacian_eigenvalues_[part]
        found = canonical_correlation(mapping.embedding_[:, part], harmonics[:, part])
        told.append(f"degree {degree}: {rates.min():.3f} to {rates.max():.3f}, {found:.5f}")
    return {**times, "accuracy": "; ".join(told)}


def roll(bandwidth):
    from skdmap.datasets import make_swiss_roll

    samples = make_swiss_roll(N_SAMPLES, random_state=0)
    mapping, times = fitted(samples.X, 1, bandwidth=bandwidth, alpha=1.0)
    wave = np.cos(np.pi * samples.arc_length)
    return {**times, "accuracy": f"{correlation(mapping.embedding_[:, 0], wave):.5f}"}


def correlation(first, second):
    return abs(np.corrcoef(first, second)[0, 1])


def turned_roll(path, n_samples):
    """Write a noisy swiss roll in ten columns block by block; return cos(pi s) of its rows."""
    from skdmap.datasets import make_swiss_roll

    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 3)))[0].T
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n_samples, 10))
    waves = []
    for number, start in enumerate(range(0, n_samples, BLOCK)):
        size = min(BLOCK, n_samples - start)
        samples = make_swiss_roll(size, random_state=number)
        noise = 0.05 * np.random.default_rng(number).standard_normal((size, 10))
        rows[start : start + size] = samples.X @ axes + noise
        waves.append(np.cos(np.pi * samples.arc_length).astype(np.float32))
    rows.flush()
    return np.concatenate(waves)


def normal_rows(path, n_samples):
    """Write normal samples of ten dimensions, the hardest to search; they have no known answer."""
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n_samples, 10))
    for number, start in enumerate(range(0, n_samples, BLOCK)):
        part = rows[start : start + BLOCK]
        part[:] = np.random.default_rng(number).standard_normal(part.shape)
    rows.flush()


class AnonymousPeak:
    """The largest anonymous memory of this process, in MB, as seen every 10 ms."""

    def __enter__(self):
        self.largest, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.01):
            self.largest = max(self.largest, self._now())

    @staticmethod
    def _now():
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024
        return 0.0

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()


def memory_map(n_samples, write=turned_roll):
    folder = os.environ.get(FOLDER, tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "rows.npy"
        wave = write(path, n_samples)
        X = np.load(path, mmap_mode="r")
        with AnonymousPeak() as peak:
            before = peak._now()
            mapping, times = fitted(X, 2, alpha=1.0)
        beyond = peak.largest - mapping.embedding_.nbytes / 2**20
    found = "" if wave is None else f"{correlation(mapping.embedding_[:, 0], wave):.5f}; "
    memory = f"{beyond:.0f} MB beyond the embedding, {before:.0f} before the fit"
    return {**times, "accuracy": found + memory}


def dask_workers():
    import dask.array as da
    from distributed import Client, LocalCluster

    with tempfile.TemporaryDirectory(dir=os.environ.get(FOLDER)) as name:
        path = Path(name) / "rows.npy"
        turned_roll(path, N_SAMPLES)
        X = np.load(path, mmap_mode="r")
        expected = fitted(X, 2, alpha=1.0)[0].embedding_
        with (
            LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster),
        ):
            chunks = da.map_blocks(
                _mapped_rows,
                str(path),
                chunks=((70_000,) * 14 + (20_000,), (10,)),
                dtype=np.float32,
                meta=np.empty((0, 0), np.float32),
            )
            begin = time.perf_counter()
            found = fitted(chunks, 2, alpha=1.0)[0].embedding_.compute()
            seconds = time.perf_counter() - begin
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    return {"seconds": seconds, "accuracy": f"{difference:.0e}"}


def _mapped_rows(path, block_info=None):
    """The rows of one chunk, read by the worker that has it."""
    (start, stop), _ = block_info[None]["array-location"]
    return np.load(path, mmap_mode="r")[start:stop]


CASES = {
    f"L1, sphere, {N_SAMPLES:,}, h = {BANDWIDTH}": {"skdmap": sphere},
    f"L2, swiss roll, {N_SAMPLES:,}": {
        "skdmap, local": lambda: roll("local"),
        "skdmap, auto": lambda: roll("auto"),
    },
    "L3, memory map, 100,000 x 10": {
        "skdmap, local": lambda: memory_map(100_000),
        "skdmap, local, normal samples": lambda: memory_map(100_000, normal_rows),
    },
    "L3, memory map, 1,000,000 x 10": {"skdmap, local": lambda: memory_map(1_000_000)},
    "L3, memory map, 10,000,000 x 10": {"skdmap, local": lambda: memory_map(10_000_000)},
    f"L4, dask, two workers, {N_SAMPLES:,} x 10": {"skdmap, local": dask_workers},
}

if __name__ == "__main__":
    main(__file__, CASES)
