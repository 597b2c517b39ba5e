"""Options of training on pictures: data sets, layers of few numbers, steps, evaluation."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from cpic.options._groups import Group, Run
from cpic.options._kinds import Count, Factor, NotNegative, Positive, Share, Size, Text, Width

DATASETS = ("digits", "small-digits", "faces", "textures", "animals", "cifar10", "stl10")
Dataset = Literal["digits", "small-digits", "faces", "textures", "animals", "cifar10", "stl10"]
Layers = Literal["plain", "sn", "sr", "svdp", "sttp"]
Spectrum = Literal["fixed", "learned"]
Penalty = Literal["none", "d_optimal", "divergence"]
Schedule = Literal["constant", "linear"]
Optimizer = Literal["adam", "sgd"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureSet(Group):
    """Data set of pictures.

    Attributes:
        dataset: Built in are digits, small-digits, faces and textures, and, with its package,
            animals; cifar10 and stl10 need their folder. Nothing is downloaded.
        root: Folder of cifar10 or stl10, unpacked as published, or its parent.
    """

    dataset: Dataset = "digits"
    root: Text | Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled(PictureSet):
    """Data set of pictures, resized and altered.

    Attributes:
        size: Side to which pictures are resized; as they are by default.
        augment: "published" pads by 4 pixels and takes a random part of 8 to 100 % of the area,
            mirrored with probability 1/2; "shift" moves a picture by at most 2 pixels.
    """

    size: Size | None = None
    augment: Literal["none", "shift", "published"] = "published"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversaries(Group):
    """A generator and a discriminator.

    Attributes:
        size: Side of the images, which selects the networks; 16 is not a published one.
        conditional: Condition both networks on the class: conditional batch norm in the generator,
            projection in the discriminator.
        n_latent: Dimensions of the latent vectors.
        z_type: Distribution of the latent vectors.
        g_width: Channels that the generator starts with; the published number by default.
        d_width: Channels that the discriminator ends with; the published number by default.
        ema: Momentum of a moving average of the generator, which is then evaluated; null for none.
        g_layers: Weights of the generator: "plain", "svdp" (a product of frames with the singular
            values between them) or "sttp" (each frame a tensor train).
        g_rank: Upper bound on all ranks of the generator.
        g_spectrum: Singular values, "fixed" to one or "learned".
        g_penalty: Penalty on learned singular values.
        g_penalty_weight: Its factor in the loss.
        g_ignored: Names of layers that stay as they are; a name includes what is below it.
        g_layer_options: Further options of the layers; see `cpic gan` in the documentation.
        d_layers: The same for the discriminator; "sn" is spectral normalization, "sr" spectral
            compensation.
        d_rank: As `g_rank`.
        d_spectrum: As `g_spectrum`.
        d_penalty: As `g_penalty`.
        d_penalty_weight: As `g_penalty_weight`.
        d_ignored: As `g_ignored`.
        d_layer_options: As `g_layer_options`.
    """

    size: Literal[16, 32, 48, 64, 128] = 32
    conditional: bool = False
    n_latent: Width = 128
    z_type: Literal["normal", "uniform"] = "normal"
    g_width: Width | None = None
    d_width: Width | None = None
    ema: Share | None = None
    g_layers: Literal["plain", "svdp", "sttp"] = "plain"
    g_rank: Count = 64
    g_spectrum: Spectrum = "learned"
    g_penalty: Penalty = "none"
    g_penalty_weight: NotNegative = 1.0
    g_ignored: tuple[Text, ...] = ("noise_to_conv",)
    g_layer_options: dict[str, Any] | None = None
    d_layers: Layers = "sn"
    d_rank: Count = 64
    d_spectrum: Spectrum = "learned"
    d_penalty: Penalty = "none"
    d_penalty_weight: NotNegative = 1.0
    d_ignored: tuple[Text, ...] = ()
    d_layer_options: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes(Group):
    """A classifier of pictures.

    Attributes:
        network: "wresnet", a WideResNet, or "resnet", the narrow residual network for small images.
        depth: Layers of the network: 28 of a WideResNet, 20 to 1202 of the other one.
        widen: Factor on the channels of a WideResNet, below 1 for narrower ones.
        dropout: Share of the channels that a WideResNet drops between convolutions.
        layers: Weights: "plain", "sn" (spectral normalization), "sr" (spectral compensation),
            "svdp" (a product of frames with the singular values between them) or "sttp" (each frame
            a tensor train).
        rank: Upper bound on all ranks.
        spectrum: Singular values, "fixed" to one or "learned".
        penalty: Penalty on learned singular values.
        penalty_weight: Its factor in the loss.
        ignored: Names of layers that stay as they are; a name includes what is below it.
        layer_options: Further options of the layers; see `cpic imgcls` in the documentation.
    """

    network: Literal["wresnet", "resnet"] = "wresnet"
    depth: Width = 28
    widen: Factor = 10
    dropout: Share = 0.0
    layers: Layers = "plain"
    rank: Count = 64
    spectrum: Spectrum = "learned"
    penalty: Penalty = "none"
    penalty_weight: NotNegative = 1.0
    ignored: tuple[Text, ...] = ()
    layer_options: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Group):
    """How many steps of which size.

    Attributes:
        batch_size: Pictures per update.
        num_steps: Steps in all; a step of a GAN is one update of the generator and several of the
            discriminator.
        schedule: "linear" decreases the learning rate in each step, to 0 after the last one.
    """

    batch_size: Count = 64
    num_steps: Count = 100_000
    schedule: Schedule = "linear"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialSteps(Steps):
    """How the two networks are optimized.

    Attributes:
        loss: Loss of both networks.
        d_steps: Updates of the discriminator after each one of the generator.
        g_optimizer: Optimizer of the generator.
        g_lr: Its learning rate at the start.
        g_optimizer_options: Further options of `torch.optim.Adam` or `SGD`; betas are [0, 0.9]
            unless they are given.
        d_optimizer: Optimizer of the discriminator.
        d_lr: Its learning rate at the start.
        d_optimizer_options: As `g_optimizer_options`.
    """

    loss: Literal["hinge"] = "hinge"
    d_steps: Count = 5
    g_optimizer: Optimizer = "adam"
    g_lr: Positive = 2e-4
    g_optimizer_options: dict[str, Any] | None = None
    d_optimizer: Optimizer = "adam"
    d_lr: Positive = 2e-4
    d_optimizer_options: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSteps(Steps):
    """How the classifier is optimized.

    Attributes:
        optimizer: Optimizer.
        lr: Learning rate at the start.
        weight_decay: Factor of the squared weights.
        decay: Which parameters decay: "all", as published, or "weights", without those of frames,
            which are not lengths: decay turns frames toward the unit vectors.
        optimizer_options: Further options of `torch.optim.SGD` or `Adam`; the momentum of SGD is
            0.9 unless it is given.
        selection: Share of the training pictures that choose the best evaluation; they are not
            trained on. 0 lets the test pictures choose, as published; `best_accuracy` is then
            optimistic.
    """

    optimizer: Optimizer = "sgd"
    lr: Positive = 0.1
    weight_decay: NotNegative = 1e-4
    decay: Literal["all", "weights"] = "all"
    optimizer_options: dict[str, Any] | None = None
    selection: Share = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureRun(Run):
    """Where a run computes, what it writes and when.

    Attributes:
        log_every: Steps between losses in the log.
        evaluate_every: Steps between evaluations, each of which ends with a checkpoint.
        spectra_every: Steps between images of singular values and stable ranks.
        top: Singular values of a layer that such an image shows, the largest ones.
        batch_size_inference: Pictures per batch in evaluations.
    """

    log_every: Count = 10
    evaluate_every: Count = 5000
    spectra_every: Count = 5000
    top: Count = 32
    batch_size_inference: Count = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialRun(PictureRun):
    """Where a run computes, what it writes and how generated images are evaluated.

    Attributes:
        sheets_every: Steps between sheets of generated images.
        interpolation: Path between latent vectors in sheets.
        num_samples: Images that are generated for an evaluation.
        metrics: "features": Frechet and kernel distance of features of a small classifier, trained
            on the data set; "fidelity": Inception score, FID and KID of torch-fidelity, whose
            weights must be there; "auto": these if their weights are there, otherwise "features".
        fidelity: Options of torch-fidelity, such as isc, fid, kid, ppl, batch_size and
            feature_extractor_weights_path.
        leading_metric: Metric that selects the best generator; the Frechet distance, or the
            Inception score, by default.
        reference: Real images that generated ones are compared with.
        onnx: Export the generator whenever it is the best so far.
    """

    sheets_every: Count = 5000
    interpolation: Literal["slerp", "lerp"] = "slerp"
    num_samples: Count = 50_000
    metrics: Literal["auto", "features", "fidelity"] = "auto"
    fidelity: dict[str, Any] | None = None
    leading_metric: Text | None = None
    reference: Literal["train", "test"] = "train"
    onnx: bool = True
