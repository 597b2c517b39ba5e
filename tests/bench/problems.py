"""The problems of the benchmark: `(entries, sizes, reference)` each.

`entries` maps int64 multi-indices `(K, n, d)` to `(K, n)`; `reference` is the full tensor
`(1, *sizes)` where it fits in memory, a train that is exact to rounding where there is one, and
`None` elsewhere (compare on random entries there).
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from cpic import data
from cpic.tt import Entries, TensorTrain

SIDE = 256


def _site_weights(bits: int, order: str, axes: int = 3) -> Tensor:
    """Value of every bit in every coordinate `(axes * bits, axes)`, least significant bit first."""
    weights = torch.zeros(axes * bits, axes, dtype=torch.float64)
    for axis in range(axes):
        for bit in range(bits):
            site = axis * bits + bit if order == "sequential" else bit * axes + axis
            weights[site, axis] = 2.0**bit
    return weights


def on_bits(volume: Entries, bits: int, order: str) -> Entries:
    """Entries of a volume seen as binary modes; the volume takes coordinates `(K, n, 3)`."""
    weights = _site_weights(bits, order)
    # A product of floats is quicker than one of integers, and exact here.
    return lambda indices: volume((indices.to(torch.float64) @ weights).long())


def bits_of(dense: Tensor, order: str) -> Tensor:
    """A cube `(1, n, n, n)` with its axes split to bits, least significant first."""
    bits = int(math.log2(dense.shape[1]))
    split = dense.reshape(1, *(2,) * (3 * bits))
    # Reshaping puts the most significant bit of an axis first.
    site = {(a, b): 1 + a * bits + (bits - 1 - b) for a in range(3) for b in range(bits)}
    if order == "sequential":
        axes = [site[a, b] for a in range(3) for b in range(bits)]
    else:
        axes = [site[a, b] for b in range(bits) for a in range(3)]
    return split.permute(0, *axes)


def looked_up(dense: Tensor) -> Entries:
    """Entries of a dense cube `(1, n, n, n)` at coordinates `(K, n, 3)`."""
    flat, n = dense.reshape(-1), dense.shape[1]
    weights = torch.tensor([n * n, n, 1.0], dtype=torch.float64)
    return lambda indices: flat[(indices.to(torch.float64) @ weights).long()]


def _laid_out(volume: Entries, dense: Tensor | None, layout: str, side: int):
    if layout == "tt":
        return volume, (side,) * 3, dense
    bits = int(math.log2(side))
    reference = None if dense is None else bits_of(dense, layout)
    return on_bits(volume, bits, layout), (2,) * (3 * bits), reference


@cache
def _brain() -> Tensor:
    values = data.mni152("t1").read().double()
    room = [SIDE - n for n in reversed(values.shape)]
    return torch.nn.functional.pad(values, [part for n in room for part in (0, n)])[None]


def brain(layout: str = "tt"):
    """MNI152 T1 padded with zeros to 256^3; layout "tt", "sequential" or "interleaved"."""
    dense = _brain()
    if layout == "tt":
        return looked_up(dense), (SIDE,) * 3, dense
    return _laid_out(looked_up(dense), dense, layout, SIDE)


def gaussians(layout: str = "tt", *, side: int = SIDE):
    """Eight axis-aligned Gaussians of random place, width and height: TT rank 8."""
    volume = data.gaussians((side,) * 3)
    dense = volume.read()[None] if side <= SIDE else None
    return _laid_out(volume.voxels, dense, layout, side)


def products(lines: Sequence[Tensor]) -> TensorTrain:
    """Sum over terms t of the products of `lines[k][t, i_k]`, each `(terms, size)`."""
    cores = []
    for line in lines:
        core = torch.zeros(1, len(line), line.shape[1], len(line), dtype=torch.float64)
        core.diagonal(dim1=1, dim2=3).copy_(line.T)
        cores.append(core)
    ends = cores[0].sum(1, keepdim=True), cores[-1].sum(3, keepdim=True)
    return TensorTrain([ends[0], *cores[1:-1], ends[1]])


def rational(lines: Sequence[Tensor], power: int) -> TensorTrain:
    """(1 + lines[0][i_0] + lines[1][i_1] + ...)^-power by an integral of exponentials.

    x^-p is the integral of t^(p-1) exp(-t x) / (p-1)!, taken over log t by the trapezoidal rule,
    whose error falls exponentially with the step.
    """
    top = 1 + sum(float(line.max()) for line in lines)
    step = 0.25
    steps = torch.arange(-math.log(top) - 40 / power, 6, step, dtype=torch.float64)
    times = steps.exp()
    weights = step * times**power * (-times).exp() / math.factorial(power - 1)
    terms = [(-times[:, None] * line).exp() for line in lines]
    return products([terms[0] * weights[:, None], *terms[1:]]).round(1e-14)


def reciprocal():
    """1 / (1 + i1 + ... + i10) with 20 values of every index."""
    line = torch.arange(20, dtype=torch.float64)
    return (
        lambda indices: 1.0 / (1.0 + indices.sum(-1).to(torch.float64)),
        (20,) * 10,
        rational([line] * 10, 1),
    )


def bell():
    """1 / (1 + |x|^2) in 6 dimensions on 32 points of [-4, 4]."""
    x = torch.linspace(-4, 4, 32, dtype=torch.float64)
    return (
        lambda indices: 1.0 / (1.0 + x[indices].square().sum(-1)),
        (32,) * 6,
        rational([x.square()] * 6, 1),
    )


def sines():
    """A product of sines in 20 dimensions: half a wave on 20 points each."""
    x = (torch.arange(1, 21, dtype=torch.float64) * math.pi / 21).sin()
    return (lambda indices: x[indices].prod(-1)), (20,) * 20, products([x[None]] * 20)


def narrow(side: int = SIDE):
    """Three Gaussians of width 1/64 in the unit cube: 0.1 % of it holds nearly all of the norm."""
    center = torch.tensor([[0.2, 0.7, 0.3], [0.6, 0.25, 0.8], [0.85, 0.6, 0.15]]).double()
    height = torch.tensor([1.0, 0.7, 0.5], dtype=torch.float64)

    def bumps(x: Tensor, center: Tensor) -> Tensor:
        return (-0.5 * (64 * (x - center)).square()).exp()

    def entries(indices: Tensor) -> Tensor:
        x = (indices.to(torch.float64) + 0.5) / side
        return bumps(x[..., None, :], center).prod(-1) @ height

    x = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    lines = [bumps(x, at[:, None]) for at in center.T]
    return entries, (side,) * 3, products([lines[0] * height[:, None], *lines[1:]])


GENZ = ("oscillatory", "product peak", "corner peak", "gaussian", "continuous", "discontinuous")


def genz(family: str, *, n_modes: int = 10, n: int = 20):
    """A function of Genz's families for numerical integration on a grid of midpoints in [0, 1].

    Its difficulties are those that are usual in ten dimensions.
    """
    draw = torch.Generator().manual_seed(GENZ.index(family))
    shift = 0.2 + 0.6 * torch.rand(n_modes, generator=draw, dtype=torch.float64)
    steep = torch.rand(n_modes, generator=draw, dtype=torch.float64)
    hard = dict(zip(GENZ, (9.0, 7.25, 1.85, 7.03, 20.4, 4.3), strict=True))[family]
    steep = steep * hard / steep.sum()

    def entries(indices: Tensor) -> Tensor:
        x = (indices.to(torch.float64) + 0.5) / n
        match family:
            case "oscillatory":
                return (2 * math.pi * shift[0] + x @ steep).cos()
            case "product peak":
                return (steep**-2 + (x - shift).square()).reciprocal().prod(-1)
            case "corner peak":
                return (1 + x @ steep).pow(-(n_modes + 1))
            case "gaussian":
                return (-(steep * (x - shift)).square().sum(-1)).exp()
            case "continuous":
                return (-((x - shift).abs() @ steep)).exp()
            case _:
                return (x @ steep).exp() * (x[..., :2] <= shift[:2]).all(-1)

    if family != "corner peak":
        return entries, (n,) * n_modes, None
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return entries, (n,) * n_modes, rational([x * a for a in steep], n_modes + 1)


def spike(layout: str = "tt"):
    """A wide bump and, far from it, a spike of about five voxels that holds a sixth of the norm."""
    center = torch.tensor([[100.0, 120.0, 110.0], [200.3, 60.7, 190.2]], dtype=torch.float64)
    width, height = torch.tensor([40.0, 3.0], dtype=torch.float64), (1.0, 8.8)

    def volume(coords: Tensor) -> Tensor:
        where = coords.to(torch.float64)
        return sum(
            h * torch.exp(-0.5 * (((where - c) / w) ** 2).sum(-1))
            for c, w, h in zip(center, width, height, strict=True)
        )

    where = torch.arange(SIDE, dtype=torch.float64)
    lines = torch.exp(-0.5 * ((where[:, None, None] - center) / width[:, None]) ** 2)
    dense = torch.einsum("g,ag,bg,cg->abc", torch.tensor(height).double(), *lines.unbind(-1))[None]
    return _laid_out(volume, dense, layout, SIDE)


def many_functions(n: int = 20, bits: int = 8):
    """`n` different sets of smooth bumps on 2^(3 bits) points, as binary modes in sequence."""
    draw = torch.Generator().manual_seed(0)
    center = torch.rand(n, 1, 3, generator=draw, dtype=torch.float64) * 2**bits
    weights = _site_weights(bits, "sequential")

    def entries(indices: Tensor) -> Tensor:
        gap = (indices.to(torch.float64) @ weights - center) / (0.3 * 2**bits)
        return 1.0 / (1.0 + (gap**2).sum(-1))

    return entries, (2,) * (3 * bits), None


def tunable_gaussians(layout: str = "interleaved", *, side: int = 64, rotated: bool = True):
    """Eight Gaussians of which heights, centers and widths are parameters.

    Axis-aligned in layout "tt" they have rank 8 whatever the parameters are.

    Returns:
        `make` from parameters `(56,)` to entries that carry their gradient, the sizes, and the
        parameters to begin with.
    """
    draw = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    turns = torch.linalg.qr(uniform(8, 3, 3) - 0.5).Q if rotated else torch.eye(3).double()
    heights, centers, widths = 0.5 + 0.5 * uniform(8), 0.2 + 0.6 * uniform(8, 3), uniform(8, 3)
    start = torch.cat([heights, centers.flatten(), (0.05 + 0.07 * widths).log().flatten()])

    def make(theta: Tensor) -> Entries:
        height, center, width = theta.split((8, 24, 24))
        roots = turns * (-width.view(8, 1, 3)).exp()
        shift = torch.einsum("gi,gij->gj", center.view(8, 3), roots)

        def volume(coords: Tensor) -> Tensor:
            where = (coords.to(torch.float64) + 0.5) / side
            flat = where @ roots.permute(1, 0, 2).flatten(1) - shift.flatten()
            size = flat.unflatten(-1, (8, 3)).square().sum(-1)
            return (-0.5 * size).exp() @ height

        entries, _, _ = _laid_out(volume, None, layout, side)
        return entries

    return make, _laid_out(None, None, layout, side)[1], start


def tunable_bumps(n: int = 20, bits: int = 28):
    """`n` smooth functions on 2^bits points with their four centers as parameters `(n, 4)`.

    The bits are digits of four coordinates in turn.
    """
    draw = torch.Generator().manual_seed(0)
    start = torch.rand(n, 4, generator=draw, dtype=torch.float64)
    weights = torch.zeros(bits, 4, dtype=torch.float64)
    for site in range(bits):
        weights[site, site % 4] = 0.5 ** (site // 4 + 1)

    def make(theta: Tensor) -> Entries:
        centers = theta.unsqueeze(1)

        def entries(indices: Tensor) -> Tensor:
            gap = (indices.to(torch.float64) @ weights - centers) / 0.05
            return 1.0 / (1.0 + gap.square().sum(-1))

        return entries

    return make, (2,) * bits, start


def error_of(
    train: TensorTrain, entries: Entries, reference: Tensor | TensorTrain | None, *, seed: int = 7
) -> float:
    """Relative Frobenius error on the whole tensor, or on 10 000 random entries without one."""
    if isinstance(reference, TensorTrain):
        return float((train - reference).norm() / reference.norm())
    if reference is not None:
        return float((train.full() - reference).norm() / reference.norm())
    draw = torch.Generator().manual_seed(seed)
    bounds = torch.tensor(train.sizes, dtype=torch.float64)
    shape = (1, 10_000, len(train.sizes))
    points = (torch.rand(shape, generator=draw, dtype=torch.float64) * bounds).long()
    truth = entries(points)
    return float((train.entries(points) - truth).norm() / truth.norm())
