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
from dimension import MEASURES, MOST_DIMENSIONS
from findings import listed, percent, spanned

# A change by less than this share of the mean dimension counts as none.
TOLERATED = 0.1
# A network is trained if it has learned this share of what can be learned: from the loss of a guess
# down to the entropy of the labels, 0 without label noise.
TRAINED = 0.5
# What the null models are, in words.
WORDS = {
    "random_walk": "plain walks",
    "ar1": "walks with correlated steps",
    "ornstein_uhlenbeck": "Ornstein-Uhlenbeck paths",
    "drift": "walks with a drift",
    "decaying_drift": "walks with a drift that dies away",
    "sign_flips": "the steps turned round at random",
    "anisotropic_walk": "walks with the recorded covariance",
    "anisotropic_ou": "Ornstein-Uhlenbeck paths with the recorded covariance",
    "linear": "linear processes that pull each principal component by its own strength",
}
# What may be claimed of a setting, and what the claims leave.
CLAIMS = {
    "fewer_dimensions": "fewer dimensions than isotropic noise",
    "beyond_linear": "more than a linear process",
}
LEVELS = {"noise": "isotropic noise"} | CLAIMS
MEASURE_WORDS = {
    "non_harmonic": "harmonic dimension",
    "participation": "participation number",
    "slope_at_bandwidth": "slope dimension at the bandwidth of the maps",
    "slope": "largest slope dimension over all bandwidths",
}
# Why a measure may depend on the number of rows, however many there are.
WHY_NOT_SETTLED = {
    "slope": "The closer the rows are, the smaller is the bandwidth at which the slope is largest: "
    "each number of rows gives the dimension at another scale.",
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
        n: f"So, in the mean over {len(found['runs'])} runs, the local dimension is below that of "
        "every null model in all windows.",
        0: "So in every window at least one null model has as low a dimension as the "
        f"{len(found['runs'])} runs: a local dimension below that of walks was not shown.",
    }
    return [
        f"In windows of {found['window']} rows the slope dimension, the mean over "
        f"{len(found['runs'])} runs, is {dimension[0]:.2f} in the first window, "
        f"{dimension[-1]:.2f} in the last, and between {min(dimension):.2f} and "
        f"{max(dimension):.2f} in all {n}.",
        f"The number of windows in which it is below that of {found['n_surrogates']} surrogates "
        f"(p <= 0.05, corrected over the {n} windows) is {counts}. In {everywhere} windows it is "
        "below that of all null models.",
        verdict.get(
            everywhere,
            f"So in {everywhere} of {n} windows the {len(found['runs'])} runs have a lower "
            "dimension than every null model; in the others at least one null model has as low a "
            "dimension.",
        ),
    ]


def is_trained(measured: dict[str, Any]) -> bool:
    """Tell whether the loss at the end of every run is well below that of a guess."""
    return learned_share(measured) >= TRAINED


def learned_share(measured: dict[str, Any]) -> float:
    """Return how much of what can be learned the run with the largest loss has learned."""
    guess, floor = measured["guess"], measured["entropy"]
    return float((guess - max(measured["final_loss"])) / (guess - floor))


def entropy_of_labels(noise: float, guess: float) -> float:
    """Return the least mean loss without memorising; ``guess`` is log(n_classes).
    A share ``noise`` of the labels is replaced by another class, drawn uniformly.
    """
    if noise == 0:
        return 0.0
    others = np.exp(guess) - 1
    return float(-(1 - noise) * np.log(1 - noise) - noise * np.log(noise / others))


def factorial(
    levels: list[dict[str, int]], cells: list[dict[str, Any]], row_counts: list[int]
) -> dict[str, Any]:
    """Return the main effects of each measure at each number of rows, of the trained cells."""
    kept = [is_trained(cell) for cell in cells]
    counting = [cell for cell, counts in zip(cells, kept, strict=True) if counts]
    found: dict[str, Any] = {
        "row_counts": row_counts,
        "n_runs": len(cells[0]["final_loss"]),
        "n_cells": len(cells),
        "n_factors": len(levels[0]),
        "kept": kept,
        "learned": [learned_share(cell) for cell in cells],
        "measures": {},
    }
    for measure in MEASURES if counting else ():
        tables = [[cell[measure][i] for cell in cells] for i in range(len(row_counts))]
        effects = [main_effects(levels, values, kept) for values in tables]
        means = [
            float(np.mean([cell[measure][i] for cell in counting])) for i in range(len(row_counts))
        ]
        found["measures"][measure] = {
            "mean": means[-1],
            "means": means,
            "effects": effects[-1],
            "by_count": effects,
            "interactions": interactions(levels, tables[-1], kept),
            "settled": is_settled(means, effects),
        }
    counts = np.concatenate([cell["independent"] for cell in counting] or [[]]).astype(int)
    found["independent"] = {
        str(k): int(n) for k, n in zip(*np.unique(counts, return_counts=True), strict=True)
    }
    return found


