r"""Contract the cores of trains: entries, the full tensor, inner products, norms.

Shapes: `K` trains, `l` and `r` the ranks to the left and right of a core, `size` of its site,
`n` multi-indices, `d` sites. A core is `(K, l, size, r)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Maximum number of values per step of an evaluation; more points are split into pieces.
_PIECE = 2**25
# Sites up to this size are multiplied at all indices and selected from afterwards: one large
# product is faster than many small ones.
_SMALL = 4


def entries(cores: Sequence[Tensor], indices: Tensor) -> Tensor:
    """Entries `(K, n)` at multi-indices `(K, n, d)`."""
    widest = max(_held(core) for core in cores)
    piece = max(1, _PIECE // max(1, widest * len(indices)))
    if indices.shape[1] <= piece:
        return _entries(cores, indices)
    return torch.cat([_entries(cores, part) for part in indices.split(piece, dim=1)], dim=1)


def _held(core: Tensor) -> int:
    _, left, size, right = core.shape
    return right * (size if size <= _SMALL else left)


def _entries(cores: Sequence[Tensor], indices: Tensor) -> Tensor:
    trains, n, _ = indices.shape
    count = trains * n
    sizes = torch.tensor([core.shape[2] for core in cores], device=indices.device)
    points = torch.arange(count, device=indices.device)[:, None]
    # Small sites are selected from the products of each point, large ones from those of each train.
    parts = torch.where(sizes <= _SMALL, points, points.div(n, rounding_mode="floor"))
    places = parts * sizes + indices.reshape(count, len(cores))
    state = cores[0].new_ones(count, 1, 1)
    for core, place in zip(cores, places.unbind(1), strict=True):
        _, left, size, right = core.shape
        if size <= _SMALL:
            every = torch.bmm(state.view(trains, n, left), core.flatten(2))
            state = every.view(count * size, right).index_select(0, place).unsqueeze(1)
        else:
            rows = core.transpose(1, 2).reshape(trains * size, left * right)
            slices = rows.index_select(0, place).view(count, left, right)
            state = torch.bmm(state.view(count, 1, left), slices)
    return state.view(trains, n)


def advance(state: Tensor, core: Tensor, index: Tensor) -> Tensor:
    """One more site: from `(K, n, l)` to `(K, n, r)`."""
    trains, left, size, right = core.shape
    n = index.shape[1]
    if size <= _SMALL:
        every = (state @ core.flatten(2)).view(trains * n * size, right)
        place = torch.arange(trains * n, device=index.device) * size + index.flatten()
        return every.index_select(0, place).view(trains, n, right)  # much faster than a gather
    rows = core.permute(0, 2, 1, 3).reshape(trains * size, left * right)
    offset = torch.arange(trains, device=index.device).unsqueeze(1) * size
    slices = rows.index_select(0, (index + offset).flatten()).view(trains, n, left, right)
    return (state.unsqueeze(-2) @ slices).squeeze(-2)


def full(cores: Sequence[Tensor]) -> Tensor:
    """The dense tensors `(K, *sizes)`."""
    trains = len(cores[0])
    state = cores[0].new_ones(trains, 1, 1)
    count = 1
    for core in cores:
        _, _, size, right = core.shape
        count *= size
        state = (state @ core.flatten(2)).view(trains, count, right)
    return state.view(trains, *(core.shape[2] for core in cores))


def inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Sums over all entries `(K,)` of the products of two trains."""
    trains = len(left[0])
    state = left[0].new_ones(trains, 1, 1)
    for a, b in zip(left, right, strict=True):
        carried = (state.mT @ a.flatten(2)).view(trains, b.shape[1] * a.shape[2], a.shape[3])
        state = carried.mT @ b.flatten(1, 2)
    return state.reshape(trains)


def norm(cores: Sequence[Tensor]) -> Tensor:
    """Frobenius norms `(K,)`, to full precision even if two trains nearly cancel."""
    trains = len(cores[0])
    with torch.no_grad():
        carry = cores[0].new_ones(trains, 1, 1)
        for core in cores:
            shape = (trains, carry.shape[1] * core.shape[2], core.shape[3])
            matrix = (carry @ core.flatten(2)).view(shape)
            carry = torch.linalg.qr(matrix, mode="r").R
        value = carry.reshape(trains).abs()
    if not (torch.is_grad_enabled() and any(core.requires_grad for core in cores)):
        return value
    # An inner product has only half the digits, so it supplies the gradient but not the value.
    square = inner(cores, cores)
    slope = torch.where(value > 0, 0.5 / value, 0.0)
    return value + torch.where(value > 0, slope * (square - square.detach()), 0.0)
