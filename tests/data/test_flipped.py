"""What the conformance of `FlippedVolume` does not say."""

import pytest
import torch

from cpic._errors import VolumeError
from cpic.data import ArrayVolume, FlippedVolume


@pytest.fixture
def volume(generator):
    return ArrayVolume(torch.rand(5, 6, 7, generator=generator))


def test_twice_is_the_volume(volume):
    twice = FlippedVolume(FlippedVolume(volume, axes=(0, 2)), axes=(2, 0))
    assert torch.equal(twice.read(), volume.read())


def test_no_axis_leaves_it(volume):
    assert torch.equal(FlippedVolume(volume, axes=()).read(), volume.read())


@pytest.mark.parametrize("axes", [(3,), (-1,), (0, 0)])
def test_wrong_axes(volume, axes):
    with pytest.raises(VolumeError, match="different axes from 0 to 2"):
        FlippedVolume(volume, axes=axes)


def test_both_ledgers_count(volume):
    FlippedVolume(volume, axes=[1]).voxels(torch.tensor([[0, 0, 0], [4, 5, 6]]))
    assert (volume.ledger.asked, volume.ledger.voxels) == (2, 2)
    flipped = FlippedVolume(volume, axes=[1])
    flipped.voxels(torch.tensor([[0, 0, 0], [0, 0, 0]]))
    assert (flipped.ledger.asked, flipped.ledger.voxels) == (2, 1)
    assert flipped.ledger.bytes == 4
