"""Cubes that are read while those before are encoded."""

import threading

import pytest
import torch

from cpic import tt
from cpic._errors import VolumeError
from cpic.data import ArrayVolume
from cpic.nn import CubeEncoder, VolumeEntries
from cpic.nn._prefetch import Prefetch

PARTS = list(torch.arange(10).split(3))


def test_parts_are_read_once_a_pass_in_both_directions():
    read = []
    ahead = Prefetch(lambda part: (read.append(int(part[0])), 2 * part)[1], PARTS)
    order = [0, 1, 2, 3, 3, 2, 1, 0]
    for k in order:
        assert torch.equal(ahead(PARTS[k]), 2 * PARTS[k])
    assert read == [0, 3, 6, 9, 9, 6, 3, 0]


def test_the_next_part_is_read_meanwhile():
    second = threading.Event()

    def read(part):
        if part[0] == 3:
            second.set()
        return part

    ahead = Prefetch(read, PARTS)
    ahead(PARTS[0])
    assert second.wait(5)


def test_parts_in_any_order_are_right(generator):
    ahead = Prefetch(lambda part: 2 * part, PARTS)
    for k in torch.randint(0, 4, (30,), generator=generator).tolist():
        assert torch.equal(ahead(PARTS[k]), 2 * PARTS[k])


def test_an_error_belongs_to_its_part():
    def read(part):
        if part[0] == 3:
            raise VolumeError("damaged")
        return part

    ahead = Prefetch(read, PARTS)
    ahead(PARTS[0])
    with pytest.raises(VolumeError, match="damaged"):
        ahead(PARTS[1])
    assert torch.equal(ahead(PARTS[2]), PARTS[2])


@pytest.mark.parametrize("chunk", [7, 50])
def test_entries_read_ahead_have_the_same_values_and_gradients(generator, chunk):
    volumes = [ArrayVolume(torch.rand(8, 8, 8, generator=generator)) for _ in range(3)]
    grid, found = tt.Quantics((8, 8, 8), channels=4), []
    indices = torch.randint(0, 2, (3, 60, grid.n_sites), generator=generator)
    for size in (None, chunk):
        torch.manual_seed(0)
        encoder = CubeEncoder(4)
        entries = VolumeEntries(volumes, encoder, grid, chunk=size)
        before = [volume.ledger.asked for volume in volumes]
        values = entries(indices)
        values.square().sum().backward()
        asked = [v.ledger.asked - b for v, b in zip(volumes, before, strict=True)]
        found.append((values.detach(), [p.grad for p in encoder.parameters()], asked))
    torch.testing.assert_close(found[0][:2], found[1][:2])
    # Each position once forwards and once for the gradient: nothing is read in vain.
    assert found[1][2] == [2 * n for n in found[0][2]]
