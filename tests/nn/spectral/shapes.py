"""Layer shapes of published networks, as (weight, has a bias), with numbers besides them."""

from itertools import pairwise


def discriminator(blocks, width):
    """Blocks of two convolutions, (in, out, whether a 1x1 shortcut), then a linear layer."""
    weights, rest = [], 0
    for k, (before, after, shortcut) in enumerate(blocks):
        hidden = after if k == 0 else before
        convolutions = [(hidden, before, 3, 3), (after, hidden, 3, 3)]
        if shortcut:
            convolutions.append((after, before, 1, 1))
        weights += convolutions
        rest += sum(size[0] for size in convolutions)
    return [*weights, (1, width)], rest


def discriminator_32(width=128):
    return discriminator(
        [(3, width, True), (width, width, True)] + 2 * [(width, width, False)], width
    )


def discriminator_48(width=1024):
    widths = [width // 16, width // 8, width // 4, width // 2, width]
    blocks = [
        (3, widths[0], True),
        *((a, b, True) for a, b in pairwise(widths)),
    ]
    return discriminator(blocks, width)


def generator_32(width=256, noise=128, bottom=4):
    """The layer after the noise is not parametrized; batch norms have 4 numbers a channel."""
    first = bottom**2 * width
    weights, rest = [], first * noise + first
    for _ in range(3):
        weights += [(width, width, 3, 3), (width, width, 3, 3), (width, width, 1, 1)]
        rest += 3 * width + 2 * 4 * width
    weights.append((3, width, 3, 3))
    return weights, rest + 3 + 4 * width


def wide_resnet(depth=28, factor=10, classes=10):
    widths = [16 * factor, 32 * factor, 64 * factor]
    weights, rest, before = [(16, 3, 3, 3)], 16, 16
    for width in widths:
        for _ in range((depth - 4) // 6):
            weights += [(width, before, 3, 3), (width, width, 3, 3)]
            rest += 2 * width + 4 * before + 4 * width
            if before != width:
                weights.append((width, before, 1, 1))
                rest += width
            before = width
    weights.append((classes, before))
    return weights, rest + 4 * before + classes
