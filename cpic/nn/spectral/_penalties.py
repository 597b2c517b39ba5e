r"""Penalties that keep learned singular values up, or apart.

Both are means over the spectra of a network, divided by their largest values. Where the published
ones clamp the argument of a logarithm, and lose the gradient just where it is needed, these add a
small number to it.

References: {cite}`obukhov2021spectral`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from cpic.linalg._inputs import check_choice
from cpic.nn.spectral._factors import LEAST
from cpic.nn.spectral._weight import parts_of, spectral_layers

Penalty = Literal["d_optimal", "divergence"]


def penalty(
    net: nn.Module,
    kind: Penalty = "d_optimal",
    *,
    width: float = 0.1,
    floor: float | None = None,
) -> Tensor:
    r"""A penalty on the learned spectra of a network, to add to its loss.

    With singular values s_1 >= ... >= s_r, divided by the largest one:

    - `"d_optimal"`: the mean over all singular values of -log(s_i + floor). It is zero where all
      are equal, and keeps a layer from losing rank {cite}`obukhov2021spectral`.
    - `"divergence"`: the mean over i >= 2, then over layers, of
      (1 - s_i)^2 / width^2 - log(s_{i-1} - s_i + floor), which draws them towards 1 and apart.

    Differentiable in the spectra, also at zero and where all are equal. The number of operations
    depends on the number of different ranks, not on that of layers.

    Args:
        net: A network with parametrized layers.
        kind: The penalty.
        width: How far from 1 they spread.
        floor: What is added inside the logarithm; None: 1e-7, or 1e-3 for `"divergence"`, where it
            bounds the first gradients, at differences of zero. The published value at equal
            singular values, 16.118, is that of 1e-7.

    Returns:
        The penalty, a single number.

    Raises:
        ValueError: If there is no learned spectrum, for `"divergence"` none of more than one value,
            or an option is invalid.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = parametrize(torch.nn.Linear(8, 8), rank=4).net
        >>> abs(round(penalty(net, "d_optimal").item(), 4))
        0.0
    """
    known = {"d_optimal": _d_optimal, "divergence": _divergence}
    check_choice("penalty", "kind", kind, known, "the first keeps the values up, the second apart")
    floor = floor if floor is not None else {"d_optimal": 1e-7, "divergence": 1e-3}[kind]
    if not (floor > 0 and width > 0):
        raise ValueError(
            f"penalty needs `floor` and `width` to be positive, got {floor!r} and {width!r}; they "
            "keep its gradient finite."
        )
    spectra = learned_spectra(net)
    least = 1 if kind == "d_optimal" else 2
    spectra = {rank: some for rank, some in spectra.items() if rank >= least}
    if not spectra:
        raise ValueError(
            f"penalty {kind!r} needs a layer with a learned spectrum of at least {least} "
            f"value{'s' if least > 1 else ''}, got none; leave it out, or parametrize with "
            'spectrum="learned".'
        )
    return known[kind](list(spectra.values()), floor, width)


def learned_spectra(net: nn.Module) -> dict[int, Tensor]:
    """By rank, all learned spectra `(n, rank)`, absolute values divided by their largest."""
    found: dict[int, list[Tensor]] = {}
    for _, module, own in spectral_layers(net):
        scale = parts_of(module).scale
        if own.plan.spectrum == "learned" and scale is not None:
            found.setdefault(own.plan.rank, []).append(scale)
    stacked = {rank: torch.cat(some) if len(some) > 1 else some[0] for rank, some in found.items()}
    return {rank: _normalized(some) for rank, some in stacked.items()}


def _normalized(scale: Tensor) -> Tensor:
    # The absolute value has no slope at zero, where it is wanted most.
    size = torch.where(scale < 0, -scale, scale)
    return size / size.amax(-1, keepdim=True).clamp(min=LEAST)


def _d_optimal(spectra: list[Tensor], floor: float, _: float) -> Tensor:
    total = torch.stack([(some + floor).log().sum() for some in spectra]).sum()
    return -total / sum(some.numel() for some in spectra)


def _divergence(spectra: list[Tensor], floor: float, width: float) -> Tensor:
    totals = []
    for some in spectra:
        ordered = some.sort(-1, descending=True).values
        far = (1 - ordered[..., 1:]).square() / width**2
        close = (ordered[..., :-1] - ordered[..., 1:] + floor).log()
        totals.append((far - close).mean(-1).sum())
    return torch.stack(totals).sum() / sum(len(some) for some in spectra)
