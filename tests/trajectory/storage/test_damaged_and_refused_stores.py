"""What can go wrong with a store: a clear error each, and no good row lost."""

import errno
import os
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest
import torch

from skdmap._parameters import parameter_layout
from skdmap.exceptions import SkdmapWarning
from skdmap.trajectory._storage.files import checked_line, parse_line
from skdmap.trajectory._storage.journal import journal_head
from skdmap.trajectory._storage.writer import open_writer
from skdmap.trajectory._stored_trajectory import open_trajectory

N = 6
THETA = [np.full(N, row, dtype=np.float32) for row in range(12)]


@pytest.fixture
def folder(tmp_path):
    """A store of ten rows, a state after the eighth."""
    writer = open_writer(N, store=tmp_path / "s", manifest={"lr": 0.1})
    append(writer, 0, 8)
    writer.save_state({})
    append(writer, 8, 10)
    writer.close()
    return tmp_path / "s"


def append(writer, first, last):
    for row in range(first, last):
        writer.append(THETA[row], step=row, loss=0.0)


def resumed(folder, **options):
    return open_writer(N, store=folder, resume=True, **{"manifest": {"lr": 0.1}, **options})


def flip_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def put_head(folder, n_synced):
    with (folder / "skdmap-journal.jsonl").open("r+b") as file:
        file.write(journal_head(n_synced))


def byte_of_row(row):
    return 128 + row * 4 * N + 5


def test_a_folder_with_rows_needs_resume(folder):
    with pytest.raises(
        FileExistsError, match=r"already holds 10 rows. To continue, pass resume=True"
    ):
        open_writer(N, store=folder)
    assert len(open_trajectory(folder, verify=True).steps_) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manifest": {"lr": 0.2}}, r"settings.lr is 0.1 in the store and 0.2 here"),
        ({"manifest": {}}, r"settings.lr is 0.1 in the store and 'missing' here"),
        ({"dtype": "float64"}, r"dtype is 'float32' in the store and 'float64' here"),
        ({"sketch_dim": 8}, r"sketch is None in the store"),
        ({"n_buffer_entries": 2}, r"n_buffer_entries is 0 in the store and 2 here"),
    ],
)
def test_other_settings_are_named(folder, options, message):
    with pytest.raises(ValueError, match=rf"with other settings: .*{message}"):
        resumed(folder, **options)
    assert len(open_trajectory(folder, verify=True).steps_) == 10


def test_another_layout_is_an_error(folder):
    with pytest.raises(ValueError, match=r"layout.n_columns is 6 in the store and 7 here"):
        open_writer(7, store=folder, resume=True, manifest={"lr": 0.1})
    layout = parameter_layout(torch.nn.Linear(5, 1))
    with pytest.raises(ValueError, match=r"layout.names is None in the store"):
        open_writer(layout, store=folder, resume=True, manifest={"lr": 0.1})


def test_other_versions_are_an_error(folder):
    change_version(folder, "torch")
    with pytest.raises(ValueError, match=r"versions.torch is '0.1' in the store"):
        resumed(folder)


def test_another_version_of_skdmap_is_no_error(folder):
    with pytest.raises(ValueError, match=r"settings.new is 'missing' in the store"):
        resumed(folder, manifest={"lr": 0.1, "new": 1})
    change_version(folder, "skdmap")
    resumed(folder).close()
    # Nor are settings that only one of them knows.
    resumed(folder, manifest={"lr": 0.1, "new": 1}).close()
    with pytest.raises(ValueError, match=r"settings.lr is 0.1 in the store and 0.2 here"):
        resumed(folder, manifest={"lr": 0.2})
    with pytest.raises(ValueError, match=r"settings.recorder is 'missing' in the store"):
        resumed(folder, manifest={"lr": 0.1, "recorder": True})


@pytest.mark.parametrize("name", ["python", "numpy", "torch"])
def test_another_patch_version_is_a_warning(folder, name):
    here = parse_line((folder / "skdmap-store.json").read_bytes())["versions"][name]
    major, minor = here.split(".")[:2]
    change_version(folder, name, f"{major}.{minor}.99")
    with pytest.warns(
        SkdmapWarning, match=rf"{name} {major}\.{minor}\.99 \(here .*may differ in their last bits"
    ):
        resumed(folder).close()
    for other in (f"{major}.{int(minor) + 1}.0", f"{major}.{minor}1", "unknown"):
        change_version(folder, name, other)
        with pytest.raises(ValueError, match=rf"versions.{name} is '{other}' in the store"):
            resumed(folder)


