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
    assert loaded_after("import cpic.train, sys; assert 'torch' not in sys.modules") == []
    loaded = loaded_after("from cpic.train import fit_fold")
    assert "lightning" in loaded
    # Lightning's own metrics draw, where matplotlib is installed.
    assert set(loaded) <= {"lightning", "matplotlib"}


ANSWERS = {
    "brats --help": 0,
    "baseline --print_config": 0,
    "osic --preset quick --print_config": 0,
    "brats --rnak 3": 2,
    "brats --optimization.lr -1": 2,
    "predict --out": 2,
    "predict --help": 0,
}


@pytest.mark.parametrize("words", ANSWERS)
def test_what_trains_nothing_is_answered_without_torch(words):
    code = (
        "import sys\nfrom cpic.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as left: code = left.code\n"
        "print(code, *{'torch', 'lightning'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"{ANSWERS[words]}"


def test_only_training_loads_lightning():
    others = "cpic.data, cpic.cohorts, cpic.cohorts.synthetic, cpic.show, cpic.cli"
    assert "lightning" not in loaded_after(f"import {others}")


def test_the_package_alone_loads_no_torch():
    assert loaded_after("import cpic, sys; assert 'torch' not in sys.modules") == []


@pytest.mark.parametrize("name", ["pandas"])
def test_a_heavy_import_is_seen(name):
    pytest.importorskip(name)
    assert loaded_after(f"import {name}") == [name]
