"""Display of two embeddings before and after alignment."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skdmap.plotting._axes import axes_and_figure, check_components
from skdmap.plotting._checks import check_result


class AlignmentDisplay:
    """Two maps of the same samples on one another, before and after alignment.

    Parameters
    ----------
    reference : array-like of shape (n_samples, n_components)
        The map that stands still.
    embedding : array-like of shape (n_samples, n_components)
        The other map, as it was fitted.
    aligned : array-like of shape (n_samples, n_components)
        The other map after alignment.
    disparity : float, default=None
        Share of the reference that is left unexplained, for the title.

    Attributes
    ----------
    axes_ : ndarray of shape (2,)
        The axes of the last plot: before and after.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    skdmap.diagnostics.align_embeddings : Computes the result.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import align_embeddings
    >>> from skdmap.plotting import AlignmentDisplay
    >>> reference = np.random.default_rng(0).normal(size=(50, 2)) * [2, 1]
    >>> result = align_embeddings(reference, -reference)
    >>> display = AlignmentDisplay.from_result(result, reference, -reference)
    >>> display.axes_[1].get_title()
    'after alignment (0.0 % unexplained)'
    """

    def __init__(
        self,
        reference: ArrayLike,
        embedding: ArrayLike,
        aligned: ArrayLike,
        *,
        disparity: float | None = None,
    ) -> None:
        self.reference = reference
        self.embedding = embedding
        self.aligned = aligned
        self.disparity = disparity

    @classmethod
    def from_result(
        cls,
        result: Any,
        reference: ArrayLike,
        embedding: ArrayLike,
        *,
        components: Sequence[int] = (0, 1),
        axes: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw an :class:`~skdmap.diagnostics.AlignedEmbedding`.

        Parameters
        ----------
        result : AlignedEmbedding
            What :func:`~skdmap.diagnostics.align_embeddings` returned.
        reference, embedding : array-like of shape (n_samples, n_components)
            What was passed to it.
        components : pair of int, default=(0, 1)
            Coordinates to draw, counted from 0.
        axes : pair of matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.scatter``.

        Returns
        -------
        AlignmentDisplay
            The display, drawn.

        Raises
        ------
        InvalidParameterError
            If ``result`` is of another type.
        ValueError
            If the arrays differ in shape or ``components`` are no two of their columns.
        """
        check_result(result, "align_embeddings", "aligned", "disparity")
        display = cls(reference, embedding, result.aligned, disparity=result.disparity)
        return display.plot(components=components, axes=axes, **kwargs)

    def plot(self, *, components: Sequence[int] = (0, 1), axes: Any = None, **kwargs: Any) -> Self:
        """Draw both pairs of maps.

        Parameters
        ----------
        components : pair of int, default=(0, 1)
            Coordinates to draw, counted from 0.
        axes : pair of matplotlib Axes, default=None
            Axes to draw on; None creates a figure.
        **kwargs : dict
            Passed to ``Axes.scatter``.

        Returns
        -------
        AlignmentDisplay
            The display itself, with ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If the arrays differ in shape or ``components`` are no two of their columns.
        """
        reference = np.asarray(self.reference)
        check_components(components, reference.shape, (2,))
        maps = [np.asarray(self.embedding), np.asarray(self.aligned)]
        for name, coordinates in zip(("embedding", "aligned"), maps, strict=True):
            if coordinates.shape != reference.shape:
                raise ValueError(
                    f"{name} has shape {coordinates.shape}; it must be {reference.shape}, that of "
                    "the reference. Pass maps of the same samples."
                )
        if axes is None:
            first, self.figure_ = axes_and_figure()
            self.figure_.set_size_inches(9.6, 4.8)
            first.remove()
            axes = self.figure_.subplots(1, 2)
        self.axes_ = np.asarray(axes, dtype=object)
        self.figure_ = self.axes_[0].figure
        left = "" if self.disparity is None else f" ({100 * self.disparity:.1f} % unexplained)"
        style = {"s": 9, "alpha": 0.7, "linewidths": 0} | kwargs
        x, y = components
        for ax, coordinates, title in zip(
            self.axes_, maps, ("before alignment", f"after alignment{left}"), strict=True
        ):
            ax.scatter(reference[:, x], reference[:, y], label="reference", **style)
            ax.scatter(coordinates[:, x], coordinates[:, y], label="embedding", **style)
            ax.set_xlabel(f"coordinate {x}")
            ax.set_ylabel(f"coordinate {y}")
            ax.set_title(title)
        self.figure_.legend(
            *self.axes_[0].get_legend_handles_labels(), loc="outside lower center", ncols=2
        )
        return self
