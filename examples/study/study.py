"""
Does training live on a low-dimensional manifold? The whole study
=================================================================

Trains networks in many settings, maps their trajectories, puts Hessian spectra and null models
beside them, and writes one report, ``report.html``, which opens without a network.

Run ``python examples/study/study.py --out results``. ``--quick`` takes small settings. What is
finished is kept in ``results/cache``: a second call goes on where the first was stopped.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import curvature
import dimension
import figures
import findings
import numpy as np
from report import Section, report_html
from settings import Setting, study_settings
from tqdm import tqdm
from training import Trajectories, kept, train

TITLE = "Does training live on a low-dimensional manifold?"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--out", type=Path, required=True, help="folder for report and cache")
    parser.add_argument("--seed", type=int, default=0, help="master seed (default: 0)")
    parser.add_argument("--quick", action="store_true", help="small settings, about two minutes")
    return parser.parse_args()


class Study:
    """The trajectories of all settings, and results that are computed once and kept."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick, self.seed = arguments.quick, arguments.seed
        self.folder = arguments.out / "cache"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.factors = study_settings(quick=self.quick, seed=self.seed)
        unique = {s.name: s for group in self.factors.values() for s in group}
        self.settings: list[Setting] = list(unique.values())
        self.trajectories: dict[str, Trajectories] = {}

    @property
    def base(self) -> Trajectories:
        return self.trajectories["base"]

    def result(self, name: str, function: Any, *arguments: Any, of: str = "base") -> dict[str, Any]:
        key = self.trajectories[of].setting.key
        extent = "-".join(str(a) for a in arguments if isinstance(a, int))
        return kept(
            self.folder,
            f"{name}-{key}-{extent}",
            lambda: function(*arguments),
        )

    def train(self) -> None:
        for setting in tqdm(self.settings, desc="training", disable=None):
            self.trajectories[setting.name] = train(setting, self.folder)


def sections_of(study: Study) -> list[Section]:
    """Compute what is missing, and say it."""
    bar = tqdm(total=9, desc="analysing", disable=None)
    base = study.base
    sections = [hessian_section(study)]
    bar.update()
    sections.append(noise_section(study))
    bar.update()
    steps = 100 if study.quick else 300
    found = study.result("top-space", curvature.top_space, base, steps)
    title = "Shares in the top Hessian space, and training projected on and off it"
    sections.append(
        Section(
            "R3",
            "Are minima selected in the top subspace?",
            "Claim: selection of minima happens in the subspace of the top eigenvalues.",
            findings.about_top_space(found),
            [figures.top_space(found, title)],
        )
    )
    bar.update()
    sections.append(map_section(study))
    bar.update()
    found = study.result("windows", dimension.windows, base, study.seed)
    sections.append(
        Section(
            "R5",
            "Is it low-dimensional locally?",
            "Claim: there are local low-dimensional representations.",
            findings.about_windows(found),
            [figures.windows(found, "Dimension in windows of one run")],
        )
    )
    bar.update()
    n_surrogates = 99
    tests = {}
    for name, trajectories in study.trajectories.items():
        tests[name] = study.result(
            "tests", dimension.tests_of, trajectories, n_surrogates, study.seed, of=name
        )
    bar.update()
    sections.append(factor_section(study, tests))
    bar.update()
    sections.append(null_section(study, tests))
    bar.update()
    found = study.result("known", dimension.known_answer, 2000 if study.quick else 8000, study.seed)
    sections.append(
        Section(
            "R8",
            "Do theory and code agree where the answer is known?",
            "In equilibrium on a quadratic the slow rates of a diffusion map with alpha = 1/2 are "
            "the smallest Hessian eigenvalues.",
            findings.about_known_answer(found),
            [figures.known_answer(found, "Langevin dynamics on a quadratic")],
        )
    )
    bar.update()
    bar.close()
    return sections


