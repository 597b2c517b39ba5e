"""What is odd about a series: told by the report, by `data check` and by `prepare`; or refused."""

import os
import re

import numpy as np
import pytest

from cpic._errors import VolumeError
from cpic.cohorts import check_cohort, prepare, read_osic
from cpic.cohorts._patient import check_patient
from cpic.data import open_volume
from cpic.data.dicom._volume import read_series
from tests.data.test_dicom import put, remove, values, write_series

TREE = "osic-pulmonary-fibrosis-progression"
TABLE = "Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus\nID1,0,2500,70,60,Male,Ex-smoker\n"


def places(*heights):
    """Slices at these heights."""
    return lambda d, k: put("ImagePositionPatient", [0, 0, heights[k]])(d, k)


def tilt(dataset, k):
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.939693, -0.342020]
    dataset.ImagePositionPatient = [0, 0, 2.5 * k]


def drift(dataset, k):
    dataset.ImagePositionPatient = [0.4 * k, 0, 2.5 * k]


def two_series(dataset, k):
    dataset.SeriesInstanceUID = f"1.2.{k % 2}"


def sizes(dataset, k):
    dataset.PixelSpacing = [0.7, 0.5] if k else [0.7, 0.6]


ODD = {
    "two series": (two_series, r"the files belong to 2 series"),
    "gap": (places(0, 2, 4, 12, 14, 16), r"missing between 3\.dcm and 4\.dcm, .* 8 mm .* 2 mm"),
    "uneven": (places(0, 2, 3.5, 6, 7.5, 10), r"slices are 1\.5 to 2\.5 mm apart: uneven"),
    "close pair": (places(0, 2, 2.4, 4, 6, 8), r"slices are 0\.4 to 2 mm apart: uneven"),
    "tilted": (tilt, r"shifted sideways by up to 4\.275 mm .* sheared, which is not corrected"),
    "drifting": (drift, r"shifted sideways by up to 2 mm"),
    "tilt in words": (put("GantryDetectorTilt", -12), r"GantryDetectorTilt is 12 degrees"),
    "spacings": (sizes, r"PixelSpacing is missing or differs"),
    "no positions": (remove("ImagePositionPatient"), r"6 of 6 files have no ImagePositionPatient"),
}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / TREE).mkdir()
    (tmp_path / TREE / "train.csv").write_text(TABLE)
    return tmp_path / TREE


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_told_everywhere(tree, tmp_path, kind):
    edit, message = ODD[kind]
    folder = write_series(tree / "train" / "ID1", values(), edit=edit)
    (note,) = read_series(folder).report.notes
    assert re.search(message, note)
    assert open_volume(folder).notes == (note,)
    assert check_cohort(tree).notes == check_cohort(tree, deep=True).notes == (f"ID1: {note}",)
    for _ in range(2):  # also of a store that is there
        prepared = prepare(read_osic(tree), cache=tmp_path / "cache")
        assert prepared.notes == {"ID1": (note,)}


def test_nothing_is_said_of_rounded_positions(tmp_path):
    heights = [round(k * 1.25 + 0.004 * (-1) ** k, 3) for k in range(6)]
    assert read_series(write_series(tmp_path, values(), edit=places(*heights))).report.notes == ()


def test_many_gaps_are_counted(tmp_path):
    heights = np.cumsum(np.where(np.arange(30) % 3, 1.0, 4.0))
    notes = read_series(write_series(tmp_path, values(30), edit=places(*heights))).report.notes
    assert len(notes) == 4
    assert notes[-1] == "slices are missing in 6 more places"


def test_numbers_that_jump_are_told_where_there_are_no_positions(tmp_path):
    folder = write_series(tmp_path, values(8), edit=remove("ImagePositionPatient"))
    for k in (4, 5):
        (folder / f"{k}.dcm").unlink()
    note = read_series(folder).report.notes[-1]
    assert note.startswith("slices may be missing between 6.dcm and 3.dcm, whose InstanceNumbers")


@pytest.mark.parametrize("step", [0.005, 0.0005, 0.02, 1.0])
def test_slices_may_be_micrometres_apart(tmp_path, step):
    pixels = values()
    folder = write_series(tmp_path, pixels, gap=step)
    found = read_series(folder)
    assert len(found.values) == 6
    assert found.spacing[0] == pytest.approx(step, rel=1e-3)
    (folder / "copy.dcm").write_bytes((folder / "2.dcm").read_bytes())
    assert read_series(folder).report.dropped == {"copy.dcm": "2.dcm"}


def multi_frame(dataset, k):
    from pydicom.dataset import Dataset

    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    scale, group = Dataset(), Dataset()
    scale.RescaleSlope, scale.RescaleIntercept = dataset.RescaleSlope, dataset.RescaleIntercept
    group.PixelValueTransformationSequence = [scale]
    dataset.SharedFunctionalGroupsSequence = [group]
    del dataset.RescaleSlope, dataset.RescaleIntercept


@pytest.mark.parametrize("frames", [None, 1, 6])
def test_an_enhanced_file_is_named_as_one(tmp_path, frames):
    def edit(dataset, k):
        multi_frame(dataset, k)
        if frames:
            dataset.NumberOfFrames = frames

    folder = write_series(tmp_path, values(1), edit=edit)
    with pytest.raises(VolumeError, match=r"1\.dcm needs one gray image, got .* multi-frame DICOM"):
        read_series(folder)


def replaced(folder, old, new):
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))


