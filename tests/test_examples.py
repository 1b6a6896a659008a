"""The main job and the gallery run, in a process of their own, as a reader runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def run_script(script, *arguments, cwd=ROOT):
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
def main_job(tmp_path_factory):
    """Run the main job twice in a small setting; return the folders and what was printed."""
    folders, printed = [], []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"results{number}")
        done = run_script(EXAMPLES / "sgd_landscape.py", "--out", folder, *SMALL)
        assert done.returncode == 0, done.stderr
        folders.append(folder)
        printed.append(done.stdout)
    return folders, printed


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
        assert max(residuals) <= 1e-3 * curvature[0]


def test_another_seed_gives_other_numbers(main_job, results, tmp_path):
    other = (*SMALL[:1], "4", *SMALL[2:])
    done = run_script(EXAMPLES / "sgd_landscape.py", "--out", tmp_path, *other)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["runs"][0]["hessian_eigenvalues"] != results["runs"][0]["hessian_eigenvalues"]


def test_bad_sizes_are_refused_before_any_work(tmp_path):
    done = run_script(EXAMPLES / "sgd_landscape.py", "--out", tmp_path / "new", "--seeds", "0")
    assert done.returncode == 2
    assert "--seeds" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_the_gallery_runs(script, tmp_path):
    done = run_script(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
