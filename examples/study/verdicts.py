"""R5 to R7: comparisons with null models and between settings -> sentences, all computed."""

from typing import Any

import numpy as np
from comparisons import (
    LEVEL,
    POWER,
    compare,
    holm,
    interactions,
    main_effects,
    simultaneous,
)
from dimension import KEEPING, MEASURES
from findings import listed, percent, spanned

# A change by less than this share of the mean dimension counts as none.
TOLERATED = 0.1
# What the null models are, in words.
WORDS = {
    "random_walk": "plain walks",
    "ar1": "walks with correlated steps",
    "ornstein_uhlenbeck": "Ornstein-Uhlenbeck paths",
    "drift": "walks with a drift",
    "decaying_drift": "walks with a drift that dies away",
    "sign_flips": "the steps turned round at random",
    "shuffled_steps": "the steps in random order",
}
MEASURE_WORDS = {
    "non_harmonic": "harmonic dimension",
    "slope": "slope dimension",
    "participation": "participation number",
}


def windows_corrected(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the mean dimension in windows, and p-values corrected over windows for each null."""
    first = next(iter(found.values()))
    mean = np.mean(first["runs"], axis=0)
    nulls = {}
    for null, result in found.items():
        drawn = np.asarray(result["drawn"])
        p_values, line = simultaneous(mean, drawn)
        nulls[null] = {
            "p_values": p_values.tolist(),
            "line": line.tolist(),
            "median": np.median(drawn, axis=1).tolist(),
        }
    worst = np.max([null["p_values"] for null in nulls.values()], axis=0)
    return {
        "centers": first["centers"],
        "window": first["window"],
        "runs": first["runs"],
        "dimension": mean.tolist(),
        "nulls": nulls,
        "p_values": worst.tolist(),
        "n_surrogates": len(first["drawn"][0]),
    }


def about_windows(found: dict[str, Any]) -> list[str]:
    dimension, n = found["dimension"], len(found["dimension"])
    below = {
        null: sum(p <= LEVEL for p in result["p_values"]) for null, result in found["nulls"].items()
    }
    everywhere = sum(p <= LEVEL for p in found["p_values"])
    counts = listed([f"{count} for {WORDS[null]}" for null, count in below.items()])
    verdict = {
        n: "So the runs are locally lower-dimensional than every null model, all along.",
        0: "So in every window one null model or another is as low-dimensional as the runs: a "
        "local dimension below that of walking was not shown.",
    }
    return [
        f"In windows of {found['window']} rows the slope dimension, the mean over "
        f"{len(found['runs'])} runs, goes from {dimension[0]:.2f} at the start to "
        f"{dimension[-1]:.2f} at the end, by way of {min(dimension):.2f} to {max(dimension):.2f}.",
        f"The windows in which it lies below the surrogates, corrected over the {n} windows "
        f"(largest of all windows, 5 %), number {counts}; {everywhere} for all of them at once.",
        verdict.get(
            everywhere,
            f"So in {everywhere} of {n} windows the runs are lower-dimensional than every null "
            "model; in the others at least one is as low-dimensional.",
        ),
    ]


def factorial(
    levels: list[dict[str, int]], cells: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the main effects of each measure with its mean over all runs."""
    found = {}
    for measure in MEASURES:
        values = [cell[measure] for cell in cells]
        found[measure] = {
            "mean": float(np.mean(values)),
            "effects": main_effects(levels, values),
            "interactions": interactions(levels, values),
            "n_runs": len(values[0]),
        }
    counts = np.concatenate([cell["independent"] for cell in cells])
    found["independent"] = {
        str(k): int(n) for k, n in zip(*np.unique(counts, return_counts=True), strict=True)
    }
    return found


def size_of(effect: dict[str, float], mean: float) -> str:
    """Return whether a change was shown, and whether it is more than TOLERATED of the mean."""
    bound = TOLERATED * abs(mean)
    changed = effect["holm"] <= LEVEL
    within = max(abs(effect["low"]), abs(effect["high"])) <= bound
    beyond = effect["low"] > bound or effect["high"] < -bound
    if changed:
        return "small" if within else "large" if beyond else "changed"
    return "none" if within else "open"


def about_factors(found: dict[str, dict[str, Any]], n_rows: int) -> list[str]:
    main = found["non_harmonic"]
    mean, effects = main["mean"], main["effects"]
    sentences = [
        f"A full factorial design of {len(effects)} factors at two levels, {main['n_runs']} runs "
        f"in each of {2 ** len(effects)} cells, {n_rows} rows a run; run r has the same seeds in "
        f"all cells, so that each effect is a mean over {main['n_runs']} independent contrasts. "
        f"The harmonic dimension is {mean:.3g} in the mean; p-values are Holm's over the factors."
    ]
    for name, effect in effects.items():
        sentences.append(
            f"{name}: changed by {effect['difference']:+.3g} (95 % interval {effect['low']:+.3g} "
            f"to {effect['high']:+.3g}, p = {effect['holm']:.2g}); a change of "
            f"{effect['detectable']:.2g} would have been found with probability {POWER:g}."
        )
    sentences.append(_about_interactions(main["interactions"], mean))
    others = []
    for measure in MEASURES[1:]:
        names = [
            name
            for name, effect in found[measure]["effects"].items()
            if size_of(effect, found[measure]["mean"]) in ("large", "changed", "open")
        ]
        others.append(f"the {MEASURE_WORDS[measure]} by {listed(names) if names else 'no factor'}")
    sentences.append(
        f"Two other dimensions, a change of {percent(TOLERATED)} or more shown or not ruled out: "
        f"{'; '.join(others)}."
    )
    counts = found["independent"]
    total = sum(counts.values())
    most = max(counts, key=lambda k: counts[k])
    sentences.append(
        f"Counted in whole coordinates (residual above 0.5), the dimension is {most} in "
        f"{counts[most]} of {total} runs."
    )
    return [*sentences, _verdict_on_factors(effects, mean)]


def _about_interactions(found: dict[str, dict[str, float]], mean: float) -> str:
    shown = [
        f"{name} ({100 * effect['difference'] / mean:+.0f} %)"
        for name, effect in found.items()
        if effect["holm"] <= LEVEL
    ]
    words = "The effect of one factor depends on another (difference of two effects, Holm)"
    if not shown:
        return f"{words} in none of {len(found)} pairs."
    return (
        f"{words} in {len(shown)} of {len(found)} pairs, in per cent of the mean: "
        f"{'; '.join(shown)}. There a main effect is a mean over unlike cases."
    )


def _verdict_on_factors(effects: dict[str, dict[str, float]], mean: float) -> str:
    sizes = {name: size_of(effect, mean) for name, effect in effects.items()}
    by = {
        size: [name for name, own in sizes.items() if own == size] for size in set(sizes.values())
    }
    parts = []
    if "large" in by:
        parts.append(f"it was not robust to {listed(by['large'])} (more than {percent(TOLERATED)})")
    if "changed" in by:
        parts.append(
            f"{listed(by['changed'])} changed it, perhaps by less than {percent(TOLERATED)}"
        )
    if "small" in by:
        parts.append(f"{listed(by['small'])} changed it, by less than {percent(TOLERATED)}")
    if "none" in by:
        parts.append(f"it was robust to {listed(by['none'])}, to {percent(TOLERATED)}")
    if "open" in by:
        parts.append(f"these runs are too few to tell for {listed(by['open'])}")
    return f"So, as to the harmonic dimension: {'; '.join(parts)}."


def against_base(
    measured: dict[str, dict[str, Any]], shared: dict[str, bool], measure: str
) -> dict[str, dict[str, Any]]:
    """Return each setting less the base setting, with Holm's correction over settings."""
    others = [name for name in measured if name != "base"]
    found = {
        name: compare(
            measured[name][measure],
            measured["base"][measure],
            paired=shared[name],
            n_tests=len(others),
        )
        for name in others
    }
    adjusted = holm([effect["p_value"] for effect in found.values()])
    for effect, p_value in zip(found.values(), adjusted, strict=True):
        effect["holm"] = p_value
    return found


def about_settings(compared: dict[str, dict[str, Any]], mean: float) -> str:
    """Say which single settings differ from the base setting."""
    differing = [
        f"{name} ({100 * effect['difference'] / mean:+.0f} %)"
        for name, effect in compared.items()
        if effect["holm"] <= LEVEL
    ]
    paired = sum(effect["paired"] for effect in compared.values())
    words = (
        f"Of {len(compared)} single settings, compared with the base setting ({paired} run by run, "
        "the others, whose networks or data differ, by Welch's test; Holm over settings), "
        f"{len(differing)} {'differs' if len(differing) == 1 else 'differ'} in harmonic dimension"
    )
    return f"{words}: {listed(differing)}." if differing else f"{words}."


def nulls_corrected(tests: dict[str, dict[str, dict[str, Any]]]) -> dict[str, float]:
    """Return for each setting the largest p-value over the null models that keep step lengths.

    To say that every one of them is wrong, each must be rejected at the level: the largest p-value
    is a valid one for their union (intersection-union test), and needs no correction over nulls.
    Holm's correction is over settings.
    """
    worst = [max(test[null]["p_value"] for null in KEEPING) for test in tests.values()]
    return dict(zip(tests, holm(worst), strict=True))


def about_nulls(
    tests: dict[str, dict[str, dict[str, Any]]],
    walk: dict[str, Any],
    n_surrogates: int,
    n_rows: int,
) -> list[str]:
    nulls = list(next(iter(tests.values())))
    sentences = [
        "A plain random walk of 200 steps in 2,000 dimensions has the diffusion eigenvalues "
        f"{listed([f'{value:.3f}' for value in walk['eigenvalues'][:4]])}, and its coordinates "
        f"are cosines of time to a correlation of {min(walk['cosines']):.3f} or better: a smooth "
        "low-dimensional picture proves nothing.",
        "A setting counts as more low-dimensional than a walk if the isotonic statistic rejects "
        f"each of {len(KEEPING)} null models that keep the length of every step (the largest of "
        "their p-values, an intersection-union test, which needs no correction over null models), "
        f"after Holm's correction over {len(tests)} settings at 5 %; {n_surrogates} surrogates "
        "each.",
    ]
    for null in nulls:
        unlike = [name for name, test in tests.items() if test[null]["p_value"] > LEVEL]
        kept = "" if null in KEEPING else ", which keep no order and do not count,"
        if not unlike:
            sentences.append(f"{_capital(WORDS[null])}{kept} are rejected in all (p <= 0.05).")
        elif len(unlike) == len(tests):
            sentences.append(f"{_capital(WORDS[null])}{kept} are rejected in none (p > 0.05).")
        elif 2 * len(unlike) > len(tests):
            other = [name for name in tests if name not in unlike]
            sentences.append(
                f"{_capital(WORDS[null])}{kept} are rejected in {len(other)} of {len(tests)} "
                f"settings only (p <= 0.05): {listed(other)}."
            )
        else:
            sentences.append(
                f"{_capital(WORDS[null])}{kept} are not rejected in {len(unlike)} of {len(tests)} "
                f"settings (p > 0.05): {listed(unlike)}."
            )
    sentences.append(about_pulls(tests, n_rows))
    sentences.append(
        "The test is one-sided: a null model that is not rejected reaches as large a statistic, "
        "which is not to say that its paths look like the runs."
    )
    return [*sentences, _verdict_on_nulls(tests)]


def about_pulls(tests: dict[str, dict[str, dict[str, Any]]], n_rows: int) -> str:
    """Say how strong the fitted pulls are: without one, such a path is a walk with a drift."""
    pulls = np.concatenate([test["ornstein_uhlenbeck"]["fits"] for test in tests.values()])
    times = (n_rows - 1) * pulls
    none = int(np.sum(pulls == 0))
    return (
        f"The Ornstein-Uhlenbeck paths start as far from their centre as the runs do: the pulls "
        f"fitted to {len(pulls)} runs make a run {spanned(times, '.2g')} relaxation times long"
        + (f"; {none} of them show no pull, and get a walk with a drift." if none else ".")
    )


def _verdict_on_nulls(tests: dict[str, dict[str, dict[str, Any]]]) -> str:
    found = [name for name, p_value in nulls_corrected(tests).items() if p_value <= LEVEL]
    if found:
        return (
            f"So {len(found)} of {len(tests)} settings are more low-dimensional than every null "
            f"model: {listed(found)}; elsewhere at least one is not rejected. Paths that none "
            "of the null models describes are not ruled out."
        )
    enough = {
        null: sum(test[null]["p_value"] > LEVEL for test in tests.values()) for null in KEEPING
    }
    most = max(enough.values())
    words = listed([WORDS[null] for null, count in enough.items() if count == most])
    return (
        "So no setting was shown to be more low-dimensional than every null model: what the maps "
        f"show may be what {words} show as well, which are rejected in the fewest settings "
        f"({len(tests) - most} of {len(tests)})."
    )


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
