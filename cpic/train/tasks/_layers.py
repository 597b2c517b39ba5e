"""Give networks the layers that their options ask for."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from cpic.nn import spectral
from cpic.options._groups import Group
from cpic.options._kinds import fitted, kinds_of
from cpic.options._names import check_name

# Options of these functions that have options of their own, or are set here.
_SET = {"self", "net", "kind", "rank", "spectrum", "ignore", "copy"}
_MAKERS = {
    **dict.fromkeys(("svdp", "sttp"), spectral.parametrize),
    "sn": spectral.spectral_norm,
    "sr": spectral.Compensation,
}
_TYPES = {
    one.__name__: one
    for one in (
        *(nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    )
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """The layers of one network, as its options choose them.

    Attributes:
        layers: "plain", "sn", "sr", "svdp" or "sttp".
        rank: Upper bound on all ranks.
        spectrum: "fixed" or "learned".
        penalty: "none", "d_optimal" or "divergence".
        weight: Factor of the penalty.
        ignored: Names of layers that stay as they are.
        options: Further options.
    """

    layers: str
    rank: int
    spectrum: str
    penalty: str
    weight: float
    ignored: tuple[str, ...]
    options: dict[str, Any]

    @property
    def parametrized(self) -> bool:
        """Whether weights are products of frames."""
        return self.layers in ("svdp", "sttp")


def chosen(group: Group, prefix: str = "") -> Choice:
    """The choice in a group of options, checked.

    Args:
        group: Options with `layers`, `rank` and so on.
        prefix: What their names begin with.

    Raises:
        ValueError: If an option does not exist for these layers, or contradicts another one.
    """
    names = ("layers", "rank", "spectrum", "penalty", "penalty_weight", "ignored")
    given: Any = [getattr(group, prefix + name) for name in names]
    options: dict[str, Any] = dict(getattr(group, f"{prefix}layer_options") or {})
    found = Choice(*given, options=options)
    where = f"{prefix}layer_options of {found.layers} layers"
    maker = _MAKERS.get(found.layers)
    kinds = {k: v for k, v in kinds_of(maker).items() if k not in _SET} if maker else {}
    kinds = {**kinds, "ignore_types": tuple[str, ...]} if maker else kinds
    for name, value in options.items():
        check_name(name, kinds, where=where)
        options[name] = fitted(kinds[name], value, name=f"{prefix}layer_options.{name}")
    for one in options.get("ignore_types", ()):
        check_name(one, _TYPES, where=f"{prefix}layer_options.ignore_types")
    if found.penalty != "none" and not (found.parametrized and found.spectrum == "learned"):
        raise ValueError(
            f"{prefix}penalty needs a learned spectrum of svdp or sttp layers, got "
            f"{found.penalty!r} with {found.layers} and a {found.spectrum} spectrum."
        )
    return found


class Compensated(nn.Module):
    """Spectral compensation as a part of a model: checkpoints have its state.

    Args:
        compensation: Of the weights of some layers.
    """

    def __init__(self, compensation: spectral.Compensation):
        super().__init__()
        self.compensation = compensation

    def step(self) -> None:
        """Compensate, if it is time; called after each update."""
        self.compensation.step()

    def get_extra_state(self) -> dict[str, Any]:
        """Spectra and count."""
        return self.compensation.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from these."""
        self.compensation.load_state_dict(state)


def give_layers(network: nn.Module, choice: Choice) -> Compensated | None:
    """Change a network in place; with "sr", return what compensates its weights after updates."""
    options: dict[str, Any] = {"ignore": choice.ignored, **choice.options}
    if "ignore_types" in options:
        options["ignore_types"] = tuple(_TYPES[name] for name in options["ignore_types"])
    if choice.parametrized:
        kind: Any = choice.layers
        spectrum: Any = choice.spectrum
        spectral.parametrize(network, kind, rank=choice.rank, spectrum=spectrum, **options)
    elif choice.layers == "sn":
        spectral.spectral_norm(network, **options)
    elif choice.layers == "sr":
        return Compensated(spectral.Compensation(network, **options))
    return None


def penalty(network: nn.Module, choice: Choice) -> Tensor:
    """The weighted penalty on the spectra of a network."""
    if choice.penalty == "none":
        return torch.zeros(())
    kind: Any = choice.penalty
    return choice.weight * spectral.penalty(network, kind)
