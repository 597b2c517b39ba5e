r"""Convert coordinates to quantics sites and back by a product with a table of powers of two.

Every bit of a coordinate has one position in one site. With b the bits in the order of the sites,
the coordinates are b T, and the sites b T', for two such tables.

Shapes: `D` modes, `s` sites, `B` bits in total.
References: {cite}`khoromskij2011quantics`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Bit = tuple[int, int]  # its mode, and its position in the coordinate

# The product is computed in floating point, since GPUs have no integer matrix product. It is exact
# if all terms, which are different powers of two, are below 2 to this power.
_HALF = 32
_HOST = torch.device("cpu")  # of the tables, whatever the default device


class _Tables(NamedTuple):
    """Site, position in it, mode and position in that of each bit, `(B,)`; and both tables."""

    site: Tensor
    place: Tensor
    mode: Tensor
    bit: Tensor
    to_coords: Tensor  # (B, D), or (B, 2 D) with the bits from _HALF on at the end
    to_sites: Tensor  # (B, s)


class Bits:
    """The map between coordinates and the sites that hold their bits, for values in range.

    Args:
        groups: The bits that each site holds, least significant first.
        n_modes: D, the number of coordinates.
    """

    def __init__(self, groups: Sequence[Sequence[Bit]], n_modes: int):
        self.n_modes = n_modes
        self.binary = all(len(group) == 1 for group in groups)  # then sites are bits
        self.wide = any(bit >= _HALF for group in groups for _, bit in group)
        bits = [
            (s, place, *bit) for s, group in enumerate(groups) for place, bit in enumerate(group)
        ]
        rows = torch.tensor(bits, dtype=torch.int64, device=_HOST).reshape(-1, 4)
        sites, places, modes, at = rows.unbind(1)
        shape = (len(bits), n_modes * (1 + self.wide))
        to_coords = torch.zeros(shape, dtype=torch.float64, device=_HOST)
        to_sites = torch.zeros(len(bits), len(groups), dtype=torch.float64, device=_HOST)
        for row, (site, place, mode, bit) in enumerate(bits):
            to_coords[row, mode + bit // _HALF * n_modes] = 2.0 ** (bit % _HALF)
            to_sites[row, site] = 2.0**place
        self._to_coords = to_coords.numpy()
        self._tables = {torch.device("cpu"): _Tables(sites, places, modes, at, to_coords, to_sites)}

    def coords(self, sites: Tensor) -> Tensor:
        """Coordinates `(..., D)` of int64 sites `(..., s)`."""
        tables = self._on(sites.device)
        bits = sites
        if not self.binary:
            bits = sites.index_select(-1, tables.site) >> tables.place & 1
        if bits.is_cpu:  # less overhead than torch on few numbers
            product = bits.numpy().astype(np.float64) @ self._to_coords
            coords = torch.from_numpy(product.astype(np.int64))
        else:
            coords = (bits.double() @ tables.to_coords).long()
        if not self.wide:
            return coords
        low, high = coords.split(self.n_modes, -1)
        return low + (high << _HALF)

    def sites(self, coords: Tensor) -> Tensor:
        """Sites `(..., s)` of int64 coordinates `(..., D)`."""
        tables = self._on(coords.device)
        bits = coords.index_select(-1, tables.mode) >> tables.bit & 1
        return bits if self.binary else (bits.double() @ tables.to_sites).long()

    def _on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = _Tables(*(table.to(device) for table in self._tables[_HOST]))
        return self._tables[device]
