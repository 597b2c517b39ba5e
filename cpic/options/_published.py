"""Options of the published experiments with spectral tensor trains, by their published names.

`cpic gan` and `cpic imgcls` read the published files: their keys are merged over all files, then
converted to the options here. Keys without a counterpart are in `DROPPED`, with the reason. `cpic
ips` does so as well, see `_published_ips`.

References: {cite}`obukhov2021spectral`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cpic.options import _published_ips

DROPPED = {
    "dataset_download": "nothing is downloaded; root names the folder",
    "assert_env_set": "devices are chosen by ngpus",
    "workers_validation": "num_workers holds for both",
    "root_wandb": "the log is in the folder of the run",
    "wandb_project": "wandb=true logs to the project cpic",
    "num_classes": "follows from the data set",
}
# Flags of the published script of `cpic gcp` that are left out, with the reason.
FLAGS_DROPPED = {
    "start_epoch": "--resume true continues at the epoch that was reached",
    "print_freq": "--progress true shows a bar",
    "world_size": "torchrun starts the processes",
    "dist_url": "torchrun starts the processes",
    "dist_backend": "torchrun starts the processes",
    "num_classes": "it follows from the data",
}
_SIDE = (
    *("ops_name", "ops_use_factory", "ops_factory_name", "ops_factory_stiefel_name"),
    *("ops_factory_rank", "ops_factory_kwargs", "ops_factory_ignored"),
    *("spectral_compensation_frequency", "spectral_compensation_kwargs"),
    *("spectral_penalty", "spectral_penalty_weight", "optimizer_kwargs"),
)
_BOTH = (
    *("experiment", "log_dir", "dataset", "num_training_steps", "num_log_loss_steps"),
    *("num_log_sv_steps", "num_checkpoint_steps", "model_name", "lr_sched", "random_seed"),
    *("use_canonical_householder", "vis_truncate_singular_values", "root_datasets", "root_logs"),
    *("workers", *DROPPED),
)
_GAN = {
    *_BOTH,
    *(f"{side}_{name}" for side in "gd" for name in (*_SIDE, "kwargs")),
    *("conditioning", "num_log_images_steps", "num_validation_images", "model_preset"),
    *("loss_name", "fidelity_leading_metric_name", "fidelity_kwargs", "z_interp_mode", "g_ema"),
    "d_step_repeats",
}
_CLASSES = {*_BOTH, *_SIDE, "model_name_specific", "model_name_specific_kwargs", "surgery_kwargs"}
# Published keys by command.
KEYS = {"gan": _GAN, "imgcls": _CLASSES, "ips": _published_ips.KEYS}
# Options here as well, with other values.
_BOTH_HERE = {"dataset", "experiment_name"}
_SHARED = {"gan": _BOTH_HERE, "imgcls": _BOTH_HERE, "ips": _published_ips.SHARED}
_PLAIN = {
    "num_training_steps": "num_steps",
    "num_log_loss_steps": "log_every",
    "num_log_images_steps": "sheets_every",
    "num_log_sv_steps": "spectra_every",
    "num_checkpoint_steps": "evaluate_every",
    "num_validation_images": "num_samples",
    "model_preset": "size",
    "conditioning": "conditional",
    "lr_sched": "schedule",
    "loss_name": "loss",
    "random_seed": "seed",
    "vis_truncate_singular_values": "top",
    "root_logs": "results_folder",
    "workers": "num_workers",
    "fidelity_leading_metric_name": "leading_metric",
    "d_step_repeats": "d_steps",
}
_NETWORKS = {"wresnet_cifar": "wresnet", "resnet_cifar10": "resnet"}
_KNOWN = {
    "experiment": ("gan", "imgcls"),
    "ops_name": ("regular", "spectral_norm_pytorch"),
    "ops_factory_name": ("svdp", "sttp"),
    "ops_factory_stiefel_name": ("householder",),
    "dataset": ("cifar10", "stl10_48"),
    "z_interp_mode": ("slerp_any", "lerp"),
    "model_name": ("sngan", *_NETWORKS),
}


def parted(
    settings: Mapping[str, Any], options: Collection[str], command: str, stem: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the options of a file from its published keys.

    Args:
        settings: The content of the file.
        options: Names of the options of the command.
        command: Name of the command.
        stem: Name of the file, for `__FILENAMEBASE__`.
    """
    names = KEYS.get(command, set())
    if not any(name in names and name not in options for name in settings):
        return dict(settings), {}
    shared = _SHARED[command]
    taken = (names | shared) - (set(options) - shared)
    found = {name: value for name, value in settings.items() if name in taken}
    for name, value in found.items():
        if isinstance(value, str):
            found[name] = value.replace("__FILENAMEBASE__", stem)
    return {name: value for name, value in settings.items() if name not in found}, found


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of both; those of the second take precedence, below any key."""
    found = dict(first)
    for name, value in second.items():
        old = found.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return found


def changed(
    first: Mapping[str, Any], second: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names in both whose values differ, with both values."""
    for name in [name for name in second if name in first]:
        old, new = first[name], second[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed(old, new, f"{above}{name}.")
        elif old != new:
            yield above + name, old, new


def converted(keys: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Options by flat name from published keys.

    Args:
        keys: Values by published name, all files merged.
        command: "gan", "imgcls" or "ips".

    Raises:
        ValueError: If a value is not one of the published ones, or two values contradict.

    Example:
        >>> converted({"num_training_steps": 10, "d_step_repeats": 5}, "gan")
        {'num_steps': 10, 'd_steps': 5}
    """
    if command == "ips":
        return _published_ips.converted(keys)
    left = {name: value for name, value in keys.items() if name not in DROPPED}
    _check(left)
    if left.pop("experiment", command) != command:
        raise ValueError(f"the settings are of `cpic {keys['experiment']}`, got `cpic {command}`.")
    found: dict[str, Any] = {}
    _take(found, left, "experiment_name", "experiment_name", _path)
    _take(found, left, "log_dir", "experiment_name", _path)
    dataset, roots = left.pop("dataset", None), left.pop("root_datasets", None) or {}
    if dataset is not None:
        found["dataset"] = dataset.removesuffix("_48")
        if found["dataset"] in ("cifar10", "stl10") and roots.get(dataset) is not None:
            found["root"] = roots[dataset]
    if not left.pop("use_canonical_householder", True):
        raise ValueError("use_canonical_householder needs to be true: reduced frames are the rule.")
    for side in ("g_", "d_") if command == "gan" else ("",):
        _convert_side(found, left, side)
    if command == "gan":
        _convert_gan(found, left)
    else:
        _convert_classes(found, left)
    for name in [name for name in left if name in _PLAIN]:
        found[_PLAIN[name]] = left.pop(name)
    if left:
        raise ValueError(f"cpic {command} does not use the setting {next(iter(left))!r}.")
    return found


def _convert_gan(found: dict[str, Any], left: dict[str, Any]) -> None:
    left.pop("model_name", None)
    for side, name in (("g", "override_ngf"), ("d", "override_ndf")):
        inner = dict(left.pop(f"{side}_kwargs", None) or {})
        _take(found, inner, name, f"{side}_width")
        _refuse(inner, f"{side}_kwargs")
    if (ema := left.pop("g_ema", None)) is not None:
        found["ema"] = 0.9999 if ema else None
    _take(found, left, "z_interp_mode", "interpolation", lambda one: one.removesuffix("_any"))
    fidelity = left.pop("fidelity_kwargs", None)
    if fidelity:
        fidelity = dict(fidelity)
        _take(found, fidelity, "model_z_size", "n_latent")
        found["fidelity"] = fidelity


def _convert_classes(found: dict[str, Any], left: dict[str, Any]) -> None:
    _take(found, left, "model_name", "network", lambda one: _NETWORKS.get(one, one))
    specific = left.pop("model_name_specific", None)
    if specific is not None:
        found["depth"] = _depth(specific)
    inner = dict(left.pop("model_name_specific_kwargs", None) or {})
    inner.pop("num_classes", None)
    for old, new in (("depth", "depth"), ("widen_factor", "widen"), ("dropout_rate", "dropout")):
        _take(found, inner, old, new)
    _refuse(inner, "model_name_specific_kwargs")
    surgery = dict(left.pop("surgery_kwargs", None) or {})
    options = dict(found.get("layer_options") or {})
    for name in ("inplace", "net_prefix"):
        surgery.pop(name, None)
    if surgery.pop("disable_batchnorms", False):
        options["batch_norms"] = False
    enable, disable = surgery.pop("enable_bias", False), surgery.pop("disable_bias", False)
    if enable and disable:
        raise ValueError("surgery_kwargs has both enable_bias and disable_bias; leave one out.")
    if enable or disable:
        options["biases"] = bool(enable)
    if classes := surgery.pop("classes_ignored", None):
        options["ignore_types"] = list(classes)
    _refuse(surgery, "surgery_kwargs")
    if options:
        found["layer_options"] = options


def _convert_side(found: dict[str, Any], left: dict[str, Any], side: str) -> None:
    """Layers and optimizer of one network; its keys have a prefix."""
    own = {name: left.pop(side + name) for name in _SIDE if side + name in left}
    options: dict[str, Any] = {}
    layers = "sn" if own.get("ops_name") == "spectral_norm_pytorch" else "plain"
    every = own.get("spectral_compensation_frequency") or 0
    factory = own.get("ops_use_factory")
    if factory and (layers == "sn" or every):
        raise ValueError(f"{side}ops_use_factory needs regular layers without compensation.")
    if every:
        layers = "sr"
        kwargs = dict(own.get("spectral_compensation_kwargs") or {})
        kwargs.pop("eps", None)
        _take(options, kwargs, "normalize", "normalize")
        _take(options, kwargs, "truncation", "truncate")
        _refuse(kwargs, f"{side}spectral_compensation_kwargs")
        options["every"] = every
    if factory:
        layers = own.get("ops_factory_name", "svdp")
        kwargs = dict(own.get("ops_factory_kwargs") or {})
        found[f"{side}spectrum"] = "fixed" if kwargs.pop("spectrum_eye", False) else "learned"
        for old, new in (("init_mode", "init"), ("init_std", "noise"), ("init_seed", "seed")):
            _take(options, kwargs, old, new)
        _refuse(kwargs, f"{side}ops_factory_kwargs")
        _take(found, own, "ops_factory_rank", f"{side}rank")
        _take(found, own, "ops_factory_ignored", f"{side}ignored", lambda one: tuple(one or ()))
    if {"ops_name", "ops_use_factory", "spectral_compensation_frequency"} & own.keys():
        found[f"{side}layers"] = layers
    if options:
        found[f"{side}layer_options"] = options
    _take(found, own, "spectral_penalty", f"{side}penalty", lambda one: one or "none")
    _take(found, own, "spectral_penalty_weight", f"{side}penalty_weight")
    if kwargs := dict(own.get("optimizer_kwargs") or {}):
        _take(found, kwargs, "lr", f"{side}lr")
        if not side:
            _take(found, kwargs, "weight_decay", "weight_decay")
        if kwargs:
            found[f"{side}optimizer_options"] = kwargs


def _take(
    found: dict[str, Any],
    left: dict[str, Any],
    old: str,
    new: str,
    change: Callable[[Any], Any] = lambda value: value,
) -> None:
    if old in left:
        found[new] = change(left.pop(old))


def _refuse(left: Mapping[str, Any], where: str) -> None:
    if left:
        raise ValueError(f"{where} has no setting {next(iter(left))!r}.")


def _path(name: Any) -> str:
    return Path(str(name)).name


def _depth(specific: str) -> int:
    """The depth in a name such as resnet20."""
    digits = str(specific).removeprefix("resnet")
    if not digits.isdigit():
        raise ValueError(f"model_name_specific needs a name such as resnet20, got {specific!r}.")
    return int(digits)


def _check(keys: Mapping[str, Any]) -> None:
    """Raise for a value that was never published."""
    for name, known in _KNOWN.items():
        for key in (name, f"g_{name}", f"d_{name}"):
            value = keys.get(key)
            # The data sets of this package are valid as well.
            if value is not None and value not in known and name != "dataset":
                raise ValueError(f"{key} needs one of {', '.join(known)}, got {value!r}.")
