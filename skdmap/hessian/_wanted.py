"""Which eigenvalues are wanted: one end of a spectrum, both, or the largest in size."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEYS", "Indices", "Quotas", "quotas_of", "select"]

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]
Quotas = list[tuple[str, int]]

KEYS: dict[str, Callable[[Vector], Vector]] = {"+": np.positive, "-": np.negative, "abs": np.abs}


def quotas_of(which: str, n_pairs: int) -> Quotas:
    """Return what ``which`` asks for, as (order, count) for each end of the spectrum."""
    if which == "both" and n_pairs > 1:
        return [("+", n_pairs - n_pairs // 2), ("-", n_pairs // 2)]
    return [({"smallest": "-", "magnitude": "abs"}.get(which, "+"), n_pairs)]


def select(values: Vector, quotas: Quotas) -> Indices:
    """Indices of the wanted values, most wanted first; from the two ends, descending."""
    # One order for both ends: among equal values, two would pick the same ones.
    key, count = quotas[0]
    order = np.argsort(-KEYS[key](values), kind="stable")
    if len(quotas) == 1:
        return order[:count]
    return np.concatenate([order[:count], order[max(count, len(order) - quotas[1][1]) :]])
