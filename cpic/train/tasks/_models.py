"""Models by name, built from the settings in a checkpoint."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cpic._renamed import warn_old
from cpic.data import ArrayVolume
from cpic.nn import (
    CPIC,
    CubeEncoder,
    Positions,
    QuantileHead,
    Reading,
    Search,
    TwoHeadRegressor,
    count_features,
    spectral,
)
from cpic.nn._checks import check_scales
from cpic.nn._components import Components
from cpic.nn._features import BASED
from cpic.nn._options import OLD, grouped
from cpic.nn._positions import matched
from cpic.nn.baselines import DownsampleCNN, ResNet, resnet34
from cpic.options import Model, Network
from cpic.options._kinds import fitted, kinds_of
from cpic.options._names import check_name
from cpic.train.tasks._dense import HistogramLinear, dense
from cpic.train.tasks._fitted import FEATURES, Fitted
from cpic.train.tasks._tasks import Quantiles, Regression

TRAINS = ("cpic", "tt_mlp")
DENSE = ("resnet34", "downsample", "histogram")
# Solved in closed form, without epochs.
FITTED = tuple(FEATURES)
# Further options that a model accepts: the arguments of these, except those set here.
_TRAIN_OPTIONS = (Search, Reading)
_FEATURES = {"n_features": int | None, "components": dict[str, Any] | None}
_MAKERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "cpic": _TRAIN_OPTIONS,
    "tt_mlp": _TRAIN_OPTIONS,
    "resnet34": (resnet34,),
    "downsample": (DownsampleCNN,),
    "histogram": (HistogramLinear,),
    **{name: (features,) for name, features in FEATURES.items()},
}
_SET_HERE = {
    *("self", "shape", "contrasts", "rank", "chunk", "generator", "head", "encoder"),
    *("n_outputs", "in_channels", "n_axes", "n_tabular", "volume"),
}
_DTYPES = {32: torch.float32, 64: torch.float64}
# The regressor has three outputs, of which survival is the second.
_SURVIVAL = 1


def check_model(name: str, model: Network, batch_size: int) -> None:
    """Raise unless the model is known, accepts the options, and can learn from a batch.

    Raises:
        ValueError: If not.
    """
    if name not in _MAKERS:
        raise ValueError(f"a run needs a model out of {', '.join(_MAKERS)}, got {name!r}.")
    more = model.more or {}
    if name in FITTED and model.layers != "plain":
        raise ValueError(
            f'{name} has no layers to make of few numbers, got layers "{model.layers}"; leave '
            "layers out."
        )
    kinds = {key: kind for maker in _MAKERS[name] for key, kind in kinds_of(maker).items()}
    if name not in TRAINS:
        _check_more(more, kinds, {}, f"more options of {name}", "more")
        return
    _check_more(more, kinds | _FEATURES, OLD, f"more options of {name}", "more")
    inner = more.get("components") or {}
    _check_more(inner, kinds_of(Components), {}, "more.components", "more.components")
    features = ("components",)
    if isinstance(model, Model):
        features = model.features
        matched(_positions(vars(model)), features)
        check_scales("a run", model.scales)
        if model.residual and not model.correction:
            raise ValueError(
                f"a run needs a correction for a residual of {model.residual} in the loss, got 0; "
                "set correction, for example to 500."
            )
    # By default, as many components as the rank are found in the scans of a batch.
    wanted = {"rank": model.rank, "more.n_features": more.get("n_features")}
    for option, number in wanted.items() if set(BASED) & set(features) else ():
        if number is not None and not 1 <= number <= batch_size:
            raise ValueError(
                f"a run needs {option} between 1 and batch_size, {batch_size}, since so many "
                f"features are found in the scans of a batch, got {number}; lower it or raise "
                "batch_size."
            )
    grouped({"rank": model.rank, "chunk": model.chunk, **more})  # rejects values out of range


def _check_more(
    options: Mapping[str, Any],
    kinds: Mapping[str, Any],
    old: Mapping[str, str],
    where: str,
    prefix: str,
) -> None:
    for key, value in options.items():
        new = old.get(key, key)
        check_name(new, sorted(set(kinds) - _SET_HERE), where=where)
        fitted(kinds[new], value, name=f"{prefix}.{key}")
        if new != key:
            warn_old(f"more.{key} is now more.{new}; the old name")


def make_module(config: Mapping[str, Any], *, fold: int = 0) -> Regression | Quantiles:
    """Build the model of a configuration, with loss and metric of its task.

    Args:
        config: `task`, `model`, `shape`, `channels`, `n_tabular`, `rank`, `ndims`, `encoder`,
            `chunk`, `precision`, `lr`, `seed`, `more` options of the model, and, if wanted,
            `layers` and `layers_rank`, and `schedule`, `standard` and `residual` of the task.
        fold: Index of the fold; every fold starts with different parameters.
    """
    # Runs with the same seed start with the same parameters, whatever was drawn before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"] + fold)
        model = _model(config, fold)
        if config.get("layers", "plain") != "plain":
            # Few numbers must not mean other magnitudes: each layer starts with the norm it had.
            spectral.parametrize(model, config["layers"], rank=config["layers_rank"], gain="keep")
    given = ("schedule", "standard", "optimizer", "weight_decay", "residual")
    options = {key: config[key] for key in given if config.get(key) is not None}
    if config["task"] == "osic":
        return Quantiles(model, lr=config["lr"], **options)
    single = config["model"] in FITTED or (config["model"] in DENSE and not config["n_tabular"])
    output = None if single else _SURVIVAL
    return Regression(model, lr=config["lr"], output=output, **options)


def _model(config: Mapping[str, Any], fold: int) -> nn.Module:
    shape: Sequence[int] = config["shape"]
    channels, dtype, more = config["channels"], _DTYPES[config["precision"]], dict(config["more"])
    if config["model"] in DENSE:
        return dense(_dense(config, channels, more).to(dtype), shape)
    if config["model"] in FITTED:
        return _fitted(config, shape, channels, more).to(dtype)
    encoder = None
    if config["model"] == "cpic":
        encoder = CubeEncoder(
            config["ndims"],
            in_channels=channels,
            scales=tuple(config.get("scales") or (1,)),
            variant=config["encoder"],
            activation=config.get("activation", "relu"),
            last=config.get("last"),
            bias=config.get("bias"),
            precision=dtype,
        )
    n_dims = channels if encoder is None else config["ndims"]
    features = tuple(config.get("features") or ("components",))
    rank = more.get("n_features") or config["rank"]
    width = count_features(features, rank=rank, n_dims=n_dims, n_axes=len(shape))
    head = _head(config, width)
    options = {"rank": config["rank"], "chunk": config["chunk"], **more}
    return CPIC(
        encoder,
        head.to(dtype),
        shape=shape,
        contrasts=channels,
        positions=_positions(config),
        features=features,
        generator=torch.Generator().manual_seed(config["seed"] + fold),
        **grouped(options),
    )


def _fitted(
    config: Mapping[str, Any], shape: Sequence[int], channels: int, more: dict[str, Any]
) -> Fitted:
    features = functools.partial(FEATURES[config["model"]], **more)
    blank = torch.zeros(*shape, channels) if channels > 1 else torch.zeros(*shape)
    width = len(features(ArrayVolume(blank, channels=channels)))
    on_osic = config["task"] == "osic"
    n_tabular = config["n_tabular"] if width else 0
    n_outputs = 3 if on_osic else 1
    return Fitted(features, width, n_outputs, n_tabular=n_tabular, products=on_osic)


def _positions(config: Mapping[str, Any]) -> Positions:
    """Positions of a configuration; those before they could be chosen were of the cross."""
    given = {"by": "positions", "budget": "budget", "correction": "correction"}
    return Positions(**{name: config[key] for name, key in given.items() if key in config})


def _head(config: Mapping[str, Any], width: int, *, batch_norm: bool | None = None) -> nn.Module:
    n_tabular, norm = config["n_tabular"], config.get("norm")
    layer_norm = norm == "layer"
    if config["task"] == "brats" or batch_norm:
        with_batches = norm in (None, "batch")
        return TwoHeadRegressor(
            width, n_tabular=n_tabular, batch_norm=with_batches, layer_norm=layer_norm
        )
    if norm == "batch":
        raise ValueError(
            'osic needs norm "layer" or "none", got "batch": its head has no batch norm.'
        )
    return QuantileHead(width, n_tabular=n_tabular, layer_norm=layer_norm)


def _dense(config: Mapping[str, Any], channels: int, more: dict[str, Any]) -> nn.Module:
    """A network over whole volumes; with tabular features, a body and the head of the task."""
    n_tabular = config["n_tabular"]
    n_outputs = 3 if n_tabular or config["task"] == "osic" else 1
    if config["model"] == "histogram":
        return HistogramLinear(n_outputs, in_channels=channels, n_tabular=n_tabular, **more)
    if config["model"] == "resnet34":
        # The published head for OSIC has batch norm only after the residual network.
        head = _head(config, 512, batch_norm=True) if n_tabular else None
        return resnet34(n_outputs, in_channels=channels, head=head, **more)
    if not n_tabular:
        return DownsampleCNN(n_outputs, in_channels=channels, **more)
    width = 64
    body = DownsampleCNN(width, in_channels=channels, **more)
    return ResNet(body, _head(config, width), in_channels=channels)
