"""A basis that is a parameter: it begins at the components, and a loss turns it."""

import pytest
import torch

from cpic.nn import Components, Positions, count_features
from cpic.nn._learned import Learned
from cpic.tt import TensorTrain
from tests.nn.test_features import ALL, NAMES, dense, model, volumes

SIZES, RANKS = (3, 4, 2), (1, 2, 2, 1)
WHERE = {
    "cross": "cross",
    "corrected": Positions(correction=ALL.budget),
    "grid": Positions(by="grid", budget=60),
    "fine": Positions(by="grid+peaks", budget=80),
}


def trains(generator, n=5):
    shapes = [(n, a, size, b) for a, size, b in zip(RANKS, SIZES, RANKS[1:], strict=False)]
    parts = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return TensorTrain(parts)


@pytest.mark.parametrize("where", WHERE)
def test_features_begin_at_the_components(where, generator):
    cohort = volumes(generator)
    one, other = (
        model(WHERE[where], (kind,)).train().features_of(cohort, NAMES)
        for kind in ("learned", "components")
    )
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_step_turns_the_basis_and_the_loss_falls(generator):
    net, cohort = model(ALL, ("learned",)).train(), volumes(generator)
    optimizer = torch.optim.Adam(net.learned.parameters(), lr=3e-2)
    target = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (net.features_of(cohort, NAMES) - target).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.7 * found[0]


def test_features_are_inner_products_and_so_are_their_slopes(generator):
    made, given = Learned(2, SIZES, max_rank=3).train(), trains(generator)
    made(given)
    made.eval()
    with torch.no_grad():
        for core in made.cores:
            core += 0.1 * torch.randn(core.shape, generator=generator, dtype=core.dtype)
    unit = [core * (core.shape[1] * core.shape[2]) ** -0.5 for core in made.cores]
    basis = torch.einsum("rap,pbq,qcs->rabc", *unit)
    raw = torch.einsum("kabc,rabc->kr", given.full(), basis)
    wanted = (raw - made.mean) * made.variance.rsqrt()
    torch.testing.assert_close(made(given), wanted)
    found, dense_ones = (
        torch.autograd.grad(part.square().sum(), list(made.cores)) for part in (made(given), wanted)
    )
    torch.testing.assert_close(found, dense_ones)


def test_a_correction_by_all_voxels_is_exact_for_any_basis(generator):
    net, cohort = model(WHERE["corrected"], ("learned",), rank=2).train(), volumes(generator)
    net.features_of(cohort, NAMES)
    net.eval()
    with torch.no_grad():
        for core in net.learned.cores:
            core += 0.2 * torch.randn(core.shape, generator=generator, dtype=core.dtype)
    unit = [core * (core.shape[1] * core.shape[2]) ** -0.5 for core in net.learned.cores]
    lead = torch.eye(2, dtype=torch.float64)[None, None]
    basis = net.grid.join(TensorTrain([lead, *(core[None] for core in unit)]).full()[0])
    raw = torch.einsum("kxyzn,rxyzn->kr", dense(net, cohort), basis)
    found = net.features_of(cohort, NAMES)
    torch.testing.assert_close(found, (raw - net.learned.mean) * net.learned.variance.rsqrt())


@pytest.mark.parametrize("where", WHERE)
def test_an_optimizer_made_before_the_first_batch_moves_it_and_a_checkpoint_has_it(
    where, generator
):
    features = ("components", "learned", "maximum")
    net, cohort = model(WHERE[where], features).train(), volumes(generator)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    net(cohort, NAMES).square().sum().backward()
    assert all((core.grad != 0).any() for core in net.learned.cores)
    before = [core.detach().clone() for core in net.learned.cores]
    optimizer.step()
    assert not any(map(torch.equal, before, net.learned.cores))
    twin = model(WHERE[where], features, seed=1)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.eval()(cohort, NAMES), net.eval()(cohort, NAMES))
    assert net.features_of(cohort, NAMES).shape[1] == count_features(features, rank=3, n_dims=3)


def test_fewer_directions_than_ranks_leave_zeros(generator):
    few = trains(generator)
    same = TensorTrain([core[:1].expand(5, -1, -1, -1) for core in few.cores])
    found = Learned(3, SIZES, max_rank=8).train()(same)
    assert found.shape == (5, 3)
    assert not found.any()  # equal volumes


def test_single_precision_keeps_the_statistics_in_double(generator):
    made, given = Learned(2, SIZES, max_rank=3).train().float(), trains(generator)
    found = made(given)
    assert (found.dtype, made.mean.dtype) == (torch.float64, torch.float64)
    exact = Components(2, max_rank=3).train()(given)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_bad_input_is_one_sentence(generator):
    with pytest.raises(ValueError, match="Learned needs a basis, got none"):
        Learned(2, SIZES, max_rank=3).eval()(trains(generator))
    with pytest.raises(ValueError, match="Learned needs trains that are not all zero, got 5"):
        Learned(2, SIZES, max_rank=3)(0 * trains(generator))
    with pytest.raises(ValueError, match="first batch of at least 6 samples for 6"):
        Learned(6, SIZES, max_rank=3)(trains(generator))
    with pytest.raises(ValueError, match="positions in a fixed order for learned, got 'random'"):
        model("random", ("learned",))
    with pytest.raises(ValueError, match="Learned needs `max_rank`"):
        Learned(2, SIZES, max_rank=0)
