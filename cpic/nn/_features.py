r"""Features of encoded volumes: what a head gets.

Linear features are inner products: with the components of TT-PCA, with a basis that is learned, and
with powers of the coordinates, the moments.
Others pick among the vectors that were read: the largest value of each channel, or the mean with
weights that are learned. A maximum sees a small bright thing that an integral averages away. The
root of the covariance of the channels sees which of them go together, whatever their means.

Shapes: `K` volumes, `n` channels, `M` positions read in all volumes, `m` in each, `D` axes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpic.linalg import sqrtm
from cpic.nn._entries import sizes_of
from cpic.nn._moments import contributions, count_moments, moments_of_points, moments_of_trains
from cpic.nn._standard import Standard
from cpic.nn.pooling._covariance import triangle
from cpic.tt import Quantics, TensorTrain

FEATURES = ("components", "learned", "moments", "maximum", "attention", "covariance")
# Inner products with a basis of trains.
BASED = ("components", "learned")


class Points(NamedTuple):
    """Values at positions of each volume, times quadrature weights.

    Attributes:
        positions: int64 `(K, m, D)`.
        weighted: `(K, m, n)`, or more channels if these are padded; their sums estimate sums over
            all positions, divided by the number of voxels.
    """

    positions: Tensor
    weighted: Tensor


class Encoded(NamedTuple):
    """K encoded volumes, as far as they were read.

    Attributes:
        trains: Trains of the volumes; for positions on a grid, of one site that holds all vectors.
        points: Values whose weighted sums estimate integrals; with trains of the whole volumes,
            the values beyond the trains.
        indices: Multi-indices of `points` in the trains, if those are of whole volumes.
        read: All vectors read, `(M, n)`, and the volume of each, int64 `(M,)`; empty if no feature
            needs them.
        misfit: Squared difference between volumes and trains at `points`, relative to the squared
            volumes, `(K,)`; None without a correction.
    """

    trains: TensorTrain | None
    points: Points | None
    indices: Tensor | None
    read: tuple[Tensor, Tensor]
    misfit: Tensor | None = None

    def beyond(self, n_voxels: int) -> Tensor | None:
        """Weighted values `(K, m p)` beyond the trains, for inner products with a basis."""
        if self.points is None or self.indices is None:
            return None
        return self.points.weighted.flatten(1) * n_voxels


def count_features(kinds: Sequence[str], *, rank: int, n_dims: int, n_axes: int = 3) -> int:
    """Width of the features of a model.

    Args:
        kinds: Names out of `FEATURES`.
        rank: Number of components, and of learned features.
        n_dims: Channels of the encoder.
        n_axes: Axes of the volumes.

    Raises:
        ValueError: If a name is unknown or stands twice, or there is none.

    Example:
        >>> count_features(["components", "maximum"], rank=10, n_dims=4)
        14
    """
    check_kinds(kinds)
    widths = {
        "components": rank,
        "learned": rank,
        "moments": n_dims * count_moments(n_axes),
        "maximum": n_dims,
        "attention": n_dims,
        "covariance": n_dims * (n_dims + 1) // 2,
    }
    return sum(widths[kind] for kind in kinds)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise unless these are different names of features."""
    if not kinds or set(kinds) - set(FEATURES) or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"features need one or more different names out of {', '.join(FEATURES)}, got "
            f"{list(kinds)}."
        )


class Pooled(Standard):
    """Moments, maxima and attention, centered and scaled.

    Args:
        kinds: Names out of `FEATURES`, without those that are `BASED`.
        shape: Sizes of the volumes.
        n_dims: Channels n of the encoder.
        grid: Map between sites of trains and coordinates, as in `VolumeEntries`.
    """

    _added: Tensor

    def __init__(
        self, kinds: Sequence[str], shape: Sequence[int], n_dims: int, grid: Quantics | None
    ):
        width = count_features(kinds, rank=0, n_dims=n_dims, n_axes=len(shape))
        super().__init__(width)
        self.kinds, self.shape, self.n_dims = tuple(kinds), tuple(shape), n_dims
        added, self._channel = contributions(
            sizes_of(self.shape, n_dims, grid), grid, len(self.shape)
        )
        self.register_buffer("_added", added, persistent=False)
        self.logits = nn.Linear(n_dims, 1) if "attention" in kinds else None

    def forward(self, encoded: Encoded, n_volumes: int) -> Tensor:
        """Features `(K, r)` of K encoded volumes."""
        make = {
            "moments": lambda: self._moments(encoded),
            "maximum": lambda: largest(*encoded.read, n_volumes),
            "attention": lambda: self._attention(*encoded.read, n_volumes),
            "covariance": lambda: spread(*encoded.read, n_volumes),
        }
        parts = [make[kind]() for kind in self.kinds]
        return self.standardized(torch.cat([part.to(parts[0]) for part in parts], 1))

    def _moments(self, encoded: Encoded) -> Tensor:
        parts = []
        if encoded.trains is not None and (encoded.indices is not None or encoded.points is None):
            parts.append(
                moments_of_trains(
                    encoded.trains, self._added, self._channel, self.shape, self.n_dims
                )
            )
        if encoded.points is not None:
            found = moments_of_points(*encoded.points, self.shape)
            parts.append(found[:, : self.n_dims])  # channels may be padded
        return sum(parts[1:], parts[0]).flatten(1)

    def _attention(self, vectors: Tensor, owner: Tensor, n_volumes: int) -> Tensor:
        assert self.logits is not None
        vectors = vectors.to(self.logits.weight)
        logits = self.logits(vectors)[:, 0]
        peak = logits.new_full((n_volumes,), -torch.inf).scatter_reduce(0, owner, logits, "amax")
        weight = (logits - peak.detach()[owner]).exp()
        whole = weight.new_zeros(n_volumes).index_add(0, owner, weight)
        total = vectors.new_zeros(n_volumes, self.n_dims)
        return total.index_add(0, owner, weight[:, None] * vectors) / whole[:, None]


def largest(vectors: Tensor, owner: Tensor, n_volumes: int) -> Tensor:
    """Largest value of each channel in each volume, `(K, n)`.

    The gradient goes to the position where it is; among equal ones, to each in equal parts.
    """
    place = owner[:, None].expand_as(vectors)
    lowest = vectors.new_full((n_volumes, vectors.shape[1]), -torch.inf)
    return lowest.scatter_reduce(0, place, vectors, "amax")


def spread(vectors: Tensor, owner: Tensor, n_volumes: int) -> Tensor:
    """Square roots of the covariances of the channels in each volume, `(K, n (n + 1) / 2)`.

    Over the positions read, in float64, as upper triangles with off-diagonal entries times the
    square root of two. Differentiable, also with repeated eigenvalues.
    """
    wide = vectors.double()
    count = wide.new_zeros(n_volumes, 1).index_add(0, owner, wide.new_ones(len(wide), 1))
    mean = wide.new_zeros(n_volumes, wide.shape[1]).index_add(0, owner, wide) / count
    centered = wide - mean[owner]
    outer = centered.unsqueeze(-1) * centered.unsqueeze(-2)
    total = wide.new_zeros(n_volumes, *outer.shape[1:]).index_add(0, owner, outer)
    root = sqrtm(total / count.unsqueeze(-1), check=False)
    return triangle(root, weighted=True).to(vectors)
