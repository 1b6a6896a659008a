"""Alignment of two embeddings of the same samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svd


@dataclass(frozen=True)
class AlignedEmbedding:
    """An embedding rotated onto a reference.

    Attributes
    ----------
    aligned : ndarray of shape (n_samples, n_components)
        ``scale * embedding @ rotation``, in the order and with the signs of the reference.
    rotation : ndarray of shape (n_components, n_components)
        Orthogonal; reflections are allowed. Column k holds the combination of coordinates of the
        embedding that stands for coordinate k of the reference.
    scale : float
        Factor of the embedding; 1 unless ``scale=True`` was asked for.
    disparity : float
        Sum of squared differences from the reference, divided by the sum of squares of the
        reference: 0 for equal shapes, 1 for an embedding that explains nothing.
    mixing : ndarray of shape (n_components,)
        For each coordinate of the reference, 1 minus the largest squared entry of its column of
        ``rotation``: 0 where one coordinate of the embedding stands for it up to its sign, near 1
        where many take part.
    n_samples : int
        Number of samples used; those with NaN in either embedding are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import align_embeddings
    >>> reference = np.random.default_rng(0).normal(size=(50, 2)) * [2, 1]
    >>> print(align_embeddings(reference, -reference[:, ::-1]).summary())
    After alignment 0.0 % of the reference is left unexplained (50 samples). Coordinate 0 is
    coordinate 1 with its sign changed; coordinate 1 is coordinate 0 with its sign changed.
    """

    aligned: np.ndarray
    rotation: np.ndarray
    scale: float
    disparity: float
    mixing: np.ndarray
    n_samples: int

    def summary(self) -> str:
        """Describe the result in words.

        Returns
        -------
        str
            Two sentences: what is left unexplained, and what each coordinate is made of.
        """
        sources = np.abs(self.rotation).argmax(axis=0)
        parts = []
        for k, source in enumerate(sources):
            if self.mixing[k] > 0.1:
                parts.append(f"coordinate {k} mixes several (mixing {self.mixing[k]:.2f})")
            else:
                sign = " with its sign changed" if self.rotation[source, k] < 0 else ""
                parts.append(f"coordinate {k} is coordinate {source}{sign}")
        text = "; ".join(parts)
        return (
            f"After alignment {100 * self.disparity:.1f} % of the reference is left unexplained "
            f"({self.n_samples} samples). {text[0].upper()}{text[1:]}."
        )


def align_embeddings(
    reference: ArrayLike, embedding: ArrayLike, *, scale: bool = False
) -> AlignedEmbedding:
    """Rotate an embedding onto a reference of the same samples.

    Eigenvectors have no sign, and coordinates with close eigenvalues rotate among themselves from
    fit to fit. The orthogonal matrix R that minimises ``||embedding R - reference||_F`` is
    U V', with embedding' reference = U S V' (orthogonal Procrustes). Nothing is translated:
    diffusion coordinates have the weighted mean 0.

    Parameters
    ----------
    reference : array-like of shape (n_samples, n_components)
        Coordinates to align with, such as ``DiffusionMap.embedding_``.
    embedding : array-like of shape (n_samples, n_components)
        Coordinates of the same samples in the same order. Rows that contain NaN in either array
        are left out of the fit; their aligned coordinates are those of the rotation.
    scale : bool, default=False
        Whether to multiply the embedding by the factor that fits best.

    Returns
    -------
    AlignedEmbedding
        Aligned coordinates, rotation, what is left unexplained, and how coordinates mix.

    Raises
    ------
    ValueError
        If the shapes differ or are not two-dimensional, an entry is infinite, fewer complete rows
        than components are left, or an embedding is 0 in all of them.

    References
    ----------
    Schönemann, P. H. (1966). A generalized solution of the orthogonal Procrustes problem.
    Psychometrika 31, 1-10. https://doi.org/10.1007/BF02289451

    Examples
    --------
    >>> import numpy as np
    >>> from skdmap.diagnostics import align_embeddings
    >>> reference = np.random.default_rng(0).normal(size=(100, 2))
    >>> turned = reference @ [[0.6, 0.8], [-0.8, 0.6]]
    >>> bool(align_embeddings(reference, turned).disparity < 1e-12)
    True
    """
    target, source = np.asarray(reference), np.asarray(embedding)
    if target.ndim != 2 or target.shape != source.shape:
        raise ValueError(
            f"reference has shape {target.shape} and embedding {source.shape}; both must be "
            "(n_samples, n_components) with the same samples and as many coordinates. Select the "
            "common samples and the first coordinates of both; of a map pass its embedding_."
        )
    dtype = np.result_type(target, source, np.float32)
    target, source = target.astype(np.float64), source.astype(np.float64)
    for name, values in (("reference", target), ("embedding", source)):
        if np.isinf(values).any():
            raise ValueError(
                f"{name} contains infinity; entries must be finite, or NaN for samples to leave "
                "out. Replace them."
            )
    complete = ~(np.isnan(target) | np.isnan(source)).any(axis=1)
    a, b = target[complete], source[complete]
    if len(a) < target.shape[1] or not a.any() or not b.any():
        raise ValueError(
            f"{len(a)} samples without NaN are left for {target.shape[1]} coordinates; there must "
            "be at least as many samples as coordinates, not all 0. Pass more samples."
        )
    # Scaled so that tiny or huge coordinates neither vanish nor overflow in products.
    size_a, size_b = np.abs(a).max(), np.abs(b).max()
    left, values, right = svd((b / size_b).T @ (a / size_a))
    rotation = left @ right
    factor = 1.0
    if scale:
        factor = float(values.sum() / np.sum((b / size_b) ** 2) * size_a / size_b)
    difference = (factor * (b @ rotation) - a) / size_a
    return AlignedEmbedding(
        aligned=(factor * (source @ rotation)).astype(dtype),
        rotation=rotation,
        scale=factor,
        disparity=float(np.sum(difference**2) / np.sum((a / size_a) ** 2)),
        mixing=1.0 - np.square(rotation).max(axis=0),
        n_samples=len(a),
    )
