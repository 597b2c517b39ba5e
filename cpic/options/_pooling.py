"""Options of training on pictures with covariance pooling."""

import dataclasses
from pathlib import Path
from typing import Literal

from cpic.options._groups import Group, Training
from cpic.options._kinds import Count, Finite, NotNegative, Positive, Share, Size, Text, Whole

Benchmark = Literal[
    "textures",
    "digits",
    "small-digits",
    "cifar10",
    "imagenet",
    "cub",
    "aircraft",
    "aircraft-family",
    "aircraft-manufacturer",
    "cars",
    "dogs",
    "dogs-cropped",
    "flowers",
]
Representation = Literal[
    "MPNCOV",
    "SVD_Original",
    "SVD_Trunc",
    "SVD_TopN",
    "SVD_Taylor",
    "SVD_Pade",
    "SVD_PI",
    "SVD_Newton",
    "SVD_Lyapunov",
    "MPA",
    "MTP",
    "Auto",
    "SEB",
    "GAvP",
    "BCNN",
    "CBP",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(Group):
    """Pictures, how they are cut, and what chooses the epoch.

    Attributes:
        benchmark: Data set; "textures" and the digits are built in.
        root: Folder of the data set, as its authors publish it.
        image_size: Side of the crops that the network gets; by default that of the recipe, 224 for
            ImageNet and 448 for the other photographs. What is scaled before follows.
        views: Crops whose scores are averaged in the final evaluation: "center", "mirrored" (the
            center and its mirror image) or "ten" (corners and center, mirrored); by default that of
            the recipe.
    """

    benchmark: Benchmark = "textures"
    root: Text | Path | None = None
    image_size: Size | None = None
    views: Literal["center", "mirrored", "ten"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling(Group):
    """The network in three parts: features, representation, classifier.

    Attributes:
        arch: "plain", "residual" or "dense", small networks of equal size; the name of a network of
            torchvision, such as resnet50; "alexnet_bn", as published; or such a name behind
            "mpncov", as in mpncovresnet50, which keeps the resolution of the last stage.
        representation: Pooling, by its published name; see `cpic.nn.pooling.representation`.
        dimension_reduction: Channels after the 1 x 1 convolution in front of the pooling; 0 leaves
            it out.
        power: Exponent of the covariance, for those that begin with `SVD`.
        keep_resolution: Stride 1 in the last stage of a ResNet, as in the published mpncovresnet.
        hidden: Widths of hidden layers of the classifier.
        freeze: Number of modules of the features that are not trained (freezed_layer).
        pretrained: File of weights, of torchvision or of a run, whose classifier is taken as well
            if it fits; or "torchvision", which lets it download its own.
        switch_to: Representation to switch to within the run, with the same weights, optimizer and
            learning rate: the hybrid protocol.
        switch_at: Epoch of the switch, from 0; by default that of the last decay.
        compare_gap: Also train a network with global average pooling and as many parameters, and
            report its accuracy as `gap_accuracy`.
    """

    arch: Text = "residual"
    representation: Representation = "MPNCOV"
    dimension_reduction: Whole = 256
    power: Positive = 0.5
    keep_resolution: bool = False
    hidden: tuple[Count, ...] = ()
    freeze: Whole = 0
    pretrained: Text | Path | None = None
    switch_to: Representation | None = None
    switch_at: Whole | None = None
    compare_gap: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent(Training):
    """How the weights are optimized.

    Attributes:
        momentum: Of "sgd".
        lr_method: "step" multiplies the learning rate by 0.1 at the epochs of `lr_params`; "log"
            takes as many powers of ten as there are epochs, from the first to the second number of
            `lr_params`; null follows `schedule`.
        lr_params: Numbers of `lr_method`; epochs count from 0.
        classifier_factor: Factor on the learning rate of the classifier.
        classifier_decay: Weight decay of the classifier; by default that of the others.
    """

    momentum: Share = 0.9
    lr_method: Literal["step", "log"] | None = "step"
    lr_params: tuple[Finite, ...] = ()
    classifier_factor: Positive = 1.0
    classifier_decay: NotNegative | None = None
