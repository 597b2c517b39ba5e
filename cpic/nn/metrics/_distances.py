r"""Distances between two sets of features, such as those of real and of generated images.

The Frechet distance compares means m and covariances C of two normal distributions,

    |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1^{1/2} C_2 C_1^{1/2})^{1/2},

and the last trace is the sum of the singular values of R_1 R_2^T / sqrt((n_1 - 1)(n_2 - 1)) for
centered features X = Q R: no root of a matrix is needed, and fewer samples than features are valid.
The kernel distance is the unbiased estimate of the squared maximum mean discrepancy.

They depend on the features. On features of InceptionV3 they are known as FID and KID; on others
they must not be called so.

Shapes: `n`, `m` samples, `d` features.
References: {cite}`heusel2017gans`, {cite}`binkowski2018demystifying`.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> Tensor:
    """The Frechet distance between normal distributions fitted to two sets {cite}`heusel2017gans`.

    Args:
        first: Features `(n, d)`, at least two samples.
        second: Features `(m, d)`, at least two samples.

    Returns:
        A number of at least 0, computed in float64, in the dtype of the first set; not
        differentiable.

    Raises:
        ValueError: If the shapes do not fit, or a feature is not finite.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> float(frechet_distance(x, x + 3))
        9.0
    """
    _check("frechet_distance", first, second, 2)
    pair = [one.detach().double() for one in (first, second)]
    means = [one.mean(0) for one in pair]
    factors = [
        torch.linalg.qr(one - mean, mode="r").R / (len(one) - 1) ** 0.5
        for one, mean in zip(pair, means, strict=True)
    ]
    traces = sum(factor.square().sum() for factor in factors)
    cross = torch.linalg.svdvals(factors[0] @ factors[1].mT).sum()
    found = (means[0] - means[1]).square().sum() + traces - 2 * cross
    return found.clamp_min(0).to(first)


class KernelDistance(NamedTuple):
    """Mean and standard deviation of a kernel distance over subsets."""

    mean: Tensor
    std: Tensor


def kernel_distance(
    first: Tensor,
    second: Tensor,
    *,
    generator: torch.Generator,
    n_subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """The squared maximum mean discrepancy of two sets {cite}`binkowski2018demystifying`.

    The kernel is (<x, y> / d + 1)^3, the estimate unbiased, so it may be below 0; it is averaged
    over random subsets of both sets.

    Args:
        first: Features `(n, d)`, at least two samples.
        second: Features `(m, d)`, at least two samples.
        generator: Random number generator of the subsets.
        n_subsets: Number of subsets.
        subset_size: Samples of a subset, at most those of the smaller set.

    Returns:
        Mean and standard deviation over the subsets, computed in float64, in the dtype of the first
        set; not differentiable.

    Raises:
        ValueError: If the shapes do not fit, a feature is not finite, or a number is too small.

    Example:
        >>> x = torch.eye(4)
        >>> found = kernel_distance(x, x + 1, generator=torch.Generator(), n_subsets=3)
        >>> bool(found.mean > 0)
        True
    """
    _check("kernel_distance", first, second, 2)
    if n_subsets < 1 or subset_size < 2:
        raise ValueError(
            f"kernel_distance needs at least 1 subset of at least 2 samples, got {n_subsets} of "
            f"{subset_size}."
        )
    size = min(subset_size, len(first), len(second))
    found = []
    for _ in range(n_subsets):
        x, y = (_subset(one, size, generator).double() for one in (first, second))
        within = (_kernel(one, one) for one in (x, y))
        # Without the diagonal: a sample is not its own neighbor.
        own = sum((k.sum() - k.diagonal().sum()) / (size * (size - 1)) for k in within)
        found.append(own - 2 * _kernel(x, y).mean())
    values = torch.stack(found)
    return KernelDistance(values.mean().to(first), values.std(correction=0).to(first))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _subset(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randperm(len(features), generator=generator, device=generator.device)[:size]
    return features.detach()[drawn.to(features.device)]


def _check(owner: str, first: Tensor, second: Tensor, least: int) -> None:
    shapes = [tuple(one.shape) for one in (first, second)]
    if any(len(one) != 2 or one[0] < least for one in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"{owner} needs features (n, d) and (m, d) of at least {least} samples each, got "
            f"{shapes[0]} and {shapes[1]}."
        )
    if not (first.isfinite().all() and second.isfinite().all()):
        raise ValueError(
            f"{owner} needs finite features, got some that are not; check the network."
        )
