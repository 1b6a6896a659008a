"""Numbers of independent runs -> effects, intervals and p-values that survive many comparisons."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm
from scipy.stats import t as student

LEVEL = 0.05
POWER = 0.8


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down p-values: valid whatever the dependence of the tests."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def detectable(error: float, freedom: float, level: float) -> float:
    """Return the smallest true difference that a two-sided t test finds with probability POWER."""
    if error == 0:
        return 0.0
    # scipy's noncentral t is nan in its far tails: the mean over the estimated variance instead.
    middles = (np.arange(4000) + 0.5) / 4000
    ratio = np.sqrt(chi2.ppf(middles, freedom) / freedom)
    critical = student.ppf(1 - level / 2, freedom) * ratio

    def missing(shift: float) -> float:
        found = norm.cdf(shift - critical) + norm.cdf(-shift - critical)
        return float(found.mean()) - POWER

    upper = 1.0
    while missing(upper) < 0:
        upper *= 2
    return float(error * brentq(missing, 0.0, upper))


def effect_of(difference: float, error: float, freedom: float, n_tests: int) -> dict[str, float]:
    """Return a difference with its 95 % interval, p-value, and what would have been detected.

    The detectable difference is that of Holm's first and hardest step, at LEVEL / n_tests.
    """
    half = student.ppf(1 - LEVEL / 2, freedom) * error
    if error > 0:
        p_value = 2 * student.sf(abs(difference) / error, freedom)
    else:
        p_value = float(difference == 0)
    return {
        "difference": float(difference),
        "low": float(difference - half),
        "high": float(difference + half),
        "p_value": float(p_value),
        "detectable": detectable(error, freedom, LEVEL / n_tests),
    }


def mean_effect(values: Sequence[float], n_tests: int) -> dict[str, float]:
    """Return the mean of independent differences, one a run."""
    values = np.asarray(values, dtype=float)
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return effect_of(float(values.mean()), error, len(values) - 1, n_tests)


def compare(
    runs: Sequence[float], others: Sequence[float], *, paired: bool, n_tests: int
) -> dict[str, Any]:
    """Compare runs of two settings: pair by pair, or by Welch's test."""
    first, second = np.asarray(runs, dtype=float), np.asarray(others, dtype=float)
    if paired:
        return mean_effect(first - second, n_tests) | {"paired": True}
    squared = np.array([first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)])
    error = float(np.sqrt(squared.sum()))
    freedom = len(first) + len(second) - 2.0
    if error > 0:
        freedom = float(
            squared.sum() ** 2
            / (squared[0] ** 2 / (len(first) - 1) + squared[1] ** 2 / (len(second) - 1))
        )
    difference = float(first.mean() - second.mean())
    return effect_of(difference, error, freedom, n_tests) | {"paired": False}


Levels = Sequence[dict[str, int]]


def main_effects(
    levels: Levels, values: Sequence[Sequence[float]], kept: Sequence[bool] | None = None
) -> dict[str, dict[str, float]]:
    """Return the main effect of each factor of a factorial design, with Holm's correction.

    An effect is the mean over pairs of cells that differ in this factor alone.

    Parameters
    ----------
    levels : sequence of dict, one a cell
        0 or 1 for each factor; every combination once.
    values : sequence of sequence of float, of shape (n_cells, n_runs)
        Run r of every cell has the seeds of run r: it is a block. A contrast within a block is one
        independent draw, however many cells it is the mean of.
    kept : sequence of bool, one a cell
        Cells that count; a pair counts if both of its cells do. Factors without a pair are left
        out. None is all.
    """
    return _corrected(levels, values, kept, [(name,) for name in levels[0]])


def interactions(
    levels: Levels, values: Sequence[Sequence[float]], kept: Sequence[bool] | None = None
) -> dict[str, dict[str, float]]:
    """Return for each pair of factors by how much the effect of one differs with the other.

    Within blocks and over cells as the main effects, with Holm's correction over pairs.
    """
    return _corrected(levels, values, kept, list(itertools.combinations(levels[0], 2)))


def _corrected(
    levels: Levels,
    values: Sequence[Sequence[float]],
    kept: Sequence[bool] | None,
    groups: list[tuple[str, ...]],
) -> dict[str, dict[str, float]]:
    """Return the effect of each group of factors, with Holm's correction over groups."""
    table = np.asarray(values, dtype=float)
    counting = np.ones(len(levels), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    contrasts = {
        " with ".join(group): _contrast(levels, table, counting, group) for group in groups
    }
    found = {
        name: mean_effect(contrast, len(groups))
        for name, contrast in contrasts.items()
        if contrast is not None
    }
    adjusted = holm([effect["p_value"] for effect in found.values()])
    for effect, p_value in zip(found.values(), adjusted, strict=True):
        effect["holm"] = p_value
    return found


def _contrast(
    levels: Levels, table: np.ndarray, counting: np.ndarray, group: tuple[str, ...]
) -> np.ndarray | None:
    """Return the contrast (n_runs,) of some factors: high less low, and the difference of such
    differences for two; the mean over the levels of all others. None without a complete set.
    """
    sets: dict[tuple[int, ...], list[int]] = {}
    for cell, level in enumerate(levels):
        others = tuple(value for name, value in level.items() if name not in group)
        sets.setdefault(others, []).append(cell)
    complete = [cells for cells in sets.values() if counting[cells].all()]
    if not complete:
        return None
    signs = {cell: np.prod([2 * levels[cell][name] - 1 for name in group]) for cell in
             range(len(levels))}  # fmt: skip
    differences = [sum(signs[cell] * table[cell] for cell in cells) for cells in complete]
    return np.asarray(np.mean(differences, axis=0))


def simultaneous(values: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values for small values, corrected over all of them, and the line to undercut.

    Each value is measured from the mean of its surrogates in their standard deviations; the
    largest distance below of any value is what a surrogate must reach (max-statistic; Westfall and
    Young 1993). The recorded value is one of the draws, so that the test keeps its size.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
    drawn : ndarray of shape (n_values, n_surrogates)
    """
    everything = np.column_stack([values, drawn])
    center = everything.mean(axis=1, keepdims=True)
    spread = everything.std(axis=1, keepdims=True)
    scores = (center - everything) / np.where(spread > 0, spread, 1.0)
    largest = scores.max(axis=0)
    p_values = (largest[None, :] >= scores[:, :1] - 1e-9).mean(axis=1)
    line = center[:, 0] - np.quantile(largest[1:], 1 - LEVEL) * spread[:, 0]
    return p_values, line
