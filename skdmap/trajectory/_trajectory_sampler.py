"""class TrajectorySampler: validate, iterate, stack. No training step in it."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdmap._validation import Interval, Options, StrOptions, validate_data, validate_parameters
from skdmap.trajectory._build import build_criterion
from skdmap.trajectory._cadence import count_steps
from skdmap.trajectory._fresh_runs import fresh_runs
from skdmap.trajectory._nested_params import NestedParamsEstimator
from skdmap.trajectory._recording import Plan, record_runs, steps_per_pass
from skdmap.trajectory._runs import cast_inputs, cast_targets, mean_loss
from skdmap.trajectory._snapshot_attributes import SnapshotAttributesMixin
from skdmap.trajectory._table import snapshot_frame
from skdmap.trajectory._targets import Targets, encode_targets
from skdmap.trajectory._training import module_device

__all__ = ["TrajectorySampler"]

_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
_PASSED_ON = (
    "optimizer", "optimizer_params", "batch_size", "record_every",
    "burn_in", "parameters", "verbose",
)  # fmt: skip
_OF_A_START = ("module", "module_params", "n_runs", "device", "random_state")
_REMEDIES = {
    "module": "Pass a torch.nn.Module, its class or a factory; None makes a small network.",
    "criterion": "Pass torch.nn.MSELoss or the like, an instance of it, or a function of outputs "
    "and targets; None chooses by the type of y.",
    "optimizer": "Pass a subclass of torch.optim.Optimizer, its name, or a factory.",
    "max_epochs": "Pass 1 or more; None leaves the end to max_steps.",
    "max_steps": "Pass 1 or more; None leaves the end to max_epochs.",
    "record_every": "Pass a number of steps, or 'epoch' for one row per pass.",
    "burn_in": "0 records from the initialisation on.",
    "batch_size": "None takes all rows in each step.",
    "parameters": "Pass patterns such as '0.*'; None records all.",
    "n_runs": "Pass 1 for a single run.",
    "dtype": "Pass 'float32' or 'float64'. It is the type of the rows; training runs in the type "
    "of the module.",
    "device": "Pass 'cpu', or 'cuda' where there is a GPU for it; None keeps the module's own.",
    "random_state": "Pass an integer, or a dict such as {'seed': 0, 'init': 1}.",
}


class TrajectorySampler(
    SnapshotAttributesMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    NestedParamsEstimator,
):
    """Train a network and record the parameter vectors that it passes through.

    ``fit`` trains; ``transform`` returns the snapshot matrix, one row per recorded step, one
    column per parameter, ready for DiffusionMap, HessianSpectrum or PCA. It is the one
    transformer here that does not map rows to rows: the rows of X are data to train on, the rows
    that come out are moments of training.

    Parameters
    ----------
    module : None, torch.nn.Module, class or factory, default=None
        What is trained. None is ``skdmap.make_mlp(n_features, n_outputs)``. A class or factory is
        called once per run, under the run's own "init" stream. An instance is deep-copied and
        never trained in place: **every run starts from the parameters that it holds**, so that
        runs differ by batch order and dropout only; pass its class for other initialisations.
    criterion : None, class, torch.nn.Module or function, default=None
        The loss, (outputs, targets) -> scalar. None is cross-entropy when y holds integers,
        booleans or strings, and the mean squared error when it holds floats, whole or not. A
        function is the loss itself. Labels are numbered in sorted order, except that a given
        cross-entropy or NLL takes them as they are where all but its ``ignore_index`` are indices
        of outputs of the module; where they are not, ``ignore_index`` in y and a ``weight`` of
        another length than the labels are errors.
    optimizer : str, class or factory, default="SGD"
        A subclass of ``torch.optim.Optimizer``, its name, or what is called as
        ``optimizer(parameters, **optimizer_params)``. Stepped with a closure, so LBFGS works.
    module_params, criterion_params, optimizer_params : dict or None, default=None
        Keyword arguments. ``set_params(optimizer__lr=0.1)`` reaches into them. SGD without "lr"
        gets 0.1: at torch's own 1e-3 ten epochs hardly move a network.
    max_epochs : int or None, default=10
        Passes over the rows. None leaves the end to ``max_steps``.
    max_steps : int or None, default=None
        Optimizer steps. Training ends at whichever limit comes first.
    batch_size : int or None, default=128
        Rows per step; None is all. A smaller last batch is kept.
    record_every : int or "epoch", default=1
        Record the steps that are multiples of it, or the end of each pass. The initialisation is
        step 0; the last step is always recorded.
    burn_in : int, default=0
        Steps before this one are not recorded, not even where training diverges.
    parameters : str, sequence of str or None, default=None
        Shell patterns, as in "0.*", of the names of the parameters that are recorded; all are
        trained.
    n_runs : int, default=1
        Independent runs, stacked in the order in which they were written. Run 0 of five is the
        run of ``n_runs=1``.
    dtype : {"float32", "float64"} or torch.dtype, default="float32"
        Type of the rows, by name or as torch.float32 or torch.float64. Training runs in the type
        of the module.
    device : str, torch.device or None, default=None
        Where to train. Modules are initialised on the CPU. None leaves them where they are.
    verbose : int, default=0
        Above 0: a progress bar, on a terminal only.
    random_state : int, RandomState instance, dict or None, default=None
        Splits into independent streams for initialisation, batch order and dropout, for each run.
        A dict may hold "seed" (the master), and an integer under "init", "batches" or "dropout",
        which holds that stream alike in all runs. None draws fresh entropy from the operating
        system; the global generators of torch and numpy are neither read nor advanced.

    Attributes
    ----------
    snapshots_ : ndarray of shape (n_snapshots, n_parameters)
        Row 0 of a run is its initialisation. All rows are finite.
    steps_ : ndarray of shape (n_snapshots,)
        Optimizer steps made in the run.
    epochs_ : ndarray of shape (n_snapshots,)
        Passes over the rows completed.
    run_ids_ : ndarray of shape (n_snapshots,)
        Number of the run.
    losses_ : ndarray of shape (n_snapshots,)
        Loss at the row, on the batch of the next step, in training mode; for the last row, on the
        last batch again, until ``partial_fit`` makes that next step. Not finite in the last row of
        a run whose loss diverged.
    learning_rates_ : ndarray of shape (n_snapshots,)
        Of the first parameter group, as used by the step that led to the row; row 0: by the next.
    buffers_ : ndarray of shape (n_snapshots, n_buffer_entries)
        Buffers of the module (BatchNorm statistics) at the same moments, in float64.
    module_ : torch.nn.Module
        The module of the last run, in eval mode.
    modules_ : list of torch.nn.Module
        Those of all runs, also of runs that diverged before they left a row.
    parameter_layout_ : ParameterLayout
        Names, shapes and slices of the parameters in a row.
    history_ : dict of ndarray
        One entry per pass: "run", "epoch" (from 1), "loss" and "learning_rate" (of the last step).
        "loss" is the mean of the batches' losses, each at its own step, a batch counted by its
        number of rows. So it is the mean over the rows seen where the criterion is one; with
        ``reduction="sum"`` it is a mean sum per batch; with class weights or ``ignore_index`` a
        batch counts by its rows all the same, not by their weight. ``pandas.DataFrame(history_)``
        works.
    interrupted_ : bool
        True when Ctrl-C ended training; what had been recorded is kept.
    classes_ : ndarray of shape (n_classes,)
        Labels that y stood for, where it held labels; 0, ..., n_outputs - 1 where a given criterion
        took them as they were.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where it had names.

    See Also
    --------
    DiffusionMap : A low-dimensional map of the snapshots.
    HessianSpectrum : Curvature of the loss at a snapshot.

    Notes
    -----
    A module that draws from numpy's generator is not seeded. Rows of one run depend on each
    other: split by ``run_ids_``, never by row.

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

    _nested_prefixes = ("module", "criterion", "optimizer")
    _parameter_constraints: dict[str, list[Any]] = {
        "module": [callable, None],
        "criterion": [callable, None],
        "optimizer": [callable, str],
        "module_params": [dict, None],
        "criterion_params": [dict, None],
        "optimizer_params": [dict, None],
        "max_epochs": [_AT_LEAST_ONE, None],
        "max_steps": [_AT_LEAST_ONE, None],
        "batch_size": [_AT_LEAST_ONE, None],
        "record_every": [_AT_LEAST_ONE, StrOptions({"epoch"})],
        "burn_in": [Interval(Integral, 0, None, closed="left")],
        "parameters": [str, list, tuple, None],
        "n_runs": [_AT_LEAST_ONE],
        "dtype": [
            StrOptions({"float32", "float64"}),
            Options(torch.dtype, {torch.float32, torch.float64}),
        ],
        "device": [str, torch.device, None],
        "verbose": ["verbose"],
        "random_state": ["random_state", dict],
    }

    def __init__(
        self,
        module: Any = None,
        criterion: Any = None,
        optimizer: Any = "SGD",
        *,
        module_params: dict[str, Any] | None = None,
        criterion_params: dict[str, Any] | None = None,
        optimizer_params: dict[str, Any] | None = None,
        max_epochs: int | None = 10,
        max_steps: int | None = None,
        batch_size: int | None = 128,
        record_every: int | str = 1,
        burn_in: int = 0,
        parameters: str | Sequence[str] | None = None,
        n_runs: int = 1,
        dtype: str | torch.dtype = "float32",
        device: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.criterion = criterion
        self.optimizer = optimizer
        self.module_params = module_params
        self.criterion_params = criterion_params
        self.optimizer_params = optimizer_params
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.record_every = record_every
        self.burn_in = burn_in
        self.parameters = parameters
        self.n_runs = n_runs
        self.dtype = dtype
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train from the start and record.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to train on. More than two dimensions are passed on to a module that takes them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values. The default is an error that says so.

        Returns
        -------
        TrajectorySampler
            Fitted.

        Raises
        ------
        ValueError
            If a parameter, X or y is out of range, or the module does not fit them; before
            training.

        Warns
        -----
        DivergenceWarning
            If the loss or the parameters stop being finite. The run ends there.
        """
        X, targets = self._validated(X, y, reset=True)
        per_pass = steps_per_pass(len(X), self.batch_size)
        n_steps = count_steps(per_pass, self.max_epochs, self.max_steps, self.burn_in)
        return self._begin(X, targets, n_steps)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Make one pass over the rows given and append its snapshots.

        The first call starts as ``fit`` does; later ones go on with module, optimizer and random
        streams where the last call left them, with the optimizer's parameters as they are now.
        ``max_epochs`` and ``max_steps`` do not apply. The end of each pass is recorded.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data to train on.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or values. Labels must be among those of the first call.

        Returns
        -------
        TrajectorySampler
            Fitted.
        """
        is_first = not hasattr(self, "snapshots_")
        X, targets = self._validated(X, y, reset=is_first)
        n_steps = steps_per_pass(len(X), self.batch_size)
        if is_first:
            return self._begin(X, targets, n_steps)
        plan = self._plan(X, targets, n_steps, len(self._runs))
        return self._keep(record_runs(self._runs, plan), self._runs)

    def transform(self, X: Any) -> Any:
        """Return the snapshots that ``fit`` recorded, whatever the rows of X.

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
            # scikit-learn would put the index of X on rows that are moments of training.
            return snapshot_frame(self._trajectory(), self.get_feature_names_out())
        return self.snapshots_

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the loss of ``module_`` on all rows given, in eval mode.

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
        X, targets = self._validated(X, y, reset=False)
        criterion = self._criterion(targets)(module_device(self.module_))
        inputs = cast_inputs(X, self.module_)
        values = cast_targets(targets.values, inputs, self.module_, criterion)
        return -mean_loss(self.module_, criterion, inputs, values, self.batch_size or len(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, Targets]:
        validate_parameters(self, _REMEDIES)
        X, y = validate_data(self, X, y, reset=reset, multi_output=True, allow_nd=True)
        if self.module is None and X.ndim != 2:
            raise ValueError(
                f"X has shape {X.shape}, must have two dimensions for module=None. Reshape it, or "
                "pass a module that takes it."
            )
        known = None if reset else vars(self).get("classes_")
        targets = encode_targets(y, self._indexing_criterion(), known)
        if targets.classes is not None:
            self.classes_ = targets.classes
        elif reset:
            self.__dict__.pop("classes_", None)
        return X, targets

    def _indexing_criterion(self) -> Any:
        """Return a given criterion as built, so that its weight and ignore_index can be read."""
        if self.criterion is None:  # without settings, and y may hold any labels
            return None
        return build_criterion(self.criterion, self.criterion_params, torch.device("cpu"))

    def _begin(self, X: np.ndarray, targets: Targets, n_steps: int) -> Self:
        settings = {name: getattr(self, name) for name in _OF_A_START}
        runs, targets = fresh_runs(X[:2], targets, self._indexing_criterion(), **settings)
        if targets.classes is not None:
            self.classes_ = targets.classes
        return self._keep(record_runs(runs, self._plan(X, targets, n_steps, self.n_runs)))

    def _criterion(self, targets: Targets) -> Callable[[torch.device], Any]:
        default = nn.MSELoss if targets.classes is None else nn.CrossEntropyLoss
        criterion = default if self.criterion is None else self.criterion
        return partial(build_criterion, criterion, self.criterion_params)

    def _plan(self, X: np.ndarray, targets: Targets, n_steps: int, n_runs: int) -> Plan:
        return Plan(
            X=X,
            targets=targets.values,
            criterion=self._criterion(targets),
            n_runs=n_runs,
            n_steps=n_steps,
            dtype=str(self.dtype).removeprefix("torch."),
            **{name: getattr(self, name) for name in _PASSED_ON},
        )
