r"""The core of a bond as the solution of a disciplined parametrized program.

For comparison with the other solvers: every row x of every core is a separate small cone program,
which an interior-point method solves and differentiates implicitly, on the CPU and in float64. For
the pivots P and a row m of the fibers it is

    min  | (x P - m, ridge^{1/2} x, 1) |,

one norm instead of a sum of squares, which would cost the solver half of its digits. The constant
bounds the norm away from zero, where it has no derivative (m = 0), and does not move the minimum.
References: {cite}`agrawal2019differentiable`.
"""

from functools import lru_cache

import torch
from torch import Tensor

_SOLVER = {
    "solve_method": "Clarabel",
    **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11),
}


def solve_program(matrix: Tensor, pivot: Tensor, ridge: float) -> Tensor:
    """Minimize |X P - M|^2 + ridge s^2 |X|^2 with s^2 = |P|^2 / r.

    Args:
        matrix: Fibers M `(K, m, c)`.
        pivot: Pivots P `(K, r, c)`.
        ridge: Weight, above zero.

    Returns:
        X of shape `(K, m, r)`, differentiable once.

    Raises:
        ImportError: If `cvxpylayers` is not installed.
    """
    layer = _layer(*pivot.shape[1:], float(ridge))
    k, m, c = matrix.shape
    r = pivot.shape[1]
    if k * m == 0:
        return matrix @ pivot.mT
    peak = pivot.detach().abs().amax((-2, -1), keepdim=True)
    # A common factor of both needs no gradient, since the minimum does not change.
    peak = torch.where(peak >= torch.finfo(peak.dtype).tiny, peak, 1.0)
    matrix, pivot = (matrix / peak).double().cpu(), (pivot / peak).double().cpu()
    square = pivot.square().sum((-2, -1), keepdim=True)
    size = torch.where(square > 0, square / r, 1.0).sqrt()
    each = (pivot / size)[:, None].expand(k, m, r, c).reshape(k * m, r, c)
    rows = (matrix / size).reshape(k * m, c)
    # The minimum is linear in the row.
    length = rows.detach().norm(dim=-1, keepdim=True)
    length = torch.where(length > 0, length, 1.0)
    options: dict[str, object] = {"n_jobs_forward": torch.get_num_threads()}
    if torch.is_grad_enabled() and (each.requires_grad or rows.requires_grad):
        # The default mode of the derivative is an iteration that stops early. These options are
        # invalid without a derivative.
        options |= {"mode": "dense", "n_jobs_backward": torch.get_num_threads()}
    (solution,) = layer(each, rows / length, solver_args=options)
    return (solution * length).reshape(k, m, r).to(peak)


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
    cost = cvxpy.norm(cvxpy.hstack([row @ pivot - goal, ridge**0.5 * row, 1.0]))
    return CvxpyLayer(
        cvxpy.Problem(cvxpy.Minimize(cost)),
        parameters=[pivot, goal],
        variables=[row],
        solver_args=_SOLVER,
    )
