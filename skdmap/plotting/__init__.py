"""Display classes, as in scikit-learn: they draw what estimators and results contain.

Each class has a class method ``from_estimator`` or ``from_result``, which draws at once, a method
``plot(ax=None)``, which draws again, and then the attributes ``figure_`` and ``ax_``. They need
matplotlib (``pip install "skdmap[plot]"``), which is imported when something is drawn.

They take the colours and fonts of the current style. ``plt.style.use("skdmap.plotting.style")`` is
that of the gallery, with a palette for all kinds of colour vision.
"""

from skdmap.plotting._alignment import AlignmentDisplay
from skdmap.plotting._bandwidth import BandwidthDisplay
from skdmap.plotting._coordinate_gradients import CoordinateGradientsDisplay
from skdmap.plotting._coordinate_summary import CoordinateSummaryDisplay
from skdmap.plotting._dimension_test import DimensionTestDisplay
from skdmap.plotting._effective_dimension import EffectiveDimensionDisplay
from skdmap.plotting._eigenvalues import EigenvalueDisplay
from skdmap.plotting._embedding import EmbeddingDisplay
from skdmap.plotting._local_dimension import LocalDimensionDisplay
from skdmap.plotting._null_envelope import NullEnvelopeDisplay
from skdmap.plotting._spectrum import SpectrumDisplay
from skdmap.plotting._trajectory import TrajectoryDisplay

__all__ = [
    "AlignmentDisplay",
    "BandwidthDisplay",
    "CoordinateGradientsDisplay",
    "CoordinateSummaryDisplay",
    "DimensionTestDisplay",
    "EffectiveDimensionDisplay",
    "EigenvalueDisplay",
    "EmbeddingDisplay",
    "LocalDimensionDisplay",
    "NullEnvelopeDisplay",
    "SpectrumDisplay",
    "TrajectoryDisplay",
]
