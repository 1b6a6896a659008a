"""Cadences select the steps that become rows."""

from itertools import pairwise

import numpy as np
import pytest

from skdmap import Displacement, LogSpaced, TrajectorySampler, make_mlp
from skdmap.trajectory._cadence import count_steps, due_by_step, recorded_steps


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 4)) + 2 * np.eye(3, 4)[y], y


def sampler(**params):
    return TrajectorySampler(**{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params})


@pytest.mark.parametrize("burn_in", [0, 1, 7, 20])
@pytest.mark.parametrize("record_every", [1, 3, 7, 50, "epoch"])
def test_burn_in_only_drops_rows(record_every, burn_in):
    every = recorded_steps(record_every, first=0, last=20, steps_per_epoch=6)
    later = recorded_steps(record_every, first=0, last=20, steps_per_epoch=6, burn_in=burn_in)
    assert later.tolist() == [step for step in every if step >= burn_in]
    assert every[0] == 0
    assert every[-1] == 20
    assert (np.diff(every) > 0).all()


@pytest.mark.parametrize(
    ("record_every", "last", "steps"),
    [
        (4, 10, [0, 4, 8, 10]),
        ("epoch", 12, [0, 5, 10, 12]),
        (LogSpaced(4), 27, [0, 1, 3, 9, 27]),
        (Displacement(0.1), 27, [0, 27]),
    ],
)
def test_steps_of_each_cadence(record_every, last, steps):
    assert recorded_steps(record_every, first=0, last=last, steps_per_epoch=5).tolist() == steps


def test_a_loop_of_unknown_length_records_by_number():
    due = due_by_step(4)
    assert [step for step in range(10) if due(step)] == [0, 4, 8]
    due = due_by_step(LogSpaced(4, total=27))
    assert [step for step in range(30) if due(step)] == [0, 1, 3, 9, 27]
    assert not due_by_step(Displacement(0.1))(0)


def test_two_calls_record_what_one_would():
    one = recorded_steps(4, first=0, last=24, steps_per_epoch=12)
    two = [recorded_steps(4, first=a, last=a + 12, steps_per_epoch=12) for a in (0, 12)]
    assert sorted({*two[0].tolist(), *two[1].tolist()}) == one.tolist()


def test_the_first_limit_ends_training():
    assert count_steps(5, 2, None) == 10
    assert count_steps(5, 2, 7) == 7
    assert count_steps(5, 2, 70) == 10
    assert count_steps(5, None, 70) == 70
    with pytest.raises(ValueError, match="max_epochs=None and max_steps=None"):
        count_steps(5, None, None)


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
