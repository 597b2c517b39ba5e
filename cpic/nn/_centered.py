r"""Count from what an encoder makes of empty space.

An encoder with a sigmoid behind gives about the same vector to most of a volume. That constant is
nearly all of the norm of the tensor, so the components describe it, and so do the places that a
cross chooses. Without it the background is zero, as it is outside a volume.
"""

import torch
from torch import Tensor, nn


class Centered(nn.Module):
    """An encoder less its vector of an empty cube; differentiable in the same.

    Args:
        encoder: Maps cubes `(n, c, s, ..., s)` to `(n, n_dims)`.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.n_dims, self.receptive_field = encoder.n_dims, encoder.receptive_field
        if hasattr(encoder, "in_channels"):
            self.in_channels = encoder.in_channels
        self.train(encoder.training)

    def forward(self, cubes: Tensor) -> Tensor:
        """Vectors `(n, n_dims)` of cubes `(n, c, s, ..., s)`."""
        # In one call, as batch norm sees all of a batch.
        vectors = self.encoder(torch.cat([cubes, torch.zeros_like(cubes[:1])]))
        return vectors[:-1] - vectors[-1:]
