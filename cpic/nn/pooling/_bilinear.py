"""Pooling without eigenvalues: means, products of channels, and sketches of these products."""

import math

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_positive
from cpic.nn.pooling._maps import gram, mean_of, positions_of, products


class GlobalAverage(nn.Module):
    """Means of the channels, global average pooling.

    Args:
        n_channels: Channels c of the maps.
        check: False skips the check for NaN and infinity, which reads one number back.

    Example:
        >>> GlobalAverage(3)(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, n_channels: int, *, check: bool = True):
        super().__init__()
        check_positive("GlobalAverage", n_channels=n_channels)
        self.n_outputs, self.check = n_channels, check

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Means `(b, c)` over the positions of the mask."""
        vectors, share = positions_of("GlobalAverage", maps, mask, check=self.check)
        return mean_of(vectors, share)[..., 0].to(maps.dtype)


class Bilinear(nn.Module):
    """All mean products of two channels, bilinear pooling {cite}`lin2015bilinear`.

    X X^T / m, not centered, then the signed root and unit length.

    Args:
        n_channels: Channels c of the maps.
        check: False skips the check for NaN and infinity.

    Example:
        >>> Bilinear(3)(torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 9])
    """

    def __init__(self, n_channels: int, *, check: bool = True):
        super().__init__()
        check_positive("Bilinear", n_channels=n_channels)
        self.n_outputs, self.check = n_channels**2, check

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features `(b, c c)`."""
        found = products(*positions_of("Bilinear", maps, mask, check=self.check))
        return normalized(found.flatten(1)).to(maps.dtype)


class CompactBilinear(nn.Module):
    r"""A sketch of the products of two channels, compact bilinear pooling {cite}`gao2016compact`.

    Each channel has two places h_1, h_2 among the outputs and two signs. The tensor sketch of one
    vector is the circular convolution of its two count sketches, by Fourier transforms. Summed over
    positions, that is the count sketch of X X^T with the places h_1 + h_2: both forms are here, and
    the cheaper one is taken. The inner product of two raw sketches is the squared inner product of
    the vectors in the mean over the draws, and with `raw` the sums are returned.

    Args:
        n_channels: Channels c of the maps.
        n_outputs: Length of the sketch; 8192 as published.
        generator: Generator of places and signs, which are buffers.
        raw: Return sums over the positions; by default, as published, their signed root at unit
            length.
        check: False skips the check for NaN and infinity.

    Raises:
        ValueError: If a size is below 1, or there is no generator.

    Example:
        >>> pool = CompactBilinear(3, 16, generator=torch.Generator().manual_seed(1))
        >>> pool(torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 16])
    """

    places: Tensor
    signs: Tensor

    def __init__(
        self,
        n_channels: int,
        n_outputs: int = 8192,
        *,
        generator: torch.Generator,
        raw: bool = False,
        check: bool = True,
    ):
        super().__init__()
        check_positive("CompactBilinear", n_channels=n_channels, n_outputs=n_outputs)
        self.n_outputs, self.raw, self.check = n_outputs, raw, check
        size, place = (2, n_channels), {"generator": generator, "device": generator.device}
        self.register_buffer("places", torch.randint(n_outputs, size, **place).cpu())
        signs = 2 * torch.randint(2, size, **place).cpu() - 1
        self.register_buffer("signs", signs.to(torch.get_default_dtype()))

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features `(b, n_outputs)`."""
        vectors, _ = positions_of("CompactBilinear", maps, mask, check=self.check)
        n_channels, n_positions = vectors.shape[1:]
        transforms = n_positions * self.n_outputs * (2 + math.log2(self.n_outputs))
        direct = n_channels**2 * (8 + n_positions)
        found = self.by_products(vectors) if direct <= transforms else self.by_transforms(vectors)
        return (found if self.raw else normalized(found)).to(maps.dtype)

    def by_products(self, vectors: Tensor) -> Tensor:
        """Sums `(b, n_outputs)` over the positions of vectors `(b, c, m)`, through X X^T."""
        one, other = self.places
        place = (one[:, None] + other) % self.n_outputs
        left, right = self.signs.to(vectors)
        signed = left[:, None] * gram(vectors) * right
        found = vectors.new_zeros(len(vectors), self.n_outputs)
        return found.index_add(1, place.flatten(), signed.flatten(1))

    def by_transforms(self, vectors: Tensor) -> Tensor:
        """The same, through the Fourier transforms of the count sketches."""
        shape = (len(vectors), self.n_outputs, vectors.shape[-1])
        spectra = [
            torch.fft.rfft(
                vectors.new_zeros(shape).index_add(1, place, sign[:, None] * vectors), dim=1
            )
            for place, sign in zip(self.places, self.signs.to(vectors), strict=True)
        ]
        summed = (spectra[0] * spectra[1]).sum(-1)
        return torch.fft.irfft(summed, n=self.n_outputs, dim=1)


def normalized(found: Tensor, least: float = 1e-8) -> Tensor:
    """The signed root, sign(x) (|x| + least)^(1/2), at unit length in each row."""
    root = found.sign() * (found.abs() + least).sqrt()
    return nn.functional.normalize(root, dim=-1)
