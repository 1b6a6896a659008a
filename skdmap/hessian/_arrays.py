"""What a user passes as an array -> tensors of a known shape, and back in the same kind."""

from typing import Any

import numpy as np
import torch

__all__ = ["as_data", "as_vectors", "like", "match_column"]


def as_data(name: str, data: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return rows of data as a tensor; floats take ``dtype``, integers become int64.

    Parameters
    ----------
    name : str
        For the message.
    data : array or Tensor of shape (n_rows, ...)
        The data.
    dtype : torch.dtype
        Of floats.
    device : torch.device
        Where it is to be.

    Returns
    -------
    Tensor of shape (n_rows, ...)
        A copy, contiguous.

    Raises
    ------
    TypeError
        If it does not hold numbers.
    ValueError
        If it has no rows, or holds no numbers, NaN or infinity.
    """
    if not isinstance(data, torch.Tensor):
        array = np.asarray(data)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{name} has dtype {array.dtype}, must be numbers. Encode labels as integers "
                "(sklearn.preprocessing.LabelEncoder) and pass an array or a tensor."
            )
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()  # torch can read neither
        data = torch.as_tensor(array)
    if data.is_complex():
        raise TypeError(
            f"{name} has dtype {data.dtype}, must be real numbers. Pass torch.view_as_real({name}) "
            "and make them complex in the module."
        )
    if data.is_meta:
        raise ValueError(
            f"{name} is on the meta device, where tensors hold no numbers. Pass an array, or a "
            "tensor on another device."
        )
    if data.dim() == 0 or len(data) == 0:
        raise ValueError(f"{name} has shape {tuple(data.shape)}, must have at least one row.")
    if data.is_floating_point() and not torch.isfinite(data).all():
        raise ValueError(f"{name} contains NaN or infinity. Drop or impute these rows.")
    kind = dtype if data.is_floating_point() else torch.int64
    data = data.detach().to(device=device, dtype=kind, copy=True)
    return data.contiguous()  # equal data have equal hashes, whatever their strides were


def as_vectors(
    name: str, data: Any, shape: tuple[int, int | None] | tuple[int], like: torch.Tensor
) -> torch.Tensor:
    """Return a vector or a matrix of vectors as a tensor of the dtype and device of ``like``.

    Parameters
    ----------
    name : str
        For the message.
    data : array or Tensor
        The vectors, as columns.
    shape : tuple of int or None
        What its shape must be; None for any.
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Tensor
        Detached.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    if not isinstance(data, torch.Tensor):
        data = torch.from_numpy(np.array(data, dtype=np.float64))
    fits = data.dim() == len(shape) and all(
        wanted in (None, actual) for wanted, actual in zip(shape, data.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n_vectors" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} has shape {tuple(data.shape)}, must be ({wanted}{',' * (len(shape) == 1)}) "
            f"with n_parameters = {shape[0]}. A row of a snapshot matrix is snapshots[i]."
        )
    return data.detach().to(device=like.device, dtype=like.dtype)


def like(result: torch.Tensor, given: Any) -> Any:
    """Return ``result`` as a tensor if ``given`` is one, else as an array."""
    return result if isinstance(given, torch.Tensor) else result.cpu().numpy()


def match_column(y: torch.Tensor, output: Any, *, labels: bool) -> torch.Tensor:
    """Return targets of one entry a row in the shape, and of the dtype, of such an output.

    Parameters
    ----------
    y : Tensor of shape (n_rows,) or (n_rows, 1)
        The targets; any other shape is returned as it is.
    output : Tensor of shape (n_rows, 1) or (n_rows,)
        What the module returned.
    labels : bool
        Whether the criterion takes integers as numbers of classes; it gets them as they are.

    Returns
    -------
    Tensor
        Left as they are, (n_rows,) against (n_rows, 1) would broadcast to all pairs of rows.
    """
    one_each = isinstance(output, torch.Tensor) and output.numel() == y.numel() == len(y)
    if not one_each or (labels and not y.is_floating_point()):
        return y
    column = y.reshape(output.shape)
    return column.to(output.dtype) if output.is_floating_point() else column
