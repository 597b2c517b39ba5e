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
        once: Whether the empty cube is encoded once for all calls, between which the parameters
            stay as they are, and which are not repeated for the gradient.
    """

    def __init__(self, encoder: nn.Module, *, once: bool = False):
        super().__init__()
        self.encoder = encoder
        self.n_dims, self.receptive_field = encoder.n_dims, encoder.receptive_field
        for name in ("in_channels", "scales"):
            if hasattr(encoder, name):
                setattr(self, name, getattr(encoder, name))
        # Then the vector of a cube depends on the others of the call.
        self._mixes = any(isinstance(one, _BatchNorm) for one in encoder.modules())
        self._once = once and not self._mixes
        self._empty: dict[bool, Tensor] = {}  # with and without a gradient
        self.train(encoder.training)

    def forward(self, cubes: Tensor) -> Tensor:
        """Vectors `(n, n_dims)` of cubes `(n, c, s, ..., s)`."""
        known = self._empty.get(torch.is_grad_enabled())
        if known is not None:
            return self.encoder(cubes) - known
        nothing = cubes.new_zeros(1, *cubes.shape[1:])
        if not self._mixes and not self._once:
            return self.encoder(cubes) - self.encoder(nothing)
        vectors, empty = self.encoder(torch.cat([cubes, nothing])).split([len(cubes), 1])
        if self._once:
            self._empty[torch.is_grad_enabled()] = empty
        return vectors - empty
