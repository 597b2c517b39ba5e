"""Weights of layers beside a dense computation, their norms, and their numbers of freedoms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cpic.nn import spectral
from cpic.nn.spectral import _plan
from cpic.nn.spectral._factors import Parts, groups_of
from cpic.nn.spectral._plan import Shape, plan_of
from cpic.nn.spectral._start import matrices_of
from tests.nn.spectral import dense

KINDS = ["svdp", "sttp"]
SPECTRA = ["learned", "fixed"]
SHAPES = [
    (16, 8, 3, 3),
    (8, 16),
    (12, 10, 3),
    (7, 3, 2, 3, 2),
    (6, 5, 1, 1),
    (1, 1),
    (1, 7),
    (7, 1),
    (1, 1, 3, 3),
    (1, 12),
    (12, 1),
    (5, 1, 1, 1),
    (64, 3, 3, 3),
]


def parts_for(plan, *, dtype=torch.float64, scale=0.5):
    """Numbers drawn for a plan."""
    groups = plan.shape.groups
    free = scale * torch.randn(groups, plan.free, dtype=dtype)
    values = torch.randn(groups, plan.scales, dtype=dtype) if plan.scales else None
    fixed = plan.spectrum == "fixed"
    signs = torch.ones(groups, plan.rank, dtype=torch.int8) if fixed else None
    return Parts(free, values, signs)


def made(plan, parts):
    ((group, place),) = groups_of([plan], [parts])
    return group.product("weight")[place]


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_equal_a_dense_computation(shape, kind, spectrum):
    """Up to the sign of the cores that are left out, which a spectrum takes at the start."""
    for rank in (1, 2, 4, 64):
        plan = plan_of(Shape(shape), kind=kind, rank=rank, spectrum=spectrum, gain=True)
        parts = parts_for(plan)
        values = (parts.scale if spectrum == "learned" else parts.scale.expand(1, plan.rank))[0]
        expected = dense.weight(
            parts.free[0].numpy(),
            plan.sign * values.numpy(),
            shape[0],
            shape[1],
            shape[2:],
            rank,
            spectrum == "learned",
            kind,
        )
        found = matrices_of(plan.shape, made(plan, parts))[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)
        singular = np.linalg.svd(found, compute_uv=False)[: plan.rank]
        np.testing.assert_allclose(singular, np.sort(np.abs(values.numpy()))[::-1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_free_numbers_are_those_of_the_manifold(kind):
    """By the rank of the Jacobian, on random shapes.

    A spectrum whose largest value is one has a scale that does nothing: one less.
    """
    draw = np.random.default_rng(0 if kind == "svdp" else 1)
    for _ in range(20):
        sizes = [int(draw.integers(1, 10)), int(draw.integers(1, 7))]
        kernel = [int(draw.integers(1, 4)) for _ in range(int(draw.integers(0, 3)))]
        rank = int(draw.integers(1, 7))
        shape = Shape((*sizes, *kernel))
        for spectrum, gain in (
            ("learned", True),
            ("learned", False),
            ("fixed", False),
            ("fixed", True),
        ):
            plan = plan_of(shape, kind=kind, rank=rank, spectrum=spectrum, gain=gain)
            parts = parts_for(plan)
            numbers = torch.cat([parts.free, *([] if parts.scale is None else [parts.scale])], -1)

            def weight(numbers, plan=plan, parts=parts):
                free, scale = numbers.split([plan.free, plan.scales], -1)
                return made(plan, parts._replace(free=free, scale=scale if plan.scales else None))

            slopes = torch.autograd.functional.jacobian(weight, numbers, vectorize=True).flatten(
                0, len(shape.size) - 1
            )
            slopes = slopes.flatten(1)
            freedom = int(torch.linalg.matrix_rank(slopes, rtol=1e-9)) if slopes.shape[1] else 0
            scale_only = spectrum == "learned" and not gain
            assert plan.parameters == slopes.shape[1]
            assert freedom == plan.parameters - scale_only, (shape, rank, spectrum, gain)


def test_full_inner_ranks_are_the_other_parametrization():
    """Where only the middle bond is cut, both have as many numbers, and the same weights."""
    for shape in ((8, 16), (4, 8, 3), (7, 11)):
        for spectrum in SPECTRA:
            one = plan_of(Shape(shape), kind="svdp", rank=64, spectrum=spectrum)
            other = plan_of(Shape(shape), kind="sttp", rank=64, spectrum=spectrum)
            assert one.parameters == other.parameters


def test_modes_are_prime_factors():
    for number in (1, 2, 12, 97, 160, 30000):
        assert list(_plan.primes(number)) == dense.factors(number)


def test_a_kernel_may_be_split():
    whole = plan_of(Shape((16, 8, 5, 5)), kind="sttp", rank=4)
    split = plan_of(Shape((16, 8, 5, 5)), kind="sttp", rank=4, split_kernel=True)
    assert [core.size for core in whole.right] == [2, 2, 2, 25]
    assert [core.size for core in split.right] == [2, 2, 2, 5, 5]
    assert split.parameters < whole.parameters
    weight = made(split, parts_for(split))
    assert torch.linalg.matrix_rank(weight.flatten(1)) == 4


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind, spectrum):
    for shape in ((4, 2, 3), (1, 3)):
        plan = plan_of(Shape(shape), kind=kind, rank=2, spectrum=spectrum)
        parts = parts_for(plan)
        leaves = [part.requires_grad_() for part in (parts.free, parts.scale) if part is not None]

        def weight(*numbers, plan=plan, signs=parts.signs):
            scale = numbers[1] if len(numbers) > 1 else None
            return made(plan, Parts(numbers[0], scale, signs))

        assert torch.autograd.gradcheck(weight, leaves)
        assert torch.autograd.gradgradcheck(weight, leaves)


def layers(dtype=torch.float32):
    """One of each kind, with all options that change a weight."""
    return nn.ModuleList(
        [
            nn.Linear(12, 8),
            nn.Linear(5, 1, bias=False),
            nn.Embedding(10, 6),
            nn.Conv1d(6, 8, 3, groups=2),
            nn.Conv2d(4, 6, (3, 5)),
            nn.Conv3d(2, 4, 3),
            nn.ConvTranspose1d(4, 6, 3),
            nn.ConvTranspose2d(8, 6, 3, groups=2),
            nn.ConvTranspose3d(3, 5, 2),
            nn.Conv2d(6, 6, 3, groups=6),
        ]
    ).to(dtype)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("kind", KINDS)
def test_every_group_of_every_layer_has_norm_one(kind, spectrum):
    net = layers()
    spectral.parametrize(net, kind, rank=4, spectrum=spectrum, init="qr_randn")
    for layer in net:
        own = spectral._weight.weight_of(layer)
        norms = torch.linalg.matrix_norm(matrices_of(own.plan.shape, layer.weight), 2)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)
        # The convention of the matrix, independently: rows are the outputs of a group.
        plain = layer.weight.detach()
        if isinstance(layer, nn.modules.conv._ConvNd):
            per_group = plain.chunk(layer.groups)
            matrices = [p.transpose(0, 1) if layer.transposed else p for p in per_group]
        else:
            matrices = [plain]
        for matrix in matrices:
            assert abs(torch.linalg.matrix_norm(matrix.flatten(1), 2).item() - 1) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(64, 128, 3, 3), (3, 64, 7, 7), (1, 32), (32, 1), (1, 1)], ids=str
)
def test_adam_leaves_frames_orthonormal(shape, kind):
    """In single precision, after steps that move the numbers far."""
    steps = 400 if (shape, kind) == ((32, 1), "svdp") else 50
    layer = (
        nn.Conv2d(shape[1], shape[0], shape[2:], bias=False)
        if shape[2:]
        else nn.Linear(shape[1], shape[0], bias=False)
    )
    spectral.parametrize(layer, kind, rank=32)
    target = torch.randn(shape)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    before = layer.weight.detach().clone()
    for _ in range(steps):
        optimizer.zero_grad()
        (layer.weight * target).sum().backward()
        optimizer.step()
    (row,) = spectral.report(layer)
    assert row.defect < 1e-6
    norm = torch.linalg.matrix_norm(layer.weight.detach().double().flatten(1), 2).item()
    assert abs(norm - 1) < 1e-5
    if math.prod(shape) > 1:
        assert (layer.weight - before).abs().amax() > 0.1
