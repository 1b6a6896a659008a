"""class TrajectorySampler: validate, make runs, record them, store the results."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdmap._argument_checks import validate_parameters
from skdmap._parameters import ParameterLayout
from skdmap._random import SeedStreams, resolve_seeds
from skdmap._sklearn_compat import (
    CallbackSupportMixin,
    DocLinkMixin,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_data,
    with_callbacks,
)
from skdmap.trajectory._cadence import (
    Displacement,
    LogSpaced,
    WallClock,
    check_reached,
    count_steps,
    explicit_steps,
)
from skdmap.trajectory._nested_params import with_nested_names, without_nested_names
from skdmap.trajectory._storage.table import SnapshotTable
from skdmap.trajectory._storage.writer import SnapshotWriter
from skdmap.trajectory._training.callbacks import after_row
from skdmap.trajectory._training.checkpoint import checksum, describe, stored_seeds
from skdmap.trajectory._training.config import TrainingConfig, steps_per_pass
from skdmap.trajectory._training.factories import build_criterion
from skdmap.trajectory._training.initialization import fresh_runs
from skdmap.trajectory._training.module_io import cast_inputs, cast_targets, mean_loss
from skdmap.trajectory._training.module_state import module_device, restored_module
from skdmap.trajectory._training.observables import check_record
from skdmap.trajectory._training.run_state import Run, pass_history
from skdmap.trajectory._training.runner import Recording, record_runs
from skdmap.trajectory._training.targets import Targets, encode_targets, noisy_targets
from skdmap.trajectory._training.torch_context import training_modes

_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
# The sentence after scikit-learn's message on a parameter out of range.
_REMEDIES = {
    "module": "Pass a torch.nn.Module, its class or a factory; None makes a small network.",
    "criterion": "Pass torch.nn.MSELoss or the like, an instance of it, or a function of outputs "
    "and targets; None chooses by the type of y.",
    "optimizer": "Pass a subclass of torch.optim.Optimizer, its name, or a factory.",
    "scheduler": "Pass a class of torch.optim.lr_scheduler, its name, or a factory.",
    "scheduler_interval": "Pass 'epoch' to step it after each pass, 'step' after each step.",
    "max_epochs": "Pass 1 or more; None leaves the end to max_steps.",
    "max_steps": "Pass 1 or more; None leaves the end to max_epochs.",
    "record_every": "Pass a number of steps, 'epoch' for one row per pass, a sequence of steps, "
    "skdmap.LogSpaced(n), skdmap.Displacement(delta) or skdmap.WallClock(seconds).",
    "burn_in": "0 records from the initialisation on.",
    "record": "Pass 'parameters', 'outputs', ('outputs', X_probe), or a function from the module "
    "to a vector.",
    "batch_size": "None takes all samples in each step.",
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
# <prefix>_params is a dict, and <prefix>__key a key of it.
_PREFIXES = ("module", "criterion", "optimizer", "scheduler")
# Parameters that change no bit of a row: they may differ between a recording and its resumption.
_FREE = ("store", "resume", "warm_start", "callbacks", "verbose", "random_state")


class TrajectorySampler(
    DocLinkMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Train a network and record its parameter vectors during training.

    ``fit`` trains; ``transform`` returns the snapshot matrix, one row per recorded step and one
    column per parameter, ready for DiffusionMap, HessianSpectrum or PCA. Unlike other
    transformers, it does not map samples to rows: the samples in X are training data, and the rows
    of the result are steps of training.

    Parameters
    ----------
    module : None, torch.nn.Module, class or factory, default=None
        The network. None is ``skdmap.make_mlp(n_features, n_outputs)``. A class or factory is
        called once per run, with the run's own "init" stream. An instance is deep-copied and never
        trained in place: **every run starts from its parameters**, so that runs differ in batch
        order and dropout only; pass the class for different initialisations.
    criterion : None, class, torch.nn.Module or function, default=None
        The loss, (outputs, targets) -> scalar. None is cross-entropy when y holds integers,
        booleans or strings, and the mean squared error when it holds floats, whole or not. A
        function is the loss itself. Labels are numbered in sorted order. With an explicit
        cross-entropy or NLL, labels that are indices of outputs of the module, apart from
        ``ignore_index``, are kept as they are; other labels together with ``ignore_index``, or
        with a ``weight`` of another length than the labels, are errors.
    optimizer : str, class or factory, default="SGD"
        A subclass of ``torch.optim.Optimizer``, its name, or a function called as
        ``optimizer(parameters, **optimizer_params)``. Stepped with a closure, so LBFGS works.
    module_params, criterion_params, optimizer_params : dict or None, default=None
        Keyword arguments. ``set_params(optimizer__lr=0.1)`` reaches into them. SGD without "lr"
        gets 0.1: at torch's own 1e-3 ten epochs hardly move a network.
    scheduler : str, class, factory or None, default=None
        A class of ``torch.optim.lr_scheduler``, its name, or a function called as
        ``scheduler(optimizer, **scheduler_params)``. ReduceLROnPlateau is given the mean loss since
        its last step.
    scheduler_params : dict or None, default=None
        Keyword arguments; ``set_params(scheduler__gamma=0.5)`` reaches into them.
    scheduler_interval : {"epoch", "step"}, default="epoch"
        Step the scheduler after each pass or after each optimizer step.
    max_epochs : int or None, default=10
        Passes over the data. None leaves the end to ``max_steps``.
    max_steps : int or None, default=None
        Optimizer steps. Training ends at whichever limit comes first.
    batch_size : int or None, default=128
        Samples per step; None is all. A smaller last batch is kept.
    record_every : int, "epoch", sequence of int, LogSpaced, Displacement or WallClock, default=1
        Record the steps that are multiples of it, the end of each pass, the steps in an ascending
        sequence, ``LogSpaced(n)`` steps, or a step whenever the parameters have moved by
        ``Displacement(delta)`` or ``WallClock(seconds)`` have passed. The initialisation is step
        0, recorded unless a sequence leaves it out; the last step is always recorded.
    burn_in : int, default=0
        Steps before this one are not recorded.
    record : "parameters", "outputs", ("outputs", X_probe) or callable, default="parameters"
        Content of a row. "outputs": log-probabilities (cross-entropy, NLL) or predictions on the
        training samples, or on those of ``X_probe``, in eval mode, flattened samples first. A
        function from the module to a vector: what it returns; it finds no gradients in the
        parameters, and may compute its own.
    parameters : str, sequence of str or None, default=None
        Shell patterns, as in "0.*", of the names of the parameters that are recorded, and in which
        lengths are measured. All parameters are trained.
    n_runs : int, default=1
        Independent runs, stacked in the order in which they were recorded. Run 0 of five is the
        run of ``n_runs=1``.
    label_noise : float, default=0.0
        Share of the labels that is replaced once, before training, by another class drawn
        uniformly. Where y holds values: Gaussian noise of so many standard deviations of y, added
        once. Training and ``losses_`` use the noisy labels, ``score`` the labels it is given.
    sketch_dim : int or None, default=None
        Store a sparse Johnson-Lindenstrauss sketch of so many columns, a multiple of 4, instead of
        each row. Squared distances have a relative error of about sqrt(2 / sketch_dim).
    store : path-like or None, default=None
        A folder to which rows are appended during training; ``snapshots_`` is then a read-only
        memory map, pickled as its path. A folder that holds rows is an error unless
        ``resume=True``.
    resume : bool, default=False
        Let ``fit`` continue where a killed or interrupted ``fit`` with the same store, parameters
        and data stopped; on a CPU the rows equal those of an undisturbed fit bit for bit. A new
        folder is begun.
    dtype : {"float32", "float64", "float16"} or torch.dtype, default="float32"
        Type of the rows. "float16" stores one row in 64 as float32 and half-precision differences
        between rows, each with a relative error of 2e-4; ``snapshots_`` decodes rows on access.
        Training runs in the type of the module.
    device : str, torch.device or None, default=None
        Where to train. Modules are initialised on the CPU. None leaves them where they are.
    warm_start : bool, default=False
        Let the next ``fit`` continue all runs and append its rows.
    vectorize : bool, default=False
        Train all runs in a batch, for optimizers that update each entry independently. Rows are
        then ordered by step, and equal those of separate runs up to rounding.
    callbacks : callable, sequence of callable or None, default=None
        Functions f(step, loss, module), called after each recorded step, with the module at that
        step and the gradient of that loss in its parameters; True ends the run there. Random
        numbers that they draw, and changes of buffers and gradients, are undone.
    verbose : int, default=0
        Above 0: show a progress bar in terminals and notebooks, lines elsewhere.
    random_state : int, RandomState instance, dict or None, default=None
        Seeds independent streams for initialisation, batch order, dropout and label noise of each
        run. A dict may hold "seed" (the master), and an integer under "init", "batches", "dropout"
        or "label_noise", which makes that stream the same in all runs. None draws fresh entropy
        from the operating system; the global generators of torch and numpy are neither read nor
        advanced.

    Attributes
    ----------
    snapshots_ : ndarray of shape (n_snapshots, n_parameters)
        Row 0 of a run is its initialisation. All rows are finite.
    steps_ : ndarray of shape (n_snapshots,)
        Number of optimizer steps made in the run.
    epochs_ : ndarray of shape (n_snapshots,)
        Number of passes over the data completed.
    run_ids_ : ndarray of shape (n_snapshots,)
        Number of the run.
    losses_ : ndarray of shape (n_snapshots,)
        Loss at the row, on the batch of the next step, in training mode; for the last row, on the
        last batch again, until ``partial_fit`` makes that next step. Always finite: a run that
        diverges is recorded up to the last row with a finite loss.
    learning_rates_ : ndarray of shape (n_snapshots,)
        Of the first parameter group, in the step that led to the row; in row 0, in the next step.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers of the module (BatchNorm statistics) at the same steps, in float64.
    path_lengths_ : ndarray of shape (n_snapshots,)
        Sum of the lengths of the steps since the previous row, recorded or not; nan in the first
        row of a run.
    sketch_error_ : ndarray of shape (n_snapshots,) or None
        With a sketch: squared length of the sketched step from the previous row over the exact
        one, minus 1.
    step_lengths_, start_distances_ : ndarray of shape (n_snapshots,) or None
        With a sketch: exact distances from the previous row, and from the first row of the run.
    endpoints_ : dict of int to (ndarray, ndarray), or None
        With a sketch: the full first and last row of each run.
    module_ : torch.nn.Module
        The module of the last run, in eval mode.
    modules_ : list of torch.nn.Module
        The modules of all runs, including runs that diverged before their first row.
    parameter_layout_ : ParameterLayout
        Names, shapes and slices of the parameters in a row.
    history_ : dict of ndarray
        One entry per pass: "run", "epoch" (from 1), "loss" and "learning_rate" (of the last step).
        "loss" is the mean of the losses of the batches, each at its own step, weighted by their
        numbers of samples; class weights and ``ignore_index`` do not change these weights, and
        with ``reduction="sum"`` it is a mean sum per batch. ``pandas.DataFrame(history_)`` works.
    interrupted_ : bool
        True when Ctrl-C ended training after the step under way; recorded rows are kept. A second
        Ctrl-C raises KeyboardInterrupt.
    classes_ : ndarray of shape (n_classes,)
        The labels in y, where y holds labels; 0, ..., n_outputs - 1 where an explicit criterion
        took them as they were.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where it had names.

    See Also
    --------
    DiffusionMap : A low-dimensional map of the snapshots. Set ``bandwidth="auto"``, see Notes.
    HessianSpectrum : Curvature of the loss at a snapshot.

    Notes
    -----
    A module that draws from another generator than torch's global one (numpy's, one of its own) is
    not seeded for it, and ``resume`` does not repeat its draws. Rows of one run are dependent:
    split them by ``run_ids_``, not at random. For the same reason DiffusionMap needs
    ``bandwidth="auto"`` here: with its default, the neighbours of a snapshot are the steps around
    it, and the first coordinate is time.

    ``fit`` does not depend on the modes of torch around it: it trains under ``torch.no_grad`` and
    ``inference_mode`` too, and without autocast; a module may use autocast in its forward. Fits in
    several threads give the rows of each fit alone. Those that draw random numbers (dropout, or
    a module, loss or optimizer of your own) take turns step by step, since threads share torch's
    global generator, and other threads must not draw from it meanwhile. So a callback must not
    wait for another thread that trains.

    References
    ----------
    .. [1] C. Fjellström, K. Nyström, "Deep learning, stochastic gradient descent and diffusion
       maps", arXiv:2204.01365, 2022. https://doi.org/10.48550/arXiv.2204.01365

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdmap import TrajectorySampler
    >>> X, y = load_digits(return_X_y=True)
    >>> sampler = TrajectorySampler(max_epochs=2, n_runs=2, random_state=0)
    >>> sampler.fit_transform(X / 16, y).shape  # 2 runs of 1 + 2 * 15 rows
    (62, 2410)
    >>> bool(sampler.losses_[30] < sampler.losses_[0])
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
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
        "record_every": [
            _AT_LEAST_ONE,
            StrOptions({"epoch"}),
            LogSpaced,
            Displacement,
            WallClock,
            "array-like",
        ],
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

    snapshots_: Any
    buffers_: np.ndarray
    run_ids_: np.ndarray
    steps_: np.ndarray
    epochs_: np.ndarray
    losses_: np.ndarray
    learning_rates_: np.ndarray
    path_lengths_: np.ndarray
    sketch_error_: np.ndarray | None
    step_lengths_: np.ndarray | None
    start_distances_: np.ndarray | None
    _runs: list[Run]
    _writer: SnapshotWriter | None  # of rows in memory

    def __init__(
        self,
        module: Any = None,
        criterion: Any = None,
        optimizer: Any = "SGD",
        *,
        module_params: dict[str, Any] | None = None,
        criterion_params: dict[str, Any] | None = None,
        optimizer_params: dict[str, Any] | None = None,
        scheduler: Any = None,
        scheduler_params: dict[str, Any] | None = None,
        scheduler_interval: str = "epoch",
        max_epochs: int | None = 10,
        max_steps: int | None = None,
        batch_size: int | None = 128,
        record_every: Any = 1,
        burn_in: int = 0,
        record: Any = "parameters",
        parameters: str | Sequence[str] | None = None,
        n_runs: int = 1,
        label_noise: float = 0.0,
        sketch_dim: int | None = None,
        store: Any = None,
        resume: bool = False,
        dtype: str | torch.dtype = "float32",
        device: Any = None,
        warm_start: bool = False,
        vectorize: bool = False,
        callbacks: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.criterion = criterion
        self.optimizer = optimizer
        self.module_params = module_params
        self.criterion_params = criterion_params
        self.optimizer_params = optimizer_params
        self.scheduler = scheduler
        self.scheduler_params = scheduler_params
        self.scheduler_interval = scheduler_interval
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.record_every = record_every
        self.burn_in = burn_in
        self.record = record
        self.parameters = parameters
        self.n_runs = n_runs
        self.label_noise = label_noise
        self.sketch_dim = sketch_dim
        self.store = store
        self.resume = resume
        self.dtype = dtype
        self.device = device
        self.warm_start = warm_start
        self.vectorize = vectorize
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train and record; from the start, unless ``warm_start`` or ``resume`` says otherwise.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data. More than two dimensions are passed on to a module that takes them.
            Floats are given to the module in the type of its parameters, and so are integers and
            booleans, unless it has an embedding layer (``torch.nn.Embedding``, ``EmbeddingBag``),
            fails on floats, or X holds integers that its type cannot hold exactly: it is then
            given int64 or booleans, where it takes them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values. The default raises an error that says so.

        Returns
        -------
        TrajectorySampler
            Fitted.

        Raises
        ------
        ValueError
            If a parameter, X or y is out of range, or the module does not fit them; before
            training.
        OSError
            If ``store`` cannot be written, or holds rows and ``resume`` is False.
        KeyboardInterrupt
            At the second Ctrl-C, or at the first before there is a row.

        Warns
        -----
        DivergenceWarning
            If the loss or the parameters stop being finite. The run ends there.
        SkdmapWarning
            If Ctrl-C ended training.
        """
        is_continued = self.warm_start and hasattr(self, "_runs")
        X, targets = self._validate(X, y, reset=not is_continued)
        per_pass = steps_per_pass(len(X), self.batch_size)
        burn_in = 0 if is_continued else self.burn_in
        n_steps = count_steps(per_pass, self.max_epochs, self.max_steps, burn_in)
        if not self.warm_start:  # else a later call may reach them
            check_reached(self.record_every, n_steps)
        with training_modes():
            return self._train(X, targets, n_steps, is_continued=is_continued)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Make one pass over the given data and append its snapshots.

        The first call starts as ``fit`` does; later ones continue with module, optimizer and random
        streams where the last call left them, and with the current ``optimizer_params``.
        ``max_epochs`` and ``max_steps`` do not apply. The end of each pass is recorded.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values. Labels must be among those of the first call.

        Returns
        -------
        TrajectorySampler
            Fitted.

        Raises
        ------
        ValueError
            If a parameter, X or y is out of range, or ``resume=True`` in the first call.
        """
        is_continued = hasattr(self, "_runs")
        X, targets = self._validate(X, y, reset=not is_continued)
        if self.resume and not is_continued:
            raise InvalidParameterError(
                f"resume=True with store={os.fspath(self.store)!r}: partial_fit cannot know which "
                "pass the folder ends with. Call fit, or continue with the sampler that wrote it."
            )
        n_steps = steps_per_pass(len(X), self.batch_size)
        with training_modes():
            return self._train(X, targets, n_steps, is_continued=is_continued)

    def transform(self, X: Any) -> Any:
        """Return the snapshots that ``fit`` recorded, whatever the samples in X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Its number of features is checked.

        Returns
        -------
        ndarray of shape (n_snapshots, n_parameters)
            ``snapshots_``. After ``set_output(transform="pandas")`` a frame with the index
            (run, step).
        """
        check_is_fitted(self)
        validate_data(self, X, reset=False, allow_nd=True)
        config = getattr(self, "_sklearn_output_config", {})
        if config.get("transform", get_config()["transform_output"]) == "pandas":
            # scikit-learn would put the index of X on rows that are steps of training.
            import pandas as pd

            index = pd.MultiIndex.from_arrays([self.run_ids_, self.steps_], names=["run", "step"])
            rows = np.asarray(self.snapshots_)
            return pd.DataFrame(rows, index=index, columns=self.get_feature_names_out())
        return self.snapshots_

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the loss of ``module_`` on the given data, in eval mode.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values.

        Returns
        -------
        float
            Higher is better.
        """
        check_is_fitted(self)
        X, targets = self._validate(X, y, reset=False)
        device = module_device(self.module_)
        criterion = build_criterion(self._criterion(targets), self.criterion_params, device)
        with training_modes():
            inputs = cast_inputs(X, self.module_)
            values = cast_targets(targets.values, inputs, self.module_, criterion)
            return -mean_loss(self.module_, criterion, inputs, values, self.batch_size or len(X))

    def module_at(self, i: int) -> nn.Module:
        """Return a copy of the module with the parameters and buffers of row ``i``.

        Parameters
        ----------
        i : int
            Row of ``snapshots_``; negative ones count from the end.

        Returns
        -------
        torch.nn.Module
            In eval mode.

        Raises
        ------
        ValueError
            If rows hold only some of the parameters, sketches, or something else.
        """
        check_is_fitted(self)
        if not self._rows_are_parameters or self.sketch_error_ is not None:
            setting = "sketch_dim" if self.sketch_error_ is not None else "record"
            raise ValueError(
                f"The rows do not hold parameters ({setting} is set), so no module can be built "
                "from one. Fit with record='parameters' and sketch_dim=None; modules_ holds the "
                "last module of each run."
            )
        module = next(run.module for run in self._runs if run.index == self.run_ids_[i])
        theta = np.asarray(self.snapshots_[i])
        return restored_module(module, self.parameter_layout_, theta, self.buffers_[i])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Add one name ``prefix__key`` for each key of each dict.

        Returns
        -------
        dict
            Parameter names and values.
        """
        # Shallow, because a module given by the user may have a get_params of its own.
        params = super().get_params(deep=False)
        return with_nested_names(params, _PREFIXES) if deep else params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, among them keys of the dicts, as in ``optimizer__lr=0.1``.

        A nested name replaces the dict by a new one: a dict that was passed in is never changed.

        Parameters
        ----------
        **params : dict
            Parameter names, plain or nested, and values.

        Returns
        -------
        TrajectorySampler
            The estimator itself.

        Raises
        ------
        InvalidParameterError
            If a name or a prefix is unknown; nothing is set then. Keys after the prefix are
            checked in ``fit``, when it is known what they are passed to.
        """
        own = self.get_params(deep=False)
        changes = without_nested_names(params, own, _PREFIXES, type(self).__name__)
        for name, value in changes.items():
            setattr(self, name, value)
        return self

    @property
    def _n_features_out(self) -> int:
        return int(self.snapshots_.shape[1])

    def _validate(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, Targets]:
        validate_parameters(self, _REMEDIES)
        if self.resume and self.store is None:
            raise InvalidParameterError(
                "resume=True needs store=, the folder to continue. Pass it, or resume=False."
            )
        after_row(self.callbacks)  # an error where one cannot be called
        explicit_steps(self.record_every)  # an error where steps are not in order
        X, y = validate_data(self, X, y, reset=reset, multi_output=True, allow_nd=True)
        if self.module is None and X.ndim != 2:
            raise ValueError(
                f"X has shape {X.shape}; it must have two dimensions for module=None. Reshape it, "
                "or pass a module that takes it."
            )
        known = None if reset else vars(self).get("classes_")
        targets = encode_targets(y, self._explicit_criterion(), known)
        self._set_classes(targets, reset=reset)
        return X, targets

    def _train(self, X: np.ndarray, targets: Targets, n_steps: int, *, is_continued: bool) -> Self:
        """Train fresh runs, or those of the last call, for ``n_steps`` steps each."""
        runs: Iterable[Run]
        writer = None
        if is_continued:
            runs, n_runs, writer = self._runs, len(self._runs), vars(self).get("_writer")
        else:
            n_runs = self.n_runs
            runs, targets = self._fresh_runs(X, targets)
        config = TrainingConfig(
            criterion=self._criterion(targets),
            criterion_params=self.criterion_params,
            n_steps=n_steps,
            n_runs=n_runs,
            is_continued=is_continued,
            optimizer=self.optimizer,
            optimizer_params=self.optimizer_params,
            scheduler=self.scheduler,
            scheduler_params=self.scheduler_params,
            scheduler_interval=self.scheduler_interval,
            batch_size=self.batch_size,
            record_every=self.record_every,
            burn_in=self.burn_in,
            record=check_record(self.record, X),
            parameters=self.parameters,
            label_noise=self.label_noise,
            sketch_dim=self.sketch_dim,
            dtype=self._dtype_name(),
            store=self.store,
            resume=self.resume,
            manifest=self._manifest,
            vectorize=self.vectorize,
            callbacks=self.callbacks,
            verbose=self.verbose,
        )
        recording = record_runs(runs, X, targets, config, writer, fitted=self)
        self._rows_are_parameters = isinstance(config.record, str)
        return self._set_results(recording, self._runs if is_continued else recording.runs)

    def _fresh_runs(self, X: np.ndarray, targets: Targets) -> tuple[Iterable[Run], Targets]:
        """Return runs at step 0, and the targets for the width of their module."""
        if self.resume:
            seeds = stored_seeds(self.random_state, self.store)
        else:
            seeds = resolve_seeds(self.random_state)
        runs, targets = fresh_runs(
            X[:2],
            targets,
            self._explicit_criterion(),
            module=self.module,
            module_params=self.module_params,
            n_runs=self.n_runs,
            device=self.device,
            seeds=seeds,
        )
        self._set_classes(targets, reset=False)
        noisy_targets(targets, self.label_noise, seed=0)  # an error before anything is trained
        self._manifest = {} if self.store is None else self._describe(X, targets, seeds)
        return runs, targets

    def _describe(self, X: np.ndarray, targets: Targets, seeds: SeedStreams) -> dict[str, Any]:
        """Return what a resumed recording must share with the one that it continues."""
        params = self.get_params(deep=False)
        settings = {name: describe(v) for name, v in params.items() if name not in _FREE}
        settings["module"] = "make_mlp" if self.module is None else settings["module"]
        settings["dtype"] = self._dtype_name()
        settings["record_every"] = describe(explicit_steps(self.record_every) or self.record_every)
        settings["seeds"] = {"master": seeds.master, "held": dict(seeds.held)}
        settings["data"] = {"X": checksum(X), "y": checksum(targets.values)}
        settings["n_threads"] = torch.get_num_threads()
        return settings

    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _explicit_criterion(self) -> Any:
        """Return a criterion of the user's as built, to read its weight and ignore_index."""
        # The default one has no settings, and y may hold any labels for it.
        if self.criterion is None:
            return None
        return build_criterion(self.criterion, self.criterion_params, torch.device("cpu"))

    def _criterion(self, targets: Targets) -> Any:
        if self.criterion is not None:
            return self.criterion
        return nn.MSELoss if targets.classes is None else nn.CrossEntropyLoss

    def _set_classes(self, targets: Targets, *, reset: bool) -> None:
        if targets.classes is not None:
            self.classes_ = targets.classes
        elif reset:
            self.__dict__.pop("classes_", None)

    def _set_results(self, recording: Recording, runs: list[Run]) -> Self:
        if not len(recording.table.steps) and all(run.diverged for run in runs):
            raise ValueError(
                f"burn_in={self.burn_in}: every run diverged before that step, at step "
                f"{max(run.step for run in runs)} at the latest, so no row was recorded. Lower "
                "optimizer_params['lr'], scale X and y, or lower burn_in."
            )
        self._set_columns(recording.table)
        self._runs, self._writer = runs, recording.writer
        self.modules_ = [run.module for run in self._runs]
        self.module_ = self.modules_[-1]
        self.parameter_layout_: ParameterLayout = recording.layout
        self.history_ = pass_history(self._runs)
        self.interrupted_ = recording.interrupted
        return self

    def _set_columns(self, table: SnapshotTable) -> None:
        for name, column in vars(table).items():
            if name != "scalars":  # a sampler has none
                setattr(self, f"{name}_", column)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if state.get("_writer") is not None:
            # The columns are views of what the writer holds, and would be pickled twice.
            columns = {f"{field.name}_" for field in fields(SnapshotTable)}
            state = {name: value for name, value in state.items() if name not in columns}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        writer = state.get("_writer")
        if writer is not None:
            self._set_columns(writer.table())

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags
