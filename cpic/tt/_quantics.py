r"""Write voxel coordinates in bits, so that a long axis becomes many short sites.

A coordinate of an axis of size 2^b is b bits, i = sum_t q_t 2^t, the least significant first.
The sites of a quantics train are these bits in one of two orders, here for two axes a and b:

    sequential     a0 a1 a2 ... b0 b1 b2 ...        axis after axis
    interleaved    a0 b0 a1 b1 a2 b2 ...            scale after scale

Bits of the channels come last in both. An axis of another size is padded to the next power of
two; entries outside the true shape are zero.

Shapes: `D` axes, `K` tensors, `n` points, `s` sites.
References: {cite}`khoromskij2011quantics`, {cite}`oseledets2010approximation`.
"""

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Literal

import torch
from torch import Tensor

from cpic._renamed import renamed
from cpic.linalg._inputs import check_choice, check_least
from cpic.tt import _patches
from cpic.tt._bits import Bit, Bits
from cpic.tt._entries import Entries, check_inside, strides
from cpic.tt._train import TensorTrain


class Quantics:
    """The map {eq}`eq-quantics` between coordinates of an array and sites of its quantics train.

    Args:
        shape: True sizes of the axes, any integers of at least 1.
        channels: Size of a channel mode after the axes; with 1, coordinates have none.
        order: `"sequential"` or `"interleaved"`. If axes have different numbers of bits, the
            interleaved order ends with those of the longer ones.
        base: Size of a site, 2, 4 or 8, which holds 1, 2 or 3 consecutive bits. A site does not
            combine axes in the sequential order, nor axes and channels in
            either; if the bits do not fill the last site of such a run, it is smaller.

    Raises:
        ValueError: If a size is below 1 or above 2^62, or `order` or `base` is unknown.

    Example:
        >>> grid = Quantics((8, 8, 4))
        >>> grid.coords(torch.tensor([1, 0, 1, 0, 1, 1, 1, 1]))
        tensor([5, 6, 3])
        >>> Quantics((200, 180), order="interleaved", base=4).sizes
        (4, 4, 4, 4, 4, 4, 4, 4)
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: int = 1,
        order: Literal["sequential", "interleaved"] = "sequential",
        base: int = 2,
    ):
        try:
            self.shape, self.channels = tuple(map(index, shape)), index(channels)
        except TypeError:
            raise ValueError(
                f"Quantics needs whole numbers, got shape {shape} with {channels} channels; pass "
                "the number of voxels along each axis."
            ) from None
        self.order, self.base = order, base
        self._check()
        modes = self._modes
        widths = [(size - 1).bit_length() for size in modes]
        self.padded = tuple(1 << width for width in widths[: len(self.shape)])
        self._padded_modes = tuple(1 << width for width in widths)
        self.padded_channels = math.prod(self._padded_modes[len(self.shape) :])
        self._groups = _group(widths, len(self.shape), order, base.bit_length() - 1)
        self._bits = Bits(self._groups, len(modes))
        self.sizes = tuple(1 << len(group) for group in self._groups)

    @property
    def n_sites(self) -> int:
        """Number of sites of a quantics train."""
        return len(self.sizes)

    @property
    def _modes(self) -> tuple[int, ...]:
        return self.shape if self.channels == 1 else (*self.shape, self.channels)

    def __repr__(self) -> str:
        return (
            f"Quantics({self.shape}, channels={self.channels}, order={self.order!r}, "
            f"base={self.base}): {self.n_sites} sites {self.sizes}"
        )

    def sites(self, coords: Tensor) -> Tensor:
        """Sites `(..., s)` of coordinates `(..., D)`, followed by a channel if there are any.

        Inverse of `coords`. Coordinates may lie in the padding; beyond it, an `IndexError`.
        """
        self._inside(coords, self._padded_modes, "coordinates")
        return self._bits.sites(coords)

    def coords(self, sites: Tensor) -> Tensor:
        """Coordinates `(..., D)`, followed by a channel if there are any, of sites `(..., s)`.

        Inverse of `sites`; an `IndexError` if a site is not below its size.
        """
        self._inside(sites, self.sizes, "sites")
        return self._bits.coords(sites)

    def split(self, tensor: Tensor) -> Tensor:
        """Dense tensors `(K, *shape)`, channels last, as `(K, *sizes)`, zero in the padding."""
        advice = "put the channels last and the batch first"
        _check_shape("split", tensor, self._modes, advice)
        trains, index = len(tensor), self._positions(tensor.device).expand(len(tensor), -1)
        whole = tensor.new_zeros(trains, math.prod(self.sizes))
        return whole.scatter(1, index, tensor.flatten(1)).view(trains, *self.sizes)

    def join(self, tensor: Tensor) -> Tensor:
        """Dense tensors `(K, *sizes)` as `(K, *shape)`, channels last; inverse of `split`."""
        _check_shape("join", tensor, self.sizes, "see `sizes`")
        flat = tensor.reshape(len(tensor), math.prod(self.sizes))
        return flat.index_select(1, self._positions(tensor.device)).view(len(tensor), *self._modes)

    def entries(self, function: Callable[[Tensor], Tensor]) -> Entries:
        """Entries of the quantics tensors of a function of the coordinates.

        `function` gets int64 coordinates `(K, n, D)`, followed by a channel if there are any,
        always inside the true shape, and returns `(K, n)`. In the padding the entries are zero.
        """

        def ask(indices: Tensor) -> Tensor:
            coords = self.coords(indices)
            if self._modes == self._padded_modes:
                return function(coords)
            last = torch.tensor(self._modes, device=coords.device) - 1
            values = function(torch.minimum(coords, last))
            return torch.where((coords <= last).all(-1), values, torch.zeros_like(values))

        return ask

    @renamed(centres="centers")
    def patches(self, train: TensorTrain, centers: Tensor, *, width: int) -> Tensor:
        """Patches of the arrays that quantics trains represent, read without decompression.

        Differentiable in the cores. Equal to patches of the full arrays, with zeros outside the
        true shape.

        Args:
            train: K trains with the sizes of this map.
            centers: Coordinates of the centers, int64 `(K, n, D)`, without a channel. They may
                lie anywhere, also outside the array.
            width: Voxels along each axis of a patch; it begins `width // 2` before its center.

        Returns:
            The patches, `(K, n, width, ..., width)`, followed by all channels if there are any.

        Raises:
            ValueError: If the sizes, the shape or type of the centers, or the width are invalid.
        """
        if train.sizes != self.sizes:
            raise ValueError(
                f"patches needs a train with sizes {self.sizes}, got {train.sizes}; make it "
                "from `quantics.split` or `quantics.entries` of the same map."
            )
        wanted = (train.n_trains, centers.shape[1] if centers.ndim > 1 else "n", len(self.shape))
        if tuple(centers.shape) != wanted or centers.dtype != torch.int64:
            raise ValueError(
                f"patches needs int64 centers of shape ({wanted[0]}, n, {wanted[2]}), got "
                f"{centers.dtype} of shape {tuple(centers.shape)}; pass one row of coordinates "
                "per center, for each train."
            )
        check_least("patches", "1 reads the centers", width=width)
        steps = torch.arange(width, device=centers.device) - width // 2
        windows = [center.unsqueeze(-1) + steps for center in centers.unbind(-1)]
        if self.channels > 1:
            channel = torch.arange(self.channels, device=centers.device)
            windows.append(channel.expand(*centers.shape[:2], self.channels))
        modes = _patches.Modes(self._modes, self._padded_modes, self._groups, self._bits)
        return _patches.read(train, modes, windows, by_axis=self.order == "sequential")

    def _positions(self, device: torch.device) -> Tensor:
        """Position of each entry of an array among the flattened sites, `(prod(shape),)`."""
        # Every bit of every axis has its own place, so the positions of the axes add up.
        total = torch.zeros((), dtype=torch.int64, device=device)
        for mode, size in enumerate(self._modes):
            along = torch.arange(size, device=device)
            place = torch.zeros_like(along)
            for group, stride in zip(self._groups, strides(self.sizes), strict=True):
                for weight, (owner, bit) in enumerate(group):
                    if owner == mode:
                        place += ((along >> bit) & 1) * (stride << weight)
            total = total.unsqueeze(-1) + place
        return total.flatten()

    def _inside(self, values: Tensor, sizes: Sequence[int], name: str) -> None:
        if values.dtype != torch.int64 or values.shape[-1:] != (len(sizes),):
            raise ValueError(
                f"{self!r} needs int64 {name} of shape (..., {len(sizes)}), got {values.dtype} "
                f"of shape {tuple(values.shape)}; a channel index follows the axes."
            )
        check_inside(f"{self!r} needs {name}", values, sizes)

    def _check(self) -> None:
        if not self.shape or not all(1 <= size <= 2**62 for size in (*self.shape, self.channels)):
            raise ValueError(
                f"Quantics needs axes and channels of sizes 1 to 2^62, got shape {self.shape} "
                f"with {self.channels} channels; omit axes that do not exist."
            )
        advice = '"interleaved" places bits of one scale next to each other'
        check_choice("Quantics", "order", self.order, ("sequential", "interleaved"), advice)
        check_choice("Quantics", "base", self.base, (2, 4, 8), "it is the size of a site")


def _check_shape(who: str, tensor: Tensor, shape: tuple[int, ...], advice: str) -> None:
    if tensor.ndim < 2 or tensor.shape[1:] != shape:
        raise ValueError(
            f"{who} needs tensors of shape ({', '.join(map(str, ('K', *shape)))}), got "
            f"{tuple(tensor.shape)}; {advice}."
        )


def _group(widths: list[int], n_axes: int, order: str, bits: int) -> list[list[Bit]]:
    """The bits that each site holds, least significant first."""
    if order == "sequential":
        runs = [[(mode, bit) for bit in range(width)] for mode, width in enumerate(widths)]
    else:
        axes = [(bit, mode) for mode in range(n_axes) for bit in range(widths[mode])]
        channel = [(n_axes, bit) for width in widths[n_axes:] for bit in range(width)]
        runs = [[(mode, bit) for bit, mode in sorted(axes)], channel]
    groups = [run[at : at + bits] for run in runs for at in range(0, len(run), bits)]
    return groups or [[]]  # a single voxel still has one site, of size 1
