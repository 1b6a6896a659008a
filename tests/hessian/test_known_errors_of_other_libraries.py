"""Numbers that other libraries give wrong without a word, and that are right here.

Each test says first by how much the wrong way would be off, so that it cannot pass by itself.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from skdmap import EmpiricalRisk, HessianSpectrum, hessian_spectrum_path
from skdmap.hessian import lanczos

N, D, C = 50, 6, 3
WEIGHT = torch.tensor([1.0, 5.0, 25.0])
SPECTRUM = np.r_[np.linspace(-0.5, 0.5, 400) ** 3, 5.0, -4.0, 2.0, 1.0]


@pytest.fixture(scope="module")
def data():
    """Sorted by class, so that batches hold classes of very different weight."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), np.sort(rng.integers(0, C, N))


def mlp(*between):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(D, 8), *between, nn.Tanh(), nn.Linear(8, C)).double()


def eigenvalues_of(module, criterion, X, y):
    """All eigenvalues, descending; no code of skdmap."""
    names, shapes = zip(*((n, p.shape) for n, p in module.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(theta):
        parts = [v.view(s) for v, s in zip(theta.split(sizes), shapes, strict=True)]
        state = dict(zip(names, parts, strict=True))
        return criterion(functional_call(module, state, (torch.as_tensor(X),)), torch.as_tensor(y))

    theta = nn.utils.parameters_to_vector(module.parameters()).detach()
    return np.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta).numpy())[::-1]


def top_of(risk, k=5, **settings):
    settings = {"tol": 1e-6, "random_state": 0} | settings
    return HessianSpectrum(risk, k, **settings).fit(risk.snapshot()).eigenvalues_


def mean_over_batches(criterion, X, y, size):
    """The top eigenvalue of what averages batch losses equally."""

    def loss(output, target):
        batches = zip(output.split(size), target.split(size), strict=True)
        return torch.stack([criterion(o, t) for o, t in batches]).mean()

    return eigenvalues_of(mlp(), loss, X, y)[0]


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("kind", ["module", "function"])
def test_unequal_batches_and_class_weights_are_weighed_as_the_criterion_does(data, weight, kind):
    """hessian-eigenthings averages batches equally; curvlinops counts rows, and wants a module."""
    X, y = data
    criterion = nn.CrossEntropyLoss(weight if weight is None else weight.double())
    true = eigenvalues_of(mlp(), criterion, X, y)
    assert abs(mean_over_batches(criterion, X, y, 24) / true[0] - 1) > 0.01
    if kind == "function":
        given = weight if weight is None else weight.double()
        sizes = [N, 24] if weight is None else [N]  # an unknown criterion: counted by rows
        risks = [
            EmpiricalRisk(
                mlp(), lambda z, t: F.cross_entropy(z, t, weight=given), X, y, batch_size=size
            )
            for size in sizes
        ]
    else:
        risks = [EmpiricalRisk(mlp(), criterion, X, y, batch_size=size) for size in (N, 24, 7)]
    for risk in risks:
        np.testing.assert_allclose(top_of(risk), true[:5], rtol=1e-8)


def test_a_function_that_weighs_classes_is_refused_in_batches_instead_of_being_wrong(data):
    X, y = data

    def weighted(output, target):
        return F.cross_entropy(output, target, weight=WEIGHT.double())

    with pytest.raises(ValueError, match="batch_size=None"):
        EmpiricalRisk(mlp(), weighted, X, y, batch_size=24)


def test_gauss_newton_over_batches_has_the_class_weights_of_the_whole(data):
    X, y = data
    criterion = nn.CrossEntropyLoss(WEIGHT.double())
    whole, parts = (EmpiricalRisk(mlp(), criterion, X, y, batch_size=size) for size in (None, 24))
    found = top_of(parts, curvature="ggn")
    np.testing.assert_allclose(found, top_of(whole, curvature="ggn"), rtol=1e-8)
    linear = nn.Linear(D, C).double()  # where it is the Hessian
    risk = EmpiricalRisk(linear, criterion, X, y, batch_size=24)
    true = eigenvalues_of(linear, criterion, X, y)
    np.testing.assert_allclose(top_of(risk, curvature="ggn"), true[:5], rtol=1e-8)


def quadratic(theta):
    return (torch.as_tensor(SPECTRUM) * theta**2).sum() / 2


def test_signs_and_sizes_are_those_of_the_matrix():
    """Power iteration with momentum b gives lambda - b, and deflated the wrong sign at times."""
    spectrum = HessianSpectrum(quadratic, 4, which="magnitude", tol=1e-8, random_state=0)
    found = spectrum.fit(np.zeros((1, len(SPECTRUM)))).eigenvalues_
    np.testing.assert_allclose(found, [5.0, -4.0, 2.0, 1.0], rtol=1e-12)


