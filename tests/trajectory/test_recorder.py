"""What a recorder keeps of a loop that is not ours is what the loop went through."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks

from skdmap import (
    Displacement,
    EmpiricalRisk,
    LogSpaced,
    TrajectoryRecorder,
    TrajectorySampler,
    make_mlp,
)
from skdmap.exceptions import DivergenceWarning, SkdmapWarning

N_ROWS, N_FEATURES = 40, 5


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, N_FEATURES)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.int64)
    return torch.tensor(X), torch.tensor(y)


def new_module(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Tanh(), nn.Linear(8, 2))


def theta(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy().copy()


def loop(module, optimizer, data, n_steps, *, log=None, seen=None, start=0):
    """Train by hand; ``seen`` gets the parameters and the loss before each step, and the end."""
    X, y = data
    for step in range(start, n_steps):
        rows = torch.arange(8) + 8 * (step % 5)
        loss = F.cross_entropy(module(X[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        if log is not None:
            log(loss)
        if seen is not None:
            seen.append((theta(module), loss.item()))
        optimizer.step()
    if seen is not None:
        seen.append((theta(module), np.nan))


def _numpy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the global one must not move


def sgd(module, **settings):
    return torch.optim.SGD(module.parameters(), **({"lr": 0.1, "momentum": 0.9} | settings))


def test_rows_and_losses_are_those_of_the_loop_bit_for_bit(data):
    module, seen = new_module(), []
    with TrajectoryRecorder(module) as recorder:
        loop(module, sgd(module), data, 12, log=recorder.log, seen=seen)
    np.testing.assert_array_equal(recorder.snapshots_, np.stack([row for row, _ in seen]))
    np.testing.assert_array_equal(recorder.losses_, [loss for _, loss in seen])
    np.testing.assert_array_equal(recorder.steps_, np.arange(13))
    np.testing.assert_array_equal(recorder.learning_rates_, np.full(13, 0.1))
    assert recorder.snapshots_.dtype == np.float32
    assert (recorder.run_ids_ == 0).all()
    assert (recorder.epochs_ == -1).all()
    assert not recorder.interrupted_
    assert recorder.parameter_layout_.names == ("0.weight", "0.bias", "2.weight", "2.bias")


@pytest.mark.parametrize("make", [sgd, lambda m: torch.optim.Adam(m.parameters(), lr=0.01)])
def test_recording_changes_nothing_in_the_loop(data, make):
    plain, recorded = new_module(), new_module()
    first, second = make(plain), make(recorded)
    loop(plain, first, data, 9)
    with TrajectoryRecorder(recorded, second):
        loop(recorded, second, data, 9)
    np.testing.assert_array_equal(theta(plain), theta(recorded))
    states = [list(o.state_dict()["state"].values()) for o in (first, second)]
    for one, other in zip(*states, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other[key]))


def test_generators_modes_gradients_and_hooks_are_as_they_were_found(data):
    module = nn.Sequential(new_module(), nn.Dropout(0.5), nn.BatchNorm1d(2))
    module[2].eval()
    before = torch.get_rng_state(), _numpy_state(), random.getstate()
    hooks = dict(_global_optimizer_post_hooks)
    buffers = [b.clone() for b in module.buffers()]
    with TrajectoryRecorder(module, record=("outputs", data[0])) as recorder:
        pass
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(_numpy_state(), before[1])
    assert random.getstate() == before[2]
    assert [part.training for part in module] == [True, True, False]
    assert all(p.grad is None for p in module.parameters())
    for buffer, old in zip(module.buffers(), buffers, strict=True):
        assert torch.equal(buffer, old)
    assert dict(_global_optimizer_post_hooks) == hooks
    assert recorder.snapshots_.shape == (1, 2 * N_ROWS)


def test_rows_equal_those_of_the_sampler_for_the_same_start_and_batches(data):
    X, y = (part.numpy() for part in data)
    sampler = TrajectorySampler(
        new_module(), optimizer="SGD", optimizer_params={"lr": 0.1, "momentum": 0.9},
        batch_size=8, max_epochs=2, random_state=0,
    ).fit(X, y)  # fmt: skip
    module = sampler.module_at(0).train()
    seed = np.random.SeedSequence(0, spawn_key=(1, 0)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(seed))
    optimizer = sgd(module)
    with TrajectoryRecorder(module, optimizer) as recorder:
        for _ in range(2):
            for rows in torch.randperm(N_ROWS, generator=generator).split(8):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(data[0][rows]), data[1][rows])
                loss.backward()
                recorder.log(loss)
                optimizer.step()
    np.testing.assert_array_equal(recorder.snapshots_, sampler.snapshots_)
    np.testing.assert_array_equal(recorder.steps_, sampler.steps_)
    np.testing.assert_array_equal(recorder.losses_[:-1], sampler.losses_[:-1])
    np.testing.assert_array_equal(recorder.learning_rates_, sampler.learning_rates_)


@pytest.mark.parametrize(
    ("every", "burn_in", "wanted"),
    [
        (3, 0, [0, 3, 6, 9, 10]),
        (4, 5, [8, 10]),
        (1, 10, [10]),
        (100, 0, [0, 10]),
        (2, 11, []),
        (LogSpaced(4, total=8), 0, [0, 1, 2, 4, 8, 10]),
    ],
)
def test_the_cadence_decides_which_steps_are_rows(data, every, burn_in, wanted):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record_every=every, burn_in=burn_in) as recorder:
        loop(module, sgd(module), data, 10, log=recorder.log, seen=seen)
    assert recorder.steps_.tolist() == wanted
    for row, step in enumerate(wanted):
        np.testing.assert_array_equal(recorder.snapshots_[row], seen[step][0])
        np.testing.assert_array_equal(recorder.losses_[row], seen[step][1])


def test_path_lengths_add_up_over_steps_that_are_not_recorded(data):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record_every=4) as recorder:
        loop(module, sgd(module), data, 10, seen=seen)
    moves = np.diff(np.stack([row for row, _ in seen]).astype(float), axis=0)
    lengths = np.linalg.norm(moves, axis=1)
    wanted = [lengths[:4].sum(), lengths[4:8].sum(), lengths[8:].sum()]
    np.testing.assert_allclose(recorder.path_lengths_[1:], wanted, rtol=1e-5)
    assert np.isnan(recorder.path_lengths_[0])


@pytest.mark.parametrize("along", ["line", "path"])
def test_displacement_records_when_the_distance_is_reached_and_not_before(data, along):
    module, seen, delta = new_module(), [], 0.3
    cadence = Displacement(delta, along)
    with TrajectoryRecorder(module, record_every=cadence) as recorder:
        loop(module, sgd(module), data, 25, seen=seen)
    rows = np.stack([row for row, _ in seen]).astype(float)
    moves = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    steps, mark = [0], 0
    for step in range(1, 26):
        line, path = np.linalg.norm(rows[step] - rows[mark]), moves[mark:step].sum()
        if (line if along == "line" else path) >= delta:
            steps.append(step)
            mark = step
    assert recorder.steps_.tolist() == sorted({*steps, 25})
    assert 3 < len(recorder.steps_) < 26


def test_patterns_select_the_parameters_of_a_row(data):
    module = new_module()
    with TrajectoryRecorder(module, parameters="2.*") as recorder:
        loop(module, sgd(module), data, 3)
    assert recorder.snapshots_.shape == (4, 18)
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(module[2]))
    with pytest.raises(ValueError, match=r"leave out the parameters 0\.weight"):
        recorder.module_at(0)


def test_outputs_and_callables_are_observed_without_gradients_in_eval_mode(data):
    probe = data[0][:3]
    module = nn.Sequential(new_module(), nn.Dropout(0.9))
    frozen = []

    def observe(model):
        assert not torch.is_grad_enabled()
        frozen.append(model.training)
        return model(probe).log_softmax(1).reshape(-1)

    optimizer = sgd(module)
    with (
        TrajectoryRecorder(module, record=("outputs", probe)) as outputs,
        TrajectoryRecorder(module, record=observe) as logs,
    ):
        loop(module, optimizer, data, 4)
    with torch.no_grad():
        wanted = module.eval()(probe)
    np.testing.assert_array_equal(outputs.snapshots_[-1], wanted.reshape(-1))
    np.testing.assert_array_equal(logs.snapshots_[-1], wanted.log_softmax(1).reshape(-1))
    assert not any(frozen)
    assert outputs.parameter_layout_ is None
    with pytest.raises(ValueError, match="no parameters"):
        outputs.module_at(0)


def test_a_callable_may_return_the_parameters_themselves(data):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record=lambda model: model[2].bias) as recorder:
        loop(module, sgd(module), data, 4, seen=seen)
    np.testing.assert_array_equal(recorder.snapshots_, np.stack([row[-2:] for row, _ in seen]))


def test_module_at_gives_the_loss_that_a_batchnorm_network_had(data):
    X, y = data
    module = nn.Sequential(nn.Linear(N_FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    optimizer, losses = sgd(module), []
    with TrajectoryRecorder(module) as recorder:
        for step in range(6):
            loop(module, optimizer, data, step + 1, start=step)
            with torch.no_grad():
                losses.append(F.cross_entropy(module.eval()(X), y).item())
            module.train()
    n_parameters = sum(p.numel() for p in module.parameters())
    assert recorder.snapshots_.shape == (7, n_parameters)
    assert recorder.buffers_.shape == (7, 6 + 6 + 1)
    for row, loss in enumerate(losses, start=1):
        again = recorder.module_at(row)
        with torch.no_grad():
            assert F.cross_entropy(again(X), y).item() == loss
        risk = EmpiricalRisk(again, nn.CrossEntropyLoss(), X.numpy(), y.numpy())
        assert float(risk(risk.snapshot()[0])) == pytest.approx(loss, rel=1e-6)


def test_a_closure_tells_the_loss_and_one_lbfgs_step_is_one(data):
    X, y = data
    module = new_module()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=5)
    calls, seen = [], []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), y)
        loss.backward()
        calls.append(loss.item())
        return loss

    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            calls.clear()
            optimizer.step(closure)
            seen.append(calls[0])
            assert len(calls) > 1
    np.testing.assert_array_equal(recorder.losses_, [*seen, np.nan])
    assert recorder.steps_.tolist() == [0, 1, 2, 3]
    # The loss of a row is the loss at the row.
    for row in range(3):
        with torch.no_grad():
            again = F.cross_entropy(recorder.module_at(row)(X), y).item()
        assert again == pytest.approx(seen[row], rel=1e-6)


def test_a_closure_by_keyword_and_one_that_logs_and_returns_none(data):
    X, y = data
    module = new_module()
    optimizer = sgd(module)
    wanted = []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), y)
        loss.backward()
        wanted.append(loss.item())
        recorder.log(loss)

    with TrajectoryRecorder(module) as recorder:
        optimizer.step(closure=closure)
        optimizer.step(closure)
    np.testing.assert_array_equal(recorder.losses_, [*wanted, np.nan])


def test_accumulated_gradients_are_one_step_with_the_mean_of_the_losses(data):
    X, y = data
    module = new_module()
    optimizer = sgd(module)
    with TrajectoryRecorder(module) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            for rows in torch.arange(N_ROWS).split(10):
                loss = F.cross_entropy(module(X[rows]), y[rows])
                recorder.log(loss)
                (loss / 4).backward()
            optimizer.step()
    assert recorder.steps_.tolist() == [0, 1, 2, 3]
    for row in range(3):
        with torch.no_grad():
            whole = F.cross_entropy(recorder.module_at(row)(X), y).item()
        assert recorder.losses_[row] == pytest.approx(whole, rel=1e-6)


def test_learning_rates_are_those_of_the_step_that_led_to_the_row(data):
    module = new_module()
    optimizer = sgd(module, lr=0.4)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with TrajectoryRecorder(module, optimizer) as recorder:
        for step in range(3):
            loop(module, optimizer, data, step + 1, start=step)
            scheduler.step()
    np.testing.assert_array_equal(recorder.learning_rates_, [0.4, 0.4, 0.2, 0.1])


def test_two_optimizers_on_one_module_count_together_or_one_alone(data):
    module = new_module()
    body, head = (torch.optim.SGD(module[i].parameters(), lr=0.1) for i in (0, 2))
    with (
        TrajectoryRecorder(module) as both,
        TrajectoryRecorder(module, head) as one,
        TrajectoryRecorder(new_module(1)) as other,
    ):
        for _ in range(3):
            loss = F.cross_entropy(module(data[0]), data[1])
            loss.backward()
            body.step()
            head.step()
            head.step()
            module.zero_grad()
    assert both.steps_.tolist() == list(range(10))
    assert one.steps_.tolist() == list(range(7))
    assert other.steps_.tolist() == [0]
    np.testing.assert_array_equal(both.snapshots_[[0, 2, 3]], one.snapshots_[:3])


def test_a_wrapped_step_is_one_step(data):
    class Doubled(torch.optim.Optimizer):
        """Steps another optimizer, as wrappers do."""

        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.optimizer = inner

        def step(self, closure=None):
            return self.optimizer.step(closure)

    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    for make in (lambda m: Doubled(sgd(m)), lambda m: Child(m.parameters(), lr=0.1)):
        module = new_module()
        optimizer = make(module)
        for chosen in (None, optimizer):
            with TrajectoryRecorder(module, chosen) as recorder:
                loop(module, optimizer, data, 4)
            assert recorder.steps_.tolist() == [0, 1, 2, 3, 4]


def test_a_row_is_the_end_of_the_outermost_step(data):
    class LookingBack(torch.optim.Optimizer):
        """Goes half of each step back, after the step of the optimizer within."""

        def __init__(self, inner):
            super().__init__(inner.param_groups, {"lr": 7.0})
            self.optimizer = inner

        def step(self, closure=None):
            before = [p.detach().clone() for g in self.param_groups for p in g["params"]]
            self.optimizer.step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter, old in zip(group["params"], before, strict=True):
                        parameter.lerp_(old, 0.5)

    module, seen = new_module(), []
    with TrajectoryRecorder(module) as recorder:
        loop(module, LookingBack(sgd(module)), data, 4, seen=seen)
    np.testing.assert_array_equal(recorder.snapshots_, np.stack([row for row, _ in seen]))


def test_many_parameters_are_followed_as_few_are(data):
    # Above 2^16 parameters the path is measured chunk by chunk.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(N_FEATURES, 9000), nn.ReLU(), nn.Linear(9000, 2))
    assert len(theta(module)) > 2**16
    seen = []
    with TrajectoryRecorder(module, record_every=2) as recorder:
        loop(module, sgd(module), data, 6, log=recorder.log, seen=seen)
    rows = np.stack([row for row, _ in seen])
    np.testing.assert_array_equal(recorder.snapshots_, rows[::2])
    lengths = np.linalg.norm(np.diff(rows.astype(float), axis=0), axis=1)
    np.testing.assert_allclose(
        recorder.path_lengths_[1:], lengths.reshape(3, 2).sum(axis=1), rtol=1e-4
    )


def test_a_step_that_an_exception_ends_is_none_and_the_next_one_counts(data):
    module = new_module()
    optimizer = sgd(module)

    def failing():
        raise ArithmeticError

    with TrajectoryRecorder(module) as recorder:
        for _ in range(2):
            with pytest.raises(ArithmeticError):
                optimizer.step(failing)
        loop(module, optimizer, data, 2)
    assert recorder.steps_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_is_none(data, fused):
    X, y = data
    module = new_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    rows = [theta(module)]
    with TrajectoryRecorder(module) as recorder:
        for step in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(X), y)
            scaler.scale(loss).backward()
            if step in (1, 4):
                module[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            if step not in (1, 4):
                rows.append(theta(module))
    assert recorder.steps_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(recorder.snapshots_, np.stack(rows))


def test_an_exception_in_the_block_leaves_what_was_recorded(data):
    module, seen = new_module(), []
    recorder = TrajectoryRecorder(module, record_every=3)
    with pytest.raises(KeyboardInterrupt), recorder:  # noqa: PT012 - as a user writes it
        loop(module, sgd(module), data, 5, log=recorder.log, seen=seen)
        raise KeyboardInterrupt
    assert recorder.interrupted_
    assert recorder.steps_.tolist() == [0, 3, 5]
    np.testing.assert_array_equal(recorder.snapshots_, [seen[s][0] for s in (0, 3, 5)])
    before = len(recorder.steps_)
    loop(module, sgd(module), data, 2)
    assert len(recorder.steps_) == before


def test_the_last_row_is_the_last_step_whatever_is_loaded_afterwards(data):
    module, seen = new_module(), []
    best = copy.deepcopy(module.state_dict())
    with TrajectoryRecorder(module, record_every=4) as recorder:
        loop(module, sgd(module), data, 6, seen=seen)
        module.load_state_dict(best)
    np.testing.assert_array_equal(recorder.snapshots_[-1], seen[6][0])


def test_a_recorder_that_is_entered_again_goes_on(data):
    module, seen = new_module(), []
    optimizer = sgd(module)
    recorder = TrajectoryRecorder(module, record_every=2)
    for stop in (3, 6):
        with recorder:
            loop(module, optimizer, data, stop, start=stop - 3, log=recorder.log, seen=seen)
    del seen[3]  # the end of the first block is the start of the second
    assert recorder.steps_.tolist() == [0, 2, 3, 4, 6]
    np.testing.assert_array_equal(recorder.snapshots_, [seen[s][0] for s in recorder.steps_])
    np.testing.assert_array_equal(recorder.losses_, [seen[s][1] for s in recorder.steps_])
    with torch.no_grad():
        module[0].bias += 1
    with pytest.raises(ValueError, match="changed since the recording of step 6"), recorder:
        pass


def test_one_recorder_is_not_entered_twice_at_once():
    with TrajectoryRecorder(new_module()) as recorder, pytest.raises(RuntimeError, match="already"):
        recorder.__enter__()


def test_rows_that_are_not_finite_are_left_out(data):
    module, seen = new_module(), []
    optimizer = sgd(module)
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(DivergenceWarning, match="the row of step 3 is not finite") as caught,
        TrajectoryRecorder(module) as recorder,
    ):
        loop(module, optimizer, data, 2, seen=seen)
        with torch.no_grad():
            module[0].weight.mul_(torch.nan)
        loop(module, optimizer, data, 4)
    assert len(caught) == 1
    assert recorder.steps_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(recorder.snapshots_, [row for row, _ in seen])


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "2", nn.Linear(8, 3)),
        lambda module: module.append(nn.Linear(2, 2)),
        lambda module: module.__delitem__(2),
    ],
)
def test_a_module_whose_parameters_change_is_an_error_that_keeps_the_rows(data, change):
    module = new_module()
    optimizer = sgd(module)
    recorder = TrajectoryRecorder(module)
    message = "other parameters than when its recording began"
    with pytest.raises(ValueError, match=message), recorder:  # noqa: PT012 - as a user writes it
        loop(module, optimizer, data, 3)
        change(module)
        optimizer.step()
    assert recorder.steps_.tolist() == [0, 1, 2, 3]


def test_frozen_parameters_that_are_trained_later_are_named(data):
    module = new_module()
    module[0].requires_grad_(False)
    optimizer = sgd(module)
    with (  # noqa: PT031 - the loop is what warns
        pytest.warns(SkdmapWarning, match=r"0\.bias, 0\.weight"),
        TrajectoryRecorder(module) as recorder,
    ):
        loop(module, optimizer, data, 1)
        module[0].requires_grad_(True)
        loop(module, optimizer, data, 2)
    assert recorder.snapshots_.shape == (4, 18)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"record_every": 0}, "record_every=0 must be an integer >= 1"),
        ({"record_every": 2.5}, "record_every=2.5"),
        ({"record_every": True}, "record_every=True"),
        ({"record_every": "epoch"}, "sees steps, no epochs"),
        ({"record_every": LogSpaced(4)}, "has no total"),
        ({"burn_in": -1}, "burn_in=-1 must be an integer >= 0"),
        ({"first_step": 1.5}, "first_step=1.5"),
        ({"dtype": "int8"}, "dtype='int8' must be"),
        ({"record": "outputs"}, "does not see your data"),
        ({"record": 3}, "record=3 must be"),
        ({"parameters": "3.*"}, "fits no trainable parameter"),
        ({"sketch_dim": 30}, "sketch_dim=30"),
        ({"resume": True}, "needs store="),
    ],
)
def test_settings_out_of_range_are_named_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryRecorder(new_module(), **settings)


def test_modules_and_optimizers_that_do_not_fit_are_named_at_once():
    module = new_module()
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        TrajectoryRecorder("module")
    with pytest.raises(ValueError, match=r"holds no parameter of module"):
        TrajectoryRecorder(module, sgd(new_module(1)))
    with pytest.raises(ValueError, match=r"must be a torch\.optim\.Optimizer"):
        TrajectoryRecorder(module, "SGD")
    with pytest.raises(ValueError, match="no trainable parameters"):
        TrajectoryRecorder(nn.Tanh())
    with pytest.raises(ValueError, match="lazy parameter 'weight'"):
        TrajectoryRecorder(nn.LazyLinear(2))
    with TrajectoryRecorder(module) as recorder, pytest.raises(ValueError, match="one number"):
        recorder.log(torch.zeros(3))


def test_doubles_keep_their_precision_on_request(data):
    module = new_module().double()
    optimizer = sgd(module)
    with TrajectoryRecorder(module, dtype=torch.float64) as recorder:
        loop(module, optimizer, (data[0].double(), data[1]), 3)
    assert recorder.snapshots_.dtype == np.float64
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(module))


def test_tied_parameters_come_once(data):
    module = nn.Sequential(nn.Linear(N_FEATURES, N_FEATURES), nn.Linear(N_FEATURES, N_FEATURES))
    module[1].weight = module[0].weight
    with TrajectoryRecorder(module) as recorder:
        pass
    assert recorder.snapshots_.shape == (1, N_FEATURES**2 + 2 * N_FEATURES)


def test_make_mlp_modules_have_the_layout_of_the_risk(data):
    module = make_mlp(N_FEATURES, 2)
    with TrajectoryRecorder(module) as recorder:
        loop(module, sgd(module), data, 2)
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *(part.numpy() for part in data))
    assert recorder.parameter_layout_ == risk.parameter_layout
