"""Modes of torch that a caller may have left on, and that must not reach training."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def training_modes() -> Iterator[None]:
    """Turn gradients on, and inference mode, autocast and a default device of "meta" off."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type == "meta":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def on_cpu() -> Iterator[None]:
    """Make the CPU the default device, on which modules are initialised."""
    # A default device costs time in each call of torch, so none is set where it is the CPU.
    if torch.get_default_device().type == "cpu":
        yield
        return
    with torch.device("cpu"):
        yield
