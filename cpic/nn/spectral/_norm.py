"""Spectral normalization and compensation: norms and spectra of plain weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cpic.nn._checks import check_positive
from cpic.nn.spectral._layers import chosen, shape_of, stored
from cpic.nn.spectral._start import check_finite_weight, matrices_of, weight_from
from cpic.nn.spectral._surgery import Surgery

_TINY = 1e-7


def spectral_norm(
    net: nn.Module,
    *,
    ignore: Sequence[str] = (),
    ignore_types: Sequence[type[nn.Module]] = (),
    n_iterations: int = 1,
    eps: float = 1e-12,
) -> Surgery:
    """Divide every weight by an estimate of its largest singular value {cite}`miyato2018spectral`.

    The estimate is by power iterations, `n_iterations` more at each use of a weight in training
    mode, so that a forward pass changes the network and the norm is near 1 only. This is the
    baseline for `parametrize`, whose norms are exact and whose forward pass changes nothing.
    `remove` keeps the weights as they are in evaluation mode.

    Args:
        net: The network, changed in place.
        ignore: As in `parametrize`.
        ignore_types: As in `parametrize`.
        n_iterations: Power iterations.
        eps: Least norm of a vector in these.

    Returns:
        The network and the names of its layers.

    Raises:
        TypeError, ValueError: As `parametrize`.

    Example:
        >>> spectral_norm(torch.nn.Sequential(torch.nn.Linear(4, 3))).names
        ('0',)
    """
    check_positive("spectral_norm", n_iterations=n_iterations)
    layers = chosen("spectral_norm", net, None, ignore, tuple(ignore_types))
    for layer in layers.values():
        parametrizations.spectral_norm(layer, "weight", n_power_iterations=n_iterations, eps=eps)
    return Surgery(net, tuple(layers), {})


class Compensation:
    """Keep singular values from shrinking, relative to the largest one {cite}`liu2019spectral`.

    For each layer, the largest value that each of its singular values has had so far, divided by
    the largest of its time, is kept. The first `step` records them. Later ones raise the singular
    values of the weights to them, and divide each weight by its norm. The spectrum that is kept
    depends on neither `normalize` nor `truncate`; in the published code, weights and spectra grow
    at every call without the former.

    Args:
        net: A network of plain layers; their weights are changed in place by `step`.
        every: Calls of `step` from one that does something to the next.
        normalize: Whether weights get norm 1; otherwise they keep their norm.
        truncate: Number of singular values that a weight keeps; None: all.
        ignore: As in `parametrize`.
        ignore_types: As in `parametrize`; embeddings are not compensated, as published.

    Raises:
        TypeError, ValueError: As `parametrize`; also if a number is below 1, and by `step` if a
            weight is not finite.

    Example:
        >>> net = torch.nn.Linear(6, 4)
        >>> compensation = Compensation(net)
        >>> for _ in range(2):  # after each step of the optimizer
        ...     compensation.step()
        >>> round(float(torch.linalg.matrix_norm(net.weight.detach(), 2)), 4)
        1.0
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        every: int = 1,
        normalize: bool = True,
        truncate: int | None = None,
        ignore: Sequence[str] = (),
        ignore_types: Sequence[type[nn.Module]] = (nn.Embedding,),
    ):
        check_positive("Compensation", every=every, truncate=1 if truncate is None else truncate)
        self.layers = chosen("Compensation", net, None, ignore, tuple(ignore_types))
        self.every, self.normalize, self.truncate = every, normalize, truncate
        self.spectra: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def step(self) -> None:
        """Record the spectra and raise those of the weights; call it after the optimizer's step."""
        self.count += 1
        if (self.count - 1) % self.every:
            return
        alike: dict[tuple, list[str]] = {}
        for name, layer in self.layers.items():
            weight = stored(layer)
            key = (shape_of(layer), weight.dtype, weight.device)
            alike.setdefault(key, []).append(name)
        for names in alike.values():
            self._compensate(names)

    def _compensate(self, names: Sequence[str]) -> None:
        """Layers with weights of one shape, in one decomposition."""
        layers = [self.layers[name] for name in names]
        shape = shape_of(layers[0])
        matrices = torch.stack([matrices_of(shape, stored(layer)) for layer in layers])
        check_finite_weight(f"Compensation, layers {', '.join(names)},", matrices)
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        largest = values[..., :1]
        relative = values / largest.clamp(min=_TINY)
        known = [name in self.spectra for name in names]
        if all(known):
            relative = torch.maximum(relative, torch.stack([self.spectra[name] for name in names]))
        self.spectra |= zip(names, relative, strict=True)
        if not all(known):
            return
        kept = relative if self.normalize else relative * largest
        if self.truncate is not None:
            kept = kept[..., : self.truncate]
        n = kept.shape[-1]
        made = (left[..., :n] * kept.unsqueeze(-2)) @ right[..., :n, :]
        for layer, own in zip(layers, made, strict=True):
            stored(layer).copy_(weight_from(shape, own))

    def state_dict(self) -> dict[str, Any]:
        """The spectra `(groups, r)` by layer, and the number of calls of `step`."""
        spectra = {name: spectrum.clone() for name, spectrum in self.spectra.items()}
        return {"spectra": spectra, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state.

        Raises:
            ValueError: If its layers are others, or of other shapes.
        """
        spectra = dict(state["spectra"])
        expected = {
            name: (shape_of(layer).groups, min(shape_of(layer).widths))
            for name, layer in self.layers.items()
        }
        found = {name: tuple(spectrum.shape) for name, spectrum in spectra.items()}
        if spectra and found != expected:
            raise ValueError(
                f"Compensation needs a state of spectra of shapes {expected}, got {found}; load "
                "the one that was saved with this network."
            )
        like = {name: stored(layer) for name, layer in self.layers.items()}
        self.spectra = {name: spectrum.to(like[name]) for name, spectrum in spectra.items()}
        self.count = int(state["count"])
