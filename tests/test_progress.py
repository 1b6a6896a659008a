"""Long work shows a bar in terminals and notebooks, and lines in logs."""

import io
import subprocess
import sys

import numpy as np
import pytest

from skdmap import DiffusionMap, TrajectorySampler
from skdmap import _progress as module
from skdmap._progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress(3, "Work", unit="steps") as bar:
        bar.set_postfix_str("first part")
        bar.update()
        bar.update(2)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("Work: 1 of 3 steps, first part, ")
    assert lines[-1].startswith("Work: 3 of 3 steps")
    assert len(lines) == 3


def test_a_log_gets_one_line_of_short_work(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress(None, "Work") as bar:
        for _ in range(100):
            bar.update()
    assert log.getvalue() == "Work: 100 it, 0 s\n"


@pytest.mark.parametrize("verbose", [False, None])
def test_a_log_stays_empty_unless_lines_are_asked_for(verbose, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress(2, "Work", verbose=verbose) as bar:
        bar.set_postfix_str("part")
        bar.update()
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(4, "Work") as bar:
        bar.update(4)
    assert "Work: 100%" in terminal.getvalue()


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (DiffusionMap(verbose=1), "DiffusionMap: "),
        (TrajectorySampler(verbose=1, max_epochs=1), " steps"),
    ],
)
def test_verbose_estimators_write_to_a_log(estimator, text, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    X = np.random.default_rng(0).standard_normal((40, 3))
    estimator.fit(X, np.arange(40) % 2)
    assert text in log.getvalue()
    log.truncate(0)
    estimator.set_params(verbose=0).fit(X, np.arange(40) % 2)
    assert log.getvalue().strip("\0") == ""


def test_a_silent_fit_imports_no_progress_bar():
    code = (
        "import sys, numpy as np; from skdmap import DiffusionMap; "
        "DiffusionMap().fit(np.random.default_rng(0).normal(size=(50, 3))); "
        "assert 'tqdm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
