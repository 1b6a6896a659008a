"""make_mlp: layers, widths and their errors."""

from itertools import pairwise

import pytest
import torch

from skdmap import make_mlp


@pytest.mark.parametrize("hidden", [(), 7, (7,), [7, 5], (4, 3, 2)])
def test_mlp_has_linear_layers_of_the_widths_given(hidden):
    inner = [hidden] if isinstance(hidden, int) else list(hidden)
    widths = [6, *inner, 3]
    module = make_mlp(6, 3, hidden)
    n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
    assert sum(p.numel() for p in module.parameters()) == n_parameters
    assert module(torch.zeros(2, 6)).shape == (2, 3)


def test_mlp_without_hidden_layers_is_linear():
    module = make_mlp(4, 2, ()).double()
    a, b = torch.randn(2, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(module(a + b) + module(0 * a), module(a) + module(b), atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 2), "n_features.*0"), ((2, 0.5), "n_outputs.*0.5"), ((2, 2, (3, 0)), "hidden.*0")],
)
def test_mlp_names_a_bad_width(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mlp(*arguments)
