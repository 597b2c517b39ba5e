"""What `cpic data check` and `check.py` name, patient by patient."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys

import _engine
import check
import nibabel
import numpy as np
import prepare
import pytest

from cpic import cli
from cpic._errors import CohortError
from cpic.cohorts import check_cohort
from cpic.cohorts._layout import find_kind
from tests.data_scripts.conftest import SCRIPTS

TREE = "MICCAI_BraTS2020_TrainingData"


def name(k):
    return f"BraTS20_Training_{k:03d}"


def scan(root, k, contrast):
    return root / TREE / name(k) / f"{name(k)}_{contrast}.nii.gz"


def rewrite(path, values):
    image = nibabel.Nifti1Image(values, np.eye(4))
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def digests(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("deep", [False, True])
def test_whole_cohorts(brats_made, osic_made, deep):
    found = check_cohort(brats_made, deep=deep)
    assert found.ok
    assert (found.kind, found.n_patients, found.tree) == ("brats", 5, "")
    assert found.notes == (
        f"{name(2)} is not a sample: survival is 'ALIVE (361 days later)', "
        "a number of days is needed",
    )
    found = check_cohort(osic_made, deep=deep)
    # The fourth is compressed, and no decoder is installed, as in the published set.
    ((patient, (fault,)),) = found.faults.items()
    assert patient.startswith("ID00004")
    assert "no decoder of that is installed" in fault
    assert fault.endswith(" more such files)")
    assert (found.kind, found.n_patients, found.general) == ("osic", 4, ())


def test_every_fault_of_brats_is_named_and_nothing_is_changed(brats):
    scan(brats, 1, "t2").unlink()
    scan(brats, 1, "flair").unlink()
    cut = scan(brats, 3, "seg")
    cut.write_bytes(cut.read_bytes()[:-50])
    scan(brats, 4, "t1").write_bytes(b"no scan")
    rewrite(scan(brats, 5, "t1ce"), np.zeros((8, 9, 7), np.int16))
    shutil.rmtree(brats / TREE / name(6))
    before = digests(brats)
    found = check_cohort(brats)
    assert digests(brats) == before
    assert not found.ok
    faults = {patient[-3:]: " ".join(sentences) for patient, sentences in found.faults.items()}
    assert found.faults[name(1)] == (
        f"{name(1)}_flair.nii.gz is missing",
        f"{name(1)}_t2.nii.gz is missing",
    )
    assert "_seg.nii.gz is truncated or damaged" in faults["003"]
    assert "_t1.nii.gz cannot be read as NIfTI" in faults["004"]
    assert "its contrasts need one shape, got flair 24x24x24" in faults["005"]
    assert "t1ce 8x9x7" in faults["005"]
    assert faults["006"] == "its folder is missing"
    assert len(faults) == 5
    assert found.tree.startswith("MICCAI_BraTS2020_TrainingData/\n    survival_info.csv")
    text = str(found)
    assert text.startswith(f"BraTS 2020 in {brats}: 5 patients checked, 5 with faults\n")
    assert all(sentence in text for parts in found.faults.values() for sentence in parts)


@pytest.mark.parametrize(
    ("contrast", "values", "match"),
    [
        ("t1", np.full((24, 24, 24), np.nan, np.float32), "NaN"),
        ("t1", np.where(np.arange(24**3) == 7, np.inf, 1).reshape(24, 24, 24), "infinite voxels"),
        ("t2", np.zeros((24, 24, 24), np.int16), "every voxel of .* is 0"),
        ("seg", np.full((24, 24, 24), 3, np.uint8), r"needs the labels .*, got also \[3\]"),
        ("t1", np.ones((24, 24), np.int16), "wrong dimensions: three axes are needed"),
        ("t1", np.ones((24, 24, 24, 3), np.int16), "wrong dimensions: three axes are needed"),
        ("t1", np.ones((24, 24, 1), np.int16), "wrong dimensions: three axes are needed"),
    ],
)
def test_deep_faults(brats, contrast, values, match):
    rewrite(scan(brats, 1, contrast), values)
    found = check_cohort(brats, deep=True)
    assert set(found.faults) == {name(1)}
    with pytest.raises(AssertionError, match=match):
        raise AssertionError("\n".join(found.faults[name(1)]))


def test_damage_in_the_middle_needs_a_deep_look(brats):
    path = scan(brats, 3, "t1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert check_cohort(brats).ok
    assert set(check_cohort(brats, deep=True).faults) == {name(3)}


def test_a_slice_cut_by_a_little_needs_a_deep_look(osic):
    folder = sorted((osic / "train").iterdir())[0]
    file = sorted(folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])
    assert folder.name not in check_cohort(osic).faults
    (fault,) = check_cohort(osic, deep=True).faults[folder.name]
    assert str(file) in fault


@pytest.mark.parametrize("change", ["missing", "columns", "rows", "duplicate", "binary"])
def test_tables_of_brats(brats, change):
    table = brats / TREE / "survival_info.csv"
    text = table.read_text()
    if change == "missing":
        table.unlink()
    elif change == "columns":
        table.write_text(text.replace("Survival_days", "Days"))
    elif change == "rows":
        table.write_text(text.splitlines()[0] + "\n")
    elif change == "duplicate":
        table.write_text(text + text.splitlines()[-1] + "\n")
    else:
        table.write_bytes(b"\xff\xfe\0\1")
    found = check_cohort(brats)
    assert not found.ok
    if change == "duplicate":
        assert found.faults == {name(6): ("2 rows in survival_info.csv, one is needed",)}
    else:
        assert len(found.general) == 1
        assert "survival_info.csv" in found.general[0]
        assert found.tree


def test_faults_of_osic(osic):
    folders = sorted((osic / "train").iterdir())
    first = sorted(folders[0].iterdir())
    first[0].write_bytes(first[0].read_bytes()[:1800])
    first[1].write_bytes(b"no slice")
    shutil.rmtree(folders[1])
    for file in folders[2].iterdir():
        file.unlink()
    found = check_cohort(osic)
    assert len(found.faults) == 4
    cut, other = found.faults[folders[0].name]
    assert f"{first[0].name} is truncated" in cut + other
    assert f"{first[1].name} cannot be read as a DICOM slice" in cut + other
    assert "is missing" in found.faults[folders[1].name][0]
    assert "holds no .dcm files" in found.faults[folders[2].name][0]
    assert found.tree.startswith("osic-pulmonary-fibrosis-progression/\n    train.csv")
    (osic / "train.csv").write_text("Patient,Weeks\nID1,2\n")
    (sentence,) = check_cohort(osic).general
    assert "FVC" in sentence


def test_which_set_it_is(brats_made, osic_made, tmp_path):
    assert [find_kind(root) for root in (brats_made, brats_made / TREE)] == ["brats"] * 2
    assert find_kind(osic_made) == "osic"
    (tmp_path / "osic-pulmonary-fibrosis-progression" / "train").mkdir(parents=True)
    assert find_kind(tmp_path) == "osic"
    assert find_kind(tmp_path / "none") == ""
    found = check_cohort(tmp_path / "none")
    assert found.general == (f"{tmp_path / 'none'} is not a folder",)
    assert "survival_info.csv" in found.tree
    assert "train.csv" in found.tree
    assert not check_cohort(brats_made, kind="osic").ok
    with pytest.raises(CohortError, match="needs kind 'brats', 'osic' or 'auto', got 'mnist'"):
        check_cohort(tmp_path, kind="mnist")


def test_command(brats, tmp_path, capsys):
    assert cli.main(["data", "check", str(brats)]) == 0
    assert "5 patients checked, 0 with faults" in capsys.readouterr().out
    scan(brats, 1, "t2").unlink()
    report = tmp_path / "report.json"
    assert cli.main(["data", "check", str(brats), "--deep", "--json", str(report)]) == 1
    assert f"{name(1)}: {name(1)}_t2.nii.gz is missing" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert written["faults"] == {name(1): [f"{name(1)}_t2.nii.gz is missing"]}
    assert not written["ok"]


@pytest.mark.parametrize("place", ["no/x", "", "{root}/survival_info.csv", "{root}/new.json"])
def test_a_report_replaces_nothing_of_the_data(brats, tmp_path, capsys, place):
    before = digests(brats)
    report = str(tmp_path / place.format(root=brats)) if place else str(tmp_path)
    assert cli.main(["data", "check", str(brats), "--json", report]) == 2
    assert "outside the data folder" in capsys.readouterr().err
    assert digests(brats) == before
    assert cli.main(["data"]) == 2


def test_script_says_the_same(brats, tmp_path, capsys):
    scan(brats, 1, "t2").unlink()
    assert cli.main(["data", "check", str(brats)]) == 1
    said = capsys.readouterr().out
    assert check.main(str(brats), workers=0, json=str(tmp_path / "r.json")) == 1
    assert capsys.readouterr().out == said
    assert json.loads((tmp_path / "r.json").read_text())["faults"]


@pytest.mark.parametrize("root", ["whole", "broken", "error"])
def test_exit_codes_of_a_script(brats, monkeypatch, capsys, root):
    arguments = ["check.py", str(brats), "--workers", "0"]
    if root == "broken":
        scan(brats, 1, "t2").unlink()
    if root == "error":
        arguments = ["check.py", str(brats), "--scheduler", "tcp://127.0.0.1:1"]
        monkeypatch.setattr(_engine, "_CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        _engine.call(check.main)
    if root == "error":
        assert str(caught.value.code).startswith("no Dask scheduler answers at tcp://127.0.0.1:1;")
    else:
        assert caught.value.code == (root == "broken")


def test_nobody_reads_what_a_script_prints(brats, tmp_path):
    """As with `| head -1`: no traceback, and none of Python's own when it ends."""
    command = [sys.executable, str(SCRIPTS / "check.py"), str(brats), "--workers", "0"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(write)
    assert done.returncode == 141
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "words", "match"),
    [
        ("check", ["--workers", "-1"], "workers needs a number of at least 0, got -1"),
        ("prepare", ["--workers", "-1"], "workers needs a number of at least 0, got -1"),
        ("prepare", ["--upsample", "0"], "upsample needs a factor of at least 1, got 0"),
        ("prepare", ["--upsample", "-2"], "upsample needs a factor of at least 1, got -2"),
    ],
)
def test_options_that_no_run_can_have(brats, tmp_path, monkeypatch, script, words, match):
    cache = [str(tmp_path / "c")] * (script == "prepare")
    monkeypatch.setattr(sys, "argv", [script, str(brats), *cache, *words])
    with pytest.raises(SystemExit, match=match):
        _engine.call({"check": check, "prepare": prepare}[script].main)
    assert not (tmp_path / "c").exists()
