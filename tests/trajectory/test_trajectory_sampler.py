"""TrajectorySampler as a whole: what is recorded, how it repeats, what it leaves alone."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from torch import nn
from torch.nn import functional as F

from skdmap import TrajectorySampler, make_mlp
from skdmap._parameters import assign_parameters, flatten_parameters

COLUMNS = [
    "snapshots_", "steps_", "epochs_", "run_ids_", "losses_", "learning_rates_", "buffers_",
]  # fmt: skip


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


@pytest.fixture(scope="module")
def line():
    X = np.random.default_rng(1).normal(size=(40, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.25


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers, and a stream of its own."""

    def __init__(self):
        super().__init__(
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(6, 3),
        )


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


def same(a, b, names=COLUMNS):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in names)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def test_sgd_rows_are_gradient_steps_in_float64(blobs):
    """theta_{i+1} = theta_i - lr * gradient, the whole data in each step."""
    X, y = blobs
    fitted = sampler(
        module=lambda: make_mlp(4, 3).double(), batch_size=None, optimizer_params={"lr": 0.3},
        dtype="float64", max_epochs=4,
    ).fit(X, y)  # fmt: skip
    module = fitted.module_at(0)
    for i in range(4):
        assign_parameters(module, torch.tensor(fitted.snapshots_[i]), fitted.parameter_layout_)
        loss = F.cross_entropy(module(torch.tensor(X)), torch.tensor(y))
        gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, module.parameters())])
        step = fitted.snapshots_[i + 1] - fitted.snapshots_[i]
        np.testing.assert_allclose(step, -0.3 * gradient, rtol=0, atol=1e-14)
        assert fitted.losses_[i] == pytest.approx(loss.item(), rel=1e-13)


def test_batches_follow_one_permutation_per_epoch_and_the_last_may_be_smaller(blobs):
    """With an identity-like module each step's gradient tells which rows were in the batch."""
    X = np.eye(10, dtype=np.float32)
    # d loss / d weight_j = -(rows j in the batch) / batch size, for loss = -mean(output).
    fitted = TrajectorySampler(
        nn.Linear(10, 1, bias=False), lambda output, _: -output.mean(), batch_size=4,
        optimizer_params={"lr": 1.0}, max_epochs=2, random_state=0,
    ).fit(X, np.zeros(10))  # fmt: skip
    steps = np.diff(fitted.snapshots_.astype(float), axis=0)
    batches = [np.flatnonzero(step > 0.1).tolist() for step in steps]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(10))
    assert batches[:3] != batches[3:]