NUMBERS = {
    "PixelSpacing": ([0.7, 0.5], b"0.7\\0.5", b"0,7\\0,5"),
    "SliceThickness": (1.25, b"1.25", b"1,25"),
    "RescaleSlope": (0.375, b"0.375", b"0,375"),
    "RescaleIntercept": (-1024.5, b"-1024.5", b"-1024,5"),
    "ImagePositionPatient": ([0, 0, 7.75], b"7.75", b"7,75"),
    "ImageOrientationPatient": ([0.8, 0.6, 0, -0.48, 0.64, 0.6], b"-0.48", b"-0,48"),
    "InstanceNumber": (4711, b"4711", b"47,1"),
    "GantryDetectorTilt": (12.75, b"12.75", b"12,75"),
}


@pytest.mark.parametrize("tag", NUMBERS)
def test_a_decimal_comma_names_the_tag(tmp_path, tag):
    value, point, comma = NUMBERS[tag]
    folder = write_series(tmp_path, values(1), edit=put(tag, value))
    replaced(folder, point, comma)
    with pytest.raises(VolumeError, match=rf"1\.dcm .*{tag}.*; correct the tag or export"):
        read_series(folder)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PixelSpacing", [-0.7, 0.5]),
        ("PixelSpacing", [0.7, 0]),
        ("PixelSpacing", [0, 0]),
        ("PixelSpacing", ["nan", 0.5]),
        ("PixelSpacing", ["inf", 0.5]),
        ("PixelSpacing", [0.7]),
        ("SliceThickness", "nan"),
        ("RescaleSlope", "inf"),
    ],
)
def test_spacings_are_positive_numbers(tmp_path, tag, value):
    folder = write_series(tmp_path, values(), edit=put(tag, value, only=3))
    with pytest.raises(VolumeError, match=rf"4\.dcm needs . finite numbers? .*in {tag}, got "):
        read_series(folder)


def test_a_thickness_of_zero_is_unknown(tmp_path):
    def edit(dataset, k):
        remove("ImagePositionPatient")(dataset, k)
        dataset.SliceThickness = 0

    assert np.isnan(read_series(write_series(tmp_path, values(), edit=edit)).spacing[0])


@pytest.mark.parametrize("placed", [True, False])
def test_the_sign_of_a_thickness_says_nothing(tmp_path, placed):
    def edit(dataset, k):
        dataset.SliceThickness = -1.25
        if not placed:
            remove("ImagePositionPatient")(dataset, k)

    found = read_series(write_series(tmp_path, values(), edit=edit))
    assert found.spacing[0] == (2.5 if placed else 1.25)


def test_a_series_of_one_value_is_a_fault_for_who_looks_at_pixels(tree, tmp_path):
    write_series(tree / "train" / "ID1", np.full((4, 5, 6), 1024, np.int16))
    assert check_cohort(tree).ok
    (fault,) = check_cohort(tree, deep=True).faults["ID1"]
    assert re.match(r"every voxel of .*ID1 is 0\.0; copy or download it again\.", fault)
    assert prepare(read_osic(tree), cache=tmp_path / "c").notes == {"ID1": ("every voxel is 0",)}


def test_a_link_to_nothing_is_a_lost_slice(tmp_path):
    folder = write_series(tmp_path, values())
    (folder / "7.dcm").symlink_to(folder / "annexed")
    with pytest.raises(VolumeError, match=r"7\.dcm is a link to nothing, a slice is lost"):
        read_series(folder)


@pytest.mark.timeout(120)
def test_hidden_files_and_devices_are_no_slices(tmp_path):
    folder = write_series(tmp_path, values(), names=[f"{k}.DCM" for k in range(6)])
    for name in ("._1.DCM", ".DS_Store", "Thumbs.db", "DICOMDIR"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "8.dcm")
    (folder / "9.dcm").symlink_to("/dev/zero")
    assert len(read_series(folder).values) == 6


def test_a_file_with_holes_takes_no_memory(tmp_path):
    import tracemalloc

    folder = write_series(tmp_path, values(1))
    path = folder / "1.dcm"
    content = path.read_bytes()
    # The tag of the series is said to hold a gigabyte, and the file has it.
    at = content.index(b"\x20\x00\x0e\x00UI")
    forged = content[:at] + b"\x20\x00\x0e\x00UT\0\0" + (2**30).to_bytes(4, "little")
    path.write_bytes(forged)
    os.truncate(path, 2**30 + 2**20)
    tracemalloc.start()
    with pytest.raises(VolumeError, match=r"1\.dcm has 1,074,790,400 bytes, more than a slice can"):
        read_series(folder)
    path.write_bytes(forged.replace((2**30).to_bytes(4, "little"), (2**28).to_bytes(4, "little")))
    os.truncate(path, 2**28 + 2**20)
    with pytest.raises(VolumeError, match=r"1\.dcm cannot be read .*a tag of its header has 268,"):
        read_series(folder)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_advice_of_a_cohort_names_no_option_that_it_lacks(tree, tmp_path):
    folder = write_series(tree / "train" / "ID1", values(), edit=places(*[-35.0] * 6))
    with pytest.raises(VolumeError, match=r"in one place, .*; pass order='file', or keep one of"):
        read_series(folder)
    cohort = read_osic(tree)
    with pytest.raises(VolumeError, match=r"; keep one of the two series\.$"):
        cohort.volume("ID1")
    (fault,) = check_patient("ID1", cohort.files("ID1")).faults
    assert "order=" not in fault
