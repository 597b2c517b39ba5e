"""Weights of a backbone that were trained elsewhere."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from cpic._trust import open_regular
from cpic._vision import torchvision
from cpic.nn.pooling import ThreeParts
from cpic.train.loop._checkpoints import UNFIT
from cpic.train.loop._faults import one_line


def load_pretrained(source: str | Path | None, net: ThreeParts, arch: str) -> None:
    """Load the weights that a file and the features of a network have in common.

    The classifier is loaded as well if all of it is in the file: in the second of two stages, which
    begins where the first one ended.

    Args:
        source: A file of weights, of torchvision or a checkpoint of a run; "torchvision", which
            lets torchvision find, or download, its own; None for no weights.
        net: The network.
        arch: Its backbone.

    Raises:
        ValueError: If the file cannot be read, or has no weight of this network.
    """
    if source is None:
        return
    if str(source) == "torchvision":
        arch = arch.removeprefix("mpncov")
        try:
            given = torchvision().models.get_model(arch, weights="DEFAULT").state_dict()
        except ValueError as error:
            raise ValueError(f"torchvision has no weights of {arch}; pass a file.") from error
    else:
        given = _read(Path(source))
    own = net.features.state_dict()
    # In a run the layers are under `features.`, and with a reduction also `0.extractor.`.
    plain = {name.rpartition("extractor.")[2]: name for name in own}
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        place = plain.get(name.removeprefix("features.").rpartition("extractor.")[2])
        place = plain.get(name, place)
        if place is not None and own[place].shape == value.shape:
            found[place] = value
    weights = [name for name in found if name.endswith("weight")]
    if not weights:
        raise ValueError(
            f"pretrained needs weights of {arch}, got {source} with {len(given)} others, such as "
            f"{next(iter(given), 'none')}."
        )
    net.features.load_state_dict(found, strict=False)
    own = net.classifier.state_dict()
    found = {name: given[f"classifier.{name}"] for name in own if f"classifier.{name}" in given}
    if {name: x.shape for name, x in found.items()} == {name: x.shape for name, x in own.items()}:
        net.classifier.load_state_dict(found)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with open_regular(path) as file:
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (*UNFIT, UnpicklingError, EOFError) as error:
        raise ValueError(
            f"pretrained needs a file of weights, got {path} ({one_line(error)[:100]})."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise ValueError(f"pretrained needs weights by name, got {path} with others.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
