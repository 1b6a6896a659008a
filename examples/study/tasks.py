"""Tasks -> files, each computed once, by several processes, kept under what it depends on."""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from settings import Setting
from tqdm import tqdm
from training import read_trajectories, train

import skdmap

PACKAGE = Path(skdmap.__file__).parent
STUDY = Path(__file__).parent
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


@dataclass(frozen=True)
class Task:
    """One result: a function of the trajectories of some settings. None trains the settings."""

    name: str
    function: Callable[..., dict[str, Any]] | None
    of: tuple[Setting, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)

    def path(self, folder: Path) -> Path:
        """Return where the result is kept: another name for other settings, arguments or code."""
        version = code_version(self.function)
        content = json.dumps([[s.key for s in self.of], self.arguments, version], sort_keys=True)
        digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        kind = "npz" if self.function is None else "json"
        return folder / f"{self.name.replace(' ', '-').replace('%', '')}-{digest}.{kind}"


@functools.cache
def code_version(function: Callable[..., Any] | None) -> str:
    """Return a digest of the sources and versions that a result depends on.

    Pictures and sentences are made anew each time, so their sources do not count.
    """
    sources = [STUDY / "settings.py", STUDY / "training.py", *PACKAGE.glob("*.py")]
    if function is None:
        sources += (PACKAGE / "trajectory").rglob("*.py")
    else:
        sources += PACKAGE.rglob("*.py")
        sources.append(Path(str(sys.modules[function.__module__].__file__)))
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(set(sources)):
        digest.update(source.name.encode() + source.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()


def training(setting: Setting) -> Task:
    return Task("trajectory", None, (setting,))


@dataclass(frozen=True)
class Job:
    """A task with the files it reads and writes, fixed once by the first process.

    A source that is edited while the study runs must not move a file in the middle of it.
    """

    task: Task
    path: Path
    inputs: tuple[Path, ...]


def job_of(task: Task, folder: Path) -> Job:
    inputs = () if task.function is None else tuple(training(s).path(folder) for s in task.of)
    return Job(task, task.path(folder), inputs)


def perform(job: Job) -> None:
    """Compute a task and keep it; a file appears whole or not at all."""
    task = job.task
    unfinished = job.path.with_suffix(f".{os.getpid()}.part")
    # The bars of the library belong to this process, which may share a terminal with others.
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        if task.function is None:
            train(task.of[0], unfinished)
        else:
            read = [read_trajectories(s, p) for s, p in zip(task.of, job.inputs, strict=True)]
            found = task.function(*read, **task.arguments)
            said = sorted({f"{w.category.__name__}: {w.message}" for w in caught})
            content = json.dumps({"result": found, "warnings": said})
            unfinished.write_text(content, encoding="utf-8")
    os.replace(unfinished, job.path)


def run_all(tasks: Sequence[Task], folder: Path, *, jobs: int, words: str) -> None:
    """Perform the tasks that no earlier call has finished."""
    todo = [job for job in (job_of(task, folder) for task in tasks) if not job.path.exists()]
    done = len(tasks) - len(todo)
    with tqdm(total=len(tasks), initial=done, desc=words, disable=None) as bar:
        if jobs == 1 or len(todo) < 2:
            for job in todo:
                perform(job)
                bar.update()
            return
        # An interrupt leaves the block, which ends the workers at once; what is finished is kept.
        with get_context("spawn").Pool(min(jobs, len(todo)), _leave_interrupts) as pool:
            for _ in pool.imap_unordered(perform, todo):
                bar.update()
            pool.close()
            pool.join()


def result(task: Task, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what a task has found, as JSON has it, and the warnings that came with it."""
    content = json.loads(task.path(folder).read_text(encoding="utf-8"))
    return content["result"], content["warnings"]


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
