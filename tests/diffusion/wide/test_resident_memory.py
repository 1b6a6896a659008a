"""Memory maps are read where they lie: resident memory, as the operating system counts it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="resident memory is read from /proc"
)

N_ROWS, N_COLUMNS = 200, 500_000
MEGABYTE = 2**20
# The work is done once on a few rows first: what is measured is not libraries but rows.
SCRIPT = """
import json, sys, threading, warnings
import numpy as np
from skdmap import DiffusionMap, HessianSpectrum
warnings.simplefilter("ignore")

def resident(kind):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(kind))

def bowl(theta):
    return (theta[:50] ** 4).sum()

def work(X):
    {work}

work(np.load(sys.argv[2], mmap_mode="r"))
X = np.load(sys.argv[1], mmap_mode="r")
before = {{kind: resident(kind) for kind in ("VmRSS", "RssAnon")}}
peak = dict(before)
done = threading.Event()

def watch():
    while not done.wait(0.002):
        for kind in peak:
            peak[kind] = max(peak[kind], resident(kind))

watcher = threading.Thread(target=watch)
watcher.start()
work(X)
done.set()
watcher.join()
print(json.dumps({{kind: peak[kind] - before[kind] for kind in peak}}))
"""


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Return a memory map of 400 MB and one of few rows."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    shape = (N_ROWS, N_COLUMNS)
    large = np.lib.format.open_memmap(folder / "large.npy", "w+", np.float32, shape)
    row = rng.standard_normal(N_COLUMNS, dtype=np.float32)
    step = rng.standard_normal((8, N_COLUMNS), dtype=np.float32)
    for i in range(N_ROWS):
        row = row + np.float32(1e-3) * step[rng.integers(8)]
        large[i] = row
    large.flush()
    np.save(folder / "small.npy", large[:40, :20_000])
    yield folder / "large.npy", folder / "small.npy"
    (folder / "large.npy").unlink()


def extra_memory(maps, work):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(work=work), *map(str, maps)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_the_measure_sees_a_copy(maps):
    """A test that cannot fail tests nothing: a copy of X is seen, and reading through the map."""
    copied = extra_memory(maps, "np.array(X)")
    assert copied["RssAnon"] > 300 * MEGABYTE
    mapped = extra_memory(maps, "X.sum()")
    assert mapped["RssAnon"] < 50 * MEGABYTE
    assert mapped["VmRSS"] > 300 * MEGABYTE


def test_a_diffusion_map_takes_blocks_of_a_map(maps):
    """No copy of X, and not even its pages stay: less than half of what either would take."""
    work = "DiffusionMap(bandwidth='median').fit(X, sample_weight=np.arange(len(X))).transform(X)"
    extra = extra_memory(maps, work)
    assert extra["VmRSS"] < 190 * MEGABYTE, extra


def test_a_hessian_spectrum_takes_one_row_of_a_map(maps):
    """A row in double precision has 4 MB, X has 400: the row and its Krylov vectors are copied."""
    work = "HessianSpectrum(bowl, n_components=2, max_matvecs=12).fit(X)"
    extra = extra_memory(maps, work)
    assert extra["RssAnon"] < 190 * MEGABYTE, extra
