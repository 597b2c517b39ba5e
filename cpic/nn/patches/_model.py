r"""From volumes to latent trains, and from their patches to outputs at any position.

    volume -> cubes -> encoder -> entries -> cross -> latent train -> patches -> decoder

Of a volume only the train is kept: a few thousand numbers. The output of the decoder at a position
depends on the latent vectors around it, which are read from the train alone.

Shapes: `K` volumes, `n` positions, `D` axes, `c` outputs of the decoder.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cpic._renamed import regrouped
from cpic.nn._cpic import CPIC
from cpic.nn._options import Reading, Search, grouped
from cpic.nn._readable import Readable
from cpic.nn.patches._decoder import PatchDecoder
from cpic.tt import Quantics, TensorTrain


class Sampled(Readable, Protocol):
    """A volume whose voxels can also be read one by one."""

    def voxels(self, coords: Tensor) -> Tensor:
        """Values `(...)`, or `(..., c)` for several channels, at int64 `coords` `(..., D)`."""
        ...


class PatchModel(nn.Module):
    """Base class of `Autoencoder` and `Segmenter` {cite}`usvyatsov2021cherry`.

    The latent trains are those of `cpic.nn.CPIC`: in training mode `compress` makes one half-sweep
    from the index sets stored under the name of each volume, in evaluation mode it changes no
    state. Differentiable in the parameters of encoder and decoder; the selection of sets carries no
    gradient. `state_dict` holds the sets of every name in addition to the parameters.

    Args:
        encoder: Maps cubes `(m, contrasts, s, ..., s)` to vectors `(m, n_dims)`; None uses the
            voxels themselves.
        decoder: Maps latent patches to outputs at their centers.
        shape: Spatial sizes of the volumes.
        contrasts: Channels of the volumes.
        search: Ranks of the latent trains, and options of the search; quantics only.
        reading: How volumes are read and encoded; never `centered`, since the decoder would undo
            it.
        generator: Draws the first index sets.

    Attributes:
        latent: The `cpic.nn.CPIC` that computes the trains; `latent.counts` has the counts of
            reads.
        grid: Map between positions and the sites of a latent train.

    Raises:
        ValueError: If encoder, decoder and volumes do not match.
    """

    @regrouped(grouped)
    def __init__(
        self,
        encoder: nn.Module | None,
        decoder: PatchDecoder,
        *,
        shape: Sequence[int],
        contrasts: int = 1,
        search: Search | None = None,
        reading: Reading | None = None,
        generator: torch.Generator,
    ):
        super().__init__()
        n_dims = contrasts if encoder is None else encoder.n_dims
        if (decoder.n_dims, decoder.n_axes) != (n_dims, len(shape)):
            raise ValueError(
                f"{type(self).__name__} needs a decoder for {n_dims} numbers at a position along "
                f"{len(shape)} axes, got one for {decoder.n_dims} along {decoder.n_axes}; set its "
                "`n_dims` and `n_axes`."
            )
        # Neither head nor features: the trains are decoded directly.
        self.latent = CPIC(
            encoder,
            nn.Identity(),
            shape=shape,
            contrasts=contrasts,
            search=search,
            reading=replace(reading or Reading(), centered=False),
            generator=generator,
        )
        if self.latent.grid is None:
            raise ValueError(
                f"{type(self).__name__} needs `quantics=True`, got False; patches are read from "
                "quantics trains."
            )
        self.grid: Quantics = self.latent.grid
        self.decoder = decoder
        self._check_decoder()

    def forward(
        self, volumes: Sequence[Readable], names: Sequence[str], positions: Tensor
    ) -> Tensor:
        """Outputs `(K, n, c)` at int64 positions `(K, n, D)` of K volumes, with gradient.

        Names are as in `compress`.
        """
        return self.decode(self.compress(volumes, names), positions)

    def compress(self, volumes: Sequence[Readable], names: Sequence[str]) -> TensorTrain:
        """Latent trains of K volumes, with gradient.

        Args:
            volumes: K volumes of the given shape and contrasts.
            names: A name for each volume, under which its index sets are stored in training mode.

        Returns:
            K quantics trains, `n_dims` numbers per position.
        """
        return self.latent.trains(volumes, names)

    def decode(self, trains: TensorTrain, positions: Tensor) -> Tensor:
        """Outputs `(K, n, c)` at int64 positions `(K, n, D)` of latent trains, with gradient.

        Patches are zero beyond the volume. Positions may lie anywhere.
        """
        positions = positions.to(trains.device)
        patches = self.grid.patches(trains, positions, width=self.decoder.width)
        return self.decoder(patches.flatten(0, 1)).unflatten(0, positions.shape[:2])

    @torch.no_grad()
    def decode_all(self, trains: TensorTrain, positions: Tensor, *, batch: int = 2**13) -> Tensor:
        """As `decode`, for any number of positions: in evaluation mode, without gradient.

        Args:
            trains: K latent trains, from `compress`.
            positions: Int64 `(K, n, D)`.
            batch: Positions decoded at once, over all volumes.

        Returns:
            Outputs `(K, n, c)`.
        """
        if batch < 1:
            raise ValueError(f"decode_all needs `batch >= 1`, got {batch}; it counts positions.")
        was = self.decoder.training
        self.decoder.eval()
        try:
            some = positions.split(max(1, batch // trains.n_trains), dim=1)
            return torch.cat([self.decode(trains, part) for part in some], 1)
        finally:
            self.decoder.train(was)

    def _check_decoder(self) -> None:
        """Raise if the number of outputs of the decoder is wrong."""

    def plane(self, trains: TensorTrain, axis: int, at: int, batch: int) -> Tensor:
        """Outputs `(K, *plane, c)` of the slice at coordinate `at` along `axis`."""
        shape = self.latent.shape
        if not 0 <= axis < len(shape) or not 0 <= at < shape[axis]:
            raise ValueError(
                f"slice needs an `axis` and a coordinate `at` within the shape {shape}, got "
                f"axis {axis} and {at}."
            )
        device = trains.device
        along = [torch.arange(size, device=device) for size in shape]
        along[axis] = torch.tensor([at], device=device)
        positions = torch.stack(torch.meshgrid(*along, indexing="ij"), -1).flatten(0, -2)
        values = self.decode_all(trains, positions.expand(trains.n_trains, -1, -1), batch=batch)
        return values.unflatten(1, [size for k, size in enumerate(shape) if k != axis])
