"""The one place where ``random_state`` becomes numpy and torch generators."""

from typing import Any

import numpy as np

__all__ = ["numpy_generator"]


def numpy_generator(random_state: Any) -> np.random.Generator:
    """Return a numpy Generator for scikit-learn's ``random_state``.

    Parameters
    ----------
    random_state : int, RandomState instance, Generator or None
        An integer gives the same generator each time. A RandomState is advanced by one draw. None
        takes fresh entropy from the operating system: the global generator is not touched.

    Returns
    -------
    Generator
        A generator of its own, or the Generator passed in.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)
