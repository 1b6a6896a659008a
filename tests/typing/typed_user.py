"""A user's script for ``mypy --strict``: public names have types, and misspelt ones are errors.

Run by ``.ci/run``; nothing here is executed.
"""

from typing import Any, assert_type

import numpy as np
import torch

import skdmap
from skdmap import (
    DiffusionMap,
    EmpiricalRisk,
    HessianSpectrum,
    TrajectoryRecorder,
    TrajectorySampler,
    diagnostics,
    make_mlp,
    plotting,
)

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]


def estimators(X: Array, y: Array) -> None:
    """Attributes and results of the three estimators are arrays, fit returns the estimator."""
    mapping = DiffusionMap(n_components=2, bandwidth="auto")
    assert_type(mapping.fit(X), DiffusionMap)
    assert_type(mapping.embedding_, Array)
    assert_type(mapping.score(X), float)
    coordinates: Array = mapping.transform(X)
    sampler = TrajectorySampler(max_epochs=1)
    assert_type(sampler.fit(X, y), TrajectorySampler)
    assert_type(sampler.steps_, Array)
    risk = EmpiricalRisk(make_mlp(4, 2), torch.nn.CrossEntropyLoss(), X, y)
    spectrum = HessianSpectrum(risk).fit(sampler.snapshots_)
    assert_type(spectrum, HessianSpectrum)
    assert_type(spectrum.eigenvalues_, np.ndarray[tuple[Any, ...], np.dtype[np.float64]])
    assert_type(diagnostics.harmonic_residuals(coordinates), diagnostics.HarmonicResiduals)
    display = plotting.EmbeddingDisplay.from_estimator(mapping)
    assert_type(display, plotting.EmbeddingDisplay)


def recorded() -> Array:
    """The block yields the recorder, whose columns are arrays."""
    with TrajectoryRecorder(make_mlp(4, 2)) as recorder:
        assert_type(recorder, TrajectoryRecorder)
    return recorder.losses_


def mistakes() -> None:
    """Strict mode also reports an ignore comment that is not needed."""
    DiffusionMap(bandwith=1.0)  # type: ignore[call-arg]
    DiffusionMap(bandwidth="atuo")  # type: ignore[arg-type]
    skdmap.DiffusionMapp  # type: ignore[attr-defined]
