r"""Volumes to latent trains, and from patches of these back to numbers at any position.

    volume -> cubes -> encoder -> entries -> cross -> latent train -> patches -> decoder

The train is all that is kept of a volume: a few thousand numbers. What the decoder makes of it
at a position depends on the latent vectors around, which are read from the train alone.

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
from cpic.nn._entries import Readable
from cpic.nn._options import Reading, Search, grouped
from cpic.nn.patches._decoder import PatchDecoder
from cpic.tt import Quantics, TensorTrain


class Sampled(Readable, Protocol):
    """A volume whose voxels can be read one by one, too."""

    def voxels(self, coords: Tensor) -> Tensor:
        """Values `(...)`, or `(..., c)` for several channels, at int64 `coords` `(..., D)`."""
        ...


class PatchModel(nn.Module):
    """What `Autoencoder` and `Segmenter` share {cite}`usvyatsov2021cherry`.

    The latent trains are those of `cpic.nn.CPIC`: in training mode `compress` makes one half-sweep
    from the index sets remembered under the name of each volume, in evaluation mode it changes
    nothing. Differentiable in the parameters of encoder and decoder; the choice of sets
    carries no gradient. `state_dict` holds the sets of every name beside the parameters.

    Args:
        encoder: Maps cubes `(m, contrasts, s, ..., s)` to vectors `(m, n_dims)`; None takes the
            voxels themselves.
        decoder: Maps latent patches to numbers at their centres.
        shape: Spatial sizes of the volumes.
        contrasts: Channels of the volumes.
        search: Ranks of the latent trains, and how they are found; by quantics.
        reading: How volumes are read and encoded; never `centered`, as the decoder undoes that.
        generator: Draws the first index sets.

    Attributes:
        latent: The `cpic.nn.CPIC` that makes the trains; `latent.counts` says what was read.
        grid: Map between positions and the sites of a latent train.

    Raises:
        ValueError: If encoder, decoder and volumes do not fit each other.
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
        # No head and no features: the trains are decoded as they are.
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
        """Numbers `(K, n, c)` at int64 positions `(K, n, D)` of K volumes, with gradient.

        Names are as in `compress`.
        """
        return self.decode(self.compress(volumes, names), positions)

    def compress(self, volumes: Sequence[Readable], names: Sequence[str]) -> TensorTrain:
        """Latent trains of K volumes, with gradient.

        Args:
            volumes: K volumes of the stated shape and contrasts.
            names: A name for each, under which its index sets are remembered in training mode.

        Returns:
            K quantics trains, `n_dims` numbers at a position.
        """
        return self.latent.trains(volumes, names)

    def decode(self, trains: TensorTrain, positions: Tensor) -> Tensor:
        """Numbers `(K, n, c)` at int64 positions `(K, n, D)` of latent trains, with gradient.

        Patches reach zeros beyond the volume. Positions may lie anywhere.
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
            batch: Positions of all volumes together that are decoded at a time.

        Returns:
            Numbers `(K, n, c)`.
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
        """Raise where the outputs of the decoder do not fit."""

    def plane(self, trains: TensorTrain, axis: int, at: int, batch: int) -> Tensor:
        """Numbers `(K, *plane, c)` of the slice at coordinate `at` along `axis`."""
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
