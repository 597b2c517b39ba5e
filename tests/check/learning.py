"""Answers to the exercises of part Learning: exercise, answer, what it is about, hint."""

from typing import Any

import nibabel
import numpy as np
import torch


def likelihood(low, middle, high, measured, floor=70, most=1000):
    sigma = (high - low).clamp(min=floor)
    delta = (middle - measured).abs().clamp(max=most)
    return (-(2**0.5) * delta / sigma - (2**0.5 * sigma).log()).mean()


def minmax(values):
    return (values - values.min()) / (values.max() - values.min())


def score(factor):
    return -((factor - 0.7) ** 2)


LABELS, AFFINE = np.arange(24.0).reshape(4, 3, 2), np.diag([-1.0, -1.0, 2.0, 1.0])
MIRRORED = np.diag([1.0, -1.0, 2.0, 1.0])
MIRRORED[0, 3] = -3.0
SHIFTED = np.diag([1.0, -1.0, 2.0, 1.0])
IMAGE = nibabel.Nifti1Image(LABELS, AFFINE)
CHEST = torch.linspace(-1000, 400, 4096).view(16, 16, 16)
TARGET = torch.linspace(-1.5, 1.5, 21)
FEATURES = (torch.tensor([100.0, 101.0, 102.0]), torch.tensor([4.0, 6.0, 8.0]))  # 101 and 3
PIECES = [{"train": ["b", "c"], "validation": ["a"]}, {"train": ["a"], "validation": ["b", "c"]}]
LEVELS = torch.tensor([0.2, 0.5, 0.8])
VISITS = (torch.linspace(0, 1, 101), LEVELS)
ROWS = ({"MB": 1800.0}, {"MB": 600.0})
CHUNKS = ({8: 16000, 32: 2000, 128: 1000}, 0.5)

