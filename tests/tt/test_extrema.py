"""Extrema: right values and places, also when one of them is zero."""

import pytest
import torch

from cpic.tt import find_extrema


def check(entries, found):
    both = torch.stack([found.argmin, found.argmax], 1)
    torch.testing.assert_close(
        entries(both), torch.stack([found.minimum, found.maximum], 1).to(entries(both).dtype)
    )


def test_waves_and_a_bump(generator):
    def entries(i):
        x = i.double()
        return torch.cos(0.13 * (x - 40)).prod(-1) * torch.exp(-((x - 100) ** 2).sum(-1) / 5000)

    grid = torch.stack(torch.meshgrid(*[torch.arange(150)] * 3, indexing="ij"), -1)
    truth = entries(grid)
    found = find_extrema(entries, (150,) * 3, generator=generator)
    assert float(found.minimum) == pytest.approx(float(truth.min()))
    assert float(found.maximum) == pytest.approx(float(truth.max()))
    assert found.n_evals < truth.numel() // 20
    check(entries, found)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_extremum_of_exactly_zero(sign, generator):
    def entries(i):
        return sign * ((i - 5) ** 2).sum(-1).double()

    found = find_extrema(entries, (16,) * 5, generator=generator)
    zero, place = (found.minimum, found.argmin) if sign > 0 else (found.maximum, found.argmax)
    assert float(zero) == 0.0
    assert place.tolist() == [[5] * 5]


def test_every_tensor_of_a_batch(generator):
    target = torch.tensor([[3, 14, 15, 9, 2], [6, 5, 3, 5, 8]])

    def entries(i):
        return -((i - target[:, None]) ** 2).sum(-1).double()

    found = find_extrema(entries, (16,) * 5, n_trains=2, generator=generator)
    assert torch.equal(found.argmax, target)


@pytest.mark.parametrize("sizes", [(7,), (1, 1), (5, 4, 3), (3,) * 9])
def test_small_and_constant_tensors(sizes, generator):
    found = find_extrema(lambda i: torch.full(i.shape[:-1], 2.5), sizes, generator=generator)
    assert float(found.minimum) == float(found.maximum) == 2.5


@pytest.mark.parametrize(("dtype", "top"), [(torch.float64, 1.7e308), (torch.float32, 3.3e38)])
def test_values_near_the_largest_number(dtype, top, generator):
    def entries(i):
        return (top * (i.double().mean(-1) / 5.5 - 1)).to(dtype)

    found = find_extrema(entries, (12,) * 5, generator=generator, dtype=dtype)
    assert (found.argmin.tolist(), found.argmax.tolist()) == ([[0] * 5], [[11] * 5])
    assert [float(found.minimum), float(found.maximum)] == pytest.approx([-top, top], rel=1e-6)


def test_nan_is_refused(generator):
    with pytest.raises(ValueError, match="finite"):
        find_extrema(lambda i: torch.full(i.shape[:-1], torch.nan), (9,) * 3, generator=generator)


def test_places_are_those_that_were_asked_for(generator):
    def entries(indices):
        indices[..., 0] = 19 - indices[..., 0]  # its own copy
        return (-0.1 * indices.double() @ torch.tensor([1.0, 0.3, 0.2, 0.1]).double()).exp()

    found = find_extrema(entries, (20,) * 4, generator=generator)
    assert found.argmax.tolist() == [[19, 0, 0, 0]]
    assert found.argmin.tolist() == [[0, 19, 19, 19]]


@pytest.mark.parametrize("name", ["n_trains", "n_probes", "n_starts"])
def test_nothing_to_begin_with_is_one_clear_error(name, generator):
    with pytest.raises(ValueError, match=f"find_extrema needs .*{name}"):
        find_extrema(lambda i: i.sum(-1), (16,) * 4, generator=generator, **{name: 0})