def test_rows_steps_epochs_and_rates(blobs):
    fitted = sampler(n_runs=2, optimizer="Adam").fit(*blobs)  # 45 rows: 16 + 16 + 13
    assert fitted.snapshots_.shape == (20, make_mlp(4, 3)[0].weight.numel() + 32 + 3 * 33)
    assert fitted.snapshots_.dtype == np.float32
    assert fitted.steps_.tolist() == 2 * list(range(10))
    assert fitted.epochs_.tolist() == 2 * [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert fitted.run_ids_.tolist() == 10 * [0] + 10 * [1]
    assert np.array_equal(fitted.learning_rates_, np.full(20, 1e-3))
    assert len(fitted.modules_) == 2
    assert fitted.module_ is fitted.modules_[1]
    assert fitted.history_["epoch"].tolist() == 2 * [1, 2, 3]
    weights = np.array([16, 16, 13]) / 45
    assert fitted.history_["loss"][1] == pytest.approx(fitted.losses_[3:6] @ weights, rel=1e-12)


@pytest.mark.parametrize("settings", [{"reduction": "sum"}, {"weight": torch.tensor([1.0, 5, 9])}])
def test_the_loss_of_a_pass_counts_a_batch_by_its_rows(blobs, settings):
    fitted = sampler(criterion=nn.CrossEntropyLoss, criterion_params=settings).fit(*blobs)
    weights = np.array([16, 16, 13]) / 45
    expected = fitted.losses_[:9].reshape(3, 3) @ weights
    np.testing.assert_allclose(fitted.history_["loss"], expected, rtol=1e-12)


@pytest.mark.parametrize("burn_in", [0, 1, 5])
@pytest.mark.parametrize("record_every", [1, 4, "epoch"])
def test_cadence_and_burn_in_only_select_rows(blobs, record_every, burn_in):
    every = sampler(module=Noisy).fit(*blobs)
    some = sampler(module=Noisy, record_every=record_every, burn_in=burn_in).fit(*blobs)
    k = 3 if record_every == "epoch" else record_every
    kept = [s for s in range(10) if (s % k == 0 or s == 9) and s >= burn_in]
    assert some.steps_.tolist() == kept
    for name in COLUMNS:
        assert np.array_equal(getattr(some, name), getattr(every, name)[kept])


def test_max_steps_cuts_the_same_run(blobs):
    whole, cut = sampler().fit(*blobs), sampler(max_steps=4).fit(*blobs)
    assert cut.steps_.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(cut.snapshots_, whole.snapshots_[:5])
    assert np.array_equal(cut.losses_[:4], whole.losses_[:4])
    assert cut.history_["loss"][1] == whole.losses_[3]


def test_parameters_select_columns_and_train_all(blobs):
    every, some = sampler().fit(*blobs), sampler(parameters=["2.*"]).fit(*blobs)
    assert some.parameter_layout_.names == ("2.weight", "2.bias")
    assert np.array_equal(some.snapshots_, every.snapshots_[:, -3 * 33 :])
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias.*parameters=None"):
        some.module_at(0)


def test_the_loss_of_the_last_row_is_on_the_last_batch_again(blobs):
    """In training mode, with no trace in buffers and generators."""
    longer, shorter = sampler(module=Noisy, max_epochs=4), sampler(module=Noisy, max_epochs=3)
    longer.fit(*blobs), shorter.fit(*blobs)
    assert np.array_equal(longer.snapshots_[:10], shorter.snapshots_)
    assert np.array_equal(longer.buffers_[:10], shorter.buffers_)
    full = sampler(batch_size=None, optimizer_params={"lr": 0.0}, max_epochs=2).fit(*blobs)
    np.testing.assert_allclose(full.losses_, -full.score(*blobs), rtol=1e-6)


def test_float64_rows_of_a_float32_module_are_its_parameters(blobs):
    a, b = sampler(dtype="float64").fit(*blobs), sampler().fit(*blobs)
    assert a.snapshots_.dtype == np.float64
    assert np.array_equal(a.snapshots_, b.snapshots_)


def test_module_at_restores_parameters_and_buffers(blobs):
    fitted = sampler(module=Noisy, n_runs=2).fit(*blobs)
    last = fitted.module_at(-1)
    for key, value in fitted.module_.state_dict().items():
        assert torch.equal(last.state_dict()[key], value)
        assert value.dtype == last.state_dict()[key].dtype
    assert fitted.module_at(4)[1].num_batches_tracked == 4
    row = flatten_parameters(fitted.module_at(13), fitted.parameter_layout_).numpy()
    assert np.array_equal(row, fitted.snapshots_[13])
    assert fitted.buffers_.shape == (20, 13)
    assert not last.training
    with pytest.raises(IndexError):
        fitted.module_at(20)


def test_an_instance_is_the_start_of_every_run_and_is_left_as_found(blobs):
    module = make_mlp(4, 3)
    before, mode = copy.deepcopy(module.state_dict()), module.training
    fitted = sampler(module=module, n_runs=2).fit(*blobs)
    first = flatten_parameters(module, fitted.parameter_layout_).numpy()
    assert np.array_equal(fitted.snapshots_[0], first)
    assert np.array_equal(fitted.snapshots_[10], first)
    assert not np.array_equal(fitted.snapshots_[1], fitted.snapshots_[11])
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training is mode
    assert all(p.grad is None for p in module.parameters())


def test_frozen_parameters_are_no_columns_and_do_not_move(blobs):
    module = make_mlp(4, 3)
    module[0].weight.requires_grad_(False)
    fitted = sampler(module=module).fit(*blobs)
    assert fitted.parameter_layout_.names == ("0.bias", "2.weight", "2.bias")
    assert torch.equal(fitted.module_[0].weight, module[0].weight)


def test_lazy_layers_take_their_width_from_x(blobs):
    lazy = sampler(module=lambda: nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 3)))
    assert lazy.fit(*blobs).snapshots_.shape[1] == 5 * 5 + 6 * 3
    assert np.array_equal(clone(lazy).fit(*blobs).snapshots_, lazy.snapshots_)


