"""Functions on matrices that rules with `scope="tensor"` may call.

As `ops`, this module imports torch only when a function needs it. State that a parameter does not have is None: it acts
as the identity in a product, and functions of it return None.
"""

import math
from typing import Any

from .newton_schulz import newton_schulz

Value = Any  # a number or a torch.Tensor


def row_means(a: Value) -> Value:
    """Return the mean of each row of a matrix `[..., rows, columns]`, as `[..., rows, 1]`; 0 without columns."""
    return a.mean(-1, keepdim=True) if a.shape[-1] else a.sum(-1, keepdim=True)


def column_means(a: Value) -> Value:
    """Return the mean of each column of a matrix `[..., rows, columns]`, as `[..., 1, columns]`; 0 without rows."""
    return a.mean(-2, keepdim=True) if a.shape[-2] else a.sum(-2, keepdim=True)


def epsilon(a: Value) -> float:
    """Return the machine epsilon of the dtype of a tensor."""
    from torch import finfo

    return float(finfo(a.dtype).eps)


def exists(state: Value) -> bool:
    """Return True if the parameter has a state that only some shapes of parameters have; see `State.kind`."""
    return state is not None


def lerp(a: Value, b: Value, weight: float) -> Value:
    """Return `a + weight * (b - a)`, rounded as `torch.lerp` does."""
    return a.lerp(b, weight)


def axpy(factor: float, a: Value, b: Value) -> Value:
    """Return `factor * a + b`, rounded once where the device has such an instruction; named as in BLAS."""
    return b.add(a, alpha=factor)


def matmul(a: Value, b: Value) -> Value:
    """Return the matrix product, in which a state that does not exist acts as the identity."""
    return b if a is None else a if b is None else a @ b


def transpose(a: Value) -> Value:
    """Return the transpose of a matrix; vectors, and state that does not exist, stay as they are."""
    return a if a is None or a.dim() < 2 else a.mT


def eigenvectors(a: Value) -> Value:
    """Return the eigenvectors of a symmetric matrix as columns, in descending order of their eigenvalues."""
    return None if a is None else _eigh(a)[1].flip(-1)


def matrix_power(a: Value, exponent: float, eps: float) -> Value:
    """Return (a + ε)ᵖ of a positive semi-definite matrix, where ε is added to the eigenvalues."""
    if a is None:
        return None
    values, vectors = _eigh(a)
    return (vectors * (values.clamp(min=0) + eps) ** exponent) @ vectors.mT


def order(a: Value, vectors: Value) -> Value:
    """Return the indices that sort the columns q of `vectors` by the estimated eigenvalue qᵀ a q, largest first."""
    return None if a is None else (vectors * (a @ vectors)).sum(0).argsort(descending=True)


def reordered(a: Value, rows: Value, columns: Value) -> Value:
    """Return the rows and columns of a matrix in the order of the given indices, or in theirs if these do not exist."""
    a = a if rows is None else a[rows]
    return a if columns is None else a[:, columns]


def qr(a: Value, vectors: Value) -> Value:
    """Return an orthonormal basis after a step of the power iteration: the Q of the QR decomposition of a · vectors.

    The columns of `vectors` are first sorted, see `order`.
    """
    from torch.linalg import qr as decompose

    return None if a is None else decompose((a @ vectors)[:, order(a, vectors)])[0]


def _eigh(a: Any) -> Any:
    """Return the eigenvalues and eigenvectors of a symmetric matrix; NaN if it has elements that are not finite."""
    import torch

    if not bool(a.isfinite().all()):
        return a.new_full((len(a),), math.nan), a.new_full(a.shape, math.nan)
    try:
        return torch.linalg.eigh(a)
    except RuntimeError:  # in float32, the iteration does not always converge
        return tuple(part.to(a.dtype) for part in torch.linalg.eigh(a.double()))


def rows(a: Value) -> int:
    """Return the number of rows of a matrix."""
    return int(a.shape[-2])


def columns(a: Value) -> int:
    """Return the number of columns of a matrix."""
    return int(a.shape[-1])


SHAPE = {"rows", "columns", "epsilon", "exists"}
"""Names of the functions that return a number for a tensor, from its shape or dtype."""
# `rows` and `columns` exist because Muon scales its step by the shape of the matrix.
MATRIX = {"matmul": 2, "transpose": 1, "rows": 1, "columns": 1, "eigenvectors": 1, "matrix_power": 3, "qr": 2}
MATRIX |= {"order": 2, "reordered": 3, newton_schulz.__name__: 6}
"""Names of the functions that make a rule one on matrices, with their numbers of arguments."""
MATRIX_FUNCTIONS = {"row_means": 1, "column_means": 1, "epsilon": 1, "exists": 1, "lerp": 3, "axpy": 3, **MATRIX}
"""Names of all functions of this module, with their numbers of arguments."""
STACKED = {"lerp", "axpy", "transpose", "rows", "columns", newton_schulz.__name__}
"""Names of the functions that have the same bits for a matrix in a stack, `[n, rows, columns]`, as for a matrix alone.
Others act on the whole tensor, or may sum in another order, as `matmul` does."""
