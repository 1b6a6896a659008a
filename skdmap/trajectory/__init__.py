"""(X, y) -> snapshot matrix (n_snapshots, n_parameters): the parameters that training passes.

In the order of use: ``_build`` makes module, loss and optimizer from what the user gave,
``_targets`` makes y fit the loss, ``_fresh_runs`` y and module fit each other, ``_cadence`` says
which steps are recorded, ``_training`` trains and yields snapshots, ``_table`` stacks them.
"""

from skdmap.trajectory._mlp import make_mlp
from skdmap.trajectory._trajectory_sampler import TrajectorySampler

__all__ = ["TrajectorySampler", "make_mlp"]
