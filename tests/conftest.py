"""Settings that must stand before scipy and matplotlib are imported."""

import os
import signal

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
