"""Foundations: low rank, trains, cross, quantics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.check._verdict import Check, like, number, numbers


def _storage(given: Any, shape: Sequence[int]) -> str:
    """The break-even rank of a matrix of a shape."""
    rank = number(given)
    if rank is None:
        return "the answer is a number, the rank from which on the factors take more."
    rows, columns = shape
    if not rank * (rows + columns) >= rows * columns - 1e-9:
        return "at this rank the factors still take fewer numbers than the pixels."
    if (rank - 1) * (rows + columns) > rows * columns + 1e-9:
        return "one rank lower the factors take more numbers than the pixels already."
    return ""


def _shear(given: Any, image: Tensor) -> str:
    """A rearrangement of an image that has rank 1."""
    if not isinstance(given, Tensor) or given.shape != image.shape:
        return f"the answer is an image of {tuple(image.shape)} pixels, as the one to rearrange."
    if not torch.equal(given.flatten().sort().values, image.flatten().sort().values):
        return "pixels were lost or invented: only move them."
    rank = int(torch.linalg.matrix_rank(given.double()))
    if rank != 1:
        return f"the rank is {rank}: when all nonzero pixels share a column, it is 1."
    return ""


def _tail(given: Any, matrix: Tensor) -> str:
    """The gradient of the energy of a matrix beyond its first three singular values."""
    given = like(given, matrix)
    if given is None:
        return f"the answer is a matrix of {tuple(matrix.shape)}, as W is."
    matrix = matrix.detach().cpu().double()
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    for factor, first, hint in (
        (2, 3, ""),
        (1, 3, "this is the gradient of half of it."),
        (2, 0, "this is the gradient of the energy of all singular values."),
    ):
        exact = factor * (u[:, first:] * values[first:]) @ v[first:]
        if torch.allclose(given, exact, rtol=1e-4, atol=1e-6):
            return hint
    return "call `backward` on the sum of squares of all singular values but the first three."


def _mean(given: Any, train: Any) -> str:
    """The mean of the tensor of a train."""
    mean, ones = number(given), [torch.ones_like(core[:, :1, :, :1]) for core in train.cores]
    if mean is None:
        return "the answer is one number."
    total = float(train.inner(type(train)(ones)))
    size = 1
    for core in train.cores:
        size *= core.shape[2]
    if abs(mean - total) <= 1e-6 * abs(total):
        return "this is the sum of all entries, not yet their mean."
    if not abs(mean - total / size) <= 1e-4 * max(1e-12, abs(total / size)):
        return "it differs from the mean of the entries of the train: which train is all ones?"
    return ""


def _choose(given: Any, spectra: Sequence[Tensor]) -> str:
    """Ranks for a relative error of 0.1, from the singular values of the unfoldings."""
    ranks = [int(r) for r in numbers(given) or ()]
    if len(ranks) != len(spectra):
        return f"give one rank for each of the {len(spectra)} bonds."
    total = float(spectra[0].double().norm())
    lost = [float(s.double()[r:].norm()) / total for s, r in zip(spectra, ranks, strict=True)]
    if sum(x * x for x in lost) > 0.1**2 * (1 + 1e-9):
        return "together the bonds may lose more than 10 %: squares of errors add."
    less = [max(r - 1, 0) for r in ranks]
    spare = [float(s.double()[r:].norm()) / total for s, r in zip(spectra, less, strict=True)]
    if all(x * x * len(ranks) < 0.1**2 for x in spare):
        return "every bond could have a lower rank within its equal share of the error."
    return ""


def _entries(given: Any, about: tuple[Sequence[int], int]) -> str:
    """The number of entries of one interpolation, for sizes and a rank."""
    sizes, rank = about
    count, ranks = number(given), [1, *[rank] * (len(sizes) - 1), 1]
    if count is None:
        return "the answer is one number, that of the entries."
    if count == rank**2 * sum(sizes):
        return "the outer sites have a neighbor on one side only."
    if count != sum(a * n * b for a, n, b in zip(ranks[:-1], sizes, ranks[1:], strict=True)):
        return "a site reads one fiber for each pair of a left and a right multi-index."
    return ""


def _swap(given: Any, matrix: Tensor) -> str:
    """Coefficients of the rows of a matrix in its first rows: factors of the volume."""
    m, r = matrix.shape
    given = like(given, matrix)
    if given is None:
        return f"the answer has {m} rows of {r} coefficients, as the matrix has."
    swapped = matrix[:r].double().repeat(m, r, 1, 1)
    for j in range(r):
        swapped[:, j, j] = matrix.double()
    growth = torch.linalg.det(swapped).abs() / torch.linalg.det(matrix[:r].double()).abs()
    wrong = (given.abs() - growth).abs()
    if wrong.max() <= 1e-5 * growth.max():
        return ""
    i, j = divmod(int(wrong.argmax()), r)
    return (
        f"with row {i} in place of row {j} the volume grows by {growth[i, j]:.3g}, not as B says."
    )


def _round(given: Any, about: tuple[Tensor, Any]) -> str:
    """A train no larger than another one, and closer to a volume."""
    volume, other = about
    if type(given) is not type(other) or given.sizes != other.sizes:
        return f"the answer is a train of sizes {tuple(other.sizes)}."
    if max(given.ranks) > max(other.ranks):
        return f"its rank is {max(given.ranks)}, that of the other train {max(other.ranks)}: round."
    if not (given.full() - volume).norm() < (other.full() - volume).norm():
        return "it is no better than the square search at this rank: search at a higher rank first."
    return ""


def _rank_of_bits(curve: Tensor) -> int:
    """The largest rank of the unfoldings of a vector by the bits of its index."""
    n_bits = len(curve).bit_length() - 1
    parts = [curve.double().view(-1, 2**t) for t in range(1, n_bits)]
    return max(int(torch.linalg.matrix_rank(part, rtol=1e-9)) for part in parts)


def _waves(given: Any, curves: Sequence[Tensor]) -> str:
    """Ranks of curves in quantics form."""
    ranks = numbers(given) or []
    if len(ranks) != len(curves):
        return f"give one rank for each of the {len(curves)} curves."
    for k, (rank, curve) in enumerate(zip(ranks, curves, strict=True), 1):
        if rank != _rank_of_bits(curve):
            return f"curve {k} has another rank: of how many exponentials is it a sum?"
    return ""


def _groups(given: Any, volume: Any) -> str:
    """A grid with groups of three bits, and what a search found on it."""
    try:
        grid, result = given
        sizes = set(grid.sizes)
        generator = torch.Generator().manual_seed(0)
        places = [torch.randint(n, (1, 10_000), generator=generator) for n in volume.shape]
        at = torch.stack(places, -1)
        found = result.train.entries(grid.sites(at)).double()
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return "the answer is a pair: the grid, and the result of the search on it."
    if sizes != {8}:
        return f"the sites have sizes {sorted(sizes)}: groups of three bits have 8 values."
    truth = volume.voxels(at).double()
    error = float((found - truth).norm() / truth.norm())
    return "" if error <= 1e-5 else f"its relative error is {error:.0e}: search to 1e-6."


def _steps(given: Any, steps: Tensor) -> str:
    """The largest rank of a step in quantics form, over its positions, one a row."""
    rank, n = number(given), steps.shape[1]
    if rank is None:
        return "the answer is one number, the largest rank."
    if sorted(steps.sum(1).tolist()) != list(range(1, n)):
        return f"a step has {n - 1} positions: try all."
    if rank != max(map(_rank_of_bits, steps)):
        return "some position has another rank, or none has this one."
    return ""


def _contrast(given: Any, volume: Tensor) -> str:
    """A train of a binary volume with a relative error of at most 0.1."""
    try:
        dense = given.full()[0].double()
    except (TypeError, AttributeError, LookupError):
        dense = torch.empty(0)
    if dense.shape != volume.shape:
        return f"the answer is a batch of one train, of {tuple(volume.shape)}."
    binary = (volume > 0.5).double()
    error = float((dense - binary).norm() / binary.norm())
    if not error <= 0.1001:
        return f"the error of the volume with threshold 0.5 is {error:.0%}, and not at most 10%."
    return ""


CHECKS: dict[str, Check] = {
    "ex-low-rank-gradient": _tail,
    "ex-tt-contrast": _contrast,
    "ex-low-rank-storage": _storage,
    "ex-low-rank-shear": _shear,
    "ex-tt-mean": _mean,
    "ex-tt-choose": _choose,
    "ex-cross-predict": _entries,
    "ex-cross-swap": _swap,
    "ex-cross-round": _round,
    "ex-quantics-code-1": _waves,
    "ex-quantics-code-2": _groups,
    "ex-quantics-code-3": _steps,
}
