"""Lists of neighbours in, intrinsic dimension out.

The kernel sum over listed pairs stops growing where the lists end, so its slope says too little.
"""

import numpy as np
import scipy.sparse as sp

__all__ = ["listed_dimension"]


def listed_dimension(lists: sp.csr_matrix) -> float:
    """Return the dimension from how distances grow along each list.

    Parameters
    ----------
    lists : csr_matrix of shape (n_train, n_train)
        Listed distances; zeros and 5e-324 are rows at the same place.

    Returns
    -------
    float
        1 / mean of log(r_i / d_ij) over listed pairs nearer than r_i, the farthest of the list:
        the estimate of Levina & Bickel 2004 ("Maximum likelihood estimation of intrinsic
        dimension"), averaged over its inverse. 0 where no list has two distances.
    """
    radii = lists.max(axis=1).toarray().reshape(-1)
    far = np.repeat(radii, np.diff(lists.indptr))
    inner = (lists.data > np.finfo(float).tiny) & (lists.data < far)
    if not inner.any():
        return 0.0
    return float(inner.sum() / np.log(far[inner] / lists.data[inner]).sum())
