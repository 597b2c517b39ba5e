"""The Dice coefficient: golden numbers, sums over batches, classes nobody has."""

import pytest
import torch

from cpic.nn.metrics import Dice, dice

PREDICTED = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])
TRUE = torch.tensor([0, 1, 1, 1, 2, 0, 2, 0])


def test_golden_numbers():
    # Of class 0: 2 in both of 3 and 3; class 1: 2 of 2 and 3; class 2: 2 of 3 and 2.
    wanted = torch.tensor([4 / 6, 4 / 5, 4 / 5, torch.nan], dtype=torch.float64)
    found = dice(PREDICTED, TRUE, n_classes=4)
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-15, atol=0)
    assert dice(TRUE, TRUE, n_classes=3).tolist() == [1, 1, 1]
    assert dice(torch.tensor([0, 0]), torch.tensor([1, 1]), n_classes=2).tolist() == [0, 0]


def test_sums_and_not_means_of_batches(generator):
    one, other = torch.randint(0, 3, (2, 50), generator=generator)
    parts = [Dice(3), Dice(3)]
    parts[0].add(one[:7], other[:7])
    parts[0].add(one[7:11], other[7:11])
    parts[1].add(one[11:], other[11:])
    whole = dice(one, other, n_classes=3)
    assert torch.equal((parts[0] + parts[1]).value, whole)
    assert torch.equal(dice(one.view(5, 10), other.view(5, 10), n_classes=3), whole)
    for k in range(3):
        p, t = one == k, other == k
        assert whole[k] == 2 * (p & t).sum().double() / (p.sum() + t.sum())


def test_the_largest_score_counts(generator):
    scores = torch.rand(4, 6, 3, generator=generator, requires_grad=True)
    true = torch.randint(0, 3, (4, 6), generator=generator)
    assert torch.equal(dice(scores, true, n_classes=3), dice(scores.argmax(-1), true, n_classes=3))


def test_labels_of_any_integer_type_and_no_position():
    assert torch.equal(
        dice(PREDICTED.byte(), TRUE.short(), n_classes=3), dice(PREDICTED, TRUE, n_classes=3)
    )
    assert Dice(2).value.isnan().all()
    assert dice(torch.zeros(0).long(), torch.zeros(0).long(), n_classes=2).isnan().all()
    overlap = Dice(2)
    overlap.add(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert repr(overlap) == "Dice([0.6667, 0.0], 2 positions)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Dice(1), "n_classes >= 2"),
        (lambda: Dice(2.0), "n_classes >= 2"),
        (lambda: dice(PREDICTED, TRUE[:3], n_classes=3), "same shape"),
        (lambda: dice(PREDICTED, TRUE.double(), n_classes=3), "integer targets"),
        (lambda: dice(torch.rand(8, 2), TRUE, n_classes=3), "3 classes in the last axis"),
        (lambda: dice(PREDICTED, TRUE, n_classes=2), "0 to 1 in predictions, got 0 to 2"),
        (lambda: dice(PREDICTED, TRUE - 1, n_classes=3), "in target, got -1 to 1"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
