"""Answers to the exercises of part Foundations: exercise, answer, what it is about, hint."""

import math

import torch

from cpic.data import gaussians
from cpic.tt import Quantics, TensorTrain, cross, tt_svd

LINE = torch.eye(6)
TRAIN = TensorTrain([torch.arange(1.0, 4.0).view(1, 1, 3, 1), torch.ones(1, 1, 2, 1)])
SPECTRA = (torch.tensor([1.0, 0.09, 0.05, 0.04, 0.01]), torch.tensor([1.0, 0.09, 0.06, 0.01, 0.0]))

TALL = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
COEFFS = torch.linalg.solve(TALL[:2], TALL, left=False)
BOX = torch.randn(1, 5, 6, 7, generator=torch.Generator().manual_seed(0))
WIDE, PLAIN = tt_svd(BOX, max_rank=4), tt_svd(BOX, max_rank=2).scale(0.5)
CURVES = torch.cos(0.3 * torch.arange(64).double()) ** 2, torch.ones(64)
STEPS = (torch.arange(16)[None] < torch.arange(1, 16)[:, None]).double()
VOLUME = gaussians((64, 64, 64), n=2)


def on_grid(base, **options):
    grid = Quantics(VOLUME.shape, base=base)
    entries = grid.entries(VOLUME.voxels)
    generator = torch.Generator().manual_seed(0)
    kind = {"dtype": torch.float64, "generator": generator}
    return grid, cross(entries, grid.sizes, **kind, **options)


W = torch.arange(20.0).view(5, 4).sin() + torch.eye(5, 4)
_U, _S, _V = torch.linalg.svd(W, full_matrices=False)
BLOCK = torch.zeros(3, 4, 5)
BLOCK[1:, :2, 2:] = 0.7
BINARY = tt_svd((BLOCK > 0.5).double()[None])
CASES = [
    ("ex-low-rank-gradient", 2 * _S[3] * _U[:, 3:] @ _V[3:], W, ""),
    ("ex-low-rank-gradient", _S[3] * _U[:, 3:] @ _V[3:], W, "half of it"),
    ("ex-low-rank-gradient", 2 * W, W, "of all singular values"),
    ("ex-low-rank-gradient", W, W, "but the first three"),
    ("ex-low-rank-gradient", 1.0, W, "a matrix of (5, 4)"),
    ("ex-tt-contrast", BINARY, BLOCK, ""),
    ("ex-tt-contrast", tt_svd(BLOCK.double()[None]), BLOCK, "is 30%"),
    ("ex-tt-contrast", BLOCK, BLOCK, "a batch of one train"),
    ("ex-low-rank-storage", 256, (512, 512), ""),
    ("ex-low-rank-storage", torch.tensor(256.0), (512, 512), ""),
    ("ex-low-rank-storage", 255, (512, 512), "still take fewer"),
    ("ex-low-rank-storage", 258, (512, 512), "one rank lower"),
    ("ex-low-rank-storage", "many", (512, 512), "is a number"),
    ("ex-low-rank-shear", LINE[:, [0] * 6] * 0 + (torch.arange(6) == 2), LINE, ""),
    ("ex-low-rank-shear", LINE.flip(0), LINE, "the rank is 6"),
    ("ex-low-rank-shear", torch.ones(6, 6), LINE, "lost or invented"),
    ("ex-low-rank-shear", torch.ones(2), LINE, "an image of (6, 6)"),
    ("ex-tt-mean", 2.0, TRAIN, ""),
    ("ex-tt-mean", 12.0, TRAIN, "this is the sum"),
    ("ex-tt-mean", 2.1, TRAIN, "differs from the mean"),
    ("ex-tt-mean", None, TRAIN, "one number"),
    ("ex-tt-choose", [2, 2], SPECTRA, ""),
    ("ex-tt-choose", [1, 1], SPECTRA, "squares of errors add"),
    ("ex-tt-choose", [5, 5], SPECTRA, "could have a lower rank"),
    ("ex-tt-choose", [2], SPECTRA, "each of the 2 bonds"),
    ("ex-tt-choose", None, SPECTRA, "each of the 2 bonds"),
    ("ex-tt-mean", math.nan, TRAIN, "differs from the mean"),
    ("ex-low-rank-storage", math.nan, (512, 512), "still take fewer"),
    ("ex-cross-predict", 4 * 2 + 2 * 5 * 2 + 2 * 3, ((4, 5, 3), 2), ""),
    ("ex-cross-predict", 48, ((4, 5, 3), 2), "on one side only"),
    ("ex-cross-predict", 60, ((4, 5, 3), 2), "one fiber for each pair"),
    ("ex-cross-predict", "34", ((4, 5, 3), 2), ""),
    ("ex-cross-predict", None, ((4, 5, 3), 2), "one number"),
    ("ex-cross-swap", COEFFS, TALL, ""),
    ("ex-cross-swap", -COEFFS.abs(), TALL, ""),
    ("ex-cross-swap", TALL, TALL, "the volume grows by"),
    ("ex-cross-swap", COEFFS * math.nan, TALL, "the volume grows by"),
    ("ex-cross-swap", COEFFS.mT, TALL, "3 rows of 2 coefficients"),
    ("ex-cross-round", WIDE.round(max_rank=2), (BOX, PLAIN), ""),
    ("ex-cross-round", WIDE, (BOX, PLAIN), "its rank is 4"),
    ("ex-cross-round", PLAIN, (BOX, PLAIN), "search at a higher rank first"),
    ("ex-cross-round", BOX, (BOX, PLAIN), "a train of sizes (5, 6, 7)"),
    ("ex-quantics-code-1", [3, 1], CURVES, ""),
    ("ex-quantics-code-1", [3, 2], CURVES, "curve 2 has another rank"),
    ("ex-quantics-code-1", 3, CURVES, "each of the 2 curves"),
    ("ex-quantics-code-2", on_grid(8, tol=1e-7), VOLUME, ""),
    ("ex-quantics-code-2", on_grid(8, rank=1), VOLUME, "search to 1e-6"),
    ("ex-quantics-code-2", on_grid(2, rank=1), VOLUME, "sizes [2]"),
    ("ex-quantics-code-2", 0.7, VOLUME, "the answer is a pair"),
    ("ex-quantics-code-3", 2, STEPS, ""),
    ("ex-quantics-code-3", 3, STEPS, "another rank"),
    ("ex-quantics-code-3", 2, STEPS[:4], "a step has 15 positions"),
    ("ex-quantics-code-3", "two", STEPS, "one number"),
]
