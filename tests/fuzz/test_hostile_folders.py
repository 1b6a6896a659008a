"""A folder from somebody else: nothing in it is run, nothing outside is written or read.

All folders are opened and resumed in one process with little memory, which reports what happened.
"""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures" / "stores"
FILES = {
    "rows": "skdmap-snapshots.npy",
    "journal": "skdmap-journal.jsonl",
    "state": "skdmap-state.bin",
    "results": "skdmap-results.json",
    "manifest": "skdmap-store.json",
    "module": "skdmap-module-00000.bin",
    "endpoints": "skdmap-endpoints-00000.bin",
}
HUGE = 2**40
X = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Case:
    """A good store with its neighbours: a file and a folder outside that nobody may touch."""

    def __init__(self, root):
        self.root, self.folder, self.victim = root, root / "s", root / "victim"
        self.options = {}

    def store(self, **options):
        self.options = options
        if options.pop("zarr", False):
            self.folder = self.root / "s.zarr"
        sampler(self.folder, **self.options).fit(X, Y)
        return self

    def earlier(self, kind):
        self.folder = self.root / kind
        shutil.copytree(FIXTURES / kind, self.folder)
        return self

    def path(self, name):
        return self.folder / FILES.get(name, name)

    def put_line(self, name, change):
        from skdmap.trajectory._storage.files import checked_line, parse_line

        record = parse_line(self.path(name).read_bytes())
        change(record)
        self.path(name).write_bytes(checked_line(record))

    def put_rows(self, change):
        """Change the fields of each row of the journal, with right checksums of the lines."""
        from skdmap.trajectory._storage.files import checked_line, parse_line

        head, *lines = self.path("journal").read_bytes().splitlines(keepends=True)
        rows = [parse_line(line) for line in lines]
        for number, row in enumerate(rows):
            change(row, number)
        self.path("journal").write_bytes(head + b"".join(map(checked_line, rows)))

    def put_record(self, name, tree, data=b""):
        """Write a record of this JSON, with a right checksum."""
        import zlib

        text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
        text += b" " * (-(23 + 8 + len(text)) % 64)
        body = len(text).to_bytes(8, "little") + text + data
        self.path(name).write_bytes(b"skdmap record %08x\n" % zlib.crc32(body) + body)


def sampler(folder, **options):
    from skdmap import TrajectorySampler

    common = {"max_steps": 4, "batch_size": 4, "random_state": 0, "store": folder}
    return TrajectorySampler(**common | options)


def linked(name, **options):
    def make(case):
        path = case.store(**options).path(name)
        shutil.copy(path, case.victim)  # a file that would pass for the right one
        path.unlink()
        path.symlink_to(case.victim)

    return make


def piped(name):
    def make(case):
        case.store(sketch_dim=4).path(name).unlink()
        os.mkfifo(case.path(name))

    return make


def a_folder(name):
    def make(case):
        case.store().path(name).unlink()
        case.path(name).mkdir()

    return make


def hard_linked(case):
    path = case.store().path("rows")
    shutil.copy(path, case.victim)
    path.unlink()
    path.hardlink_to(case.victim)


def linked_temporary(name):
    def make(case):
        case.victim.write_bytes(b"precious")
        case.store().path("state").unlink()
        Path(f"{case.path(name)}.tmp").symlink_to(case.victim)

    return make


def linked_start(case):
    case.victim.write_bytes(b"precious")
    case.folder.mkdir()
    (case.folder / "skdmap-store.json.tmp").symlink_to(case.victim)
    (case.folder / "skdmap-journal.jsonl").symlink_to(case.victim)


def manifest(change, **options):
    return lambda case: case.store(**options).put_line("manifest", change)


def journal(change, **options):
    return lambda case: case.store(**options).put_rows(change)


def text_of(name, text):
    return lambda case: case.store(sketch_dim=4).path(name).write_bytes(text)


def record_of(name, tree, data=b""):
    return lambda case: case.store(sketch_dim=4).put_record(name, tree, data)


def state_of(tree, data=b""):
    own = {"dict": [["n_rows", 2], ["coder", tree]]}
    return record_of(
        "state", {"dict": [["rows", own], ["caller", {"dict": [["runs", tree]]}]]}, data
    )


def tensor(shape, start=0, kind="torch.float32"):
    return {"tensor": kind, "shape": shape, "start": start}


