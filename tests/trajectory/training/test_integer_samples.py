"""Integer samples reach a module as integers where it looks rows of a table up, else as floats."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler, open_trajectory

RNG = np.random.default_rng(0)
TOKENS, Y = RNG.integers(0, 20, (48, 7)), RNG.integers(0, 3, 48)
ONE_TOO_LARGE = TOKENS.copy()
ONE_TOO_LARGE[40, 3] = 20


class Classifier(nn.Module):
    """An embedding, a recurrent layer, a linear one."""

    def __init__(self, n_tokens=20):
        super().__init__()
        self.embed = nn.Embedding(n_tokens, 4)
        self.lstm, self.out = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.out(self.lstm(self.embed(tokens))[0][:, -1])


class Table(nn.Module):
    """Looks rows up without an embedding layer."""

    def __init__(self, hashed=False):
        super().__init__()
        self.table, self.hashed = nn.Parameter(torch.randn(20, 3)), hashed

    def forward(self, x):
        rows = x.long() % 20 if self.hashed else x
        return self.table[rows].sum(1)


class Seen(nn.Module):
    """Notes the types that it is given."""

    types: set

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        Seen.types = set()

    def forward(self, x):
        if self.training:
            Seen.types.add(x.dtype)
        return self.inner(x)


def sampler(module, **params):
    settings = {"max_epochs": 2, "batch_size": 16, "random_state": 0, **params}
    return TrajectorySampler(module, **settings)


def by_hand(module, X, y, n_steps):
    """Full-batch gradient descent."""
    optimizer, rows = torch.optim.SGD(module.parameters(), lr=0.1), []
    for _ in range(n_steps + 1):
        rows.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy())
        loss = F.cross_entropy(module(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("make", [Classifier, Table])
def test_rows_are_those_of_a_loop_on_integers(make, dtype):
    torch.manual_seed(0)
    module = make()
    fitted = sampler(module, batch_size=None, max_epochs=4).fit(TOKENS.astype(dtype), Y)
    # The order within the batch changes sums by rounding.
    expected = by_hand(module, torch.tensor(TOKENS), torch.tensor(Y), 4)
    np.testing.assert_allclose(fitted.snapshots_, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("inner", "X", "dtype"),
    [
        (lambda: nn.Linear(7, 3), TOKENS, torch.float32),
        (lambda: nn.Linear(7, 3).double(), TOKENS, torch.float64),
        (lambda: nn.Linear(7, 3), TOKENS > 9, torch.float32),
        (lambda: nn.Linear(7, 3), TOKENS + 2**40, torch.float32),
        (lambda: nn.LazyLinear(3), TOKENS, torch.float32),
        (Classifier, TOKENS, torch.int64),
        (lambda: nn.Sequential(nn.EmbeddingBag(20, 3)), TOKENS, torch.int64),
        (Table, TOKENS, torch.int64),
        (lambda: Table(hashed=True), TOKENS, torch.float32),
        (lambda: Table(hashed=True), TOKENS + 2**40, torch.int64),
    ],
)
def test_the_type_that_a_module_is_given(inner, X, dtype):
    sampler(lambda: Seen(inner())).fit(X, Y)
    assert Seen.types == {dtype}


def test_whole_numbers_as_integers_or_floats_train_an_mlp_alike():
    whole = sampler(None).fit(TOKENS, Y)
    floats = sampler(None).fit(TOKENS.astype(float), Y)
    assert np.array_equal(whole.snapshots_, floats.snapshots_)
    pipeline = make_pipeline(StandardScaler(), sampler(None))
    assert pipeline.fit_transform(TOKENS, Y).shape == (7, 355)


def test_booleans_stay_booleans_where_only_they_are_taken():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.on, self.off = nn.Parameter(torch.ones(7, 3)), nn.Parameter(torch.zeros(7, 3))

        def forward(self, x):
            return torch.where(x[:, :, None], self.on, self.off).sum(1) + (~x).sum(1)[:, None]

    fitted = sampler(lambda: Seen(Masked())).fit(TOKENS > 9, Y)
    assert Seen.types == {torch.bool}
    assert np.isfinite(fitted.losses_).all()


@pytest.mark.parametrize("probe", [TOKENS[:5], TOKENS[:5].astype(float), TOKENS[:5].tolist()])
def test_outputs_of_integer_samples_are_recorded(probe):
    fitted = sampler(Classifier, record=("outputs", probe)).fit(TOKENS, Y)
    last = F.log_softmax(fitted.module_(torch.tensor(TOKENS[:5])), dim=1)
    np.testing.assert_allclose(fitted.snapshots_[-1], last.detach().reshape(-1), rtol=1e-5)


def test_noisy_labels_scores_passes_and_warm_starts_take_integers():
    fitted = sampler(Classifier, label_noise=0.2, warm_start=True).fit(TOKENS, Y)
    loss = F.cross_entropy(fitted.module_(torch.tensor(TOKENS)), torch.tensor(Y))
    assert fitted.score(TOKENS, Y) == pytest.approx(-loss.item(), rel=1e-5)
    n_rows = len(fitted.steps_)
    fitted.partial_fit(TOKENS, Y).fit(TOKENS, Y)
    assert fitted.steps_[-1] == 6 + 3 + 6
    assert len(fitted.steps_) == n_rows + 9


def test_runs_of_an_embedding_in_a_batch_are_those_one_by_one():
    def make():
        return nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(28, 3))

    one, batch = (
        sampler(make, n_runs=3, vectorize=v).fit(TOKENS, Y) for v in (False, True)
    )  # fmt: skip
    order = np.lexsort((batch.steps_, batch.run_ids_))
    np.testing.assert_allclose(batch.snapshots_[order], one.snapshots_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["SGD", "SparseAdam"])
def test_sparse_gradients_of_an_embedding_are_steps(optimizer):
    def make():
        return nn.Sequential(nn.EmbeddingBag(20, 3, sparse=True, mode="sum"))

    seen = []
    fitted = sampler(
        make, optimizer=optimizer, optimizer_params={"lr": 0.1}, callbacks=lambda *a: seen.append(a)
    ).fit(TOKENS, Y)
    assert len(seen) == len(fitted.steps_) == 7
    assert (np.diff(fitted.snapshots_, axis=0) != 0).any(1).all()


def test_resumed_integers_go_on_bit_for_bit(tmp_path):
    whole = sampler(Classifier, max_epochs=4).fit(TOKENS, Y)
    stop = {"callbacks": lambda step, *_: step == 5}
    sampler(Classifier, max_epochs=4, store=tmp_path / "a", **stop).fit(TOKENS, Y)
    rows = open_trajectory(tmp_path / "a").snapshots_
    assert np.array_equal(rows, whole.snapshots_[:6])


@pytest.mark.parametrize(
    ("module", "X", "message"),
    [
        (Classifier, TOKENS.astype(float), r"type float32.*takes integers: pass X.astype\(int\)"),
        (Classifier, ONE_TOO_LARGE, r"given as floats and as they are.*As torch.int64: index out"),
        (lambda: nn.Linear(6, 3), TOKENS, r"shape \(7,\).*As torch.float32: mat1 and mat2"),
    ],
)
def test_samples_that_a_module_does_not_take_are_named_with_the_way_out(module, X, message):
    with pytest.raises(ValueError, match=message):
        sampler(module).fit(X, Y)


def test_a_module_that_takes_derivatives_in_its_forward_is_trained_recorded_and_scored():
    class Forces(nn.Module):
        """Minus the gradient of an energy, as a network of it gives."""

        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            x = x.requires_grad_()
            return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]

    X = RNG.normal(size=(30, 3))
    fitted = sampler(Forces, criterion=nn.MSELoss(), record="outputs").fit(X, -X)
    assert fitted.snapshots_.shape == (5, 90)
    loss = F.mse_loss(fitted.module_(torch.tensor(X).float()), torch.tensor(-X).float())
    assert fitted.score(X, -X) == pytest.approx(-loss.item(), rel=1e-5)
