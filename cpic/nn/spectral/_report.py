"""What the layers of a network have: spectra, norms, free numbers."""

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpic.nn.spectral._layers import layers_of, shape_of, stored
from cpic.nn.spectral._plan import FrameSize
from cpic.nn.spectral._remove import is_normalized
from cpic.nn.spectral._start import matrices_of
from cpic.nn.spectral._weight import SpectralWeight, parts_of, spectral_layers, weight_of

# Of the square of the largest singular value, below which a weight passes for zero.
_TINY = 1e-7


class Compression(NamedTuple):
    """Numbers of a network before and after `parametrize`.

    `original` and `free` are those of the weights that are parametrized: as stored, and as they are
    learned. `rest` are all others of the state, running statistics included, counters of batches
    not. `percent` is 100 (free + rest) / (original + rest), `weights_percent` 100 free / original.
    `frames` counts the frames of each size.
    """

    original: int
    free: int
    rest: int
    percent: float
    weights_percent: float
    frames: dict[FrameSize, int]


class LayerReport(NamedTuple):
    """One layer: its weight, and the matrix of output channels against all else.

    `kind` is `"svdp"`, `"sttp"`, `"spectral_norm"` or `"plain"`. `original` and `free` are its
    numbers as stored and as learned. `defect` is the largest entry of U^T U - I for its frames,
    None without frames. `norm` is its largest singular value, `stable_rank` the sum of the squares
    of all divided by that of the largest one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    rank: int
    original: int
    free: int
    defect: float | None
    norm: float
    stable_rank: float


def spectra(net: nn.Module) -> dict[str, Tensor]:
    """Singular values of the weights of a network, by name of the layer, largest first.

    Those of parametrized layers are read off; those of other linear, convolutional and embedding
    layers are computed. A layer with groups has those of all its groups. Nothing is changed, also
    where spectral normalization iterates in training mode. Carries no gradient.

    Args:
        net: The network, parametrized or not.

    Returns:
        A spectrum `(r,)` for each layer.

    Raises:
        ValueError: If a spectrum has values that are not finite, or a parametrized one only zeros.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = parametrize(torch.nn.Linear(8, 6), rank=3).net
        >>> spectra(net)
        {'': tensor([1., 1., 1.])}
    """
    with torch.no_grad():
        found = {name: _spectrum(layer) for name, layer in layers_of(net).items()}
    for name, spectrum in found.items():
        bad = not bool(spectrum.isfinite().all())
        zero = not bad and weight_of(layers_of(net)[name]) is not None and not bool(spectrum.any())
        if bad or zero:
            what = "NaN or infinite values" if bad else "zeros only"
            raise ValueError(
                f"spectra needs finite singular values that are not all zero, got {what} in layer "
                f"{name!r}; go back to a checkpoint before, and lower the learning rate."
            )
    return found


def _spectrum(layer: nn.Module) -> Tensor:
    own = weight_of(layer)
    if own is None:
        values = torch.linalg.svdvals(_matrices(layer))
    else:
        computed = own.computed(parts_of(layer))
        group, groups = computed.group, own.plan.shape.groups
        values = group.values[computed.place * groups : (computed.place + 1) * groups].abs()
    return values.flatten().sort(descending=True).values


def _matrices(layer: nn.Module) -> Tensor:
    """The matrices of a plain or normalized weight, without a further power iteration."""
    if not is_normalized(layer):
        return matrices_of(shape_of(layer), stored(layer))
    state = layer.parametrizations["weight"]  # type: ignore[index]
    was = state[0].training  # type: ignore[index]
    state[0].training = False  # type: ignore[index]
    try:
        return matrices_of(shape_of(layer), stored(layer))
    finally:
        state[0].training = was  # type: ignore[index]


def stable_rank(spectrum: Tensor) -> Tensor:
    """Sum of the squares of singular values, divided by that of the largest one.

    Args:
        spectrum: Singular values `(..., r)`, in any order.

    Returns:
        Stable ranks `(...)`, between 1 and r; 0 for zeros.

    Example:
        >>> stable_rank(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
        tensor([2., 1.])
    """
    squares = spectrum.square()
    return squares.sum(-1) / squares.amax(-1).clamp(min=_TINY)


def report(net: nn.Module) -> list[LayerReport]:
    """Orthonormality, norm, stable rank and free numbers of every layer.

    Args:
        net: The network, parametrized or not.

    Returns:
        A row for each linear, convolutional and embedding layer, in their order.

    Raises:
        ValueError: As `spectra`.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = parametrize(torch.nn.Linear(8, 6), "svdp", rank=3).net
        >>> row = report(net)[0]
        >>> row.kind, row.rank, row.original, row.free, round(row.stable_rank, 3), row.defect < 1e-6
        ('svdp', 3, 48, 33, 3.0, True)
    """
    values = spectra(net)
    return [_row(name, layer, values[name]) for name, layer in layers_of(net).items()]


def _row(name: str, layer: nn.Module, spectrum: Tensor) -> LayerReport:
    own, shape = weight_of(layer), shape_of(layer)
    original = torch.Size(shape.size).numel()
    normalized = "spectral_norm" if is_normalized(layer) else "plain"
    return LayerReport(
        name=name,
        kind=normalized if own is None else own.kind,
        shape=shape.size,
        rank=min(shape.widths) if own is None else own.plan.rank,
        original=original,
        free=original if own is None else own.plan.parameters,
        defect=None if own is None else _defect(layer, own),
        norm=float(spectrum.amax()),
        stable_rank=float(stable_rank(spectrum)),
    )


def _defect(layer: nn.Module, own: SpectralWeight) -> float:
    with torch.no_grad():
        group = own.computed(parts_of(layer)).group
    frames = [group.left, None if group.right is None else group.right.mT]
    defects = [0.0]
    for frame in frames:
        if frame is not None:
            wide = frame.double()
            eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
            defects.append(float((wide.mT @ wide - eye).abs().amax()))
    return max(defects)


def compression(net: nn.Module) -> Compression:
    """How many numbers a parametrized network has, and had.

    Args:
        net: The network.

    Returns:
        The counts; without parametrized layers, all numbers are the rest.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> found = compression(parametrize(torch.nn.Linear(8, 6), "svdp", rank=3).net)
        >>> found.original, found.free, found.rest, round(found.percent, 1)
        (48, 33, 6, 72.2)
    """
    layers = spectral_layers(net)
    original = sum(torch.Size(own.plan.shape.size).numel() for _, _, own in layers)
    free = sum(own.plan.parameters for _, _, own in layers)
    inside = {id(part) for _, layer, _ in layers for part in _own(layer)}
    outside = {}
    for module in net.modules():
        for name, part in (*module._parameters.items(), *module._buffers.items()):
            persistent = name not in module._non_persistent_buffers_set
            if part is not None and persistent and name != "num_batches_tracked":
                outside[id(part)] = part
    rest = sum(part.numel() for key, part in outside.items() if key not in inside)
    frames: Counter[FrameSize] = Counter()
    for _, _, own in layers:
        for size in own.plan.frames:
            frames[size] += own.plan.shape.groups
    whole = original + rest
    return Compression(
        original=original,
        free=free,
        rest=rest,
        percent=100 * (free + rest) / whole if whole else 100.0,
        weights_percent=100 * free / original if original else 100.0,
        frames=dict(frames),
    )


def _own(layer: nn.Module) -> list[Tensor]:
    state = layer.parametrizations["weight"]  # type: ignore[index]
    return [*state.parameters(), *state.buffers()]  # type: ignore[union-attr]
