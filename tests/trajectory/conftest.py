"""Scripts in processes that may be killed, forked from a server that has imported torch once."""

import multiprocessing
import subprocess
from pathlib import Path

import pytest

PRELOADED = [
    "torch",
    "skdmap.trajectory._trajectory_sampler",
    "skdmap.trajectory._trajectory_recorder",
    "skdmap.trajectory._stored_trajectory",
]
REDIRECT = """
import os, sys
for fd, path in ((1, {out!r}), (2, {err!r})):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), fd)
sys.argv = ["-c", *{arguments!r}]
"""


class Script:
    """A script that runs; ``wait`` returns what ``subprocess.run`` would."""

    def __init__(self, context, code, arguments, folder):
        self._out, self._err = folder / "out", folder / "err"
        start = REDIRECT.format(out=str(self._out), err=str(self._err), arguments=arguments)
        # Builtin names are found in the child, functions of a conftest are not.
        self._process = context.Process(target=exec, args=(start + code, {"__name__": "__main__"}))
        self._process.start()
        self.kill, self.is_alive = self._process.kill, self._process.is_alive

    def output(self):
        return self._out.read_text() if self._out.exists() else ""

    def wait(self):
        self._process.join()
        errors = self._err.read_text() if self._err.exists() else ""
        return subprocess.CompletedProcess(
            [], self._process.exitcode, stdout=self.output(), stderr=errors
        )


@pytest.fixture(scope="session")
def start_script(tmp_path_factory):
    """Return a function: code, arguments -> a running `Script`."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(PRELOADED)

    def start(code, *arguments):
        folder = Path(tmp_path_factory.mktemp("script"))
        return Script(context, code, [str(argument) for argument in arguments], folder)

    return start


@pytest.fixture(scope="session")
def run_script(start_script):
    """Return a function: code, arguments -> the ended process, as from ``subprocess.run``."""
    return lambda code, *arguments: start_script(code, *arguments).wait()