def pickled(save):
    def make(case):
        path = case.earlier("killed_sketch").path("state.pt")
        content = io.BytesIO()
        save(content, str(case.root / "was_run"))
        path.write_bytes(content.getvalue())

    return make


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Big:
    def __reduce__(self):
        return bytearray, (HUGE,)


def save_evil(file, path):
    import torch

    torch.save({"rows": {"n_rows": 1, "coder": {}}, "caller": Evil(path)}, file)


def save_big(file, path):
    import torch

    torch.save({"rows": {"n_rows": 1, "coder": Big()}, "caller": {}}, file)


def save_bomb(file, path):
    import torch

    torch.save({"rows": {"n_rows": 1}, "caller": torch.zeros(2**29, dtype=torch.uint8)}, file)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file.seek(0)
    file.truncate()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def save_grown(file, path):
    """A tensor that is larger than its storage, which torch would enlarge."""
    import torch

    torch.save({"rows": {"n_rows": 1}, "caller": torch.zeros(7)}, file)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file.seek(0)
    file.truncate()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):  # the shape (7,) becomes (2^31 - 1,)
                content = content.replace(b"K\x07\x85", b"J\xff\xff\xff\x7f\x85")
            archive.writestr(name, content)


def object_array(case):
    path = case.earlier("sketch").path("endpoints_00000.npy")
    np.save(path, np.array([Evil(str(case.root / "was_run"))], dtype=object), allow_pickle=True)


def long_header(case):
    path = case.earlier("sketch").path("endpoints_00000.npy")
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (2, HUGE)}
        )


def earlier_link(name):
    def make(case):
        path = case.earlier("killed").path(name)
        shutil.copy(path, case.victim)
        path.unlink()
        path.symlink_to(case.victim)

    return make


def zarr_link(name):
    def make(case):
        path = case.store(zarr=True).folder / name
        target = case.root / "outside"
        if path.is_dir():
            shutil.copytree(path, target)
            shutil.rmtree(path)
        else:
            shutil.copy(path, target)
            path.unlink()
        path.symlink_to(target)

    return make


def zarr_metadata(change):
    def make(case):
        path = case.store(zarr=True).folder / "snapshots" / "zarr.json"
        record = json.loads(path.read_bytes())
        change(record)
        path.write_text(json.dumps(record))

    return make


def zarr_pipe(case):
    path = case.store(zarr=True).folder / "snapshots" / "c" / "1" / "0"
    path.unlink()
    os.mkfifo(path)


def zarr_bomb(case):
    from numcodecs.zstd import Zstd

    path = case.earlier("rows.zarr").folder / "snapshots" / "c" / "1" / "0"
    path.write_bytes(Zstd().encode(bytes(2**29)))


def put(*keys, value):
    def change(record, number=0):
        *path, last = keys
        for key in path:
            record = record[key]
        record[last] = value

    return change


