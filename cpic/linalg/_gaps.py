r"""Inverse gaps between eigenvalues, and ways to bound them.

The derivative of the eigenvectors of a symmetric matrix contains 1 / (l_i - l_j) for each pair of
eigenvalues. At equal eigenvalues, eigenvectors are not even continuous, so no method is
correct there: the methods differ in their bound, and in the gap below which they are wrong.

With `hi` and `lo` the eigenvalue of larger and smaller magnitude and x = lo / hi,

    1 / (l_i - l_j) = +-(1 / |hi|) 1 / (1 - x),

which `taylor`, `power` and `pade` bound by approximations of 1 / (1 - x). For eigenvalues of
opposite sign, x < 0, nothing needs to be bounded, and these three use the exact value.

Shapes: `n` eigenvalues, `*b` independent problems.
References: {cite}`wang2022robust`, {cite}`song2021approximate`, {cite}`wang2019backpropagation`.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cpic.linalg._inputs import check_choice, check_dtype, check_finite

Gap = Callable[[Tensor], Tensor]
PADE_DEGREES = (1, 2, 5, 10, 50)


def inverse_gap(eigenvalues: Tensor, method: str = "original", **options: Any) -> Tensor:
    r"""The antisymmetric matrix F_ij = 1 / (l_i - l_j), bounded by the given method.

    The diagonal is zero. In a tie the first eigenvalue counts as the larger one, so
    that F stays antisymmetric. With s the largest magnitude among the eigenvalues and eps the
    relative precision of the dtype, |F| is at most

    - `"original"`: L, the square root of the largest number of the dtype (1.3e154, 1.8e19).
      Exact for all gaps above 1 / L; only overflow is prevented {cite}`ionescu2015matrix`.
    - `"trunc"`: `bound / s`, by default 1e10 / s. Exact for gaps above s / bound.
    - `"topn"`: 1 / (eps s). The eigenvalues beyond the `n_keep` of largest magnitude count as
      zero, and F is zero between two of them. By default those above n eps s are retained.
    - `"taylor"`: `(degree + 1) / (eps s)`. Sums x^0 + ... + x^degree {eq}`eq-spectra-series`, by
      default to 100; the relative error is x^(degree + 1), and at a tie F tends to
      (degree + 1) / hi.
    - `"power"`: `steps / (eps s)`. The gradient of `steps` power iterations for one eigenvector
      after the other, by default 20; see below.
    - `"pade"`: `1 / (margin eps s)`. The approximant P(x) / Q(x) of order [degree/degree] at
      x <= 1 - margin. Exact for x up to there; the default margin is eps^(3/4), 1.8e-12 or 6.4e-6.

    No bound exceeds L, not even for s = 0. The bounds of `trunc`, `topn`, `taylor`, `power` and
    `pade` do not depend on scale: unless L is reached, eigenvalues c times as large give F / c.
    These five raise magnitudes below eps s to that value (not `trunc`), or gaps (`topn`).

    **Power iteration.** Let v <- M v / |M v| run for `steps` steps, from v_1 itself. Its
    derivative is the sum over k < steps of (M^k / l_1^(k+1)) (1 - v v^T) dM v, so the component
    along v_j is (1 / l_1) times the sum of (l_j / l_1)^k: the Taylor sum with `steps` terms. The
    next vectors come from deflated matrices P M P, where P = 1 - v_1 v_1^T - ... removes the
    vectors found so far. M_i = P M P maps those to zero, hence only the remaining vectors
    enter the sum; and the derivative of P adds -(v_i^T dv_j) v_j, the antisymmetric
    counterpart. Using the projector of *all* vectors at once, 1 - V V^T = 0, loses both parts and
    gives a gradient of zero. Deflating by M - l v v^T instead gives the counterpart one term fewer
    {cite}`wang2022robust`.

    **Padé.** 1 / (1 - x) is itself rational, so for nearly all orders the equations of the
    coefficients are singular: [m/n] has n equations of rank max(1, n - m). The exceptions are
    [m/1] and [0/n], where the solution is unique, and is 1 / (1 - x); degree 1 is the default.
    For `degree` m of 2, 5, 10, 50 the solution of least norm is used, q_j = -1/m and
    p_k = 1 - k/m, which has the same value: P = R and Q = (1 - x) R share the factor R. Its
    coefficients are positive and decreasing, so R has no root in the unit disk. Q suffers from
    cancellation near x = 1; R / (R (1 - x)), with 1 - x from the gap, is accurate to a few eps.

    Args:
        eigenvalues: The eigenvalues, `(*b, n)`, float32 or float64, in any order.
        method: One of the names above.
        **options: `bound` (trunc), `n_keep` (topn), `degree` (taylor, pade), `steps` (power),
            `margin` (pade).

    Returns:
        F `(*b, n, n)`, always finite; differentiable where no bound is reached.

    Raises:
        ValueError: If the method is unknown, an option is out of range, or a value is not finite.
        TypeError: If the dtype is not float32 or float64, or the method has no such option.

    Example:
        >>> inverse_gap(torch.tensor([3.0, 1.0, 1.0]), "trunc", bound=30.0)
        tensor([[  0.0000,   0.5000,   0.5000],
                [ -0.5000,   0.0000,  10.0000],
                [ -0.5000, -10.0000,   0.0000]])
    """
    gap = gap_function("inverse_gap", method, options)
    if not eigenvalues.ndim:
        raise ValueError(
            "inverse_gap needs eigenvalues (*b, n), got a single number; pass `x.unsqueeze(0)`."
        )
    check_dtype("inverse_gap", eigenvalues.dtype)
    check_finite("inverse_gap", eigenvalues)
    return gap(eigenvalues)


def gap_function(who: str, method: str, options: Mapping[str, Any]) -> Gap:
    """The function of the eigenvalues for a method and its options."""
    check_choice(who, "method", method, _METHODS, '"trunc" is a good choice')
    function = _METHODS[method]
    known = [name for name in inspect.signature(function).parameters if name != "values"]
    for name, value in options.items():
        if name not in known:
            offer = f"pass {', '.join(known)}" if known else "omit it"
            raise TypeError(
                f'{who} needs options of method "{method}", got {name!r}; {offer} instead.'
            )
        _check_option(who, method, name, value)
    return functools.partial(function, **options)


def _check_option(who: str, method: str, name: str, value: Any) -> None:
    if method == "pade" and name == "degree":
        fine, needs = value in PADE_DEGREES, f"one of {[*PADE_DEGREES]}"
    elif name in ("n_keep", "degree", "steps"):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        fine, needs = whole or (name == "n_keep" and value is None), "a whole number, 1 or more,"
    elif name == "margin":
        fine, needs = value is None or 0 < value <= 1, "above 0 and at most 1"
    else:
        fine, needs = 0 < value < math.inf, "positive and finite"
    if not fine:
        raise ValueError(
            f'{who} needs `{name}` {needs} for "{method}", got {value}; omit it for the default.'
        )


def _original(values: Tensor) -> Tensor:
    return _inverse(values, values.new_zeros(()))


def _trunc(values: Tensor, bound: float = 1e10) -> Tensor:
    return _inverse(values, _largest(values) / bound)


def _topn(values: Tensor, n_keep: int | None = None) -> Tensor:
    eps, n = torch.finfo(values.dtype).eps, values.shape[-1]
    size, largest = values.abs(), _largest(values)
    if n_keep is None:
        kept = size > n * eps * largest
    else:
        place = size.argsort(stable=True, dim=-1, descending=True).argsort(-1)
        kept = place < n_keep
    inverse = _inverse(torch.where(kept, values, 0.0), eps * largest)
    return inverse * (kept.unsqueeze(-1) | kept.unsqueeze(-2))


def _taylor(values: Tensor, degree: int = 100) -> Tensor:
    def series(apart: Tensor) -> Tensor:
        # (1 - x^m) / (1 - x), with 1 - x from the gap: no cancellation near x = 1.
        below = apart.clamp(max=1 - torch.finfo(apart.dtype).eps)
        total = -torch.expm1((degree + 1) * torch.log1p(-below))
        tied = apart == 0
        return torch.where(tied, degree + 1.0, total / torch.where(tied, 1.0, apart))

    return _by_ratio(values, series)


def _power(values: Tensor, steps: int = 20) -> Tensor:
    return _taylor(values, degree=steps - 1)


def _pade(values: Tensor, degree: int = 1, margin: float | None = None) -> Tensor:
    least = torch.finfo(values.dtype).eps ** 0.75 if margin is None else margin

    def series(apart: Tensor) -> Tensor:
        apart = apart.clamp(min=least)
        shared = 1 / degree
        for c in pade_factor(degree)[-2::-1]:  # Horner's scheme
            shared = shared * (1 - apart) + c
        return shared / (shared * apart)

    return _by_ratio(values, series)


def pade_factor(degree: int) -> list[float]:
    """Coefficients of R, lowest power first; `data_scripts/derive_pade.py` derives them."""
    return [(degree - k) / degree for k in range(degree)]


_METHODS: dict[str, Callable[..., Tensor]] = {
    "original": _original,
    "trunc": _trunc,
    "topn": _topn,
    "taylor": _taylor,
    "pade": _pade,
    "power": _power,
}


def largest_inverse(dtype: torch.dtype) -> float:
    """L: products with inverse gaps of up to this size do not overflow."""
    return math.sqrt(torch.finfo(dtype).max)


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude `(*b, 1)`."""
    if not values.shape[-1]:
        return values.new_zeros((*values.shape[:-1], 1))
    return values.detach().abs().amax(-1, keepdim=True)


