import numpy as np
import pytest
import torch

from skdmap._random import (
    STREAMS,
    forked_torch,
    get_torch_state,
    numpy_generator,
    resolve_seeds,
    seed_torch,
    set_torch_state,
)

CPU = torch.device("cpu")


def test_every_stream_of_every_run_has_a_seed_of_its_own():
    seeds = resolve_seeds(0)
    values = [seeds.seed(stream, run) for stream in STREAMS for run in range(50)]
    assert len(set(values)) == len(values)


def test_a_seed_is_that_of_the_spawn_key_whatever_was_asked_before():
    expected = np.random.SeedSequence(7, spawn_key=(STREAMS.index("batches"), 3))
    seeds = resolve_seeds(7)
    seeds.seed("init", 0)
    assert seeds.seed("batches", 3) == int(expected.generate_state(1, np.uint64)[0])


def test_a_held_stream_is_alike_in_all_runs_and_leaves_the_others_alone():
    held, free = resolve_seeds({"seed": 0, "batches": 5}), resolve_seeds(0)
    assert held.seed("batches", 0) == held.seed("batches", 9)
    assert held.seed("batches", 0) == resolve_seeds(5).seed("batches", 0)
    for stream in ("init", "dropout"):
        assert held.seed(stream, 9) == free.seed(stream, 9)


def test_none_is_fresh_each_time_and_does_not_read_the_global_generator():
    np.random.seed(0)  # noqa: NPY002 - the global generator is what is tested
    expected = np.random.RandomState(0).rand()
    assert resolve_seeds(None).master != resolve_seeds(None).master
    assert resolve_seeds({"init": 1}).master != resolve_seeds({"init": 1}).master
    assert np.random.rand() == expected  # noqa: NPY002


def test_a_random_state_is_advanced_by_one_draw():
    given, twin = np.random.RandomState(3), np.random.RandomState(3)
    assert resolve_seeds(given).master == twin.randint(2**31 - 1)
    assert given.randint(1000) == twin.randint(1000)
    assert resolve_seeds({"seed": np.random.RandomState(3)}) == resolve_seeds(
        np.random.RandomState(3)
    )


@pytest.mark.parametrize(
    ("random_state", "message"),
    [
        ({"sed": 0}, "'sed'.*'seed'.*'init', 'batches', 'dropout'"),
        ({"init": -1}, r"random_state\['init'\]=-1"),
        ({"init": None}, "Leave the key out"),
        ({"seed": 0.5}, r"random_state\['seed'\]=0.5"),
        (-1, "random_state=-1"),
        (True, "random_state=True"),
    ],
)
def test_bad_seeds_are_named(random_state, message):
    with pytest.raises(ValueError, match=message):
        resolve_seeds(random_state)


def test_forked_torch_restores_the_generator_after_an_error():
    before = torch.get_rng_state()

    def fail():
        with forked_torch(CPU):
            seed_torch(0, CPU)
            raise KeyError(torch.rand(3))

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_put_back_repeats_what_followed_it():
    with forked_torch(CPU):
        seed_torch(11, CPU)
        states = get_torch_state(CPU)
        first = torch.rand(4)
        set_torch_state(states, CPU)
        assert torch.equal(torch.rand(4), first)
        seed_torch(12, CPU)
        assert not torch.equal(torch.rand(4), first)


def test_numpy_generator_repeats_for_an_integer_and_passes_a_generator_through():
    assert numpy_generator(4).random() == numpy_generator(4).random()
    generator = np.random.default_rng(0)
    assert numpy_generator(generator) is generator
