"""Stores that earlier code wrote are read and resumed: see tests/fixtures/README.md."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from skdmap import open_trajectory
from skdmap.exceptions import SkdmapWarning

FIXTURES = Path(__file__).parent.parent / "fixtures"
STORES = FIXTURES / "stores"

spec = importlib.util.spec_from_file_location("write_fixtures", FIXTURES / "write_fixtures.py")
written = importlib.util.module_from_spec(spec)
spec.loader.exec_module(written)

EXPECTED, COMPUTER = written.load(FIXTURES / "stores.npz")
# On another processor, or with another torch, a training run differs in its last bits.
SAME_COMPUTER = written.computer().tolist() == COMPUTER
KINDS = [*written.KINDS, *written.RECORDERS]
KILLED = [kind for kind in written.KINDS if "killed" in kind]
ENDED = [kind for kind in written.KINDS if "killed" not in kind]
KILLED_RECORDERS = [kind for kind in written.RECORDERS if "killed" in kind]


def expected(kind):
    """Return the columns of the run that nothing disturbed, and how many rows the store holds."""
    prefix = f"{kind}/"
    named = {
        name.removeprefix(prefix): column.copy()
        for name, column in EXPECTED.items()
        if name.startswith(prefix)
    }
    return named, int(named.pop("n_rows")), named.pop("outputs", None)


def check(found, wanted, *, exact=True, rtol=1e-3):
    assert found.keys() == wanted.keys()
    for name, column in wanted.items():
        assert found[name].shape == column.shape, name
        assert found[name].dtype == column.dtype, name
        if exact:
            np.testing.assert_array_equal(found[name], column, err_msg=name)
        else:
            np.testing.assert_allclose(
                found[name], column, rtol=rtol, atol=rtol, equal_nan=True, err_msg=name
            )


def template(kind):
    if kind == "default_network":
        return None
    if kind in written.RECORDERS:
        return written.Loop().module
    options = written.KINDS[kind]
    module = options["module"]
    return module(**options["module_params"]) if "module_params" in options else module()


def copied(kind, tmp_path):
    """Return a copy of a store that says it was written with the versions of today.

    A store is resumed with the versions that wrote it only. That is a rule of resuming, and has
    nothing to do with whether the files are understood.
    """
    folder = shutil.copytree(STORES / kind, tmp_path / kind)
    fresh = tmp_path / "fresh"
    written.sampler("outputs", store=fresh, max_steps=1).fit(*written.training_rows())
    today = open_trajectory(fresh).manifest_
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["versions"] = today["versions"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def zarr_where_needed(request):
    if request.node.name.endswith(".zarr]"):
        pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def one_thread():
    """A store tells how many threads wrote it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_undisturbed_run(kind):
    found = open_trajectory(STORES / kind, verify=True)
    wanted, n_rows, _ = expected(kind)
    killed = "killed" in kind
    assert found.interrupted_ == killed
    columns = written.columns(found)
    if killed:
        # A history and the last row of a run come with its end.
        late = [name for name in wanted if name.startswith(("history", "endpoints"))]
        wanted = {
            name: wanted[name][..., :n_rows] if name == "counts" else wanted[name][:n_rows]
            for name in wanted
            if name not in late
        }
        columns = {name: columns[name] for name in columns if name not in late}
        assert 0 < n_rows < len(expected(kind)[0]["losses_"])
        # The loss of the newest row came with the next step, if that was begun.
        if np.isnan(columns["losses_"][-1]):
            wanted["losses_"] = np.append(wanted["losses_"][:-1], np.nan)
    check(columns, wanted)


def test_format_1_keeps_differences_from_the_key_row():
    formats = [
        json.loads((STORES / kind / "manifest.json").read_text(encoding="utf-8"))["format"]
        for kind in ("half_of_format_1", "half", "plain")
    ]
    assert formats == [1, 2, 1]