def _pairs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences, numbers of their signs with ties broken by order, and one off the diagonal."""
    gap = values.unsqueeze(-1) - values.unsqueeze(-2)
    place = torch.arange(values.shape[-1], device=values.device)
    by_order = (place - place.unsqueeze(-1)).to(values.dtype)
    return gap, torch.where(gap == 0, by_order, gap.detach()), by_order.sign().square()


def _inverse(values: Tensor, floor: Tensor) -> Tensor:
    """Inverse gaps, with gaps raised to at least `floor` `(*b, 1)`."""
    gap, sign, apart = _pairs(values)
    floor = floor.clamp(min=1 / largest_inverse(values.dtype)).unsqueeze(-1)
    return torch.maximum(gap.abs(), floor).copysign(sign).reciprocal() * apart


def _by_ratio(values: Tensor, series: Callable[[Tensor], Tensor]) -> Tensor:
    """Inverse gaps by a `series` for 1 / (1 - x), given as a function of 1 - x in [0, 2].

    Above 1, where two eigenvalues have opposite signs, it must be the function itself.
    """
    limit = largest_inverse(values.dtype)
    floor = (torch.finfo(values.dtype).eps * _largest(values)).clamp(min=1 / limit)
    values = torch.where(values.abs() < floor, floor, values)
    gap, sign, apart = _pairs(values)
    size = values.abs()
    high = torch.maximum(size.unsqueeze(-1), size.unsqueeze(-2))
    value = series(gap.abs() / high) / high
    return value.clamp(max=limit).copysign(sign) * apart
