"""Options of models by name: those of today, and those that old checkpoints hold."""

import warnings
from itertools import pairwise

import pytest
import torch

from cpic.data import ArrayVolume
from cpic.nn import Positions, Reading, Search, spectral
from cpic.options import Model, Network
from cpic.train.loop._task import SCHEDULES
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


LEARNS = {
    "positions": "grid", "budget": 60, "features": ("moments", "maximum"), "norm": "layer",
    "activation": "gelu", "last": "linear", "optimizer": "adamw", "weight_decay": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("task", ["brats", "osic"])
def test_a_model_is_built_from_all_of_its_options(task):
    module = make_module({**CONFIG, **LEARNS, "task": task, "n_tabular": 1, "more": {}})
    model = module.model
    assert model.positions == Positions(by="grid", budget=60)
    assert model.features == ("moments", "maximum")
    kinds = {type(layer).__name__ for layer in model.modules()}
    assert {"GELU", "LayerNorm", "Identity"} <= kinds
    assert not {"Sigmoid", "BatchNorm1d"} & kinds
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["cpic", "tt_mlp", "resnet34", "downsample"])
def test_layers_of_few_numbers_in_all_networks_of_a_model(name):
    few, plain = (
        make_module({**CONFIG, "model": name, "more": {}, **layers}).model
        for layers in ({"layers": "sttp", "layers_rank": 4}, {})
    )
    assert sum(p.numel() for p in few.parameters()) < sum(p.numel() for p in plain.parameters())
    layered = {
        key for key, one in plain.named_modules() if hasattr(one, "weight") and one.weight.ndim > 1
    }
    assert {one.name for one in spectral.report(few) if one.kind == "sttp"} == layered
    weights = dict(plain.named_modules())
    for one in spectral.report(few):
        # Each layer starts with the norm of the one that it replaces.
        weight = few.get_submodule(one.name).weight
        torch.testing.assert_close(weight.norm(), weights[one.name].weight.norm())
        assert torch.linalg.matrix_rank(weight.flatten(1)) <= 4


def test_layers_are_for_networks():
    with pytest.raises(
        ValueError, match='blocks has no layers to make of few numbers, got layers "sttp"'
    ):
        check_model("blocks", Network(layers="sttp"), 20)


def test_an_encoder_of_scales_and_a_residual_in_the_loss(generator):
    options = {"scales": [1, 3], "correction": 20, "residual": 0.5, "more": {}}
    task = make_module({**CONFIG, **options})
    assert task.model.encoder.scales == (1, 3)
    volumes = [ArrayVolume(torch.rand(8, 8, 8, generator=generator)) for _ in range(3)]
    batch = {"volumes": volumes, "names": list("abc"), "rows": None, "tabular": None}
    batch["target"] = torch.rand(3, generator=generator)
    predicted = task.train()(batch)
    found, plain = task.total(predicted, batch), task.loss(predicted, batch)
    torch.testing.assert_close(found, plain + 0.5 * task.model.residual(), check_dtype=False)
    assert found > plain
    assert make_module({**CONFIG, "more": {}}).total(predicted, batch) == plain


def test_a_checkpoint_without_these_options_is_the_published_model():
    model = make_module({**CONFIG, "more": {}}).model
    assert (model.positions.by, model.features) == ("cross", ("components",))
    assert isinstance(model.encoder.layers[-1], torch.nn.Sigmoid)
    assert isinstance(make_module({**CONFIG, "more": {}}).configure_optimizers(), torch.optim.RAdam)


def test_osic_has_no_batch_norm():
    with pytest.raises(ValueError, match='osic needs norm "layer" or "none", got "batch"'):
        make_module({**CONFIG, "task": "osic", "n_tabular": 1, "norm": "batch", "more": {}})


def test_without_components_a_batch_may_be_smaller_than_the_rank():
    check_model("cpic", Model(rank=10, features=("maximum",)), 2)
    with pytest.raises(ValueError, match="a run needs rank between 1 and batch_size, 2"):
        check_model("cpic", Model(rank=10), 2)


def test_one_cycle_rises_and_falls():
    factors = [SCHEDULES["onecycle"](done / 100) for done in range(101)]
    assert factors[0] == pytest.approx(0.04)
    assert factors[30] == pytest.approx(1)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in pairwise(factors[:31]))
    assert all(a > b for a, b in pairwise(factors[30:]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "random"}, "positions in a fixed order for components"),
        ({"positions": "random", "features": ("learned",)}, "a fixed order for learned"),
        ({"features": ("learned",), "rank": 30}, "rank between 1 and batch_size, 20"),
        ({"positions": "grid", "correction": 9}, "nothing to correct"),
        ({"features": ("maximum", "maximum")}, "one or more different names"),
        ({"scales": (1, 1)}, "a run needs scales as one or more different integers"),
        ({"scales": (1, 10**6)}, "from 1 to 65536"),
        ({"residual": 0.1}, "needs a correction for a residual of 0.1 in the loss, got 0"),
        ({"features": ("maximum",), "more": {"n_sweeps": 0}}, "n_sweeps"),
    ],
)
def test_choices_that_do_not_fit_are_refused_before_data_are_read(options, message):
    with pytest.raises(ValueError, match=message):
        check_model("cpic", Model(**options), 20)
