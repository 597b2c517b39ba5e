"""Entries in chunks: the values, gradients and random numbers of one call, the memory of one."""

import pytest
import torch

from cpic.bottleneck import chunked, half_sweep
from cpic.tt import IndexSets, Quantics, interpolate

GRID = Quantics((16, 16, 8))


class Encoder(torch.nn.Module):
    """A small 3-D network over cubes of a random volume, with dropout."""

    def __init__(self, generator, n_trains=2, p=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.volumes = torch.randn(n_trains, 18, 18, 10, generator=generator, dtype=torch.float64)
        self.conv = torch.nn.Conv3d(1, 4, 3, dtype=torch.float64)
        self.dropout, self.linear = torch.nn.Dropout(p), torch.nn.Linear(4, 1).double()
        self.largest = 0

    def forward(self, indices):
        self.largest = max(self.largest, indices.shape[1])
        x, y, z = GRID.coords(indices).unbind(-1)
        batch = torch.arange(len(indices))[:, None]
        steps = torch.stack(torch.meshgrid(*[torch.arange(3)] * 3, indexing="ij")).flatten(1)
        cubes = self.volumes[
            batch[..., None], *(c[..., None] + s for c, s in zip((x, y, z), steps, strict=True))
        ]
        hidden = self.conv(cubes.view(-1, 1, 3, 3, 3)).flatten(1).tanh()
        return self.linear(self.dropout(hidden)).view(indices.shape[:-1])


def grads(encoder, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(encoder.parameters()))])


def relative(a, b):
    return float((a - b).detach().norm() / b.detach().norm())


def on_fixed_sets(entries, sets):
    return interpolate(entries, sets)


def on_chosen_sets(entries, sets):
    return half_sweep(entries, sets, towards="left").train


@pytest.mark.parametrize("make", [on_fixed_sets, on_chosen_sets])
@pytest.mark.parametrize("size", [3, 7, 10**6])
def test_gradients_are_those_of_one_call(make, size, generator):
    encoder = Encoder(generator)
    sets = IndexSets.random(GRID.sizes, 3, n_trains=2, generator=generator)
    whole = make(encoder, sets)
    parts = make(chunked(encoder, size), sets)
    assert relative(parts.inner(parts), whole.inner(whole)) <= 1e-13
    one = grads(encoder, whole.inner(whole).log().sum())
    assert relative(grads(encoder, parts.inner(parts).log().sum()), one) <= 1e-10


def test_no_call_exceeds_the_chunk_in_either_pass(generator):
    encoder = Encoder(generator)
    values = chunked(encoder, 5)(torch.randint(0, 2, (2, 23, GRID.n_sites), generator=generator))
    assert encoder.largest == 5
    encoder.largest = 0
    values.sum().backward()
    assert encoder.largest == 5


def test_nothing_inside_a_chunk_is_kept_for_the_backward_pass(generator):
    encoder, kept = Encoder(generator), []
    index = torch.randint(0, 2, (2, 200, GRID.n_sites), generator=generator)

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        chunked(encoder, 20)(index)
        few = sum(kept)
        kept.clear()
        encoder(index)
    assert few <= index.numel()  # where to read again
    assert sum(kept) > 10_000


def test_dropout_draws_the_same_masks_again(generator):
    encoder = Encoder(generator, p=0.5)
    index = torch.randint(0, 2, (2, 12, GRID.n_sites), generator=generator)
    torch.manual_seed(3)
    values = chunked(encoder, 4)(index)
    slope = grads(encoder, values.square().sum())
    torch.manual_seed(3)
    again = torch.cat([encoder(part) for part in index.split(4, 1)], 1)
    assert torch.equal(values, again)
    assert relative(slope, grads(encoder, again.square().sum())) <= 1e-12


def test_two_uses_of_the_same_entries_add_up(generator):
    encoder = Encoder(generator)
    index = torch.randint(0, 2, (2, 12, GRID.n_sites), generator=generator)
    ask = chunked(encoder, 5)
    twice = grads(encoder, (ask(index) * ask(index.flip(1))).sum())
    once = grads(encoder, (encoder(index) * encoder(index.flip(1))).sum())
    assert relative(twice, once) <= 1e-12


def test_second_derivatives_pass(generator):
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    ask = chunked(lambda i: (weight * i.sum(-1)).sin(), 2)
    index = torch.randint(0, 5, (1, 5, 3), generator=generator)
    (slope,) = torch.autograd.grad(ask(index).sum(), weight, create_graph=True)
    (curve,) = torch.autograd.grad(slope, weight)
    total = index.sum(-1)
    assert torch.isclose(curve, -(total**2 * (weight * total).sin()).sum())


def test_without_gradient_nothing_is_recorded(generator):
    encoder = Encoder(generator)
    index = torch.randint(0, 2, (2, 12, GRID.n_sites), generator=generator)
    with torch.no_grad():
        assert not chunked(encoder, 5)(index).requires_grad


@pytest.mark.parametrize("size", [0, -3])
def test_empty_chunks_are_refused(size):
    with pytest.raises(ValueError, match="size >= 1"):
        chunked(lambda i: i, size)
