"""In equilibrium on a quadratic, the slow rates of a diffusion map are Hessian eigenvalues.

Langevin dynamics dx = -H x dt + sqrt(2) dW has the stationary distribution N(0, H^-1), and its
generator the eigenvalue h_i with the eigenfunction x_i, for each Hessian eigenvalue h_i. A map with
alpha = 1/2 sees the cloud of points only and has to find both. SGD is such a process once its noise
is whitened: where the noise covariance is proportional to H, the cloud in weight space is round and
holds no rates at all.
"""

import numpy as np
import pytest
import torch

from skdmap import DiffusionMap, EmpiricalRisk, HessianSpectrum, TrajectorySampler
from skdmap.datasets import make_ornstein_uhlenbeck
from skdmap.exceptions import LocalizedCoordinateWarning

# Stragglers in the tails may carry a coordinate among the ten; participation_ leaves them out.
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LocalizedCoordinateWarning.__module__}.{LocalizedCoordinateWarning.__name__}"
)
N_ROWS = 5000


def rates_of_the_two_slowest(points, spectrum):
    """Return (found, expected) rates, nan where no coordinate matches a direction.

    Points have unit noise along all directions; ``spectrum`` is a HessianSpectrum fitted with
    which="smallest", so that its components are the two slowest directions.
    """
    found = np.full(2, np.nan)
    mapping = DiffusionMap(10, bandwidth="auto", alpha=0.5, diffusion_time=0, random_state=0).fit(
        points
    )
    positions = points @ spectrum.components_.T
    for i, position in enumerate(positions.T):
        likeness = np.abs(np.corrcoef(position, mapping.embedding_.T)[0, 1:])
        best = int(np.argmax(likeness))
        if likeness[best] >= 0.9 and mapping.participation_[best] >= 0.05:
            found[i] = mapping.laplacian_eigenvalues_[best]
    return found, spectrum.eigenvalues_


def quadratic_spectrum(precision):
    matrix = torch.as_tensor(precision)
    loss = HessianSpectrum(
        lambda theta: theta @ matrix @ theta / 2, n_components=2, which="smallest", random_state=0
    )
    return loss.fit(np.zeros((1, len(precision))))


def turned(eigenvalues, seed):
    """Return a symmetric matrix with these eigenvalues whose eigenvectors are no axes."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((len(eigenvalues),) * 2))[0]
    matrix = basis * np.asarray(eigenvalues) @ basis.T
    return (matrix + matrix.T) / 2


def agrees(eigenvalues, seed):
    precision = turned(eigenvalues, seed)
    # Points a unit of time apart: a path, of which every fifth point is nearly independent.
    path = make_ornstein_uhlenbeck(N_ROWS, precision=precision, time_step=1.0, random_state=seed)
    spectrum = quadratic_spectrum(precision)
    np.testing.assert_allclose(spectrum.eigenvalues_, sorted(eigenvalues)[:2], rtol=1e-6)
    found, expected = rates_of_the_two_slowest(path.X, spectrum)
    return bool(np.all(np.abs(found / expected - 1) <= 0.15))


def test_langevin_dynamics_on_one_quadratic():
    assert agrees((1.0, 1.5), 0)


@pytest.mark.slow
def test_langevin_dynamics_on_ten_spectrum_seed_pairs():
    # Nine of ten were found when this was written; the tenth had a straggler ahead of a mode.
    hits = [agrees(values, seed) for values in ((1.0, 1.5), (1.0, 1.5, 4.0)) for seed in range(5)]
    assert sum(hits) >= 7, hits


@pytest.fixture(scope="module")
def regression():
    """A linear regression whose Hessian 2 X'X / N has the eigenvalues 1 and 1.5, and its noise."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((16_384, 3)))[0]
    basis -= basis.mean(axis=0)
    directions = np.linalg.qr(basis[:, :2])[0]
    X = directions * np.sqrt(16_384 / 2) @ np.linalg.cholesky(turned((1.0, 1.5), 3)).T
    y = X @ np.array([0.5, -1.0]) + rng.standard_normal(16_384)
    return X, y


def sgd_in_equilibrium(X, y, *, learning_rate, batch_size):
    sampler = TrajectorySampler(
        torch.nn.Linear,
        torch.nn.MSELoss(),
        "SGD",
        module_params={"in_features": 2, "out_features": 1, "bias": False},
        optimizer_params={"lr": learning_rate},
        batch_size=batch_size,
        max_epochs=10_000,
        max_steps=20 * (N_ROWS + 50),
        burn_in=1000,
        record_every=20,
        dtype="float64",
        random_state=0,
    )
    return sampler.fit(X, y).snapshots_[:N_ROWS]


@pytest.mark.slow
def test_sgd_in_equilibrium_on_a_linear_regression(regression):
    X, y = regression
    # Noise of single rows has tails, which make stragglers; that of eight is nearer to Gaussian. An
    # epoch, over which the noise adds up to nothing, is a hundred relaxation times long.
    learning_rate, batch_size = 0.05, 8
    rows = sgd_in_equilibrium(X, y, learning_rate=learning_rate, batch_size=batch_size)
    risk = EmpiricalRisk(
        torch.nn.Linear(2, 1, bias=False).double(), torch.nn.MSELoss(), X, y[:, None]
    )
    optimum = np.linalg.lstsq(X, y, rcond=None)[0]
    spectrum = HessianSpectrum(risk, n_components=2, which="smallest", point=optimum)
    spectrum.fit(rows)
    np.testing.assert_allclose(spectrum.eigenvalues_, [1.0, 1.5], rtol=1e-4)

    # Covariance C of the gradient of a single row, averaged over where the iterates are: away from
    # the optimum residuals, and so the noise, are larger. In units where the noise is that of
    # Langevin dynamics, theta = (lr / 2B)^(1/2) C^(1/2) z, z follows dz = -C^-1/2 H C^1/2 z dt.
    residuals = rows[::10] @ X.T - y
    squared = np.mean(residuals**2, axis=0)
    mean_gradients = 2 * residuals @ X / len(X)
    noise = 4 * (X * squared[:, None]).T @ X / len(X)
    noise -= mean_gradients.T @ mean_gradients / len(mean_gradients)
    values, vectors = np.linalg.eigh(noise)
    whiten = vectors / np.sqrt(values) @ vectors.T
    z = (rows - rows.mean(axis=0)) @ whiten * np.sqrt(2 * batch_size / learning_rate)

    # C is close to proportional to H: the drift stays symmetric, with the Hessian's own directions.
    found, expected = rates_of_the_two_slowest(z, spectrum)
    assert np.all(np.abs(found / expected - 1) <= 0.15), (found, expected)
    # In weight space the cloud is round: lr C / 2BH is the same in both directions, not 1.5 apart.
    covariance = np.linalg.eigvalsh(np.cov(rows.T))
    assert covariance[1] / covariance[0] < 1.2
