"""Small convolutional networks of three kinds and one size, to compare what follows them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cpic._vision import torchvision
from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive


class _Residual(nn.Module):
    """Adds what two convolutions change."""

    def __init__(self, width: int):
        super().__init__()
        self.change = nn.Sequential(*_layer(width, width), *_layer(width, width)[:2])

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.relu(maps + self.change(maps))


class _Dense(nn.Module):
    """Puts what a convolution finds beside what it saw."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.found = nn.Sequential(*_layer(width, growth))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.found(maps)], 1)


def _layer(width: int, n_outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width, n_outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(n_outputs), nn.ReLU()]


def _plain(w: int) -> list[nn.Module]:
    return [*_layer(w, w), *_layer(w, 2 * w, 2), *_layer(2 * w, 2 * w)]


def _residual(w: int) -> list[nn.Module]:
    return [_Residual(w), *_layer(w, 2 * w, 2), _Residual(2 * w)]


def _dense(w: int) -> list[nn.Module]:
    g = w // 2
    blocks = [_Dense(w, g), _Dense(w + g, g), *_layer(w + 2 * g, 2 * w, 2)]
    return [*blocks, _Dense(2 * w, g), _Dense(2 * w + g, g), *_layer(2 * w + 2 * g, 2 * w)]


SMALL: dict[str, Callable[[int], list[nn.Module]]] = {
    "plain": _plain,
    "residual": _residual,
    "dense": _dense,
}


def small_backbone(
    kind: str, in_channels: int = 1, *, n_outputs: int = 32, n_parameters: int = 15_000
) -> nn.Sequential:
    """A small network with batch norm whose maps have a quarter of the height and width.

    The width is that whose number of parameters comes closest to the one given, so that networks of
    different kinds are of equal size, within a few percent.

    Args:
        kind: "plain", a chain of convolutions; "residual"; or "dense".
        in_channels: Channels of the images.
        n_outputs: Channels of the maps, after a last 1 x 1 convolution.
        n_parameters: Number of parameters to come close to.

    Returns:
        A sequence with `n_outputs` as an attribute.

    Raises:
        ValueError: If the kind is unknown, or a number below 1.

    Example:
        >>> small_backbone("residual")(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 32, 16, 16])
    """
    check_choice("small_backbone", "kind", kind, SMALL, "or take one of torchvision")
    numbers = {"in_channels": in_channels, "n_outputs": n_outputs, "n_parameters": n_parameters}
    check_positive("small_backbone", **numbers)

    def layers(width: int) -> nn.Sequential:
        last = nn.Conv2d(2 * width, n_outputs, 1, bias=False)
        nn.init.kaiming_normal_(last.weight, mode="fan_out", nonlinearity="relu")
        body = [*_layer(in_channels, width, 2), *SMALL[kind](width)]
        return nn.Sequential(*body, last, nn.BatchNorm2d(n_outputs), nn.ReLU())

    def far(width: int) -> int:
        with torch.device("meta"):
            counted = sum(parameter.numel() for parameter in layers(width).parameters())
        return abs(counted - n_parameters)

    width = 2
    while far(width + 1) < far(width):
        width += 1
    made = layers(width)
    made.n_outputs = n_outputs  # type: ignore[assignment]
    return made


def alexnet_bn() -> nn.Sequential:
    """The features of AlexNet with a batch norm after each convolution, as in the published runs.

    Returns:
        From images `(b, 3, h, w)` to maps of 256 channels, with the last pooling.
    """
    layers = []
    for layer in torchvision().models.alexnet(weights=None).features:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    return nn.Sequential(*layers)
