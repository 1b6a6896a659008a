"""The loss of a module on data as a function of one flat parameter vector."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from skdmap._parameters import check_real, inner_module, parameter_layout
from skdmap._threads import idle_threads
from skdmap._warning import warn
from skdmap.exceptions import SkdmapWarning
from skdmap.hessian._operators.autodiff import exactly
from skdmap.hessian._operators.base import (
    Chunk,
    CurvatureOperator,
    Subsample,
    accumulator_dtype,
    check_product,
    flat,
    sums_of_products,
)
from skdmap.hessian._operators.memory_budget import MemoryBudget
from skdmap.hessian._operators.process_group import Group
from skdmap.hessian._risk.batch_norm import (
    batch_norm_layers,
    check_statistics,
    recalibrated_statistics,
)
from skdmap.hessian._risk.batch_weights import (
    Shares,
    batch_shares,
    check_smoothed_labels,
    has_sample,
    row_weights,
    sampled_part,
    sampled_rows,
)
from skdmap.hessian._risk.checks import (
    adapted_loss,
    check_graph,
    check_lengths,
    check_loss,
    check_mode,
    check_settings,
    resolve_device,
    resolve_dtype,
    rows_to_differentiate,
)
from skdmap.hessian._risk.chunking import Chunking, warn_if_over_budget
from skdmap.hessian._risk.criterion import reduction_of, resolve_criterion
from skdmap.hessian._risk.curvatures import check_curvature, chunk_graphs, finish_with
from skdmap.hessian._risk.data_loader import batches_of, read_data
from skdmap.hessian._risk.module_loss import ModuleLoss, as_vectors, like


class EmpiricalRisk:
    """Loss of a module on data, as a function of one flat parameter vector.

    The module is copied; the one passed in is never touched. The risk does not change after
    construction, so clones of an estimator that holds it share it.

    Parameters
    ----------
    module : torch.nn.Module
        The model. Its own parameters are the point that :meth:`snapshot` returns.
    criterion : class, torch.nn.Module or function
        ``criterion(module(X), y)``, or ``criterion(module(X))`` when y is None, is a scalar tensor.
        A class is called without arguments first.
        Batches are weighted by what the criterion divides by: the number of samples; for
        ``CrossEntropyLoss`` and ``NLLLoss`` the class weights of the targets that count; nothing
        for ``reduction="sum"``.
    X : array, Tensor of shape (n_samples, ...) or DataLoader
        The data, copied. Floats are converted to ``dtype``; integers and booleans stay as they
        are, or become int64 where the module does not take them. A DataLoader
        yields tensors of samples, or pairs of samples and targets. It is read once, at
        construction; its batches are kept as they come and its generators are left as they were.
    y : array or Tensor of shape (n_samples, ...), default=None
        The targets, likewise. Integers become floats for a criterion of values (``MSELoss`` and
        the like). Targets with one entry per sample take the shape and dtype of such outputs;
        class labels stay as they are.
    parameters : str or sequence of str, default=None
        Shell patterns that select some of the trainable parameters; the others are held fixed.
    batch_size : int, default=None
        Largest number of samples that go through the module at once; None for all. In eval mode
        the result does not depend on it, except by rounding. With None, samples are still divided
        into chunks that fit the processor's cache if the criterion is one of torch's modules and
        the loss is seen to be the sum of its parts.
    dtype : {"float32", "float64"} or torch.dtype, default=None
        Dtype of parameters and data; None keeps that of the module. In float32 eigenvalues are
        accurate to about 1e-6 of the largest.
    device : torch.device or str, default=None
        None keeps that of the module.
    mode : {"eval", "recalibrate", "train"}, default="eval"
        "eval": layers use the module's own buffers, which fit the module's own parameters only.
        "recalibrate": running statistics (BatchNorm) are computed by one pass over the data at
        each point, batch by batch, and then held fixed. "train": batch statistics, which need all
        samples in one batch, and dropout with one fixed mask per batch.
    weight_decay : float, default=0.0
        Adds weight_decay / 2 times the squared norm of the flat vector, as SGD does with this
        ``weight_decay``.
    process_group : ProcessGroup, default=None
        Each rank of the group passes its own samples; losses, divisors and products are summed
        over all ranks. None communicates nothing, even where torch.distributed is initialised. The
        group is dropped, with a warning, when the risk is pickled; the copy is then the risk of
        the rank's own samples.

    Attributes
    ----------
    n_parameters : int
        Length of the flat vector.
    parameter_layout : ParameterLayout
        Names, shapes and slices of the parameters in it.

    Raises
    ------
    TypeError
        If ``module`` is not a module, or X or y do not hold numbers.
    ValueError
        If a parameter is out of range, the lengths of X and y differ, the module has no trainable
        parameters or does not take X, the criterion does not take y, or the loss at the module's
        own parameters is not scalar, finite, deterministic, twice differentiable, or not the sum of
        its batches; if gradient or Hessian do not fit difference quotients on at most 64 samples
        (a hidden ``detach``, a custom backward); or if the loss depends on trainable parameters of
        the module that do not move with the flat vector, as a penalty on ``model.parameters()``.

    Warns
    -----
    SkdmapWarning
        If the loss depends on other trainable tensors, which are held fixed.

    See Also
    --------
    HessianSpectrum : The spectrum of the Hessian of this loss.

    Notes
    -----
    Vectors may be arrays or tensors of shape (n_parameters,). Results are of the same kind, in the
    dtype of the risk.

    Examples
    --------
    For a linear model and the mean squared error the Hessian is 2 X'X / n_samples.

    >>> import numpy as np, torch
    >>> from skdmap import EmpiricalRisk
    >>> X, y = np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([1.0, 3.0])
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> risk = EmpiricalRisk(line, torch.nn.MSELoss(), X, y, dtype=torch.float64)
    >>> risk(np.array([1.0, 1.0]))
    0.0
    >>> bool(np.allclose(risk.matmat(np.zeros(2), np.eye(2)), 2 * X.T @ X / 2))
    True
    """

    @exactly
    def __init__(
        self,
        module: torch.nn.Module,
        criterion: Callable[..., torch.Tensor],
        X: Any,
        y: Any = None,
        *,
        parameters: Any = None,
        batch_size: int | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        mode: str = "eval",
        weight_decay: float = 0.0,
        process_group: Any = None,
    ) -> None:
        check_settings(module, batch_size, weight_decay)
        self._group = Group(process_group)
        check_mode(mode, module, batch_size, self._group.single_process)
        self._mode, self._weight_decay = mode, float(weight_decay)
        module = inner_module(module)
        with self._group.raise_together():
            X, y, sizes = read_data(X, y, batch_size)
            criterion = resolve_criterion(criterion, y)
            self.parameter_layout = layout = parameter_layout(module, parameters)
            check_real(module, layout.names)
            first = dict(module.named_parameters())[layout.names[0]]
            self._dtype = resolve_dtype(first.dtype if dtype is None else dtype)
            self._device = first.device if device is None else resolve_device(device)
            loss = ModuleLoss.of(
                module, criterion, X, y, layout,
                dtype=self._dtype, device=self._device, training=mode == "train",
            )  # fmt: skip
            check_lengths(loss)
            coupled = mode == "train" and bool(batch_norm_layers(module))
            # batch_size is None where samples are coupled, or where a loader has sizes.
            batches = batches_of(len(loss.X), batch_size, None if coupled else sizes)
            check_statistics(loss, batches, mode)
            loss = adapted_loss(loss, batched=len(batches) > 1)
            self._weights = row_weights(loss.criterion, loss.y, len(loss.X))
            self._prepare(loss, batches, module)
        self._sum_over_ranks()

    def _prepare(
        self, loss: ModuleLoss, batches: tuple[slice, ...], module: torch.nn.Module
    ) -> None:
        shares = batch_shares(self._weights, reduction_of(loss.criterion), batches)
        check_smoothed_labels(loss.criterion, loss.y, shares)
        few = rows_to_differentiate(loss, self._weights)
        loss = loss.with_in_place_checked(few)
        loss = check_graph(loss, few, module)
        self._loss, additive = check_loss(loss, few, self._weights, batched=len(batches) > 1)
        self._chunking = Chunking.of(self._loss, batches, additive=additive)

    def _sum_over_ranks(self) -> None:
        """Sum the weights and the number of samples over all ranks."""
        n_rows, n_parameters = float(len(self._loss.X)), float(self.n_parameters)
        sums = self._group.sums(float(self._weights.sum()), n_rows, n_parameters, 1.0)
        self._total, self._n_rows = sums[0], int(sums[1])
        if sums[2] != sums[3] * n_parameters:
            raise ValueError(
                f"module has {self.n_parameters} parameters on this rank of process_group, but "
                "another number on other ranks. Pass the same module on all ranks."
            )

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector."""
        return self.parameter_layout.n_parameters

    def snapshot(self) -> np.ndarray:
        """Return the module's own parameters.

        Returns
        -------
        ndarray of shape (1, n_parameters)
            A snapshot matrix of one row.
        """
        return self._loss.own_point().cpu().numpy()[None]

    @exactly
    def __call__(self, theta: Any) -> float:
        """Return the loss at ``theta``; it may be infinite where it overflows.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.

        Returns
        -------
        float
            The loss.
        """
        loss, point = self._at(theta)
        parts = loss.parts(point)
        own = (s * float(loss.of_rows(parts, rows).detach()) for rows, s in self._shares())
        (total,) = self._group.sums(math.fsum(own))
        return total + 0.5 * self._weight_decay * float(point.double() @ point.double())

    @exactly
    def gradient(self, theta: Any) -> Any:
        """Return the gradient at ``theta``.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            An array for an array, a tensor for a tensor.
        """
        loss, point = self._at(theta)
        leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(point))
        total = torch.zeros(self.n_parameters, dtype=accumulator_dtype(point), device=self._device)
        for rows, share in self._shares():
            _, gradient = loss.value_and_gradient(leaves, rows, share)
            total += flat(gradient)
        self._group.sum_(total)
        total += self._weight_decay * point
        return like(total.to(self._dtype), theta)

    @exactly
    def hvp(self, theta: Any, v: Any) -> Any:
        """Return the Hessian at ``theta`` times one vector.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.
        v : array or Tensor of shape (n_parameters,)
            The vector.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters,)
            An array for an array, a tensor for a tensor.
        """
        vector = as_vectors("v", v, (self.n_parameters,), self._loss.own_point())
        return like(self.matmat(theta, vector[:, None])[:, 0], v)

    @exactly
    def matmat(self, theta: Any, V: Any) -> Any:
        """Return the Hessian at ``theta`` times several vectors.

        The graph of one batch is held at a time.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.
        V : array or Tensor of shape (n_parameters, n_vectors)
            The vectors, as columns.

        Returns
        -------
        ndarray or Tensor of shape (n_parameters, n_vectors)
            An array for an array, a tensor for a tensor.
        """
        loss, point = self._at(theta)
        vectors = as_vectors("V", V, (self.n_parameters, None), point).T.contiguous()
        leaves = tuple(part.clone().requires_grad_(True) for part in loss.parts(point))
        graphs = (chunk(leaves) for chunk in self._chunks(loss, "hessian", self._shares()))
        totals = self._group.sum_(sums_of_products(graphs, vectors, leaves))
        totals += self._weight_decay * vectors
        check_product(totals)
        return like(totals.T.to(self._dtype), V)

    @exactly
    def operator_at(
        self, theta: Any, curvature: str = "hessian", *, memory_budget: Any = None
    ) -> CurvatureOperator:
        """Return v -> C v at ``theta`` for many products.

        With the loss a mean of l_i over samples, and g_i the gradient of l_i, C is

        * "hessian": the Hessian of the loss;
        * "ggn": J' A J, J the Jacobian of the module's outputs and A the second derivative of the
          loss in them (and ``weight_decay`` times the identity);
        * "fisher": the mean of g_i g_i', with the targets of the data;
        * "gradient_covariance": the mean of (g_i - g) (g_i - g)', that of one sample; divide by B
          for batches of B samples drawn with replacement.

        Parameters
        ----------
        theta : array or Tensor of shape (n_parameters,)
            The point.
        curvature : {"hessian", "ggn", "fisher", "gradient_covariance"}, default="hessian"
            Which matrix.
        memory_budget : int, "auto" or MemoryBudget, default=None
            Bytes for kept graphs; those that do not fit are rebuilt for each product. None is
            "auto", a quarter of the free memory.

        Returns
        -------
        CurvatureOperator
            A context manager; leaving it frees the graphs.

        Raises
        ------
        ValueError
            If ``curvature`` is unknown, or it needs the losses of single samples and the criterion
            does not give them.
        """
        if not isinstance(memory_budget, MemoryBudget):
            n_bytes = "auto" if memory_budget is None else memory_budget
            memory_budget = MemoryBudget(n_bytes, self._device)
        return self._operator(theta, curvature, memory_budget)

    def chunk_bytes(self, n_rows: int) -> int:
        """Return the memory that the graph of a product needs, measured on 16 and 32 samples.

        Parameters
        ----------
        n_rows : int
            Number of samples; in train mode the longest batch is used whole.

        Returns
        -------
        int
            Bytes, without data and parameters.
        """
        return self._chunking.n_bytes(n_rows)

    def __repr__(self) -> str:
        return f"EmpiricalRisk(n_parameters={self.n_parameters}, n_samples={len(self._loss.X)})"

    def __sklearn_clone__(self) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if not self._group.single_process:
            warn(
                "process_group is dropped from the pickle: the copy is the risk of the samples of "
                "this rank only. Build it anew with process_group on each rank.",
                SkdmapWarning,
            )
            state.update(
                _group=Group(), _total=float(self._weights.sum()), _n_rows=len(self._loss.X)
            )
        state["_weights"] = self._weights.numpy()  # a tensor pickles with its address
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._weights = torch.from_numpy(self._weights)

    def _operator(self, theta: Any, curvature: str, budget: MemoryBudget) -> CurvatureOperator:
        coupled = self._mode == "train" and bool(batch_norm_layers(self._loss.module))
        check_curvature(curvature, independent_samples=not coupled)
        loss, point = self._at(theta)
        n_threads = idle_threads() if self._device.type == "cpu" else 1
        if self._loss.recomputes:  # products call the module, which is one for all threads
            n_threads = 1
        shares = self._shares(budget.left(), n_threads)
        if self._mode == "train":
            warn_if_over_budget(self._chunking.longest_bytes(shares), budget.left())
        at_point = RiskAtPoint(
            loss, point, curvature, self._chunking, self._weights, self._weight_decay, self._group
        )
        return at_point.operator(
            shares,
            total=self._total,
            n_rows=self._n_rows,
            budget=budget,
            n_threads=self._chunking.n_threads(shares, n_threads),
        )

    def _chunks(self, loss: ModuleLoss, curvature: str, shares: Shares) -> list[Chunk]:
        return chunk_graphs(loss, curvature, shares, total=self._total, n_rows=self._n_rows)

    def _shares(self, left: int | None = None, n_threads: int = 1) -> Shares:
        return self._chunking.shares(self._weights, self._total, left, n_threads)

    def _at(self, theta: Any) -> tuple[ModuleLoss, torch.Tensor]:
        return loss_at(self._loss, theta, self._mode, self._chunking.batches, self._group)


