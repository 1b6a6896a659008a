"""A fit loads no compiler, below and above the size at which the graph is sparse."""

import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from skdmap import DiffusionMap
X = np.random.default_rng(0).uniform(0, 1, ({rows}, {columns}))
model = DiffusionMap(2, n_neighbors={neighbors}, bandwidth=0.2, random_state=0).fit(X)
model.transform(X[:10] + 1e-3)
print([name for name in ("numba", "pynndescent", "torch") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("rows", "columns", "neighbors"),
    [(500, 3, None), (6000, 2, 32), (2000, 30, 32), (21_000, 2, 10)],
)
def test_fit_and_transform_load_no_compiler(rows, columns, neighbors):
    code = CODE.format(rows=rows, columns=columns, neighbors=neighbors)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
