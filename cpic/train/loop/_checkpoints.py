"""Save all that a run needs to go on exactly, and read it back.

A checkpoint is a dictionary of tensors, lists, numbers and strings, so that reading one runs no
code. It appears by one rename: a run that is killed leaves the last one whole.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from cpic._files import replace_file
from cpic._trust import DoubtError, open_regular
from cpic.train.loop._distributed import everyones, place
from cpic.train.loop._parts import check_kinds, check_records, check_there

_FORMAT = 1
# What torch raises for values that it did not write.
_UNFIT = (
    *(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError),
)
# What may differ in a run that goes on: how long, where and how fast it computes.
FREE = {
    *("num_epochs", "max_minutes", "patience", "max_faults", "save_every", "resume", "only_fold"),
    *("ngpus", "num_nodes", "num_workers", "progress", "wandb", "cache", "root"),
    *("results_folder", "experiment_name"),
}


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `fit_fold` saved.

    Nothing in the file is executed, and each of its records is compared with the sum that was
    saved with it.

    Args:
        path: A `latest.ckpt` or `best.ckpt`.

    Returns:
        A dictionary with the weights of the model under `"model"`, for its `load_state_dict`, the
        settings of the run under `"config"`, one dictionary an epoch under `"history"`, and what
        else a run needs to go on.

    Raises:
        ValueError: If the file is missing, damaged, or something else, or one of its parts is.

    Example:
        >>> saved = read_checkpoint("results/run/fold_0/best.ckpt")  # doctest: +SKIP
        >>> model.load_state_dict(saved["model"])  # doctest: +SKIP
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            check_records(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no checkpoint {path}; train first, or check the path."
        ) from error
    except (DoubtError, EOFError, UnpicklingError, *_UNFIT) as error:
        raise _not_ours(path, error) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of cpic.train of format {_FORMAT}; train again, or use the "
            "version of cpic that made it."
        )
    check_kinds(state, path)
    return state


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """The whole file or none of it."""
    full = {"format": _FORMAT, **state}
    replace_file(path, lambda file: torch.save(full, file))


def plain(value: Any) -> Any:
    """Settings as JSON has them: lists for tuples, strings for paths and types."""
    return json.loads(json.dumps(value, default=str))


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise unless the settings of a checkpoint are those of this run.

    Raises:
        ValueError: Naming the first that differs.
    """
    there, here = _flat(saved), _flat(now)
    for key in dict.fromkeys([*there, *here]):
        if key.rpartition(".")[2] in FREE or there.get(key) == here.get(key):
            continue
        raise ValueError(
            f"the checkpoint is of another configuration: {key} is {there.get(key)!r} there and "
            f"{here.get(key)!r} here; resume with the settings of the run, or choose another "
            f"folder than that of {path}."
        )


def _flat(settings: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Settings in settings under names with dots."""
    result = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and value
        result.update(_flat(value, f"{name}{key}.") if nested else {f"{name}{key}": value})
    return result


def load_weights(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Give a model the weights of a checkpoint.

    Raises:
        ValueError: If they are of another model, naming the first tensor that differs.
    """
    check_there(state, ("model",), path)
    have, saved = model.state_dict(), state["model"]
    for key in dict.fromkeys([*saved, *have]):
        shapes = [tuple(getattr(side.get(key), "shape", ())) for side in (saved, have)]
        if key not in have or key not in saved or shapes[0] != shapes[1]:
            pairs = zip(shapes, (saved, have), strict=True)
            what = [str(shape) if key in side else "missing" for shape, side in pairs]
            raise ValueError(
                f"the checkpoint is of another model: {key} is {what[0]} there and {what[1]} here; "
                f"make the model with the settings of {path}."
            )
    with fitting(path, "model"):
        model.load_state_dict(saved)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: Path) -> None:
    """Put an optimiser where that of a checkpoint was.

    Raises:
        ValueError: If its state is of other parameters.
    """
    with fitting(path, "optimizer"):
        optimizer.load_state_dict(state["optimizer"])
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                shape = getattr(value, "shape", ())
                if len(shape) and shape != parameter.shape:
                    raise ValueError(f"{name} has {tuple(shape)}, not {tuple(parameter.shape)}")


@contextlib.contextmanager
def fitting(path: Path, part: str) -> Iterator[None]:
    """Whatever a part of a checkpoint does not fit in this block becomes one error that names it.

    Raises:
        ValueError: Naming the file and the part.
    """
    try:
        yield
    except _UNFIT as error:
        raise ValueError(
            f"the {part} of a checkpoint cannot be used here ({_first_line(error)}); train again, "
            f"or use another than {path}."
        ) from error


def random_state(module: nn.Module) -> dict[str, Any]:
    """States of all generators in use, of every process."""
    mine = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "own": {name: generator.get_state() for name, generator in _generators(module).items()},
    }
    return {"processes": everyones(mine)}


def set_random_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Put the generators back; another number of processes starts from the first one's."""
    rank, states = place()[0], state["processes"]
    mine = states[rank if rank < len(states) else 0]
    torch.set_rng_state(mine["torch"])
    if len(mine["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(mine["cuda"])
    for name, generator in _generators(module).items():
        if name in mine["own"]:
            generator.set_state(mine["own"][name])


def _generators(module: nn.Module) -> dict[str, torch.Generator]:
    """Generators that parts of a module draw from, each once."""
    found: dict[str, torch.Generator] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Generator) and not any(value is g for g in found.values()):
                found[f"{name}.{key}"] = value
    return found


def _not_ours(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read as a checkpoint ({_first_line(error)}); train again or copy it "
        "again."
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0][:160]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}"
