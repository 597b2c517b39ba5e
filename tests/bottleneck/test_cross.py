"""Cross remembers its sets: it alternates, follows a changing tensor, and resumes."""

import pytest
import torch

from cpic.bottleneck import Cross
from cpic.tt import IndexSets, TensorTrain, cap_ranks, cross, dense_entries

SIZES = (3, 4, 5, 4, 3)


def of_rank(rank, generator):
    ranks = cap_ranks(SIZES, rank)
    shapes = zip(ranks[:-1], SIZES, ranks[1:], strict=True)
    return TensorTrain(
        [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    ).full()


def test_directions_alternate_in_training_only(generator):
    made, full = Cross(SIZES, rank=3, n_trains=2, generator=generator), of_rank(3, generator)
    seen = []
    for _ in range(3):
        seen.append(made.towards)
        made(dense_entries(full))
    assert seen == ["right", "left", "right"]
    made.eval()
    sets = made.sets
    assert torch.allclose(made(dense_entries(full)).full(), full, atol=1e-9)
    assert made.sets is sets
    assert made.towards == "left"


def test_the_sets_improve_from_call_to_call():
    x = torch.linspace(0, 1, 2**12, dtype=torch.float64)
    full = (1 / (1 + 25 * (2 * x - 1) ** 2)).view(1, *(2,) * 12)
    made, errors = Cross(full.shape[1:], rank=5, generator=torch.Generator().manual_seed(1)), []
    for _ in range(6):
        errors.append((made(dense_entries(full)).full() - full).norm().item())
    assert errors[-1] <= 0.3 * errors[0]


def test_sets_of_a_search_are_a_start(generator):
    full = of_rank(3, generator)
    found = cross(
        dense_entries(full), SIZES, n_trains=2, rank=3, generator=generator, method="square"
    )
    made = Cross(SIZES, rank=3, n_trains=2, sets=found.sets)
    made.eval()
    assert torch.allclose(made(dense_entries(full)).full(), full, atol=1e-8)


def test_adapted_ranks_follow_the_tensor(generator):
    made = Cross(SIZES, rank=9, n_trains=2, generator=generator, tol=1e-9)
    for rank in (4, 6, 2, 1, 3):
        full = of_rank(rank, generator)
        made.adapt(by=2)
        train = made(dense_entries(full))
        for _ in range(2):
            assert train.ranks == cap_ranks(SIZES, rank)
            assert torch.allclose(train.full(), full, atol=1e-8)
            made.eval()  # also right after ranks fell towards the left
            assert torch.allclose(made(dense_entries(full)).full(), full, atol=1e-8)
            made.train()
            train = made(dense_entries(full))


def test_a_resumed_run_takes_the_same_steps(generator, tmp_path):
    def steps(made, first, last):
        fulls = []
        for step in range(first, last):
            full = of_rank(2 + step % 4, torch.Generator().manual_seed(step))
            made.adapt(by=1)
            fulls.append(made(dense_entries(full)).full())
        return torch.stack(fulls)

    made = Cross(SIZES, rank=7, n_trains=2, generator=generator, tol=1e-9)
    steps(made, 0, 5)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    through = steps(made, 5, 10)
    other = torch.Generator().manual_seed(99)
    again = Cross(SIZES, rank=7, n_trains=2, generator=other, tol=1e-9)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.towards == "left"
    assert torch.equal(steps(again, 5, 10), through)


def test_a_state_of_other_tensors_is_refused(generator):
    state = Cross(SIZES, rank=2, n_trains=2, generator=generator).state_dict()
    made = Cross(SIZES, rank=2, n_trains=3, generator=generator)
    with pytest.raises(ValueError, match="3 tensors of sizes"):
        made.load_state_dict(state)
    with pytest.raises(ValueError, match=r"1 tensors of sizes"):
        Cross(SIZES, sets=IndexSets.random((4, 4), 2, generator=generator))


def test_adapting_needs_a_tolerance(generator):
    with pytest.raises(ValueError, match="tol"):
        Cross(SIZES, generator=generator).adapt()
    with pytest.raises(ValueError, match="by >= 1"):
        Cross(SIZES, generator=generator, tol=0.1).adapt(by=0)


def test_conditions_tell_of_deficient_pivots(generator):
    made = Cross(SIZES, rank=3, n_trains=2, generator=generator)
    full = of_rank(3, generator)
    full[1] = 0
    made(dense_entries(full))
    assert made.condition.shape == (2, 4)
    assert (made.condition[0] < 1e8).all()
    assert made.condition[1].isinf().all()


def test_conversion_of_a_model_leaves_the_sets_integer(generator):
    made = torch.nn.ModuleDict({"cross": Cross(SIZES, rank=3, generator=generator)}).half()
    assert made["cross"].sets.left[1].dtype == torch.int64
