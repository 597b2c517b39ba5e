"""Foundations: low rank, trains, cross, quantics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.check._verdict import Check, number


def _storage(given: Any, shape: Sequence[int]) -> str:
    """The break-even rank of a matrix of a shape."""
    rank = number(given)
    if rank is None:
        return "the answer is a number, the rank from which on the factors take more."
    rows, columns = shape
    if rank * (rows + columns) < rows * columns - 1e-9:
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
    if abs(mean - total / size) > 1e-4 * max(1e-12, abs(total / size)):
        return "it differs from the mean of the entries of the train: which train is all ones?"
    return ""


def _choose(given: Any, spectra: Sequence[Tensor]) -> str:
    """Ranks for a relative error of 0.1, from the singular values of the unfoldings."""
    ranks = [int(r) for r in given]
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


CHECKS: dict[str, Check] = {
    "ex-low-rank-storage": _storage,
    "ex-low-rank-shear": _shear,
    "ex-tt-mean": _mean,
    "ex-tt-choose": _choose,
}
