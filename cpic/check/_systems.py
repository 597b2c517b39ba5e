"""Three more systems: spectral layers, patches, covariances, the equal budget."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.check._verdict import Check, like, near, number, numbers


def _frame(given: Any, shape: Sequence[int]) -> str:
    """The frame whose free numbers are all zero."""
    rows, columns = shape
    frame = like(given, torch.empty(rows, columns))
    if frame is None:
        return f"the answer is a frame of {rows} rows and {columns} columns."
    if not (frame.mT @ frame - torch.eye(columns)).abs().max() <= 1e-5:
        return "its columns are not orthonormal."
    if not (frame.abs() - torch.eye(rows, columns)).abs().max() <= 1e-5:
        return "without free numbers each reflection changes one axis only."
    return "" if (frame.diagonal() < 0).all() else "some signs are wrong: what does I - 2uu^T do?"


def _stable(given: Any, _: Any) -> str:
    """The stable rank of singular values that halve."""
    rank, values = number(given), 0.5 ** torch.arange(60.0, dtype=torch.float64)
    if rank is None:
        return "the answer is one number."
    if near(rank, float(values.sum())):
        return "the stable rank has squares of the singular values."
    return "" if near(rank, float(values.square().sum()), 1e-3) else "sum the geometric series."


def _megabytes(given: Any, about: tuple[int, int, int]) -> str:
    """Megabytes of the logits and of the embeddings of all patches in single precision."""
    found, (patches, heads, width) = numbers(given), about
    if found is None or len(found) != 2:
        return "the answer is two numbers in megabytes: logits, embeddings."
    for size, each, name in zip(found, (heads, width), ("logits", "embeddings"), strict=True):
        if near(size, patches * each / 1e6):
            return f"{name}: this counts numbers, not their bytes."
        if not (near(size, patches * each * 4 / 1e6) or near(size, patches * each * 4 / 2**20)):
            return f"{name}: how many numbers has a patch?"
    return ""


def _selected(given: Any, scores: Tensor) -> str:
    """Two selections of the same patches, up to ties: both numbered before the shuffle."""
    try:
        first, second = (torch.as_tensor(part).long().flatten() for part in given)
        values = [scores.double()[part].sort().values for part in (first, second)]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return "the answer is a pair: the patches selected before, and after the shuffle."
    if not all(len(part.unique()) == len(part) > 0 for part in (first, second)):
        return "a selection has each patch at most once."
    best = scores.double().topk(len(values[0])).values.sort().values
    if not torch.allclose(values[0], best, atol=1e-6):
        return "the first selection does not have the largest scores."
    if values[0].shape != values[1].shape or not torch.allclose(values[0], values[1], atol=1e-6):
        return "the scores differ: is the second selection numbered as before the shuffle?"
    return ""


def _gradients(given: Any, exact: Tensor) -> str:
    """Mean gradients of an unbiased and a biased estimate, in this order."""
    try:
        default, published = (like(part, exact) for part in given)
    except (TypeError, ValueError):
        default = published = None
    if default is None or published is None:
        return "the answer is a pair of gradients: of the default, and of the published estimate."
    gaps = [float((part - exact).abs().max()) for part in (default, published)]
    if gaps[0] > gaps[1]:
        return "the second one is closer to the exact gradient: are they in the other order?"
    if not gaps[0] <= 0.1:
        return f"the default is off by {gaps[0]:.2f}: average over more draws."
    return "" if gaps[1] > 0.1 else "both agree with the exact gradient: is the second published?"


def _lengths(given: Any, about: tuple[Sequence[int], int]) -> str:
    """Lengths of vectors of covariances, and the units with the parameters of the last one."""
    found, (channels, classes) = numbers(given), about
    if found is None or len(found) != len(channels) + 1:
        return f"the answer is {len(channels)} lengths, and a number of units."
    for d, length in zip(channels, found, strict=False):
        if length == d * d:
            return f"{d} channels: a covariance is symmetric."
        if length != d * (d + 1) / 2:
            return f"{d} channels: count the numbers on and above the diagonal."
    budget = found[-2] * classes
    used = found[-1] * (channels[-1] + 1 + classes)
    hint = f"these units have about {used:.0f} parameters, the classifier {budget:.0f}."
    return "" if near(used, budget, 0.02) else hint


def _root_error(given: Any, n: int) -> str:
    """The error of a Pade root of the identity, divided by the bound of its eigenvalues."""
    error = number(given)
    if error is None:
        return "the answer is one number, the relative error."
    exact, frobenius = (
        2 * rho**11 / (1 - rho**11) for x in (n**-0.125, n**-0.25) for rho in ((1 - x) / (1 + x),)
    )
    if near(error, frobenius):
        return "this is the error with the Frobenius norm of the matrix itself."
    return "" if near(error, exact) else "by how much is the largest eigenvalue divided?"


def _masked(given: Any, maps: Tensor) -> str:
    """The covariance over the positions of maps that are inside."""
    x = maps.double() - maps.double().mean(-1, keepdim=True)
    total = x @ x.mT
    found = like(given, total)
    if found is None:
        return f"the answer is a covariance of shape {tuple(total.shape)}."
    n = maps.shape[-1]
    if any((found - total / m).norm() <= 1e-3 * (total / m).norm() for m in (n, n - 1)):
        return ""
    scale = float((found * total).sum() / total.square().sum())
    if (found - scale * total).norm() <= 1e-3 * found.norm():
        return "it is right up to a factor: divide by the number of positions inside."
    return "positions outside take part: in the mean, or in the products?"


def _noisy(given: Any, array: Tensor) -> str:
    """A head with noise of three times its spread, and what is advised for it."""
    try:
        values, by = given
    except (TypeError, ValueError):
        values = by = None
    noisy = like(values, array)
    if noisy is None or not isinstance(by, str):
        return "the answer is a pair: the array with noise, and the `by` of the advice."
    ratio = float((noisy - array.double()).std() / array.double().std())
    if not near(ratio, 3, 0.05):
        return f"the noise has {ratio:.2g} times the spread of the head, not 3 times."
    return "" if by == "random" else f"{by!r} is not what is advised for this array."


def _product(given: Any, _: Any) -> str:
    """A product of three vectors, and what is advised for it."""
    try:
        values, by = given
        array = torch.as_tensor(values).double()
        parts = [array.movedim(k, 0).flatten(1) for k in range(3)]
        ranks = [int(torch.linalg.matrix_rank(part, rtol=1e-6)) for part in parts]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return "the answer is a pair: the array, and the `by` of the advice."
    if ranks != [1, 1, 1]:
        return f"its unfoldings have ranks {ranks}: those of a product are 1."
    if not isinstance(by, str) or not by.startswith("cross"):
        return "another choice is advised for this array: which ranks are found?"
    return ""


CHECKS: dict[str, Check] = {
    "ex-spectral-sign": _frame,
    "ex-spectral-stable": _stable,
    "ex-patches-logits": _megabytes,
    "ex-patches-order": _selected,
    "ex-patches-bias": _gradients,
    "ex-covariance-guess": _lengths,
    "ex-covariance-root": _root_error,
    "ex-covariance-mask": _masked,
    "ex-budget-noise": _noisy,
    "ex-budget-rank": _product,
}
