"""Warnings and errors of skdmap, each with its remedy.

All warnings derive from :class:`SkdmapWarning`, so that one filter silences or raises them.
A numerical method that stopped before its tolerance warns with :class:`ConvergenceWarning`, which
is also scikit-learn's.
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
    """An iteration stopped above its tolerance.

    Remedy: read the residuals in the message and in ``residuals_``; raise ``tol`` if they are good
    enough, or give the iteration more room (``max_matvecs``, another ``eigen_solver``).
    """


class DisconnectedGraphWarning(SkdmapWarning):
    """The kernel connects the rows in several groups, between which nothing diffuses.

    Remedy: raise ``bandwidth`` or ``n_neighbors`` if the groups should be one; set
    ``disconnected="largest"`` to map the largest group only.
    """


class LocalizedCoordinateWarning(SkdmapWarning):
    """A coordinate lives on a few rows that hang on the rest by a thread.

    Remedy: raise ``bandwidth``, or drop or down-weight the rows named.
    """


class BandwidthWarning(SkdmapWarning):
    """The bandwidth does not fit the data or the cut-off of the kernel.

    Remedy: lower ``bandwidth``, or raise ``n_neighbors``, as the message says.
    """


class ExtrapolationWarning(SkdmapWarning):
    """New rows lie so far away that no training row has a weight worth the name.

    Remedy: look at the rows named; their coordinates are those of the nearest training rows.
    """


class DivergenceWarning(SkdmapWarning):
    """Training produced a loss or parameters that are not finite; recording stopped there.

    Remedy: lower the learning rate; ``losses_`` shows where it happened.
    """
