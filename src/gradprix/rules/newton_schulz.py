"""Newton-Schulz iteration, by which Muon orthogonalizes a matrix approximately."""

from typing import Any

SMALLEST_STACKED = 17
"""Smallest side of a matrix from which on torch multiplies the matrices of a stack in bfloat16, on the CPU, exactly as
it multiplies each of them. Products of up to 16³ multiplications are summed in another order alone than in a stack."""


def newton_schulz(d: Any, eps: float, a: float, b: float, c: float, steps: float) -> Any:
    """Orthogonalize a matrix approximately: replace its singular values by values near 1.

    The matrix is divided by the maximum of its Frobenius norm and `eps`. Each step of the iteration then replaces every
    singular value s by a s + b s³ + c s⁵. As in `torch.optim.Muon`, it computes in bfloat16, with the same operations
    in the same order, and the result is in bfloat16.

    Args:
        d: matrix, `[rows, columns]`, or a stack of matrices, `[n, rows, columns]`, with the result of each alone.
        eps: lower bound of the norm.
        a: coefficient of the first power.
        b: coefficient of the third power.
        c: coefficient of the fifth power.
        steps: number of steps.
    """
    is_tall, o = d.shape[-2] > d.shape[-1], d.bfloat16()
    o = o.clone() if o is d else o
    o = o.mT if is_tall else o  # equivalent, and cheaper
    o.div_(o.norm(dim=(-2, -1), keepdim=True).clamp(min=eps))
    if o.dim() > 2 and len(o) == 1:  # products of single matrices are faster as such
        o = _iterate(o[0], a, b, c, int(steps))[None]
    elif o.dim() > 2 and o.shape[-2] < SMALLEST_STACKED and o.device.type == "cpu":
        for matrix in o:
            matrix.copy_(_iterate(matrix, a, b, c, int(steps)))
    else:
        o = _iterate(o, a, b, c, int(steps))
    return o.mT if is_tall else o


def _iterate(o: Any, a: float, b: float, c: float, steps: int) -> Any:
    """Return the result of the Newton-Schulz iteration for one matrix or a stack of matrices."""
    multiply_add = type(o).addmm if o.dim() == 2 else type(o).baddbmm
    for _ in range(steps):
        gram = o @ o.mT
        update = multiply_add(gram, gram, gram, beta=b, alpha=c)
        o = multiply_add(o, update, o, beta=a)
    return o
