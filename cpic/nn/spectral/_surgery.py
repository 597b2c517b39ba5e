r"""Give the layers of a network parametrized weights."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive
from cpic.nn.spectral._cached import install
from cpic.nn.spectral._direct import apply_directly
from cpic.nn.spectral._factors import Parts, groups_of
from cpic.nn.spectral._layers import chosen, set_bias, shape_of, stored, without_norms
from cpic.nn.spectral._plan import Kind, Plan, Spectrum, plan_of
from cpic.nn.spectral._start import (
    Draw,
    check_matrices,
    drawn,
    from_matrices,
    matrices_of,
    random_parts,
    relative_error,
)
from cpic.nn.spectral._weight import SpectralWeight


class Surgery(NamedTuple):
    """The network, the names of its layers that were parametrized, and their errors.

    An error is that of the weight beside the one it replaced, relative in the Frobenius norm; only
    with `init="weight"`.
    """

    net: nn.Module
    names: tuple[str, ...]
    errors: dict[str, float]


def parametrize(
    net: nn.Module,
    kind: Kind = "sttp",
    *,
    rank: int | Mapping[str, int] = 64,
    spectrum: Spectrum = "learned",
    gain: float | Literal["keep"] | None = None,
    init: Draw | Literal["weight"] = "qr_eye_randn",
    noise: float = 1e-4,
    seed: int | None = None,
    ignore: Sequence[str] = (),
    ignore_types: Sequence[type[nn.Module]] = (),
    biases: bool | None = None,
    batch_norms: bool = True,
    split_kernel: bool = False,
    apply: Literal["auto", "formed", "direct"] = "auto",
    copy: bool = False,
) -> Surgery:
    """Make the weights of a network from frames and spectra {cite}`obukhov2021spectral`.

    Every linear, convolutional (also transposed) and embedding layer keeps its place, options and
    bias; its weight becomes a parametrization of `torch.nn.utils.parametrize`, with the free
    numbers as parameters. The weight is taken as a matrix of the output channels against all else,
    with a largest singular value of 1, to rounding. Grouped convolutions have one such matrix for
    each group. The norm of a convolution as an operator is another one: see `convolution_norm`.

    In a forward pass of `net`, all frames of one size are made in one call, and each weight once.
    Between passes a weight is kept if it has no gradient, until one of its numbers changes; changes
    through `.data` go unseen. Make the optimizer after this call: the parameters are others.

    Args:
        net: The network, or a single layer.
        kind: `"svdp"`, two frames, or `"sttp"`, two tensor trains of frames.
        rank: Bound on all ranks; a layer that allows less has less. Or names of layers and their
            exact ranks: then only these are parametrized.
        spectrum: `"learned"`, or `"fixed"`: all singular values are equal.
        gain: Whether the norm is learned: a number is the first norm; `"keep"` starts with the
            Frobenius norm of the weight that is replaced, so that outputs keep their variance. With
            None the largest singular value stays 1, so that no layer can shrink.
        init: Frames at the start: `"eye"`, unit vectors; `"qr_randn"`, those of Gaussian matrices;
            `"qr_eye_randn"`, those of unit vectors with noise; `"weight"`, those of the weight that
            is replaced, with its singular values. The latter have one scale without `gain`.
        noise: Standard deviation for `"qr_eye_randn"`; its normal numbers are cut off at 1.
        seed: Frames of the i-th size that appears draw from a generator of `seed + i`, for full and
            for reduced frames; None: from the global generator, as all layers of torch do.
        ignore: Names of layers, or of modules with all their layers, or patterns with `*`.
        ignore_types: Types of layers.
        biases: True gives every layer a bias, False takes it away.
        batch_norms: False replaces batch norms by identities.
        split_kernel: Whether the axes of a kernel are modes of their own; otherwise it is one mode.
        apply: `"formed"`: form the weight. `"direct"`: apply its factors. `"auto"`: what takes
            fewer multiplications for the input at hand.
        copy: Return a changed copy, and leave the network as it is.

    Returns:
        The network, the names of the layers, and with `init="weight"` their errors.

    Raises:
        TypeError: If a weight is not of real floating-point numbers.
        ValueError: If an option is out of range, there is no layer, a name matches none, a layer is
            parametrized already, has no numbers, shares its weight, or is an embedding that needs a
            weight of its own; with `init="weight"`, if a weight is zero or not finite.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU())
        >>> found = parametrize(net, "svdp", rank=4)
        >>> round(torch.linalg.matrix_norm(net[0].weight.flatten(1), 2).item(), 4)
        1.0
    """
    _check_options(kind, rank, spectrum, gain, init, noise, apply)
    if copy:
        net = deepcopy(net)
    layers = chosen("parametrize", net, rank, ignore, tuple(ignore_types))
    plans = [
        plan_of(
            shape_of(layer),
            kind=kind,
            rank=rank if isinstance(rank, int) else rank[name],
            spectrum=spectrum,
            gain=gain is not None,
            split_kernel=split_kernel,
        )
        for name, layer in layers.items()
    ]
    errors = {}
    if init == "weight":
        starts = []
        for (name, layer), plan in zip(layers.items(), plans, strict=True):
            start, errors[name] = _from_weight(name, stored(layer), plan)
            starts.append(start)
    else:
        free = drawn(plans, init=init, noise=noise, seed=seed)
        starts = [
            random_parts(plan, numbers, _norm(stored(layer), plan, gain), stored(layer).detach())
            for layer, plan, numbers in zip(layers.values(), plans, free, strict=True)
        ]
    for layer, plan, start in zip(layers.values(), plans, starts, strict=True):
        own = SpectralWeight(plan, start, kind=kind, apply=apply)
        torch_parametrize.register_parametrization(layer, "weight", own, unsafe=True)
        apply_directly(layer)
        if biases is not None:
            set_bias(layer, biases)
    if not batch_norms:
        without_norms(net)
    install(net)
    return Surgery(net, tuple(layers), errors)


def _check_options(kind, rank, spectrum, gain, init, noise, apply) -> None:
    choices = {
        "kind": (kind, ("svdp", "sttp"), "two frames, or two trains of frames"),
        "spectrum": (spectrum, ("learned", "fixed"), "fixed ones are all equal"),
        "init": (init, ("eye", "qr_randn", "qr_eye_randn", "weight"), "see its documentation"),
        "apply": (apply, ("auto", "formed", "direct"), '"auto" counts what is cheaper'),
    }
    for name, (value, allowed, advice) in choices.items():
        check_choice("parametrize", name, value, allowed, advice)
    ranks = rank if isinstance(rank, Mapping) else {"rank": rank}
    check_positive("parametrize", **ranks)
    number = isinstance(gain, int | float) and not isinstance(gain, bool)
    if not (gain is None or gain == "keep" or (number and 0 < gain < math.inf)):
        raise ValueError(
            f'parametrize needs `gain` to be a positive number, "keep" or None, got {gain!r}.'
        )
    if init == "weight" and number:
        raise ValueError(
            f'parametrize takes the norm from the weights with init="weight", got gain={gain!r} as '
            'well; pass gain="keep" to have it, or None for norm 1.'
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"parametrize needs `noise` to be at least 0, got {noise!r}.")


def _from_weight(name: str, weight: Tensor, plan: Plan) -> tuple[Parts, float]:
    matrices = matrices_of(plan.shape, weight)
    check_matrices(f'parametrize with init="weight", layer {name!r},', matrices)
    start = from_matrices(plan, matrices)
    with torch.no_grad():
        ((group, _),) = groups_of([plan], [start])
        return start, relative_error(group.product("weight")[0], weight)


def _norm(weight: Tensor, plan: Plan, gain: float | str | None) -> Tensor | float:
    """Singular values at the start: as given, or such that the Frobenius norm stays."""
    if gain != "keep":
        return float(gain or 1.0)  # type: ignore[arg-type]
    return matrices_of(plan.shape, weight).flatten(1).norm(dim=1) / plan.rank**0.5
