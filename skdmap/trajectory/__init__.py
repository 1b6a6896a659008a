"""(X, y) -> snapshot matrix (n_snapshots, n_parameters): the parameters that training passes.

In the order of use: ``_build`` makes module, loss and optimizer from what the user gave,
``_targets`` makes y fit the loss, ``_fresh_runs`` y and module fit each other, ``_cadence`` says
which steps are recorded, ``_plan`` puts this together for one run, ``_training`` trains and yields
snapshots, ``_keeper`` keeps them in memory or on disk, ``_recording`` does so for all runs.
"""

from skdmap.trajectory._cadence import Displacement, LogSpaced
from skdmap.trajectory._make_mlp import make_mlp
from skdmap.trajectory._stored_trajectory import open_trajectory
from skdmap.trajectory._trajectory_recorder import TrajectoryRecorder
from skdmap.trajectory._trajectory_sampler import TrajectorySampler

__all__ = [
    "Displacement",
    "LogSpaced",
    "TrajectoryRecorder",
    "TrajectorySampler",
    "make_mlp",
    "open_trajectory",
]
