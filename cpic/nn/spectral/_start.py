r"""Where training starts: drawn frames, or those of a trained weight.

From a weight: its leading singular vectors on both sides of the spectrum, each split into a train
by truncated SVDs, then the best matrix between the two trains, which gives the spectrum. What
rotates freely is moved towards the spectrum until all other frames are reduced.

Shapes: `n` matrices `(d_out, d_in)`, `r` the rank.
References: {cite}`oseledets2011tt`, {cite}`obukhov2021spectral`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cpic.nn.spectral._chain import contracted
from cpic.nn.spectral._factors import Parts, groups_of, normalized
from cpic.nn.spectral._frames import reflectors, triangular_gauge
from cpic.nn.spectral._plan import Core, FrameSize, Plan, Shape
from cpic.tt._svd import decompose

Draw = Literal["eye", "qr_randn", "qr_eye_randn"]
# Roundings that pass for none: a weight is made by some hundred operations.
_EXACT = 1e3


def drawn(plans: Sequence[Plan], *, init: Draw, noise: float, seed: int | None) -> list[Tensor]:
    """Free numbers `(groups, free)` of the frames of each plan, in float64 on the CPU.

    Args:
        plans: Of the layers, in the order in which they draw.
        init: `"eye"`: zeros. `"qr_randn"`: the frame of a Gaussian matrix. `"qr_eye_randn"`: that
            of the identity plus noise.
        noise: Standard deviation of the noise, whose normal numbers are cut off at 1.
        seed: Frames of the i-th size draw one after the other from a generator of seed + i, counted
            in the order of appearance, for full and for reduced frames; None: from the global one.
    """
    sources: dict[FrameSize, torch.Generator | None] = {}
    counts = {True: 0, False: 0}
    found = []
    for plan in plans:
        pieces = []
        for size in plan.frames:
            if size not in sources:
                place = counts[size.reduced]
                counts[size.reduced] += 1
                sources[size] = None if seed is None else _source(seed + place)
            pieces.append(_draw(size, plan.shape.groups, init, noise, sources[size]))
        empty = torch.zeros(plan.shape.groups, 0, dtype=torch.float64, device="cpu")
        found.append(torch.cat([empty, *pieces], -1))
    return found


def _source(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _draw(
    size: FrameSize, groups: int, init: Draw, noise: float, source: torch.Generator | None
) -> Tensor:
    options = {"dtype": torch.float64, "device": "cpu"}
    if init == "eye":
        return torch.zeros(groups, size.free, **options)
    numbers = torch.randn(groups, size.rows, size.columns, generator=source, **options)
    if init == "qr_eye_randn":
        numbers = noise * numbers.clamp_(-1, 1) + torch.eye(size.rows, size.columns, **options)
    return reflectors(torch.linalg.qr(numbers).Q, reduced=size.reduced).free


def matrices_of(shape: Shape, weight: Tensor) -> Tensor:
    """The matrices `(groups, d_out, d_in)` of a weight."""
    parts = weight.detach().unflatten(0, (shape.groups, -1))
    if shape.transposed:
        parts = parts.transpose(1, 2)
    return parts.flatten(2) if parts.ndim > 2 else parts


def random_parts(plan: Plan, free: Tensor, norm: Tensor | float, like: Tensor) -> Parts:
    """Parts with drawn frames, and singular values that are all equal.

    Args:
        plan: How the weight is made.
        free: The free numbers.
        norm: The singular values, of one group or of each `(groups,)`; only used with a gain.
        like: Gives dtype and device.
    """
    groups = plan.shape.groups
    signs = torch.full((groups, plan.rank), plan.sign, dtype=torch.int8, device=like.device)
    level = torch.as_tensor(norm if plan.gain else 1.0, dtype=like.dtype, device=like.device)
    level = level.reshape(-1, 1).expand(groups, plan.scales)
    if plan.spectrum == "fixed":
        return Parts(free.to(like), level.clone() if plan.gain else None, signs)
    return Parts(free.to(like), level * signs, None)


def weight_from(shape: Shape, matrices: Tensor) -> Tensor:
    """The weight as stored, of its matrices `(..., groups, d_out, d_in)`."""
    parts = matrices.unflatten(-1, shape.matrix[1:])
    if shape.transposed:
        axis = matrices.ndim - 2
        parts = parts.transpose(axis, axis + 1)
    return parts.flatten(matrices.ndim - 3, matrices.ndim - 2)


def from_matrices(plan: Plan, matrices: Tensor) -> Parts:
    """What the nearest weight of a plan is made of, as far as successive SVDs find it.

    Nothing larger than a matrix is allocated.

    Args:
        plan: How the weight is made.
        matrices: Matrices `(groups, d_out, d_in)`; finite, and none of them zero.
    """
    with torch.no_grad():
        wide = matrices.double()
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
        some = values[:, : plan.rank].unsqueeze(-2)
        lefts = _train(left[..., : plan.rank] * some, plan.left)
        rights = _train(right.mT[..., : plan.rank] * some, plan.right, backwards=True)
        first, values, last = torch.linalg.svd(_between(plan, wide, lefts, rights))
        free, turn = _reduced(plan, lefts, first)
        # A fixed spectrum commutes with what turns the left frame; a learned one only with signs.
        fixed = plan.spectrum == "fixed"
        others, signs = _reduced(plan, rights, last.mT @ turn if fixed else last.mT, backwards=True)
        numbers = torch.cat([wide.new_empty(len(wide), 0), *free, *others], -1).to(matrices)
        signs = signs.diagonal(dim1=-2, dim2=-1)
        if fixed:
            mean = values.mean(-1, keepdim=True).to(matrices) if plan.gain else None
            return Parts(numbers, mean, signs.sign().to(torch.int8))
        values = values * signs * turn.diagonal(dim1=-2, dim2=-1)
        if not plan.gain:
            values = normalized(values)
        return Parts(numbers, values.to(matrices), None)


def _train(columns: Tensor, cores: Sequence[Core], *, backwards: bool = False) -> list[Tensor]:
    """Orthogonal cores `(n, l, size, r)` that span columns `(n, d, r)`, made from one end."""
    if not cores:
        return []
    order = [core._replace(left=core.right, right=core.left) for core in cores[::-1]]
    order = order if backwards else list(cores)
    ranks = iter(core.right for core in order)
    sizes = [core.size for core in cores]
    tensor = columns.unflatten(1, sizes)
    if backwards:
        tensor = tensor.permute(0, *range(len(sizes), 0, -1), len(sizes) + 1)
    found = decompose(tensor, 0.0, None, lambda matrix, _: _basis(matrix, next(ranks)))[:-1]
    return [core.transpose(1, 3) for core in found[::-1]] if backwards else found


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors, as many as asked also of a matrix of lower rank."""
    return torch.linalg.svd(matrix, full_matrices=False).U[..., :rank]


