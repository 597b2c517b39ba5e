"""Answers to the exercises of part Foundations: exercise, answer, what it is about, hint."""

import torch

from cpic.tt import TensorTrain

LINE = torch.eye(6)
TRAIN = TensorTrain([torch.arange(1.0, 4.0).view(1, 1, 3, 1), torch.ones(1, 1, 2, 1)])
SPECTRA = (torch.tensor([1.0, 0.09, 0.05, 0.04, 0.01]), torch.tensor([1.0, 0.09, 0.06, 0.01, 0.0]))

CASES = [
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
]
