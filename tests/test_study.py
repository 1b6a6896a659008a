"""The study says what its numbers say: other numbers, other words."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("plotly")
STUDY = Path(__file__).parent.parent / "examples" / "study"


@pytest.fixture(scope="module")
def findings():
    sys.path.insert(0, str(STUDY))
    try:
        import findings
    finally:
        sys.path.remove(str(STUDY))
    return findings


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.95, 0.97), "as the paper says"), ((0.5, 0.6), "not found"), ((0.5, 0.95), "at some")],
)
def test_the_bulk_near_zero(findings, shares, verdict):
    point = {"step": 1, "outliers": 9, "trace": 1.0, "trace_stderr": 0.1, "eigenvalues": [2.0]}
    points = [point | {"near_zero": share} for share in shares]
    found = {"points": points, "n_classes": 10, "n_parameters": 100}
    assert verdict in findings.about_hessian(found)[-1]


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ([0.8, 1.2], "proportional to the Hessian"),
        ([1.3, 1.8], "lies below"),
        ([0.2, 0.8], "lies above"),
        ([-0.1, 0.5], "was not shown"),
    ],
)
def test_the_noise(findings, interval, verdict):
    found = {
        "slope": 1.0, "slope_interval": interval, "correlation": 0.9, "share": 0.5,
        "chance_share": 0.01, "eigenvalues": [2.0, 1.0], "iterates": [1.0, 1.0],
        "predicted": [1.0, 1.1], "learning_rate": 0.02,
    }  # fmt: skip
    assert verdict in findings.about_noise(found)[-1]
    assert not any("factor of two" in sentence for sentence in findings.about_noise(found))
    found["iterates"] = [9.0, 9.0]
    assert any("factor of two" in sentence for sentence in findings.about_noise(found))


@pytest.mark.parametrize(
    ("on", "off", "verdict"),
    [
        (0.1, 1.0, "not those in the top space"),
        (1.0, 0.1, "carries the learning"),
        (0.9, 0.9, "either space"),
        (0.1, 0.1, "neither space"),
    ],
)
def test_the_top_space(findings, on, off, verdict):
    curves = {"SGD": 1.0, "on the top space": on, "off the top space": off}
    found = {
        "shares": [{"displacement": [0.0, 0.1], "moves": [0.2], "chance": 0.01}],
        "n_directions": 10,
        "projected": {name: [2.0, 2.0 - drop] for name, drop in curves.items()},
    }
    assert verdict in findings.about_top_space(found)[-1]


@pytest.mark.parametrize(("p", "verdict"), [(0.01, "and no more"), (0.6, "may be an artefact")])
def test_the_null_models(findings, p, verdict):
    walk = {"eigenvalues": [0.6, 0.3, 0.2, 0.1], "cosines": [0.99]}
    assert verdict in findings.about_nulls({"base": {"isotonic": {"p_value": p}}}, walk)[-1]


@pytest.mark.parametrize(("rate", "verdict"), [(1.05, "agree within"), (1.5, "does not reach")])
def test_the_known_answer(findings, rate, verdict):
    pair = {"hessian": 1.0, "rate": rate, "correlation": 0.95, "participation": 0.3}
    assert verdict in findings.about_known_answer({"pairs": [pair], "n_rows": 100})[-1]


@pytest.mark.slow
def test_the_quick_report_is_one_file_and_goes_on_where_it_stopped(tmp_path):
    path = os.pathsep.join(filter(None, [str(STUDY.parent.parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "ignore", str(STUDY / "study.py"), "--quick", "--out"]
    texts = []
    for _ in range(2):
        done = subprocess.run(
            [*command, str(tmp_path)],
            env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        texts.append((tmp_path / "findings.json").read_text())
    assert texts[0] == texts[1]
    page = Page()
    page.feed((tmp_path / "report.html").read_text())
    assert {f"R{number}" for number in range(1, 9)} <= page.names
    assert len(page.sources) == len(list(tmp_path.glob("R*.png")))
    # The scripts and pictures are in the file: nothing is fetched.
    assert all(source.startswith("data:") for source in page.sources)


class Page(HTMLParser):
    """What a page names, and where it takes things from; the text of scripts is no tag."""

    def __init__(self):
        super().__init__()
        self.names, self.sources = set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.names.add(found.get("id"))
        if "src" in found:
            self.sources.append(found["src"])
