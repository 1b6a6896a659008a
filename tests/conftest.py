"""Settings that must stand before scipy and matplotlib are imported, and scripts in processes."""

import multiprocessing
import os
import signal
import subprocess

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core; threads of its own on all cores made the run three times as long.
    # Before numpy and torch are imported, which read it once.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# scikit-learn's checks of array API input are skipped without it, and no check may be skipped.
os.environ["SCIPY_ARRAY_API"] = "1"
# Pictures are drawn without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell starts jobs in the background with Ctrl-C ignored, and Python then installs no handler:
# what the tests send would go nowhere. Subprocesses of the tests inherit this one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They are data, and the script that wrote them; nothing there is a test.
collect_ignore = ["fixtures"]

PRELOADED = [
    "torch",
    "skdmap.trajectory._trajectory_sampler",
    "skdmap.trajectory._trajectory_recorder",
    "skdmap.trajectory._stored_trajectory",
    "skdmap.hessian._hessian_spectrum",
    "skdmap.hessian._risk.empirical_risk",
    "skdmap.diffusion._diffusion_map",
]
REDIRECT = """
import os, sys
for fd, path in ((1, {out!r}), (2, {err!r})):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), fd)
sys.argv = ["-c", *{arguments!r}]
"""


class Script:
    """A script that runs, forked from a server that has imported torch once."""

    def __init__(self, context, code, arguments, folder):
        self._out, self._err = folder / "out", folder / "err"
        start = REDIRECT.format(out=str(self._out), err=str(self._err), arguments=arguments)
        # Builtin names are found in the child, functions of a conftest are not.
        self._process = context.Process(target=exec, args=(start + code, {"__name__": "__main__"}))
        self._process.start()
        self.kill, self.is_alive = self._process.kill, self._process.is_alive

    def output(self):
        return self._out.read_text() if self._out.exists() else ""

    def wait(self, timeout=None):
        self._process.join(timeout)
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
        folder = tmp_path_factory.mktemp("script")
        return Script(context, code, [str(argument) for argument in arguments], folder)

    return start


@pytest.fixture(scope="session")
def run_script(start_script):
    """Return a function: code, arguments -> the ended process, as from ``subprocess.run``."""
    return lambda code, *arguments: start_script(code, *arguments).wait()