def change_version(folder, name, version="0.1"):
    manifest = parse_line((folder / "skdmap-store.json").read_bytes())
    manifest["versions"][name] = version
    (folder / "skdmap-store.json").write_bytes(checked_line(manifest))


def test_a_flipped_byte_is_seen_by_verify_and_on_resume(folder):
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(4))
    with pytest.warns(
        SkdmapWarning, match=r"row 4 does not match its checksum. Left out: row 4; .* 9 rows are"
    ):
        found = open_trajectory(folder, verify=True)
    np.testing.assert_array_equal(found.snapshots_, THETA[:4] + THETA[5:10])
    before = (folder / "skdmap-journal.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=r"row 4 does not match its checksum.*saved state needs 8 rows"
    ):
        resumed(folder)
    # The error lets go of the lock, and changes nothing.
    with pytest.raises(ValueError, match="row 4 does not match its checksum"):
        resumed(folder)
    assert (folder / "skdmap-journal.jsonl").read_bytes() == before
    assert len(np.load(folder / "skdmap-snapshots.npy")) == 10
    # A byte that is put right again: all is well.
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(4))
    writer = resumed(folder)
    assert writer.n_rows == 10
    writer.close()


def test_a_flipped_byte_after_the_state_is_computed_again(folder):
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(8))
    writer = resumed(folder)
    writer.load_state()
    append(writer, 8, 10)
    writer.close()
    np.testing.assert_array_equal(open_trajectory(folder, verify=True).snapshots_, THETA[:10])


def test_without_verify_the_newest_rows_are_checked(folder):
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(9))
    with pytest.warns(SkdmapWarning, match="row 9 does not match its checksum"):
        assert len(open_trajectory(folder).steps_) == 9


def test_without_verify_old_rows_are_not_read(folder, monkeypatch):
    monkeypatch.setattr("skdmap.trajectory._stored_trajectory._RECENT", 2 * 4 * N)
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(7))
    assert len(open_trajectory(folder).steps_) == 10
    with pytest.warns(SkdmapWarning, match="row 7 does not match its checksum"):
        assert len(open_trajectory(folder, verify=True).steps_) == 9


def test_without_a_state_good_rows_after_a_bad_one_are_not_dropped(folder):
    (folder / "skdmap-state.bin").unlink()
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(4))
    with pytest.raises(ValueError, match=r"row 4 does not match its checksum.*10 rows were on"):
        resumed(folder)


def test_without_a_state_bad_rows_at_the_end_are_dropped_with_a_warning(folder):
    (folder / "skdmap-state.bin").unlink()
    for row in (8, 9):
        flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(row))
    put_head(folder, 8)  # rows 8 and 9 had not been synced when the power went
    with pytest.warns(SkdmapWarning, match="rows 8 to 9 are incomplete"):
        writer = resumed(folder)
    assert writer.n_rows == 8
    writer.close()
    assert len(open_trajectory(folder, verify=True).steps_) == 8


@pytest.mark.parametrize("cut", [1, 40])
def test_a_journal_that_ends_within_a_line_loses_that_row(folder, cut):
    journal = folder / "skdmap-journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with pytest.warns(SkdmapWarning, match=r"line 11 of .* is damaged or incomplete"):
        assert len(open_trajectory(folder).steps_) == 9
    writer = resumed(folder)
    writer.load_state()
    append(writer, 8, 10)
    writer.close()
    np.testing.assert_array_equal(open_trajectory(folder, verify=True).snapshots_, THETA[:10])


def test_a_journal_shorter_than_the_state_is_an_error(folder):
    journal = folder / "skdmap-journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:6]))
    with pytest.warns(SkdmapWarning, match="lists 5 of 10 rows"):
        assert len(open_trajectory(folder).steps_) == 5
    with pytest.raises(ValueError, match=r"is damaged: .*saved state needs 8 rows"):
        resumed(folder)
    assert len(np.load(folder / "skdmap-snapshots.npy")) == 10  # rows are still there
    journal.write_bytes(whole)
    resumed(folder).close()


@pytest.mark.parametrize("at", [3, 30])
def test_a_damaged_line_within_the_journal_is_an_error(folder, at):
    journal = folder / "skdmap-journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    flip_byte(journal, sum(map(len, lines[:6])) + at)
    with pytest.warns(SkdmapWarning, match=r"line 7 of skdmap-journal.jsonl is damaged.*: row 5;"):
        found = open_trajectory(folder)
    assert found.steps_.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    np.testing.assert_array_equal(found.snapshots_, THETA[:5] + THETA[6:10])
    with pytest.raises(ValueError, match=r"line 7 of skdmap-journal.jsonl is damaged"):
        resumed(folder)
    (folder / "skdmap-state.bin").unlink()
    with pytest.raises(ValueError, match=r"line 7 of .* is damaged.*10 rows were on"):
        resumed(folder)


