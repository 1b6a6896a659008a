"""A vector as the user gave it -> a checked point, and the loss with the buffers of that point."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .._warning import warn
from ..exceptions import SkdmapWarning
from ._arrays import as_vectors
from ._group import Group
from ._modes import recalibrated
from ._module_loss import ModuleLoss

__all__ = ["loss_at"]


def loss_at(
    loss: ModuleLoss, theta: Any, mode: str, batches: Sequence[slice], group: Group
) -> tuple[ModuleLoss, torch.Tensor]:
    """Return the loss with the buffers of a point, and the point.

    Parameters
    ----------
    loss : ModuleLoss
        With the module's own buffers.
    theta : array or Tensor of shape (n_parameters,)
        The point.
    mode : {"eval", "recalibrate", "train"}
        Of the module.
    batches : sequence of slice
        Over which statistics are averaged.
    group : Group
        All of its ranks must give the same point.

    Returns
    -------
    loss : ModuleLoss
        The same, unless statistics are recalibrated.
    point : Tensor of shape (n_parameters,)
        In the dtype and on the device of the loss.

    Raises
    ------
    ValueError
        If the point has another shape, is not finite, or differs between ranks.
    """
    with group.together():
        point = _checked(loss, theta, mode)
    (apart,) = group.sums(float(_differs_from_first(point, group)))
    if apart:
        raise ValueError(
            "theta differs between the ranks of process_group. Broadcast it from one of them."
        )
    if mode != "recalibrate":
        return loss, point
    return replace(loss, buffers=recalibrated(loss, loss.parts(point), batches, group)), point


def _checked(loss: ModuleLoss, theta: Any, mode: str) -> torch.Tensor:
    own = loss.own_point()
    # A copy: a module may write into its parameters (torch.nn.Embedding with max_norm).
    point = as_vectors("theta", theta, (len(own),), own).clone()
    if not torch.isfinite(point).all():
        raise ValueError(
            "theta holds NaN or infinity. Take a snapshot from before training diverged."
        )
    if mode == "eval" and loss.has_running_statistics and not torch.equal(point, own):
        warn(
            "theta differs from the module's own parameters, but its running statistics "
            "(BatchNorm) fit those only: the loss may be far off. Build the EmpiricalRisk from "
            "module_at(i) of the trajectory, which holds the buffers of this snapshot, or set "
            "mode='recalibrate'.",
            SkdmapWarning,
        )
    return point


def _differs_from_first(point: torch.Tensor, group: Group) -> bool:
    if group.alone:
        return False
    mine = point.cpu().double().numpy()
    return not np.array_equal(group.first_rank(mine), mine)
