"""Build, train and evaluate a network with covariance pooling."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpic._errors import ImageError
from cpic._files import write_json
from cpic._vision import torchvision
from cpic.images import FileImages, Images, load, split
from cpic.nn.pooling import (
    Reduction,
    SecondOrder,
    Switched,
    ThreeParts,
    feature_layers,
    representation,
    small_backbone,
)
from cpic.nn.pooling._backbones import SMALL, alexnet_bn
from cpic.options import Descent, Pictures, Pooling, Run
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._faults import one_line
from cpic.train.loop._image_data import ImageData
from cpic.train.loop._resuming import load_weights
from cpic.train.results._results import FoldResult, peak_bytes, plain
from cpic.train.tasks._gcp_task import EveryEpoch, GCPTask, evaluate, factors
from cpic.train.tasks._gcp_views import RECIPES, views_of
from cpic.train.tasks._gcp_weights import load_pretrained
from cpic.train.tasks._images import fit, train_on_images


def train_gcp(
    data: Pictures,
    model: Pooling,
    optimization: Descent,
    run: Run,
    *,
    evaluate: str | Path | None = None,
    keep_epochs: bool = False,
) -> list[FoldResult]:
    """Train, or with a checkpoint only evaluate; see `cpic.train.gcp`."""
    pictures, size = _pictures(data, model, optimization, run)
    n_classes, channels = size
    task = _task(model, optimization, n_classes, channels, gap=False, seed=run.seed)
    _check_maps(task.model, channels, RECIPES[data.benchmark].of_size(data.image_size).crop)
    if evaluate is not None:
        return [_evaluated(Path(evaluate), task, pictures, data, run)]
    groups = {"data": data, "model": model, "optimization": optimization}
    config = plain({name: one.plain() for name, one in groups.items()})

    def further(result: FoldResult) -> dict[str, float]:
        found = _final(task, pictures, data, result.best)
        if not model.compare_gap:
            return found
        return found | _gap(data, model, optimization, run, size, config)

    name = f"gcp_{data.benchmark}_{model.arch}_{model.representation}"
    facts = {"n_parameters": sum(p.numel() for p in task.model.parameters())}
    if run.num_nodes > 1 and model.compare_gap:
        raise ValueError("compare_gap needs a single process; leave it out.")
    return train_on_images(
        name,
        task,
        pictures,
        optimization=optimization,
        run=run,
        config=config,
        facts=facts,
        further=further,
        callbacks=[EveryEpoch()] if keep_epochs else [],
    )


def _pictures(
    data: Pictures, model: Pooling, optimization: Descent, run: Run
) -> tuple[ImageData, tuple[int, int]]:
    """Batches; the number of classes and of channels."""
    recipe = RECIPES[data.benchmark].of_size(data.image_size)
    parts = [load(data.benchmark, root=data.root, train=train) for train in (True, False)]
    n_classes = [len(one.classes) for one in parts]
    if n_classes[0] != n_classes[1]:
        raise ImageError(
            f"{data.benchmark} in {data.root} has {n_classes[0]} classes to train with and "
            f"{n_classes[1]} to test with; its lists are of different data sets."
        )
    if recipe.before is not None:
        parts = [
            one.scaled(recipe.before) if isinstance(one, FileImages) and k else one
            for k, one in enumerate(parts)
        ]
        if recipe.train != "resized" and isinstance(parts[0], FileImages):
            parts[0] = parts[0].scaled(recipe.before)
    color = model.arch not in SMALL
    channels = 3 if color else parts[0].shape[0]
    views = views_of(recipe, color=color)
    draw = torch.Generator().manual_seed(run.seed)
    chosen: Images | None = None
    train: Images = parts[0]
    if optimization.selection:
        train, chosen = split(parts[0], optimization.selection, generator=draw)
    if chosen is not None and recipe.train == "resized" and isinstance(chosen, FileImages):
        chosen = chosen.scaled(recipe.before)
    pictures = ImageData(
        train,
        parts[1],
        selection=chosen,
        batch_size=optimization.batch_size or 32,
        augment=views["train"],
        view=views["center"],
        seed=run.seed,
        num_workers=run.num_workers if isinstance(parts[0], FileImages) else 0,
    )
    return pictures, (n_classes[0], channels)


def _task(
    model: Pooling,
    optimization: Descent,
    n_classes: int,
    channels: int,
    *,
    gap: bool,
    seed: int,
) -> GCPTask:
    """The network and how it is trained; with `gap` the one it is compared with."""
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        features, width = _features(model, channels)
        pooled = representation("GAvP", width) if gap else _representation(model, width)
        hidden = model.hidden
        if gap:
            hidden = (_as_many(_representation(model, width).n_outputs, width, n_classes),)
        net = ThreeParts(features, pooled, n_classes, hidden=hidden)
    load_pretrained(model.pretrained, net, model.arch)
    net.freeze(model.freeze)
    epochs, method = optimization.num_epochs, optimization.lr_method
    numbers = optimization.lr_params
    schedule: Any = optimization.schedule
    if method is not None:
        schedule = factors(method, numbers, optimization.lr, epochs)
    return GCPTask(
        net,
        lr=optimization.lr,
        schedule=schedule,
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay,
        momentum=optimization.momentum,
        factor=optimization.classifier_factor,
        classifier_decay=optimization.classifier_decay,
        switch_at=None if gap else _switch_at(model, optimization),
    )


def _check_maps(net: ThreeParts, channels: int, side: int) -> None:
    """Raise unless pictures of this size have maps, and maps for a covariance two positions."""
    try:
        with torch.no_grad():
            maps = net.eval().features(torch.zeros(1, channels, side, side))
    except RuntimeError as error:
        raise ValueError(
            f"the network cannot take pictures of {side} x {side} pixels ({one_line(error)}); "
            "raise image_size."
        ) from error
    net.train()
    if maps[0, 0].numel() == 1 and isinstance(net.representation, SecondOrder):
        raise ValueError(
            f"a covariance needs maps of two positions or more, got one for pictures of {side} x "
            f"{side} pixels; raise image_size, or keep_resolution."
        )


def _features(model: Pooling, channels: int) -> tuple[nn.Module, int]:
    if model.arch in SMALL:
        layers: nn.Module = small_backbone(model.arch, channels)
        width = 32
    else:
        # As the published networks are called: a ResNet keeps the resolution of its last stage.
        arch = model.arch.removeprefix("mpncov")
        keep = model.keep_resolution or (arch != model.arch and arch.startswith("resnet"))
        try:
            backbone = alexnet_bn() if arch == "alexnet_bn" else _of_torchvision(arch)
        except ValueError as error:
            raise ValueError(
                f"arch needs {', '.join(SMALL)}, alexnet_bn, or the name of a network of "
                f"torchvision, got {model.arch!r}."
            ) from error
        if arch.startswith("vit_"):
            raise ValueError(
                f"arch needs a convolutional network, got {arch!r} with attention over tokens, "
                "made for images of one size; use `cpic.nn.pooling.feature_layers`."
            )
        layers, width = feature_layers(backbone, keep_resolution=keep)
    if not model.dimension_reduction or model.dimension_reduction >= width:
        return layers, width
    reduction = Reduction(width, model.dimension_reduction)
    return nn.Sequential(layers, reduction), reduction.n_outputs


def _of_torchvision(arch: str) -> nn.Module:
    return torchvision().models.get_model(arch, weights=None)


def _representation(model: Pooling, width: int) -> Any:
    if width > 1024 and model.representation not in ("GAvP", "CBP"):
        raise ValueError(
            f"{model.representation} of {width} channels has a covariance of {width * width:,} "
            "numbers for each picture; set dimension_reduction, 256 as published."
        )
    powers = {"power": model.power} if model.power != 0.5 else {}
    made = representation(model.representation, width, **powers)
    if model.switch_to is None:
        return made
    then = representation(model.switch_to, width, **powers)
    if not (isinstance(made, SecondOrder) and isinstance(then, SecondOrder)):
        raise ValueError(
            f"switch_to needs two powers of a covariance, got {model.representation} and "
            f"{model.switch_to}: with other parts the classifier would not fit."
        )
    made.power = Switched(made.power, then.power)
    return made


def _switch_at(model: Pooling, optimization: Descent) -> int | None:
    """The epoch of the switch: the last decay that happens before the end."""
    if model.switch_to is None or model.switch_at is not None:
        return model.switch_at
    decays = [int(one) for one in optimization.lr_params if one < optimization.num_epochs]
    if optimization.lr_method != "step" or not decays:
        raise ValueError(
            "switch_to needs a decay of the learning rate to switch at; pass switch_at, or "
            "lr_method step with lr_params."
        )
    return max(decays)


def _as_many(n_outputs: int, width: int, n_classes: int) -> int:
    """Units of a hidden layer with which a classifier of means has as many parameters."""
    budget = (n_outputs + 1) * n_classes
    return max(1, round((budget - n_classes) / (width + 1 + n_classes)))


def _final(task: GCPTask, pictures: ImageData, data: Pictures, best: Path) -> dict[str, float]:
    """Accuracy of the best epoch over the crops of the final evaluation."""
    state = read_checkpoint(best)
    load_weights(task.model, state, best)
    task.switch(state["epoch"] - 1)
    kind = data.views or RECIPES[data.benchmark].views
    table, view = pictures.validation, pictures.view
    color = isinstance(pictures.parts["train"], Images) and _channels(task) == 3
    recipe = RECIPES[data.benchmark].of_size(data.image_size)
    pictures.view = views_of(recipe, color=color)[kind]
    plan = [list(range(k, min(k + 32, len(table.target)))) for k in range(0, len(table.target), 32)]
    found = evaluate(task, pictures.loader(table, plan, epoch=None))
    pictures.view = view
    n_views = {"center": 1, "mirrored": 2, "ten": 10}[kind]
    return {**{f"final_{name}": value for name, value in found.items()}, "n_views": n_views}


def _channels(task: GCPTask) -> int:
    """Channels of the images that the network gets."""
    first = next(m for m in task.model.modules() if isinstance(m, nn.Conv2d))
    return first.in_channels


def _gap(
    data: Pictures,
    model: Pooling,
    optimization: Descent,
    run: Run,
    size: tuple[int, int],
    config: dict[str, Any],
) -> dict[str, float]:
    """Train the network with global average pooling, and its accuracy."""
    pictures, (n_classes, channels) = _pictures(data, model, optimization, run)
    task = _task(model, optimization, n_classes, channels, gap=True, seed=run.seed)
    name = run.experiment_name or f"gcp_{data.benchmark}_{model.arch}_{model.representation}"
    folder = Path(run.results_folder) / name / "gap"
    result = fit(task, pictures, folder, optimization=optimization, run=run, config=config)
    final = _final(task, pictures, data, result.best)
    return {
        "gap_accuracy": result.metrics["accuracy"],
        "gap_final_accuracy": final["final_accuracy"],
    }


def _evaluated(
    path: Path, task: GCPTask, pictures: ImageData, data: Pictures, run: Run
) -> FoldResult:
    """The result of a checkpoint that is not trained further; also as `evaluation.json`."""
    found = _final(task, pictures, data, path)
    folder = Path(run.results_folder) / (run.experiment_name or "evaluation")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", {**found, "checkpoint": str(path)})
    blank = FoldResult(0, found, 0, 0.0, 0.0, peak_bytes(), path, path, "evaluated")
    return dataclasses.replace(blank)
