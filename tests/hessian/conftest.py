import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.func import functional_call


def dense_hessian(module, loss, X, y):
    """The Hessian in float64, all rows at once: no code of skdmap."""
    parameters = {name: p.detach().double() for name, p in module.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]
    inputs = torch.as_tensor(X).double()
    targets = torch.as_tensor(y)

    def value(theta):
        parts = zip(parameters.items(), theta.split(sizes), strict=True)
        state = {name: part.view(p.shape) for (name, p), part in parts}
        return loss(functional_call(module, state, (inputs,)), targets)

    theta = torch.cat([p.reshape(-1) for p in parameters.values()]).requires_grad_()
    (gradient,) = torch.autograd.grad(value(theta), theta, create_graph=True)
    units = torch.eye(len(theta), dtype=theta.dtype)
    rows = [torch.autograd.grad(gradient, theta, e, retain_graph=True)[0] for e in units]
    return torch.stack(rows).numpy()


@pytest.fixture(scope="session")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


@pytest.fixture(scope="session")
def trained(digits):
    """A 64-32-10 MLP after 15 epochs of SGD; not to be changed by a test."""
    X, y = (torch.from_numpy(part) for part in digits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
        )
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for _ in range(15):
            for rows in torch.randperm(len(X)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
                optimizer.step()
    return module


@pytest.fixture(scope="session")
def true_eigenvalues(trained, digits):
    """All eigenvalues of the trained MLP's Hessian, descending."""
    hessian = dense_hessian(trained, torch.nn.functional.cross_entropy, *digits)
    return np.linalg.eigvalsh((hessian + hessian.T) / 2)[::-1]
