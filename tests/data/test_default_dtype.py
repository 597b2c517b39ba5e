"""torch's default type changes nothing: types and values of all volumes are the same."""

import numpy as np
import pytest
import torch

from cpic import data
from tests.data.test_conformance import MAKERS

FORMULAS = {
    "brain_like": lambda: data.brain_like((12, 10, 8), seed=1),
    "brain_like in a plane": lambda: data.brain_like((12, 10), seed=1),
    "gaussians": lambda: data.gaussians((12, 10, 8), n=2),
    "rotated gaussians": lambda: data.gaussians((12, 10, 8), n=2, rotated=True),
    "spike": lambda: data.spike((12, 10, 8)),
    "mni152": lambda: data.mni152("t1"),
    "photograph": lambda: data.ArrayVolume(data.photograph("camera")),
}


@pytest.fixture(params=[torch.float64, torch.float16, torch.float32], ids=str)
def default(request):
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


def answers(volume):
    at = torch.tensor([[3] * len(volume.shape), [-1] * len(volume.shape)])
    found = {
        "cubes": volume.cubes(at, size=3),
        "voxels": volume.voxels(at),
        "voxels of a grid": volume.voxels(at.reshape(2, 1, -1)),
        "nothing": volume.cubes(at[:0], size=3),
        "read": volume.read(),
    }
    assert {name: part.dtype for name, part in found.items()} == dict.fromkeys(found, volume.dtype)
    return found


def same(make, default):
    plain = answers(make())
    torch.set_default_dtype(default)
    for name, part in answers(make()).items():
        assert part.dtype == plain[name].dtype, name
        torch.testing.assert_close(part, plain[name], rtol=0, atol=0)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__.removeprefix("make_"))
def test_of_readers(tmp_path, make, default):
    folders = iter([tmp_path / "a", tmp_path / "b"])

    def made():
        folder = next(folders)
        folder.mkdir()
        return make(folder)[0]

    same(made, default)


@pytest.mark.parametrize("name", FORMULAS)
def test_of_formulas_and_samples(name, default):
    same(FORMULAS[name], default)


def test_of_resampling(default):
    from cpic.data._resample import resample

    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    plain = resample(values, (5, 6, 7), order=3)
    torch.set_default_dtype(default)
    again = resample(values, (5, 6, 7), order=3)
    assert again.dtype == plain.dtype
    np.testing.assert_array_equal(again, plain)
