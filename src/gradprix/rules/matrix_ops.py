"""Functions on matrices that rules with `scope="tensor"` may call.

As `ops`, this module imports torch only when a function needs it. State that a parameter does not have is None: it acts
as the identity in a product, and functions of it return None.
"""

import math
from typing import Any

from .newton_schulz import newton_schulz

Value = Any  # a number or a torch.Tensor
SMALL = 128
"""Maximum side of matrices whose product is rounded alike alone and in a stack."""
SIDE = 4
"""The sides of matrices whose products are stacked are multiples of this: all matrices of a stack, and their products,
then begin at multiples of 64 bytes, as they do alone. MKL rounds by alignment."""


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
    return b if a is None else a if b is None else _product(a, b)


def _product(a: Any, b: Any) -> Any:
    """Return the matrix product of two matrices, or of each of two stacks, with the same rounding up to `SMALL`."""
    first, second = (m if m.dim() > 2 else m[None] for m in (a, b))
    if len(first) == 1 and max(*first.shape, second.shape[-1]) <= SMALL and a.device.type == "cpu":
        # MKL divides a single product among threads, whose results it adds, and the products of a stack never.
        first, second = (m.expand(2, -1, -1) for m in (first, second))
    product = first @ second
    return product[: len(a)] if a.dim() > 2 else product[0]


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
    return _product(vectors * _power(values.clamp(min=0) + eps, exponent).unsqueeze(-2), vectors.mT)


def _power(values: Any, exponent: float) -> Any:
    """Return the powers of the values of a matrix, or of each of a stack, with the same rounding."""
    import torch

    # Torch uses one function within full vectors of the processor, and another for what remains.
    return values**exponent if values.dim() == 1 else torch.stack([own**exponent for own in values])


def order(a: Value, vectors: Value) -> Value:
    """Return the indices that sort the columns q of `vectors` by the estimated eigenvalue qᵀ a q, largest first."""
    return None if a is None else _order(vectors, _product(a, vectors))


def reordered(a: Value, rows: Value, columns: Value) -> Value:
    """Return the rows and columns of a matrix in the order of the given indices, or in theirs if these do not exist."""
    a = a if rows is None else a.take_along_dim(rows.unsqueeze(-1), -2)
    return a if columns is None else a.take_along_dim(columns.unsqueeze(-2), -1)


def qr(a: Value, vectors: Value) -> Value:
    """Return an orthonormal basis after a step of the power iteration: the Q of the QR decomposition of a · vectors.

    The columns of `vectors` are first sorted, see `order`.
    """
    from torch.linalg import qr as decompose

    if a is None:
        return None
    products = _product(a, vectors)
    return decompose(reordered(products, None, _order(vectors, products)))[0]


def _order(vectors: Any, products: Any) -> Any:
    """Return the indices that sort the scalar products of columns of two matrices, largest first."""
    # The terms of each sum are adjacent in memory, so that it is added in the same order in a stack.
    sums = (vectors * products).mT.contiguous().sum(-1)
    return sums.argsort(dim=-1, descending=True, stable=True)


def _eigh(a: Any) -> Any:
    """Return eigenvalues and eigenvectors of a symmetric matrix, or of each of a stack; NaN if it is not finite."""
    import torch

    finite = a.isfinite().all(-1).all(-1)[..., None]
    is_finite = bool(finite.all())
    try:
        values, vectors = torch.linalg.eigh(a if is_finite else a.where(finite[..., None], 0))
    except RuntimeError:  # in float32, the iteration does not always converge
        if a.dim() > 2:
            return tuple(map(torch.stack, zip(*map(_eigh, a), strict=True)))
        values, vectors = (part.to(a.dtype) for part in torch.linalg.eigh(a.double()))
    return (
        (values, vectors) if is_finite else (values.where(finite, math.nan), vectors.where(finite[..., None], math.nan))
    )


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
PRODUCTS = {"matmul", "eigenvectors", "matrix_power", "qr", "order"}
"""Names of the functions whose rounding depends on the place of a matrix in memory: MKL rounds by alignment."""
MATRIX_FUNCTIONS = {"row_means": 1, "column_means": 1, "epsilon": 1, "exists": 1, "lerp": 3, "axpy": 3, **MATRIX}
"""Names of all functions of this module, with their numbers of arguments."""