def loss_at(
    loss: ModuleLoss, theta: Any, mode: str, batches: Sequence[slice], group: Group
) -> tuple[ModuleLoss, torch.Tensor]:
    """Return the loss with the buffers of a point, and the point (n_parameters,) as a tensor.
    All ranks of the group must give the same point.
    """
    with group.raise_together():
        point = _checked_point(loss, theta, mode)
    (apart,) = group.sums(float(_differs_from_first(point, group)))
    if apart:
        raise ValueError(
            "theta differs between the ranks of process_group. Broadcast it from one of them."
        )
    if mode != "recalibrate":
        return loss, point
    return replace(
        loss, buffers=recalibrated_statistics(loss, loss.parts(point), batches, group)
    ), point


def _checked_point(loss: ModuleLoss, theta: Any, mode: str) -> torch.Tensor:
    own = loss.own_point()
    # A copy: a module may write into its parameters (torch.nn.Embedding with max_norm).
    point = as_vectors("theta", theta, (len(own),), own).clone()
    if not torch.isfinite(point).all():
        raise ValueError(
            "theta contains NaN or infinity. Take a snapshot from before training diverged."
        )
    if mode == "eval" and loss.has_running_statistics and not torch.equal(point, own):
        warn(
            "theta differs from the module's own parameters, but its running statistics "
            "(BatchNorm) fit those only: the loss may be far off. Build the EmpiricalRisk from "
            "module_at(i) of the trajectory, which holds the buffers of this snapshot, or set "
            "mode='recalibrate'.",
            SkdmapWarning,
        )
    return point


