"""Restore a run from a checkpoint: settings, weights, optimizer, generators."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpic.nn._distributed import everyones
from cpic.options._groups import GROUPS, Model, Optimization
from cpic.train.loop._checkpoints import UNFIT, check_there
from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._faults import one_line
from cpic.train.results._results import plain

# Settings that may differ in a resumed run: duration, location and speed.
FREE = {
    *("num_epochs", "max_minutes", "patience", "max_faults", "save_every", "resume", "only_fold"),
    *("ngpus", "num_nodes", "num_workers", "progress", "wandb", "cache", "root"),
    *("results_folder", "experiment_name"),
}
# Settings that older checkpoints lack, as they were before they could be chosen.
_BEFORE = {**vars(Model()), **vars(Optimization()), "selection": 0.0, "selection_patients": []}
# Only in older checkpoints of baselines; model and task are compared anyway.
_REPEATED = {"options.name", "options.task"}


@contextlib.contextmanager
def fitting(
    path: Path, part: str, advice: str = "train again, or use another than"
) -> Iterator[None]:
    """Turn any error in this block, from an unusable part of a checkpoint, into one that names it.

    Raises:
        ValueError: The message has the file and the part.
    """
    try:
        yield
    except UNFIT as error:
        raise ValueError(
            f"the {part} of a checkpoint cannot be used here ({one_line(error)}); {advice} {path}."
        ) from error


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise unless the settings of a checkpoint are those of this run.

    Raises:
        ValueError: The message has the first difference.
    """
    there, here = _flat(saved), _flat(now)
    # Options first, since other settings follow from them.
    for key in sorted({**there, **here}, key=lambda key: not key.startswith("options.")):
        last = key.rpartition(".")[2]
        old = there.get(key, plain(_BEFORE.get(last)))
        if last in FREE or key in _REPEATED or old == here.get(key):
            continue
        raise ValueError(
            f"the checkpoint has another configuration: {key} is {old!r} there and "
            f"{here.get(key)!r} here; resume with the settings of the run, or choose another "
            f"folder than that of {path}. See "
            '"Interrupt and resume" in chapter 10 of the book.'
        )


def _flat(settings: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    result = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and value
        # Older checkpoints have no groups of options.
        below = name if key in GROUPS else f"{name}{key}."
        result.update(_flat(value, below) if nested else {f"{name}{key}": value})
    return result


def load_weights(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        ValueError: If they belong to another model; the message has the tensors that differ.
    """
    check_there(state, ("model",), path)
    with fitting(path, "model", "make the model with the settings of"):
        model.load_state_dict(state["model"])


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """The state of an optimizer, or those of several by their number."""
    states = [optimizer.state_dict() for optimizer in optimizers]
    return states[0] if len(states) == 1 else {f"{k}": one for k, one in enumerate(states)}


def load_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any], path: Path
) -> None:
    """Restore the states of optimizers from a checkpoint.

    Raises:
        ValueError: If a state belongs to other parameters, or to another number of optimizers.
    """
    with fitting(path, "optimizer"):
        saved = state["optimizer"]
        states = {"0": saved} if len(optimizers) == 1 else saved
        for k, optimizer in enumerate(optimizers):
            optimizer.load_state_dict(states[f"{k}"])
            for parameter, values in optimizer.state.items():
                for name, value in values.items():
                    shape = getattr(value, "shape", ())
                    if len(shape) and shape != parameter.shape:
                        raise ValueError(f"{name} has {tuple(shape)}, not {tuple(parameter.shape)}")


def random_state(module: nn.Module) -> dict[str, Any]:
    """States of all generators in use, of all ranks."""
    mine = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "own": {name: generator.get_state() for name, generator in _generators(module).items()},
    }
    return {"processes": everyones(mine)}


def set_random_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Restore the generators; with another number of ranks, all start from the first one's."""
    rank, states = rank_and_size()[0], state["processes"]
    mine = states[rank if rank < len(states) else 0]
    torch.set_rng_state(mine["torch"])
    if len(mine["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(mine["cuda"])
    for name, generator in _generators(module).items():
        if name in mine["own"]:
            generator.set_state(mine["own"][name])


def _generators(module: nn.Module) -> dict[str, torch.Generator]:
    """Generators that the parts of a module draw from, each once."""
    found: dict[int, tuple[str, torch.Generator]] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, torch.Generator):
                found.setdefault(id(value), (f"{name}.{key}", value))
    return dict(found.values())
