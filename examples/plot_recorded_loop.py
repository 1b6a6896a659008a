"""
What does a drop of the learning rate do to the path?
=====================================================

A hand-written training loop with a schedule is recorded without changing it:
:class:`skdmap.TrajectoryRecorder` hooks the optimizer. It records every third step, and for each
row the exact length of the path since the previous row, so that the noise between rows is not lost.
"""

# %%
# The loop
# --------

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skdmap import DiffusionMap, TrajectoryRecorder
from skdmap.plotting import TrajectoryDisplay

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)

torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[10], gamma=0.02)

with TrajectoryRecorder(module, record_every=3) as recorder:
    for _ in range(20):
        for rows in torch.randperm(len(X)).split(32):
            loss = torch.nn.functional.cross_entropy(module(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            recorder.log(loss)
            optimizer.step()
        scheduler.step()

print(recorder.snapshots_.shape, "rows, learning rates", np.unique(recorder.learning_rates_))

# %%
# Before and after
# ----------------
#
# A straight path is as long as the distance that it covers. The ratio of the two, over stretches of
# ten rows, shows how much of the path is noise.

drop = int(np.argmax(recorder.learning_rates_ < 1.0))
stretch = 10
starts = np.arange(0, len(recorder.steps_) - stretch, stretch)
covered = np.array(
    [np.linalg.norm(recorder.snapshots_[i + stretch] - recorder.snapshots_[i]) for i in starts]
)
walked = np.array([recorder.path_lengths_[i + 1 : i + stretch + 1].sum() for i in starts])
straightness = covered / walked

after = recorder.steps_[starts] >= recorder.steps_[drop]
for name, part in (("before", ~after), ("after", after)):
    print(
        f"{name:8} the drop: {walked[part].mean():8.3f} walked, "
        f"{covered[part].mean():8.3f} covered, ratio {straightness[part].mean():.2f}"
    )

model = DiffusionMap(n_components=2, bandwidth="median").fit(recorder.snapshots_)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
TrajectoryDisplay.from_estimator(model, recorder, color="step", ax=left)
left.set_title("Nearly the whole path lies before the drop")
right.plot(recorder.steps_[starts], straightness, "o-", markersize=4)
right.axvline(recorder.steps_[drop], color="C3", label="learning rate 1 becomes 0.02")
right.set_title("After the drop, the path is straighter")
right.set_ylim(0, 1)
right.set_xlabel("step")
right.set_ylabel("distance covered / path walked, ten rows")
right.legend()

# %%
# Nearly all of the path lies before the drop. Afterwards it is so short that the last half of the
# rows is one point of the map. There the path is straighter, since the noise of a step shrinks with
# the learning rate and the remaining gradient does not.

plt.show()
