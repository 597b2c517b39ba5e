"""What a model needs of a volume."""

from typing import Protocol

from torch import Tensor


class Shaped(Protocol):
    """Shape and channels of a volume."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial sizes."""
        ...

    @property
    def channels(self) -> int:
        """Values at a position."""
        ...


class Readable(Shaped, Protocol):
    """The part of the interface of volumes that is used here."""

    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        """Cubes `(n, c, size, ..., size)` around int64 `centers` `(n, D)`, zero padded."""
        ...
