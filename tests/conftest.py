"""Settings that must stand before scipy and matplotlib are imported."""

import os

# scikit-learn's checks of array API input are skipped without it, and no check may be skipped.
os.environ["SCIPY_ARRAY_API"] = "1"
# Pictures are drawn without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")
