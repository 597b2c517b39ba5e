"""Networks in three parts, features, representation and classifier, from any backbone."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpic._vision import torchvision
from cpic.nn._checks import check_positive


class Reduction(nn.Sequential):
    """A 1 x 1 convolution without bias, batch norm and ReLU, to fewer channels.

    A covariance of 256 channels has 32 896 numbers; one of 2048, the width of a ResNet-50, has
    2 098 176.

    Args:
        n_channels: Channels of the maps.
        n_outputs: Channels that remain.

    Example:
        >>> Reduction(64, 16)(torch.rand(2, 64, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, n_channels: int, n_outputs: int = 256):
        check_positive("Reduction", n_channels=n_channels, n_outputs=n_outputs)
        convolution = nn.Conv2d(n_channels, n_outputs, 1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(n_outputs), nn.ReLU(inplace=True))
        self.n_outputs = n_outputs


class Features(NamedTuple):
    """The part of a network before its last pooling.

    Attributes:
        layers: A module from images to maps.
        n_channels: Channels of these maps.
    """

    layers: nn.Module
    n_channels: int


def feature_layers(
    backbone: nn.Module, *, size: int = 128, in_channels: int = 3, keep_resolution: bool = False
) -> Features:
    """The layers of a network up to the last feature maps, without its last pooling.

    Found by a trace of one image: the last maps of more than one position, and back over poolings.
    Works for the convolutional networks and transformers of torchvision, and for every other
    network that `torch.fx` can trace. Of a vision transformer the maps are its last tokens at their
    places, without that of the class; its images have the one size that it is made for. Parameters
    are shared with the backbone, and keep their names.

    Args:
        backbone: The network.
        size: Height and width of the image.
        in_channels: Channels of the image.
        keep_resolution: Set the strides of the last stage of a ResNet to 1: maps of twice the
            height and width, so four times as many positions for a covariance.

    Raises:
        ValueError: If the network has no feature maps, attention over tokens of another kind, or no
            last stage of which to set strides.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        >>> feature_layers(net).n_channels
        8
    """
    torchvision()
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    if keep_resolution:
        _unstride(backbone)
    if isinstance(backbone, torchvision().models.VisionTransformer):
        tokens = create_feature_extractor(backbone, return_nodes={"encoder.ln": "maps"})
        width = backbone.get_parameter("class_token").shape[-1]
        edge: Any = backbone.image_size
        return Features(_Tokens(tokens, edge).train(backbone.training), width)
    if any(isinstance(module, nn.MultiheadAttention) for module in backbone.modules()):
        raise ValueError(
            f"feature_layers needs a convolutional network or a transformer of torchvision, got "
            f"{type(backbone).__name__} with attention over tokens; pool its tokens with "
            "`SecondOrder` directly."
        )
    was = backbone.training
    # Some networks have further outputs in training, of layers before the last maps.
    quiet: dict[str, Any] = {"suppress_diff_warning": True}
    names = [name for name in get_graph_node_names(backbone, **quiet)[1] if name != "output"]
    image = next(backbone.parameters()).new_zeros(1, in_channels, size, size)
    with torch.no_grad():
        found = create_feature_extractor(backbone, return_nodes=names, **quiet).eval()(image)
    maps = [name for name in names if isinstance(found.get(name), Tensor) and _is_map(found[name])]
    maps = [name for name in maps if name != names[0]]  # the image
    while maps and "pool" in _kind(backbone, maps[-1]):
        maps.pop()
    if not maps:
        raise ValueError(
            f"feature_layers found no feature maps in {type(backbone).__name__} for images of "
            f"{size} x {size}; pass a larger `size`."
        )
    last = create_feature_extractor(backbone, return_nodes={maps[-1]: "maps"}, **quiet)
    return Features(_Single(last).train(was), found[maps[-1]].shape[1])


class _Single(nn.Module):
    """The maps of an extractor, without the dictionary around them."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        return self.extractor(images)["maps"]


class _Tokens(_Single):
    """The tokens of a vision transformer as maps `(b, c, height, width)`, without the first."""

    def __init__(self, extractor: nn.Module, image_size: int):
        super().__init__(extractor)
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size,) * 2:
            raise ValueError(
                f"attention over tokens needs images of {self.image_size} x {self.image_size} "
                f"pixels, got {tuple(images.shape)}; resize them, or use a convolutional network."
            )
        tokens = super().forward(images)[:, 1:].mT
        side = math.isqrt(tokens.shape[-1])
        return tokens.unflatten(-1, (side, side))


class ThreeParts(nn.Module):
    """Features, representation and classifier of images.

    Args:
        features: From images to maps.
        representation: From maps to vectors, with their length as `n_outputs`.
        n_classes: Number of classes.
        hidden: Widths of hidden layers of the classifier; (4096, 4096) as in AlexNet and VGG.

    Example:
        >>> from cpic.nn.pooling import GlobalAverage
        >>> net = ThreeParts(nn.Conv2d(3, 8, 3), GlobalAverage(8), 5)
        >>> net(torch.rand(2, 3, 9, 9)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        features: nn.Module,
        representation: nn.Module,
        n_classes: int,
        *,
        hidden: Sequence[int] = (),
    ):
        super().__init__()
        n_outputs = representation.n_outputs
        assert isinstance(n_outputs, int)
        check_positive("ThreeParts", n_classes=n_classes, n_outputs=n_outputs)
        for width in hidden:
            check_positive("ThreeParts", hidden=width)
        widths = [n_outputs, *hidden]
        layers: list[nn.Module] = []
        for one, other in itertools.pairwise(widths):
            layers += [nn.Linear(one, other), nn.ReLU(inplace=True)]
        self.features, self.representation = features, representation
        self.classifier = nn.Sequential(*layers, nn.Linear(widths[-1], n_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(b, n_classes)`."""
        return self.classifier(self.representation(self.features(images)))

    def freeze(self, n_modules: int) -> None:
        """Exclude the parameters of the first modules of the features from training.

        Their batch norms continue to update running statistics, as published.

        Args:
            n_modules: Number of modules, in order; the layers of a network that is one sequence.

        Raises:
            ValueError: If there are fewer.
        """
        modules = units(self.features)
        if not 0 <= n_modules <= len(modules):
            raise ValueError(
                f"freeze needs at most {len(modules)} modules, those of the features, got "
                f"{n_modules}."
            )
        for place, module in enumerate(modules):
            module.requires_grad_(place >= n_modules)

    def groups(
        self, *, factor: float = 1.0, classifier_decay: float | None = None
    ) -> list[dict[str, Any]]:
        """Groups of the trained parameters, for an optimizer.

        Args:
            factor: What the learning rate of the classifier is multiplied by.
            classifier_decay: Its weight decay; None for that of the others.
        """
        rest = [*self.features.parameters(), *self.representation.parameters()]
        own: dict[str, Any] = {"params": list(self.classifier.parameters()), "factor": factor}
        if classifier_decay is not None:
            own["weight_decay"] = classifier_decay
        rest = [one for one in rest if one.requires_grad]
        return [*([{"params": rest, "factor": 1.0}] if rest else []), own]


def units(features: nn.Module) -> list[nn.Module]:
    """The modules of a network in order, below what wraps all of them."""
    modules = list(features.children())
    while len(modules) == 1 and list(modules[0].children()):
        modules = list(modules[0].children())
    return modules


def _is_map(value: Tensor) -> bool:
    return value.ndim == 4 and value.shape[-1] * value.shape[-2] > 1


def _kind(backbone: nn.Module, node: str) -> str:
    """The class of the module of a node, or the name of its function."""
    try:
        return type(backbone.get_submodule(node)).__name__.lower()
    except AttributeError:
        return node.lower()


def _unstride(backbone: nn.Module) -> None:
    last = getattr(backbone, "layer4", None)
    if last is None:
        raise ValueError(f"keep_resolution needs a ResNet, got {type(backbone).__name__}; omit it.")
    for module in last.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
