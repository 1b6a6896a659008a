"""Diffusion maps and the geometry of neural-network training.

The folders follow the data::

    (X, y) -> trajectory -> snapshots (n_snapshots, n_parameters) -+-> diffusion -> embedding -> plotting
                                                                   +-> hessian -> (n_snapshots, k) -^

    trajectory/   record training: model, loss, optimizer -> snapshot matrix
                  TrajectorySampler, TrajectoryRecorder, open_trajectory, make_mlp
    hessian/      curvature of the loss at a parameter vector
                  EmpiricalRisk, HessianSpectrum, hessian_spectrum_path
    diffusion/    samples -> neighbour graph -> bandwidth -> kernel -> Markov operator -> eigenpairs
                  -> eigenfunctions -> Nystrom extension (new samples), preimage (inverse)
                  DiffusionMap
    diagnostics/  statistics of trajectories, compared with null models
    integrations/ callbacks of Hugging Face's and Lightning's trainers
    plotting/     display classes
    datasets/     data sets with known spectra

Names are imported on first use, so that ``import skdmap`` loads neither torch nor pynndescent.
"""  # noqa: E501 - the diagram is wide

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that holds it, in the order of use.
_EXPORTS = {
    "TrajectorySampler": "skdmap.trajectory",
    "TrajectoryRecorder": "skdmap.trajectory",
    "LogSpaced": "skdmap.trajectory",
    "Displacement": "skdmap.trajectory",
    "WallClock": "skdmap.trajectory",
    "open_trajectory": "skdmap.trajectory",
    "make_mlp": "skdmap.trajectory",
    "EmpiricalRisk": "skdmap.hessian",
    "HessianSpectrum": "skdmap.hessian",
    "hessian_spectrum_path": "skdmap.hessian",
    "DiffusionMap": "skdmap.diffusion",
}
_SUBMODULES = ("datasets", "diagnostics", "exceptions", "integrations", "plotting")

__all__ = [  # noqa: RUF022 - in the order of use
    "TrajectorySampler",
    "TrajectoryRecorder",
    "LogSpaced",
    "Displacement",
    "WallClock",
    "open_trajectory",
    "make_mlp",
    "EmpiricalRisk",
    "HessianSpectrum",
    "hessian_spectrum_path",
    "DiffusionMap",
    "datasets",
    "diagnostics",
    "exceptions",
    "integrations",
    "plotting",
]

if TYPE_CHECKING:
    from skdmap import datasets, diagnostics, exceptions, integrations, plotting
    from skdmap.diffusion import DiffusionMap
    from skdmap.hessian import EmpiricalRisk, HessianSpectrum, hessian_spectrum_path
    from skdmap.trajectory import (
        Displacement,
        LogSpaced,
        TrajectoryRecorder,
        TrajectorySampler,
        WallClock,
        make_mlp,
        open_trajectory,
    )

if not TYPE_CHECKING:  # type checkers would take any misspelt name for Any

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            value = getattr(importlib.import_module(_EXPORTS[name]), name)
        elif name in _SUBMODULES:
            value = importlib.import_module(f"skdmap.{name}")
        else:
            raise AttributeError(f"module 'skdmap' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
