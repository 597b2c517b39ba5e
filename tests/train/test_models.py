"""Options of models by name: those of today, and those that old checkpoints hold."""

import warnings

import pytest

from cpic.nn import Reading, Search
from cpic.options import Network
from cpic.train.tasks._models import check_model, make_module

CONFIG = {
    "task": "brats", "model": "cpic", "shape": (8, 8, 8), "channels": 1, "n_tabular": 0, "rank": 3,
    "ndims": 2, "encoder": "fast", "chunk": 64, "precision": 32, "lr": 1e-3, "seed": 0,
}  # fmt: skip
OLD = {"looks": 2, "starts": 8, "centre": False, "components": {"follow": None}, "n_features": 2}
NEW = {"n_sweeps": 2, "n_warm_starts": 8, "centered": False} | {
    name: OLD[name] for name in ("components", "n_features")
}


@pytest.mark.parametrize("more", [OLD, NEW], ids=["old", "new"])
def test_a_checkpoint_says_the_options_of_its_model(more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_module({**CONFIG, "more": more}).model
    assert model.search == Search(rank=3, n_sweeps=2, n_warm_starts=8)
    assert model.reading == Reading(centered=False, chunk=64)
    made = model.components
    assert (made.rank, made.follow, made.max_rank) == (2, None, 6)


def test_old_names_of_more_options_are_taken_with_a_warning():
    check_model("cpic", Network(more=NEW), 20)
    for old, new in (("looks", "n_sweeps"), ("starts", "n_warm_starts"), ("centre", "centered")):
        with pytest.warns(FutureWarning, match=f"more.{old} is now more.{new}"):
            check_model("tt_mlp", Network(more={old: OLD[old]}), 20)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"components": {"refresh": 0}},
            "Components needs `refresh` to be an integer of at least 1",
        ),
        ({"components": {"momentum": -1.0}}, "needs 0 <= momentum"),
        ({"n_sweeps": 0}, "Search needs `n_sweeps` to be an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_rejected_before_data_are_read(more, message):
    with pytest.raises(ValueError, match=message):
        check_model("cpic", Network(more=more), 20)


@pytest.mark.parametrize("name", ["rank", "chunk", "generator", "search", "nothing"])
def test_options_that_are_set_elsewhere_are_no_more_options(name):
    with pytest.raises(ValueError, match="there is no setting"):
        check_model("cpic", Network(more={name: 3}), 20)
