"""The main job and the gallery run, in a process of their own, as a reader runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GALLERY = sorted(EXAMPLES.glob("plot_*.py"))
PICTURES = (
    "embedding.png",
    "diffusion_eigenvalues.png",
    "hessian_spectrum.png",
    "displacement_share.png",
)
SMALL = ("--seed", "3", "--seeds", "2", "--epochs", "2", "--rows", "400")


def run_example(script, *arguments, cwd=ROOT):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def run_main_job(run_script):
    """Return a function: arguments -> the ended main job, forked where torch is imported."""
    script = EXAMPLES / "sgd_landscape.py"
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    return lambda *arguments: run_script(code, *arguments)


@pytest.fixture(scope="module")
def main_job(tmp_path_factory, run_main_job):
    """Run the main job as a reader does, and again; return the folders and what was printed."""
    folders = [tmp_path_factory.mktemp(f"results{number}") for number in range(2)]
    script = EXAMPLES / "sgd_landscape.py"
    ended = [
        run_example(script, "--out", folders[0], *SMALL),
        run_main_job("--out", folders[1], *SMALL),
    ]
    for done in ended:
        assert done.returncode == 0, done.stderr
    return folders, [done.stdout for done in ended]


@pytest.fixture(scope="module")
def results(main_job):
    return json.loads((main_job[0][0] / "results.json").read_text())


def test_a_second_run_with_the_same_seed_repeats_every_number(main_job):
    first, second = (folder / "results.json" for folder in main_job[0])
    assert first.read_bytes() == second.read_bytes()
    assert main_job[1][0] == main_job[1][1]


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_drawn(main_job, picture):
    import matplotlib.image

    image = matplotlib.image.imread(main_job[0][0] / picture)
    assert min(image.shape[:2]) >= 400
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50


def test_all_runs_start_at_one_point_and_end_apart(results):
    coordinates = np.array(results["diffusion_map"]["coordinates"])
    steps = np.array(results["diffusion_map"]["step"])
    starts, ends = coordinates[steps == 0], coordinates[steps == steps.max()]
    assert len(starts) == len(ends) == 4
    np.testing.assert_allclose(starts - starts[0], 0, atol=1e-8)
    assert len(np.unique(ends, axis=0)) == 4


def test_the_figures_are_what_they_are_called(results):
    m = results["settings"]["n_parameters"]
    assert m == 64 * 32 + 32 + 32 * 10 + 10
    eigenvalues = np.array(results["diffusion_map"]["eigenvalues"])
    assert (np.diff(eigenvalues) <= 0).all()
    assert (np.abs(eigenvalues) <= 1).all()
    assert len(results["runs"]) == 4
    for run in results["runs"]:
        assert run["chance"] == 10 / m
        assert run["displacement_share"][0] is None
        share = np.array(run["displacement_share"][1:], dtype=float)
        assert ((share > 0) & (share <= 1)).all()
        curvature, residuals = np.array(run["hessian_eigenvalues"]), run["hessian_residuals"]
        assert (np.diff(curvature) <= 0).all()
        assert max(residuals) <= 1e-4 * curvature[0]


def plain_run(optimizer, lr, number):
    """Train by hand in the small setting; return steps, snapshots, module and data."""
    seed, n_rows = 3, 400
    X, y = load_digits(return_X_y=True)
    X = torch.tensor(StandardScaler().fit_transform(X[:n_rows]).astype(np.float32))
    y = torch.tensor(y[:n_rows])

    def stream(position, run):
        sequence = np.random.SeedSequence(seed, spawn_key=(position, run))
        return int(sequence.generate_state(1, np.uint64)[0])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(0, 0))
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
        )
    order = torch.Generator().manual_seed(stream(1, number))
    stepper = getattr(torch.optim, optimizer)(module.parameters(), lr=lr)
    parameters = torch.nn.utils.parameters_to_vector
    rows = [parameters(module.parameters()).detach()]
    for _ in range(2):
        for batch in torch.randperm(n_rows, generator=order).split(64):
            stepper.zero_grad()
            F.cross_entropy(module(X[batch]), y[batch]).backward()
            stepper.step()
            rows.append(parameters(module.parameters()).detach())
    steps = [*range(0, len(rows) - 1, 4), len(rows) - 1]
    return steps, torch.stack(rows)[steps].double().numpy(), module.double(), X.double(), y


def top_space(module, X, y):
    """Ten largest eigenpairs of the Hessian by another library's Lanczos method, descending."""
    loss = F.cross_entropy(module(X), y)
    parameters = list(module.parameters())
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([part.ravel() for part in gradient])

    def product(v):
        v = torch.tensor(np.ravel(v))
        parts = torch.autograd.grad(gradient, parameters, v, retain_graph=True)
        return torch.cat([part.ravel() for part in parts]).numpy()

    operator = LinearOperator((len(gradient),) * 2, matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=len(gradient))
    values, vectors = eigsh(operator, k=10, which="LA", tol=1e-10, v0=start)
    return loss.item(), values[::-1], vectors


def share_inside(rows, basis):
    return ((rows @ basis) ** 2).sum(axis=1) / (rows**2).sum(axis=1)


@pytest.mark.parametrize(("position", "optimizer", "lr"), [(1, "SGD", 0.1), (2, "Adam", 0.003)])
def test_a_plain_run_has_the_same_shares(results, position, optimizer, lr):
    """Training, Hessian and projection anew, with torch and scipy alone."""
    found = results["runs"][position]
    number = int(found["run"].removeprefix(f"{optimizer} "))
    steps, snapshots, module, X, y = plain_run(optimizer, lr, number)
    loss, values, basis = top_space(module, X, y)
    assert found["steps"] == steps
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(found["hessian_eigenvalues"], values, rtol=1e-5)
    displaced = share_inside(snapshots[1:] - snapshots[0], basis)
    moved = share_inside(np.diff(snapshots, axis=0), basis)
    np.testing.assert_allclose(found["displacement_share"][1:], displaced, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["move_share"], moved, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_another_seed_gives_other_numbers(run_main_job, results, tmp_path):
    other = (*SMALL[:1], "4", *SMALL[2:])
    done = run_main_job("--out", tmp_path, *other)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["runs"][0]["hessian_eigenvalues"] != results["runs"][0]["hessian_eigenvalues"]


def test_bad_sizes_are_refused_before_any_work(run_main_job, tmp_path):
    done = run_main_job("--out", tmp_path / "new", "--seeds", "0")
    assert done.returncode == 2
    assert "--seeds" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_the_gallery_runs(script, tmp_path):
    done = run_example(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("This example needs"):
        pytest.skip(done.stdout)


@pytest.mark.parametrize(
    ("name", "module"), [("plot_single_cells", "scanpy"), ("plot_protein", "MDAnalysis")]
)
def test_examples_say_what_they_need_where_it_is_not_installed(name, module):
    script = EXAMPLES / f"{name}.py"
    code = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"This example needs {module}")
    assert 'pip install "skdmap[examples]"' in done.stdout
