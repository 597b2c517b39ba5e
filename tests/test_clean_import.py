"""A fresh interpreter loads the core without any of the heavy optional packages."""

import subprocess
import sys

import pytest

HEAVY = ["matplotlib", "nibabel", "zarr", "sklearn", "pandas", "ipywidgets", "lightning", "monai"]
LOADED = f"import sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"


def loaded_after(statement):
    command = [sys.executable, "-c", f"{statement}; {LOADED}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_core_loads_nothing_heavy():
    core = "cpic, cpic.linalg, cpic.tt, cpic.bottleneck, cpic.project"
    networks = "cpic.nn, cpic.nn.baselines, cpic.nn.metrics, cpic.nn.patches"
    assert loaded_after(f"import {core}, {networks}") == []


def test_training_loads_lightning_and_nothing_before_it_is_used():
    loaded = loaded_after("import cpic.train")
    assert "lightning" in loaded
    # Lightning's own metrics draw, where matplotlib is installed.
    assert set(loaded) <= {"lightning", "matplotlib"}


def test_only_training_loads_lightning():
    others = "cpic.data, cpic.cohorts, cpic.cohorts.synthetic, cpic.show, cpic.cli"
    assert "lightning" not in loaded_after(f"import {others}")


def test_the_package_alone_loads_no_torch():
    assert loaded_after("import cpic, sys; assert 'torch' not in sys.modules") == []


@pytest.mark.parametrize("name", ["pandas"])
def test_a_heavy_import_is_seen(name):
    pytest.importorskip(name)
    assert loaded_after(f"import {name}") == [name]
