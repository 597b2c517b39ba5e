"""Patients in folders of every tree: each once, with the right file or a reason."""

import logging
import os

import pytest

from cpic._errors import CohortError
from cpic.train.prediction._names import read_name
from cpic.train.prediction._scans import find_scans

GLI = [f"BraTS-GLI-0000{k}-000/BraTS-GLI-0000{k}-000" for k in range(2)]
YEAR_2023 = [f"{name}-{end}.nii.gz" for name in GLI for end in ("t1n", "t1c", "t2w", "t2f", "seg")]


def tree(root, names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def found(root, contrasts, tables=()):
    """The first file of each patient by its place in the folder, or the reason."""
    return {
        name: files if isinstance(files, str) else files[contrasts[0]].relative_to(root).as_posix()
        for name, files in find_scans(root, contrasts, tables).items()
    }


MISSING, EMPTY = "t1 is missing", "its folder holds no scan"
TREES = {
    "2020": (
        ["T/B1/B1_t1.nii.gz", "T/B1/B1_t1ce.nii.gz", "T/B2/B2_t1.nii", "T/B3/B3_seg.nii", "T/B4/"],
        {"B1": "T/B1/B1_t1.nii.gz", "B2": "T/B2/B2_t1.nii", "B3": MISSING, "B4": EMPTY},
    ),
    "2021": (["A_0/A_0_t1ce.nii", "A_0/A_0_t1.nii"], {"A_0": "A_0/A_0_t1.nii"}),
    "2023": (YEAR_2023, {name.partition("/")[0]: f"{name}-t1n.nii.gz" for name in GLI}),
    "2023 in one folder": (
        [name.partition("/")[2] for name in YEAR_2023],
        {name.partition("/")[2]: f"{name.partition('/')[2]}-t1n.nii.gz" for name in GLI},
    ),
    "two trees": (
        ["T/B1/B1_t1.nii", "T/B2/B2_t1.nii", "V/B3/B3_t1.nii"],
        {"B1": "T/B1/B1_t1.nii", "B2": "T/B2/B2_t1.nii", "B3": "V/B3/B3_t1.nii"},
    ),
    "a folder a file": (
        ["B1/B1_t1.nii/B1_t1.nii", "B1/B1_t2.nii/B1_t2.nii", "B2/B2_t1.nii/B2_t1.nii"],
        {"B1": "B1/B1_t1.nii/B1_t1.nii", "B2": "B2/B2_t1.nii/B2_t1.nii"},
    ),
    "a folder deeper": (
        ["P1/P1_t1.nii", "P2/ses-1/P2_t1.nii", "P3/"],
        {"P1": "P1/P1_t1.nii", "P2": "P2/ses-1/P2_t1.nii", "P3": EMPTY},
    ),
    "names that say nothing, deeper": (
        ["P1/scan.nii", "P2/ses-1/scan.nii"],
        {"P1": "P1/scan.nii", "P2/ses-1": "P2/ses-1/scan.nii"},
    ),
    "sessions": (
        ["P1/ses-1/P1_t1.nii", "P1/ses-2/P1_t1.nii", "P2/ses-3/P2_t1.nii"],
        {
            "P1/ses-1": "P1/ses-1/P1_t1.nii",
            "P1/ses-2": "P1/ses-2/P1_t1.nii",
            "P2": "P2/ses-3/P2_t1.nii",
        },
    ),
    "BIDS": (
        [
            "sub-1/anat/sub-1_T1w.nii.gz",
            "sub-1/anat/sub-1_ce-gd_T1w.nii.gz",
            "sub-1/dwi/sub-1_dwi.nii.gz",
            "sub-2/anat/sub-2_acq-tfl_T1w.nii.gz",
            "sub-3/func/sub-3_bold.nii.gz",
        ],
        {
            "sub-1": "sub-1/anat/sub-1_T1w.nii.gz",
            "sub-2": "sub-2/anat/sub-2_acq-tfl_T1w.nii.gz",
            "sub-3/func": MISSING,
        },
    ),
    "runs of BIDS": (
        [f"sub-1/anat/sub-1_{end}.nii" for end in ("run-1_T1w", "run-2_T1w", "FLAIR")],
        {f"sub-1_run-{k}": f"sub-1/anat/sub-1_run-{k}_T1w.nii" for k in (1, 2)},
    ),
    "one patient of two grades": (
        ["HGG/P1/P1_t1.nii", "LGG/P1/P1_t1.nii"],
        {"HGG/P1": "HGG/P1/P1_t1.nii", "LGG/P1": "LGG/P1/P1_t1.nii"},
    ),
    "one patient of one grade": (["HGG/P1/P1_t1.nii"], {"P1": "HGG/P1/P1_t1.nii"}),
    "one patient twice": (
        ["P1/ses-1/P1_t1.nii", "P1/ses-2/P1_t1.nii"],
        {"P1/ses-1": "P1/ses-1/P1_t1.nii", "P1/ses-2": "P1/ses-2/P1_t1.nii"},
    ),
    "twins of a Mac": (
        ["P1/P1_t1.nii", "P1/._P1_t1.nii", "__MACOSX/P1/._P1_t1.nii", "._x_t1.nii"],
        {"P1": "P1/P1_t1.nii"},
    ),
    "both endings": (["P1/P1_t1.nii.gz", "P1/P1_t1.nii"], {"P1": "P1/P1_t1.nii"}),
    "several t1": (
        ["P1/P1_t1.nii", "P1/P1_T1w.nii", "P2/P2_t1.nii"],
        {
            "P1": "several of its files are t1: P1_T1w.nii, P1_t1.nii; keep one",
            "P2": "P2/P2_t1.nii",
        },
    ),
    "names unknown": (
        ["P1/a.nii", "P1/b.nii", "P2/a.nii", "P2/b.nii"],
        dict.fromkeys(
            ("P1", "P2"), "which file is t1 is not known (a.nii, b.nii); end its name in _t1"
        ),
    ),
    "names unknown, one folder": (
        ["P1_a.nii", "P1_b.nii"],
        {"given": "which file is t1 is not known (P1_a.nii, P1_b.nii); end its name in _t1"},
    ),
    "channels in numbers": (
        ["B_1_0000.nii", "B_1_0001.nii", "B_2_0000.nii", "B_2_0001.nii"],
        {
            "given": "which file is t1 is not known (B_1_0000.nii, B_1_0001.nii, B_2_0000.nii, "
            "B_2_0001.nii); end its name in _t1"
        },
    ),
    "numbered": (["B_1.nii", "B_2.nii.GZ"], {"B_1": "B_1.nii", "B_2": "B_2.nii.GZ"}),
    "one of another kind": (["P1/P1_t1.nii", "P2/x.nii"], {
        "P1": "P1/P1_t1.nii",
        "P2": "which file is t1 is not known (x.nii); end its name in _t1",
    }),
    "one name twice": (
        ["x_t1.nii", "x/x_t1.nii"], {"x/x_t1.nii": "x/x_t1.nii", "x_t1.nii": "x_t1.nii"}
    ),
    "series by contrast": (
        ["P1/T1/1.dcm", "P1/T2/1.dcm", "P2/AX_T2_FLAIR/1.dcm"], {"P1": "P1/T1", "P2": MISSING}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_brains(tmp_path, name):
    names, wanted = TREES[name]
    assert found(tree(tmp_path / "given", names), ["t1"]) == wanted


SERIES = {
    "file set": (
        [f"PA{k}/ST1/SE1/{n}.dcm" for k in range(3) for n in range(2)],
        {f"PA{k}": f"PA{k}/ST1/SE1" for k in range(3)},
    ),
    "several series": (
        ["PA0/ST1/SE0/1.dcm", "PA1/ST1/SE0/1.dcm", "PA1/ST1/SE1/1.dcm"],
        {name: name for name in ("PA0/ST1/SE0", "PA1/ST1/SE0", "PA1/ST1/SE1")},
    ),
    "one in one": (["1.dcm", "old/1.dcm"], {"given": ".", "old": "old"}),
    "training and test": (
        ["train/ID1/1.dcm", "train/ID2/1.dcm", "test/ID1/1.dcm"],
        {name: name for name in ("train/ID1", "train/ID2", "test/ID1")},
    ),
    "folders of a name": (["a/ct/1.dcm", "b/ct/1.dcm"], {"a": "a/ct", "b": "b/ct"}),
    "a mask beside it": (["P1/1.dcm", "P1/lung_mask.nii"], {"P1": "P1"}),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_tree_of_lungs(tmp_path, name):
    names, wanted = SERIES[name]
    assert found(tree(tmp_path / "given", names), ["ct"]) == wanted


def test_who_is_in_a_table_is_called_so(tmp_path):
    names = ["o/train/ID1/s/1.dcm", "o/train/ID2/s/1.dcm", "o/test/ID1/s/1.dcm", "o/test/new/1.dcm"]
    assert found(tree(tmp_path / "given", names), ["ct"], {"ID1", "ID2", "ID3"}) == {
        "ID1/test/ID1/s": "o/test/ID1/s",
        "ID1/train/ID1/s": "o/train/ID1/s",
        "ID2": "o/train/ID2/s",
        "test/new": "o/test/new",
    }


def test_contrasts_of_two_patients_are_not_mixed(tmp_path):
    root = tree(tmp_path / "given", ["site/x_t1.nii", "site/y_t2.nii"])
    assert find_scans(root, ["t1", "t2"]) == {"x": "t2 is missing", "y": MISSING}


def test_a_patient_whose_name_begins_another_is_not_lost(tmp_path):
    tree(tmp_path, ["P10_t1.nii", "P1_t2.nii", "P10_2_t2.nii"])
    assert found(tmp_path, ["t1"])["P1"] == MISSING


def test_a_series_a_contrast(tmp_path):
    root = tree(tmp_path / "given", ["P1/T1/1.dcm", "P1/T2/1.dcm", "P2/T1/1.dcm"])
    wanted = {"P1": {"t1": root / "P1/T1", "t2": root / "P1/T2"}, "P2": "t2 is missing"}
    assert find_scans(root, ["t1", "t2"]) == wanted


def test_what_is_left_out_is_said(tmp_path, caplog):
    root = tree(tmp_path / "given", ["P1/P1_t1.nii", "P1/P1_t2.nii", "P1/notes/a.txt"])
    with caplog.at_level(logging.INFO, "cpic"):
        assert found(root, ["t1"]) == {"P1": "P1/P1_t1.nii"}
    assert "2 files and folders are not used: P1/P1_t2.nii, P1/notes" in caplog.text


def test_links_pipes_and_circles(tmp_path):
    root = tree(tmp_path / "given", ["P1/P1_t1.nii", "P2/", "P3/"])
    (root / "P1" / "up").symlink_to(root)
    (root / "P2" / "P2_t1.nii").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "P3" / "P3_t1.nii")
    assert found(root, ["t1"]) == {
        "P1": "P1/P1_t1.nii",
        "P2": "P2_t1.nii is not a file, or a broken link",
        "P3": "P3_t1.nii is not a file, or a broken link",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file.nii", "there is no folder .*file.nii; it is a file, give the folder it is in"),
        ("nowhere", "there is no folder .*nowhere; check the path"),
        ("folder", "holds no scans: .*, got IM0001, IM0002"),
        ("a" * 300, "a cannot be read .*; check the path"),
    ],
)
def test_no_folder_of_scans(tmp_path, name, message):
    tree(tmp_path, ["file.nii", "folder/PA1/IM0001", "folder/PA1/IM0002"])
    with pytest.raises(CohortError, match=message):
        find_scans(tmp_path / name, ["t1"])


@pytest.mark.parametrize(
    ("stem", "contrast", "patient"),
    [
        ("BraTS20_Training_001_t1ce", "t1ce", "BraTS20_Training_001"),
        ("BraTS-GLI-00000-000-t1n", "t1", "BraTS-GLI-00000-000"),
        ("BraTS-GLI-00000-000-t2f", "flair", "BraTS-GLI-00000-000"),
        ("sub-01_ses-02_acq-mprage_run-1_T1w", "t1", "sub-01_ses-02_run-1"),
        ("sub-01_ce-gd_T1w", "t1ce", "sub-01"),
        ("sub-01_space-T1w_desc-brain_mask", "seg", "sub-01"),
        ("sub-01_ses-post_T1w", "t1", "sub-01_ses-post"),
        ("sub-01_ses-T2_T1w", "t1", "sub-01_ses-T2"),
        ("sub-01_ses-T2_ce-gd_T1w", "t1ce", "sub-01_ses-T2"),
        ("P1_t1_lungmask", "seg", "P1"),
        ("P1_T2_FLAIR", "flair", "P1"),
        ("P1_T1_Gd", "t1ce", "P1"),
        ("P1_t1_seg", "seg", "P1"),
        ("P1_t1_to_t2", "other", "P1_to"),
        ("T1_001", "t1", "001"),
        ("t1", "t1", ""),
        ("T1001", "", "T1001"),
        ("patient-1", "", "patient-1"),
    ],
)
def test_the_contrast_is_in_the_name(stem, contrast, patient):
    assert read_name(stem, ["t1"]) == (contrast, patient)


def test_a_lung_knows_no_t1():
    assert read_name("P1_T1", ["ct"]) == ("", "P1_T1")
    assert read_name("P1_CT", ["ct"]) == ("ct", "P1")
