"""(X, y) -> snapshot matrix (n_snapshots, n_parameters): the parameters during training.

``_training`` trains the runs of TrajectorySampler, ``_recorder`` follows the training loop of a
user, ``_cadence`` selects the steps that become rows, ``_storage`` stores them in memory or on
disk, and ``_stored_trajectory`` reads them back.
"""

from skdmap.trajectory._cadence import Displacement, LogSpaced, WallClock
from skdmap.trajectory._make_mlp import make_mlp
from skdmap.trajectory._stored_trajectory import open_trajectory
from skdmap.trajectory._trajectory_recorder import TrajectoryRecorder
from skdmap.trajectory._trajectory_sampler import TrajectorySampler

__all__ = [
    "Displacement",
    "LogSpaced",
    "TrajectoryRecorder",
    "TrajectorySampler",
    "WallClock",
    "make_mlp",
    "open_trajectory",
]
