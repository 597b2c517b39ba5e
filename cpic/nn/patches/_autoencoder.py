r"""Reconstruct volumes from their latent trains.

Shapes: `K` volumes, `n` positions, `D` axes, `c` contrasts.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.nn._checks import check_positive
from cpic.nn.patches._model import PatchModel, Sampled
from cpic.nn.patches._positions import Watched, read_and_random
from cpic.tt import TensorTrain


class Autoencoder(PatchModel):
    """Compress volumes to trains and reconstruct them {cite}`usvyatsov2021cherry`.

    The decoder returns the gray values at a position, one per contrast. It is trained at the
    positions that the cross-approximation reads and at as many uniform ones: the former need no
    further reads, but they cluster where the encoder makes large pivots.

    Takes the arguments of `PatchModel`. The values of the volumes should be of order 1.

    Raises:
        ValueError: As in `PatchModel`, or if the decoder does not have one output per contrast.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> from cpic.nn import CubeEncoder, Search
        >>> from cpic.nn.patches import PatchDecoder
        >>> generator = torch.Generator().manual_seed(0)
        >>> volume = ArrayVolume(torch.rand(16, 16, 16, generator=generator))
        >>> model = Autoencoder(CubeEncoder(4), PatchDecoder(n_dims=4, width=3),
        ...                     shape=(16, 16, 16), search=Search(rank=4),
        ...                     generator=generator)
        >>> model.loss([volume], ["a"], generator=generator).backward()
        >>> train = model.eval().compress([volume], ["a"])
        >>> model.slice(train, axis=2, at=8).shape
        torch.Size([1, 16, 16])
    """

    def _check_decoder(self) -> None:
        contrasts = self.latent.contrasts
        if self.decoder.n_outputs != contrasts:
            raise ValueError(
                f"Autoencoder needs a decoder with {contrasts} outputs, one per contrast, got "
                f"{self.decoder.n_outputs}; set its `n_outputs`."
            )

    def loss(
        self,
        volumes: Sequence[Sampled],
        names: Sequence[str],
        *,
        most: int = 2**12,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean squared error at the positions that are read and at as many uniform ones.

        Args:
            volumes: K volumes.
            names: A name for each, as in `compress`.
            most: Maximum number of read positions used per volume. The first call on a volume,
                which has to find its index sets, reads several times as many as later calls.
            generator: Generator of the uniform positions.

        Returns:
            A scalar, with gradient.
        """
        check_positive("Autoencoder", most=most)
        watched = [Watched(volume) for volume in volumes]
        trains = self.compress(watched, names)
        positions = read_and_random(watched, most=most, generator=generator)
        pairs = zip(volumes, positions, strict=True)
        values = torch.stack([volume.voxels(at) for volume, at in pairs])
        found = self.decode(trains, positions)
        return (found - values.to(found).view_as(found)).square().mean()

    def rebuild(self, trains: TensorTrain, positions: Tensor, *, batch: int = 2**13) -> Tensor:
        """Values at any positions, without gradient, in evaluation mode in any case.

        Args:
            trains: K latent trains, from `compress`.
            positions: Int64 `(K, n, D)`.
            batch: Positions decoded at once.

        Returns:
            Values `(K, n)`, with contrasts as last axis if there are several.
        """
        values = self.decode_all(trains, positions, batch=batch)
        return values[..., 0] if values.shape[-1] == 1 else values

    def slice(self, trains: TensorTrain, *, axis: int, at: int, batch: int = 2**13) -> Tensor:
        """Values of the slice at coordinate `at` along `axis`.

        Returns:
            `(K, *plane)`, with contrasts as last axis if there are several.
        """
        values = self.plane(trains, axis, at, batch)
        return values[..., 0] if values.shape[-1] == 1 else values
