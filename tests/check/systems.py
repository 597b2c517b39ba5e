"""Answers to the exercises of part Systems: exercise, answer, what it is about, hint."""

from typing import Any

import torch

FRAME = -torch.eye(5, 2)
TILTED = torch.linalg.qr(torch.arange(10.0).view(5, 2) ** 2).Q
SCORES = torch.tensor([0.1, 0.3, 0.2, 0.3, 0.3, 0.0])  # three are tied
EXACT = torch.tensor([1.0, -2.0])
MAPS = torch.arange(12.0).view(1, 3, 4).sin()
COVARIANCE = torch.cov(MAPS[0].double(), correction=0)[None]
HEAD = torch.linspace(0, 1, 4096).view(16, 16, 16)
WAVES = 3 * HEAD.std() * 2**0.5 * torch.arange(4096.0).sin().view(16, 16, 16)
PRODUCT = torch.einsum("i,j,k->ijk", *torch.arange(1.0, 13).view(3, 4))

CASES: list[tuple[str, Any, Any, str]] = [
    ("ex-spectral-sign", FRAME, (5, 2), ""),
    ("ex-spectral-sign", -FRAME, (5, 2), "some signs"),
    ("ex-spectral-sign", TILTED, (5, 2), "one axis only"),
    ("ex-spectral-sign", 2 * FRAME, (5, 2), "not orthonormal"),
    ("ex-spectral-sign", FRAME.mT, (5, 2), "5 rows and 2 columns"),
    ("ex-spectral-stable", 4 / 3, None, ""),
    ("ex-spectral-stable", 2, None, "has squares"),
    ("ex-spectral-stable", 1.2, None, "geometric series"),
    ("ex-spectral-stable", "small", None, "one number"),
    ("ex-patches-logits", (8, 512), (250_000, 8, 512), ""),
    ("ex-patches-logits", (7.63, 488), (250_000, 8, 512), ""),
    ("ex-patches-logits", (2, 512), (250_000, 8, 512), "logits: this counts"),
    ("ex-patches-logits", (8, 8), (250_000, 8, 512), "embeddings: how many"),
    ("ex-patches-logits", 8, (250_000, 8, 512), "two numbers"),
    ("ex-patches-order", (torch.tensor([1, 3]), torch.tensor([4, 1])), SCORES, ""),
    ("ex-patches-order", ([1, 3], [0, 1]), SCORES, "before the shuffle?"),
    ("ex-patches-order", ([1, 2], [1, 2]), SCORES, "the largest scores"),
    ("ex-patches-order", ([1, 3], [1, 1]), SCORES, "at most once"),
    ("ex-patches-order", ([], []), SCORES, "at most once"),
    ("ex-patches-order", True, SCORES, "a pair"),
    ("ex-patches-order", ([1, 9], [1, 9]), SCORES, "a pair"),
    ("ex-patches-bias", (EXACT + 0.01, EXACT + 1), EXACT, ""),
    ("ex-patches-bias", (EXACT + 1, EXACT + 0.01), EXACT, "in the other order"),
    ("ex-patches-bias", (EXACT + 0.5, EXACT + 1), EXACT, "off by 0.50"),
    ("ex-patches-bias", (EXACT + 0.01, EXACT + 0.02), EXACT, "both agree"),
    ("ex-patches-bias", EXACT, EXACT, "a pair of gradients"),
    ("ex-patches-bias", None, EXACT, "a pair of gradients"),
    ("ex-covariance-guess", (2080, 32896, 14397), ((64, 256), 200), ""),
    ("ex-covariance-guess", (4096, 32896, 14397), ((64, 256), 200), "is symmetric"),
    ("ex-covariance-guess", (2080, 32000, 14397), ((64, 256), 200), "256 channels: count"),
    ("ex-covariance-guess", (2080, 32896, 32896), ((64, 256), 200), "these units"),
    ("ex-covariance-guess", 2080, ((64, 256), 200), "2 lengths"),
    ("ex-covariance-root", 2 / (3**11 - 1), 256, ""),
    ("ex-covariance-root", 2 * 0.6**11 / (1 - 0.6**11), 256, "the Frobenius norm"),
    ("ex-covariance-root", 0.1, 256, "by how much"),
    ("ex-covariance-root", None, 256, "one number"),
    ("ex-covariance-mask", COVARIANCE, MAPS, ""),
    ("ex-covariance-mask", COVARIANCE * 4 / 3, MAPS, ""),
    ("ex-covariance-mask", COVARIANCE / 2, MAPS, "up to a factor"),
    ("ex-covariance-mask", COVARIANCE + 0.1, MAPS, "positions outside"),
    ("ex-covariance-mask", MAPS, MAPS, "a covariance of shape (1, 3, 3)"),
    ("ex-budget-noise", (HEAD + WAVES, "random"), HEAD, ""),
    ("ex-budget-noise", (HEAD + WAVES, "grid"), HEAD, "'grid' is not"),
    ("ex-budget-noise", (HEAD + WAVES / 3, "random"), HEAD, "the noise has 1 times"),
    ("ex-budget-noise", "random", HEAD, "a pair"),
    ("ex-budget-rank", (PRODUCT, "cross-square"), None, ""),
    ("ex-budget-rank", (PRODUCT, "grid"), None, "another choice"),
    ("ex-budget-rank", (PRODUCT + HEAD[:4, :4, :4], "cross-square"), None, "have ranks [2"),
    ("ex-budget-rank", "cross", None, "a pair"),
]
