"""The core of a bond as the solution of a disciplined parametrised program.

For comparison with the other solvers: every row of every core is a small cone program of its own,
which an interior-point method solves and differentiates implicitly, on the CPU and in float64.
References: {cite}`agrawal2019differentiable`.
"""

from functools import lru_cache

import torch
from torch import Tensor


def solve_program(matrix: Tensor, pivot: Tensor, ridge: float) -> Tensor:
    """Minimise |X P - M|^2 + ridge s^2 |X|^2 with s^2 = |P|^2 / r.

    Args:
        matrix: Fibers M `(K, m, c)`.
        pivot: Pivots P `(K, r, c)`.
        ridge: Weight above zero.

    Returns:
        X of shape `(K, m, r)`, differentiable once.

    Raises:
        ImportError: If `cvxpylayers` is not installed.
    """
    k, m, c = matrix.shape
    r = pivot.shape[1]
    square = pivot.square().sum((-2, -1), keepdim=True)
    size = torch.where(square > 0, square / r, 1.0).sqrt()
    if not k:
        return matrix @ pivot.mT
    layer = _layer(r, c, float(ridge))
    each = (pivot / size)[:, None].expand(k, m, r, c).reshape(k * m, r, c)
    rows = (matrix / size).reshape(k * m, c)
    (solution,) = layer(each.double().cpu(), rows.double().cpu())
    return solution.to(matrix).reshape(k, m, r)


@lru_cache(maxsize=64)
def _layer(r: int, c: int, ridge: float):
    try:
        import cvxpy
        from cvxpylayers.torch.cvxpylayer import CvxpyLayer
    except ImportError as error:
        raise ImportError(
            "solver='cvxpylayers' needs cvxpylayers, which is not installed; install cpic[train] "
            "or use solver='ridge', which has the same minimum."
        ) from error
    row, pivot, goal = cvxpy.Variable(r), cvxpy.Parameter((r, c)), cvxpy.Parameter(c)
    cost = cvxpy.sum_squares(row @ pivot - goal) + ridge * cvxpy.sum_squares(row)
    return CvxpyLayer(
        cvxpy.Problem(cvxpy.Minimize(cost)), parameters=[pivot, goal], variables=[row]
    )
