"""Build a classifier of bags and its batches from options, and train it."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpic._errors import ImageError
from cpic.nn import ips, spectral
from cpic.options import Patches, PatchRun, PatchTraining, Selector
from cpic.train.loop._bag_data import BagData
from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._efficiency import Efficiency
from cpic.train.results._results import FoldResult
from cpic.train.tasks._bags import Labeled, load_bags
from cpic.train.tasks._images import train_on_images
from cpic.train.tasks._patches import PatchTask, warmed
from cpic.train.tasks._scores import check_places, write_scores

_log = logging.getLogger(__name__)
# Methods that look at a small view of the image.
LOOKING = ("ats", "dps")
_WIDTH = 128


def train_on_bags(
    dataset: str, data: Patches, model: Selector, optimization: PatchTraining, run: PatchRun
) -> list[FoldResult]:
    """Train a model that chooses patches, and test it after every epoch.

    Args:
        dataset: "mnist", "digits", "traffic" or "camelyon".
        data: Images and their patches.
        model: Options of the model.
        optimization: Options of the training.
        run: Where it runs and what it writes.

    Raises:
        ValueError: If an option, the images or a folder is invalid.
    """
    view = model.view if model.method in LOOKING else None
    train, test, facts = load_bags(dataset, data, seed=run.seed, view=view)
    rest, aside = set_aside(train, optimization.selection, run.seed)
    batches = BagData(
        rest,
        test,
        selection=aside,
        batch_size=optimization.batch_size or 1,
        eager=data.eager,
        # Otherwise all images of a batch would be on the device, and not `together`.
        stack=data.together is None or data.together >= (optimization.batch_size or 1),
        seed=run.seed,
        num_workers=run.num_workers,
        drop_last=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        net = make_model(model, train, facts["channels"], together=data.together)
    schedule: Any = optimization.schedule
    if optimization.warmup is not None:
        schedule = warmed(optimization.warmup, optimization.num_epochs, batches.n_batches)
    module = PatchTask(
        net,
        train.targets,
        lr=optimization.lr,
        schedule=schedule,
        by_step=optimization.warmup is not None,
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay,
    )
    chances = module.chances(batches.train, batches.validation)
    name = f"ips_{dataset}" if model.method == "ips" else f"ips_{dataset}_{model.method}"
    groups = {"data": data, "model": model, "optimization": optimization, "run": run}
    folder = Path(run.results_folder) / (run.experiment_name or name)
    chances_by_task = {f"{task}_chance": value for task, value in chances.items()}
    chances_by_task["chance"] = sum(chances.values()) / len(chances)
    if run.write_scores:
        check_places(net, test)

    def further(result: FoldResult) -> dict[str, float]:
        if run.write_scores and rank_and_size()[0] == 0:
            write_scores(net, result.best, test, folder / "scores", i=model.i or model.m)
        return chances_by_task

    return train_on_images(
        name,
        module,
        batches,
        optimization=optimization,
        run=run,
        config=_settings(dataset, data, model, optimization),
        facts={
            **facts,
            "patches": len(test.bag(0, None)),
            "images": {"train": len(rest), "test": len(test), "selection": len(aside or ())},
            "options": {group: one.plain() for group, one in groups.items()},
        },
        further=further,
        callbacks=[Efficiency(folder / "fold_0", run.track_epoch)] if run.track_efficiency else [],
    )


def make_model(
    options: Selector, bags: Labeled, channels: int, *, together: int | None = None
) -> nn.Module:
    """A classifier of bags.

    Args:
        options: Of the model.
        bags: Images, for their tasks and the grid of their patches.
        channels: Channels of a patch, or width of features.
        together: As `cpic.nn.ips.Iterative`.

    Raises:
        ImageError: If an option does not fit the images.
    """
    encoder = _encoder(options, bags, channels)
    if options.layers != "plain":
        spectral.parametrize(encoder, options.layers, rank=options.rank)
    targets, width = bags.targets, int(encoder.n_dims)  # type: ignore[arg-type]
    if options.method in LOOKING:
        if bags.grid is None:
            raise ImageError(f"{options.method} needs images of one size, choose another method.")
        net = ips.MapNet(channels, grid=bags.grid)
        if options.method == "ats":
            return ips.AttentionSampling(net, encoder, targets, m=options.m)
        pool = _pool(options, width, bags, places=False)
        return ips.DifferentiableSelection(net, encoder, pool, targets, m=options.m)
    if options.method == "all":
        gated = ips.GatedAttention(width, n_tokens=len(targets))
        return ips.PatchClassifier(encoder, gated, targets, choose=ips.AllPatches())
    pool = _pool(options, width, bags, places=True)
    choose: ips.Chooser
    if options.method == "random":
        choose = ips.RandomPatches(m=options.m)
    elif options.method == "cross":
        if bags.grid is None:
            raise ImageError("cross needs images of one size, choose another method.")
        choose = ips.CrossPatches(m=options.m, grid=bags.grid)
    else:
        choose = ips.Iterative(
            m=options.m,
            i=options.i,
            by=options.by,
            shuffle=None if options.shuffle == "none" else options.shuffle,
            together=together,
        )
    return ips.PatchClassifier(encoder, pool, targets, choose=choose)


def set_aside(train: Labeled, share: float, seed: int) -> tuple[Labeled, Labeled | None]:
    """The images that are trained on, and those that choose the best epoch.

    The latter have each class of the first task with one class per image in its share; an image
    that is alone in its class is trained on. With fewer images than classes they are drawn at
    random.
    """
    from sklearn.model_selection import train_test_split

    n = min(max(1, round(share * len(train))), len(train) - 1) if share else 0
    if not n:
        return train, None
    classes = [train.labels[t.name] for t in train.targets if t.kind != "multilabel"]
    labels = classes[0].long().view(-1) if classes else torch.zeros(len(train), dtype=torch.int64)
    drawn = (labels.bincount()[labels] > 1).nonzero()[:, 0]
    n_classes = len(labels[drawn].unique())
    fits = n_classes <= min(n, len(drawn) - n)
    if not fits:
        drawn = torch.arange(len(train))
        _log.info("%d images that choose the epoch do not have all classes", n)
    chosen = train_test_split(
        drawn.numpy(), test_size=n, random_state=seed, stratify=labels[drawn] if fits else None
    )[1]
    aside = torch.zeros(len(train), dtype=torch.bool)
    aside[chosen] = True
    return train.subset((~aside).nonzero()[:, 0]), train.subset(aside.nonzero()[:, 0])


def _encoder(options: Selector, bags: Labeled, channels: int) -> nn.Module:
    if options.in_channels not in (None, channels):
        raise ImageError(
            f"patches have {channels} channels (features: values), got "
            f"in_channels={options.in_channels}; leave it out."
        )
    if (options.encoder == "projector") != (bags.grid is None):
        raise ImageError(
            f'features need encoder "projector", and pixels another one, got {options.encoder!r}.'
        )
    if options.encoder == "projector":
        norm = "batch" if options.norm == "batch" else "layer"
        return ips.FeatureProjector(channels, n_dims=options.width or _WIDTH, norm=norm)
    if options.encoder == "conv":
        return ips.ConvEncoder(channels, n_dims=options.width or _WIDTH)
    net = ips.ResNetEncoder(
        options.encoder,
        in_channels=channels,
        stages=options.stages,
        norm=options.norm,
        pretrained=options.pretrained,
    )
    if options.width not in (None, net.n_dims):
        raise ImageError(
            f"{options.encoder} of {options.stages} stages has embeddings of {net.n_dims}, got "
            f"width={options.width}; leave it out."
        )
    return net


def _pool(options: Selector, width: int, bags: Labeled, *, places: bool) -> ips.CrossAttention:
    grid = None
    if places and options.places != "none":
        if bags.grid is None:
            raise ImageError('features have no grid, so places need to be "none".')
        rows, columns = bags.grid
        grid = (rows * columns,) if options.places == "index" else (rows, columns)
    return ips.CrossAttention(
        width,
        n_tokens=len(bags.targets),
        heads=options.heads,
        key_width=options.key_width,
        value_width=options.value_width,
        inner=options.inner,
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        grid=grid,
    )


def _settings(
    dataset: str, data: Patches, model: Selector, optimization: PatchTraining
) -> dict[str, Any]:
    """What a resumed run must agree in."""
    cut = ("patch", "stride", "images", "canvas", "strokes", "tasks", "train_file", "test_file")
    how = ("optimizer", "lr", "weight_decay", "schedule", "warmup", "num_epochs")
    settings = {"dataset": dataset, **{name: getattr(data, name) for name in cut}, **vars(model)}
    return settings | {name: getattr(optimization, name) for name in how}
