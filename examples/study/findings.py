"""R1 to R4 and R8: numbers -> sentences. Each sentence is computed: other numbers, other words."""

from typing import Any

import numpy as np
from comparisons import mean_effect

CLAIM_SHARE = 0.9
TOLERATED_RATE = 0.15


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def listed(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " and " + values[-1]


def spanned(values: Any, form: str = ".3g") -> str:
    low, high = (format(float(value), form) for value in (np.min(values), np.max(values)))
    return low if low == high else f"{low} to {high}"


def over_runs(values: list[float], form: str = ".2f") -> str:
    """Return a mean over runs with its 95 % interval."""
    effect = mean_effect(values, 1)
    return (
        f"{effect['difference']:{form}} (95 % interval over {len(values)} runs "
        f"{effect['low']:{form}} to {effect['high']:{form}})"
    )


def about_hessian(found: list[dict[str, Any]]) -> list[str]:
    runs = [run["points"] for run in found]
    n_classes = found[0]["n_classes"]
    places = []
    for points in zip(*runs, strict=True):
        shares = [100 * point["near_zero"] for point in points]
        places.append(f"{spanned(shares)} % at step {points[0]['step']}")
    every = [point["near_zero"] for points in runs for point in points]
    ends = [points[-1] for points in runs]
    outliers = [point["outliers"] for point in ends]
    equal = sum(count == n_classes - 1 for count in outliers)
    sentences = [
        f"In {len(runs)} runs the share of the {found[0]['n_parameters']} Hessian eigenvalues that "
        f"is estimated to lie within 1 % of the largest one of zero is {listed(places)}.",
        "At the end the widest gap among the leading eigenvalues (on a log scale) comes after "
        f"number {listed([str(k) for k in sorted(set(outliers))])}; it comes after the number of "
        f"classes less one, {n_classes - 1}, in {equal} of {len(runs)} runs.",
        f"The largest eigenvalue there is {spanned([p['eigenvalues'][0] for p in ends])}, the "
        f"trace {spanned([p['trace'] for p in ends])} (standard error of an estimate at most "
        f"{max(p['trace_stderr'] for p in ends):.2g}).",
    ]
    if min(every) >= CLAIM_SHARE:
        sentences.append("So most of the spectrum is close to zero all along, as the paper says.")
    elif max(every) < CLAIM_SHARE:
        sentences.append(
            "So, against the paper, a bulk of 90 % near zero was not found anywhere along the runs."
        )
    else:
        sentences.append(
            "So the bulk near zero (90 % of the eigenvalues) holds at some of these points only, "
            "not anywhere along the run."
        )
    return sentences


def about_noise(found: list[dict[str, Any]], iterates: dict[str, Any]) -> list[str]:
    first = found[0]
    slopes = [run["slope"] for run in found]
    effect = mean_effect(slopes, 1)
    low, high = effect["low"], effect["high"]
    sentences = [
        f"Along the top {len(first['eigenvalues'])} eigenvectors at the end of a run the variance "
        f"of the gradients of all {first['n_gradients']} training rows grows as the eigenvalue to "
        f"the power {over_runs(slopes)}; these directions hold "
        f"{spanned([100 * run['share'] for run in found])} % of the noise, by chance "
        f"{percent(first['chance_share'])}.",
    ]
    sentences += _of_iterates(iterates)
    if low > 0:
        verdict = "So the noise does prefer directions of large curvature"
        verdict += (
            ", and a power of 1, noise proportional to the Hessian, lies in the interval."
            if low <= 1 <= high
            else f", but not in proportion: a power of 1 lies {'below' if low > 1 else 'above'} "
            "the interval."
        )
    else:
        verdict = "So a preference of the noise for directions of large curvature was not shown."
    return [*sentences, verdict]


def _of_iterates(found: dict[str, Any]) -> list[str]:
    stationary, predicted = np.array(found["stationary"]), np.array(found["predicted"])
    usable = stationary & (predicted > 0)
    setting = (
        f"SGD with the learning rate {found['learning_rate']:g} and weight decay "
        f"{found['weight_decay']:g}, without which there is no equilibrium, goes on for "
        f"{found['burn_in']} and then {found['n_steps']} steps"
    )
    if not usable.any():
        return [
            f"{setting}, but along none of {len(stationary)} directions do the halves of these "
            "steps agree in mean and variance: no equilibrium was reached, and none is compared."
        ]
    ratios = np.array(found["iterates"])[:, usable] / predicted[usable]
    medians = np.median(ratios, axis=1).tolist()
    shuffled = np.array(found["shuffled"])[:, usable] / predicted[usable]
    median = float(np.mean(medians))
    sentences = [
        f"{setting}; along {usable.sum()} of {len(stationary)} directions its halves agree in mean "
        "and variance. There, with rows drawn with replacement, the variance of the iterates is "
        f"{median:.2f} times the stationary prediction in the median over directions "
        f"({spanned(medians, '.2f')} in {len(medians)} chains).",
    ]
    if 0.8 <= median <= 1.25:
        sentences.append("So the iterates obey the prediction, to a quarter.")
    else:
        sentences.append(
            "So the prediction does not describe these iterates: it is off by more than a quarter."
        )
    other = float(np.median(shuffled))
    sentences.append(
        f"With each row taken once in a pass, as is usual, the factor is {other:.2f}: "
        + (
            "the noise of such passes cancels in part, and the prediction is too large."
            if other < 0.8
            else "the way of drawing makes no difference of a quarter."
        )
    )
    return sentences


def about_top_space(found: list[dict[str, Any]]) -> list[str]:
    ends = np.array([run["displacement"][-1] for run in found])
    moves = np.array([np.median(run["moves"]) for run in found])
    chance, k = found[0]["chance"], found[0]["n_directions"]
    ratios: dict[str, list[float]] = {}
    for run in found:
        drops = {name: curve[0] - curve[-1] for name, curve in run["projected"].items()}
        for name in drops:
            if name != "SGD":
                ratios.setdefault(name, []).append(drops[name] / drops["SGD"])
    on, off = (mean_effect(ratios[f"{side} the top space"], 1) for side in ("on", "off"))
    spoken = {name: over_runs([100 * r for r in values], ".3g") for name, values in ratios.items()}
    sentences = [
        f"In {len(ends)} runs the top {k} Hessian directions of the end hold "
        f"{spanned(100 * ends)} % of the squared displacement and, in the median, "
        f"{spanned(100 * moves)} % of a single move; chance is k/m = {percent(chance)}.",
        "From a fifth of each run on, updates projected on the top space made, in per cent of the "
        f"drop in loss of plain SGD on the same batches, {spoken['on the top space']}, updates "
        f"projected off it {spoken['off the top space']}, and updates projected on a random space "
        f"of {k} dimensions, the chance level, {spoken['on a random space']}.",
    ]
    if on["high"] < 0.5 <= off["low"]:
        sentences.append(
            "So, as Song, Ahn and Yun (2025) found and against the plain reading of the paper, "
            "the moves that lower the loss are not those in the top space."
        )
    elif on["low"] >= 0.5 > off["high"]:
        sentences.append("So here the top space carries the learning, as the paper has it.")
    elif on["low"] >= 0.5 and off["low"] >= 0.5:
        sentences.append("So here either space alone makes at least half of the drop.")
    elif on["high"] < 0.5 and off["high"] < 0.5:
        sentences.append("So here neither space alone makes half of the drop.")
    else:
        sentences.append("So the runs do not agree on which space makes half of the drop.")
    return sentences


def outside(envelope: dict[str, Any]) -> set[int]:
    """Return the numbers, from 1, of the values outside the range of a null model."""
    rows = zip(envelope["values"], envelope["lower"], envelope["upper"], strict=True)
    return {k for k, (value, low, high) in enumerate(rows, start=1) if not low <= value <= high}


def about_map(
    found: dict[str, Any],
    pooled: dict[str, Any],
    n_settings: int,
    envelopes: dict[str, dict[str, Any]],
    words: dict[str, str],
) -> list[str]:
    independent = len(found["independent"])
    beyond = {null: outside(envelope["diffusion"]) for null, envelope in envelopes.items()}
    n_values = len(next(iter(envelopes.values()))["diffusion"]["values"])
    everywhere = sorted(set.intersection(*beyond.values()))
    counts = listed([f"{len(numbers)} for {words[null]}" for null, numbers in beyond.items()])
    sentences = [
        f"One run of each of {n_settings} optimizers, all from "
        f"{'one initialisation' if pooled['one_start'] else 'different initialisations'}, was put "
        f"into one map; it falls into {pooled['components']} connected "
        f"{'piece' if pooled['components'] == 1 else 'pieces'}.",
        f"In the map of a single run {independent} of the first "
        f"{len(found['harmonic_residuals'])} coordinates "
        f"{'is' if independent == 1 else 'are'} not a function of those before (criterion: "
        "local linear regression, residual above 0.5)"
        + (": an open arc, as a walk would be." if independent == 1 else "."),
        f"Of the {n_values} leading diffusion eigenvalues, the mean over the base runs, so many "
        f"lie outside the 95 % range of a null model (each by itself): {counts}.",
    ]
    if everywhere:
        sentences.append(
            f"So number {listed([str(k) for k in everywhere])} of the eigenvalues "
            f"{'is' if len(everywhere) == 1 else 'are'} like those of no null model: the map "
            "differs from a walk, which is not to say that its dimension is lower."
        )
    else:
        sentences.append(
            "So each eigenvalue lies in the range of one null model or another: their decay alone "
            "says nothing."
        )
    return sentences


def about_known_answer(draws: list[dict[str, Any]], raised: float) -> list[str]:
    first = draws[0]
    spoken, error = _rates([first["of_lists"]])
    sentences = [
        f"Over lists of {first['n_neighbors']} neighbours, {first['n_rows']} rows, the rates are "
        f"{spoken}, off by at most {percent(error)}"
        + (
            ": cut off there, a kernel of this width does not give rates in the units of the "
            "theory."
            if error > TOLERATED_RATE
            else "."
        )
    ]
    agreeing = {}
    for key, words in (
        ("pairs", 'the bandwidth "auto"'),
        ("raised", f"a bandwidth {raised:g} times that"),
    ):
        pairs = [draw[key] for draw in draws]
        spoken, worst = _rates(pairs)
        matched = sum(all(map(matching, own)) for own in pairs)
        least = {
            name: min(pair[name] for own in pairs for pair in own)
            for name in ("correlation", "participation")
        }
        sentences.append(
            f"A kernel over all pairs and {words}, {len(draws)} draws: the map finds the rates "
            f"{spoken}, off by at most {percent(worst)}. In {matched} of {len(draws)} draws both "
            "coordinates are what was asked for, a correlation of at least 0.9 with the position "
            f"and a participation of at least 0.05; the least are {least['correlation']:.2f} and "
            f"{least['participation']:.2g}."
        )
        agreeing[key] = sum(
            all(map(matching, own)) and _rates([own])[1] <= TOLERATED_RATE for own in pairs
        )
    n = len(draws)
    if agreeing["raised"] > agreeing["pairs"]:
        sentences.append(
            "Where a participation is low, few rows carry the coordinate; the larger bandwidth, "
            "which the library's warning about such coordinates advises, helps there."
        )
    return [
        *sentences,
        f"So theory and code agree, rates within {percent(TOLERATED_RATE)} along coordinates as "
        f'asked for, in {agreeing["pairs"]} of {n} draws with "auto" and in {agreeing["raised"]} '
        f"of {n} with the larger bandwidth.",
    ]


def matching(pair: dict[str, Any]) -> bool:
    """Tell whether a coordinate is like the position along a direction, and no straggler's."""
    return bool(pair["correlation"] >= 0.9 and pair["participation"] >= 0.05)


def _rates(draws: list[list[dict[str, Any]]]) -> tuple[str, float]:
    spoken = listed(
        [
            f"{spanned([pair['rate'] for pair in same], '.3f')} for {same[0]['hessian']:.3f}"
            for same in zip(*draws, strict=True)
        ]
    )
    return spoken, max(abs(pair["rate"] / pair["hessian"] - 1) for own in draws for pair in own)
