"""Canvases of megapixel MNIST, and an encoder of digits, for the scripts of this folder."""

import functools
import tempfile

import torch
from torch import Tensor, nn

from cpic.images import Canvas, MegapixelMNIST, load, make_megapixel_mnist
from cpic.nn import ips

PATCH, STROKES, WIDTH = 28, 6, 64


def halved(pixels: Tensor) -> Tensor:
    """Means over 2x2 pixels, from 0 to 1."""
    return nn.functional.avg_pool2d(pixels.float() / 255, 2)


@functools.cache
def made(
    side: int, seed: int, *, n_train: int, n_test: int
) -> tuple[MegapixelMNIST, MegapixelMNIST]:
    """The images of one seed."""
    sizes = {"width": side, "height": side, "n_noise": STROKES, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        return make_megapixel_mnist(folder, Canvas(n_train=n_train, n_test=n_test, **sizes))


def read(images: MegapixelMNIST) -> tuple[Tensor, Tensor]:
    """All patches of all images `(n, N, 1, 14, 14)`, and views of a quarter of their resolution."""
    patches, views = [], []
    for k in range(len(images)):
        source = images.source(k, patch=PATCH)
        patches.append(halved(source.read(torch.arange(len(source)))))
        views.append(images.image(k).thumbnail(tuple(size // 4 for size in images.shape)))
    return torch.stack(patches), torch.stack(views)


@functools.cache
def pretrained(seed: int, *, epochs: int = 6) -> ips.ConvEncoder:
    """An encoder that tells digits apart that lie anywhere in a window, or are cut by its edge."""
    torch.manual_seed(seed)
    encoder = ips.ConvEncoder(1, widths=(16, 32), n_dims=WIDTH)
    head, digits = nn.Linear(WIDTH, 10), load("digits")
    pixels = nn.functional.pad(digits.read(range(len(digits))), (14,) * 4)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels)).split(64):
            row, column = torch.randint(4, 25, (2,)).tolist()
            window = pixels[rows, :, row : row + PATCH, column : column + PATCH]
            loss = nn.functional.cross_entropy(head(encoder(halved(window))), digits.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder
