"""Windows of an image that is decoded tile by tile, never as a whole unless its format requires it.

An image is a grid of tiles of one size. A read decodes each distinct tile that its windows touch
at most once (if the cache can hold those of a block of windows), and pixels outside are 0.

Shapes: `n` windows, `c` channels, `h`, `w` sizes of a window in pixels.
"""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError, VolumeError
from cpic._trust import DAMAGED, DoubtError

Faults = Literal["raise", "skip", "blank"]
# Types of stored pixels, and those of the result: torch cannot index uint16.
_TYPES = {"uint8": np.uint8, "uint16": np.int32, "float32": np.float32}
# What one tile may need in memory; a file may declare anything.
MOST_TILE_BYTES = 2**30
# Pixels of the windows that are gathered at once.
_BLOCK_PIXELS = 2**22
_BROKEN = (*DAMAGED, OSError, SyntaxError, DoubtError)


class Fault(NamedTuple):
    """A tile that cannot be decoded: its row and column in the grid of tiles, and the reason."""

    row: int
    column: int
    reason: str


@dataclass
class Decoded:
    """What reading an image has cost so far.

    Attributes:
        asked: Pixels of all windows, duplicates and padding included.
        pixels: Pixels of the decoded tiles, inside the image.
        bytes: Stored bytes of these tiles.
        tiles: Decoded tiles.
    """

    asked: int = 0
    pixels: int = 0
    bytes: int = 0
    tiles: int = 0