def is_settled(means: list[float], by_count: list[dict[str, dict[str, float]]]) -> bool:
    """Tell whether the number of rows does not decide.

    It does not if each effect from fewer rows lies in the interval of that from all rows, and no
    mean differs by half of what is tolerated.
    """
    within = all(
        effect["low"] <= coarse[name]["difference"] <= effect["high"]
        for coarse in by_count[:-1]
        for name, effect in by_count[-1].items()
    )
    return within and max(means) - min(means) <= TOLERATED / 2 * abs(means[-1])


def size_of(effect: dict[str, float], mean: float) -> str:
    """Return whether a change was shown, and whether it is more than TOLERATED of the mean."""
    bound = TOLERATED * abs(mean)
    changed = effect["holm"] <= LEVEL
    within = max(abs(effect["low"]), abs(effect["high"])) <= bound
    beyond = effect["low"] > bound or effect["high"] < -bound
    if changed:
        return "small" if within else "large" if beyond else "changed"
    return "none" if within else "open"


def about_factors(found: dict[str, Any], names: list[str], walk: dict[str, float]) -> list[str]:
    """Say what the factors do; ``names`` are those of the cells, ``walk`` has its dimensions."""
    n_runs, n_cells = found["n_runs"], found["n_cells"]
    counts = found["row_counts"]
    sentences = [
        f"All networks train for {counts[-1] - 1} steps, so that equal numbers of rows are equally "
        f"many steps apart. The design has {n_cells} cells, every combination of "
        f"{found['n_factors']} factors at two levels, with {n_runs} runs each; run r has the same "
        f"seeds in all cells, so that each effect is a mean over {n_runs} independent differences.",
        _about_training(found, names),
    ]
    if not found["measures"]:
        return [*sentences, "So nothing is compared: no network of the design is trained."]
    main = found["measures"]["non_harmonic"]
    sentences.append(
        f"The harmonic dimension is {main['mean']:.3g} on average; a plain random walk of as many "
        f"steps has {walk['non_harmonic']:.3g}, an exact open arc has 1."
    )
    sentences.append(_about_rows("harmonic dimension", main, counts))
    sentences += [
        _about_effect(name, effect, main["mean"], n_runs, len(main["effects"]))
        for name, effect in main["effects"].items()
    ]
    sentences.append(_about_interactions(main["interactions"], main["mean"], n_runs))
    sentences += [
        _about_measure(measure, found["measures"][measure], counts, n_runs)
        for measure in MEASURES[1:]
    ]
    independent = found["independent"]
    total = sum(independent.values())
    most = max(independent, key=lambda k: independent[k])
    sentences.append(
        f"Counted in whole coordinates (residual above 0.5), the dimension is {most} in "
        f"{independent[most]} of {total} runs."
    )
    return [*sentences, _verdict_on_factors(main, counts, n_runs)]


def _about_training(found: dict[str, Any], names: list[str]) -> str:
    learned = dict(zip(names, found["learned"], strict=True))
    left_out = [name for name, kept in zip(names, found["kept"], strict=True) if not kept]
    way = "of the way from the loss of a guess to the entropy of the labels"
    if not left_out:
        return (
            f"All {found['n_cells'] * found['n_runs']} networks are trained: their loss over the "
            f"last ten batches has come at least {percent(TRAINED)} {way}; the least has come "
            f"{percent(min(learned.values()))}."
        )
    verb = "is" if len(left_out) == 1 else "are"
    shares = [f"{name} ({percent(learned[name])})" for name in left_out]
    return (
        f"{len(left_out)} of {found['n_cells']} cells {verb} left out, as the loss of a network "
        f"there has not come {percent(TRAINED)} {way}: {listed(shares)}."
    )


