"""Paths of 200 rows in 1000 dimensions: walks of every kind, and hidden curves and surfaces."""

import numpy as np
import pytest

from skdmap.diagnostics import random_walk

N_ROWS, N_COLUMNS = 200, 1000


def hidden(points, generator, noise):
    """Turn low-dimensional points into N_COLUMNS columns, with isotropic noise."""
    plane = np.linalg.qr(generator.standard_normal((N_COLUMNS, points.shape[1])))[0].T
    shape = (len(points), N_COLUMNS)
    return points @ plane + noise / np.sqrt(N_COLUMNS) * generator.standard_normal(shape)


def circle(seed):
    generator = np.random.default_rng(seed)
    angle = np.linspace(0, 6 * np.pi, N_ROWS)
    return hidden(np.column_stack([np.cos(angle), np.sin(angle)]), generator, 0.05)


def spiral(seed):
    generator = np.random.default_rng(seed)
    angle, radius = np.linspace(0, 6 * np.pi, N_ROWS), np.linspace(1, 0.2, N_ROWS)[:, None]
    return hidden(radius * np.column_stack([np.cos(angle), np.sin(angle)]), generator, 0.05)


def sheet(seed):
    """Return a walk, reflected at its edges, on a square that is bent in four dimensions."""
    generator = np.random.default_rng(seed)
    free = np.cumsum(0.08 * generator.standard_normal((N_ROWS, 2)), axis=0) + generator.random(2)
    square = np.abs((free + 1) % 2 - 1)
    return hidden(np.hstack([square, 0.3 * np.sin(2 * np.pi * square)]), generator, 0.01)


def walk(seed):
    return random_walk(N_ROWS, N_COLUMNS, random_state=seed)


def momentum(seed):
    return random_walk(N_ROWS, N_COLUMNS, lag_correlation=0.9, random_state=seed)


def decaying(seed):
    norms = np.geomspace(1, 0.02, N_ROWS)
    return random_walk(N_ROWS, N_COLUMNS, step_norms=norms, random_state=seed)


def drifting(seed):
    return random_walk(N_ROWS, N_COLUMNS, drift=0.3, random_state=seed)


def fading(seed):
    """Return a walk with a drift that dies away in the first half."""
    generator = np.random.default_rng(seed)
    cosine = 0.7 * np.exp(-np.arange(N_ROWS) / 40)[:, None]
    noise = generator.standard_normal((N_ROWS, N_COLUMNS)) / np.sqrt(N_COLUMNS)
    return np.cumsum(cosine * np.eye(1, N_COLUMNS) + np.sqrt(1 - cosine**2) * noise, axis=0)


def mean_reverting(start, pull, seed):
    generator = np.random.default_rng(seed)
    rows = np.empty((N_ROWS, N_COLUMNS))
    rows[0] = start / np.sqrt(pull * (2 - pull))
    for i in range(1, N_ROWS):
        rows[i] = (1 - pull) * rows[i - 1] + generator.standard_normal(N_COLUMNS)
    return rows


def falling(seed):
    """Return a path that starts far from its centre, three radii of its equilibrium."""
    return mean_reverting(3 * np.sqrt(N_COLUMNS) * np.eye(N_COLUMNS)[0], 0.02, seed)


def resting(seed):
    """Return a mean-reverting path in equilibrium."""
    start = np.random.default_rng([seed, 1]).standard_normal(N_COLUMNS)
    return mean_reverting(start, 0.05, seed)


PATHS = {
    path.__name__: path
    for path in (
        circle,
        spiral,
        sheet,
        walk,
        momentum,
        decaying,
        drifting,
        fading,
        falling,
        resting,
    )
}


@pytest.fixture
def make_path():
    """Return a function from the name of a path and a seed to its snapshots."""
    return lambda name, seed: PATHS[name](seed)