def _differs_from_first(point: torch.Tensor, group: Group) -> bool:
    if group.single_process:
        return False
    mine = point.cpu().double().numpy()
    return not np.array_equal(group.first_rank(mine), mine)


@dataclass(frozen=True)
class RiskAtPoint:
    """The loss of some samples at a point, and how they go through the module."""

    loss: ModuleLoss  # with the buffers of the point
    point: torch.Tensor  # (n_parameters,), in the dtype and on the device of the loss
    curvature: str
    chunking: Chunking
    weights: torch.Tensor  # (n_samples,), from row_weights
    weight_decay: float
    group: Group  # whose ranks hold the other samples

    def operator(
        self,
        shares: Shares,
        *,
        total: float,
        n_rows: int,
        budget: MemoryBudget,
        n_threads: int = 1,  # how many chunks are worked on at once
    ) -> CurvatureOperator:
        """Return the operator of the loss of all samples, with a subsample where it pays.
        ``total``, ``n_rows``: sum of the weights and number of samples over all ranks.
        """
        # Each rank has checked its own samples; all must decide alike.
        (n_undivided,) = self.group.sums(float(not self.chunking.divisible))
        sample = None if n_undivided else self._subsample(n_rows, budget)
        return self._operator(shares, total, n_rows, budget, sample, n_threads)

    def _operator(
        self,
        shares: Any,
        total: float,
        n_rows: int,
        budget: MemoryBudget,
        sample: Subsample | None = None,
        n_threads: int = 1,
    ) -> CurvatureOperator:
        with self.group.raise_together():
            chunks = chunk_graphs(self.loss, self.curvature, shares, total=total, n_rows=n_rows)
        return CurvatureOperator(
            chunks,
            self.point,
            shapes=self.loss.layout.shapes,
            finish=finish_with(self.curvature, self.point, self.weight_decay),
            memory_budget=budget,
            chunk_bytes=n_threads * self.chunking.longest_bytes(shares),
            group=self.group,
            sample=sample,
            n_threads=n_threads,
        )

    def _subsample(self, n_rows: int, budget: MemoryBudget) -> Subsample | None:
        if not has_sample(n_rows):
            return None
        part = sampled_part(n_rows)

        def make() -> CurvatureOperator:
            rows = sampled_rows(self.weights, part)
            total, n_sampled = self.group.sums(float(self.weights[rows].sum()), float(len(rows)))
            pieces = rows.split(self.chunking.rows_of_chunk(budget.left()))
            shares = batch_shares(self.weights, self.chunking.reduction, pieces, total)
            return self._operator(shares, total, int(n_sampled), budget)

        return part, make
