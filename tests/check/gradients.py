"""Answers to the exercises of part Gradients: exercise, answer, what it is about, hint."""

import math
from types import SimpleNamespace
from typing import Any

import torch

from cpic.tt import IndexSets, TensorTrain, interpolate

SETS = IndexSets.random((4, 4, 4), 2, generator=torch.Generator().manual_seed(0))
DRAWN = torch.Generator().manual_seed(1)
TENSOR = torch.randn(1, 4, 4, 4, generator=DRAWN, dtype=torch.float64).requires_grad_()
VALUES = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def full(values):
    return interpolate(lambda i: values[0][tuple(i.unbind(-1))], SETS).full()


class Once(torch.autograd.Function):
    """The train in full; the first derivative is right, or `factor` times that, the second not."""

    @staticmethod
    def forward(ctx, values, factor):
        ctx.save_for_backward(values)
        ctx.factor = factor
        return full(values)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            values = ctx.saved_tensors[0].detach().requires_grad_()
            slope = torch.autograd.grad(full(values), values, grad.detach())[0]
        return ctx.factor * slope, None


def product(values):
    """Homogeneous of degree one, as the mean of a train is."""
    return values[0] * values[1] / values[2]


TIED = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
WEIGHTS = torch.tensor([[1.0, 2, 0], [2, 3, 1], [0, 1, 1]], dtype=torch.float64)
LN2 = math.log(2)
LOG = WEIGHTS * torch.tensor([[0.5, LN2, LN2], [LN2, 1, 1], [LN2, 1, 1]], dtype=torch.float64)
BLIND = LOG * torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1]])

ROWS = torch.tensor([[3.0, 0, 1], [2, 1, 1], [1, 2, 4]], dtype=torch.float64)
GRAM, LESS = ROWS @ ROWS.mT, ROWS - ROWS.mean(0)


def basis(*signs, order=(0, 1)):
    rows = torch.eye(3, dtype=torch.float64)[list(order)] * torch.tensor(signs).unsqueeze(1)
    return SimpleNamespace(full=lambda: rows.unsqueeze(1))


SORTED = [basis(1.0, 1.0), basis(-1.0, 1.0), basis(1.0, -1.0)]
FLIPPED = [basis(1.0, 1.0)] * 3
PLANE = basis(1.0, 1.0)
TRAINS = TensorTrain([torch.tensor([[3.0, 0, 4], [2, 0, 0]]).double().view(2, 1, 3, 1)])
NO_BASES: Any = [basis(1.0, 1.0, order=(1, 0)), *FLIPPED[1:]]

CASES: list[tuple[str, Any, Any, str]] = [
    ("ex-gradients-quadrature", torch.tensor([0.5, 0.25, -0.125]), (product, VALUES), ""),
    ("ex-gradients-quadrature", torch.tensor([0.5, 0.0, 0.0]), (product, VALUES), "take the grad"),
    ("ex-gradients-quadrature", torch.ones(3), (product, VALUES), "is not the mean"),
    ("ex-gradients-quadrature", VALUES * math.nan, (product, VALUES), "is not the mean"),
    ("ex-gradients-quadrature", [0.5], (product, VALUES), "each of the 3 entries"),
    ("ex-gradients-gradcheck", full, TENSOR, ""),
    ("ex-gradients-gradcheck", lambda v: Once.apply(v, 1), TENSOR, "gradgradcheck finds"),
    ("ex-gradients-gradcheck", lambda v: Once.apply(v, 0.5), TENSOR, "gradcheck finds"),
    ("ex-gradients-gradcheck", lambda v: v, TENSOR, "does not return the tensor of a train"),
    ("ex-gradients-gradcheck", lambda v: v[0], TENSOR, "returns (4, 4, 4), not (1, 4, 4, 4)"),
    ("ex-gradients-gradcheck", "full", TENSOR, "a function of the tensor"),
    ("ex-spectra-single", (2, 7), 1e-5, ""),
    ("ex-spectra-single", torch.tensor([1.9, 6.3]), 1e-5, ""),
    ("ex-spectra-single", (11, 16), 1e-5, "rounding error of single precision"),
    ("ex-spectra-single", (2, 2), 1e-5, "costs no digits"),
    ("ex-spectra-single", None, 1e-5, "two numbers"),
    ("ex-spectra-log", LOG, (TIED, WEIGHTS), ""),
    ("ex-spectra-log", BLIND, (TIED, WEIGHTS), "differs from finite differences"),
    ("ex-spectra-log", LOG / 0, (TIED, WEIGHTS), "not finite"),
    (
        "ex-spectra-log",
        LOG,
        (TIED + torch.diag(torch.arange(3)) / 4, WEIGHTS),
        "no double eigenvalue",
    ),
    ("ex-spectra-log", 1.0, (TIED, WEIGHTS), "a matrix of (3, 3)"),
    ("ex-spectra-power", 7, 0.5, ""),
    ("ex-spectra-power", torch.tensor(46050), 1e-4, ""),
    ("ex-spectra-power", 6, 0.5, "misses more than 1 %"),
    ("ex-spectra-power", math.nan, 0.5, "misses more than 1 %"),
    ("ex-spectra-power", 8, 0.5, "fewer steps"),
    ("ex-spectra-power", "many", 0.5, "one number"),
    ("ex-features-center", LESS @ LESS.mT, GRAM, ""),
    ("ex-features-center", GRAM - GRAM.mean(0), GRAM, "does not sum to zero"),
    ("ex-features-center", 0 * GRAM, GRAM, "distances"),
    ("ex-features-center", GRAM[0], GRAM, "a matrix of (3, 3)"),
    ("ex-features-signs", FLIPPED, SORTED, ""),
    ("ex-features-signs", [basis(-1.0, 1.0)] * 3, SORTED, ""),
    ("ex-features-signs", SORTED, SORTED, "points against"),
    ("ex-features-signs", NO_BASES, SORTED, "more than signs"),
    ("ex-features-signs", FLIPPED[:2], SORTED, "a list of 3 bases"),
    ("ex-features-signs", 1, SORTED, "a list of 3 bases"),
    ("ex-features-outside", torch.tensor([0.8, 0.0]), (TRAINS, PLANE), ""),
    ("ex-features-outside", [0.64, 0.0], (TRAINS, PLANE), "take the root"),
    ("ex-features-outside", [4.0, 0.0], (TRAINS, PLANE), "divide by the norm"),
    ("ex-features-outside", [0.6, 1.0], (TRAINS, PLANE), "a right triangle"),
    ("ex-features-outside", 0.8, (TRAINS, PLANE), "each of the 2 trains"),
]
