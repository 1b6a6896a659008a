"""R8: Langevin dynamics on a quadratic, where theory says what the map must find."""

from typing import Any

import numpy as np
import torch

from skdmap import DiffusionMap, HessianSpectrum
from skdmap.datasets import make_ornstein_uhlenbeck

SPECTRUM = (1.0, 1.5, 4.0)
N_LISTED = 145
# Few rows in the tails can carry a coordinate; a larger bandwidth connects them.
RAISED = 1.2


def known_answer(n_rows: int, lists: bool, seed: int) -> dict[str, Any]:
    """Return the rates of the map beside the smallest Hessian eigenvalues.

    All pairs carry the map, with the bandwidth "auto" and with one RAISED times as large. Lists of
    N_LISTED neighbours are looked at too if asked for, since cutting a wide kernel off changes its
    rates.
    """
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    precision = basis * np.asarray(SPECTRUM) @ basis.T
    precision = (precision + precision.T) / 2
    path = make_ornstein_uhlenbeck(n_rows, precision=precision, time_step=1.0, random_state=seed)
    matrix = torch.as_tensor(precision)
    hessian = HessianSpectrum(
        lambda theta: theta @ matrix @ theta / 2, n_components=2, which="smallest", random_state=0
    ).fit(np.zeros((1, 3)))
    options: dict[str, Any] = {"alpha": 0.5, "diffusion_time": 0, "random_state": seed}
    mapping = DiffusionMap(10, bandwidth="auto", n_neighbors=None, **options).fit(path.X)
    raised = DiffusionMap(
        10, bandwidth=RAISED * mapping.bandwidth_, n_neighbors=None, **options
    ).fit(path.X)  # fmt: skip
    found = {
        "pairs": _pairs(mapping, hessian, path.X),
        "raised": _pairs(raised, hessian, path.X),
        "n_rows": n_rows,
    }
    if lists:
        listed = DiffusionMap(10, bandwidth="auto", n_neighbors=N_LISTED, **options).fit(path.X)
        found |= {"of_lists": _pairs(listed, hessian, path.X), "n_neighbors": N_LISTED}
    return found


def _pairs(mapping: DiffusionMap, hessian: HessianSpectrum, X: np.ndarray) -> list[dict[str, Any]]:
    """Return for each Hessian direction the coordinate that is most like the position along it."""
    pairs = []
    for value, direction in zip(hessian.eigenvalues_, hessian.components_, strict=True):
        position = X @ direction
        likeness = np.abs(np.corrcoef(position, mapping.eigenvectors_.T)[0, 1:])
        best = int(np.argmax(likeness))
        pairs.append(
            {
                "hessian": float(value),
                "rate": float(mapping.laplacian_eigenvalues_[best]),
                "correlation": float(likeness[best]),
                "participation": float(mapping.participation_[best]),
                "position": position[::10].tolist(),
                "coordinate": mapping.eigenvectors_[::10, best].tolist(),
            }
        )
    return pairs
