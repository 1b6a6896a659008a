"""The network that TrajectorySampler trains where module=None."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from skdmap._argument_checks import is_integer


def make_mlp(n_features: int, n_outputs: int, hidden: int | Sequence[int] = (32,)) -> nn.Sequential:
    """Return a multilayer perceptron: linear layers with tanh between them.

    With tanh the loss is twice differentiable everywhere, so its Hessian exists at each snapshot.
    The output is linear: logits for cross-entropy, predictions for the squared error.

    Parameters
    ----------
    n_features : int
        Number of columns of X.
    n_outputs : int
        Number of classes, or of predicted values.
    hidden : int or sequence of int, default=(32,)
        Widths of the hidden layers. An empty sequence gives a linear model.

    Returns
    -------
    torch.nn.Sequential
        With torch's default initialisation, drawn from torch's global generator.

    Raises
    ------
    ValueError
        If a width is not an integer >= 1.

    See Also
    --------
    TrajectorySampler : Trains it when ``module=None``.

    Examples
    --------
    >>> from skdmap import make_mlp
    >>> module = make_mlp(64, 10)
    >>> [tuple(p.shape) for p in module.parameters()]
    [(32, 64), (32,), (10, 32), (10,)]
    """
    inner = tuple(hidden) if isinstance(hidden, Sequence) else (hidden,)
    named = [
        ("n_features", n_features),
        ("n_outputs", n_outputs),
        *(("hidden", width) for width in inner),
    ]
    for name, width in named:
        if not is_integer(width) or width < 1:
            raise ValueError(f"{name}: a width of {width!r} must be an integer >= 1.")
    widths = (n_features, *inner, n_outputs)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(int(n_in), int(n_out)), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
