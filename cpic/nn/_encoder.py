r"""Encode the neighborhood of a voxel as a short vector.

An encoder maps a cube of s voxels along each axis to `n_dims` numbers. It is evaluated at every
voxel that a cross-approximation requests, so it is small, and still most of the cost.

Shapes: `n` cubes, `c` contrasts, `s` the receptive field.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_batch_norm, check_odd, check_positive, check_scales
from cpic.nn._dense import dense

# Width, kernel and stride of the hidden layers, then the kernel of the last one.
_LAYERS = {
    ("paper", 3): (((5, 3, 1), (15, 3, 1), (25, 3, 1)), 3),
    ("paper", 2): (((5, 5, 1), (15, 5, 1), (25, 5, 1)), 5),
    # Few, wide positions after the first layer: 22 times fewer products per cube in 3-D.
    ("fast", 3): (((16, 3, 3), (32, 3, 1)), 1),
    ("fast", 2): (((16, 5, 4), (32, 4, 1)), 1),
}
# Contrasts from which on a strided first layer takes a CPU half the time if they lie last.
_MANY = 4

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "linear": nn.Identity,
}


class CubeEncoder(nn.Module):
    """Convolutions without padding that shrink a cube to one vector {cite}`usvyatsov2021cherry`.

    The published network, in three dimensions: four layers of 3^3 kernels with 5, 15, 25 and
    `n_dims` channels, ReLU between them and a final sigmoid, a receptive field of 9. The version in
    two dimensions has 5^2 kernels, ReLU after the last layer too, and a receptive field of 17.

    `variant="fast"` is not published: it has the same receptive fields, activations and about as
    many parameters, but a strided first layer and 16 and 32 channels, so that a cube takes a small
    fraction of the products, in matrix products of a width that suits processors.

    With `scales` it sees as many cubes around a voxel, as further channels of the first layer: with
    a stride of t one that reaches t times as far and has every t-th voxel. Nothing is averaged, so
    detail finer than a stride is aliased; smooth noisy volumes first. A stride whose cube is larger
    than the volume sees mostly padding, and costs without use.

    Differentiable in the cubes and the parameters.

    Args:
        n_dims: Size of the vector of a cube.
        in_channels: Contrasts of a cube.
        n_axes: 3 for cubes, 2 for patches.
        scales: Strides of the cubes, as in `cpic.data.read_cubes`.
        variant: `"paper"` or `"fast"`.
        activation: After the hidden layers.
        last: After the last layer: `"linear"` is nothing; None is the published one, `"sigmoid"` in
            three dimensions and `"relu"` in two.
        channels_last: Store the weights so that the channels of a voxel are contiguous in memory.
        bias: Initial value of the last biases; None draws them. With a value well below zero the
            channels of a new encoder are nearly off, except where they respond to a structure.
        precision: Dtype of the parameters and of all sums. Cubes of any dtype are converted to it;
            the vectors have it.

    Attributes:
        receptive_field: Voxels along each axis of a cube.

    Raises:
        ValueError: If a size or a stride is below 1, a stride stands twice or an option is unknown,
            and, when called, if the cubes have another shape.

    Example:
        >>> encoder = CubeEncoder(16)
        >>> encoder(torch.zeros(7, 1, 9, 9, 9)).shape
        torch.Size([7, 16])
        >>> sum(p.numel() for p in encoder.parameters())
        23146
    """

    def __init__(
        self,
        n_dims: int = 16,
        *,
        in_channels: int = 1,
        n_axes: int = 3,
        scales: Sequence[int] = (1,),
        variant: Literal["paper", "fast"] = "paper",
        activation: Literal["relu", "gelu"] = "relu",
        last: Literal["sigmoid", "relu", "linear"] | None = None,
        channels_last: bool = False,
        bias: float | None = None,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_positive("CubeEncoder", n_dims=n_dims, in_channels=in_channels)
        if (variant, n_axes) not in _LAYERS or precision not in (torch.float32, torch.float64):
            raise ValueError(
                'CubeEncoder needs variant "paper" or "fast", 2 or 3 axes, and precision '
                f"torch.float32 or torch.float64, got {variant!r}, {n_axes!r} and {precision!r}."
            )
        last = last or ("sigmoid" if n_axes == 3 else "relu")
        if activation not in _ACTIVATIONS or last not in _ACTIVATIONS:
            raise ValueError(
                f"CubeEncoder needs activations out of {', '.join(_ACTIVATIONS)}, got "
                f"{activation!r} and last={last!r}."
            )
        check_scales("CubeEncoder", scales)
        self.n_dims, self.in_channels, self.n_axes = n_dims, in_channels, n_axes
        self.scales = tuple(scales)
        hidden, kernel = _LAYERS[variant, n_axes]
        convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
        layers: list[nn.Module] = []
        field, step, width = 1, 1, in_channels * len(self.scales)
        for channels, size, stride in (*hidden, (n_dims, kernel, 1)):
            layers += [
                convolution(width, channels, size, stride=stride),
                _ACTIVATIONS[activation](),
            ]
            field, step, width = field + (size - 1) * step, step * stride, channels
        if bias is not None:
            nn.init.constant_(layers[-2].bias, bias)  # type: ignore[arg-type]
        layers[-1] = _ACTIVATIONS[last]()
        self.receptive_field = field
        self.layers = nn.Sequential(*layers).to(precision)
        self._last = torch.channels_last_3d if n_axes == 3 else torch.channels_last
        self._format = self._last if channels_last else torch.contiguous_format
        self._strided = variant == "fast" and in_channels * len(self.scales) >= _MANY
        for weight in self.layers.parameters():
            if weight.ndim == n_axes + 2:
                weight.data = weight.data.contiguous(memory_format=self._format)

    def forward(self, cubes: Tensor) -> Tensor:
        """Vectors `(n, n_dims)` of cubes `(n, c, s, ..., s)`; of S scales `(n, S c, s, ..., s)`."""
        _check_cubes(self, cubes, self.n_axes)
        weight = next(self.parameters())
        layout = self._last if self._strided and weight.is_cpu else self._format
        values = cubes.to(weight.dtype, memory_format=layout)
        for layer in self.layers:
            values = _applied(layer, values, layout == self._last)
        return values.flatten(1)


def _applied(layer: nn.Module, values: Tensor, channels_last: bool) -> Tensor:
    """A layer of convolutions; `(n, channels)` once a cube has shrunk to one position."""
    if not isinstance(layer, nn.Conv2d | nn.Conv3d):
        return layer(values)
    if values.ndim > 2 and values.shape[2:] != layer.kernel_size:
        return layer(values)
    # Which is a matrix product then: twice as fast on a CPU as the same called a convolution.
    weight = layer.weight
    if channels_last and values.ndim > 2:
        values, weight = values.movedim(1, -1), weight.movedim(1, -1)
    return nn.functional.linear(values.flatten(1), weight.flatten(1), layer.bias)


class PatchEncoder(nn.Module):
    """Dense layers over a flattened cube or patch {cite}`usvyatsov2021cherry`.

    Two hidden layers, each with batch norm and ReLU, and a final linear layer. In training mode the
    vector of a cube depends on the other cubes of the call.

    Args:
        n_dims: Size of the vector of a cube.
        size: Voxels along each axis of a cube, odd.
        in_channels: Contrasts of a cube.
        n_axes: 3 for cubes, 2 for patches.
        hidden: Width of the hidden layers.
        precision: As in `CubeEncoder`.

    Attributes:
        receptive_field: `size`.

    Raises:
        ValueError: If a size is invalid, and, when called, if the cubes have another shape, or
            there is only one in training mode.

    Example:
        >>> PatchEncoder(8, size=5)(torch.rand(4, 1, 5, 5, 5)).shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        n_dims: int = 16,
        *,
        size: int = 9,
        in_channels: int = 1,
        n_axes: int = 3,
        hidden: int = 256,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        sizes = {"n_dims": n_dims, "size": size, "in_channels": in_channels, "hidden": hidden}
        check_positive("PatchEncoder", **sizes, n_axes=n_axes)
        check_odd("PatchEncoder", "size", size, "a cube has its voxel")
        self.n_dims, self.receptive_field = n_dims, size
        self.in_channels, self.n_axes = in_channels, n_axes
        layers = dense(in_channels * size**n_axes, hidden, hidden, n_outputs=n_dims)
        self.layers = nn.Sequential(nn.Flatten(), *layers).to(precision)

    def forward(self, cubes: Tensor) -> Tensor:
        """Vectors `(n, n_dims)` of cubes `(n, c, s, ..., s)`."""
        _check_cubes(self, cubes, self.n_axes)
        check_batch_norm(self, len(cubes))
        return self.layers(cubes.to(next(self.parameters()).dtype))


def _check_cubes(encoder: CubeEncoder | PatchEncoder, cubes: Tensor, n_axes: int) -> None:
    scales, size = getattr(encoder, "scales", (1,)), encoder.receptive_field
    wanted = (encoder.in_channels * len(scales), *[size] * n_axes)
    if tuple(cubes.shape[1:]) != wanted:
        read = f"volume.cubes(centers, size={size})"
        if scales != (1,):
            read = f"cpic.data.read_cubes(volumes, owner, centers, size={size}, strides={scales})"
        raise ValueError(
            f"{type(encoder).__name__} needs cubes of shape (n, {str(wanted)[1:-1]}), got "
            f"{tuple(cubes.shape)}; read them with `{read}`."
        )
