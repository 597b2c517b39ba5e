import pytest
import torch
from torch import nn

from tests.bench.stages import Stages, product_rate, products_of_a_cube, stages_of
from tests.bench.training import Setting, Training


def test_an_inner_stage_does_not_count_for_the_outer_one(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0, 15.0, 100.0])
    monkeypatch.setattr("tests.bench.stages.process_time", lambda: next(now))
    stages = Stages()
    with stages.stage("outer"):
        stages.wrapped("inner", lambda: None)()
    assert stages.seconds == {"outer": 2.0 + 8.0, "inner": 4.0}


def test_stages_of_a_step_are_all_there_and_the_model_is_left_alone():
    shape = (16, 16, 16)
    training = Training(Setting(shape=shape, batch=4, rank=3, source="formula"), warm=2)
    found = stages_of(training, 2)
    assert len(found) == 11
    assert min(found.values()) > 0
    assert stages_of.__module__ != training.encoder.forward.__module__
    assert "forward" not in vars(training.encoder)
    assert torch.Tensor.backward.__module__ == "torch._tensor"


def test_products_are_those_of_a_layer():
    layer = nn.Conv3d(1, 5, 3)
    forward, backward = products_of_a_cube(layer, 9)
    assert forward == 2 * 7**3 * 5 * 27
    assert backward == forward  # the input has no gradient
    assert product_rate(64, 2) > 0


@pytest.mark.parametrize("variant", ["fast", "paper"])
def test_a_cube_costs_about_twice_as_much_backward(variant):
    encoder = Training(
        Setting(shape=(16,) * 3, batch=2, rank=2, variant=variant, source="formula"), warm=0
    ).encoder
    forward, backward = products_of_a_cube(encoder, 9)
    assert 1 < backward / forward < 2