def test_images_reach_a_module_that_takes_them():
    X = np.random.default_rng(0).normal(size=(12, 1, 4, 4)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    assert sampler(module=net).fit(X, np.arange(12) % 2).transform(X).shape == (4, 38)
    with pytest.raises(ValueError, match=r"\(12, 1, 4, 4\).*module=None"):
        sampler().fit(X, np.arange(12) % 2)


def test_one_newton_like_optimizer_works_with_its_closure(line):
    """LBFGS on a linear model finds least squares."""
    X, y = line
    fitted = sampler(
        module_params={"hidden": ()}, optimizer="LBFGS", batch_size=None,
        optimizer_params={"line_search_fn": "strong_wolfe"},
    ).fit(X, y)  # fmt: skip
    np.testing.assert_allclose(fitted.snapshots_[-1], [1, -2, 0.5, 0.25], atol=1e-4)
    assert fitted.steps_.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Rprop", torch.optim.NAdam])
def test_optimizers_start_alike_and_lower_the_loss(blobs, optimizer):
    fitted = sampler(optimizer=optimizer, max_epochs=10).fit(*blobs)
    assert np.array_equal(fitted.snapshots_[0], sampler().fit(*blobs).snapshots_[0])
    assert fitted.history_["loss"][-1] < fitted.history_["loss"][0]


def test_labels_of_any_kind_train_alike(blobs):
    X, y = blobs
    named = sampler().fit(X, np.array(["a", "b", "c"])[y])
    assert named.classes_.tolist() == ["a", "b", "c"]
    assert same(named, sampler().fit(X, y + 5))


def test_whole_floats_are_values_and_a_refit_forgets_the_labels(blobs):
    X, y = blobs
    fitted = sampler().fit(X, y)
    n_columns = fitted.snapshots_.shape[1]
    fitted.fit(X, y.astype(float))
    assert not hasattr(fitted, "classes_")
    assert fitted.snapshots_.shape[1] == n_columns - 2 * 33


def test_columns_of_y_are_never_broadcast(line):
    X, y = line
    assert same(sampler().fit(X, y), sampler().fit(X, y[:, None]))
    flat = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Flatten(0))
    fitted = sampler(module=flat, batch_size=None).fit(X, y)
    error = X @ fitted.snapshots_[0] - y
    assert fitted.losses_[0] == pytest.approx((error**2).mean(), rel=1e-5)


