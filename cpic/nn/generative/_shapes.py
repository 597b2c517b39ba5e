"""Sizes of the published generators and discriminators, by the side of the image.

References: {cite}`miyato2018spectral`, {cite}`obukhov2021spectral`.
"""

from typing import NamedTuple


class Block(NamedTuple):
    """Divisors of the width before and after a residual block, and whether it changes the size."""

    before: int
    after: int
    resized: bool = True


class Shape(NamedTuple):
    """Sizes of a pair of networks.

    Attributes:
        g_width: Channels that the generator starts with.
        d_width: Channels that the discriminator ends with.
        bottom: Side of the first image of the generator.
        up: Blocks of the generator.
        down: Blocks of the discriminator after the first one, which reads the image.
    """

    g_width: int
    d_width: int
    bottom: int
    up: tuple[Block, ...]
    down: tuple[Block, ...]

    @property
    def stem(self) -> int:
        """Divisor of the width after the first block of the discriminator."""
        return self.down[0].before


_HALVING = (Block(16, 8), Block(8, 4), Block(4, 2))
_DOUBLING = (Block(1, 2), Block(2, 4), Block(4, 8))
_SAME, _KEPT = Block(1, 1), Block(1, 1, resized=False)
LATENT = 128
# 16 is not among the published ones: the network for 32, one stage less.
SHAPES = {
    16: Shape(256, 128, 4, (_SAME,) * 2, (_SAME, _KEPT)),
    32: Shape(256, 128, 4, (_SAME,) * 3, (_SAME, _KEPT, _KEPT)),
    48: Shape(512, 1024, 6, _DOUBLING, (*_HALVING, Block(2, 1, resized=False))),
    64: Shape(1024, 1024, 4, (*_DOUBLING, Block(8, 16)), (*_HALVING, Block(2, 1))),
    128: Shape(1024, 1024, 4, (_SAME, *_DOUBLING, Block(8, 16)), (*_HALVING, Block(2, 1), _KEPT)),
}


def shape_of(owner: str, size: int, *, width: int | None, which: str) -> tuple[Shape, int]:
    """The sizes for images of one side, and the width, which must divide as the blocks need.

    Raises:
        ValueError: If there are none of this side, or the width does not divide.
    """
    if size not in SHAPES:
        raise ValueError(f"{owner} needs images of side {', '.join(map(str, SHAPES))}, got {size}.")
    shape = SHAPES[size]
    width = (shape.g_width if which == "g" else shape.d_width) if width is None else width
    blocks = shape.up if which == "g" else shape.down
    most = max(max(one.before, one.after) for one in blocks)
    if width < 1 or width % most:
        raise ValueError(
            f"{owner} needs a width that is a multiple of {most} for images of side {size}, got "
            f"{width}; choose {max(1, round(width / most)) * most}."
        )
    return shape, width
