"""Cadences, observables, schedules, label noise, callbacks, warm start and runs together."""

import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from skdmap import Displacement, LogSpaced, TrajectorySampler, make_mlp
from skdmap._parameters import flatten_parameters, parameter_layout
from skdmap.trajectory._training.targets import Targets, noisy_targets

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "path_lengths_",
    "buffers_",
]  # fmt: skip


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
        )


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


def same(a, b, names=COLUMNS):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


def test_gradient_descent_on_a_quadratic_has_its_closed_form():
    """theta_t = (I - lr A)^t theta_0 for the loss theta' A theta / 2."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5)) / 3
    A = root @ root.T
    quadratic = torch.tensor(A)

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.randn(5, dtype=torch.float64))

        def forward(self, x):
            return self.theta.expand(len(x), -1)

    def criterion(outputs, _):
        return 0.5 * outputs[0] @ quadratic @ outputs[0]

    fitted = TrajectorySampler(
        Point, criterion, optimizer_params={"lr": 0.3}, max_epochs=None, max_steps=60,
        batch_size=None, dtype="float64", random_state=0,
    ).fit(np.zeros((3, 1)), np.zeros(3))  # fmt: skip
    theta = fitted.snapshots_[0]
    for t, row in enumerate(fitted.snapshots_):
        expected = np.linalg.matrix_power(np.eye(5) - 0.3 * A, t) @ theta
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-13)
        assert fitted.losses_[t] == pytest.approx(0.5 * row @ A @ row, rel=1e-12)


# cadences


@pytest.mark.parametrize("n", [2, 5, 8, 40])
def test_log_spaced_rows(blobs, n):
    every = sampler(max_epochs=10).fit(*blobs)
    spaced = sampler(max_epochs=10, record_every=LogSpaced(n)).fit(*blobs)
    steps = {round(30 ** (j / (n - 1))) for j in range(n)}
    assert spaced.steps_.tolist() == [0, *sorted(steps)]
    assert np.array_equal(spaced.snapshots_, every.snapshots_[spaced.steps_])
    assert np.array_equal(spaced.losses_, every.losses_[spaced.steps_])
    later = sampler(max_epochs=10, record_every=LogSpaced(n), burn_in=3).fit(*blobs)
    assert later.steps_.tolist() == [step for step in spaced.steps_ if step >= 3]


@pytest.mark.parametrize("along", ["line", "path"])
@pytest.mark.parametrize("burn_in", [0, 4])
def test_rows_come_when_the_displacement_is_reached(blobs, along, burn_in):
    """Found again from the rows of all steps, by the rule itself."""
    settings = {"max_epochs": 20, "dtype": "float64", "module": lambda: make_mlp(4, 3).double()}
    every = sampler(**settings).fit(*blobs)
    rows, last = every.snapshots_, len(every.steps_) - 1
    delta = 1.5 * np.linalg.norm(np.diff(rows, axis=0), axis=1).max()
    expected = [burn_in]
    for step in range(burn_in + 1, last + 1):
        since = rows[expected[-1] : step + 1]
        path = np.linalg.norm(np.diff(since, axis=0), axis=1).sum()
        line = np.linalg.norm(since[-1] - since[0])
        if (line if along == "line" else path) >= delta or step == last:
            expected.append(step)
    cadence = Displacement(delta, along=along)
    sparse = sampler(record_every=cadence, burn_in=burn_in, **settings).fit(*blobs)
    assert sparse.steps_.tolist() == expected
    assert 3 < len(expected) < last / 2
    assert np.array_equal(sparse.snapshots_, rows[expected])


@pytest.mark.parametrize("record_every", [1, 4, LogSpaced(5), Displacement(0.3)])
def test_path_lengths_count_the_steps_that_are_no_rows(blobs, record_every):
    every = sampler().fit(*blobs)
    fitted = sampler(record_every=record_every, n_runs=2).fit(*blobs)
    lengths = np.linalg.norm(np.diff(every.snapshots_.astype(float), axis=0), axis=1)
    steps = fitted.steps_[fitted.run_ids_ == 0]
    expected = [lengths[a:b].sum() for a, b in pairwise(steps)]
    own = fitted.path_lengths_[fitted.run_ids_ == 0]
    assert np.isnan(own[0])
    np.testing.assert_allclose(own[1:], expected, rtol=1e-5)
    assert np.isnan(fitted.path_lengths_).sum() == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogSpaced(1), "n=1 must be"),
        (lambda: LogSpaced(5, total=0), "total=0 must be"),
        (lambda: LogSpaced(5).steps(), r"LogSpaced\(5, total=10_000\)"),
        (lambda: Displacement(0.0), "delta=0.0 must be a finite number > 0"),
        (lambda: Displacement(float("nan")), "delta=nan"),
        (lambda: Displacement(1.0, along="arc"), "along='arc'"),
    ],
)
def test_a_bad_cadence_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# observables


@pytest.mark.parametrize("with_probe", [False, True])
def test_outputs_are_log_probabilities_on_the_rows_asked_for(blobs, with_probe):
    X, y = blobs
    probe = X[::7] + 0.5 if with_probe else X
    plain = sampler(module=Noisy).fit(X, y)
    record = ("outputs", probe) if with_probe else "outputs"
    seen = sampler(module=Noisy, record=record).fit(X, y)
    assert seen.snapshots_.shape == (10, 3 * len(probe))
    inputs = torch.tensor(probe, dtype=torch.float32)
    for i in range(10):
        with torch.no_grad():
            expected = torch.log_softmax(plain.module_at(i)(inputs), dim=1).reshape(-1).numpy()
        assert np.array_equal(seen.snapshots_[i], expected)
    # Looking draws from no stream and changes no buffer.
    assert same(seen, plain, [c for c in COLUMNS if c != "snapshots_"])
    with pytest.raises(ValueError, match="record is set"):
        seen.module_at(0)
    assert seen.get_feature_names_out().tolist()[-1] == f"trajectorysampler{3 * len(probe) - 1}"


def test_outputs_of_a_regression_are_predictions(blobs):
    X, y = blobs
    fitted = sampler(record="outputs").fit(X, y.astype(float))
    with torch.no_grad():
        expected = fitted.module_(torch.tensor(X, dtype=torch.float32)).reshape(-1).numpy()
    assert np.array_equal(fitted.snapshots_[-1], expected)


def test_a_function_says_what_a_row_is(blobs):
    def scale_of_layers(module):
        module(torch.randn(9, 4))  # draws, and changes the buffers of a module that trains
        return torch.stack([p.norm() for p in module.parameters()])

    plain = sampler(module=Noisy).fit(*blobs)
    seen = sampler(module=Noisy, record=scale_of_layers, n_runs=2).fit(*blobs)
    for i in (0, 4, 9):
        norms = [p.norm().item() for p in plain.module_at(i).parameters()]
        np.testing.assert_allclose(seen.snapshots_[i], norms, rtol=1e-6)
    own = seen.run_ids_ == 0
    for column in ("losses_", "buffers_", "path_lengths_"):
        a, b = getattr(seen, column)[own], getattr(plain, column)
        assert np.array_equal(a, b, equal_nan=True)


def test_a_batchnorm_network_has_its_loss_again(blobs):
    """Parameters and buffers of row i give the loss in eval mode that a callback saw there."""
    X, y = blobs
    inputs, labels = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    seen = {}

    def look(step, loss, module):
        with torch.no_grad():
            seen[step] = F.cross_entropy(module.eval()(inputs), labels).item()

    fitted = sampler(module=Noisy, callbacks=look).fit(X, y)
    assert same(fitted, sampler(module=Noisy).fit(X, y))
    n_parameters = sum(p.numel() for p in Noisy().parameters())
    assert fitted.snapshots_.shape == (10, n_parameters)
    assert fitted.buffers_.shape == (10, 6 + 6 + 1)
    for i, step in enumerate(fitted.steps_):
        with torch.no_grad():
            assert F.cross_entropy(fitted.module_at(i)(inputs), labels).item() == seen[step]
    assert len({fitted.buffers_[i, 0] for i in range(10)}) == 10


# schedules


def rates_by_hand(make, n_steps, per_pass, interval, lr=0.1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, used = make(optimizer), []
    for step in range(n_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if interval == "step" or (step + 1) % per_pass == 0:
            scheduler.step()
    return used


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("StepLR", {"step_size": 2, "gamma": 0.5}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 12}),
        ("LinearLR", {"start_factor": 0.1, "total_iters": 4}),
        ("OneCycleLR", {"max_lr": 0.3, "total_steps": 30}),
    ],
)
def test_rates_follow_the_schedule(blobs, name, params, interval):
    kind = getattr(torch.optim.lr_scheduler, name)
    expected = rates_by_hand(lambda o: kind(o, **params), 12, 3, interval)
    given = {
        "scheduler_params": params, "scheduler_interval": interval, "max_epochs": 4,
        "optimizer_params": {"lr": 0.1},
    }  # fmt: skip
    fitted = sampler(scheduler=name, **given).fit(*blobs)
    # Row 0 by the next step, row i by the step that led to it.
    assert fitted.learning_rates_.tolist() == [expected[0], *expected]
    assert same(fitted, sampler(scheduler=kind, **given).fit(*blobs))
    step_lengths = np.linalg.norm(np.diff(fitted.snapshots_.astype(float), axis=0), axis=1)
    assert (step_lengths > 0).all()
    # Passes one by one carry the schedule on.
    parts = sampler(scheduler=name, **given)
    for _ in range(4):
        parts.partial_fit(*blobs)
    assert same(parts, fitted)


def test_a_plateau_is_told_the_mean_loss_since_the_last_step(blobs):
    told = []

    class Told(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            told.append(metrics)
            super().step(metrics)

    fitted = sampler(
        scheduler=Told, scheduler_params={"patience": 0, "threshold": 0.9, "factor": 0.5}
    ).fit(*blobs)
    np.testing.assert_allclose(told, fitted.history_["loss"], rtol=1e-12)
    assert fitted.learning_rates_.tolist() == [0.1] * 7 + [0.05] * 3


# label noise


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_share_of_the_labels_is_replaced_by_others_drawn_uniformly(share):
    codes = np.arange(30_000) % 4
    noisy = noisy_targets(Targets(codes, np.arange(4), 4), share, seed=3)
    changed = noisy != codes
    assert changed.sum() == round(share * len(codes))
    counts = np.bincount(4 * codes[changed] + noisy[changed], minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    n = counts.sum() / 12
    # 5 standard deviations of a binomial count.
    assert (np.abs(counts[~np.eye(4, dtype=bool)] - n) < 5 * np.sqrt(n)).all()
    assert np.array_equal(noisy, noisy_targets(Targets(codes, np.arange(4), 4), share, seed=3))


def test_noise_of_values_is_in_units_of_their_spread():
    values = np.random.default_rng(0).normal(5, [1.0, 100.0], size=(20_000, 2))
    added = noisy_targets(Targets(values, None, 2), 0.5, seed=1) - values
    np.testing.assert_allclose(added.std(axis=0) / values.std(axis=0), 0.5, rtol=0.03)
    np.testing.assert_allclose(added.mean(axis=0) / values.std(axis=0), 0, atol=0.02)


def test_ignored_rows_keep_their_label():
    codes = np.where(np.arange(100) % 2, -100, 1)
    noisy = noisy_targets(Targets(codes, np.arange(3), 3), 1.0, seed=0)
    assert (noisy[codes == -100] == -100).all()
    assert (noisy[codes == 1] != 1).all()


def test_training_sees_the_noisy_labels_and_score_the_clean_ones(blobs):
    X, y = blobs
    fitted = sampler(label_noise=0.3, batch_size=None).fit(X, y)
    clean = sampler(batch_size=None).fit(X, y)
    assert np.array_equal(fitted.snapshots_[0], clean.snapshots_[0])
    assert fitted.losses_[0] != clean.losses_[0]
    seed = np.random.SeedSequence(0, spawn_key=(3, 0)).generate_state(1, np.uint64)[0]
    noisy = noisy_targets(Targets(y, np.arange(3), 3), 0.3, int(seed))
    with torch.no_grad():
        outputs = fitted.module_at(0)(torch.tensor(X, dtype=torch.float32))
        assert fitted.losses_[0] == pytest.approx(
            F.cross_entropy(outputs, torch.tensor(noisy)).item(), rel=1e-6
        )
        outputs = fitted.module_(torch.tensor(X, dtype=torch.float32))
        expected = -F.cross_entropy(outputs, torch.tensor(y)).item()
    assert fitted.score(X, y) == pytest.approx(expected, rel=1e-6)


def test_the_stream_of_label_noise_can_be_held(blobs):
    others = {"init": 1, "batches": 1, "dropout": 1}
    settings = {"label_noise": 0.4, "n_runs": 2}
    free = sampler(random_state={"seed": 0, **others}, **settings).fit(*blobs)
    held = sampler(random_state={"seed": 0, "label_noise": 2, **others}, **settings).fit(*blobs)
    assert not np.array_equal(free.snapshots_[:10], free.snapshots_[10:])
    assert np.array_equal(held.snapshots_[:10], held.snapshots_[10:])
    # Passes one by one see the same noise.
    parts = sampler(label_noise=0.4)
    for _ in range(3):
        parts.partial_fit(*blobs)
    assert same(parts, sampler(label_noise=0.4).fit(*blobs))


# callbacks


def test_callbacks_see_each_row_and_leave_no_trace(blobs):
    seen = []

    def look(step, loss, module):
        layout = parameter_layout(module)
        seen.append((step, loss, flatten_parameters(module, layout).numpy()))
        module.train()(torch.randn(8, 4))
        torch.rand(1)

    fitted = sampler(module=Noisy, record_every=2, callbacks=[look], n_runs=2).fit(*blobs)
    assert same(fitted, sampler(module=Noisy, record_every=2, n_runs=2).fit(*blobs))
    assert [step for step, _, _ in seen] == fitted.steps_.tolist()
    assert [loss for _, loss, _ in seen] == fitted.losses_.tolist()
    for (_, _, theta), row in zip(seen, fitted.snapshots_, strict=True):
        assert np.array_equal(theta, row)


def test_true_ends_the_run_at_that_row(blobs):
    whole = sampler(module=Noisy, n_runs=2).fit(*blobs)
    cut = sampler(module=Noisy, n_runs=2, callbacks=lambda step, *_: step == 4).fit(*blobs)
    assert cut.steps_.tolist() == 2 * [0, 1, 2, 3, 4]
    kept = whole.steps_ <= 4
    for name in COLUMNS:
        a, b = getattr(cut, name), getattr(whole, name)[kept]
        assert np.array_equal(a, b, equal_nan=True)
    assert not cut.interrupted_
    # What the look at the next batch drew was put back.
    short = sampler(module=Noisy, n_runs=2, max_steps=4).fit(*blobs)
    for a, b in zip(cut._runs, short._runs, strict=True):
        assert torch.equal(a.dropout[0], b.dropout[0])
    # The module stands at the last row, buffers included.
    for a, b in zip(cut.module_.state_dict().values(), cut.module_at(-1).state_dict().values(),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_clone_keeps_functions_and_copies_objects():
    class Counter:
        def __call__(self, step, loss, module):
            return False

    def look(step, loss, module):
        return False

    counter = Counter()
    copied = clone(TrajectorySampler(callbacks=[look, counter]))
    assert copied.callbacks[0] is look
    assert copied.callbacks[1] is not counter
    assert isinstance(copied.callbacks[1], Counter)


# going on


@pytest.mark.parametrize("params", [{}, {"sketch_dim": 16}, {"dtype": "float16"}])
def test_a_warm_start_goes_on_and_appends(blobs, params):
    whole = sampler(module=Noisy, optimizer="Adam", **params).fit(*blobs)
    warm = sampler(module=Noisy, optimizer="Adam", max_epochs=1, warm_start=True, **params)
    for n_passes in (1, 2, 3):
        warm = pickle.loads(pickle.dumps(warm.fit(*blobs)))
        assert warm.steps_.tolist() == list(range(3 * n_passes + 1))
    assert np.array_equal(np.asarray(warm.snapshots_), np.asarray(whole.snapshots_))
    assert same(warm, whole, COLUMNS[1:])
    assert np.array_equal(warm.history_["loss"], whole.history_["loss"])
    cold = warm.set_params(warm_start=False).fit(*blobs)
    assert cold.steps_.tolist() == [0, 1, 2, 3]


def test_a_pickle_holds_each_row_once(blobs):
    fitted = sampler(module_params={"hidden": 5000}).fit(*blobs)
    n_modules = 3  # the module, and momentum and the like at most
    row = fitted.snapshots_.nbytes / len(fitted.snapshots_)
    assert len(pickle.dumps(fitted)) < fitted.snapshots_.nbytes + n_modules * row


def test_a_sketch_keeps_the_exact_lengths(blobs):
    plain = sampler(n_runs=2).fit(*blobs)
    sketch = sampler(n_runs=2, sketch_dim=64).fit(*blobs)
    assert sketch.snapshots_.shape == (20, 64)
    for run in (0, 1):
        rows = plain.snapshots_[plain.run_ids_ == run].astype(float)
        own = sketch.run_ids_ == run
        steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
        np.testing.assert_allclose(sketch.step_lengths_[own][1:], steps, rtol=1e-6)
        from_start = np.linalg.norm(rows - rows[0], axis=1)
        np.testing.assert_allclose(sketch.start_distances_[own], from_start, rtol=1e-6)
        sketched = np.diff(sketch.snapshots_[own].astype(float), axis=0)
        errors = (sketched**2).sum(axis=1) / steps**2 - 1
        np.testing.assert_allclose(sketch.sketch_error_[own][1:], errors, atol=1e-4)
        assert np.array_equal(sketch.endpoints_[run][0], rows[0].astype(np.float32))
    with pytest.raises(ValueError, match="sketch_dim is set"):
        sketch.module_at(0)


# together


@pytest.mark.parametrize(
    ("optimizer", "params"), [("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {"lr": 0.01})]
)
def test_runs_together_are_the_runs_one_by_one(blobs, optimizer, params):
    settings = {
        "optimizer": optimizer, "optimizer_params": params, "n_runs": 4, "max_epochs": 10,
        "scheduler": "ExponentialLR", "scheduler_params": {"gamma": 0.9},
    }  # fmt: skip
    apart = sampler(**settings).fit(*blobs)
    together = sampler(vectorize=True, **settings).fit(*blobs)
    assert together.run_ids_[:6].tolist() == [0, 1, 2, 3, 0, 1]
    order = np.lexsort([together.steps_, together.run_ids_])
    scale = np.abs(apart.snapshots_).max()
    np.testing.assert_allclose(
        together.snapshots_[order], apart.snapshots_, rtol=0, atol=1e-5 * scale
    )
    np.testing.assert_allclose(together.losses_[order], apart.losses_, rtol=1e-4)
    np.testing.assert_allclose(together.learning_rates_[order], apart.learning_rates_, rtol=1e-12)
    np.testing.assert_allclose(together.path_lengths_[order], apart.path_lengths_, rtol=1e-3)
    assert np.array_equal(together.epochs_[order], apart.epochs_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "LBFGS"}, "optimizer=LBFGS"),
        ({"module": Noisy}, "draws random numbers"),
        ({"record_every": Displacement(0.1)}, "each run moves on its own"),
        ({"record": "outputs"}, "record='parameters'"),
        ({"callbacks": print}, "callbacks"),
        ({"label_noise": 0.1, "n_runs": 2}, "label_noise=0.1.*Hold the noise"),
        ({"scheduler": "ReduceLROnPlateau"}, "ReduceLROnPlateau"),
    ],
)
def test_what_cannot_be_done_together_is_named(blobs, params, message):
    with pytest.raises(ValueError, match=rf"vectorize=True.*{message}.*vectorize=False"):
        sampler(vectorize=True, **params).fit(*blobs)


# scikit-learn


def test_the_whole_pipeline_clones_pickles_and_takes_nested_names():
    X, y = load_digits(return_X_y=True)
    way = make_pipeline(StandardScaler(), TrajectorySampler(max_epochs=1, random_state=0), PCA(2))
    way.set_params(
        trajectorysampler__optimizer__lr=0.05, trajectorysampler__scheduler="StepLR",
        trajectorysampler__scheduler__step_size=1,
    )  # fmt: skip
    embedding = clone(way).fit_transform(X, y)
    assert embedding.shape == (16, 2)
    loaded = pickle.loads(pickle.dumps(way.fit(X, y)))
    assert np.array_equal(loaded[1].snapshots_, way[1].snapshots_)
    np.testing.assert_allclose(loaded.transform(X), way.transform(X), atol=1e-5)
    assert loaded[1].learning_rates_[0] == 0.05
    assert way[1].scheduler_params == {"step_size": 1}


def test_a_grid_search_chooses_by_the_held_out_loss():
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
    rates = [1e-4, 0.2]
    search = GridSearchCV(
        TrajectorySampler(max_epochs=5, random_state=0), {"optimizer__lr": rates}, cv=2
    ).fit(X_train, y_train)
    assert search.best_params_ == {"optimizer__lr": 0.2}
    with torch.no_grad():
        outputs = search.best_estimator_.module_(torch.tensor(X_test, dtype=torch.float32))
    expected = -F.cross_entropy(outputs, torch.tensor(y_test)).item()
    assert search.score(X_test, y_test) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {"label_noise": 0.2, "record": "outputs"},
        {"vectorize": True, "module": None},
        {"callbacks": lambda step, loss, module: bool(torch.rand(1) > 2)},
    ],
)
def test_global_generators_are_as_they_were_found(blobs, params):
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    schedule = {"scheduler": "StepLR", "scheduler_params": {"step_size": 1}}
    sampler(**{"module": Noisy, "n_runs": 2, **schedule, **params}).fit(*blobs)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_a_module_that_changes_its_input_sees_each_batch_once(blobs):
    """The loss of the last row is taken on the last batch as it was."""
    X, y = blobs

    class Shifting(nn.Linear):
        def forward(self, x):
            return super().forward(x.add_(1.0))

    fitted = sampler(module=lambda: Shifting(4, 3), batch_size=None, max_steps=2).fit(X, y)
    inputs = torch.tensor(X, dtype=torch.float32)
    for i in range(3):
        with torch.no_grad():
            loss = F.cross_entropy(fitted.module_at(i)(inputs.clone()), torch.tensor(y)).item()
        assert fitted.losses_[i] == pytest.approx(loss, rel=1e-6)
