r"""Present encoded volumes as tensors that are given by their entries.

A multi-index is a position and a channel. The entry is that channel of the vector the encoder
computes from the cube around the position:

    multi-index -> (position, channel) -> cube of voxels -> encoder -> one of its numbers

Many multi-indices of a call share a position, since they differ only in the bits of the channel;
each distinct position is read and encoded once, for all volumes in one call of the encoder.

Shapes: `K` volumes, `n` multi-indices of `d` sites, `m` distinct positions, `D` axes.
References: {cite}`usvyatsov2021cherry`.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cpic.bottleneck import chunked
from cpic.data import read_cubes
from cpic.nn._checks import check_reading
from cpic.nn._prefetch import Prefetch
from cpic.nn._readable import Readable
from cpic.tt import Quantics
from cpic.tt._entries import check_indices


class VolumeEntries:
    """Entries of K encoded volumes, which are never stored completely.

    Called with int64 multi-indices `(K, n, d)` it returns values `(K, n)`, differentiable in the
    parameters of the encoder: an `Entries` for `cpic.tt.cross` and `cpic.bottleneck`
    {cite}`usvyatsov2021cherry`.

    Outside the true shape of the volumes, where a quantics grid is padded to powers of two, the
    entries are zero and nothing is read (`padding="zero"`), or those of a volume padded with
    zeros before encoding (`padding="encode"`); all positions whose cubes are empty then count as
    one. Channels in the padding are zero in both cases.

    Args:
        volumes: K volumes of one shape and number of channels, as in `cpic.data.Volume`.
        encoder: Maps cubes `(m, c, s, ..., s)` to `(m, n_dims)`; it has attributes `n_dims` and
            `receptive_field`. None uses the voxels themselves; contrasts are then the channels. An
            encoder with `scales`, as `CubeEncoder` has, gets those cubes of each position as one,
            `(m, S c, s, ..., s)`; voxels that they share are read and counted once.
        grid: Map between multi-indices and positions, of the shape of the volumes and with
            `n_dims` channels. None: multi-indices are positions, followed by a channel if
            `n_dims` is above 1.
        padding: `"zero"` or `"encode"`.
        chunk: Positions read and encoded at a time, as in `cpic.bottleneck.chunked`: reading
            and encoding are repeated for the gradient, with the memory of one chunk. None
            for all at once.
        remember: Store the vectors of earlier calls with their gradient, and encode only new
            positions: half of those of a half-sweep, whose neighboring sites share fibers. A change
            of the parameters or the mode clears them; call `forget` after a backward pass
            without an update.
        dtype: Dtype of the entries. They are on the device of the multi-indices, which may
            differ from that of the encoder.

    Attributes:
        sizes: Sizes of the sites.
        asked: Entries requested so far, of all volumes together.
        encoded: Positions encoded so far, of all volumes together; a second evaluation of a chunk
            for the gradient is not counted.

    Raises:
        ValueError: If shapes, channels or options do not match.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> from cpic.nn import CubeEncoder
        >>> volume, encoder = ArrayVolume(torch.rand(12, 16, 16)), CubeEncoder(4)
        >>> entries = VolumeEntries([volume], encoder, Quantics((12, 16, 16), channels=4))
        >>> entries(torch.randint(0, 2, (1, 100, 14))).shape
        torch.Size([1, 100])
    """

    def __init__(
        self,
        volumes: Sequence[Readable],
        encoder: nn.Module | None,
        grid: Quantics | None = None,
        *,
        padding: Literal["zero", "encode"] = "zero",
        chunk: int | None = None,
        remember: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        self.volumes, self.encoder, self.grid = tuple(volumes), encoder, grid
        self.padding, self.chunk, self.remember, self.dtype = padding, chunk, remember, dtype
        self.shape = _common_shape(self.volumes)
        self._n_dims = self.volumes[0].channels if encoder is None else _number(encoder, "n_dims")
        self._size = 1 if encoder is None else _number(encoder, "receptive_field")
        # Far outside, all cubes are empty, so one extra code along an axis represents them all.
        self._scales = tuple(getattr(encoder, "scales", (1,)))
        margin = self._size // 2 * max(self._scales) + 1 if padding == "encode" else 0
        self._extent = tuple(size + margin for size in self.shape)
        self._grid_of_all = (len(self.volumes), *self._extent)
        self._outside = math.prod(self._grid_of_all)
        self.sizes = sizes_of(self.shape, self._n_dims, grid)
        self._check()
        self.asked = self.encoded = 0
        self._wanted: list[np.ndarray] | None = None
        self.forget()

    def forget(self) -> None:
        """Clear the vectors stored by `remember`."""
        # Sorted, with the key of all outside positions, and a last one above all keys.
        # The first row of the table, of zeros, belongs to the outside.
        self._known = np.array([self._outside, np.iinfo(np.int64).max])
        self._row = np.zeros(2, np.int64)
        self._table: Tensor | None = None
        self._state: tuple[Any, ...] = ()

    def __call__(self, indices: Tensor) -> Tensor:
        """Values `(K, n)` at int64 multi-indices `(K, n, d)`."""
        # Positions are processed on the CPU, where volumes are read; vectors stay on the encoder's
        # device.
        sites = indices if indices.is_cpu else indices.cpu()
        check_indices(sites, len(self.volumes), self.sizes)
        self.asked += sites.shape[0] * sites.shape[1]
        keys, channel = self._keys(sites)
        keys, inverse = np.unique(keys, return_inverse=True)
        if self._wanted is not None:
            self._wanted.append(keys)
        table, rows = self._vectors(keys)
        place = rows[inverse.reshape(channel.shape)] * self._n_dims + channel
        values = table.flatten()[torch.from_numpy(place).to(table.device)]
        return values.to(indices.device, self.dtype)

    def vectors(self, positions: Tensor) -> Tensor:
        """Vectors `(K, m, n_dims)` at int64 positions `(K, m, D)` inside the volumes."""
        at = positions.cpu().numpy()
        self.asked += at.shape[0] * at.shape[1] * self._n_dims
        keys, inverse = np.unique(self._key(at), return_inverse=True)
        table, rows = self._vectors(keys)
        rows = torch.from_numpy(rows[inverse.reshape(at.shape[:2])]).to(table.device)
        return table[rows].to(positions.device, self.dtype)

    @property
    def padded(self) -> tuple[int, ...]:
        """Sizes of the axes with their padding."""
        return self.shape if self.grid is None else self.grid.padded

    def indices(self, positions: Tensor) -> Tensor:
        """Multi-indices `(m p, d)` of all p channels at positions `(m, D)`.

        In a quantics grid positions and channels may lie in the padding.
        """
        n_channels = self._n_dims if self.grid is None else self.grid.padded_channels
        at = positions.repeat_interleave(n_channels, 0)
        if n_channels > 1:
            channel = torch.arange(n_channels, device=positions.device)
            at = torch.cat([at, channel.repeat(len(positions))[:, None]], 1)
        return at if self.grid is None else self.grid.sites(at)

    def mark(self) -> None:
        """Begin the list of positions that `read` returns."""
        self._wanted = []

    def read(self) -> tuple[Tensor, Tensor]:
        """Vectors in memory of the distinct positions requested since `mark`.

        Returns:
            The vectors, `(M, n_dims)`, and the volume of each, int64 `(M,)`.
        """
        keys = np.unique(np.concatenate([np.zeros(0, np.int64), *(self._wanted or ())]))
        keys = keys[keys != self._outside]
        table, rows = self._vectors(keys)
        owner = torch.from_numpy(keys // math.prod(self._extent)).to(table.device)
        return table[torch.from_numpy(rows).to(table.device)], owner

    def _keys(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """One integer per volume and position, sorted by volume, and the channel, `(K, n)`."""
        coords = (indices if self.grid is None else self.grid.coords(indices)).numpy()
        at = coords[..., : len(self.shape)]
        channel = coords[..., -1] if self._n_dims > 1 else np.zeros_like(at[..., 0])
        # Channels are also padded to a power of two.
        inside = channel < self._n_dims
        channel = np.where(inside, channel, 0)
        extent = np.array(self._extent)
        if self.padding == "encode":
            empty = extent - 1  # its cube begins after the last voxel
            at = np.where((at >= empty).any(-1, keepdims=True), empty, at)
        else:
            inside &= (at < extent).all(-1)
            at = np.where(inside[..., None], at, 0)
        return np.where(inside, self._key(at), self._outside), channel

    def _key(self, at: np.ndarray) -> np.ndarray:
        """One integer `(K, n)` for volume and position `(K, n, D)`, sorted by volume."""
        owner = np.arange(len(at)).reshape(-1, 1)
        return np.ravel_multi_index((owner, *np.moveaxis(at, -1, 0)), self._grid_of_all)

    def _vectors(self, keys: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """A table of vectors `(r, n_dims)`, and the rows of distinct, sorted `keys` `(m,)`."""
        state = _state(self.encoder) if self.remember else ()
        if not self.remember or state != self._state or self._table is None:
            self.forget()
        new = keys[self._known[np.searchsorted(self._known, keys)] != keys]
        fresh, old = self._encode(new), self._table
        if old is None or len(old) == 1:  # only the outside: use the encoder's device
            old = fresh.new_zeros(1, self._n_dims)
        table = torch.cat([old, fresh]) if len(new) else old
        place = np.searchsorted(self._known, new)
        known = np.insert(self._known, place, new)
        rows = np.insert(self._row, place, np.arange(len(old), len(table)))
        if self.remember:
            self._known, self._row, self._table, self._state = known, rows, table, state
        return table, rows[np.searchsorted(known, keys)]

    def _encode(self, keys: np.ndarray) -> Tensor:
        self.encoded += len(keys)
        if len(keys) == 0:
            return torch.zeros(0, self._n_dims, dtype=self.dtype, device="cpu")
        if self.chunk is None or len(keys) <= self.chunk:
            return self._embed(self._read(keys))
        cubes = Prefetch(self._read, np.split(keys, range(self.chunk, len(keys), self.chunk)))

        def embed(part: Tensor) -> Tensor:
            return self._embed(cubes(part[0].numpy()))[None]

        return chunked(embed, self.chunk)(torch.from_numpy(keys)[None])[0]

    def _read(self, keys: np.ndarray) -> Tensor:
        """Cubes `(m, c, s, ..., s)` at the positions of `keys` `(m,)`."""
        owner, *at = np.unravel_index(keys, self._grid_of_all)
        owner, centers = torch.from_numpy(owner), torch.from_numpy(np.stack(at, -1))
        return read_cubes(self.volumes, owner, centers, size=self._size, strides=self._scales)

    def _embed(self, cubes: Tensor) -> Tensor:
        """Vectors `(m, n_dims)` of cubes."""
        if self.encoder is None:
            return cubes.flatten(1).to(self.dtype)
        return self.encoder(cubes.to(next(self.encoder.parameters(), cubes).device))

    def _check(self) -> None:
        check_reading("VolumeEntries", self.padding, self.chunk)
        grid = self.grid
        if grid is not None and (grid.shape, grid.channels) != (self.shape, self._n_dims):
            raise ValueError(
                f"VolumeEntries needs a grid for shape {self.shape} and {self._n_dims} channels, "
                f"got {grid!r}; use Quantics({self.shape}, channels={self._n_dims})."
            )
        n_channels = getattr(self.encoder, "in_channels", self.volumes[0].channels)
        if n_channels != self.volumes[0].channels:
            raise ValueError(
                f"VolumeEntries needs an encoder for the {self.volumes[0].channels} contrasts of "
                f"the volumes, got one for {n_channels}; set its `in_channels`."
            )
        if len(self.volumes) * math.prod(self._extent) >= 2**62:
            raise ValueError(
                "VolumeEntries needs fewer than 2^62 voxels in a batch, got "
                f"{len(self.volumes)} volumes of shape {self.shape}; use a smaller batch."
            )


def sizes_of(shape: tuple[int, ...], n_dims: int, grid: Quantics | None) -> tuple[int, ...]:
    """Sizes of the sites of encoded volumes."""
    if grid is not None:
        return grid.sizes
    return shape if n_dims == 1 else (*shape, n_dims)


def _common_shape(volumes: tuple[Readable, ...]) -> tuple[int, ...]:
    kinds = {(tuple(volume.shape), volume.channels) for volume in volumes}
    if len(kinds) != 1:
        raise ValueError(
            "VolumeEntries needs one or more volumes of one shape and number of channels, got "
            f"{sorted(kinds) or 'none'}; resample them, or create one for each kind."
        )
    return kinds.pop()[0]


def _number(encoder: nn.Module, name: str) -> int:
    number = getattr(encoder, name, None)
    if not isinstance(number, int):
        raise ValueError(
            f"VolumeEntries needs an encoder with an integer `{name}`, got "
            f"{type(encoder).__name__} with {number!r}; set it as an attribute."
        )
    return number


def _state(encoder: nn.Module | None) -> tuple[Any, ...]:
    """A value that changes whenever stored vectors may be outdated, or lack a gradient."""
    if encoder is None:
        return ()
    tensors = [*encoder.parameters(), *encoder.buffers()]
    return (
        torch.is_grad_enabled(),
        encoder.training,
        *((id(tensor), tensor._version, tensor.requires_grad) for tensor in tensors),
    )
