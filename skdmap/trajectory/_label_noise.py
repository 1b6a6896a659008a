"""Targets with noise, drawn once before training."""

import numpy as np

from skdmap._validation import InvalidParameterError
from skdmap.trajectory._targets import Targets

__all__ = ["noisy_targets"]


def noisy_targets(targets: Targets, label_noise: float, seed: int) -> np.ndarray:
    """Return the values of the targets with noise.

    Parameters
    ----------
    targets : Targets
        Codes of classes, or values.
    label_noise : float
        Classes: the share of rows, in [0, 1], whose label is replaced by another one, drawn
        uniformly; exactly round(share * n) rows, and never one of ``ignore_index``. Values:
        standard deviation of the Gaussian noise, in standard deviations of each column of y.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of the shape of ``targets.values``
        The values themselves where ``label_noise`` is 0; else a copy.

    Raises
    ------
    InvalidParameterError
        If the share is above 1, or there is no other label.

    Examples
    --------
    >>> import numpy as np
    >>> targets = Targets(np.zeros(10, dtype=np.int64), np.arange(3), 3)
    >>> int((noisy_targets(targets, 0.3, seed=0) != 0).sum())
    3
    """
    if label_noise == 0:
        return targets.values
    rng = np.random.default_rng(seed)
    if targets.classes is None:
        spread = targets.values.std(axis=0)
        return targets.values + label_noise * spread * rng.standard_normal(targets.values.shape)
    n_classes = len(targets.classes)
    if label_noise > 1:
        raise InvalidParameterError(
            f"label_noise={label_noise} must be a share in [0, 1] where y holds labels. Pass 0.1 "
            "to replace a tenth of them."
        )
    if n_classes < 2:
        raise InvalidParameterError(
            f"label_noise={label_noise} needs another label to put in place, and y holds "
            f"{n_classes}. Pass 0."
        )
    values = targets.values.copy()
    proper = np.flatnonzero((values >= 0) & (values < n_classes))
    chosen = rng.choice(proper, size=round(label_noise * len(proper)), replace=False)
    # A shift by 1 to n_classes - 1 reaches each other class alike.
    shifts = rng.integers(1, n_classes, size=len(chosen))
    values[chosen] = (values[chosen] + shifts) % n_classes
    return values
