"""The one place where ``random_state`` becomes numpy and torch generators."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skdmap._argument_checks import is_integer

# torch is imported where it is used: the diffusion leg needs numpy_generator and no torch.
if TYPE_CHECKING:
    import torch

# The position is the number of the stream. It goes into every seed: append, never reorder.
STREAMS = ("init", "batches", "dropout", "label_noise")


def numpy_generator(random_state: Any) -> np.random.Generator:
    """Return a numpy Generator for a ``random_state``; a Generator is returned unchanged.
    A RandomState is advanced by one draw. None draws fresh entropy.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


@dataclass(frozen=True)
class SeedStreams:
    """Seeds of independent random streams for several runs, all derived from ``master``.
    ``held`` maps a stream to the seed that all runs share.
    """

    master: int
    held: Mapping[str, int] = field(default_factory=dict)

    def seed(self, stream: str, run: int) -> int:
        """Return the seed, in [0, 2^64), of one stream of one run.
        A stream held at the seed s gives every run what run 0 of the master seed s gets.
        """
        # Depends on stream and run, not on the order of calls, as SeedSequence.spawn would.
        entropy, run = (self.held[stream], 0) if stream in self.held else (self.master, run)
        sequence = np.random.SeedSequence(entropy, spawn_key=(STREAMS.index(stream), run))
        return int(sequence.generate_state(1, np.uint64)[0])


def resolve_seeds(random_state: Any) -> SeedStreams:
    """Return the seed streams of a ``random_state``: int, RandomState, None, or a dict.
    The dict holds "seed" (the master) and an integer for each stream that all runs share.
    """
    if not isinstance(random_state, Mapping):
        return SeedStreams(_master_seed(random_state, "random_state"))
    for key, value in random_state.items():
        if key not in ("seed", *STREAMS):
            raise ValueError(
                f"random_state has the unknown key {key!r}. Use 'seed' and the streams "
                f"{', '.join(map(repr, STREAMS))}."
            )
        if key != "seed" and not _is_seed(value):
            raise ValueError(
                f"random_state[{key!r}]={value!r} must be an integer >= 0. Leave the key out for "
                "draws that differ from run to run."
            )
    held = {key: int(value) for key, value in random_state.items() if key != "seed"}
    return SeedStreams(_master_seed(random_state.get("seed"), "random_state['seed']"), held)


def _is_seed(value: Any) -> bool:
    return is_integer(value) and int(value) >= 0


def _master_seed(seed: Any, name: str) -> int:
    if seed is None:
        fresh: Any = np.random.SeedSequence().entropy
        return int(fresh)
    if isinstance(seed, np.random.RandomState):
        return int(seed.randint(2**31 - 1))
    if not _is_seed(seed):
        raise ValueError(
            f"{name}={seed!r} must be an integer >= 0, a numpy RandomState, or None for a fresh "
            "seed each time."
        )
    return int(seed)


@contextmanager
def forked_torch(device: "torch.device") -> Iterator[None]:
    """Restore torch's global generators (CPU and ``device``) on exit; for use with seed_torch.
    They are ours until then: other threads of skdmap wait.
    """
    with _GENERATORS:
        states = get_torch_state(device)
        try:
            yield
        finally:
            set_torch_state(states, device)


class TorchStream:
    """A random stream that torch's global generators draw from inside of ``with``.
    Outside they are as they were, and ``states`` is where the stream stands.
    """

    def __init__(self, states: "list[torch.Tensor]", device: "torch.device") -> None:
        self.states, self._device = states, device
        self._outer: list[torch.Tensor] = []

    def __enter__(self) -> None:
        _GENERATORS.__enter__()
        try:
            self._outer = get_torch_state(self._device)
            set_torch_state(self.states, self._device)
        except BaseException:
            _GENERATORS.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        self.states = get_torch_state(self._device)
        set_torch_state(self._outer, self._device)
        _GENERATORS.__exit__()


class _GlobalGenerators:
    """A lock on torch's global generators: re-entrant, first come, first served."""

    def __init__(self) -> None:
        self._lock, self._queue = threading.Lock(), threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner != me:
            # A thread that gives the lock back and wants it again stands behind those that wait.
            with self._queue:
                self._lock.acquire()
            self._owner = me
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()

    def reset(self) -> None:
        """Free the lock in a forked process, where its owner does not exist."""
        if self._owner != threading.get_ident():
            self.__init__()  # type: ignore[misc]


# Threads share torch's global generators, so that one thread at a time may seed them.
_GENERATORS = _GlobalGenerators()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_GENERATORS.reset)


def seed_torch(seed: int, device: "torch.device") -> None:
    """Seed torch's global generators of the CPU and of ``device``, and no others."""
    import torch

    # torch.manual_seed would reach every device, including those that nobody restores.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        state = torch.Generator(device=device).manual_seed(seed).get_state()
        torch.get_device_module(device.type).set_rng_state(state, _index(device))


def seeded_states(seed: int, device: "torch.device") -> "list[torch.Tensor]":
    """Return the states that :func:`seed_torch` gives to the generators, leaving them alone."""
    import torch

    places = [torch.device("cpu")] + ([device] if device.type != "cpu" else [])
    return [torch.Generator(device=place).manual_seed(seed).get_state() for place in places]


def get_torch_state(device: "torch.device") -> list["torch.Tensor"]:
    """Return the states of torch's global generators, of the CPU and of ``device``."""
    import torch

    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device.type).get_rng_state(_index(device)))
    return states


def set_torch_state(states: list["torch.Tensor"], device: "torch.device") -> None:
    """Restore what :func:`get_torch_state` returned."""
    import torch

    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(states[1], _index(device))


def _index(device: "torch.device") -> int:
    import torch

    if device.index is not None:
        return device.index
    return int(torch.get_device_module(device.type).current_device())