def test_score_is_minus_the_loss_whatever_the_batch_size(blobs):
    X, y = blobs
    weight = torch.tensor([1.0, 2.0, 5.0])
    fitted = sampler(
        module=Noisy, criterion=nn.CrossEntropyLoss, criterion_params={"weight": weight}
    ).fit(X, y)
    with torch.no_grad():
        outputs = fitted.module_(torch.tensor(X, dtype=torch.float32))
        expected = -F.cross_entropy(outputs, torch.tensor(y), weight=weight).item()
    assert fitted.score(X, y) == pytest.approx(expected, rel=1e-6)
    assert fitted.set_params(batch_size=7).score(X, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("module", [None, Noisy])
def test_same_seed_same_bits_and_run_0_of_many_is_the_run_of_one(blobs, module):
    many, again, one = (sampler(module=module, n_runs=n).fit(*blobs) for n in (3, 3, 1))
    assert same(many, again)
    assert np.array_equal(many.snapshots_[:10], one.snapshots_)
    assert not np.array_equal(many.snapshots_[10], one.snapshots_[0])


@pytest.mark.parametrize("stream", ["init", "batches", "dropout"])
def test_a_held_stream_is_alike_in_all_runs(blobs, stream):
    """The stream is made visible by a module that only one of them touches."""
    others = {"init", "batches", "dropout"} - {stream}
    held = {"seed": 0, **dict.fromkeys(others, 1)}
    free = sampler(module=Noisy, n_runs=2, random_state=held).fit(*blobs)
    both = sampler(module=Noisy, n_runs=2, random_state={**held, stream: 1}).fit(*blobs)
    assert not np.array_equal(free.snapshots_[:10], free.snapshots_[10:])
    assert np.array_equal(both.snapshots_[:10], both.snapshots_[10:])
    assert np.array_equal(free.snapshots_[0], free.snapshots_[10]) is (stream != "init")


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_and_arguments_are_left_alone(blobs, random_state):
    X, y = blobs
    X, y = X.astype(np.float32), y.copy()  # float32 shares its memory with torch
    X_before, y_before = X.copy(), y.copy()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
    state = torch.get_rng_state()
    inplace = sampler(
        module=lambda: nn.Sequential(nn.ReLU(inplace=True), Noisy()), random_state=random_state
    ).fit(X, y)
    inplace.score(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.rand() == np.random.RandomState(5).rand()  # noqa: NPY002
    assert np.array_equal(X, X_before)
    assert np.array_equal(y, y_before)


def test_the_global_generator_is_not_read(blobs):
    torch.manual_seed(1)
    a = sampler(module=Noisy).fit(*blobs)
    torch.manual_seed(2)
    assert same(a, sampler(module=Noisy).fit(*blobs))
    assert not same(*(sampler(random_state=None).fit(*blobs) for _ in range(2)))


@pytest.mark.parametrize("optimizer", ["Adam", "LBFGS"])
def test_passes_one_by_one_are_the_run_in_one_piece(blobs, optimizer):
    whole = sampler(module=Noisy, optimizer=optimizer, record_every=2).fit(*blobs)
    parts = sampler(module=Noisy, optimizer=optimizer, record_every=2)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(*blobs)))
    kept = np.isin(parts.steps_, whole.steps_)  # the end of each pass is recorded as well
    assert parts.steps_[~kept].tolist() == [3]
    assert np.array_equal(parts.snapshots_[kept], whole.snapshots_)
    assert np.array_equal(parts.buffers_[kept], whole.buffers_)
    assert np.array_equal(parts.epochs_[kept], whole.epochs_)
    assert np.array_equal(parts.history_["loss"], whole.history_["loss"])
    assert np.array_equal(parts.losses_[kept], whole.losses_)


def test_a_row_takes_the_loss_of_the_batch_that_did_come_next(blobs):
    """Three passes one by one are three in one piece in every column, for all runs."""
    whole = sampler(module=Noisy, n_runs=2).fit(*blobs)
    parts = sampler(module=Noisy, n_runs=2)
    for n_passes in (1, 2, 3):
        parts.partial_fit(*blobs)
        assert len(parts.steps_) == 2 * (1 + 3 * n_passes)
    order = np.lexsort([parts.steps_, parts.run_ids_])
    for name in COLUMNS:
        assert np.array_equal(getattr(parts, name)[order], getattr(whole, name))


def test_partial_fit_goes_on_after_fit_with_all_runs_and_the_new_rate(blobs):
    X, y = blobs
    fitted = sampler(n_runs=2).fit(X, y)
    fitted.set_params(optimizer__lr=0.0, n_runs=7).partial_fit(X, y)
    assert fitted.run_ids_.tolist() == 10 * [0] + 10 * [1] + 3 * [0] + 3 * [1]
    assert fitted.steps_.tolist() == 2 * list(range(10)) + 2 * [10, 11, 12]
    assert np.array_equal(fitted.snapshots_[20:23], fitted.snapshots_[[9, 9, 9]])
    with pytest.raises(ValueError, match=r"\[7\].*\[0, 1, 2\]"):
        fitted.partial_fit(X, np.full(45, 7))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_epochs": 0}, "'max_epochs'.*0"),
        ({"optimizer": 3}, "'optimizer'.*Pass a subclass"),
        ({"dtype": "float8"}, "'dtype'.*float8.*type of the rows"),
        ({"dtype": "float16", "sketch_dim": 8}, "dtype='float16' excludes sketch_dim"),
        ({"sketch_dim": 30}, "sketch_dim=30 must be a multiple of 4"),
        ({"resume": True}, "resume=True needs store="),
        ({"label_noise": 1.5}, r"label_noise=1.5 must be a share in \[0, 1\]"),
        ({"callbacks": [3]}, "callbacks contains 3"),
        ({"scheduler": "StepLr"}, "'StepLr'.*Did you mean 'StepLR'"),
        ({"scheduler": "StepLR", "scheduler_params": {"step": 3}}, "'step'.*'step_size'"),
        ({"scheduler_params": {"gamma": 3}}, "scheduler_params=.*scheduler=None"),
        ({"record": "output"}, "'record'.*'output'.*X_probe"),
        ({"record": ("outputs", np.zeros((2, 3)))}, r"X_probe has shape \(2, 3\).*\(n, 4\)"),
        ({"record": ("outputs", np.full((2, 4), np.nan))}, "X_probe contains NaN"),
        ({"record": lambda module: module[0].weight}, "one.*dimension"),
        ({"burn_in": 10}, "burn_in=10.*9"),
        ({"parameters": "3.*"}, r"parameters='3\.\*'.*0\.weight"),
        ({"device": "nowhere"}, "device='nowhere'"),
        ({"random_state": {"int": 3}}, "'int'"),
        ({"optimizer_params": {"learning_rate": 3}}, "'learning_rate'.*SGD"),
        ({"module": nn.ReLU}, "no trainable parameters"),
        ({"module": nn.Linear(4, 2)}, "n_classes=3"),
        ({"module": Pair(4, 3)}, "module returns tuple"),
        ({"criterion": nn.CrossEntropyLoss(reduction="none")}, r"shape \(2,\).*reduction='mean'"),
        ({"criterion": lambda a, b: a.detach().sum()}, "differentiated"),
        ({"criterion": lambda a, b: a.sum() * np.nan}, "loss=nan.*run 0"),
    ],
)
def test_bad_parameters_are_named_before_training(blobs, params, message):
    unfitted = sampler(**params)
    with pytest.raises(ValueError, match=message):
        unfitted.fit(*blobs)
    assert not hasattr(unfitted, "snapshots_")


