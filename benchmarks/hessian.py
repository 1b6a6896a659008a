"""The Hessian leg beside its peers: ``python benchmarks/hessian.py [CASE ...] [--repeats 5]``.

Peers, best in an environment of their own: ``pip install curvlinops-for-pytorch pyhessian
"hessian-eigenthings>=1.0.0a5" --pre``, and skdmap beside them.

Cases: ``H1 W=...``, the ten largest eigenvalues of a trained MLP on digits; ``H2``, those of a
convolutional network of a million parameters; ``H3 k=...``, fifty snapshots of a run; ``chunks``,
one product of other networks on one thread, beside that with the best number of chunks.

"skdmap" is a fit with defaults: eigenpairs, a bound on what was missed, trace and density;
"n_verify=1" leaves the verification out, which no peer has. hessian-eigenthings takes a number of
steps: in H1 the fewest, found by hand, that reach 1e-3. Making the loss and its self-checks are
timed apart ("start"). Accuracy: the largest residual over the largest eigenvalue, computed anew
from the vectors that a library gives, and the largest error of an eigenvalue against skdmap at a
residual of 1e-6; 1e-3 is asked of everybody. Every library gets one batch of all rows in H1,
batches of 100 in H2, and makes one product before it is timed.
"""

import copy
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from harness import is_installed, main, timed

K = 10


def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def trained_mlp(width, epochs=15):
    import torch

    X, y = (torch.from_numpy(part) for part in digits())
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(64, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 10),
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
    return module, *digits()