def hessian_section(study: Study) -> Section:
    found = study.result("hessian", curvature.hessian_along, study.base)
    rows = [
        (
            str(point["step"]),
            f"{point['loss']:.4g}",
            f"{point['eigenvalues'][0]:.4g}",
            f"{point['eigenvalues'][9]:.4g}",
            f"{point['trace']:.4g} ± {point['trace_stderr']:.2g}",
            findings.percent(point["near_zero"]),
            str(point["outliers"]),
        )
        for point in found["points"]
    ]
    return Section(
        "R1",
        "Is the Hessian's spectrum a bulk near zero and few outliers?",
        "Claim: most Hessian eigenvalues are close to zero and few are large.",
        findings.about_hessian(found),
        [figures.spectra(found, "Hessian spectrum along one run")],
        ("step", "loss", "largest", "tenth", "trace", "within 1 % of 0", "outliers"),
        rows,
    )


def noise_section(study: Study) -> Section:
    found = study.result("noise", curvature.noise_along, study.base)
    return Section(
        "R2",
        "Does gradient noise diffuse along the top directions?",
        "Claim: zero eigenvalue means zero diffusion in that direction.",
        findings.about_noise(found),
        [figures.noise(found, "Gradient noise and iterates along Hessian eigenvectors")],
    )


def map_section(study: Study) -> Section:
    several = [study.trajectories[s.name] for s in study.factors["optimizer"]]
    pooled = study.result("map-of-first-runs", dimension.map_of, several, study.seed)
    single = study.result("map-of-run", dimension.map_of_run, study.base, study.seed)
    return Section(
        "R4",
        "Has the trajectory a low-dimensional representation?",
        "Claim: data generated by SGD or any other optimizer has one.",
        findings.about_map(single, pooled, len(several)),
        [
            figures.embedding(pooled, "Several optimizers in one diffusion map"),
            figures.embedding(single, "One run"),
            figures.envelopes(single, "Eigenvalues of one run, and of walks with the same steps"),
        ],
    )


def factor_section(study: Study, tests: dict[str, Any]) -> Section:
    statistic = "non_harmonic"
    factors = {
        factor: dimension.between_settings([tests[s.name][statistic]["runs"] for s in group])
        for factor, group in study.factors.items()
    }
    rows = [
        (
            name,
            f"{test[statistic]['statistic']:.3f}",
            " to ".join(f"{value:.3f}" for value in test[statistic]["interval"]),
            f"{test['slope']['statistic']:.2f}",
            f"{test['participation']['statistic']:.2f}",
        )
        for name, test in tests.items()
    ]
    return Section(
        "R6",
        "Is the dimension robust to noise, depth and initialisation?",
        "Claim: the dimension is robust to noise, depth and weight initialisation. Dimension here: "
        "the sum of the harmonic residuals of five coordinates, averaged over runs.",
        findings.about_factors(factors),
        [],
        ("setting", "dimension", "95 % interval over runs", "slope dimension", "participation"),
        rows,
    )


def null_section(study: Study, tests: dict[str, Any]) -> Section:
    walk = study.result("walk", dimension.walk_as_seen, study.seed)
    rows = [
        (name, *(f"{test[statistic]['p_value']:.2f}" for statistic in dimension.STATISTICS))
        for name, test in tests.items()
    ]
    drawn = walk | {"steps": list(range(200)), "losses": [np.nan] * 200}
    return Section(
        "R7",
        "Is any of it more than an artefact of walking?",
        "Ours: whatever is claimed must be held against walks with the same steps.",
        findings.about_nulls(tests, walk),
        [
            figures.statistics(tests, "The isotonic statistic beside null models"),
            figures.embedding(drawn, "A plain random walk through the same map"),
        ],
        ("p-value against AR(1) walks", *dimension.STATISTICS),
        rows,
    )


def main() -> None:
    arguments = parse_arguments()
    study = Study(arguments)
    study.train()
    sections = sections_of(study)
    for section in sections:
        for number, figure in enumerate(section.figures, start=1):
            (arguments.out / f"{section.code}-{number}.png").write_bytes(figure.png)
    settings = [
        {key: value for key, value in asdict(s).items() if key != "seed"} for s in study.settings
    ]
    text = report_html(TITLE, sections, settings, study.seed)
    (arguments.out / "report.html").write_text(text, encoding="utf-8")
    spoken = {section.code: section.sentences for section in sections}
    (arguments.out / "findings.json").write_text(json.dumps(spoken, indent=1), encoding="utf-8")
    for code, sentences in spoken.items():
        print(f"{code}: {' '.join(sentences)}\n")
    print(f"report: {arguments.out / 'report.html'}")


if __name__ == "__main__":
    main()