DEEP = b"[" * 200_000 + b"]" * 200_000
CASES = {
    **{f"link for {name}": linked(name, sketch_dim=4) for name in FILES},
    **{f"pipe for {name}": piped(name) for name in FILES},
    **{f"folder for {name}": a_folder(name) for name in ("rows", "journal", "state", "results")},
    "hard link for rows": hard_linked,
    "link for temporary state": linked_temporary("state"),
    "link for temporary results": linked_temporary("results"),
    "links in a folder that is empty otherwise": linked_start,
    "many columns": manifest(put("layout", "n_columns", value=HUGE)),
    "many columns without names": manifest(
        lambda r: r["layout"].update(n_columns=HUGE, names=None, shapes=None)
    ),
    "many buffers": manifest(put("n_buffer_entries", value=HUGE)),
    "wide sketch": manifest(put("sketch", "dim", value=HUGE), sketch_dim=4),
    "a shape of many": manifest(put("layout", "shapes", value=[[HUGE, HUGE]] * 4)),
    "a layout of other shapes": manifest(
        lambda r: r["layout"].update(n_columns=2**46, shapes=[[2**23, 2**23], [0], [0], [0]])
    ),
    "names that lead outside": manifest(put("layout", "names", value=["../../victim"] * 4)),
    "scalars that lead outside": manifest(put("scalars", value=["../../victim"])),
    "rows of objects": manifest(put("dtype", value="O")),
    "deep manifest": text_of("manifest", DEEP),
    "manifest of a number": text_of("manifest", b"1e999999"),
    "numbers beyond int64": journal(put("step", value=10**30)),
    "steps that are texts": journal(put("step", value="import os")),
    "losses that are lists": journal(put("loss", value=[[]] * 100)),
    "key rows beyond the file": journal(put("key", value=HUGE), dtype="float16"),
    "key rows below zero": journal(put("key", value=-5), dtype="float16"),
    "exponents out of range": journal(put("exponent", value=HUGE), dtype="float16"),
    "deep journal": text_of("journal", DEEP),
    "deep results": text_of("results", DEEP),
    "deep record": record_of("state", DEEP),
    "huge tensor": state_of(tensor([HUGE, HUGE])),
    "huge tensor of nothing": state_of(tensor([0, HUGE, HUGE])),
    "tensor below zero": state_of(tensor([4], start=-64), bytes(64)),
    "the same tensor again and again": state_of([tensor([2**16])] * 50_000, bytes(2**18)),
    "state of a negative number of rows": record_of(
        "state", {"dict": [["rows", {"dict": [["n_rows", -5], ["coder", {"dict": []}]]}]]}
    ),
    "state of a list": record_of("state", [1, 2, 3]),
    "module of a list": record_of("module", [1, 2, 3]),
    "endpoints of a number": record_of("endpoints", 3),
    "pickle that runs": pickled(save_evil),
    "pickle that allocates": pickled(save_big),
    "pickle of a tensor beyond its storage": pickled(save_grown),
    "zip that inflates": pickled(save_bomb),
    "array of objects": object_array,
    "array longer than its file": long_header,
    "link for rows of format 1": earlier_link("snapshots.npy"),
    "link for the state of format 1": earlier_link("state.pt"),
    "link for the manifest of format 1": earlier_link("manifest.json"),
    "zarr: link for an array": zarr_link("snapshots"),
    "zarr: link for chunks": zarr_link("snapshots/c"),
    "zarr: link for a chunk": zarr_link("snapshots/c/1/0"),
    "zarr: link for metadata": zarr_link("snapshots/zarr.json"),
    "zarr: pipe for a chunk": zarr_pipe,
    "zarr: huge chunks": zarr_metadata(
        put("chunk_grid", "configuration", "chunk_shape", value=[2**20, 2**20])
    ),
    "zarr: huge shape": zarr_metadata(put("shape", value=[HUGE, 2**20])),
    "zarr: other codecs": zarr_metadata(put("codecs", value=[{"name": "vlen-utf8"}])),
    "zarr: chunk that inflates": zarr_bomb,
}  # fmt: skip


def actions(case):
    from skdmap import TrajectoryRecorder, make_mlp, open_trajectory

    def read():
        found = open_trajectory(case.folder, verify=True)
        np.asarray(found.snapshots_)
        return len(found.steps_)

    def modules():
        return len(open_trajectory(case.folder).modules_)

    def resume():
        sampler(case.folder, resume=True, **case.options).fit(X, Y)

    def begin():
        sampler(case.folder).fit(X, Y)

    def record():
        module = make_mlp(n_features=4, n_outputs=2)
        with TrajectoryRecorder(module, store=case.folder, resume=True):
            pass

    return {"read": read, "modules": modules, "begin": begin, "record": record, "resume": resume}


def outside(case):
    """Return what stands next to the folder, with its content."""
    found = {}
    for path in sorted(case.root.rglob("*")):
        if case.folder not in (path, *path.parents):
            found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def main(root):
    """Print what came of each action on each folder."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    report = {}
    cases = {}
    for number, (name, make) in enumerate(CASES.items()):
        case = cases[name] = Case(root / str(number))
        case.root.mkdir(parents=True)
        try:
            make(case)
        except ImportError:
            report[name] = None
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    # Far less than any of the folders asks for.
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, size + 2**28))
    for name, case in cases.items():
        if name in report:
            continue
        before, said = outside(case), {}
        for action, act in actions(case).items():
            try:
                said[action] = act()
            except BaseException as error:
                said[action] = [type(error).__name__, str(error)]
        report[name] = {"said": said, "outside": outside(case) == before}
    print(json.dumps(report))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, __file__, str(root)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pipes, links and /proc")
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_does_no_harm(name, report):
    found = report[name]
    if found is None:
        pytest.skip("needs zarr")
    assert found["outside"]
    said = found["said"]
    kinds = {what[0] for what in said.values() if isinstance(what, list)}
    assert not kinds & {"MemoryError", "RecursionError", "SystemExit", "OverflowError"}, said
    # What a link leads to is not read: nor are its rows, which would pass.
    if name in ("link for rows", "link for journal", "link for manifest"):
        assert isinstance(said["read"], list), said


if __name__ == "__main__":
    main(Path(sys.argv[1]))
