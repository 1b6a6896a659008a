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


def numbered(numbers: list[int]) -> str:
    """Return numbers with successive ones as a range: 0, 4 to 6 and 9."""
    pieces: list[list[int]] = []
    for number in sorted(numbers):
        if pieces and number == pieces[-1][-1] + 1:
            pieces[-1].append(number)
        else:
            pieces.append([number])
    words = []
    for own in pieces:
        words += [str(k) for k in own] if len(own) < 3 else [f"{own[0]} to {own[-1]}"]
    return listed(words)


def over_runs(values: list[float], form: str = ".2f") -> str:
    """Return a mean over runs with its 95 % interval."""
    effect = mean_effect(values, 1)
    return (
        f"{effect['difference']:{form}} (95 % interval over {len(values)} runs "
        f"{effect['low']:{form}} to {effect['high']:{form}})"
    )


def about_hessian(found: list[dict[str, Any]], inputs: str) -> list[str]:
    """Say where the spectrum lies; ``inputs`` is how the pixels are scaled, in words."""
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
        "An eigenvalue counts as near zero if it is at most 1 % of the largest one in size. The "
        f"share of such eigenvalues among all {found[0]['n_parameters']}, estimated in {len(runs)} "
        f"runs, is {listed(places)}.",
        "At the end the widest gap among the leading eigenvalues (on a log scale) comes after "
        f"the first {listed([str(k) for k in sorted(set(outliers))])}; in {equal} of {len(runs)} "
        f"runs it comes after the first {n_classes - 1}, one less than there are classes.",
        f"The largest eigenvalue at the end is {spanned([p['eigenvalues'][0] for p in ends])}, the "
        f"trace {spanned([p['trace'] for p in ends])} (standard error of an estimate at most "
        f"{max(p['trace_stderr'] for p in ends):.2g}).",
    ]
    limits = (
        f"with inputs {inputs} and up to {runs[0][-1]['step']} steps of training, at "
        f"{len(runs[0])} points along each of {len(runs)} runs"
    )
    other = "Other scales of the inputs and longer training were not tried here."
    if min(every) >= CLAIM_SHARE:
        sentences.append(
            f"So, {limits}, at least 90 % of the eigenvalues lie near zero, as the paper says. "
            f"{other}"
        )
    elif max(every) < CLAIM_SHARE:
        sentences.append(
            f"So, {limits}, fewer than 90 % of the eigenvalues lie near zero, against the paper. "
            f"{other}"
        )
    else:
        sentences.append(
            f"So, {limits}, at least 90 % of the eigenvalues lie near zero in "
            f"{sum(share >= CLAIM_SHARE for share in every)} of {len(every)} cases, and fewer in "
            f"the others; the paper says in all. {other}"
        )
    return sentences


def about_noise(found: list[dict[str, Any]], iterates: dict[str, Any]) -> list[str]:
    first = found[0]
    slopes = [run["slope"] for run in found]
    effect = mean_effect(slopes, 1)
    low, high = effect["low"], effect["high"]
    sentences = [
        f"Along the top {len(first['eigenvalues'])} eigenvectors at the end of a run the variance "
        f"of single-row gradients, over all {first['n_gradients']} training rows, grows as the "
        f"eigenvalue to the power {over_runs(slopes)}; these directions hold "
        f"{spanned([100 * run['share'] for run in found])} % of the noise; as many random "
        f"directions hold {percent(first['chance_share'])}.",
    ]
    sentences += _of_iterates(iterates)
    runs = f"over {len(found)} runs"
    if low > 1:
        verdict = (
            "So the noise is larger along directions of larger curvature and grows faster than the "
            f"eigenvalue: the interval of the power {runs} lies above 1."
        )
    elif low > 0:
        verdict = "So the noise is larger along directions of larger curvature: " + (
            f"the interval of the power {runs} contains 1, noise in proportion to the Hessian."
            if high >= 1
            else f"it grows slower than the eigenvalue, the interval of the power {runs} lies "
            "below 1."
        )
    else:
        verdict = (
            "So it was not shown that the noise is larger along directions of larger curvature: "
            f"the interval of the power {runs} contains 0."
        )
    return [*sentences, verdict]


