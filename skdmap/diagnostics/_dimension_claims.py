"""Two claims about a trajectory, each tested against several null models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skdmap.diagnostics._effective_dimension import EffectiveDimension

if TYPE_CHECKING:
    from skdmap.diagnostics._dimension_test import DimensionTest

# Each claim, its statistic, and the null models that must all be rejected for it. "random_walk" and
# "drift" are special cases of "decaying_drift".
CLAIMS = {
    "fewer_dimensions": ("effective_dimension", ("decaying_drift", "ar1", "ornstein_uhlenbeck")),
    "beyond_linear": ("recurrence", ("anisotropic_walk", "anisotropic_ou", "linear")),
}
# A claim of fewer dimensions needs at most this share of the columns. The test alone would find the
# unequal variances of almost any noise: of SGD on as many samples as parameters half are left.
_MOST_DIMENSIONS = 0.25
_LEVEL = 0.05


@dataclass(frozen=True)
class DimensionClaims:
    """What a trajectory shows beside noise and beside linear processes.

    Attributes
    ----------
    level : str
        "noise", "fewer_dimensions" (than isotropic noise) or "beyond_linear" (processes).
    table : list of dict
        One row for each null model, with the keys "claim", "null", "statistic" (its name), "value"
        (of the trajectory, mean over runs), "run_p_values", "p_value" (joint) and
        "corrected_p_value". A claim needs all its null models rejected, so its p-value is the
        largest of theirs; the two claims are corrected by Holm's method.
    dimension : EffectiveDimension
        The dimension of the increments of all rows, with intervals.
    tests : tuple of DimensionTest
        The test behind each row.
    n_columns : int
        Number of columns of the snapshots.

    Examples
    --------
    >>> from skdmap.diagnostics import dimension_test, random_walk
    >>> claims = dimension_test(random_walk(100, 500, random_state=0), random_state=0)
    >>> claims.level
    'noise'
    """

    level: str
    table: list[dict[str, Any]]
    dimension: EffectiveDimension
    tests: tuple[DimensionTest, ...]
    n_columns: int

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            A few sentences: the level, the figures, and what they leave open.
        """
        words = {
            "noise": self._noise,
            "fewer_dimensions": self._fewer_dimensions,
            "beyond_linear": self._beyond_linear,
        }
        return words[self.level]()

    def deciding(self, claim: str) -> DimensionTest:
        """Return the test that decides a claim.

        Parameters
        ----------
        claim : str
            "fewer_dimensions" or "beyond_linear".

        Returns
        -------
        DimensionTest
            The one with the largest p-value.
        """
        of_claim = [test for test in self.tests if test.null in CLAIMS[claim][1]]
        return max(of_claim, key=lambda test: test.p_value)

    def _noise(self) -> str:
        test = self.deciding("fewer_dimensions")
        if self._corrected("fewer_dimensions") <= _LEVEL:
            start = (
                f"Close to isotropic noise: {self._spread()}; the claim of fewer dimensions needs "
                f"at most {_MOST_DIMENSIONS * self.n_columns:g}."
            )
        else:
            start = (
                f"Not distinguishable from isotropic noise (null {test.null!r} comes nearest, "
                f"p = {self._corrected('fewer_dimensions'):.2g}): {self._spread()}."
            )
        return f"{start} {self._not_beyond()}"

    def _fewer_dimensions(self) -> str:
        p = self._corrected("fewer_dimensions")
        return (
            f"Fewer dimensions than isotropic noise (p = {p:.2g}): {self._spread()}. "
            f"{self._not_beyond()}"
        )

    def _beyond_linear(self) -> str:
        test, p = self.deciding("beyond_linear"), self._corrected("beyond_linear")
        n = len(test.surrogate_statistics)
        return (
            "Beyond linear processes: the path returns to where it was at other times more closely "
            f"than {n} linear processes with the recorded covariance{self._runs(test)} "
            f"(p = {p:.2g}). {self._spread(capital=True)}. A linear process that oscillates, as "
            "momentum makes steep directions do, returns too and is not excluded."
        )

    def _not_beyond(self) -> str:
        test = self.deciding("beyond_linear")
        return (
            f"A linear process with the recorded covariance explains the path (null {test.null!r}, "
            f"p = {self._corrected('beyond_linear'):.2g}). The test looks only at returns to "
            "earlier places, so it never finds more in a path without returns."
        )

    def _spread(self, *, capital: bool = False) -> str:
        found = self.dimension.summary().rstrip(".")
        first, *rest = found.split(". ")
        columns = "sketch columns" if self.dimension.sketch_dim else "columns"
        first = f"in {self.n_columns} {columns}, {first[0].lower()}{first[1:]}"
        text = "; ".join([first, *(f"{part[0].lower()}{part[1:]}" for part in rest)])
        return f"{text[0].upper()}{text[1:]}" if capital else text

    def _runs(self, test: DimensionTest) -> str:
        n_runs = len(test.run_p_values)
        if n_runs == 1:
            return ""
        found = int(np.sum(test.run_p_values <= _LEVEL))
        return f" on average over {n_runs} runs, of which {found} show it alone"

    def _corrected(self, claim: str) -> float:
        return max(row["corrected_p_value"] for row in self.table if row["claim"] == claim)


def dimension_claims(
    tests: tuple[DimensionTest, ...], dimension: EffectiveDimension, n_columns: int
) -> DimensionClaims:
    """Return the claims that the tests support, corrected for their number."""
    p_values = {
        claim: max(test.p_value for test in tests if test.null in nulls)
        for claim, (_, nulls) in CLAIMS.items()
    }
    corrected = holm(np.array(list(p_values.values())))
    of_claim = dict(zip(p_values, corrected.tolist(), strict=True))
    few = next(t for t in tests if t.statistic_name == CLAIMS["fewer_dimensions"][0])
    level = "noise"
    if of_claim["beyond_linear"] <= _LEVEL:
        level = "beyond_linear"
    elif of_claim["fewer_dimensions"] <= _LEVEL and few.statistic <= _MOST_DIMENSIONS * n_columns:
        level = "fewer_dimensions"
    table = []
    for claim, (_, nulls) in CLAIMS.items():
        # What the correction makes of the claim's p-value, it makes of those that it is the
        # largest of.
        factor = of_claim[claim] / p_values[claim]
        table += [
            {
                "claim": claim,
                "null": test.null,
                "statistic": test.statistic_name,
                "value": test.statistic,
                "run_p_values": test.run_p_values,
                "p_value": test.p_value,
                "corrected_p_value": min(1.0, factor * test.p_value),
            }
            for test in tests
            if test.null in nulls
        ]
    return DimensionClaims(level, table, dimension, tests, n_columns)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's step-down method."""
    order = np.argsort(p_values)
    raised = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected
