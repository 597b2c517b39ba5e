r"""Solve for the cores of a train: X P = M for the pivots P and the fibers M of every bond.

With c columns and r rows of pivots, r <= c, the core X minimizes |X P - M|. If r = c and P is
invertible, it solves X P = M. Solvers:

- `"solve"`: LU factors of a square P, QR factors of a wide one;
- `"qr"`: P^T = Q R and X = M Q R^{-T} by a triangular solve, for both;
- `"ridge"`: min |X P - M|^2 + ridge s^2 |X|^2 with s^2 = |P|^2 / r, the mean square of the singular
  values, so that the result does not depend on the unit of the entries. It is the least-squares
  solution for P augmented by ridge^{1/2} s I: the solution of the normal equations, but with the
  square root of their condition number;
- `"cvxpylayers"`: the same minimum as a disciplined parametrized program
  {cite}`agrawal2019differentiable`, for comparison: slow, and with the accuracy of its solver.

The gradient of a least-squares core is computed in closed form with the available factors: the
backward passes of `torch.linalg.lstsq` and `pinv` are wrong for ill-conditioned pivots, without a
warning. With W = G R^{-1} for the gradient G with respect to X,

    grad M = W Q^T,   grad P = -X^T grad M + R^{-1} W^T (M - X P).

A singular P (a constant tensor, a zero background, duplicate multi-indices) would make both
infinite. The rank is then lowered for that sample only: an elimination with complete pivoting
finds rows I and columns J with an invertible P[I, J]; X is solved on these and zero in its other
columns. For a wide P all columns are used.

Shapes: `K` samples (or samples times bonds), `m` rows of fibers, `r` rows, `c` columns of pivots.
"""

from typing import Literal, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from cpic.linalg import rank_revealing_lu
from cpic.linalg._inputs import check_choice
from cpic.linalg._maxvol import take_rows

Solver = Literal["solve", "qr", "ridge", "cvxpylayers"]
SOLVERS = get_args(Solver)


class Solving(TypedDict, total=False):
    """Options of the solver for cores, as described in `interpolate`."""

    solver: Solver
    ridge: float
    rtol: float | None


def solve_core(matrix: Tensor, pivot: Tensor, **options: Unpack[Solving]) -> Tensor:
    """The core X that minimizes |X pivot - matrix| in every sample.

    Args:
        matrix: Fibers `(K, m, c)`.
        pivot: Pivots `(K, r, c)` with `r <= c`, possibly singular.
        **options: `solver`, `ridge` and `rtol` as in `interpolate`.

    Returns:
        `X` of shape `(K, m, r)`, zero in the columns that a lowered rank omits. Differentiable
        in `matrix` and `pivot`, with `"cvxpylayers"` once and with the others twice.

    Raises:
        ValueError: If the solver is unknown, an option or dtype is invalid, or `r > c`.
        ImportError: If `"cvxpylayers"` is requested but not installed.
    """
    check_options(**options)
    if matrix.dtype not in (torch.float32, torch.float64) or matrix.dtype != pivot.dtype:
        raise ValueError(
            f"solve_core needs float32 or float64 for both, got {matrix.dtype} and {pivot.dtype}; "
            "cast the entries first."
        )
    if pivot.shape[-2] > pivot.shape[-1]:
        raise ValueError(
            f"solve_core needs at least as many columns as rows of pivots, got {pivot.shape[-2]} "
            f"rows and {pivot.shape[-1]} columns; remove rows."
        )
    system = System(pivot, **options)
    return system.core(matrix, lowered=bool(system.bad.any()))


class System:
    """Pivots `(K, r, c)` of the linear systems for cores, with the options of `solve_core`.

    Attributes:
        bad: Which of them are singular to rounding, bool `(K,)`; empty if a ridge is added.
    """

    def __init__(
        self,
        pivot: Tensor,
        solver: str = "solve",
        ridge: float = 1e-6,
        rtol: float | None = None,
    ):
        self.pivot, self.solver, self.ridge, self.rtol = pivot, solver, ridge, rtol
        self.bad = torch.zeros(0, dtype=torch.bool, device=pivot.device)
        if solver in ("solve", "qr"):
            self.factors = _factors(pivot, solver)
            self._square = pivot.detach() if self.factors is None else self.factors[1].mT
            self._square, self._inverse = _inverted(self._square)
            self.bad = _too_large(self._inverse, rtol)

    def core(self, matrix: Tensor, *, lowered: bool) -> Tensor:
        """The result of `solve_core` for the fibers `(K, m, c)`; `lowered` if any is bad."""
        if self.solver == "ridge":
            return _ridge(matrix, self.pivot, self.ridge)
        if self.solver == "cvxpylayers":
            from cpic.tt._program import solve_program

            return solve_program(matrix, self.pivot, self.ridge)
        if lowered:
            return _lowered(matrix, self.pivot, self.bad, self.solver, self.rtol)
        return _full_rank(matrix, self.pivot, self.factors)

    def condition(self) -> Tensor:
        """The `pivot_condition`."""
        # The triangular factor of a square pivot has another 1-norm.
        of_pivot = self.solver == "solve" or self.pivot.shape[1] < self.pivot.shape[2]
        if self.solver in ("solve", "qr") and of_pivot:
            bad = self.bad if self.rtol is None else _too_large(self._inverse, None)
            return _one_norms(self._square, self._inverse, bad)
        return pivot_condition(self.pivot)


def check_options(solver: str = "solve", ridge: float = 1e-6, rtol: float | None = None) -> None:
    """Raise unless the solver and its options are valid."""
    check_choice("a core", "solver", solver, SOLVERS, '"solve" is exact')
    if not 0 < ridge < float("inf"):
        raise ValueError(
            f"ridge needs to be a finite number above 0, got {ridge}; for none use solver='solve'."
        )
    if rtol is not None and not 0 <= rtol < 1:
        raise ValueError(f"rtol needs to be in [0, 1), got {rtol}; None is 100 rounding units.")


def pivot_condition(pivot: Tensor) -> Tensor:
    """Condition number of the pivots of one bond, in the 1-norm; no gradient.

    The relative error of gradients through a core is about `condition * eps`. See
    `unreliable_above` for the number above which they are called unreliable.

    Args:
        pivot: `(K, r, c)` with `r <= c`; a wide one is measured by its triangular factor.

    Returns:
        `(K,)`, infinite if the pivots are singular by the default `rtol`: then the direct
        solvers use a lower rank.
    """
    with torch.no_grad():
        square, inverse = _inverted(_corner(pivot))
        return _one_norms(square, inverse, _too_large(inverse, None))


def _one_norms(square: Tensor, inverse: Tensor, bad: Tensor) -> Tensor:
    size = square.abs().sum(-2).amax(-1) * inverse.abs().sum(-2).amax(-1)
    return size.masked_fill(bad, torch.inf)


def unreliable_above(dtype: torch.dtype) -> float:
    """The condition number above which gradients have less than a third of their digits.

    That is `eps ** (-2/3)`: 2.7e10 in float64 and 4.1e4 in float32.
    """
    return torch.finfo(dtype).eps ** (-2 / 3)


def _factors(pivot: Tensor, solver: str) -> tuple[Tensor, Tensor] | None:
    """Q and R of the transposed pivots without gradient, None if LU is used."""
    if solver == "solve" and pivot.shape[-2] == pivot.shape[-1]:
        return None
    frame, corner = torch.linalg.qr(pivot.detach().mT)
    return frame, corner


def _full_rank(matrix: Tensor, pivot: Tensor, factors: tuple[Tensor, Tensor] | None) -> Tensor:
    if factors is None:
        # `solve_ex`, since a check for singularity would read from the device.
        return torch.linalg.solve_ex(pivot, matrix, left=False).result
    return _LeastSquares.apply(matrix, pivot, *factors)  # pyright: ignore[reportReturnType]


class _LeastSquares(torch.autograd.Function):
    """X that minimizes |X P - M| for P of full row rank with P^T = Q R."""

    @staticmethod
    def forward(ctx, matrix: Tensor, pivot: Tensor, frame: Tensor, corner: Tensor) -> Tensor:
        solution = torch.linalg.solve_triangular(corner.mT, matrix @ frame, upper=False, left=False)
        ctx.save_for_backward(matrix, pivot, solution, frame, corner)
        return solution

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix, pivot, solution, frame, corner = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative, which includes the factors
            frame, corner = torch.linalg.qr(pivot.mT)
        inner = torch.linalg.solve_triangular(corner, grad, upper=True, left=False)
        to_matrix = inner @ frame.mT
        to_pivot = -solution.mT @ to_matrix
        if pivot.shape[-2] < pivot.shape[-1]:  # the residual of a square system is only rounding
            outer = torch.linalg.solve_triangular(corner.mT, inner, upper=False, left=False)
            to_pivot = to_pivot + outer.mT @ (matrix - solution @ pivot)
        return to_matrix, to_pivot, None, None


