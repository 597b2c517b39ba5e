"""Gradients: through a choice, spectra, features."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.check._verdict import Check, like, number, numbers


def _quadrature(given: Any, about: tuple[Callable[[Tensor], Tensor], Tensor]) -> str:
    """The gradient of the mean of a train with respect to the entries it was built from."""
    mean_of, values = about
    values = values.detach()
    if not isinstance(given, Tensor) or given.shape != values.shape:
        return f"the answer has one weight for each of the {values.numel()} entries."
    mean = float(mean_of(values))
    if not abs(float((given * values).sum()) - mean) <= 1e-6 * abs(mean):
        return "the weighted sum of the entries is not the mean of the train."
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)
    push = 1e-6 * values * drawn
    change = float(mean_of(values + push) - mean_of(values - push)) / 2
    if not abs(float((given * push).sum()) - change) <= 1e-4 * float(given.norm() * push.norm()):
        return "the sum is right, but not when the entries change: take the gradient of the mean."
    return ""


def _gradcheck(given: Any, tensor: Tensor) -> str:
    """A function from a tensor to the tensor of its train, twice differentiable."""
    try:
        full = given(tensor)
        if full.shape != tensor.shape:
            return f"the function returns {tuple(full.shape)}, not {tuple(tensor.shape)}."
        if torch.equal(full, tensor) or not torch.allclose(given(2 * tensor), 2 * full):
            return "the function does not return the tensor of a train of these entries."
        for name in ("gradcheck", "gradgradcheck"):
            if not getattr(torch.autograd, name)(given, tensor, raise_exception=False):
                return f"{name} finds a derivative that differs from finite differences."
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as e:
        return f"the answer is a function of the tensor that returns one; it raised: {e}"
    return ""


def _digits(given: Any, gap: float) -> str:
    """Correct digits of Original and of Lyapunov in single precision at a gap."""
    digits = numbers(given) or []
    if len(digits) != 2:
        return "give two numbers of digits, first for Original, then for Lyapunov."
    lost = -math.log10(torch.finfo(torch.float32).eps / 2)
    if abs(digits[0] - (lost + math.log10(gap))) > 1.5:
        return "Original divides a rounding error of single precision by the gap."
    if abs(digits[1] - lost) > 2:
        return "Lyapunov divides by a sum of roots, so the gap costs no digits."
    return ""


def _log(given: Any, about: tuple[Tensor, Tensor]) -> str:
    """The gradient of an inner product with the logarithm of a matrix that has a tie."""
    matrix, weights = about
    given = like(given, matrix)
    if given is None:
        return f"the answer is a matrix of {tuple(matrix.shape)}, as A is."
    if torch.linalg.eigvalsh(matrix).diff().min() > 1e-9:
        return "this A has no double eigenvalue: test it on one that has."
    if not given.isfinite().all():
        return "it is not finite: what is the divided difference at a tie?"

    def loss(a: Tensor) -> float:
        values, vectors = torch.linalg.eigh(a)
        return float((weights * (vectors * values.log() @ vectors.mT)).sum())

    step, push = 1e-5, torch.zeros_like(matrix)
    for i in range(len(matrix)):
        for j in range(i + 1):
            push.zero_()
            push[i, j] = push[j, i] = step
            change = (loss(matrix + push) - loss(matrix - push)) / 2
            if abs(float((given * push).sum()) - change) > 1e-4 * step * float(given.norm()):
                return "it differs from finite differences along some direction."
    return ""


def _power(given: Any, gap: float) -> str:
    """Steps after which the geometric series misses 1 % at a relative gap."""
    steps = number(given)
    if steps is None:
        return "the answer is one number, that of the steps."
    missing = steps * math.log1p(-gap) - math.log(0.01)
    if not missing <= 1e-9:
        return "after so many steps the series still misses more than 1 % of its sum."
    if missing <= math.log1p(-gap):
        return "fewer steps are enough."
    return ""


def _center(given: Any, gram: Tensor) -> str:
    """The inner products of trains after the mean train was subtracted from each."""
    given = like(given, gram)
    if given is None:
        return f"the answer is a matrix of {tuple(gram.shape)}, as that of the inner products."

    def apart(products: Tensor) -> Tensor:
        norms = products.diagonal()
        return norms[:, None] + norms - products - products.mT

    tol = 1e-8 * float(gram.norm())
    if not max(given.sum(0).abs().max(), given.sum(1).abs().max()) <= tol:
        return "some row or column does not sum to zero, so some inner product has a mean left."
    if (apart(given) - apart(gram)).abs().max() > tol:
        return "the distances between the trains changed, which no common shift does."
    return ""


def _signs(given: Any, bases: Sequence[Any]) -> str:
    """Bases that differ from others by signs, and point along their predecessors."""
    try:
        given = [basis.full().flatten(1) for basis in given]
    except (TypeError, AttributeError):
        given = []
    if len(given) != len(bases):
        return f"the answer is a list of {len(bases)} bases."
    for k, (mine, basis) in enumerate(zip(given, bases, strict=True)):
        other = basis.full().flatten(1)
        if mine.shape != other.shape or not (mine.abs() - other.abs()).abs().max() <= 1e-9:
            return f"basis {k} differs from the sorted one by more than signs."
        if k and ((mine * given[k - 1]).sum(1) < -1e-9).any():
            return f"a tensor of basis {k} points against the one you returned before it."
    return ""


def _outside(given: Any, about: tuple[Any, Any]) -> str:
    """The relative norm of what of each train lies outside a basis."""
    trains, basis = about
    found = torch.tensor(numbers(given) or [], dtype=torch.float64)
    dense, directions = (t.full().flatten(1).double().cpu() for t in (trains, basis))
    if found.shape != dense.shape[:1]:
        return f"the answer has one number for each of the {len(dense)} trains."
    rest = (dense - dense @ directions.mT @ directions).norm(dim=1)
    right = rest / dense.norm(dim=1)
    for values, hint in (
        (right, ""),
        (right**2, "these are squares: take the root."),
        (rest, "divide by the norm of the train."),
    ):
        if torch.allclose(found, values, rtol=1e-4, atol=1e-7):
            return hint
    return "a train, its part in the basis and the rest form a right triangle."


CHECKS: dict[str, Check] = {
    "ex-gradients-quadrature": _quadrature,
    "ex-gradients-gradcheck": _gradcheck,
    "ex-spectra-single": _digits,
    "ex-spectra-log": _log,
    "ex-spectra-power": _power,
    "ex-features-center": _center,
    "ex-features-signs": _signs,
    "ex-features-outside": _outside,
}
