"""Samples and phantoms have the structure they are described with."""

import math
import pickle

import pytest
import torch

from cpic import data


@pytest.mark.parametrize("contrast", ["t1", "gm", "wm"])
def test_mni152_is_a_head_in_unit_range(contrast):
    volume = data.mni152(contrast)
    values = volume.read()
    assert volume.shape == (197, 233, 189)
    assert values.dtype == torch.float32
    assert values.aminmax() == (0, 1)
    # The border is background, the middle is not.
    assert values[0].max() < 0.1
    assert values[90:107, 100:130, 80:100].max() > 0.3


def test_mni152_shares_values_but_not_ledgers():
    one, two = data.mni152(), data.mni152()
    one.voxels(torch.tensor([[1, 1, 1]]))
    assert two.ledger == data.Ledger()
    assert one.read().data_ptr() == two.read().data_ptr()


@pytest.mark.parametrize("name", ["camera", "astronaut", "horse", "cell", "retina", "page"])
@pytest.mark.parametrize("color", [False, True])
def test_photographs_are_in_unit_range(name, color):
    picture = data.photograph(name, color=color)
    assert picture.dtype == torch.float64
    assert picture.ndim == (3 if color else 2)
    assert 0 <= picture.min() < picture.max() <= 1 + 1e-12


def ranks(tensor, tol=1e-10):
    found = []
    for site in range(1, tensor.ndim):
        values = torch.linalg.svdvals(tensor.reshape(math.prod(tensor.shape[:site]), -1))
        found.append(int((values > tol * values[0]).sum()))
    return found


def test_gaussians_have_rank_n_and_rotated_ones_more():
    assert ranks(data.gaussians((32, 30, 28)).read()) == [8, 8]
    assert ranks(data.gaussians((32, 30, 28), n=3, seed=4).read()) == [3, 3]
    assert ranks(data.gaussians((32, 30, 28), n=3, seed=4, rotated=True).read())[0] > 10


@pytest.mark.parametrize("rotated", [False, True])
def test_gaussians_are_the_same_bumps_at_every_resolution(rotated):
    coarse, fine = (data.gaussians((n,) * 3, rotated=rotated) for n in (27, 81))
    coords = torch.cartesian_prod(*[torch.arange(27)] * 3)
    # The middle of three fine voxels is the place of the coarse one.
    torch.testing.assert_close(coarse.voxels(coords), fine.voxels(3 * coords + 1))


def test_gaussians_equal_their_definition():
    volume = data.gaussians((16, 16, 16), rotated=True, n=2, seed=3)
    function = volume._function
    x = (torch.tensor([3, 7, 9]) + 0.5).double() / 16
    expected = sum(
        h * torch.exp(-0.5 * (root @ (x - c)).square().sum())
        for h, c, root in zip(function.heights, function.centers, function.roots, strict=True)
    )
    torch.testing.assert_close(volume.voxels(torch.tensor([[3, 7, 9]]))[0], expected)


def interface_error(tensor, order, max_rank=10):
    """Error of sequential truncation over binary modes, by eigenvalues of Gram matrices."""
    levels = tensor.shape[0].bit_length() - 1
    axes = [[a * levels + levels - 1 - bit for bit in range(levels)] for a in range(3)]
    interleaved = [axes[a][bit] for bit in range(levels) for a in range(3)]
    places = [*axes[0], *axes[1], *axes[2]] if order == "sequential" else interleaved
    rest = tensor.reshape([2] * (3 * levels)).permute(places).reshape(1, -1)
    lost, total = 0.0, rest.square().sum()
    for _ in range(3 * levels - 1):
        rest = rest.reshape(2 * len(rest), -1)
        left = torch.linalg.svd(rest, full_matrices=False)[0][:, :max_rank]
        kept = left.mT @ rest
        lost += (rest.square().sum() - kept.square().sum()).clamp(min=0)
        rest = kept
    return (lost / total).sqrt().item()


def test_gaussians_are_as_hard_for_quantics_as_stated():
    values = data.gaussians((64,) * 3).read()
    assert interface_error(values, "sequential") == pytest.approx(0.05, abs=0.02)
    assert interface_error(values, "interleaved") == pytest.approx(0.17, abs=0.03)


@pytest.mark.parametrize("build", [data.gaussians, data.spike, data.brain_like])
def test_phantoms_reach_8192_and_pickle(build):
    volume = build((8192, 8192, 8192))
    coords = torch.tensor([[8191, 8191, 8191], [4096, 4096, 4096], [8192, 0, 0]])
    values = volume.voxels(coords)
    assert values.isfinite().all()
    assert values[1] > 0
    assert values[2] == 0
    cubes = pickle.loads(pickle.dumps(volume)).cubes(coords, size=3)
    torch.testing.assert_close(cubes[:, 0, 1, 1, 1], values)
    assert volume.ledger.fraction(volume) == 2 / 8192**3


def test_coordinates_beyond_int32_arrive_whole():
    edge = 2**34
    volume = data.FormulaVolume(lambda x, y: x * 3 + y, (edge, 5), dtype=torch.int64)
    coords = torch.tensor([[edge - 1, 4], [2**31, 0], [edge, 0]])
    assert volume.voxels(coords).tolist() == [3 * (edge - 1) + 4, 3 * 2**31, 0]
    assert volume.cubes(coords[1:2], size=3)[0, 0, :, 1].tolist() == [
        3 * (2**31 + k) for k in (-1, 0, 1)
    ]


def test_exact_rank_has_that_rank(generator):
    cores = data.exact_rank((3, 6, 5, 7), 4, generator=generator, n_trains=2)
    assert [core.shape[1] for core in cores] == [1, 3, 4, 4]
    dense = torch.einsum("kaib,kbjc,kcld,kdme->kijlm", *cores)
    assert [ranks(one) for one in dense] == [[3, 4, 4]] * 2


def test_spike_is_the_stated_share_of_the_norm():
    volume = data.spike((24, 20, 28), at=(3, 4, 5), share=0.3)
    values = volume.read()
    assert values.argmax() == (3 * 20 + 4) * 28 + 5
    without = values.clone()
    smooth = data.spike((24, 20, 28), at=(9, 9, 9), share=0.3).read()
    without[3, 4, 5] = smooth[3, 4, 5]
    assert (values - without).norm() / values.norm() == pytest.approx(0.3, abs=1e-9)
    assert ranks(values) == [2, 2]
    assert ranks(without) == [1, 1]


def test_brain_like_is_one_head_per_seed_at_every_resolution():
    coarse, fine = (data.brain_like((n,) * 3, seed=1) for n in (27, 81))
    coords = torch.cartesian_prod(*[torch.arange(27)] * 3)
    torch.testing.assert_close(
        coarse.voxels(coords), fine.voxels(3 * coords + 1), rtol=0, atol=1e-4
    )
    assert not torch.equal(coarse.read(), data.brain_like((27,) * 3, seed=2).read())
    values = data.brain_like((64,) * 3).read()
    assert values[0, 0, 0] < 0.01
    assert 0.3 < values[16:48, 16:48, 16:48].mean() < 1


def test_ledgers_add_reset_and_read_well():
    ledger = data.Ledger(1000, 5, 20, 1) + data.Ledger(1, 1, 1, 1)
    assert ledger == data.Ledger(1001, 6, 21, 2)
    assert repr(ledger) == "Ledger(1,001 asked, 6 voxels, 21 bytes, 2 chunks)"
    ledger.reset()
    assert ledger == data.Ledger()
