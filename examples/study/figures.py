"""Each figure twice: a static PNG for print and, where it helps, one to turn and hover over."""

import base64
import io
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go

# Okabe and Ito's colours, which the colour-blind can tell apart, with a grey and a dark one.
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#332288",
)  # fmt: skip
# The first is kept for the runs themselves.
LATER = COLORS[1:]
# One for each null model that keeps step lengths; two may lie on each other.
NULL_STYLES = tuple(
    zip(
        (*LATER, "#B8860B"),
        ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 2, 5, 2)), (0, (3, 1, 1, 1)), (0, (8, 2))),
        strict=True,
    )
)


@dataclass(frozen=True)
class Figure:
    """A picture with its title; ``live`` is a plotly figure or None."""

    title: str
    png: bytes
    live: Any = None

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def finished(figure: Any, title: str, live: Any = None) -> Figure:
    """Return a matplotlib figure as PNG; give the live one the same title."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    if live is not None:
        live.update_layout(
            title=title, template="plotly_white", height=520, margin={"l": 60, "r": 20, "b": 50}
        )
    return Figure(title, buffer.getvalue(), live)


def legend_below(ax: Any, **options: Any) -> None:
    """Put the legend where no point can lie under it."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, **options)


def embedding(found: dict[str, Any], title: str, name: str = "run 0") -> Figure:
    """Draw two coordinates coloured by step, and three to be turned."""
    points = np.asarray(found["coordinates"])
    steps, losses = np.asarray(found["steps"]), found.get("losses")
    labels = np.asarray(found.get("labels", [name] * len(points)))
    kinds = list(dict.fromkeys(labels))
    settings = list(dict.fromkeys(label.split(", run")[0] for label in kinds))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    live = go.Figure()
    for kind in kinds:
        own = labels == kind
        setting = kind.split(", run")[0]
        color = COLORS[settings.index(setting) % len(COLORS)]
        first = kind == next(k for k in kinds if k.split(", run")[0] == setting)
        for ax, (i, j) in ((left, (0, 1)), (right, (0, 2))):
            ax.plot(*points[own][:, [i, j]].T, "-", lw=0.6, color=color, alpha=0.5)
            ax.plot(
                *points[own][:, [i, j]].T, ".", ms=3, color=color, label=setting if first else None
            )
            ax.set_xlabel(f"diffusion coordinate {i}")
            ax.set_ylabel(f"diffusion coordinate {j}")
        text = [f"{kind}<br>step {step}" for step in steps[own]]
        if losses is not None:
            of_kind = np.asarray(losses)[own]
            text = [
                f"{words}<br>loss {loss:.4g}" for words, loss in zip(text, of_kind, strict=True)
            ]
        live.add_trace(
            go.Scatter3d(
                x=points[own, 0],
                y=points[own, 1],
                z=points[own, 2],
                mode="lines+markers",
                name=kind,
                text=text,
                hoverinfo="text",
                marker={"size": 3, "color": color},
                line={"color": color, "width": 2},
            )
        )
    axes = {f"{a}axis_title": f"coordinate {i}" for i, a in enumerate("xyz")}
    # From a little further off and lower than plotly's own, where titles leave the frame.
    camera = {"eye": {"x": 1.5, "y": 1.5, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.15}}
    live.update_layout(scene=axes | {"camera": camera})
    if len(settings) > 1:
        left.legend(markerscale=3)
    figure.suptitle(title)
    return finished(figure, title, live)