def test_rows_of_another_width_and_missing_y_are_errors(blobs):
    X, y = blobs
    fitted = sampler().fit(X, y)
    with pytest.raises(ValueError, match="expecting 4 features"):
        fitted.transform(X[:, :3])
    with pytest.raises(ValueError, match="requires y"):
        sampler().fit(X)
    with pytest.raises(ValueError, match="NaN"):
        sampler().fit(np.full_like(X, np.nan), y)


def test_pipeline_on_digits():
    X, y = load_digits(return_X_y=True)
    way = make_pipeline(StandardScaler(), TrajectorySampler(max_epochs=3, random_state=0), PCA())
    embedding = way.fit_transform(X, y)
    assert embedding.shape == (46, 46)
    assert way[1].module_(torch.zeros(1, 64)).shape == (1, 10)
    assert way[1].losses_[-1] < way[1].losses_[0]
    way.set_params(trajectorysampler__optimizer__lr=0.2)
    assert way[1].optimizer_params == {"lr": 0.2}


def test_clone_and_pickle_repeat_the_run(blobs):
    fitted = sampler(module=Noisy, optimizer="Adam", optimizer_params={"lr": 0.01}).fit(*blobs)
    assert same(clone(fitted).fit(*blobs), fitted)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert same(loaded, fitted)
    assert loaded.score(*blobs) == fitted.score(*blobs)
    assert same(loaded.partial_fit(*blobs), fitted.partial_fit(*blobs))


def test_frames_are_indexed_by_run_and_step(blobs):
    X, y = blobs
    fitted = sampler(n_runs=2, record_every="epoch").fit(X, y)
    frame = clone(fitted).set_output(transform="pandas").fit_transform(X, y)
    assert frame.index.names == ["run", "step"]
    assert frame.index.tolist() == [(r, s) for r in (0, 1) for s in (0, 3, 6, 9)]
    assert frame.columns[:2].tolist() == ["trajectorysampler0", "trajectorysampler1"]
    assert np.array_equal(frame.to_numpy(), fitted.transform(X))
    polars = clone(fitted).set_output(transform="polars").fit_transform(X, y)
    assert polars.shape == frame.shape
    assert polars.columns == frame.columns.tolist()


def test_tags_ask_for_y_and_promise_no_dtype():
    tags = get_tags(TrajectorySampler())
    assert tags.target_tags.required
    assert tags.transformer_tags.preserves_dtype == []
    assert not tags.non_deterministic
    assert not tags.no_validation


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress_is_told_in_lines_where_there_is_no_terminal(blobs, capsys, verbose):
    sampler(verbose=verbose).fit(*blobs)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("TrajectorySampler: 9 of 9 steps" in captured.err) == bool(verbose)
    assert bool(captured.err) == bool(verbose)
