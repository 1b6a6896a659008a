"""What the parameters of the sampler may be, and what to do where one is something else."""

import os
from numbers import Integral, Real
from typing import Any

import torch

from skdmap._validation import Interval, Options, StrOptions
from skdmap.trajectory._cadence import Displacement, LogSpaced

__all__ = ["REMEDIES", "SAMPLER_CONSTRAINTS"]

_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")

SAMPLER_CONSTRAINTS: dict[str, list[Any]] = {
    "module": [callable, None],
    "criterion": [callable, None],
    "optimizer": [callable, str],
    "module_params": [dict, None],
    "criterion_params": [dict, None],
    "optimizer_params": [dict, None],
    "scheduler": [callable, str, None],
    "scheduler_params": [dict, None],
    "scheduler_interval": [StrOptions({"epoch", "step"})],
    "max_epochs": [_AT_LEAST_ONE, None],
    "max_steps": [_AT_LEAST_ONE, None],
    "batch_size": [_AT_LEAST_ONE, None],
    "record_every": [_AT_LEAST_ONE, StrOptions({"epoch"}), LogSpaced, Displacement],
    "burn_in": [Interval(Integral, 0, None, closed="left")],
    "record": [StrOptions({"parameters", "outputs"}), tuple, callable],
    "parameters": [str, list, tuple, None],
    "n_runs": [_AT_LEAST_ONE],
    "label_noise": [Interval(Real, 0, None, closed="left")],
    "sketch_dim": [Interval(Integral, 4, None, closed="left"), None],
    "store": [str, os.PathLike, None],
    "resume": ["boolean"],
    "dtype": [
        StrOptions({"float16", "float32", "float64"}),
        Options(torch.dtype, {torch.float16, torch.float32, torch.float64}),
    ],
    "device": [str, torch.device, None],
    "warm_start": ["boolean"],
    "vectorize": ["boolean"],
    "callbacks": [callable, list, tuple, None],
    "verbose": ["verbose"],
    "random_state": ["random_state", dict],
}

REMEDIES = {
    "module": "Pass a torch.nn.Module, its class or a factory; None makes a small network.",
    "criterion": "Pass torch.nn.MSELoss or the like, an instance of it, or a function of outputs "
    "and targets; None chooses by the type of y.",
    "optimizer": "Pass a subclass of torch.optim.Optimizer, its name, or a factory.",
    "scheduler": "Pass a class of torch.optim.lr_scheduler, its name, or a factory.",
    "scheduler_interval": "Pass 'epoch' to step it after each pass, 'step' after each step.",
    "max_epochs": "Pass 1 or more; None leaves the end to max_steps.",
    "max_steps": "Pass 1 or more; None leaves the end to max_epochs.",
    "record_every": "Pass a number of steps, 'epoch' for one row per pass, "
    "skdmap.LogSpaced(n) or skdmap.Displacement(delta).",
    "burn_in": "0 records from the initialisation on.",
    "record": "Pass 'parameters', 'outputs', ('outputs', X_probe), or a function from the module "
    "to a vector.",
    "batch_size": "None takes all rows in each step.",
    "parameters": "Pass patterns such as '0.*'; None records all.",
    "n_runs": "Pass 1 for a single run.",
    "label_noise": "Pass 0.1 to replace a tenth of the labels; 0 leaves them.",
    "sketch_dim": "Pass a multiple of 4 such as 4096; None keeps the rows themselves.",
    "store": "Pass the path of a folder; None keeps the rows in memory.",
    "dtype": "Pass 'float32' or 'float64', or 'float16' for half-precision differences. It is the "
    "type of the rows; training runs in the type of the module.",
    "device": "Pass 'cpu', or 'cuda' where there is a GPU for it; None keeps the module's own.",
    "callbacks": "Pass a function f(step, loss, module), or a list of them.",
    "random_state": "Pass an integer, or a dict such as {'seed': 0, 'init': 1}.",
}
