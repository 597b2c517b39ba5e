"""Frames beside another product of the same reflectors, and the numbers they have."""

from itertools import product

import pytest
import torch

from cpic.nn.spectral import count_free, frames, reflectors

SIZES = [(1, 1), (5, 1), (5, 2), (4, 4), (40, 16), (64, 64), (300, 64), (700, 3)]
SCALES = [0.0, 1e-4, 0.1, 1.0, 10.0]
CASES = [(*size, reduced) for size in SIZES for reduced in (False, True)]


def drawn(rows, columns, reduced, *, n=2, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(n, count_free(rows, columns, reduced=reduced), dtype=dtype)


def by_lapack(free, rows, columns, reduced):
    """The same frames one reflection after the other."""
    vectors = torch.eye(rows, columns, dtype=free.dtype).repeat(len(free), 1, 1)
    n_below = (rows - columns) * columns
    vectors[:, columns:] = free[:, :n_below].view(len(free), rows - columns, columns)
    if not reduced:
        i, j = torch.tril_indices(columns, columns, -1)
        vectors[:, i, j] = free[:, n_below:]
    return torch.linalg.householder_product(vectors, 2 / vectors.square().sum(-2))


def defect(frame):
    wide = frame.double()
    return (wide.mT @ wide - torch.eye(wide.shape[-1], dtype=torch.float64)).abs().amax().item()


@pytest.mark.parametrize(("rows", "columns", "reduced"), CASES)
def test_frames_are_products_of_reflections(rows, columns, reduced):
    for scale in SCALES:
        free = drawn(rows, columns, reduced, scale=scale)
        found = frames(free, rows=rows, columns=columns, reduced=reduced)
        torch.testing.assert_close(found, by_lapack(free, rows, columns, reduced))
        if reduced:
            torch.testing.assert_close(found[:, :columns], found[:, :columns].triu())


@pytest.mark.parametrize("scale", SCALES)
def test_frames_are_orthonormal_in_single_precision(scale):
    for rows, columns, reduced in CASES:
        free = drawn(rows, columns, reduced, scale=scale, dtype=torch.float32)
        assert defect(frames(free, rows=rows, columns=columns, reduced=reduced)) < 3e-6


def test_long_frames_of_few_columns_are_orthonormal_in_single_precision():
    for columns in (1, 3, 8, 16):
        free = drawn(30_000, columns, False, scale=0.01, dtype=torch.float32)
        assert defect(frames(free, rows=30_000, columns=columns)) < 6e-7


def test_zeros_are_the_negative_of_the_unit_vectors():
    for reduced in (False, True):
        zeros = torch.zeros(count_free(5, 3, reduced=reduced))
        found = frames(zeros, rows=5, columns=3, reduced=reduced)
        torch.testing.assert_close(found, -torch.eye(5, 3))


@pytest.mark.parametrize(("rows", "columns", "reduced"), CASES)
def test_reflectors_invert_frames(rows, columns, reduced):
    for scale in SCALES:
        matrix = frames(
            drawn(rows, columns, reduced, scale=scale), rows=rows, columns=columns, reduced=reduced
        )
        free, signs = reflectors(matrix, reduced=reduced)
        back = frames(free, rows=rows, columns=columns, reduced=reduced, signs=signs)
        torch.testing.assert_close(back, matrix)
        assert set(signs.unique().tolist()) <= {-1.0, 1.0}


def test_every_orthogonal_matrix_is_a_frame_with_signs():
    """Of both determinants, and with columns that are unit vectors themselves."""
    some = [
        torch.eye(4),
        -torch.eye(4),
        torch.eye(4)[[1, 0, 2, 3]],
        torch.diag(torch.tensor([1.0, -1, 1, -1])),
    ]
    some += list(torch.linalg.qr(torch.randn(6, 4, 4, dtype=torch.float64)).Q)
    matrices = torch.stack([matrix.double() for matrix in some])
    free, signs = reflectors(matrices)
    assert free.abs().amax() <= 4  # bounded: pivots of at least one
    torch.testing.assert_close(frames(free, rows=4, columns=4, signs=signs), matrices)


def test_the_determinant_of_square_frames_can_be_chosen():
    for size in (1, 2, 3, 4):
        free = drawn(size, size, False, n=5)
        plain = frames(free, rows=size, columns=size)
        turned = frames(free, rows=size, columns=size, determinant=1)
        torch.testing.assert_close(torch.linalg.det(turned), torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(plain[..., :-1], turned[..., :-1])


@pytest.mark.parametrize(
    ("rows", "columns", "reduced"), [(1, 1, False), (5, 2, True), (4, 4, False), (6, 3, False)]
)
def test_frames_are_differentiable_twice(rows, columns, reduced):
    free = drawn(rows, columns, reduced).requires_grad_()

    def make(numbers):
        return frames(numbers, rows=rows, columns=columns, reduced=reduced)

    assert torch.autograd.gradcheck(make, free)
    assert torch.autograd.gradgradcheck(make, free)


def test_free_numbers_are_as_many_as_dimensions():
    """Those of a full frame, and for a reduced one those of the projection on its columns."""
    for (rows, columns), reduced in product([(5, 2), (6, 6), (7, 3), (4, 1)], (False, True)):
        free = drawn(rows, columns, reduced, n=1)[0]

        def made(numbers, shape=(rows, columns, reduced)):
            rows, columns, reduced = shape
            frame = frames(numbers, rows=rows, columns=columns, reduced=reduced)
            return frame @ frame.mT if reduced else frame

        slopes = torch.autograd.functional.jacobian(made, free).flatten(0, -2)
        assert slopes.shape[1] == count_free(rows, columns, reduced=reduced)
        if slopes.shape[1]:
            assert torch.linalg.matrix_rank(slopes) == slopes.shape[1]


def test_any_batch_and_no_batch():
    free = drawn(5, 2, False, n=6)
    one = frames(free, rows=5, columns=2)
    many = frames(free.view(2, 3, -1), rows=5, columns=2)
    torch.testing.assert_close(many.flatten(0, 1), one)
    torch.testing.assert_close(frames(free[0], rows=5, columns=2), one[0])
    assert frames(free[:0], rows=5, columns=2).shape == (0, 5, 2)


def test_nothing_is_larger_than_a_frame():
    """No square matrix of the long side is made, forward or backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            for part in found if isinstance(found, tuple | list) else [found]:
                if isinstance(part, torch.Tensor):
                    self.numbers = max(self.numbers, part.numel())
            return found

    free = drawn(3000, 7, False, n=1).requires_grad_()
    with Largest() as seen:
        frames(free, rows=3000, columns=7).square().sum().backward()
    assert seen.numbers <= 3000 * 7
    with Largest() as seen:
        reflectors(frames(free.detach(), rows=3000, columns=7))
    assert seen.numbers <= 3000 * 7


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: frames(torch.zeros(1), rows=2, columns=3), "as many rows"),
        (lambda: frames(torch.zeros(1), rows=2, columns=0), "at least one column"),
        (lambda: frames(torch.zeros(3), rows=4, columns=2), "5 free numbers for a full"),
        (
            lambda: frames(torch.zeros(5), rows=4, columns=2, reduced=True),
            "4 free numbers for a red",
        ),
        (lambda: frames(torch.zeros(5), rows=4, columns=2, determinant=1), "square frame"),
        (lambda: reflectors(torch.zeros(2, 3)), "at least as many rows"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
