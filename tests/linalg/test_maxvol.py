import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from cpic._errors import RankDeficientError
from cpic.linalg import maxvol, rect_maxvol

DTYPES = [torch.float32, torch.float64]


def tall(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=dtype)


def chosen_rows(matrix, rows):
    return torch.take_along_dim(matrix, rows.unsqueeze(-1), dim=-2)


@pytest.mark.parametrize("on_deficient", ["raise", "report"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (40, 5), (3, 40, 5), (2, 3, 9, 2), (0, 9, 2)])
def test_coeffs_rebuild_the_matrix_and_are_bounded(generator, shape, dtype, on_deficient):
    matrix = tall(generator, *shape, dtype=dtype)
    found = maxvol(matrix, tol=1.01, on_deficient=on_deficient)
    identity = chosen_rows(found.coeffs, found.rows)
    assert found.converged.all()
    assert (found.rank == shape[-1]).all()
    slack = 1e-4 if dtype == torch.float32 else 1e-10  # swaps accumulate rounding
    assert_close(found.coeffs @ chosen_rows(matrix, found.rows), matrix, atol=slack, rtol=slack)
    eye = torch.eye(shape[-1], dtype=dtype).expand_as(identity)
    assert_close(identity, eye, atol=slack, rtol=0)
    assert (found.coeffs.abs() <= 1.01 + slack).all()


def test_finds_the_planted_rows(generator):
    matrix = 0.01 * tall(generator, 50, 3)
    matrix[[7, 19, 33]] = torch.eye(3, dtype=torch.float64)
    assert set(maxvol(matrix).rows.tolist()) == {7, 19, 33}


def test_swaps_beat_elimination():
    matrix = torch.tensor([[1.0, 0.0], [0.9, 1.0], [0.9, -1.0]], dtype=torch.float64)
    assert set(maxvol(matrix, tol=1.0).rows.tolist()) == {1, 2}
    assert not maxvol(matrix, tol=1.0, max_iters=0).converged


def test_batch_equals_loop(generator):
    matrices = tall(generator, 16, 60, 8)
    together = maxvol(matrices)
    for k, matrix in enumerate(matrices):
        alone = maxvol(matrix)
        assert torch.equal(together.rows[k], alone.rows)
        assert_close(together.coeffs[k], alone.coeffs)


def test_views_and_nan(generator):
    view = tall(generator, 5, 40).mT
    assert torch.equal(maxvol(view).rows, maxvol(view.contiguous()).rows)
    assert not maxvol(torch.full((9, 2), torch.nan)).converged


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), m=st.integers(1, 30), r=st.integers(1, 6))
def test_order_of_rows_hardly_matters(seed, m, r):
    generator = torch.Generator().manual_seed(seed)
    matrix = tall(generator, m + r, r)
    shuffled = matrix[torch.randperm(m + r, generator=generator)]
    volumes = [torch.linalg.det(x[maxvol(x, tol=1.0).rows]).abs() for x in (matrix, shuffled)]
    bound = r ** (r / 2) + 1e-9  # of the largest volume, for tol = 1
    assert 1 / bound <= volumes[0] / volumes[1] <= bound


def test_gradient_flows_through_the_coefficients(generator):
    matrix = tall(generator, 2, 7, 3).requires_grad_()
    assert gradcheck(lambda x: maxvol(x).coeffs, matrix)
    assert gradcheck(lambda x: rect_maxvol(x, n_rows=5).coeffs, matrix)
    assert not maxvol(matrix, on_deficient="report").coeffs.requires_grad


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_deficiency_is_raised_or_reported(generator, rank):
    matrix = tall(generator, 3, 9, rank) @ tall(generator, rank, 4)
    with pytest.raises(RankDeficientError, match=r"column rank 4.*3 of 3.*truncate"):
        maxvol(matrix)
    found = maxvol(matrix, on_deficient="report")
    assert found.rank.tolist() == [rank] * 3
    assert found.coeffs.abs().max() <= 1.05 + 1e-9
    assert_close(found.coeffs @ chosen_rows(matrix, found.rows), matrix)
    assert all(len(set(rows)) == 4 for rows in found.rows.tolist())
    wide = rect_maxvol(matrix, n_rows=6, on_deficient="report")
    assert_close(wide.coeffs @ chosen_rows(matrix, wide.rows), matrix)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 5), {}, r"shape \(3, 5\).*matrix\.mT"),
        ((2, 3, 5), {}, r"shape \(3, 5\).*matrix\.mT"),
        ((5, 3), {"tol": 0.9}, r"tol >= 1.*0\.9.*1\.05"),
        ((5, 3), {"on_deficient": "ignore"}, "'ignore'.*choose"),
    ],
)
def test_rejects(generator, shape, options, message):
    with pytest.raises(ValueError, match=message):
        maxvol(tall(generator, *shape), **options)


@pytest.mark.parametrize("on_deficient", ["raise", "report"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "n_rows"), [((12, 3), 7), ((4, 12, 3), 3), ((2, 8, 3), 8)])
def test_rect_coeffs_are_the_pseudo_inverse(generator, shape, n_rows, dtype, on_deficient):
    matrix = tall(generator, *shape, dtype=dtype)
    found = rect_maxvol(matrix, n_rows=n_rows, on_deficient=on_deficient)
    chosen = chosen_rows(matrix, found.rows)
    slack = 1e-4 if dtype == torch.float32 else 1e-10
    assert_close(found.coeffs, matrix @ torch.linalg.pinv(chosen), atol=slack, rtol=slack)
    assert all(len(set(rows)) == n_rows for rows in found.rows.reshape(-1, n_rows).tolist())


def test_rect_adds_the_row_that_gains_most(generator):
    matrix = tall(generator, 5, 30, 4)
    few, more = (rect_maxvol(matrix, n_rows=k) for k in (6, 7))
    assert torch.equal(more.rows[:, :6], few.rows)
    gain = few.coeffs.norm(dim=-1).scatter(1, few.rows, 0.0)
    assert torch.equal(gain.argmax(-1), more.rows[:, 6])


def test_rect_rejects_numbers_of_rows(generator):
    for n_rows in (2, 6):
        with pytest.raises(ValueError, match=rf"from 3 to 5.*got {n_rows}; clamp"):
            rect_maxvol(tall(generator, 5, 3), n_rows=n_rows)


@pytest.mark.parametrize("kind", ["random", "ties", "low rank"])
def test_the_search_on_a_device_finds_what_that_on_the_host_finds(kind, monkeypatch, generator):
    matrix = torch.randn(5, 30, 6, generator=generator, dtype=torch.float64)
    if kind == "ties":
        matrix = matrix.sign()
    if kind == "low rank":
        matrix[..., 3:] = matrix[..., :3]
    host = maxvol(matrix, on_deficient="report")
    monkeypatch.setattr("cpic.linalg._maxvol._on_host", lambda tensor: False)
    device = maxvol(matrix, on_deficient="report")
    assert all(map(torch.equal, host, device))
