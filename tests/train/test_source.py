"""The cohort a run learns from: what is left out of it, and why."""

import nibabel
import numpy as np
import pytest

from cpic._errors import CohortError
from cpic.options import MRData
from cpic.train.tasks._source import load_source

HEADER = "Brats20ID,Age,Survival_days,Extent_of_Resection"


def make(root, **values):
    """A tree with one patient for each array."""
    root.mkdir()
    for name, one in values.items():
        (root / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(one, np.eye(4)), root / name / f"{name}_t1.nii")
    rows = [f"{name},60,{100 + k},GTR" for k, name in enumerate(values)]
    (root / "survival_info.csv").write_text("\n".join([HEADER, *rows]))
    where = {"root": root, "cache": root.parent / "cache"}
    return {**where, "resolution": (8, 8, 8), "intensity": "none"}


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(1, 900, (8, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("intensity", ["none", "minmax", "zscore"])
def test_scans_of_one_value_hold_nothing_to_learn_from(tmp_path, voxels, value, intensity):
    options = make(tmp_path / "brats", a=0 * voxels + value, b=0 * voxels + value)
    with pytest.raises(CohortError, match=r"all 2 patients hold nothing to learn from.*: a: every"):
        load_source("brats", MRData(**options | {"intensity": intensity}))


def test_one_scan_of_one_value_is_left_out(tmp_path, voxels):
    source = load_source("brats", MRData(**make(tmp_path / "brats", a=voxels, b=0 * voxels)))
    assert source.prepared.patients == ["a"]
    assert set(source.prepared.samples["patient"]) == {"a"}
    reason = "every voxel of t1 has one value: nothing to learn from"
    assert source.prepared.skipped == {"b": reason}


def test_nan_is_replaced_if_wanted(tmp_path, voxels):
    hurt = voxels.copy()
    hurt[0] = np.nan
    options = make(tmp_path / "brats", a=voxels, b=hurt)
    assert "NaN voxels" in load_source("brats", MRData(**options)).prepared.skipped["b"]
    source = load_source("brats", MRData(nan=0.0, **options))
    assert source.prepared.patients == ["a", "b"]
    assert not source.prepared.in_memory("b").read()[0].any()
