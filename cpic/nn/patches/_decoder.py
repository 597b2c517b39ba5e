r"""Decode a patch of a latent volume at its center.

Shapes: `n` patches, `w` their width, `D` axes, `n_dims` numbers at a latent position.
References: {cite}`usvyatsov2021cherry`.
"""

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_batch_norm, check_odd, check_positive
from cpic.nn._dense import dense


class PatchDecoder(nn.Module):
    """Dense layers on a flattened latent patch, the counterpart of `cpic.nn.PatchEncoder`.

    Two hidden layers, each with batch norm and ReLU, and a final linear layer: values of the
    volume at the center of the patch, or scores of classes {cite}`usvyatsov2021cherry`.
    Differentiable in the patches and the parameters. In training mode the output for a patch
    depends on the other patches of the call.

    Args:
        n_outputs: Outputs per position: contrasts, or classes.
        n_dims: Numbers per latent position, as in the encoder.
        width: Positions along each axis of a patch, odd.
        n_axes: 3 for volumes, 2 for images.
        hidden: Width of the hidden layers.
        momentum: Weight of a call in the running statistics of the batch norm. A call has thousands
            of positions, and the latent volumes change, so it is larger than usual.
        precision: Dtype of the parameters and the outputs. Patches of any dtype are converted to
            it.

    Raises:
        ValueError: If a size is invalid, and, when called, if the patches have another shape, or
            there is only one in training mode.

    Example:
        >>> decoder = PatchDecoder(2, n_dims=4, width=5)
        >>> decoder(torch.rand(7, 5, 5, 5, 4)).shape
        torch.Size([7, 2])
        >>> sum(p.numel() for p in decoder.parameters())
        195586
    """

    def __init__(
        self,
        n_outputs: int = 1,
        *,
        n_dims: int = 16,
        width: int = 5,
        n_axes: int = 3,
        hidden: int = 256,
        momentum: float = 0.3,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        sizes = {"n_outputs": n_outputs, "n_dims": n_dims, "width": width, "hidden": hidden}
        check_positive("PatchDecoder", **sizes, n_axes=n_axes)
        check_odd("PatchDecoder", "width", width, "a patch has its position")
        if not 0 < momentum <= 1:
            raise ValueError(f"PatchDecoder needs `momentum` in (0, 1], got {momentum}.")
        self.n_outputs, self.n_dims, self.width, self.n_axes = n_outputs, n_dims, width, n_axes
        self.n_inputs = n_dims * width**n_axes
        layers = dense(self.n_inputs, hidden, hidden, n_outputs=n_outputs, momentum=momentum)
        self.layers = nn.Sequential(*layers).to(precision)

    def forward(self, patches: Tensor) -> Tensor:
        """Outputs `(n, n_outputs)` for patches `(n, w, ..., w, n_dims)`, flattened or not."""
        flat = patches.flatten(1) if patches.ndim > 1 else patches
        if flat.ndim != 2 or flat.shape[1] != self.n_inputs:
            raise ValueError(
                f"PatchDecoder needs patches of {self.n_inputs} numbers, {self.width} positions "
                f"along {self.n_axes} axes with {self.n_dims} each, got {tuple(patches.shape)}; "
                f"read them with `grid.patches(train, centers, width={self.width})`."
            )
        check_batch_norm(self, len(flat))
        return self.layers(flat.to(next(self.parameters()).dtype))