class Image:
    """Base class of the readers; use `open_image`, or one of them directly.

    Attributes:
        path: The file, or its address; empty for arrays.
        shape: Height and width in pixels at `level`.
        channels: Values of a pixel, 1 to 4.
        dtype: Of the results: uint8, int32 (16-bit pixels) or float32.
        tile: Height and width of a tile, the unit of decoding.
        level: Index among the stored levels of a pyramid; 0 is the finest.
        levels: Height and width of every stored level.
        mpp: Micrometers per pixel at `level`; None if unknown.
        ledger: What has been decoded.
        faults: Tiles that cannot be decoded, if the policy is not "raise".
    """

    path: str | os.PathLike = ""
    _given: tuple[tuple, dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        made._given = args, options
        return made

    def __init__(self, *, faults: Faults = "raise", cache_bytes: int = 2**26) -> None:
        if faults not in get_args(Faults):
            raise ImageError(f'an image needs faults= "raise", "skip" or "blank", got {faults!r}.')
        self.policy, self.cache_bytes = faults, cache_bytes
        self.ledger = Decoded()
        self.faults: list[Fault] = []
        self.level, self.mpp = 0, None
        self._bad: set[int] = set()
        self._held: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._turn = threading.RLock()

    def __getstate__(self) -> dict:
        # Workers open the file again; arrays are copied.
        return {"given": self._given, "ledger": self.ledger, "faults": self.faults}

    def __setstate__(self, state: dict) -> None:
        self._given = args, options = state["given"]
        type(self).__init__(self, *args, **options)
        self.ledger, self.faults = state["ledger"], state["faults"]

    def _declare(
        self,
        shape: tuple[int, ...],
        channels: int,
        stored: np.dtype,
        tile: tuple[int, ...],
        levels: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        """Check what a file declares before any pixel is read."""
        kind = np.dtype(stored).newbyteorder("=")
        if kind.name not in _TYPES:
            raise ImageError(
                f"{self._called} has pixels of {stored}; an image needs uint8, uint16 or float32."
            )
        if not 1 <= channels <= 4:
            raise ImageError(f"{self._called} has {channels} channels; an image needs 1 to 4.")
        if min(shape) < 1 or min(tile) < 1:
            raise ImageError(f"{self._called} declares the sizes {shape} in tiles of {tile}.")
        n_bytes = math.prod(tile) * channels * kind.itemsize
        if n_bytes > MOST_TILE_BYTES:
            raise ImageError(
                f"{self._called} has tiles of {tile[0]}x{tile[1]} pixels, {n_bytes:,} bytes each; "
                "save it as a tiled TIFF, with tiles of 256x256."
            )
        self.shape, self.channels = (int(shape[0]), int(shape[1])), int(channels)
        self.tile, self._stored = (int(tile[0]), int(tile[1])), kind
        self.dtype = torch.from_numpy(np.zeros(1, _TYPES[kind.name])).dtype
        self.levels = levels or (self.shape,)
        self._grid = tuple(-(-n // edge) for n, edge in zip(self.shape, self.tile, strict=True))

    @property
    def downsample(self) -> tuple[float, float]:
        """Pixels of level 0 per pixel, along height and width."""
        (h, w), (height, width) = self.levels[0], self.shape
        return h / height, w / width

    def read(self, corners: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Read windows; pixels outside the image, and those of corrupt tiles, are 0.

        Args:
            corners: (n, 2), int64, row and column of the first pixel; may lie anywhere.
            size: Height and width of a window.

        Returns:
            (n, c, h, w), `dtype`, on the CPU; no gradient.

        Raises:
            ImageError: If the arguments have another form, a file cannot be read, or a tile cannot
                be decoded and the policy is "raise".
        """
        return self._read(corners, size)[0]

    def _read(self, corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
        """Windows, and which of them touch a corrupt tile (n,)."""
        if corners.ndim != 2 or corners.shape[1] != 2 or corners.dtype != torch.int64:
            raise ImageError(
                f"read needs int64 corners (n, 2), got {corners.dtype} {tuple(corners.shape)}."
            )
        if len(size) != 2 or min(size) < 1:
            raise ImageError(f"read needs size=(height, width) of at least 1, got {size}.")
        low = corners.cpu().numpy()
        n, pixels = len(low), math.prod(size)
        out = np.zeros((n, *size, self.channels), self._stored)
        bad = np.zeros(n, bool)
        # Neighbors come together, so that each tile is decoded for one block, or the next one.
        order = np.lexsort((low[:, 1] // self.tile[1], low[:, 0] // self.tile[0]))
        spans = [-(-length // edge) + 1 for length, edge in zip(size, self.tile, strict=True)]
        tile_bytes = math.prod(self.tile) * self.channels * self._stored.itemsize
        n_held = self.cache_bytes // (math.prod(spans) * tile_bytes)
        n_block = max(1, min(_BLOCK_PIXELS // pixels, n_held))
        with self._turn:
            for start in range(0, n, n_block):
                rows = order[start : start + n_block]
                out[rows], bad[rows] = self._windows(low[rows], size, spans)
            self.ledger.asked += n * pixels
        if self._stored.kind == "f" and not np.isfinite(out).all():
            raise ImageError(f"{self._called} has NaN or infinite pixels; replace them.")
        values = out.astype(_TYPES[self._stored.name], copy=False)
        return torch.from_numpy(values).movedim(-1, 1), bad

    def _windows(
        self, low: np.ndarray, size: tuple[int, int], spans: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Windows (n, h, w, c) of one block, and which touch a corrupt tile."""
        at, inside, first, cells = [], [], [], []
        for axis, (length, n_pixels, edge) in enumerate(
            zip(size, self.shape, self.tile, strict=True)
        ):
            places = low[:, axis, None] + np.arange(length)
            inside.append((places >= 0) & (places < n_pixels))
            places = places.clip(0, n_pixels - 1)
            first.append(places[:, 0] // edge)
            cells.append(
                (first[-1][:, None] + np.arange(spans[axis])).clip(max=places[:, -1:] // edge)
            )
            at.append(places)
        meets = inside[0].any(1) & inside[1].any(1)
        ids = cells[0][:, :, None] * self._grid[1] + cells[1][:, None]
        wanted = np.unique(ids[meets])
        if not len(wanted):
            return np.zeros((len(low), *size, self.channels), self._stored), np.zeros(
                len(low), bool
            )
        tiles = [self._tile(number) for number in wanted.tolist()]
        stack = np.stack(tiles) if len(tiles) > 1 else tiles[0][None]
        slots = np.searchsorted(wanted, ids).clip(max=len(wanted) - 1)
        bad = meets & np.isin(wanted, list(self._bad))[slots].any((1, 2))
        if size == self.tile and meets.all() and not (low % self.tile).any():
            return stack[slots[:, 0, 0]], bad
        # (n, h, w): the tile of each pixel, then its place there.
        steps = [(a // edge) - f[:, None] for a, edge, f in zip(at, self.tile, first, strict=True)]
        n = np.arange(len(low))[:, None, None]
        index = slots[n, steps[0][:, :, None], steps[1][:, None]] * math.prod(self.tile)
        index += (at[0] % self.tile[0] * self.tile[1])[:, :, None]
        index += (at[1] % self.tile[1])[:, None]
        out = stack.reshape(-1, self.channels).take(index, axis=0)
        if not (inside[0].all() and inside[1].all()):
            out *= (inside[0][:, :, None] & inside[1][:, None])[..., None]
        return out, bad

    def _tile(self, number: int) -> np.ndarray:
        """A decoded tile (*tile, c), 0 beyond the image; all of it if it is corrupt."""
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        row, column = divmod(number, self._grid[1])
        height, width = (
            min(edge, n - k * edge)
            for k, edge, n in zip((row, column), self.tile, self.shape, strict=True)
        )
        tile = np.zeros((*self.tile, self.channels), self._stored)
        try:
            values, n_bytes = self._decode(row, column)
            if values.shape[0] < height or values.shape[1] < width or values.ndim != 3:
                raise DoubtError(f"has only {values.shape} values")
            if values.shape == tile.shape == (height, width, self.channels):
                tile = values.astype(self._stored, copy=False)
            else:
                tile[:height, :width] = values[:height, :width]
            self.ledger.bytes += n_bytes
            self.ledger.pixels += height * width
            self.ledger.tiles += 1
        except (*_BROKEN, VolumeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if self.policy == "raise":
                raise ImageError(
                    f"{self._called} cannot be decoded at tile ({row}, {column}) of {self._grid} "
                    f"of level {self.level} ({reason}); copy the file again, or pass "
                    'faults="blank" or "skip".'
                ) from error
            if (fault := Fault(row, column, reason)) not in self.faults:
                self.faults.append(fault)
            self._bad.add(number)
            tile = np.zeros((*self.tile, self.channels), self._stored)
        self._held[number] = tile
        while len(self._held) > max(1, self.cache_bytes // tile.nbytes):
            self._held.popitem(last=False)
        return tile

    def _decode(self, row: int, column: int) -> tuple[np.ndarray, int]:
        """The pixels (h, w, c) of a tile, possibly cropped to the image, and its stored bytes."""
        raise NotImplementedError

    @property
    def _called(self) -> str:
        return str(self.path or type(self).__name__)

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        tiles = "x".join(map(str, self.tile))
        return (
            f"{type(self).__name__}({self.shape[0]}x{self.shape[1]}, {self.channels} channels, "
            f"{kind}, tiles of {tiles}, level {self.level} of {len(self.levels)})"
        )