def _ridge(matrix: Tensor, pivot: Tensor, ridge: float) -> Tensor:
    k, r, _ = pivot.shape
    peak = peak_of(pivot)  # a constant factor of both, so it needs no gradient
    matrix, pivot = matrix / peak, pivot / peak
    square = pivot.square().sum((-2, -1), keepdim=True)
    # Zero pivots have no scale; any weight gives a zero core.
    weight = torch.where(square > 0, square * (ridge / r), 1.0).sqrt()
    beside = weight * torch.eye(r, dtype=pivot.dtype, device=pivot.device)
    more = matrix.new_zeros(k, matrix.shape[1], r)
    wide = torch.cat([pivot, beside], -1)
    return _full_rank(torch.cat([matrix, more], -1), wide, _factors(wide, "ridge"))


def _lowered(matrix: Tensor, pivot: Tensor, bad: Tensor, solver: str, rtol: float | None) -> Tensor:
    """Solve with the rank of the bad samples lowered to that of their pivots."""
    k, r, c = pivot.shape
    m = matrix.shape[1]
    rows, columns, keep = _complete_pivots(pivot.detach(), bad, _rtol(pivot, rtol))
    chosen = take_rows(pivot, rows) * keep[..., None]
    fill = torch.diag_embed((~keep).to(pivot.dtype))  # makes the block invertible without them
    if r < c:
        block = torch.cat([chosen, fill], -1)
        target = torch.cat([matrix, matrix.new_zeros(k, m, r)], -1)
    else:
        block = chosen.gather(2, columns[:, None].expand(k, r, r)) + fill
        target = matrix.gather(2, columns[:, None].expand(k, m, r))
    solution = _full_rank(target, block, _factors(block, solver))
    place = torch.where(keep, rows, r)[:, None].expand(k, m, r)  # omitted ones share one column
    return solution.new_zeros(k, m, r + 1).scatter(2, place, solution)[..., :r]


def _complete_pivots(pivot: Tensor, bad: Tensor, rtol: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns `(K, r)` of an invertible block, and which of them are used."""
    k, r, _ = pivot.shape
    order = torch.arange(r, device=pivot.device).expand(k, r)
    rows, columns, keep = order.clone(), order.clone(), torch.ones_like(order, dtype=torch.bool)
    found = rank_revealing_lu(_scaled(_corner(pivot[bad])), tol=rtol)
    width = (0, r - found.rows.shape[1])
    some_rows, some_columns = (
        torch.nn.functional.pad(part, width, value=-1) for part in (found.rows, found.cols)
    )
    keep[bad] = some_rows >= 0
    rows[bad], columns[bad] = some_rows.clamp_min(0), some_columns.clamp_min(0)
    return rows, columns, keep


def _too_large(inverse: Tensor, rtol: float | None) -> Tensor:
    """Whether a matrix with entries up to one and this inverse counts as singular."""
    return ~(torch.linalg.vector_norm(inverse, torch.inf, (-2, -1)) * _rtol(inverse, rtol) < 1)


def _corner(pivot: Tensor) -> Tensor:
    """A square matrix with the singular values of the pivots and their row space."""
    return pivot if pivot.shape[-2] == pivot.shape[-1] else torch.linalg.qr(pivot.mT).R.mT


def _inverted(square: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices scaled to a largest entry of one, and their inverses, infinite if singular."""
    scaled = _scaled(square)
    inverse, info = torch.linalg.inv_ex(scaled)
    return scaled, inverse.masked_fill((info != 0).view(-1, 1, 1), torch.inf)


def peak_of(pivot: Tensor) -> Tensor:
    """The largest size of an entry `(K, 1, 1)`, one where it is too small to divide by."""
    peak = pivot.detach().abs().amax((-2, -1), keepdim=True)
    return torch.where(peak >= torch.finfo(pivot.dtype).tiny, peak, 1.0)


def _scaled(pivot: Tensor) -> Tensor:
    """Pivots scaled to a largest entry of one, or zero where that is not a normal number."""
    peak = torch.linalg.vector_norm(pivot, torch.inf, (-2, -1), keepdim=True)
    return (pivot / peak).masked_fill(~(peak >= torch.finfo(pivot.dtype).tiny), 0.0)


def _rtol(pivot: Tensor, rtol: float | None) -> float:
    return 100 * torch.finfo(pivot.dtype).eps if rtol is None else rtol