def spectra(found: dict[str, Any], title: str) -> Figure:
    """Draw leading eigenvalues and the cumulative density at three points of the run."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    live = go.Figure()
    for color, point in zip(COLORS, found["points"], strict=False):
        values = np.asarray(point["eigenvalues"])
        numbers = np.arange(len(values))
        name = f"step {point['step']}"
        positive = values > 0
        left.semilogy(numbers[positive], values[positive], "o-", ms=4, color=color, label=name)
        relative = np.asarray(point["grid"]) / values[0]
        right.plot(relative, point["cdf"], color=color, label=name)
        live.add_trace(
            go.Scatter(
                x=numbers,
                y=values,
                mode="lines+markers",
                name=name,
                line={"color": color},
                text=[f"run 0, {name}<br>loss {point['loss']:.4g}<br>{v:.4g}" for v in values],
                hoverinfo="text",
            )
        )
    # Between the first n_classes - 1 eigenvalues, counted from 0, and the next one.
    left.axvline(found["n_classes"] - 1.5, color="0.5", ls="--", label="classes less one")
    left.set_xlabel("number of the eigenvalue")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("eigenvalue, loss per squared parameter unit")
    legend_below(left)
    right.set_xlabel("eigenvalue, relative to the largest")
    right.set_ylabel("share of eigenvalues below")
    live.update_layout(
        xaxis_title="number of the eigenvalue",
        yaxis_title="eigenvalue, loss per squared parameter unit",
        yaxis_type="log",
    )
    figure.suptitle(title)
    return finished(figure, title, live)


def noise(found: dict[str, Any], iterates: dict[str, Any], title: str) -> Figure:
    """Draw noise at the end of a run and iterates in equilibrium, per eigendirection."""
    values = np.asarray(found["eigenvalues"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    left.loglog(values, found["variance"], "o", color=COLORS[0], label="measured")
    scale = np.exp(np.mean(np.log(found["variance"]) - np.log(values)))
    left.loglog(values, scale * values, "--", color="0.5", label="in proportion to the eigenvalue")
    left.set_ylabel("variance of the gradient of single rows")
    left.set_title("noise at the end of run 0")
    values = np.asarray(iterates["eigenvalues"])
    agree = np.asarray(iterates["stationary"])
    for key, color, label in (
        ("iterates", COLORS[0], "rows with replacement"),
        ("shuffled", COLORS[1], "each row once in a pass"),
    ):
        mean = np.mean(iterates[key], axis=0)
        right.loglog(values[agree], mean[agree], "o", color=color, label=label)
        right.loglog(values[~agree], mean[~agree], "x", color=color)
    right.loglog(values, iterates["predicted"], "s", mfc="none", color="0.3", label="predicted")
    if not agree.all():
        right.plot([], [], "x", color="0.3", label="halves disagree")
    right.set_ylabel("variance of the iterates, squared parameter units")
    right.set_title(f"weight decay {iterates['weight_decay']:g}, after {iterates['burn_in']} steps")
    for ax in (left, right):
        ax.set_xlabel("Hessian eigenvalue")
        legend_below(ax)
    figure.suptitle(title)
    return finished(figure, title)


def top_space(found: list[dict[str, Any]], every: int, title: str) -> Figure:
    """Draw shares in the top space, and projected training, for all runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    for number, run in enumerate(found):
        label = "displacement from the start" if number == 0 else None
        left.plot(run["steps"][1:], run["displacement"][1:], color=COLORS[0], lw=1, label=label)
        label = "single moves" if number == 0 else None
        left.plot(run["steps"][1:], run["moves"], ".", ms=1.5, color=COLORS[1], label=label)
        styles = ("-", "--", "-", ":")
        for color, style, (name, curve) in zip(
            ("#000000", *COLORS), styles, run["projected"].items(), strict=False
        ):
            label = name if number == 0 else None
            steps = every * np.arange(len(curve))
            right.plot(steps, curve, style, color=color, lw=1.2, label=label)
    left.axhline(found[0]["chance"], color="0.3", ls="--", label="chance, k/m")
    left.set_yscale("log")
    left.set_xlabel("step")
    left.set_ylabel(f"share in the top {found[0]['n_directions']} directions")
    legend_below(left, markerscale=5)
    right.set_xlabel("step after the start of the projection")
    right.set_ylabel("loss on all rows")
    right.set_title(f"updates of {len(found)} runs, projected")
    left.set_title("in the top space of the end of each run")
    legend_below(right)
    figure.suptitle(title)
    return finished(figure, title)