def lossy(tmp_path, name="s", **options):
    """A store of eight rows of two runs in turn, and a flipped byte in row 2."""
    writer = open_writer(N, 1, store=tmp_path / name, **options)
    for row in range(8):
        writer.append(
            THETA[row], [row], run=row % 2, step=row // 2, loss=0.1 * row,
            path_length=np.nan if row < 2 else 2.0**row,
        )  # fmt: skip
    writer.close()
    return tmp_path / name


@pytest.mark.parametrize("name", ["s", "s.zarr"])
def test_the_columns_of_the_rows_that_are_left_lead_over_a_lost_row(tmp_path, name):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    folder = lossy(tmp_path, name)
    rows = folder / "snapshots" / "c" / "2" / "0" if name != "s" else None
    flip_byte(rows or folder / "skdmap-snapshots.npy", byte_of_row(2) if name == "s" else 5)
    with pytest.warns(SkdmapWarning, match="Left out: row 2; the other 7 rows are good"):
        found = open_trajectory(folder, verify=True)
    kept = [0, 1, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(found.snapshots_, np.stack(THETA)[kept])
    np.testing.assert_array_equal(found.buffers_[:, 0], kept)
    np.testing.assert_allclose(found.losses_, 0.1 * np.array(kept))
    # Row 4 is the next one of that run.
    np.testing.assert_array_equal(
        found.path_lengths_, [np.nan, np.nan, 2.0**3, 2.0**2 + 2.0**4, 2.0**5, 2.0**6, 2.0**7]
    )
    again = found.snapshots_
    assert again.shape == (7, N)
    np.testing.assert_array_equal(again[3], THETA[4])
    np.testing.assert_array_equal(again[-2:, 1:3], np.stack(THETA)[6:8, 1:3])
    np.testing.assert_array_equal(again[[True, False] * 3 + [True]], np.stack(THETA)[kept[::2]])


def test_a_lost_line_leaves_the_length_of_the_next_row_unknown(tmp_path):
    folder = lossy(tmp_path, sketch_dim=4)
    journal = folder / "skdmap-journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    flip_byte(journal, sum(map(len, lines[:3])) + 9)
    with pytest.warns(SkdmapWarning, match="line 4 of .* is damaged.*Left out: row 2;"):
        found = open_trajectory(folder, verify=True)
    assert found.steps_.tolist() == [0, 0, 1, 2, 2, 3, 3]
    # Of which run row 2 was is not known.
    assert np.flatnonzero(np.isnan(found.path_lengths_)).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(np.isnan(found.step_lengths_)).tolist() == [0, 1, 2, 3]


def test_a_lost_line_of_a_loss_loses_no_row(tmp_path):
    writer = open_writer(N, store=tmp_path / "s")
    append(writer, 0, 3)
    writer.set_loss(1, 4.0)
    append(writer, 3, 5)
    writer.set_loss(2, 5.0)
    writer.close()
    journal = tmp_path / "s" / "skdmap-journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    flip_byte(journal, sum(map(len, lines[:4])) + 9)
    with pytest.warns(SkdmapWarning, match="line 5 of .* is damaged.*: no row; the other 5 rows"):
        found = open_trajectory(tmp_path / "s", verify=True)
    np.testing.assert_array_equal(found.snapshots_, THETA[:5])
    np.testing.assert_array_equal(found.losses_, [0.0, 0.0, 5.0, 0.0, 0.0])


def test_half_precision_rows_end_at_the_first_bad_one(tmp_path):
    folder = lossy(tmp_path, dtype="float16")
    flip_byte(folder / "skdmap-differences.npy", 128 + 2 * 2 * N + 3)
    with pytest.warns(SkdmapWarning, match="The 2 rows before it are good"):
        assert len(open_trajectory(folder, verify=True).steps_) == 2


def test_rows_that_were_not_synced_end_at_the_first_bad_one(folder):
    flip_byte(folder / "skdmap-snapshots.npy", byte_of_row(7))
    put_head(folder, 7)
    with pytest.warns(SkdmapWarning, match="The 7 rows before it are good"):
        assert len(open_trajectory(folder, verify=True).steps_) == 7


def test_a_torn_head_and_a_bad_line_are_one_power_cut(folder):
    (folder / "skdmap-state.bin").unlink()
    journal = folder / "skdmap-journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    flip_byte(journal, sum(map(len, lines[:6])) + 9)
    with pytest.raises(ValueError, match=r"line 7 of .* is damaged.*10 rows were on the disk"):
        resumed(folder)
    flip_byte(journal, 30)
    with pytest.warns(SkdmapWarning, match=r"line 7 of .* is damaged.*as after a power cut"):
        writer = resumed(folder)
    append(writer, 5, 10)
    writer.close()
    np.testing.assert_array_equal(open_trajectory(folder, verify=True).snapshots_, THETA[:10])


def test_files_shorter_than_the_journal_are_said(folder):
    os.truncate(folder / "skdmap-snapshots.npy", byte_of_row(6))
    with pytest.warns(SkdmapWarning, match=r"snapshots\.npy is shorter than the 10 rows"):
        np.testing.assert_array_equal(open_trajectory(folder).snapshots_, THETA[:6])
    with pytest.raises(ValueError, match=r"snapshots\.npy is shorter than the 10 rows"):
        resumed(folder)


@pytest.mark.parametrize("name", ["skdmap-store.json", "skdmap-state.bin"])
def test_a_damaged_file_beside_the_rows_is_named(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        resumed(folder)


def test_a_state_is_never_unpickled(folder):
    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    torch.save({"rows": {"n_rows": 1, "coder": {}}, "caller": Evil()}, folder / "skdmap-state.bin")
    with pytest.raises(ValueError, match=r"skdmap-state.bin is damaged"):
        resumed(folder)


def test_what_cannot_be_read_back_is_an_error_at_the_first_save(tmp_path):
    writer = open_writer(N, store=tmp_path / "s")
    with pytest.raises(ValueError, match=r"\['scheduler'\]\[0\] is a RandomState"):
        writer.save_state({"scheduler": [np.random.RandomState(0)]})
    assert not list((tmp_path / "s").glob("state*"))
    writer.close()


def test_a_manifest_that_json_does_not_know_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        open_writer(N, store=tmp_path / "s", manifest={"module": torch.nn.Linear(1, 1)})


def test_two_writers_at_once_are_one_too_many(folder, run_script):
    first = resumed(folder)
    with pytest.raises(BlockingIOError, match="another process"):
        resumed(folder)
    script = f"""
    import sys
    from skdmap.trajectory._storage.writer import open_writer
    try:
        open_writer({N}, store={str(folder)!r}, resume=True, manifest={{"lr": 0.1}})
    except BlockingIOError as error:
        print(error)
    """
    done = run_script(dedent(script))
    assert "another process" in done.stdout, done.stderr
    assert len(open_trajectory(folder).steps_) == 10  # a reader is no writer
    first.close()
    resumed(folder).close()


def test_a_kill_gives_the_lock_back(folder, run_script):
    script = f"""
    import os, signal
    from skdmap.trajectory._storage.writer import open_writer
    writer = open_writer({N}, store={str(folder)!r}, resume=True, manifest={{"lr": 0.1}})
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_script(dedent(script))
    assert done.returncode == -9, done.stderr
    resumed(folder).close()


FULL = """
import numpy as np
from skdmap.trajectory._storage.writer import open_writer
{limit}
writer = open_writer(500, store={folder!r})
row = 0
try:
    while row < 2000:
        writer.append(np.full(500, row, dtype=np.float32), step=row, loss=0.0)
        row += 1
except OSError as error:
    assert error.errno in {errnos}, error
    assert f"row {{row}} could not be written; rows 0 to {{row - 1}} are kept" in str(error), error
    assert "resume=True" in str(error)
    print(row)
writer.close()
"""
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


# At 20,000 bytes the rows fail, within a row; 2,345 is within the sixteenth line of the journal.
@pytest.mark.parametrize(("n_bytes", "n_rows"), [(20_000, 9), (2_000_000, None)])
def test_a_full_disk_keeps_the_rows_before(tmp_path, n_bytes, n_rows, run_script):
    script = FULL.format(
        limit=LIMIT.format(n_bytes), folder=str(tmp_path / "s"), errnos=(errno.EFBIG, errno.ENOSPC)
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    n_kept = int(done.stdout)
    assert n_kept == n_rows or (n_rows is None and n_kept == (n_bytes - 128) // 2000)
    found = open_trajectory(tmp_path / "s", verify=True)
    np.testing.assert_array_equal(found.snapshots_[:, 0], np.arange(n_kept))
    # With room again it goes on.
    writer = open_writer(500, store=tmp_path / "s", resume=True)
    assert writer.append(np.zeros(500), step=0, loss=0.0) == n_kept
    writer.close()


def test_a_full_journal_keeps_the_rows_before(tmp_path, run_script):
    """Rows of one number: the journal is the file that grows."""
    script = FULL.replace("500", "1").format(
        limit=LIMIT.format(20_000), folder=str(tmp_path / "s"), errnos=(errno.EFBIG, errno.ENOSPC)
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    n_kept = int(done.stdout)
    assert len(np.load(tmp_path / "s" / "skdmap-snapshots.npy")) == n_kept
    found = open_trajectory(tmp_path / "s", verify=True)
    np.testing.assert_array_equal(found.snapshots_[:, 0], np.arange(n_kept))


def test_a_state_that_finds_no_room_is_said_and_the_one_before_is_kept(tmp_path, run_script):
    script = """
import numpy as np, torch
from skdmap.trajectory._storage.writer import open_writer
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
writer = open_writer(3, store={folder!r})
writer.append(np.zeros(3), step=0, loss=0.0)
writer.save_state({{"a": 1}})
try:
    writer.save_state({{"a": torch.zeros(100_000)}})
except OSError as error:
    assert "skdmap-state.bin could not be written; rows 0 to 0 are kept" in str(error), error
    print("said")
writer.close()
""".format(folder=str(tmp_path / "s"))
    done = run_script(script)
    assert done.stdout == "said\n", done.stderr
    writer = open_writer(3, store=tmp_path / "s", resume=True)
    assert writer.load_state() == {"a": 1}
    writer.close()


@pytest.mark.parametrize("name", ["s", "s.zarr"])
def test_a_full_tmpfs_keeps_the_rows_before(name):
    """The real thing: ENOSPC from a file system, where user namespaces are allowed."""
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    script = FULL.format(limit="", folder=f"/mnt/{name}", errnos=(errno.ENOSPC,))
    script += dedent(f"""
    from skdmap.trajectory._stored_trajectory import open_trajectory
    found = open_trajectory("/mnt/{name}", verify=True)
    assert (found.snapshots_[:, 0] == np.arange(row)).all() and row > 100, row
    """)
    command = f'mount -t tmpfs -o size=1m none /mnt && exec {sys.executable} -c "$SCRIPT"'
    probe = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"],
        capture_output=True,
    )
    if probe.returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command],
        capture_output=True, text=True, env={**os.environ, "SCRIPT": script},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_an_error_before_anything(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="cannot be written"):
            open_writer(N, store=tmp_path / "s")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "s").write_text("")
    with pytest.raises(OSError, match=r"cannot be written.*Use another folder"):
        open_writer(N, store=tmp_path / "s")


def test_a_folder_of_other_arrays_is_left_alone(tmp_path):
    np.save(tmp_path / "skdmap-snapshots.npy", np.zeros(3))
    for resume in (False, True):
        with pytest.raises(
            FileExistsError, match=r"holds files that skdmap did not write .skdmap-snapshots.npy"
        ):
            open_writer(N, store=tmp_path, resume=resume)
    assert np.load(tmp_path / "skdmap-snapshots.npy").shape == (3,)


@pytest.mark.parametrize("dim", [0, 2, 6, -4, 4.0, 2**18])
def test_a_sketch_dim_out_of_range_is_an_error(dim):
    with pytest.raises(ValueError, match=r"sketch_dim=.* must be a multiple of 4"):
        open_writer(N, sketch_dim=dim)


def test_resume_without_a_store_and_half_a_sketch_are_errors():
    with pytest.raises(ValueError, match="resume=True needs store="):
        open_writer(N, resume=True)
    with pytest.raises(ValueError, match="dtype='float16' excludes sketch_dim"):
        open_writer(N, sketch_dim=8, dtype="float16")


def test_a_row_of_another_width_is_an_error():
    writer = open_writer(N, 2)
    with pytest.raises(ValueError, match="has 5 entries; it must have 6"):
        writer.append(np.zeros(5), np.zeros(2), step=0, loss=0.0)
    with pytest.raises(ValueError, match="has 3 buffer entries at step 4 of run 1; it must have 2"):
        writer.append(np.zeros(6), np.zeros(3), step=4, run=1, loss=0.0)


def test_a_file_of_rows_that_is_missing_is_named(folder):
    (folder / "skdmap-snapshots.npy").unlink()
    with pytest.warns(SkdmapWarning, match=r"skdmap-snapshots\.npy is missing"):
        assert len(open_trajectory(folder).steps_) == 0