def _about_rows(words: str, own: dict[str, Any], counts: list[int]) -> str:
    """Say whether the number of rows decides."""
    steps = [str((counts[-1] - 1) // (count - 1)) for count in counts]
    means = (
        f"from {listed([str(count) for count in counts])} rows of the same runs (a row every "
        f"{listed(steps)} steps) its mean is {listed([f'{mean:.3g}' for mean in own['means']])}"
    )
    if own["settled"]:
        return (
            f"The {words} does not depend on the number of rows: {means}, and each effect lies in "
            "the interval found from all rows."
        )
    return (
        f"The {words}, or an effect on it, depends on the number of rows: {means}. So its effects "
        "are not interpreted."
    )


def _about_effect(
    name: str, effect: dict[str, float], mean: float, n_runs: int, n_tests: int
) -> str:
    text = (
        f"The factor {name} changes the mean by {effect['difference']:+.2g}, that is "
        f"{100 * effect['difference'] / mean:+.2g} % (95 % interval over {n_runs} runs "
        f"{effect['low']:+.2g} to {effect['high']:+.2g}; p = {effect['holm']:.2g} after Holm's "
        f"correction over {n_tests} factors)"
    )
    if effect["holm"] <= LEVEL:
        return f"{text}."
    return (
        f"{text}; a change by {effect['detectable']:.2g} would have been found with probability "
        f"{POWER:g}."
    )


def _about_measure(measure: str, own: dict[str, Any], counts: list[int], n_runs: int) -> str:
    rows = _about_rows(MEASURE_WORDS[measure], own, counts)
    if not own["settled"]:
        return f"{rows} {WHY_NOT_SETTLED[measure]}" if measure in WHY_NOT_SETTLED else rows
    sizes = [
        f"{100 * effect['difference'] / own['mean']:+.2g} % with {name}"
        for name, effect in own["effects"].items()
    ]
    return f"{rows} It changes, on average over {n_runs} runs, by {listed(sizes)}."


def _about_interactions(found: dict[str, dict[str, float]], mean: float, n_runs: int) -> str:
    shown = {name: effect for name, effect in found.items() if effect["holm"] <= LEVEL}
    words = (
        f"The effect of one factor differs with the level of another in {len(shown)} of "
        f"{len(found)} pairs (p <= 0.05 over {n_runs} runs, Holm)"
    )
    if not shown:
        return f"{words}."
    name, largest = max(shown.items(), key=lambda item: abs(item[1]["difference"]))
    return (
        f"{words}, most for {name}, by {100 * abs(largest['difference']) / mean:.2g} % of the mean."
    )


def _verdict_on_factors(main: dict[str, Any], counts: list[int], n_runs: int) -> str:
    if not main["settled"]:
        return (
            "So nothing is said of the harmonic dimension: it depends on the number of rows, "
            f"{counts[0]} to {counts[-1]}."
        )
    limit = percent(TOLERATED)
    words = {
        f"changes by less than {limit} of its mean with": ("small", "none"),
        f"changes by more than {limit} with": ("large",),
        f"may or may not change by {limit} with": ("changed", "open"),
    }
    sizes = {name: size_of(effect, main["mean"]) for name, effect in main["effects"].items()}
    parts = []
    for text, kinds in words.items():
        names = [name for name, size in sizes.items() if size in kinds]
        if names:
            parts.append(f"{text} {listed(names)}")
    return (
        f"So, with {n_runs} runs a cell and {counts[-1] - 1} steps, the harmonic dimension "
        f"{'; it '.join(parts)}."
    )


def against_base(
    measured: dict[str, dict[str, Any]], shared: dict[str, bool], measure: str
) -> dict[str, dict[str, Any]]:
    """Return each trained setting less the base setting, with Holm's correction over settings.

    From all rows; ``by_count`` has the differences from each number of rows.
    """
    others = [name for name, own in measured.items() if name != "base" and is_trained(own)]
    found = {}
    for name in others:
        by_count = [
            compare(first, second, paired=shared[name], n_tests=len(others))
            for first, second in zip(
                measured[name][measure], measured["base"][measure], strict=True
            )
        ]
        found[name] = by_count[-1] | {"by_count": [own["difference"] for own in by_count]}
    adjusted = holm([effect["p_value"] for effect in found.values()])
    for effect, p_value in zip(found.values(), adjusted, strict=True):
        effect["holm"] = p_value
    return found


def about_settings(
    compared: dict[str, dict[str, Any]], mean: float, n_runs: int, left_out: list[str]
) -> str:
    """Say by how much single settings differ from the base setting."""
    words = (
        f"{len(compared)} single settings, {n_runs} runs each, were compared with the base setting"
    )
    if left_out:
        words += f" ({listed(left_out)} left out: not trained)"
    if not compared:
        return f"{words}."
    shown = sum(effect["holm"] <= LEVEL for effect in compared.values())
    name, most = max(compared.items(), key=lambda item: abs(item[1]["difference"]))
    text = (
        f"{words}: {shown} differ{'s' * (shown == 1)} in harmonic dimension (p <= 0.05 after "
        f"Holm's correction), {name} the most, by {100 * most['difference'] / mean:+.2g} %."
    )
    limit = percent(TOLERATED)
    sizes = {name: size_of(effect, mean) for name, effect in compared.items()}
    large = [name for name, size in sizes.items() if size == "large"]
    unclear = [name for name, size in sizes.items() if size in ("changed", "open")]
    text += f" A difference of more than {limit} is shown for {listed(large) if large else 'none'}"
    return f"{text}; the intervals leave it open for {listed(unclear)}." if unclear else f"{text}."


Claims = dict[str, dict[str, Any]]


def claims_corrected(claims: Claims) -> dict[str, dict[str, Any]]:
    """Return the p-value of both claims on each setting, and the level that they leave.

    A claim needs each of its null models rejected: the largest of their p-values is a valid one
    (intersection-union test). Holm's correction is over settings, for each claim.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in claims}
    for claim in CLAIMS:
        worst = [
            max(test["p_value"] for test in own["tests"].values() if test["claim"] == claim)
            for own in claims.values()
        ]
        for name, p_value in zip(claims, holm(worst), strict=True):
            found[name][claim] = p_value
    for name, own in found.items():
        steps = next(
            test["statistic"]
            for test in claims[name]["tests"].values()
            if test["claim"] == "fewer_dimensions"
        )
        is_few = steps <= MOST_DIMENSIONS * claims[name]["n_columns"]
        own["level"] = "noise"
        if own["beyond_linear"] <= LEVEL:
            own["level"] = "beyond_linear"
        elif own["fewer_dimensions"] <= LEVEL and is_few:
            own["level"] = "fewer_dimensions"
    return found


def about_claims(claims: Claims, walk: dict[str, Any], n_surrogates: int, n_rows: int) -> list[str]:
    found = claims_corrected(claims)
    first = next(iter(claims.values()))
    n, n_runs = len(claims), first["n_runs"]
    nulls = {
        claim: listed(
            [WORDS[null] for null, own in first["tests"].items() if own["claim"] == claim]
        )
        for claim in CLAIMS
    }
    by_level = {
        level: [name for name, own in found.items() if own["level"] == level] for level in LEVELS
    }
    sentences = [
        "A plain random walk of 200 steps in 2,000 dimensions has the diffusion eigenvalues "
        f"{listed([f'{value:.3f}' for value in walk['eigenvalues'][:4]])}, and its coordinates "
        f"are cosines of time to a correlation of {min(walk['cosines']):.3f} or better: a smooth "
        "low-dimensional picture proves nothing.",
        f"Two claims were tested on each of {n} settings, {n_runs} runs and {n_rows} rows a run, "
        f"with {n_surrogates} surrogates of each null model; a claim needs all its null models "
        f"rejected, and its p-values are corrected (Holm) over the settings.",
        "The first claim is fewer dimensions than isotropic noise: the steps are spread over fewer "
        f"dimensions than those of {nulls['fewer_dimensions']}, all with noise that is the same in "
        "all directions.",
        "The second claim is more than a linear process: the path comes back to earlier places "
        f"more closely than {nulls['beyond_linear']}. A path that never comes back is not found to "
        "be more, whatever its shape.",
    ]
    spread = np.array([own["dimension"] for own in claims.values()])
    lag = min(own["lags"][-1] for own in claims.values())
    sentences.append(
        f"In the {n} settings the steps are spread over {spanned(spread[:, 0, 0])} dimensions of "
        f"{spanned([own['n_columns'] for own in claims.values()], '.0f')} parameters, and "
        f"displacements over {lag} steps over {spanned(spread[:, 0, 1])}."
    )
    for claim, words in CLAIMS.items():
        names = [name for name, own in found.items() if own[claim] <= LEVEL]
        shown = f": {listed(names)}" if names else ""
        sentences.append(
            f"All null models of the claim of {words} are rejected (p <= 0.05) in {len(names)} of "
            f"{n} settings{shown}."
        )
    rejecting = sum(found[name]["fewer_dimensions"] <= LEVEL for name in by_level["noise"])
    sentences.append(_verdict_on_claims(by_level, rejecting, n, n_runs))
    return sentences


def _verdict_on_claims(by_level: dict[str, list[str]], rejecting: int, n: int, n_runs: int) -> str:
    """Say how many settings reach which level; ``rejecting`` of those at "noise" differ from it."""
    beyond, few = by_level["beyond_linear"], by_level["fewer_dimensions"]
    same = len(by_level["noise"]) - rejecting
    such = "such noise" if same else "isotropic noise"
    parts = []
    if same:
        parts.append(
            f"{same} of {n} settings cannot be told from isotropic noise with a drift, a pull or "
            "correlated steps"
        )
    if rejecting:
        parts.append(
            f"{rejecting} of {n} {_verb(rejecting, 'differs', 'differ')} from {such}, with "
            f"steps spread over more than {percent(MOST_DIMENSIONS)} of the dimensions, too many "
            "for the claim"
        )
    if few:
        parts.append(
            f"{len(few)} of {n} {_verb(len(few), 'has', 'have')} fewer dimensions than {such}, "
            "and a linear process with the recorded covariance explains the path"
        )
    if beyond:
        verb = _verb(len(beyond), "is more than a linear process", "are more than linear processes")
        parts.append(f"{len(beyond)} of {n} {verb}")
    return f"So, with {n_runs} runs each: {'; '.join(parts)}."


def _verb(number: int, of_one: str, of_more: str) -> str:
    return of_one if number == 1 else of_more