CASES: list[tuple[str, Any, Any, str]] = [
    ("ex-data-grid", 239 / 154, ((240, 240, 155), 256), ""),
    ("ex-data-grid", 154 / 239, ((240, 240, 155), 256), "relative to z"),
    ("ex-data-grid", 1.0, ((240, 240, 155), 256), "compare the voxel sizes"),
    ("ex-data-grid", "more", ((240, 240, 155), 256), "one number"),
    ("ex-data-mlll", likelihood, None, ""),
    ("ex-data-mlll", lambda *a: -likelihood(*a), None, "the signs"),
    ("ex-data-mlll", lambda *a: likelihood(*a, floor=0), None, "below 70 ml"),
    ("ex-data-mlll", lambda *a: likelihood(*a, most=10**9), None, "above 1000 ml"),
    ("ex-data-mlll", lambda low: low, None, "raised TypeError"),
    ("ex-data-mlll", -5.6, None, "a function of low"),
    ("ex-data-flip", nibabel.Nifti1Image(LABELS[::-1], MIRRORED), IMAGE, ""),
    ("ex-data-flip", nibabel.Nifti1Image(LABELS[::-1], AFFINE), IMAGE, "are swapped"),
    ("ex-data-flip", nibabel.Nifti1Image(LABELS[::-1], SHIFTED), IMAGE, "up to 3 mm"),
    ("ex-data-flip", nibabel.Nifti1Image(LABELS[:, ::-1], MIRRORED), IMAGE, "first axis reversed"),
    ("ex-data-flip", LABELS, IMAGE, "an image of nibabel"),
    ("ex-data-metal", lambda x: (x.clamp(-1000, 600) + 1000) / 1600, CHEST, ""),
    ("ex-data-metal", lambda x: x / x.flatten().quantile(0.9), CHEST, ""),
    ("ex-data-metal", minmax, CHEST, "34% of the contrast"),
    ("ex-data-metal", lambda x: x, CHEST, "nothing is scaled"),
    ("ex-data-metal", lambda x: x * 0, CHEST, "no contrast"),
    ("ex-data-metal", lambda x: x.mean(), CHEST, "of the shape of the scan"),
    ("ex-data-metal", None, CHEST, "raised TypeError"),
    ("ex-cpic-histogram", TARGET + 0.1, TARGET, ""),
    ("ex-cpic-histogram", TARGET * 0, TARGET, "the error is 1.00"),
    ("ex-cpic-histogram", TARGET.clone(), TARGET, "the targets themselves"),
    ("ex-cpic-histogram", TARGET[:3], TARGET, "a tensor of 21 predictions"),
    ("ex-cpic-center", 101 / 3, FEATURES, ""),
    ("ex-cpic-center", 3 / 101, FEATURES, "the other way around"),
    ("ex-cpic-center", 101 / 6, FEATURES, "divide each by the standard"),
    ("ex-cpic-center", 3, FEATURES, "another factor"),
    ("ex-cpic-center", [1, 2], FEATURES, "one number"),
    ("ex-brats-batch", 203.1, 180, ""),
    ("ex-brats-batch", 159.5, 180, "the mean of roots"),
    ("ex-brats-batch", 180, 180, "simulate many"),
    ("ex-brats-batch", float("nan"), 180, "simulate many"),
    ("ex-brats-batch", None, 180, "one number"),
    ("ex-brats-folds", {"a": 1, "b": 1, "c": 1}, PIECES, ""),
    ("ex-brats-folds", {"a": 1, "b": 2, "c": 1}, PIECES, "the number of b"),
    ("ex-brats-folds", {"a": 1}, PIECES, "it has 1 patients"),
    ("ex-brats-folds", ["a", "b", "c"], PIECES, "a dict or Counter"),
    ("ex-osic-ml", 1.197, (-6.73, -6.91), ""),
    ("ex-osic-ml", 0.835, (-6.73, -6.91), "the smaller error"),
    ("ex-osic-ml", 18, (-6.73, -6.91), "which function"),
    ("ex-osic-ml", "more", (-6.73, -6.91), "one number"),
    ("ex-osic-quantile", LEVELS, VISITS, ""),
    ("ex-osic-quantile", [0.2, 0.6, 0.8], VISITS, "at level 0.5 a smaller"),
    ("ex-osic-quantile", [0.1, 0.5, 0.8], VISITS, "at level 0.2 a larger"),
    ("ex-osic-quantile", 0.5, VISITS, "3 constants"),
    ("ex-osic-percent", TARGET + 1e-5, TARGET, ""),
    ("ex-osic-percent", 2 * TARGET, TARGET, "the largest error is 1.5"),
    ("ex-osic-percent", 1.0, TARGET, "a tensor of 21"),
    ("ex-osic-rescale", 0.7, score, ""),
    ("ex-osic-rescale", 1.0, score, "narrower distances"),
    ("ex-osic-rescale", 0.5, score, "wider distances"),
    ("ex-osic-rescale", -1, score, "one positive number"),
    ("ex-costs-batch", 2 / 3, ROWS, ""),
    ("ex-costs-batch", 1 / 3, ROWS, "that is left"),
    ("ex-costs-batch", 66.7, ROWS, "between 0 and 1"),
    ("ex-costs-batch", 1200, ROWS, "compare the MB"),
    ("ex-costs-batch", ROWS, ROWS, "one number"),
    ("ex-costs-price", (0.144, 1.728), 0.104, ""),
    ("ex-costs-price", (0.5, 1.728), 0.104, "the first number"),
    ("ex-costs-price", (0.144, 5), 0.104, "the GPU costs 0.42 euros"),
    ("ex-costs-price", 0.144, 0.104, "two numbers"),
    ("ex-scale-double", (600, 2400), (10, 20), ""),
    ("ex-scale-double", (600, 1200), (10, 20), "rank 20"),
    ("ex-scale-double", 600, (10, 20), "2 numbers"),
    ("ex-scale-chunk", (32, 8), CHUNKS, ""),
    ("ex-scale-chunk", (8, 8), CHUNKS, "network: another edge"),
    ("ex-scale-chunk", (32, 128), CHUNKS, "disk: another edge"),
    ("ex-scale-chunk", (32, 7), CHUNKS, "two of the edges 8, 32, 128"),
    ("ex-scale-lru", (0, 40, 1800), 1800, ""),
    ("ex-scale-lru", (0, 1000, 1800), 1800, "a cache of 50%"),
    ("ex-scale-lru", (0, 40, 1700), 1800, "a cache of all"),
    ("ex-scale-lru", (0, 800, 1800), 1800, "before they are evicted"),
    ("ex-scale-lru", 1800, 1800, "three numbers"),
]
