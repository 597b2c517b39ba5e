"""The scripts are no package: they find each other because they lie in one folder."""

import shutil
import sys
from pathlib import Path

import pytest

from cpic.cohorts.synthetic import make_brats_like, make_osic_like

SCRIPTS = Path(__file__).parents[2] / "data_scripts"
sys.path.insert(0, str(SCRIPTS))


@pytest.fixture(scope="session")
def brats_made(tmp_path_factory):
    """Five usable patients; the second of six is still alive."""
    root = tmp_path_factory.mktemp("brats")
    make_brats_like(root, n_patients=6, shape=(24, 24, 24))
    return root


@pytest.fixture(scope="session")
def osic_made(tmp_path_factory):
    """Four patients, of whom the last cannot be decoded."""
    root = tmp_path_factory.mktemp("osic")
    make_osic_like(root, n_patients=4, shape=(8, 32, 32))
    return root


@pytest.fixture
def brats(brats_made, tmp_path):
    """A copy to break."""
    return shutil.copytree(brats_made, tmp_path / "data")


@pytest.fixture
def osic(osic_made, tmp_path):
    """A copy to break."""
    return shutil.copytree(osic_made, tmp_path / "data")
