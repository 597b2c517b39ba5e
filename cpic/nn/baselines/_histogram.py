"""Gray-value histograms: a volume without its positions."""

import math

import torch
from torch import Tensor


def histogram_features(
    volumes: Tensor, *, n_bins: int = 32, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Fractions of the voxels in bins of equal width, for each contrast.

    Features for a linear model, a minimal baseline for any network. They carry no gradient. For
    volumes out of core, a random sample of the voxels is sufficient.

    Args:
        volumes: Voxels `(K, c, ...)`, with any further axes.
        n_bins: Number of bins per contrast.
        low: Lower end of the first bin, which includes all lower values.
        high: Upper end of the last bin, which includes all higher values.

    Returns:
        The fractions `(K, c * n_bins)`, by contrast, summing to 1 for each; in the floating dtype
        of the volumes, float64 for integers.

    Raises:
        ValueError: If there are no voxels, the range is empty, or a voxel is NaN.

    Example:
        >>> histogram_features(torch.tensor([[[0.1, 0.2, 0.9, 5.0]]]), n_bins=2)
        tensor([[0.5000, 0.5000]])
    """
    if volumes.ndim < 3 or volumes.numel() == 0:
        raise ValueError(
            f"histogram_features needs voxels (K, c, ...), at least one, got "
            f"{tuple(volumes.shape)}; add the axis of the contrasts with `unsqueeze(1)`."
        )
    if n_bins < 1 or not -math.inf < low < high < math.inf:
        raise ValueError(
            f"histogram_features needs `n_bins >= 1` and finite `low < high`, got {n_bins}, {low} "
            f"and {high}."
        )
    dtype = volumes.dtype if volumes.dtype.is_floating_point else torch.float64
    rows = volumes.detach().flatten(2).flatten(0, 1)
    if rows.isnan().any():
        raise ValueError(
            f"histogram_features needs numbers, got {int(rows.isnan().sum())} NaN voxels; replace "
            "them when the volume is opened."
        )
    scaled = (rows.to(dtype) - low) * (n_bins / (high - low))
    places = scaled.clamp(0, n_bins - 0.5).long()
    places += n_bins * torch.arange(len(rows), device=rows.device)[:, None]
    counts = places.flatten().bincount(minlength=n_bins * len(rows))
    return (counts.to(dtype) / rows.shape[1]).view(len(volumes), -1)