def test_thirty_eigenvalues_are_thirty_and_not_copies_of_the_first():
    spectrum = np.r_[np.geomspace(10, 0.1, 40), np.linspace(-0.01, 0.01, 500)]

    def loss(theta):
        return (torch.as_tensor(spectrum) * theta**2).sum() / 2

    for seed in range(3):
        model = HessianSpectrum(loss, 30, tol=1e-8, random_state=seed)
        found = model.fit(np.zeros((1, len(spectrum))))
        np.testing.assert_allclose(found.eigenvalues_, spectrum[:30], rtol=1e-10)
        assert found.converged_.all()
        assert found.orthogonality_error_ < 1e-13


def test_quadrature_weights_are_first_components_of_the_tridiagonals_eigenvectors():
    """landscaper takes others, which sum to 1 as well."""
    found = lanczos(
        lambda v: SPECTRUM * v, len(SPECTRUM), n_pairs=2, rng=np.random.default_rng(0), tol=1e-2
    ).quadrature
    m = found.n_exact
    # A Lanczos run of its own, orthogonalised against all before.
    basis, diagonal, beside = [found.start], [], []
    for _ in range(m):
        image = SPECTRUM * basis[-1]
        diagonal.append(basis[-1] @ image)
        for _ in range(2):
            image = image - np.array(basis).T @ (np.array(basis) @ image)
        beside.append(np.linalg.norm(image))
        basis.append(image / beside[-1])
    T = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    nodes, vectors = np.linalg.eigh(T)
    powers = np.arange(2 * m)  # exact to degree 2 m - 1
    moments = np.array([found.start @ (SPECTRUM**p * found.start) for p in powers])
    np.testing.assert_allclose(vectors[0] ** 2 @ nodes[:, None] ** powers, moments, rtol=1e-9)
    given = found.weights @ found.nodes[:, None] ** powers
    np.testing.assert_allclose(given, moments, rtol=1e-9)
    wrong = vectors[:, 0] ** 2 @ nodes[:, None] ** powers
    assert wrong[0] == pytest.approx(1)
    assert abs(wrong[2] / moments[2] - 1) > 0.1


def test_the_density_has_the_moments_of_a_known_spectrum():
    """PyHessian's raises on a current torch."""
    size = len(SPECTRUM)
    model = HessianSpectrum(quadratic, 4, which="magnitude", n_probes=20, random_state=0)
    density = model.fit(np.zeros((1, size))).density_
    assert density.weights.sum() == pytest.approx(1.0, rel=1e-12)
    # Probes are samples: of the mean within 5 standard errors, of squares within 5 / sqrt(20) of
    # the share that is not in the atoms.
    mean = density.weights @ density.nodes
    assert mean == pytest.approx(SPECTRUM.mean(), abs=5 * model.trace_stderr_ / size)
    rest = np.mean(SPECTRUM[:400] ** 2) * 400 / size
    square = density.weights @ density.nodes**2
    assert square == pytest.approx(np.mean(SPECTRUM**2), abs=rest)
    assert density.cdf(-3.9) == pytest.approx(1 / size, rel=1e-9)
    assert density.cdf(0.5) == pytest.approx(1 - 3 / size, rel=1e-9)


def test_a_negative_trace_does_not_end_the_probes_early():
    """PyHessian's stopping rule compares with the trace, and a negative one is always below."""
    spectrum = -np.abs(SPECTRUM) - 0.1

    def loss(theta):
        return (torch.as_tensor(spectrum) * theta**2).sum() / 2

    few, many = (
        HessianSpectrum(loss, 2, which="smallest", n_probes=n, random_state=0).fit(
            np.zeros((1, len(spectrum)))
        )
        for n in (2, 20)
    )
    assert many.n_matvecs_ > 5 * few.n_matvecs_
    assert many.trace_ == pytest.approx(spectrum.sum(), abs=5 * many.trace_stderr_)
    assert many.trace_ < 0 < many.trace_stderr_


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_fit_leaves_the_module_as_it_was(data, mode, curvature):
    """Others move BatchNorm's statistics, leave eval mode behind, or graphs in ``.grad``."""
    module = mlp(nn.BatchNorm1d(8), nn.Dropout(0.3)).train()
    before = copy.deepcopy(module.state_dict())
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, mode=mode)
    HessianSpectrum(risk, 3, curvature=curvature, n_probes=3, random_state=0).fit(risk.snapshot())
    hessian_spectrum_path(risk, risk.snapshot(), 2, curvature=curvature, random_state=0)
    assert all(part.training for part in module.modules())
    assert all(p.grad is None and p.grad_fn is None for p in module.parameters())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    # What a forward pass of its own would have changed.
    module(torch.as_tensor(data[0]))
    assert not torch.equal(before["1.running_mean"], module.state_dict()["1.running_mean"])


def test_a_gradient_that_was_there_stays_and_holds_no_graph(data):
    module = mlp()
    F.cross_entropy(module(torch.as_tensor(data[0])), torch.as_tensor(data[1])).backward()
    before = [p.grad.clone() for p in module.parameters()]
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *data, batch_size=7)
    HessianSpectrum(risk, 3, random_state=0).fit(risk.snapshot())
    for old, parameter in zip(before, module.parameters(), strict=True):
        assert torch.equal(old, parameter.grad)
        assert parameter.grad.grad_fn is None
