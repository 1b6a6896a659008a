"""Each figure twice: a static PNG for print and, where it helps, one to turn and hover over."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


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


def embedding(found: dict[str, Any], title: str) -> Figure:
    """Draw two coordinates coloured by step, and three to be turned."""
    points = np.asarray(found["coordinates"])
    steps, losses = np.asarray(found["steps"]), np.asarray(found["losses"])
    labels = np.asarray(found.get("labels", ["run 0"] * len(points)))
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
            ax.set_xlabel(f"diffusion coordinate {i + 1}")
            ax.set_ylabel(f"diffusion coordinate {j + 1}")
        text = [
            f"{kind}<br>step {step}<br>loss {loss:.4g}"
            for step, loss in zip(steps[own], losses[own], strict=True)
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
    axes = {f"{a}axis_title": f"coordinate {i + 1}" for i, a in enumerate("xyz")}
    live.update_layout(scene=axes)
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
        numbers = np.arange(1, len(values) + 1)
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
                text=[f"{name}<br>loss {point['loss']:.4g}<br>{v:.4g}" for v in values],
                hoverinfo="text",
            )
        )
    left.axvline(found["n_classes"] - 0.5, color="0.5", ls="--", label="classes less one")
    left.set_xlabel("number of the eigenvalue")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("eigenvalue, loss per squared parameter unit")
    left.legend()
    right.set_xlabel("eigenvalue, relative to the largest")
    right.set_ylabel("share of eigenvalues below")
    live.update_layout(
        xaxis_title="number of the eigenvalue",
        yaxis_title="eigenvalue, loss per squared parameter unit",
        yaxis_type="log",
    )
    figure.suptitle(title)
    return finished(figure, title, live)


def noise(found: dict[str, Any], title: str) -> Figure:
    """Draw noise and iterates per eigendirection."""
    values = np.asarray(found["eigenvalues"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    left.loglog(values, found["variance"], "o", color=COLORS[0], label="measured")
    scale = np.exp(np.mean(np.log(found["variance"]) - np.log(values)))
    left.loglog(values, scale * values, "--", color="0.5", label="in proportion to the eigenvalue")
    left.set_ylabel("variance of the gradient of single rows")
    right.loglog(values, found["iterates"], "o", color=COLORS[1], label="measured")
    right.loglog(values, found["predicted"], "s", mfc="none", color="0.3", label="predicted")
    right.set_ylabel("variance of the iterates, squared parameter units")
    for ax in (left, right):
        ax.set_xlabel("Hessian eigenvalue")
        ax.legend()
    figure.suptitle(title)
    return finished(figure, title)


def top_space(found: dict[str, Any], title: str) -> Figure:
    """Draw shares in the top space, and projected training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for number, run in enumerate(found["shares"]):
        label = "displacement from the start" if number == 0 else None
        left.plot(run["steps"][1:], run["displacement"][1:], color=COLORS[0], lw=1, label=label)
        label = "single moves" if number == 0 else None
        left.plot(run["steps"][1:], run["moves"], ".", ms=1.5, color=COLORS[1], label=label)
    left.axhline(run["chance"], color="0.3", ls="--", label="chance, k/m")
    left.set_yscale("log")
    left.set_xlabel("step")
    left.set_ylabel(f"share in the top {found['n_directions']} directions")
    left.legend(markerscale=5)
    for color, (name, curve) in zip(COLORS, found["projected"].items(), strict=False):
        right.plot(10 * np.arange(len(curve)), curve, color=color, label=name)
    right.set_xlabel("step after the start of the projection")
    right.set_ylabel("loss on all rows")
    right.legend()
    figure.suptitle(title)
    return finished(figure, title)


def envelopes(found: dict[str, Any], title: str) -> Figure:
    """Draw diffusion eigenvalues and principal shares on the range of null models."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    names = ("eigenvalue of the Markov operator", "share of variance")
    for ax, curve, name in zip(axes, ("diffusion", "principal"), names, strict=True):
        own = found["envelopes"][curve]
        numbers = np.arange(1, len(own["values"]) + 1)
        ax.fill_between(numbers, own["lower"], own["upper"], color="0.8", label="95 % of walks")
        ax.plot(numbers, own["median"], "--", color="0.4", label="median walk")
        ax.plot(numbers, own["values"], "o-", color=COLORS[0], ms=4, label="the run")
        ax.set_xlabel("number")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylabel(name)
        ax.legend()
    figure.suptitle(title)
    return finished(figure, title)


def windows(found: dict[str, Any], title: str) -> Figure:
    """Draw the dimension in windows beside null models."""
    figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    ax.fill_between(
        found["centers"], found["lower"], found["upper"], color="0.8", label="95 % of walks"
    )
    ax.plot(found["centers"], found["median"], "--", color="0.4", label="median walk")
    ax.plot(found["centers"], found["dimension"], "o-", color=COLORS[0], label="the run")
    ax.set_xlabel("step at the middle of the window")
    ax.set_ylabel("slope dimension")
    ax.legend()
    ax.set_title(title)
    return finished(figure, title)


def statistics(tests: dict[str, dict[str, Any]], title: str) -> Figure:
    """Draw the isotonic statistic of each setting on the range of its null models."""
    figure, ax = plt.subplots(figsize=(8.5, 0.42 * len(tests) + 1.6), layout="constrained")
    for row, (_name, test) in enumerate(tests.items()):
        own = test["isotonic"]
        first = row == 0
        ax.plot(
            own["envelope"], [row, row], color="0.7", lw=9, label="95 % of walks" if first else None
        )
        ax.plot(
            own["runs"],
            [row] * len(own["runs"]),
            "o",
            mfc="none",
            color=COLORS[0],
            label="single runs" if first else None,
        )
        ax.plot(
            own["statistic"], row, "D", color=COLORS[1], label="mean of runs" if first else None
        )
    ax.set_yticks(range(len(tests)), list(tests))
    ax.invert_yaxis()
    ax.set_xlabel("variance of log distance that elapsed variation does not explain")
    ax.legend(loc="best")
    ax.set_title(title)
    return finished(figure, title)


def known_answer(found: dict[str, Any], title: str) -> Figure:
    """Draw the coordinate that matches each direction against the position along it."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for ax, pair in zip(axes, found["pairs"], strict=True):
        ax.plot(pair["position"], pair["coordinate"], ".", ms=2, color=COLORS[0])
        ax.set_xlabel("position along the Hessian direction")
        ax.set_ylabel("diffusion coordinate")
        ax.set_title(f"eigenvalue {pair['hessian']:.2f}, rate found {pair['rate']:.2f}")
    figure.suptitle(title)
    return finished(figure, title)
