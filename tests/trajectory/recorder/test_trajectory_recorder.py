"""What a recorder keeps of a loop that is not ours is what the loop went through."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdmap import (
    EmpiricalRisk,
    LogSpaced,
    TrajectoryRecorder,
    TrajectorySampler,
    make_mlp,
)
from skdmap.exceptions import DivergenceWarning

N_ROWS, N_FEATURES = 40, 5


def test_rows_and_losses_are_those_of_the_loop_bit_for_bit(data, new_module, loop, sgd):
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


def test_rows_equal_those_of_the_sampler_for_the_same_start_and_batches(data, new_module, sgd):
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
def test_the_cadence_decides_which_steps_are_rows(
    data, every, burn_in, wanted, new_module, loop, sgd
):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record_every=every, burn_in=burn_in) as recorder:
        loop(module, sgd(module), data, 10, log=recorder.log, seen=seen)
    assert recorder.steps_.tolist() == wanted
    for row, step in enumerate(wanted):
        np.testing.assert_array_equal(recorder.snapshots_[row], seen[step][0])
        np.testing.assert_array_equal(recorder.losses_[row], seen[step][1])


def test_outputs_and_callables_are_observed_without_gradients_in_eval_mode(
    data, new_module, loop, sgd
):
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
    with pytest.raises(ValueError, match="are not parameters"):
        outputs.module_at(0)


def test_a_callable_may_return_the_parameters_themselves(data, new_module, loop, sgd):
    module, seen = new_module(), []
    with TrajectoryRecorder(module, record=lambda model: model[2].bias) as recorder:
        loop(module, sgd(module), data, 4, seen=seen)
    np.testing.assert_array_equal(recorder.snapshots_, np.stack([row[-2:] for row, _ in seen]))


def test_module_at_gives_the_loss_that_a_batchnorm_network_had(data, loop, sgd):
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


def test_an_exception_in_the_block_leaves_what_was_recorded(data, new_module, loop, sgd):
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


def test_the_last_row_is_the_last_step_whatever_is_loaded_afterwards(data, new_module, loop, sgd):
    module, seen = new_module(), []
    best = copy.deepcopy(module.state_dict())
    with TrajectoryRecorder(module, record_every=4) as recorder:
        loop(module, sgd(module), data, 6, seen=seen)
        module.load_state_dict(best)
    np.testing.assert_array_equal(recorder.snapshots_[-1], seen[6][0])


def test_a_recorder_that_is_entered_again_goes_on(data, new_module, loop, sgd):
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


def test_what_the_end_of_the_block_sets_says_so_before():
    recorder = TrajectoryRecorder(nn.Linear(2, 1))
    with pytest.raises(AttributeError, match="snapshots_ is there once the recording has ended"):
        recorder.snapshots_  # noqa: B018
    with recorder:
        for name in ("snapshots_", "losses_", "endpoints_", "history_", "parameter_layout_"):
            assert not hasattr(recorder, name)
        with pytest.raises(AttributeError, match="no attribute 'snapshots'"):
            recorder.snapshots  # noqa: B018
        recorder.step()
    assert recorder.snapshots_.shape == (2, 3)
    for name in ("losses_", "endpoints_", "history_", "parameter_layout_"):
        assert hasattr(recorder, name)


def test_one_recorder_is_not_entered_twice_at_once(new_module):
    with TrajectoryRecorder(new_module()) as recorder, pytest.raises(RuntimeError, match="already"):
        recorder.__enter__()


def test_rows_that_are_not_finite_are_left_out(data, new_module, loop, sgd):
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
    ("settings", "message"),
    [
        ({"record_every": 0}, "record_every=0 must be an integer >= 1"),
        ({"record_every": 2.5}, "record_every=2.5"),
        ({"record_every": True}, "record_every=True"),
        ({"record_every": "epoch"}, "sees steps, not epochs"),
        ({"record_every": LogSpaced(4)}, "has no total"),
        ({"burn_in": -1}, "burn_in=-1 must be an integer of at least 0"),
        ({"first_step": 1.5}, "first_step=1.5"),
        ({"dtype": "int8"}, "dtype='int8' must be"),
        ({"record": "outputs"}, "does not see your data"),
        ({"record": 3}, "record=3 must be"),
        ({"parameters": "3.*"}, "matches no trainable parameter"),
        ({"sketch_dim": 30}, "sketch_dim=30"),
        ({"resume": True}, "needs store="),
    ],
)
def test_settings_out_of_range_are_named_at_once(settings, message, new_module):
    with pytest.raises(ValueError, match=message):
        TrajectoryRecorder(new_module(), **settings)


def test_modules_and_optimizers_that_do_not_fit_are_named_at_once(new_module, sgd):
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


def test_doubles_keep_their_precision_on_request(data, new_module, theta, loop, sgd):
    module = new_module().double()
    optimizer = sgd(module)
    with TrajectoryRecorder(module, dtype=torch.float64) as recorder:
        loop(module, optimizer, (data[0].double(), data[1]), 3)
    assert recorder.snapshots_.dtype == np.float64
    np.testing.assert_array_equal(recorder.snapshots_[-1], theta(module))


def test_make_mlp_modules_have_the_layout_of_the_risk(data, loop, sgd):
    module = make_mlp(N_FEATURES, 2)
    with TrajectoryRecorder(module) as recorder:
        loop(module, sgd(module), data, 2)
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), *(part.numpy() for part in data))
    assert recorder.parameter_layout_ == risk.parameter_layout
