"""What a store gives back is what the sampler had."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skdmap import DiffusionMap, EmpiricalRisk, HessianSpectrum, TrajectorySampler, open_trajectory

COLUMNS = (
    "snapshots_", "buffers_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_",
)  # fmt: skip


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)


def fitted(data, folder, **options):
    options = {"max_epochs": 4, "batch_size": 16, "n_runs": 2, "random_state": 0, **options}
    return TrajectorySampler(store=folder, **options).fit(*data)


@pytest.mark.parametrize(
    "options",
    [{}, {"module": Normed}, {"sketch_dim": 16}, {"dtype": "float16"}, {"record": "outputs"}],
    ids=lambda options: str(*options) or "plain",
)
def test_the_attributes_are_those_of_the_sampler(data, tmp_path, options):
    sampler = fitted(data, tmp_path / "s", **options)
    found = open_trajectory(tmp_path / "s", verify=True)
    for name in COLUMNS:
        np.testing.assert_array_equal(
            np.asarray(getattr(found, name)), np.asarray(getattr(sampler, name)), err_msg=name
        )
    for name, column in sampler.history_.items():
        np.testing.assert_array_equal(found.history_[name], column)
    assert not found.interrupted_
    if "record" not in options:
        assert found.parameter_layout_ == sampler.parameter_layout_
    if "sketch_dim" in options:
        np.testing.assert_array_equal(found.sketch_error_, sampler.sketch_error_)
        last = nn.utils.parameters_to_vector(sampler.modules_[1].parameters()).detach()
        np.testing.assert_array_equal(found.endpoints_[1][1], last)


@pytest.mark.parametrize("options", [{}, {"module": Normed}])
def test_modules_come_back(data, tmp_path, options):
    sampler = fitted(data, tmp_path / "s", **options)
    found = open_trajectory(tmp_path / "s", module=options.get("module"))
    X = torch.tensor(data[0])
    for i in (0, 5, -1):
        torch.testing.assert_close(found.module_at(i)(X), sampler.module_at(i)(X), rtol=0, atol=0)
    for mine, theirs in zip(found.modules_, sampler.modules_, strict=True):
        assert not mine.training
        torch.testing.assert_close(mine(X), theirs(X), rtol=0, atol=0)
    torch.testing.assert_close(found.module_(X), sampler.module_(X), rtol=0, atol=0)


def test_a_module_of_the_users_must_be_given(data, tmp_path):
    fitted(data, tmp_path / "s", module=Normed)
    with pytest.raises(ValueError, match=r"holds the numbers of a module.*module=MyModule"):
        open_trajectory(tmp_path / "s").module_at(0)


@pytest.mark.parametrize("options", [{"sketch_dim": 8}, {"record": "outputs"}])
def test_rows_that_are_no_parameters_make_no_module(data, tmp_path, options):
    fitted(data, tmp_path / "s", **options)
    with pytest.raises(ValueError, match="no module can be made"):
        open_trajectory(tmp_path / "s").module_at(0)


@pytest.mark.parametrize("patterns", ["0.*", ["0.*", "2.*"], "*weight", "2.*", "4.bias"])
def test_rows_of_some_layers_are_not_taken_for_a_smaller_network(data, tmp_path, patterns):
    settings = {"module_params": {"hidden": (5, 6)}, "parameters": patterns}
    sampler = fitted(data, tmp_path / "s", **settings)
    found = open_trajectory(tmp_path / "s")
    with pytest.raises(ValueError, match="leave out some parameters"):
        found.module_at(0)
    X = torch.tensor(data[0])  # the modules at the end are whole
    torch.testing.assert_close(found.module_(X), sampler.module_(X), rtol=0, atol=0)


@pytest.mark.parametrize("hidden", [(5, 6), 7, ()])
def test_patterns_that_match_all_parameters_leave_none_out(data, tmp_path, hidden):
    settings = {"module_params": {"hidden": hidden}, "parameters": "*"}
    sampler = fitted(data, tmp_path / "s", **settings)
    X, found = torch.tensor(data[0]), open_trajectory(tmp_path / "s")
    torch.testing.assert_close(found.module_at(3)(X), sampler.module_at(3)(X), rtol=0, atol=0)


def test_a_folder_without_a_trajectory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"skdmap-store\.json is missing"):
        open_trajectory(tmp_path)


def test_opening_writes_nothing(data, tmp_path):
    fitted(data, tmp_path / "s")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "s").iterdir()}
    open_trajectory(tmp_path / "s", verify=True).module_at(0)
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "s").iterdir()}
    assert after == before


def test_what_is_opened_pickles(data, tmp_path):
    fitted(data, tmp_path / "s")
    found = open_trajectory(tmp_path / "s")
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.snapshots_, found.snapshots_)
    assert len(pickle.dumps(found.snapshots_)) < 500


def test_the_other_legs_take_the_map(data, tmp_path):
    sampler = fitted(data, tmp_path / "s", n_runs=1, max_epochs=10)
    rows = open_trajectory(tmp_path / "s").snapshots_
    assert isinstance(rows, np.memmap)
    mapped = DiffusionMap(bandwidth="auto", random_state=0).fit(rows).embedding_
    np.testing.assert_array_equal(
        mapped, DiffusionMap(bandwidth="auto", random_state=0).fit(np.array(rows)).embedding_
    )
    risk = EmpiricalRisk(sampler.module_, nn.CrossEntropyLoss(), *data)
    spectrum = HessianSpectrum(risk, 2, random_state=0).fit(rows)
    in_memory = HessianSpectrum(risk, 2, random_state=0).fit(np.array(rows))
    np.testing.assert_array_equal(spectrum.eigenvalues_, in_memory.eigenvalues_)


def test_a_path_to_a_file_and_a_module_of_another_network_are_errors(data, tmp_path):
    fitted(data, tmp_path / "s")
    with pytest.raises(NotADirectoryError, match=r"is a file\. Pass the folder given as store="):
        open_trajectory(tmp_path / "s" / "skdmap-store.json")
    found = open_trajectory(tmp_path / "s", module=torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"parameters weight, bias; the store has .*another net"):
        found.module_at(0)