def convolutional():
    """A residual network of 1.0 million parameters on 1,000 images of 16 x 16, a few steps in."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.way = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.Softplus(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )

        def forward(self, x):
            return nn.functional.softplus(x + self.way(x))

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, stride=2),
        Block(32),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        Block(64),
        nn.Conv2d(64, 192, 3, padding=1, stride=2),
        Block(192),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(192, 10),
    )
    X, y = digits()
    images = np.kron(X[:1000].reshape(-1, 1, 8, 8), np.ones((2, 2), dtype=np.float32))
    rows, labels = torch.from_numpy(images), torch.from_numpy(y[:1000])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        for batch in torch.randperm(1000).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(rows[batch]), labels[batch]).backward()
            optimizer.step()
    return module, images, y[:1000]


def risk_of(problem, **settings):
    import torch

    from skdmap import EmpiricalRisk

    module, X, y = problem
    return EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, y, **settings)


def truth(problem):
    """Return the ten largest eigenvalues at a residual of 1e-6; not timed."""
    from skdmap import HessianSpectrum

    risk = risk_of(problem, dtype="float64")
    return HessianSpectrum(risk, K, tol=1e-6, random_state=1).fit(risk.snapshot()).eigenvalues_


def judged(problem, values, vectors, *, exact=True):
    """Return residuals and errors in words; vectors (k, n_parameters) in the order of layout."""
    order = np.argsort(-np.asarray(values))
    values, vectors = np.asarray(values)[order], np.asarray(vectors, dtype=np.float64)[order]
    risk = risk_of(problem)
    products = risk.matmat(risk.snapshot()[0], vectors.T).T
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    residuals = np.linalg.norm(products - values[:, None] * vectors, axis=1) / values[0]
    words = f"residual {residuals.max():.0e}"
    if exact:
        words += f", error {np.abs(values - truth(problem)).max() / values[0]:.0e}"
    return words


def ours(make, batch_size=None, **settings):
    from skdmap import HessianSpectrum

    problem = make()
    begin = time.process_time()
    risk = risk_of(problem, batch_size=batch_size)
    start = time.process_time() - begin
    X = risk.snapshot()
    risk.hvp(X[0], X[0])
    base = resident()
    fitted, times = timed(lambda: HessianSpectrum(risk, K, random_state=0, **settings).fit(X))
    rise = peak() - base
    words = judged(problem, fitted.eigenvalues_, fitted.components_, exact=batch_size is None)
    words += f", {fitted.n_matvecs_} products, start {start:.2f} s, rise {rise:.0f} MB"
    return times | {"accuracy": words}


def floor(make, batch_size=None):
    """What no Lanczos method on these graphs can beat, as a time.

    The products after which ten residuals are first within 1e-3, known only afterwards, each
    torch's second backward pass through kept graphs in chunks that suit the cache; no orthogonal
    basis, no sums in double precision, no look whether something was skipped.
    """
    import torch

    from skdmap import HessianSpectrum

    problem = make()
    module, X, _ = problem
    risk = risk_of(problem, batch_size=batch_size)
    first = []

    def look(n_matvecs, values, residuals):
        if len(values) == K and residuals.max() <= 1e-3 * values[0]:
            first.append(n_matvecs)

    HessianSpectrum(risk, K, random_state=0, callback=look).fit(risk.snapshot())
    parameters = list(module.parameters())
    graphs = [
        torch.autograd.grad(
            torch.nn.functional.cross_entropy(module(rows), labels), parameters, create_graph=True
        )
        for rows, labels in batches(problem, -(-len(X) // 4) if batch_size is None else batch_size)
    ]
    v = [torch.randn_like(part) for part in parameters]

    def products(n):
        for _ in range(n):
            for graph in graphs:
                torch.autograd.grad(graph, parameters, v, retain_graph=True)

    products(1)
    _, times = timed(lambda: products(first[0]))
    return times | {"accuracy": f"{first[0]} products and nothing else"}


def resident():
    import os

    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batches(problem, size):
    import torch

    _, X, y = problem
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    size = len(rows) if size is None else size
    return [(rows[i : i + size], labels[i : i + size]) for i in range(0, len(rows), size)]


def curvlinops_eigsh(make, batch_size=None):
    import torch
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    problem = make()
    module = problem[0]
    parameters = list(module.parameters())
    base = resident()
    operator = HessianLinearOperator(
        module,
        torch.nn.CrossEntropyLoss(),
        parameters,
        batches(problem, batch_size),
        check_deterministic=False,
    ).to_scipy(dtype=np.float64)
    operator @ np.ones(operator.shape[0])
    (values, vectors), times = timed(lambda: eigsh(operator, k=K, which="LA", tol=1e-3))
    rise = peak() - base
    words = judged(problem, values, vectors.T, exact=batch_size is None) + f", rise {rise:.0f} MB"
    return times | {"accuracy": words}


def eigenthings(make, batch_size=None, max_iter=24):
    import torch
    from hessian_eigenthings import HessianOperator, lanczos

    problem = make()
    module = problem[0]
    base = resident()
    operator = HessianOperator(
        module,
        batches(problem, batch_size),
        lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
    )
    operator.matvec(torch.ones(operator.size))
    found, times = timed(
        lambda: lanczos(operator, k=K, max_iter=max_iter, which="LA", tol=1e-3, seed=0)
    )
    rise = peak() - base
    vectors = found.eigenvectors.numpy()
    vectors = vectors if vectors.shape[0] == K else vectors.T
    words = judged(problem, found.eigenvalues.numpy(), vectors, exact=batch_size is None)
    return times | {"accuracy": words + f", rise {rise:.0f} MB"}


def pyhessian(make):
    import torch
    from pyhessian import hessian

    problem = make()
    module = copy.deepcopy(problem[0])
    torch.manual_seed(0)

    def work():
        found = hessian(
            module, torch.nn.CrossEntropyLoss(), data=batches(problem, None)[0], cuda=False
        )
        return found.eigenvalues(maxIter=400, tol=1e-6, top_n=K)

    (values, vectors), times = timed(work)
    flat = np.array([torch.cat([part.reshape(-1) for part in v]).numpy() for v in vectors])
    return times | {"accuracy": judged(problem, values, flat)}


def run_of_fifty():
    """A risk, and fifty snapshots of SGD on digits, ten steps apart, from the first epoch on."""
    import torch

    module, X, y = trained_mlp(32, epochs=0)
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    snapshots, left = [], []
    for step in range(29 + 500):
        left = left or list(torch.randperm(len(rows)).split(64))
        batch = left.pop()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(rows[batch]), labels[batch]).backward()
        optimizer.step()
        if step >= 29 and (step - 29) % 10 == 0:
            flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
            snapshots.append(flat.numpy())
    return risk_of((module, X, y)), np.array(snapshots)


def path(k, tol):
    from skdmap import hessian_spectrum_path

    risk, snapshots = run_of_fifty()
    risk.hvp(snapshots[0], snapshots[0])
    found, times = timed(lambda: hessian_spectrum_path(risk, snapshots, k, tol=tol, random_state=0))
    words = f"{found.n_matvecs.sum()} products, all converged: {found.converged.all()}"
    return times | {"accuracy": words}


def separate(k, tol):
    from skdmap import HessianSpectrum

    risk, snapshots = run_of_fifty()
    risk.hvp(snapshots[0], snapshots[0])

    def work():
        return sum(
            HessianSpectrum(risk, k, tol=tol, point=i, random_state=i).fit(snapshots).n_matvecs_
            for i in range(len(snapshots))
        )

    n_matvecs, times = timed(work)
    return times | {"accuracy": f"{n_matvecs} products"}


def lstm():
    import torch
    from torch import nn

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x):
            return self.out(self.lstm(x)[0][:, -1])

    return Last(), torch.randn(1000, 30, 8), torch.arange(1000) % 4


def deep():
    import torch
    from torch import nn

    layers = [part for _ in range(20) for part in (nn.Linear(32, 32), nn.Tanh())]
    module = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), *layers, nn.Linear(32, 3))
    return module, torch.randn(2000, 10), torch.arange(2000) % 3


def small_cnn():
    import torch
    from torch import nn

    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.Softplus(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    return module, torch.randn(1000, 1, 16, 16), torch.arange(1000) % 10


def bert():
    """Two layers of an encoder on sentences of 32 tokens, with a class for each sentence."""
    import torch
    from torch import nn

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(500, 64), nn.Embedding(32, 64)
            layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)
            self.out = nn.Linear(64, 2)

        def forward(self, x):
            places = self.places(torch.arange(x.shape[1]))
            return self.out(self.encoder(self.tokens(x) + places)[:, 0])

    return Bert(), torch.randint(0, 500, (512, 32)), torch.arange(512) % 2


def mlp(width, n_rows):
    import torch
    from torch import nn

    module = nn.Sequential(
        nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)
    )
    return module, torch.randn(n_rows, 64), torch.arange(n_rows) % 10


CHUNKED = {
    "MLP 128": lambda: mlp(128, 1797),
    "MLP 32, 20,000 samples": lambda: mlp(32, 20_000),
    "22 layers": deep,
    "CNN": small_cnn,
    "small BERT": bert,
    "LSTM of 30 steps": lstm,
}


def one_product(make):
    """One product with skdmap's chunks, beside all samples in 1, 2, ..., 16 chunks, in turn."""
    import torch

    from skdmap import EmpiricalRisk
    from skdmap._threads import one_thread

    torch.manual_seed(0)
    module, X, y = make()
    operators = {}
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        for n_chunks in (None, 1, 2, 3, 4, 6, 8, 12, 16):
            size = None if n_chunks is None else -(-len(X) // n_chunks)
            risk = EmpiricalRisk(module, torch.nn.CrossEntropyLoss(), X, y, batch_size=size)
            if size is not None:  # not to be cut again
                risk._chunking = replace(risk._chunking, divisible=False)
            operators[n_chunks] = stack.enter_context(risk.operator_at(risk.snapshot()[0]))
        v = np.random.default_rng(0).standard_normal(risk.n_parameters)
        for operator in operators.values():
            operator(v)
        runs = [
            {n: timed(lambda: operator(v))[1] for n, operator in operators.items()}  # noqa: B023
            for _ in range(5)
        ]
        ratios = {
            n: float(np.median([run[n]["cpu"] / run[None]["cpu"] for run in runs]))
            for n in operators
        }
        own = operators[None].n_chunks
    best = min((n for n in ratios if n is not None), key=ratios.get)
    times = {key: float(np.median([run[None][key] for run in runs])) for key in ("seconds", "cpu")}
    words = f"{own} chunks, {1 / ratios[best]:.2f} x the time with the best number, {best}"
    return times | {"accuracy": words}


def _cases():
    cases = {}
    for width, n_steps in ((128, 26), (512, 22)):
        make = lambda width=width: trained_mlp(width)  # noqa: E731
        cases[f"H1 W={width}"] = {
            "skdmap": lambda make=make: ours(make),
            "skdmap, n_verify=1": lambda make=make: ours(make, n_verify=1),
            "floor": lambda make=make: floor(make),
            "hessian_eigenthings": lambda make=make, n=n_steps: eigenthings(make, max_iter=n),
            "curvlinops": lambda make=make: curvlinops_eigsh(make),
            "pyhessian": lambda make=make: pyhessian(make),
        }
    cases["H2"] = {
        "skdmap": lambda: ours(convolutional, batch_size=100),
        "skdmap, n_verify=1": lambda: ours(convolutional, batch_size=100, n_verify=1),
        "skdmap, 500 MB": lambda: ours(convolutional, batch_size=100, memory_budget=500 * 10**6),
        "floor": lambda: floor(convolutional, batch_size=100),
        "hessian_eigenthings": lambda: eigenthings(convolutional, batch_size=100, max_iter=32),
        "curvlinops": lambda: curvlinops_eigsh(convolutional, batch_size=100),
    }
    for name, make in CHUNKED.items():
        cases[f"chunks, {name}"] = {"skdmap": lambda make=make: one_product(make)}
    for k, tol in ((1, 1e-3), (1, 1e-2), (5, 1e-3)):
        cases[f"H3 k={k} tol={tol:g}"] = {
            "path": lambda k=k, tol=tol: path(k, tol),
            "separate": lambda k=k, tol=tol: separate(k, tol),
        }
    return cases


_NEEDS = {"hessian_eigenthings": "hessian_eigenthings", "curvlinops": "curvlinops"}
_NEEDS["pyhessian"] = "pyhessian"
CASES = {
    case: {
        name: run
        for name, run in contenders.items()
        if name not in _NEEDS or is_installed(_NEEDS[name])
    }
    for case, contenders in _cases().items()
}

if __name__ == "__main__":
    sys.path.insert(0, ".")  # skdmap as it lies here, where it is not installed
    main(__file__, CASES)
