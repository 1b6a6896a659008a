"""Warnings of skdmap, each with its remedy.

All warnings derive from :class:`SkdmapWarning`, so that one filter silences or raises them.
:class:`ConvergenceWarning` also derives from scikit-learn's warning of that name.
"""

from sklearn.exceptions import ConvergenceWarning as _SklearnConvergenceWarning

__all__ = [
    "BandwidthWarning",
    "ConvergenceWarning",
    "DisconnectedGraphWarning",
    "DivergenceWarning",
    "ExtrapolationWarning",
    "LocalizedCoordinateWarning",
    "SkdmapWarning",
]


class SkdmapWarning(UserWarning):
    """Base class of the warnings of skdmap."""


class ConvergenceWarning(SkdmapWarning, _SklearnConvergenceWarning):
    """An iterative method stopped before it reached its tolerance.

    Remedy: check the residuals in the message and in ``residuals_``. Raise ``tol`` if they are
    small enough; otherwise raise ``max_matvecs`` or choose another ``eigen_solver``.
    """


class DisconnectedGraphWarning(SkdmapWarning):
    """The kernel graph has several connected components.

    Remedy: raise ``bandwidth`` or ``n_neighbors`` if the data should be connected, or set
    ``disconnected="largest"`` to map only the largest component.
    """


class LocalizedCoordinateWarning(SkdmapWarning):
    """A coordinate is concentrated on a few samples that are weakly connected to the others.

    Samples that are all equally far apart, such as one-hot rows, raise it as well: they have no
    structure to map.

    Remedy: leave the samples named in the message out with ``sample_weight=0``, or use the setting
    that the message gives to connect them.
    """


class BandwidthWarning(SkdmapWarning):
    """The bandwidth does not suit the data or the number of neighbours.

    Remedy: lower ``bandwidth`` or raise ``n_neighbors``, as the message says.
    """


class ExtrapolationWarning(SkdmapWarning):
    """New samples lie so far from the training samples that their kernel weights vanish.

    Remedy: check the samples named in the message; they get the coordinates of their nearest
    training samples.
    """


class DivergenceWarning(SkdmapWarning):
    """Training produced a non-finite loss or parameters, and recording stopped.

    Remedy: lower the learning rate; ``losses_`` shows where training diverged.
    """
