"""Numbers -> sentences. Each sentence is computed: other numbers, other words."""

from typing import Any

import numpy as np

CLAIM_SHARE = 0.9


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def listed(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " and " + values[-1]


def about_hessian(found: dict[str, Any]) -> list[str]:
    points, n_classes = found["points"], found["n_classes"]
    shares = [point["near_zero"] for point in points]
    where = listed([f"step {point['step']}" for point in points])
    sentences = [
        f"At {where} a share of {listed([percent(share) for share in shares])} of the "
        f"{found['n_parameters']} Hessian eigenvalues is estimated to lie within 1 % of the "
        "largest one."
    ]
    last = points[-1]
    relation = "as many as" if last["outliers"] == n_classes - 1 else "not the same as"
    sentences.append(
        f"At the end the widest gap among the leading eigenvalues (on a log scale) comes after "
        f"number {last['outliers']}, {relation} the number of classes less one, {n_classes - 1}."
    )
    sentences.append(
        f"The trace there is {last['trace']:.4g} (standard error {last['trace_stderr']:.2g}), the "
        f"largest eigenvalue {last['eigenvalues'][0]:.4g}."
    )
    if min(shares) >= CLAIM_SHARE:
        sentences.append("So most of the spectrum is close to zero all along, as the paper says.")
    elif max(shares) < CLAIM_SHARE:
        sentences.append("So a bulk of 90 % near zero was not found anywhere along the run.")
    else:
        sentences.append(
            "So the bulk near zero holds at some of these points only, not anywhere along the run."
        )
    return sentences


def about_noise(found: dict[str, Any]) -> list[str]:
    low, high = found["slope_interval"]
    sentences = [
        f"Along the top {len(found['eigenvalues'])} eigenvectors the variance of the gradient of "
        f"single rows grows as the eigenvalue to the power {found['slope']:.2f} (95 % interval "
        f"{low:.2f} to {high:.2f}, correlation {found['correlation']:.2f}); they hold "
        f"{percent(found['share'])} of the noise, by chance {percent(found['chance_share'])}."
    ]
    usable = [
        (seen, expected)
        for seen, expected in zip(found["iterates"], found["predicted"], strict=True)
        if expected > 0
    ]
    ratios = np.array([seen / expected for seen, expected in usable])
    sentences.append(
        f"In plain SGD that goes on with the learning rate {found['learning_rate']:g}, the "
        f"variance of the iterates, their linear trend removed, is {np.median(ratios):.2f} times "
        f"the stationary prediction in the median over {len(ratios)} directions (range "
        f"{ratios.min():.2g} to {ratios.max():.2g})."
    )
    if not 0.5 <= np.median(ratios) <= 2:
        sentences.append(
            "That is off by more than a factor of two: the prediction, made for an equilibrium, "
            "does not describe these iterates."
        )
    if low > 0:
        verdict = "The noise does prefer directions of large curvature"
        verdict += (
            ", and a power of 1, noise proportional to the Hessian, lies in the interval."
            if low <= 1 <= high
            else f", but not in proportion: a power of 1 lies {'below' if low > 1 else 'above'} "
            "the interval."
        )
    else:
        verdict = "So a preference of the noise for directions of large curvature was not shown."
    sentences.append(verdict)
    return sentences


def about_top_space(found: dict[str, Any]) -> list[str]:
    ends = np.array([run["displacement"][-1] for run in found["shares"]])
    moves = np.array([np.median(run["moves"]) for run in found["shares"]])
    chance = found["shares"][0]["chance"]
    k = found["n_directions"]
    drops = {name: curve[0] - curve[-1] for name, curve in found["projected"].items()}
    on, off = (drops[f"{side} the top space"] / drops["SGD"] for side in ("on", "off"))
    sentences = [
        f"In {len(ends)} runs the top {k} Hessian directions of the end hold "
        f"{percent(ends.min())} to {percent(ends.max())} of the squared displacement and, in the "
        f"median, {percent(moves.min())} to {percent(moves.max())} of a single move; chance is "
        f"k/m = {percent(chance)}.",
        f"Updates projected on the top space made {percent(on)} of the drop in loss of plain SGD, "
        f"updates projected off it {percent(off)}.",
    ]
    if on < 0.5 <= off:
        sentences.append(
            "So, as Song, Ahn and Yun (2025) found and against the plain reading of the paper, "
            "the moves that lower the loss are not those in the top space."
        )
    elif on >= 0.5 > off:
        sentences.append("So here the top space carries the learning, as the paper has it.")
    elif on >= 0.5:
        sentences.append("So here either space alone makes at least half of the drop.")
    else:
        sentences.append("So here neither space alone makes half of the drop.")
    return sentences


def about_map(found: dict[str, Any], pooled: dict[str, Any], n_settings: int) -> list[str]:
    independent = len(found["independent"])
    envelope = found["envelopes"]["diffusion"]
    outside = [
        k + 1
        for k, (value, low, high) in enumerate(
            zip(envelope["values"], envelope["lower"], envelope["upper"], strict=True)
        )
        if not low <= value <= high
    ]
    sentences = [
        f"One run of each of {n_settings} optimizers, all from "
        f"{'one initialisation' if pooled['one_start'] else 'different initialisations'}, was put "
        f"into one map; it falls into {pooled['components']} connected "
        f"{'piece' if pooled['components'] == 1 else 'pieces'}.",
        f"In the map of a single run {independent} of the first "
        f"{len(found['harmonic_residuals'])} coordinates "
        f"{'is' if independent == 1 else 'are'} not a function of those before (criterion: "
        "local linear regression, residual above 0.5).",
    ]
    if outside:
        sentences.append(
            f"Of its {len(envelope['values'])} leading diffusion eigenvalues number "
            f"{listed([str(k) for k in outside])} lie outside the 95 % range of walks with the "
            "same step lengths and correlation."
        )
    else:
        sentences.append(
            "All its leading diffusion eigenvalues lie within the 95 % range of walks with the "
            "same step lengths and correlation: their decay alone says nothing."
        )
    return sentences


def about_windows(found: dict[str, Any]) -> list[str]:
    dimension, lower = np.array(found["dimension"]), np.array(found["lower"])
    below = int(np.sum(dimension < lower))
    return [
        f"In windows of {found['window']} rows the slope dimension goes from {dimension[0]:.2f} "
        f"at the start to {dimension[-1]:.2f} at the end; it lies below the 95 % range of the "
        f"null model in {below} of {len(dimension)} windows.",
        "So the run is locally lower-dimensional than a walk."
        if below > len(dimension) / 2
        else "So in most windows a walk with the same steps looks as low-dimensional.",
    ]


def about_factors(factors: dict[str, dict[str, float]]) -> list[str]:
    sentences = []
    differing = [name for name, found in factors.items() if found["p_value"] <= 0.05]
    for name, found in factors.items():
        sentences.append(
            f"{name}: settings differ by {found['between']:.3g} (standard deviation of means), "
            f"runs of one setting by {found['within']:.3g}; p = {found['p_value']:.2g}."
        )
    if differing:
        sentences.append(
            f"So the dimension was not robust to {listed(differing)} at the 5 % level (no "
            f"correction for {len(factors)} comparisons)."
        )
    else:
        sentences.append(
            "So no factor changed the dimension by more than chance at the 5 % level; with so few "
            "runs small changes would not be seen."
        )
    return sentences


def about_nulls(tests: dict[str, dict[str, Any]], walk: dict[str, Any]) -> list[str]:
    rejected = [name for name, test in tests.items() if test["isotonic"]["p_value"] <= 0.05]
    sentences = [
        f"A plain random walk of 200 steps in 2,000 dimensions has the diffusion eigenvalues "
        f"{listed([f'{value:.3f}' for value in walk['eigenvalues'][:4]])}, and its coordinates "
        f"are cosines of time to a correlation of {min(walk['cosines']):.3f} or better: a smooth "
        "low-dimensional picture proves nothing.",
        f"Against walks of the same step lengths and correlation, the isotonic statistic finds "
        f"{len(rejected)} of {len(tests)} settings more low-dimensional (p <= 0.05)"
        + (f": {listed(rejected)}." if rejected else "."),
    ]
    if rejected:
        sentences.append(
            "That rules out such walks there, and no more: a drift that dies away, or a pull to "
            "one place, can reject them too. Only the other nulls can tell them from a curved path."
        )
    else:
        sentences.append("So the low dimension of these runs may be an artefact of walking.")
    return sentences


def about_known_answer(found: dict[str, Any]) -> list[str]:
    errors = [pair["rate"] / pair["hessian"] - 1 for pair in found["pairs"]]
    matched = all(
        pair["correlation"] >= 0.9 and pair["participation"] >= 0.05 for pair in found["pairs"]
    )
    pairs = listed([f"{pair['rate']:.3f} for {pair['hessian']:.3f}" for pair in found["pairs"]])
    worst = max(abs(error) for error in errors)
    verdict = (
        "theory and code agree within 15 %"
        if matched and worst <= 0.15
        else "this draw does not reach the 15 % that theory and code should agree to"
    )
    return [
        f"Langevin dynamics on a quadratic, {found['n_rows']} rows: the map finds the rates "
        f"{pairs}, off by at most {percent(worst)}; {verdict}."
    ]