def _between(
    plan: Plan, matrices: Tensor, lefts: Sequence[Tensor], rights: Sequence[Tensor]
) -> Tensor:
    """The matrix `(n, r, r)` between two trains that is nearest to the given ones."""
    if lefts:
        matrices = contracted(lefts, plan.left).flatten(1, 2).mT @ matrices
    if rights:
        matrices = matrices @ contracted(rights, plan.right).flatten(2, 3).mT
    return matrices


def _reduced(
    plan: Plan, cores: Sequence[Tensor], last: Tensor, *, backwards: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Free numbers of the frames of a train, and `turn`.

    The train times `last`, as a matrix with orthonormal columns, is that of these frames times the
    transpose of `turn`.
    """
    sizes = plan.right[::-1] if backwards else plan.left
    cores = cores[::-1] if backwards else cores
    free, turn = [], None
    for k, (core, size) in enumerate(zip(cores, sizes, strict=True)):
        matrix = _unfolded(core, turn, backwards)
        if k == len(cores) - 1:
            matrix = matrix @ last
        turn = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        if size.reduced:
            turn = triangular_gauge(matrix)
            matrix = matrix @ turn
        found = reflectors(matrix, reduced=size.reduced)
        turn = turn * found.signs.unsqueeze(-2)
        free.append(found.free)
    return free[::-1] if backwards else free, last.mT if turn is None else turn


def _unfolded(core: Tensor, turn: Tensor | None, backwards: bool) -> Tensor:
    """The matrix whose columns are orthonormal, after `turn` on the side of the outer cores."""
    if backwards:
        core = core if turn is None else core @ turn.unsqueeze(1)
        return core.flatten(2).mT
    core = core if turn is None else (turn.mT @ core.flatten(2)).unflatten(-1, core.shape[2:])
    return core.flatten(1, 2)


def inverted(plan: Plan, weight: Tensor) -> Parts:
    """What a weight is made of.

    Raises:
        ValueError: If it is not one that the plan can make.
    """
    matrices = matrices_of(plan.shape, weight)
    check_matrices("the assignment of a parametrized weight", matrices)
    parts = from_matrices(plan, matrices)
    ((group, _),) = groups_of([plan], [parts])
    error = relative_error(group.product("weight")[0], weight)
    if error > _EXACT * torch.finfo(weight.dtype).eps:
        raise ValueError(
            f"a parametrized weight of rank {plan.rank}{'' if plan.gain else ' and norm 1'} was "
            f"assigned one that it cannot be: the nearest is {error:.1e} away; assign to the plain "
            'layer, after `spectral.remove`, and parametrize with init="weight".'
        )
    return parts


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Frobenius norm of the difference over that of what is wanted."""
    wanted = wanted.detach().double()
    return float((found.detach().double() - wanted).norm() / wanted.norm())


def check_matrices(owner: str, matrices: Tensor) -> None:
    """Raise unless all matrices are finite, and none of them zero."""
    check_finite_weight(owner, matrices)
    if not bool(matrices.flatten(1).any(1).all()):
        raise ValueError(
            f"{owner} needs a weight with a positive singular value, got zeros only; draw the "
            "frames, with another `init`, or ignore the layer."
        )


def check_finite_weight(owner: str, matrices: Tensor) -> None:
    """Raise unless all numbers are finite."""
    if not bool(matrices.isfinite().all()):
        raise ValueError(
            f"{owner} needs a finite weight, got NaN or infinite values; go back to a checkpoint "
            "before, and lower the learning rate."
        )
