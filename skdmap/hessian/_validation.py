"""Checks of parameters that HessianSpectrum and hessian_spectrum_path share."""

from typing import Any

DIVERGED = "Pass only the snapshots before the run diverged."


def check_loss_fits(loss: Any, n_parameters: int) -> None:
    """Raise if there is no loss, or if it has another number of parameters than X has columns."""
    if loss is None:
        raise ValueError(
            "loss=None: a loss is needed. Pass an EmpiricalRisk, or a function that maps a flat "
            "torch tensor of shape (n_parameters,) to a scalar tensor."
        )
    expected = getattr(loss, "n_parameters", n_parameters)
    if expected != n_parameters:
        raise ValueError(
            f"X has {n_parameters} columns, but loss has n_parameters = {expected}. Rows of X are "
            "parameter vectors of the module in loss, as loss.snapshot() or a TrajectorySampler of "
            "the same module returns them. Of a sketch (sketch_dim) pass endpoints_[run], the full "
            "first and last row of a run."
        )


def check_max_matvecs(max_matvecs: int | None, n_pairs: int) -> None:
    """Raise if fewer products are allowed than pairs are wanted."""
    if max_matvecs is not None and max_matvecs < n_pairs:
        raise ValueError(
            f"max_matvecs={max_matvecs} must be >= n_components = {n_pairs}: each eigenpair takes "
            "at least one product. Raise it, or set it to None."
        )


def check_block_size(block_size: int, n_components: int) -> None:
    """Raise if the search would start from more vectors than eigenpairs are wanted."""
    if block_size > n_components:
        raise ValueError(
            f"block_size={block_size} must be in [1, {n_components}]: a block finds as many copies "
            f"of an eigenvalue as it has vectors, and n_components={n_components}. Lower "
            "block_size, or raise n_components."
        )


def check_block_fits(block_size: int, n_pairs: int, max_basis: int) -> None:
    """Raise if the memory budget holds too few vectors for a block."""
    most = max(1, max_basis - n_pairs - 4)
    if block_size > most:
        raise ValueError(
            f"block_size={block_size} must be in [1, {most}]: memory_budget holds {max_basis} "
            f"vectors, and {n_pairs} eigenpairs and the iteration need the others. Raise "
            "memory_budget, or lower block_size."
        )
