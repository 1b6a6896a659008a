"""
Does a stored snapshot of a BatchNorm network still have its loss?
==================================================================

A row of a trajectory contains only the parameters. A network with BatchNorm also has running
statistics, which training changes without a gradient. They belong to the parameters of the same
step: with the statistics of another step it is a different network. They are recorded in
``buffers_``, and :meth:`~skdmap.TrajectoryRecorder.module_at` combines both.
"""

# %%
# A convolutional network, recorded
# ---------------------------------

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from skdmap import TrajectoryRecorder

plt.style.use("skdmap.plotting.style")

X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
y = torch.tensor(y)

torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3, padding=1),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(8, 16, 3, padding=1),
    torch.nn.BatchNorm2d(16),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.Linear(16 * 4 * 4, 10),
)
optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def loss_of(network):
    """Return the loss on all rows in eval mode, the network left as it was."""
    was_training = network.training
    with torch.no_grad():
        loss = F.cross_entropy(network.eval()(X), y).item()
    network.train(was_training)
    return loss


true_losses = [loss_of(module)]
with TrajectoryRecorder(module, record_every=4) as recorder:
    for step in range(1, 113):
        rows = torch.randint(len(X), (64,))
        optimizer.zero_grad()
        F.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()
        if step % 4 == 0:
            true_losses.append(loss_of(module))

print("a row:", recorder.snapshots_.shape[1], "parameters; buffers:", end=" ")
print(recorder.buffers_.shape[1], "entries of running statistics")

# %%
# Each row with its own statistics, and with the last ones
# --------------------------------------------------------


def with_last_buffers(i):
    """Return the parameters of row i among the running statistics of the end."""
    network, row = copy.deepcopy(module).eval(), recorder.module_at(i)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), row.parameters(), strict=True):
            parameter.copy_(value)
    return network


n_rows = len(recorder.steps_)
own = np.array([loss_of(recorder.module_at(i)) for i in range(n_rows)])
last = np.array([loss_of(with_last_buffers(i)) for i in range(n_rows)])

print("largest difference from the loss in training, own statistics:", abs(own - true_losses).max())
print("with the last statistics:", f"{abs(last - true_losses).max():.3g}")

figure, axis = plt.subplots(figsize=(7, 4.4))
axis.semilogy(recorder.steps_, true_losses, "o", color="0.7", label="in training")
axis.semilogy(recorder.steps_, own, "-", label="module_at(i)")
axis.semilogy(recorder.steps_, last, "--", color="C3", label="row i, statistics of the last row")
axis.set_title("With its own statistics, each row has the loss of training")
axis.set_xlabel("step of row i")
axis.set_ylabel("loss on all rows")
axis.legend()

# %%
# With its own statistics, each row has exactly the loss that the network had. For the curvature
# along the path, use ``EmpiricalRisk(recorder.module_at(i), ...)`` for each row, or
# ``mode="recalibrate"``, which recomputes the statistics from the data.

plt.show()
