"""Old names go on working for one version, and say what they are called now."""

import importlib
import inspect

import pytest
import torch

from cpic import cohorts, data
from cpic._renamed import renamed
from cpic.cohorts import synthetic
from cpic.train import brats


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("cpic.data.cohorts", "read_brats", cohorts),
        ("cpic.data.cohorts", "read_series", data),
        ("cpic.data.synthetic", "make_brats_like", synthetic),
    ],
)
def test_moved_modules_find_their_names(old, name, new):
    with pytest.warns(FutureWarning, match=f"{old}.{name} is now {new.__name__}.{name}; "):
        assert getattr(importlib.import_module(old), name) is getattr(new, name)


@pytest.mark.parametrize("name", ["nothing", "_cache", "__path__"])
def test_moved_modules_have_no_other_names(name):
    with pytest.raises(AttributeError, match=name):
        getattr(importlib.import_module("cpic.data.cohorts"), name)


@renamed(looks="n_sweeps")
def search(*, n_sweeps=4):
    return n_sweeps


def test_old_arguments_are_taken_with_a_warning():
    with pytest.warns(FutureWarning, match="search: 'looks' is now 'n_sweeps'"):
        assert search(looks=7) == 7
    assert search(n_sweeps=3) == 3
    assert search() == 4
    assert list(inspect.signature(search).parameters) == ["n_sweeps"]


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="looks"):
        search(looks=7, n_sweeps=3)


OLD_CALLS = {
    "color": lambda: data.photograph("camera", colour=True),
    "centers": lambda: data.ArrayVolume(torch.rand(4, 4)).cubes(
        centres=torch.zeros(1, 2, dtype=torch.int64), size=3
    ),
    "standardize": lambda: brats.command.known("standardise", "a file"),
}


@pytest.mark.parametrize("new", OLD_CALLS)
def test_british_names_of_arguments_still_answer(new):
    with pytest.warns(FutureWarning, match=f"is now '{new}'"):
        OLD_CALLS[new]()
