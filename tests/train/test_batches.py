"""Batches hold what they should, in an order of their own for each epoch, or say what is wrong."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpic._errors import CohortError, VolumeError
from cpic.train.loop._plan import plan_epoch, plan_flips, share_of
from cpic.train.loop._splits import split_selection
from tests.train.tiny import Scans, make_data, table


def patients_of(visits):
    return [f"p{k}" for k, n in enumerate(visits) for _ in range(n)]


@settings(deadline=None, max_examples=50)
@given(
    visits=st.lists(st.integers(1, 9), min_size=6, max_size=20),
    batch_size=st.integers(4, 9),
    seed=st.integers(0, 2**40),
    drop_last=st.booleans(),
)
def test_a_plan_holds_each_sample_once(visits, batch_size, seed, drop_last):
    patients = patients_of(visits)
    options = {"batch_size": batch_size, "min_patients": 1, "drop_last": drop_last, "seed": seed}
    plan = plan_epoch(patients, epoch=3, **options)
    flat = [k for batch in plan for k in batch]
    assert len(flat) == len(set(flat))
    lost = len(patients) % batch_size if drop_last else 0
    assert len(flat) == len(patients) - lost
    assert {len(batch) for batch in plan[:-1]} <= {batch_size}
    assert plan == plan_epoch(patients, epoch=3, **options)


def test_every_epoch_and_seed_has_another_order():
    options = {"batch_size": 5, "min_patients": 1, "drop_last": True}
    plans = [
        plan_epoch(patients_of([1] * 50), epoch=epoch, seed=seed, **options)
        for epoch in range(10)
        for seed in (0, 1, 42)
    ]
    assert all(a != b for k, a in enumerate(plans) for b in plans[:k])


@pytest.mark.parametrize("epoch", range(5))
def test_every_batch_has_enough_patients(epoch):
    # A plain shuffle of these gives 9 patients of 10 samples with a chance below a third.
    patients = patients_of([9] * 20)
    options = {"batch_size": 10, "drop_last": True, "seed": 0, "epoch": epoch}
    plan = plan_epoch(patients, min_patients=9, **options)
    assert min(len({patients[k] for k in batch}) for batch in plan) >= 9
    assert plan != sorted(plan)


def test_a_plan_without_enough_patients_is_refused():
    with pytest.raises(CohortError, match="every batch of 4 samples needs 4 patients"):
        plan_epoch(
            patients_of([20, 1, 1, 1]),
            batch_size=4,
            min_patients=4,
            drop_last=True,
            seed=0,
            epoch=0,
        )


def test_patients_who_choose_the_epoch_are_not_trained_on():
    data, whole = make_data(selection=["p05", "p06"], visits=2), make_data(visits=2)
    trained = {name for batch in data.train_dataloader() for name in batch["names"]}
    assert not trained & {"p05", "p06"}
    assert data.train.patients == [p for p in whole.train.patients if p not in ("p05", "p06")]
    validation, selection = data.val_dataloader()
    assert sorted({n for batch in selection for n in batch["names"]}) == ["p05", "p06"]
    assert sum(len(batch["target"]) for batch in selection) == 4
    assert sum(len(batch["target"]) for batch in validation) == 8
    assert data.fingerprint != whole.fingerprint == make_data(selection=(), visits=2).fingerprint
    with pytest.raises(CohortError, match=r"must be training patients, got 1 others, .* p00"):
        make_data(selection=["p00", "p05"])
    with pytest.raises(CohortError, match="got 3; lower the batch size or `selection`"):
        make_data(8, selection=["p05"])


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 60),
    share=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**40),
)
def test_a_selection_is_a_random_part_of_the_patients(n, share, seed):
    names = [f"p{k:02d}" for k in range(n)]
    used, chosen = split_selection(names, share, generator=torch.Generator().manual_seed(seed))
    assert sorted(used + chosen) == names
    assert (used, chosen) == (sorted(used), sorted(chosen))
    assert used
    assert len(chosen) == (min(max(1, round(share * n)), n - 1) if share else 0)


def test_a_selection_depends_on_the_seed_alone():
    names = [f"p{k:02d}" for k in range(60)]
    drawn = [
        split_selection(names, 0.15, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_a_batch_by_patients(size):
    patients = patients_of([3, 1, 4, 2, 2])
    batch = [4, 0, 7, 1, 9, 10, 2, 3]
    shares = [share_of(batch, patients, rank, size) for rank in range(size)]
    assert sorted(k for share in shares for k in share) == sorted(batch)
    owners = [{patients[k] for k in share} for share in shares]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert max(map(len, owners)) - min(map(len, owners)) <= 1


def test_more_processes_than_patients_are_refused():
    with pytest.raises(CohortError, match="3 processes need as many patients"):
        share_of([0, 1, 2], ["a", "a", "b"], 0, 3)


@pytest.mark.parametrize("read", [False, True])
def test_a_batch_names_each_patient_once(read):
    def tabular(rows):
        return torch.tensor(rows[["weeks"]].to_numpy())

    data = make_data(8, batch_size=12, validation=2, visits=4, tabular=tabular, read=read)
    samples = table(Scans(8), visits=4)
    (first, second) = data.train_dataloader()
    for batch in (first, second):
        assert len(set(batch["names"])) == len(batch["names"]) == len(batch["volumes"])
        names = [batch["names"][row] for row in batch["rows"]]
        known = zip(samples["patient"], samples["weeks"], samples["target"], strict=True)
        known = {(name, week): target for name, week, target in known}
        got = zip(names, batch["tabular"][:, 0].tolist(), batch["target"].tolist(), strict=True)
        assert all(known[name, week] == target for name, week, target in got)
        assert batch["scale"].tolist() == [1825.0] * 12
        for name, volume in zip(batch["names"], batch["volumes"], strict=True):
            assert torch.equal(volume.read(), data.volumes[name].read())
            assert (volume is data.volumes[name]) is not read


def test_coins_of_all_epochs_patients_and_axes_are_fair():
    patients = patients_of([2] * 40)
    drawn = [plan_flips(patients, (0, 2), seed=7, epoch=epoch) for epoch in range(25)]
    assert drawn[3] == plan_flips(patients, (0, 2), seed=7, epoch=3) != drawn[4]
    seen = Counter(axes for flips in drawn for axes in flips.values())
    assert set(seen) == {(), (0,), (2,), (0, 2)}
    # 1000 draws of four kinds: 250 each, with a deviation of 14.
    assert all(abs(n - 250) < 70 for n in seen.values())


@pytest.mark.parametrize("read", [False, True])
def test_mirrored_scans_have_names_of_their_own(read):
    data = make_data(24, batch_size=8, validation=4, visits=2, flips=(1, 2), read=read)
    batches = list(data.train_dataloader())
    pairs = {
        n: v for batch in batches for n, v in zip(batch["names"], batch["volumes"], strict=True)
    }
    assert {name.partition(" ")[2] for name in pairs} == {"", "(1,)", "(2,)", "(1, 2)"}
    for name, volume in pairs.items():
        patient, _, axes = name.partition(" ")
        whole = data.volumes[patient].read()
        assert torch.equal(volume.read(), whole.flip([int(c) for c in axes if c.isdigit()]))
    assert all(n in data.volumes for batch in data.val_dataloader() for n in batch["names"])


def test_rows_point_to_mirrored_scans():
    data = make_data(12, batch_size=8, validation=4, visits=2, flips=(0,))
    plain = make_data(12, batch_size=8, validation=4, visits=2)
    for a, b in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
        assert torch.equal(a["rows"], b["rows"])
        assert [name.split(" ")[0] for name in a["names"]] == b["names"]
        assert torch.equal(a["target"], b["target"])


def test_an_axis_that_is_not_there_is_refused_at_once():
    with pytest.raises(VolumeError, match=r"different axes from 0 to 2, got \(3,\)"):
        make_data(flips=(3,))


def test_workers_read_the_same_volumes():
    loaders = [make_data(read=True, num_workers=n).train_dataloader() for n in (0, 1)]
    for a, b in zip(*loaders, strict=True):
        assert a["names"] == b["names"]
        assert all(
            torch.equal(x.read(), y.read()) for x, y in zip(a["volumes"], b["volumes"], strict=True)
        )


def test_validation_takes_every_sample_once_in_order():
    data = make_data(9, batch_size=4, validation=3, visits=3)
    batches = list(data.val_dataloader())
    assert [len(batch["target"]) for batch in batches] == [4, 4, 1]
    assert torch.equal(torch.cat([b["target"] for b in batches]), data.validation.target)


@pytest.mark.parametrize("flips", [(), (0, 1)])
def test_a_resumed_epoch_leaves_out_what_was_seen(flips):
    whole = [batch["names"] for batch in make_data(flips=flips).train_dataloader()]
    data = make_data(flips=flips)
    data.start = (0, 2)
    rest = data.train_dataloader()
    assert len(rest) == 1
    assert [batch["names"] for batch in rest] == whole[2:]


def test_making_batches_draws_no_random_numbers():
    state = torch.get_rng_state()
    list(make_data().train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_column_scales_and_the_fingerprint_follows_the_targets():
    data = make_data(scale="first")
    assert data.validation.scale.tolist() == [2000.0] * 4
    samples = table(Scans(16))
    assert make_data(samples=samples).fingerprint == make_data().fingerprint
    samples.loc[3, "target"] += 1e-9
    assert make_data(samples=samples).fingerprint != make_data().fingerprint


def edited(column, row, value):
    samples = table(Scans(16))
    samples.loc[row, column] = value
    return samples


WRONG = {
    "smaller than rank": ({"min_patients": 5}, "a batch needs at least 5 samples, as many as the"),
    "one patient": ({"n": 5, "validation": 4}, "needs at least 2 patients in the training fold"),
    "fewer patients than rank": (
        {"n": 10, "visits": 9, "validation": 4, "batch_size": 9, "min_patients": 7},
        "needs at least 7 patients in the training fold, got 6",
    ),
    "no batch": ({"n": 10, "batch_size": 7}, "a batch of 7 needs as many training samples, got 6"),
    "equal targets": ({"samples": edited("target", slice(None), 0.5)}, "got 12 times 0.5; there"),
    "NaN target": ({"samples": edited("target", 7, math.nan)}, "target that is not .* of p07;"),
    "infinite scale": (
        {"samples": edited("first", 2, math.inf), "scale": "first"},
        "a scale that is not in 1 validation samples, the first of p02",
    ),
    "NaN feature": (
        {"tabular": lambda rows: torch.full((len(rows), 1), math.nan)},
        "a tabular that is not in 12 training",
    ),
    "shape of features": ({"tabular": lambda rows: torch.zeros(3)}, r"need shape \(12, t\), got"),
    "no sample": ({"fold": (["p00", "p01", "p99"], ["p03"])}, "1 of 3 without, the first is p99"),
    "both sides": ({"fold": (["p00", "p01"], ["p01"])}, "got 1 in both, the first is p01"),
    "empty side": ({"fold": (["p00", "p01"], [])}, "each validation patient needs a sample"),
    "no column": ({"scale": "days"}, "samples need the column days"),
    "no scan": (
        {"scans": Scans(16, missing=("p05",)), "fold": (["p04", "p05", "p06", "p07"], ["p00"])},
        "patient p05 has no scan",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "-"))
def test_bad_input_is_one_clear_error(case):
    options, message = WRONG[case]
    if case == "no scan":
        options = {**options, "samples": table(Scans(16))}
    with pytest.raises(CohortError, match=message) as caught:
        make_data(**options)
    assert "\n" not in str(caught.value)


def test_counts_of_samples_are_spread():
    data = make_data(20, batch_size=5, validation=4, visits=2)
    seen = Counter()
    for batch in data.train_dataloader():
        seen.update(batch["names"][row] for row in batch["rows"])
    assert sum(seen.values()) == 30
    assert max(seen.values()) == 2
