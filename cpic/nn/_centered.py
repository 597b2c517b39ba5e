r"""Subtract the output of an encoder for empty space.

An encoder that ends in a sigmoid returns nearly the same vector for most of a volume. This constant
dominates the norm of the tensor, so the components describe it, and a cross selects pivots by it.
Without it the background is zero, as it is outside a volume.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Centered(nn.Module):
    """An encoder minus its vector of an empty cube; differentiable in the same parameters.

    Args:
        encoder: Maps cubes `(n, c, s, ..., s)` to `(n, n_dims)`.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.n_dims, self.receptive_field = encoder.n_dims, encoder.receptive_field
        if hasattr(encoder, "in_channels"):
            self.in_channels = encoder.in_channels
        self._mixes = any(isinstance(one, _BatchNorm) for one in encoder.modules())
        self.train(encoder.training)

    def forward(self, cubes: Tensor) -> Tensor:
        """Vectors `(n, n_dims)` of cubes `(n, c, s, ..., s)`."""
        if not self._mixes:
            return self.encoder(cubes) - self.encoder(cubes.new_zeros(1, *cubes.shape[1:]))
        # In one call, since batch norm sees the whole batch.
        more = torch.cat([cubes, cubes.new_zeros(1, *cubes.shape[1:])])
        vectors, empty = self.encoder(more).split([len(cubes), 1])
        return vectors - empty
