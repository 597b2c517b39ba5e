"""Train a classifier on pictures, with layers of few numbers, and summarize it."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cpic import images
from cpic.images import Images, PixelImages
from cpic.images._alter import resized
from cpic.nn import spectral
from cpic.nn.baselines import SmallResNet, WideResNet
from cpic.options import Training
from cpic.options._pictures import Classes, ClassifierSteps, PictureRun, PictureSet, Scaled
from cpic.train.loop._step_data import StepData
from cpic.train.tasks._classification import PictureClassification
from cpic.train.tasks._folder import check_wandb
from cpic.train.tasks._images import train_on_images
from cpic.train.tasks._layers import chosen, give_layers
from cpic.train.tasks._watch import Watch, folder_of

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult

# Means and standard deviations of the channels of the training images, as published.
_KNOWN = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}


def train_classifier(
    data: Scaled, model: Classes, optimization: ClassifierSteps, run: PictureRun
) -> "list[FoldResult]":
    """Train one classifier.

    Args:
        data: Pictures and their side.
        model: Network and its layers.
        optimization: Steps and optimizer.
        run: Where it runs and what it writes.

    Raises:
        ValueError: If an option is invalid.
    """
    choice = chosen(model)
    check_wandb(run.wandb)
    pair = load_pair(data, data.size)
    selection: Images | None = None
    train: Images = pair[0]
    if optimization.selection:
        draw = torch.Generator().manual_seed(run.seed)
        train, selection = images.split(train, optimization.selection, generator=draw)
    with torch.random.fork_rng(()):
        torch.manual_seed(run.seed)
        network = make_network(model, pair[0])
        n_before = count_numbers(network)
        compensation = give_layers(network, choice)
    if compensation is not None:
        network.add_module("compensation", compensation)  # so that checkpoints have its state
    batches = StepData(
        train,
        pair[1],
        selection=selection,
        num_steps=optimization.num_steps,
        steps_per_epoch=run.evaluate_every,
        batch_size=optimization.batch_size,
        seed=run.seed,
        num_workers=run.num_workers,
    )
    mean, spread = _KNOWN.get(data.dataset) or moments(pair[0])
    task = PictureClassification(
        network,
        choice=choice,
        mean=mean,
        spread=spread,
        augment=data.augment,
        seed=run.seed,
        num_steps=optimization.num_steps,
        decay=optimization.decay,
        settings=optimization.optimizer_options,
        watch=Watch(folder_of(run, "imgcls"), run.log_every, run.spectra_every, run.top),
        lr=optimization.lr,
        schedule=optimization.schedule,
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay,
    )
    groups = {"data": data, "model": model, "optimization": optimization, "run": run}
    facts = {
        "data": pair[0].source,
        "shape": list(pair[0].shape),
        "classes": list(pair[0].classes),
        "compression": compressed(network, n_before),
    }
    return train_on_images(
        "imgcls",
        task,
        batches,
        optimization=Training(num_epochs=batches.num_epochs, clip=None, patience=None),
        run=run,
        code=True,
        config={"options": {name: group.plain() for name, group in groups.items()}},
        facts=facts,
    )


def load_pair(data: PictureSet, size: int | None) -> tuple[PixelImages, PixelImages]:
    """Training and test pictures, with both sides `size` if it is given."""
    found = []
    for part in (True, False):
        one = images.load(data.dataset, root=data.root, train=part)
        pixels = one.read(range(len(one)))
        if size is not None:
            pixels = resized(pixels, size)
        made = PixelImages.make(pixels, one.labels, classes=one.classes, source=one.source)
        found.append(made)
    return found[0], found[1]


def make_network(model: Classes, pictures: Images) -> nn.Module:
    """The network before surgery, with weights from the global generator."""
    n, channels = len(pictures.classes), pictures.shape[0]
    if model.network == "resnet":
        return SmallResNet(n, in_channels=channels, depth=model.depth)
    return WideResNet(
        n, in_channels=channels, depth=model.depth, widen=model.widen, dropout=model.dropout
    )


def moments(pictures: PixelImages) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1]."""
    # From how often each level occurs: 256 numbers a channel instead of one a pixel.
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, spreads = [], []
    for channel in pictures.pixels.movedim(1, 0):
        share = channel.flatten().bincount(minlength=256).double()
        share = share / share.sum()
        means.append(float(share @ levels))
        spreads.append(float((share @ levels.square() - means[-1] ** 2).clamp_min(1e-6).sqrt()))
    return means, spreads


def count_numbers(network: nn.Module) -> int:
    """Numbers in the state of a network: weights and running statistics, no counters."""
    state: dict[str, Any] = network.state_dict()
    return sum(one.numel() for name, one in state.items() if not name.endswith("_tracked"))


def compressed(network: nn.Module, n_before: int) -> dict[str, Any]:
    """How many numbers a network had, and what its layers save."""
    found = spectral.compression(network)._asdict()
    found["frames"] = {str(size): count for size, count in found["frames"].items()}
    return {"numbers_before": n_before, **found}