def _of_iterates(found: dict[str, Any]) -> list[str]:
    stationary, predicted = np.array(found["stationary"]), np.array(found["predicted"])
    usable = stationary & (predicted > 0)
    setting = (
        f"From the end of run 0, SGD with the learning rate {found['learning_rate']:g} and weight "
        f"decay {found['weight_decay']:g}, without which there is no equilibrium, goes on for "
        f"{found['burn_in']} steps, and the next {found['n_steps']} are looked at"
    )
    if not usable.any():
        return [
            f"{setting}. Along none of {len(stationary)} directions do their two halves agree in "
            "mean and variance: no equilibrium was reached, and nothing is compared."
        ]
    ratios = np.array(found["iterates"])[:, usable] / predicted[usable]
    medians = np.median(ratios, axis=1).tolist()
    shuffled = np.array(found["shuffled"])[:, usable] / predicted[usable]
    median = float(np.mean(medians))
    sentences = [
        f"{setting}. Along {usable.sum()} of {len(stationary)} directions their two halves agree "
        "in mean and variance. There, if rows are drawn with replacement, the variance of the "
        f"iterates is {median:.2f} times the stationary prediction in the median over directions "
        f"({spanned(medians, '.2f')} in {len(medians)} chains).",
    ]
    if 0.8 <= median <= 1.25:
        sentences.append("So these iterates agree with the prediction within 25 %.")
    else:
        sentences.append("So these iterates differ from the prediction by more than 25 %.")
    other = float(np.median(shuffled))
    usual = (
        f"If each row is taken once in a pass, as is usual, it is {other:.2f} times the prediction"
    )
    if other < 0.8:
        sentences.append(f"{usual}: the noise of such passes cancels in part.")
    else:
        sentences.append(
            f"{usual}, which "
            + (
                "is more than 25 % above it."
                if other > 1.25
                else "agrees with it within 25 %, too."
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
        f"In {len(ends)} runs the top {k} Hessian directions at the end hold "
        f"{spanned(100 * ends)} % of the squared displacement from the start and "
        f"{spanned(100 * moves)} % of the median step; {k} random directions hold "
        f"{percent(chance)}.",
        "From a fifth of each run on, training was repeated on the same batches with projected "
        "updates. The drop in loss, in per cent of that of plain SGD, is "
        f"{spoken['on the top space']} for updates projected on the top space, "
        f"{spoken['off the top space']} with the top space projected out, and "
        f"{spoken['on a random space']} for updates projected on a random space of {k} dimensions.",
    ]
    runs = f"on average over {len(found)} runs"
    if on["high"] < 0.5 <= off["low"]:
        sentences.append(
            f"So, {runs}, the steps that lower the loss are not those in the top space, as Song, "
            "Ahn and Yun (2025) found and against the plain reading of the paper."
        )
    elif on["low"] >= 0.5 > off["high"]:
        sentences.append(
            f"So, {runs}, steps in the top space lower the loss and the others do not, as the "
            "paper says."
        )
    elif on["low"] >= 0.5 and off["low"] >= 0.5:
        sentences.append(
            f"So, {runs}, steps in the top space alone and steps off it alone each make at least "
            "half of the drop of plain SGD."
        )
    elif on["high"] < 0.5 and off["high"] < 0.5:
        sentences.append(
            f"So, {runs}, neither steps in the top space alone nor steps off it alone make half of "
            "the drop of plain SGD."
        )
    else:
        sentences.append(
            f"So the {len(found)} runs do not agree on which steps make half of the drop of plain "
            "SGD."
        )
    return sentences


def outside(envelope: dict[str, Any]) -> set[int]:
    """Return the numbers, from 0, of the values outside the range of a null model."""
    rows = zip(envelope["values"], envelope["lower"], envelope["upper"], strict=True)
    return {k for k, (value, low, high) in enumerate(rows) if not low <= value <= high}


def deviations(envelope: dict[str, Any]) -> np.ndarray:
    """Return by which share each value is larger or smaller than the median of a null model."""
    ratio = np.asarray(envelope["values"]) / np.asarray(envelope["median"])
    return np.maximum(ratio, 1 / ratio) - 1


def about_map(
    found: dict[str, Any],
    pooled: dict[str, Any],
    n_settings: int,
    envelopes: dict[str, dict[str, Any]],
    words: dict[str, str],
) -> list[str]:
    independent = len(found["independent"])
    curves = {null: envelope["diffusion"] for null, envelope in envelopes.items()}
    beyond = {null: outside(curve) for null, curve in curves.items()}
    first = next(iter(envelopes.values()))
    n_values = len(first["diffusion"]["values"])
    everywhere = sorted(set.intersection(*beyond.values()))
    counts = listed([f"{len(numbers)} for {words[null]}" for null, numbers in beyond.items()])
    off = {null: deviations(curve) for null, curve in curves.items()}
    nearest = min(off, key=lambda null: off[null].mean())
    farthest = max(off, key=lambda null: off[null].mean())
    sentences = [
        f"One run of each of {n_settings} optimizers, all from "
        f"{'one initialisation' if pooled['one_start'] else 'different initialisations'}, was put "
        f"into one map; it falls into {pooled['components']} connected "
        f"{'piece' if pooled['components'] == 1 else 'pieces'}.",
        f"Of the first {len(found['harmonic_residuals'])} coordinates of the map of run 0, "
        f"{independent} {'is' if independent == 1 else 'are'} new, that is, no function of those "
        "before (a local linear regression leaves a residual above 0.5)"
        + (": the map is an open arc, as that of a walk would be." if independent == 1 else "."),
        f"Each of the {n_values} leading diffusion eigenvalues, the mean over {first['n_runs']} "
        f"runs, was compared with its 95 % range over {first['n_surrogates']} surrogates, without "
        f"correction. The number of eigenvalues outside that range is {counts}.",
        "Being outside does not say by how much. On average over these eigenvalues the medians of "
        f"{words[nearest]} differ from the runs by {percent(off[nearest].mean())} (at most "
        f"{percent(off[nearest].max())}, for eigenvalue {int(off[nearest].argmax())}), those of "
        f"{words[farthest]} by {percent(off[farthest].mean())}.",
    ]
    if everywhere:
        verb = "is" if len(everywhere) == 1 else "are"
        sentences.append(
            f"So {len(everywhere)} of {n_values} eigenvalues (number {numbered(everywhere)}, "
            f"counted from 0) {verb} outside the range of each of {len(curves)} null models, "
            f"although {words[nearest]} come within {percent(off[nearest].mean())} on average. "
            "This shows that the map differs from theirs, not that its dimension is lower."
        )
    else:
        sentences.append(
            f"So each of the {n_values} eigenvalues lies in the range of at least one of "
            f"{len(curves)} null models: their decay alone says nothing of the dimension."
        )
    return sentences


def about_known_answer(draws: list[dict[str, Any]], raised: float) -> list[str]:
    first, n = draws[0], len(draws)
    spoken, error = _rates([first["of_lists"]])
    sentences = [
        f"Draw 0, {first['n_rows']} rows, each with its {first['n_neighbors']} nearest neighbours "
        f"only: the map finds the rates {spoken}, off by at most {percent(error)}"
        + (
            ", because the neighbours cut off a kernel of this width."
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
            f"All pairs and {words}, {n} draws: the map finds the rates {spoken}, off by at most "
            f"{percent(worst)}. In {matched} of {n} draws both coordinates have a correlation of "
            "at least 0.9 with the position and a participation of at least 0.05; the least are "
            f"{least['correlation']:.2f} and {least['participation']:.2g}."
        )
        agreeing[key] = sum(agrees(own) for own in pairs)
    number = worst_draw(draws)
    own, other = (_rates([draws[number][key]])[1] for key in ("raised", "pairs"))
    if own > other:
        sentences.append(
            f"The larger bandwidth, which connects rows in the tails, does not always help: in "
            f"draw {number} a rate is off by {percent(own)} with it and by "
            f'{percent(other)} with "auto".'
        )
    return [
        *sentences,
        f"So theory and code agree, with rates within {percent(TOLERATED_RATE)} along coordinates "
        f'that match the position, in {agreeing["pairs"]} of {n} draws with "auto" and in '
        f"{agreeing['raised']} of {n} with the larger bandwidth.",
    ]


def agrees(pairs: list[dict[str, Any]]) -> bool:
    """Tell whether a draw has the rates of the theory along coordinates that match."""
    return all(map(matching, pairs)) and _rates([pairs])[1] <= TOLERATED_RATE


def worst_draw(draws: list[dict[str, Any]]) -> int:
    """Return the draw whose rates with the larger bandwidth are farthest off."""
    return int(np.argmax([_rates([draw["raised"]])[1] for draw in draws]))


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