def envelopes(found: dict[str, dict[str, Any]], words: dict[str, str], title: str) -> Figure:
    """Draw diffusion eigenvalues and principal shares on the ranges of null models."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
    names = ("eigenvalue of the Markov operator", "share of variance")
    for ax, curve, name in zip(axes, ("diffusion", "principal"), names, strict=True):
        for (null, both), (color, style) in zip(found.items(), NULL_STYLES, strict=False):
            own = both[curve]
            numbers = np.arange(len(own["values"]))
            ax.fill_between(numbers, own["lower"], own["upper"], color=color, alpha=0.25, lw=0)
            ax.plot(numbers, own["median"], ls=style, color=color, lw=1.2, label=words[null])
        ax.plot(numbers, own["values"], "o-", color="black", ms=4, label="mean of the runs")
        ax.set_yscale("log")
        ax.set_xlabel("index")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylabel(name)
    handles, labels = axes[0].get_legend_handles_labels()
    title_of_legend = "lines: medians of null models; bands: 95 % of them"
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=title_of_legend)
    figure.suptitle(title)
    return finished(figure, title)


def windows(found: dict[str, Any], words: dict[str, str], title: str) -> Figure:
    """Draw the dimension in windows, and what each null model would have to undercut."""
    figure, ax = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
    for (null, own), (color, style) in zip(found["nulls"].items(), NULL_STYLES, strict=False):
        ax.plot(found["centers"], own["median"], ls=style, color=color, label=words[null])
        ax.fill_between(found["centers"], own["line"], own["median"], color=color, alpha=0.15, lw=0)
    for number, run in enumerate(found["runs"]):
        label = "single runs" if number == 0 else None
        ax.plot(found["centers"], run, color="0.6", lw=0.7, label=label)
    ax.plot(found["centers"], found["dimension"], "o-", color="black", label="mean of the runs")
    ax.set_xlabel("step at the middle of the window")
    ax.set_ylabel("slope dimension")
    ax.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5),
        title="lines: medians\nbands: down to the 5 % line,\ncorrected over windows",
    )  # fmt: skip
    ax.set_title(title)
    return finished(figure, title)


def effects(found: dict[str, Any], words: dict[str, str], title: str) -> Figure:
    """Draw main effects with their intervals, relative to the mean, from each number of rows."""
    names = list(found["measures"]["non_harmonic"]["effects"])
    figure, axes = plt.subplots(
        1, len(found["measures"]), figsize=(11, 4.4), sharey=True, layout="constrained"
    )
    places = (-0.22, 0.0, 0.22)
    for ax, (measure, own) in zip(axes, found["measures"].items(), strict=True):
        for place, color, marker, count, mean, by_name in zip(
            places, COLORS, ("o", "s", "^"), found["row_counts"], own["means"], own["by_count"],
            strict=False,
        ):  # fmt: skip
            for row, name in enumerate(names):
                low, high, middle = (
                    100 * by_name[name][key] / mean for key in ("low", "high", "difference")
                )
                ax.plot([low, high], [row + place] * 2, color=color, lw=1.5)
                label = f"{count} rows" if row == 0 else None
                ax.plot(middle, row + place, marker, color=color, ms=5, label=label)
        ax.axvspan(-10, 10, color="0.92", zorder=0)
        ax.axvline(0, color="0.4", lw=0.8)
        means = ", ".join(f"{mean:.3g}" for mean in own["means"])
        name = textwrap.fill(words[measure], 28)
        ax.set_title(f"{name}\nmean {means}", fontsize="medium")
        ax.set_xlabel("change, per cent of the mean")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    legend_title = "95 % intervals; grey: less than 10 %"
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=legend_title)
    figure.suptitle(title)
    return finished(figure, title)


def claims(found: dict[str, dict[str, Any]], words: dict[str, str], title: str) -> Figure:
    """Draw the statistic of each claim, of each setting, on the ranges of its null models."""
    sides = {
        "fewer_dimensions": "dimension of the steps (smaller: fewer dimensions)",
        "beyond_linear": "recurrence (larger: closer returns)",
    }
    size = (13, 0.42 * len(found) + 2.4)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for ax, (claim, label) in zip(axes, sides.items(), strict=True):
        for row, own in enumerate(found.values()):
            tests = {null: t for null, t in own["tests"].items() if t["claim"] == claim}
            places = np.linspace(0.0, 0.36, len(tests))
            for (null, test), color, place in zip(tests.items(), LATER, places, strict=False):
                # A narrow range is drawn as wide as its ends.
                ax.plot(
                    test["envelope"], [row + place] * 2, "|-", color=color, lw=3, ms=5,
                    label=words[null] if row == 0 else None,
                )  # fmt: skip
            runs = next(iter(tests.values()))
            for values, marker, fill, text in (
                (runs["runs"], "o", "none", "single runs"),
                ([runs["statistic"]], "D", COLORS[0], "mean of the runs"),
            ):
                ax.plot(
                    values, [row - 0.22] * len(values), marker, color=COLORS[0], mfc=fill, ms=5,
                    label=text if row == 0 else None,
                )  # fmt: skip
            if row:
                ax.axhline(row - 0.45, color="0.9", lw=0.8)
        ax.set_xlabel(label)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), title="95 % of null models")
    axes[0].set_xscale("log")
    axes[0].set_yticks(range(len(found)), list(found))
    axes[0].invert_yaxis()
    figure.suptitle(title)
    return finished(figure, title)


def known_answer(shown: dict[str, list[dict[str, Any]]], title: str) -> Figure:
    """Draw the coordinate that matches each direction against the position along it."""
    figure, axes = plt.subplots(
        len(shown), 2, figsize=(11, 3.9 * len(shown)), layout="constrained", squeeze=False
    )
    for row, (name, pairs) in zip(axes, shown.items(), strict=True):
        for ax, pair in zip(row, pairs, strict=True):
            ax.plot(pair["position"], pair["coordinate"], ".", ms=2, color=COLORS[0])
            ax.set_xlabel("position along the Hessian direction")
            ax.set_ylabel("diffusion coordinate")
            off = 100 * (pair["rate"] / pair["hessian"] - 1)
            ax.set_title(
                f"{name}: eigenvalue {pair['hessian']:.2f}, rate found {pair['rate']:.2f} "
                f"({off:+.1f} %)"
            )
    figure.suptitle(title)
    return finished(figure, title)