@pytest.mark.parametrize("kind", [k for k in KINDS if written.has_modules(k)])
def test_modules_are_those_of_the_rows(kind):
    found = open_trajectory(STORES / kind, module=template(kind))
    module = found.module_at(-1)
    layout = found.parameter_layout_
    values = [module.get_parameter(name).detach().reshape(-1) for name in layout.names]
    np.testing.assert_array_equal(torch.cat(values), found.snapshots_[-1])
    buffers = [buffer.reshape(-1).double() for buffer in module.buffers()]
    np.testing.assert_array_equal(torch.cat(buffers) if buffers else [], found.buffers_[-1])
    if "killed" not in kind:
        # Half precision of format 1 is off by 2e-4 of the way from the key row.
        near = 1e-3 if kind == "half_of_format_1" else 1e-5
        np.testing.assert_allclose(written.outputs(module), expected(kind)[2], rtol=near, atol=near)
    if "killed" not in kind and kind in written.KINDS:
        assert len(found.modules_) == written.KINDS[kind].get("n_runs", 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sketch", "sketches, so that no module"),
        ("outputs", "not parameters, so that no module"),
        ("recorder_outputs", "not parameters, so that no module"),
        ("double_of_part", "leave out the parameters 2.weight, 2.bias"),
    ],
)
def test_rows_that_are_not_all_parameters_make_no_module(kind, message):
    with pytest.raises(ValueError, match=message):
        open_trajectory(STORES / kind, module=template(kind)).module_at(0)


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_run_ends_as_if_nothing_had_happened(kind, tmp_path):
    folder = copied(kind, tmp_path)
    before = read_files(folder)
    made = []
    sampler = written.sampler(
        kind, store=folder, resume=True, callbacks=lambda step, loss, module: made.append(step)
    ).fit(*written.training_rows())
    wanted, n_rows, _ = expected(kind)
    check(written.columns(sampler), wanted, exact=SAME_COMPUTER)
    # It went on from the state, and did not begin anew.
    assert 0 < len(made) < len(wanted["losses_"]) - n_rows + 5
    assert read_files(folder) != before
    stored = open_trajectory(folder, verify=True)
    assert not stored.interrupted_
    check(written.columns(stored), written.columns(sampler))


@pytest.mark.parametrize("kind", ENDED)
def test_a_run_that_has_ended_is_not_trained_again(kind, tmp_path):
    made = []
    sampler = written.sampler(
        kind, store=copied(kind, tmp_path), resume=True,
        callbacks=lambda step, loss, module: made.append(step),
    ).fit(*written.training_rows())  # fmt: skip
    check(written.columns(sampler), expected(kind)[0])
    assert made == []


@pytest.mark.parametrize("kind", KILLED_RECORDERS)
def test_a_killed_recording_goes_on_from_the_checkpoint(kind, tmp_path):
    folder = copied(kind, tmp_path)
    loop = written.Loop().load(STORES / f"{kind}.checkpoint.pt")
    start = written.CHECKPOINT
    with loop.recorder(kind, store=folder, resume=True, first_step=start) as recorder:
        loop.run(start, written.END, recorder)
    wanted, found = expected(kind)[0], written.columns(recorder)
    if kind == "recorder_killed_sketch":
        # The first row is known as a sketch only.
        for columns in (wanted, found):
            columns["endpoints_0"] = columns["endpoints_0"][1:]
            columns["start_distances_"] = columns["start_distances_"][: start + 1]
    check(found, wanted, exact=SAME_COMPUTER)
    stored = written.columns(open_trajectory(folder, verify=True))
    for name in ("snapshots_", "counts", "losses_"):
        np.testing.assert_array_equal(stored[name], found[name], err_msg=name)


def test_a_changed_byte_is_found(tmp_path):
    folder = copied("plain", tmp_path)
    content = bytearray((folder / "snapshots.npy").read_bytes())
    content[-1] ^= 1
    (folder / "snapshots.npy").write_bytes(content)
    with pytest.warns(SkdmapWarning, match="checksum"):
        found = open_trajectory(folder)
    assert len(found.steps_) == expected("plain")[1] - 1


def read_files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
