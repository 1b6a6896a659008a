"""Display classes, in scikit-learn's way: they draw what the estimators hold, and compute nothing.

Each has a class method ``from_estimator`` that draws at once, a method ``plot(ax=None)`` that draws
again, and afterwards the attributes ``figure_`` and ``ax_``. They need matplotlib, which comes with
``pip install "skdmap[plot]"`` and is imported when something is drawn.
"""

from skdmap.plotting._bandwidth import BandwidthDisplay
from skdmap.plotting._eigenvalues import EigenvalueDisplay
from skdmap.plotting._embedding import EmbeddingDisplay
from skdmap.plotting._local_dimension import LocalDimensionDisplay
from skdmap.plotting._null_envelope import DimensionTestDisplay, NullEnvelopeDisplay
from skdmap.plotting._spectrum import SpectrumDisplay
from skdmap.plotting._trajectory import TrajectoryDisplay

__all__ = [
    "BandwidthDisplay",
    "DimensionTestDisplay",
    "EigenvalueDisplay",
    "EmbeddingDisplay",
    "LocalDimensionDisplay",
    "NullEnvelopeDisplay",
    "SpectrumDisplay",
    "TrajectoryDisplay",
]
