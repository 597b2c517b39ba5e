"""C-PIC on cubes that its attention chose among many, without gradient."""

import pytest
import torch

from cpic.data import ArrayVolume
from cpic.nn import CPIC, CubeEncoder, Positions, TwoHeadRegressor
from cpic.nn._positions import chosen

SHAPE, BUDGET = (16, 16, 16), 20


def model(**options):
    torch.manual_seed(0)
    return CPIC(
        CubeEncoder(4, variant="fast"),
        TwoHeadRegressor(4),
        shape=SHAPE,
        positions=Positions(by="attended", budget=BUDGET),
        features=options.pop("features", ("attention",)),
        generator=torch.Generator().manual_seed(0),
    ).eval()


def test_the_best_of_a_dense_grid_are_read_again_with_gradient():
    volume = ArrayVolume(torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)))
    net = model()
    encoded = net.encode([volume], ["a"])
    at, _, _ = chosen(SHAPE, "grid", 8 * BUDGET, None, torch.device("cpu"))
    with torch.no_grad():
        vectors = net._entries([volume], remember=False).vectors(at)
        logits = net.pooled.logits(vectors.to(net.pooled.logits.weight))[0, :, 0]
    wanted = vectors[0, logits.topk(BUDGET).indices]
    found, owner = encoded.read
    torch.testing.assert_close(found, wanted)
    assert found.requires_grad
    assert owner.tolist() == [0] * BUDGET
    net([volume], ["a"]).sum().backward()
    assert all(one.grad is not None for one in net.encoder.parameters())


def test_integrals_need_positions_that_are_not_chosen_by_value():
    with pytest.raises(ValueError, match="attention"):
        model(features=("attention", "moments"))
