"""Ridge regression, the trivial rival of the scripts of this folder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpic.nn.pooling import SecondOrder


def ridge(features: Tensor, target: Tensor, test: Tensor, penalties: Sequence[float]) -> Tensor:
    """Predictions for other samples, with the penalty that is best if samples are left out.

    Args:
        features: `(n, p)` of the samples to fit, standardized here.
        target: `(n, k)`.
        test: Features `(m, p)` of the others.
        penalties: To choose from, by the errors of leaving out one sample at a time.

    Returns:
        `(m, k)`.
    """
    mean, spread, level = features.mean(0), features.std(0) + 1e-6, target.mean(0)
    u, s, vh = torch.linalg.svd((features - mean) / spread, full_matrices=False)
    seen = u.T @ (target - level)

    def left_out(penalty: float) -> float:
        kept = (s.square() / (s.square() + penalty))[:, None]
        gap = target - level - u @ (kept * seen)
        return float((gap / (1 - u.square() @ kept)).norm())

    best = min(penalties, key=left_out)
    weights = vh.T @ ((s / (s.square() + best))[:, None] * seen)
    return (test - mean) / spread @ weights + level


def neighborhoods(pixels: Tensor) -> Tensor:
    """The square root of the covariance of all neighborhoods of 5 x 5 pixels."""
    pool = SecondOrder(25, weighted=True)
    parts = pixels.split(90)
    return torch.cat([pool(nn.functional.unfold(part, 5).double()) for part in parts])
