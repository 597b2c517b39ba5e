"""A folder of DICOM slices: order, Hounsfield units, and what is refused."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import VolumeError
from cpic.data.dicom._volume import DicomVolume, read_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slice_dataset(pixels, k, *, slope=1, intercept=-1024, orientation=AXIAL, gap=2.5, origin=-40.0):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    uid = generate_uid(entropy_srcs=["image", str(k)])
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.file_meta = meta
    dataset.Modality, dataset.PatientID = "CT", "ID1"
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.5], 1.25
    dataset.InstanceNumber = k + 1
    dataset.ImageOrientationPatient = list(orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    dataset.ImagePositionPatient = [round(v, 6) for v in (origin + gap * k) * normal]
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def write_series(folder, pixels, *, names=None, edit=None, **options):
    """Slice k of `pixels` as a file; `edit(dataset, k)` changes it before it is written."""
    from pydicom import config, dcmwrite

    folder.mkdir(parents=True, exist_ok=True)
    for k, plane in enumerate(pixels):
        name = names[k] if names else f"{k + 1}.dcm"
        with config.disable_value_validation():
            dataset = slice_dataset(plane, k, **options)
            if edit:
                edit(dataset, k)
            form = {"implicit_vr": False, "little_endian": True}
            dcmwrite(folder / name, dataset, enforce_file_format=True, **form)
    return folder


def values(n=6, height=7, width=9, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(30, 3000, (n, height, width)).astype(dtype)


def hu(pixels, slope=1, intercept=-1024):
    return torch.from_numpy((pixels * float(slope) + intercept).astype(np.float32))


def remove(*tags):
    return lambda dataset, k: [delattr(dataset, tag) for tag in tags]


def put(tag, value, only=None):
    def edit(dataset, k):
        if only is None or k == only:
            setattr(dataset, tag, value)

    return edit


SHUFFLED = [f"{n}.dcm" for n in (4, 10, 1, 7, 2, 9)]


def test_slices_follow_their_positions_whatever_the_names_and_numbers(tmp_path):
    pixels = values()
    folder = write_series(
        tmp_path, pixels, names=SHUFFLED, edit=lambda d, k: put("InstanceNumber", 7 * k % 5)(d, k)
    )
    found = read_series(folder)
    assert torch.equal(found.values, hu(pixels))
    assert found.spacing == (2.5, 0.7, 0.5)
    assert found.report.order == "position"
    assert found.report.files == tuple(SHUFFLED)
    assert (found.report.dropped, found.report.gaps, found.report.notes) == ({}, (), ())


OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


@pytest.mark.parametrize("orientation", [AXIAL, (0, 1, 0, 0, 0, -1), OBLIQUE, (-1, 0, 0, 0, 1, 0)])
@pytest.mark.parametrize("gap", [2.5, -2.5])
def test_positions_are_projected_on_the_normal(tmp_path, orientation, gap):
    pixels = values()
    folder = write_series(tmp_path, pixels, names=SHUFFLED, orientation=orientation, gap=gap)
    normal = np.cross(orientation[:3], orientation[3:])
    rising = gap * normal[np.abs(normal).argmax()] > 0
    found = read_series(folder)
    assert torch.equal(found.values, hu(pixels if rising else pixels[::-1]))
    assert found.spacing[0] == pytest.approx(2.5, abs=1e-5)


def test_without_positions_the_last_instance_comes_first(tmp_path):
    pixels = values()
    found = read_series(
        write_series(tmp_path, pixels, names=SHUFFLED, edit=remove("ImagePositionPatient"))
    )
    assert torch.equal(found.values, hu(pixels[::-1]))
    assert found.report.order == "instance"
    assert found.report.notes == ("6 of 6 files have no ImagePositionPatient",)
    assert found.spacing[0] == 1.25


def test_without_any_tag_the_highest_file_number_comes_first(tmp_path):
    pixels = values(11)
    gone = remove("ImagePositionPatient", "InstanceNumber", "ImageOrientationPatient")
    names = [f"slice 3-{k:03}.dcm" if k % 2 else f"slice 3-{k}.DCM" for k in range(11)]
    found = read_series(write_series(tmp_path, pixels, names=names, edit=gone))
    assert torch.equal(found.values, hu(pixels[::-1]))
    assert found.report.order == "file"


def test_numbers_that_are_not_distinct_are_passed_over(tmp_path):
    def edit(dataset, k):
        remove("ImagePositionPatient")(dataset, k)
        dataset.InstanceNumber = 1

    pixels = values()
    found = read_series(write_series(tmp_path, pixels, edit=edit))
    assert torch.equal(found.values, hu(pixels[::-1]))
    assert found.report.order == "file"


def test_order_file_is_the_published_one(tmp_path):
    pixels = values()
    found = read_series(write_series(tmp_path, pixels, names=SHUFFLED), order="file")
    falling = np.argsort([-int(name[:-4]) for name in SHUFFLED])
    assert torch.equal(found.values, hu(pixels[falling]))
    with pytest.raises(VolumeError, match=r"order 'position' or 'file', got 'name'"):
        read_series(tmp_path, order="name")


@pytest.mark.parametrize("gap", [2.5, -2.5])
def test_positions_of_some_files_decide_on_the_direction(tmp_path, gap):
    def edit(dataset, k):
        if k in (1, 4):
            del dataset.ImagePositionPatient

    pixels = values()
    found = read_series(write_series(tmp_path, pixels, edit=edit, gap=gap))
    assert torch.equal(found.values, hu(pixels if gap > 0 else pixels[::-1]))
    assert found.report.order == "instance"


def test_positions_of_some_files_must_agree_with_the_numbers(tmp_path):
    def edit(dataset, k):
        dataset.InstanceNumber = 5 * k % 7
        if k == 1:
            del dataset.ImagePositionPatient

    folder = write_series(tmp_path, values(), edit=edit)
    with pytest.raises(VolumeError, match=r"lacks ImagePositionPatient in 1 of 6 files, .*contra"):
        read_series(folder)


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    def edit(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, -10 * k

    pixels = values(3)
    found = read_series(write_series(tmp_path, pixels, edit=edit)).values
    assert torch.equal(found, torch.stack([hu(p, 0.5 + k, -10 * k) for k, p in enumerate(pixels)]))


def test_below_air_is_air(tmp_path):
    pixels = values()
    pixels[:, 0, :4] = [-2000, -1500, 23, 24]
    found = read_series(write_series(tmp_path, pixels)).values
    assert found[:, 0, :4].tolist() == [[-1000.0, -1000.0, -1000.0, -1000.0]] * 6
    assert torch.equal(found[:, 1:], hu(pixels[:, 1:]))


@pytest.mark.parametrize("limit", [None, 63530])
def test_padding_above_is_air(tmp_path, limit):
    pixels = values(dtype=np.uint16)
    pixels[:, 2, 3:5] = [63536, 63533]

    def edit(dataset, k):
        dataset.add_new("PixelPaddingValue", "US", 63536)
        if limit:
            dataset.add_new("PixelPaddingRangeLimit", "US", limit)

    found = read_series(write_series(tmp_path, pixels, edit=edit)).values
    assert found[0, 2, 3:5].tolist() == [-1000.0, -1000.0 if limit else 63533.0 - 1024]
    assert torch.equal(found[:, 3:], hu(pixels[:, 3:]))


def test_signed_values_of_twelve_bits(tmp_path):
    def edit(dataset, k):
        dataset.BitsStored, dataset.HighBit = 12, 11

    pixels = values() % 4096 - 2048
    stored = (pixels & 0xFFF).astype(np.uint16).view(np.int16)
    found = read_series(write_series(tmp_path, stored, edit=edit, intercept=0))
    assert torch.equal(found.values, hu(pixels, intercept=0).clamp(min=-1000))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32])
def test_other_widths(tmp_path, dtype):
    pixels = (values() % 120).astype(dtype)
    assert torch.equal(read_series(write_series(tmp_path, pixels)).values, hu(pixels).clamp(-1000))


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "RLELossless"])
def test_other_transfer_syntaxes_that_can_be_decoded(tmp_path, syntax):
    from pydicom import dcmread, uid

    pixels = values()
    for path in write_series(tmp_path, pixels).iterdir():
        dataset = dcmread(path)
        if syntax == "RLELossless":
            dataset.compress(uid.RLELossless)
            dataset.save_as(path)
            continue
        if syntax == "ExplicitVRBigEndian":
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = getattr(uid, syntax)
        implicit, little = syntax.startswith("Implicit"), syntax.endswith("LittleEndian")
        new = type(dataset)(path, {}, dataset.preamble, dataset.file_meta, implicit, little)
        new.update(dataset)
        new.save_as(path, implicit_vr=implicit, little_endian=little)
    assert torch.equal(read_series(tmp_path).values, hu(pixels))


def test_a_deflated_file_is_refused_without_inflating_it(tmp_path):
    from pydicom import dcmread, uid

    folder = write_series(tmp_path, np.zeros((1, 2000, 2000), np.int16))
    dataset = dcmread(folder / "1.dcm")
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "1.dcm")
    tracemalloc.start()
    with pytest.raises(VolumeError, match=r"1\.dcm cannot be read .*deflated"):
        read_series(folder)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def syntax_of(uid):
    def edit(dataset, k):
        from pydicom.encaps import encapsulate

        dataset.file_meta.TransferSyntaxUID = uid
        dataset.PixelData = encapsulate([dataset.PixelData[:40]])
        dataset["PixelData"].VR = "OB"

    return edit


def turned(dataset, k):
    if k == 2:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def color(dataset, k):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0


REQUIRED = ("Rows", "BitsAllocated", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        *((remove(tag), rf"1\.dcm lacks the DICOM tags {tag}, ") for tag in REQUIRED),
        (put("RescaleSlope", ""), r"1\.dcm lacks the DICOM tags RescaleSlope,"),
        (put("RescaleSlope", 0), r"RescaleSlope 0"),
        (put("RescaleIntercept", "nan", only=2), r"3\.dcm needs 1 finite number in RescaleInt"),
        (put("RescaleSlope", "1e99", only=2), r"3\.dcm has RescaleSlope 1e\+99 .*beyond float32"),
        (put("ImagePositionPatient", [1, 2]), r"1\.dcm needs 3 finite numbers in ImagePosition"),
        (put("ImageOrientationPatient", [1, 0, 0, 0, 2, 0]), r"1\.dcm needs two perpendicular"),
        (put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), r"1\.dcm needs two perpendicular"),
        (turned, r"scan holds slices of two orientations, 1\.dcm and 3\.dcm differ"),
        (color, r"1\.dcm needs one gray image, got 1 frames of 3 samples"),
        (put("NumberOfFrames", 5), r"1\.dcm needs one gray image, got 5 frames"),
        (put("BitsAllocated", 1), r"1\.dcm needs pixels of 8, 16 or 32 bits.* BitsAllocated 1,"),
        (put("HighBit", 11), r"BitsStored 16, HighBit 11"),
        (put("Columns", 8, only=1), r"scan holds slices of different sizes, 1\.dcm .*2\.dcm"),
        (put("Rows", 0), r"1\.dcm declares 0 x 9 pixels"),
        (put("Rows", 65535), r"1\.dcm is truncated: its pixels need 1,179,630 bytes"),
        (remove("PixelData"), r"1\.dcm (is truncated|has a header but no pixels)"),
        (syntax_of("1.2.840.10008.1.2.4.70"), r"1\.dcm stores its pixels as JPEG Lossless, .*no d"),
        (syntax_of("1.2.840.10008.1.2.4.102"), r"1\.dcm stores .*MPEG.*no decoder"),
        (syntax_of("1.2.3.4"), r"1\.dcm stores its pixels as 1\.2\.3\.4, and no decoder"),
        (syntax_of("1.2.840.10008.1.2.5"), r"1\.dcm cannot be read as a DICOM slice"),
        (syntax_of("1.2.840.10008.1.2.4.90"), r"1\.dcm cannot be read as a DICOM slice"),
    ],
)
def test_faults_are_named(tmp_path, edit, message):
    folder = write_series(tmp_path / "ID7" / "scan", values(), edit=edit)
    with pytest.raises(VolumeError, match=message) as caught:
        read_series(folder)
    assert "ID7" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "it is not a DICOM file"),
        (100, "it is not a DICOM file"),
        (140, "lacks the DICOM tag"),
        (500, "lacks the DICOM tags|cannot be read|truncated"),
        (-1, "cannot be read as a DICOM slice"),
        (-60, "cannot be read as a DICOM slice"),
    ],
)
def test_a_truncated_file_is_named(tmp_path, keep, message):
    path = write_series(tmp_path, values()) / "3.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VolumeError, match=rf"3\.dcm.*({message})"):
        read_series(tmp_path)


def test_a_forged_size_takes_no_memory(tmp_path):
    from pydicom import dcmread

    folder = write_series(tmp_path, values(2), edit=syntax_of("1.2.840.10008.1.2.5"))
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.Rows = dataset.Columns = 8000
        dataset.save_as(path)
    tracemalloc.start()
    with pytest.raises(VolumeError, match=r"dcm declares 8000 x 8000 pixels in [\d,]+ bytes"):
        read_series(folder)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_forged_length_takes_no_memory(tmp_path):
    path = write_series(tmp_path, values(1)) / "1.dcm"
    whole = path.read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00OW") + 8
    path.write_bytes(whole[:at] + b"\xf0\xff\xff\xff" + whole[at + 4 :])
    tracemalloc.start()
    # All pixels are there, so this one is read.
    assert torch.equal(read_series(tmp_path).values, hu(values(1)))
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_an_exact_copy_is_dropped_and_reported(tmp_path):
    pixels = values()
    folder = write_series(tmp_path, pixels)
    (folder / "copy.dcm").write_bytes((folder / "2.dcm").read_bytes())
    found = read_series(folder)
    assert torch.equal(found.values, hu(pixels))
    assert found.report.dropped == {"copy.dcm": "2.dcm"}
    assert found.spacing[0] == 2.5


def test_a_copy_whose_position_was_rounded_is_dropped(tmp_path):
    pixels = values()[[0, 1, 1, 2]]
    places = [0, 2.5, 2.504, 5]
    edit = lambda d, k: put("ImagePositionPatient", [0, 0, places[k]])(d, k)  # noqa: E731
    found = read_series(write_series(tmp_path, pixels, edit=edit))
    assert found.report.dropped == {"3.dcm": "2.dcm"}
    assert found.values.shape[0] == 3


def test_an_exact_copy_without_positions_is_dropped_too(tmp_path):
    pixels = values()
    folder = write_series(tmp_path, pixels, edit=remove("ImagePositionPatient"))
    (folder / "99.dcm").write_bytes((folder / "2.dcm").read_bytes())
    found = read_series(folder)
    assert torch.equal(found.values, hu(pixels[::-1]))
    assert found.report.dropped == {"99.dcm": "2.dcm"}


def test_two_slices_in_one_place_are_refused(tmp_path):
    folder = write_series(tmp_path, values(), edit=put("ImagePositionPatient", [0, 0, -35.0]))
    with pytest.raises(VolumeError, match=r"two different slices in one place, 1\.dcm and 2\.dcm"):
        read_series(folder)
    assert read_series(folder, order="file").values.shape == (6, 7, 9)


def test_a_gap_is_reported(tmp_path):
    folder = write_series(tmp_path, values())
    (folder / "3.dcm").unlink()
    found = read_series(folder)
    assert found.report.gaps == (("2.dcm", "4.dcm", 5.0),)
    assert found.spacing[0] == 2.5


def test_one_slice_and_missing_spacing(tmp_path):
    gone = remove("PixelSpacing", "SliceThickness")
    found = read_series(write_series(tmp_path, values(1), edit=gone))
    assert found.values.shape == (1, 7, 9)
    assert np.isnan(found.spacing).all()
    assert found.report.notes == ("PixelSpacing is missing or differs between slices",)


def test_two_series_in_one_folder_are_noted(tmp_path):
    folder = write_series(tmp_path, values(), edit=put("SeriesInstanceUID", "1.2.3", only=0))
    assert read_series(folder).report.notes == ("the files belong to 2 series",)


def test_other_files_are_ignored(tmp_path):
    folder = write_series(tmp_path, values())
    (folder / "notes.txt").write_text("x")
    (folder / "._1.dcm").write_bytes(b"resource fork")
    (folder / "sub.dcm").mkdir()
    os.mkfifo(folder / "8.dcm")
    assert read_series(folder).values.shape == (6, 7, 9)


def test_a_folder_without_slices_is_named(tmp_path):
    with pytest.raises(VolumeError, match=r"holds no \.dcm files"):
        data.open_volume(tmp_path)
    with pytest.raises(VolumeError, match=r"there is no folder .*none"):
        read_series(tmp_path / "none")
    (tmp_path / "one.dcm").touch()
    with pytest.raises(VolumeError, match=r"knows folders of \.dcm files"):
        data.open_volume(tmp_path / "one.dcm")


def test_only_touched_slices_are_decoded(tmp_path, monkeypatch):
    pixels = values(12)
    folder = write_series(tmp_path, pixels)
    volume = data.open_volume(folder)
    assert isinstance(volume, DicomVolume)
    centers = torch.tensor([[1, 3, 4], [2, 0, 8], [9, 6, 1]])
    # Rounds of two slices give the same.
    monkeypatch.setattr("cpic.data.chunked._reader._HELD_BYTES", 2 * 4 * 7 * 9)
    cubes = volume.cubes(centers, size=3)
    assert torch.equal(cubes, data.ArrayVolume(hu(pixels)).cubes(centers, size=3))
    touched = [0, 1, 2, 3, 8, 9, 10]
    assert volume.ledger.chunks == len(touched)
    assert volume.ledger.bytes == sum((folder / f"{k + 1}.dcm").stat().st_size for k in touched)


def test_a_file_that_changed_after_opening_is_refused(tmp_path):
    folder = write_series(tmp_path, values())
    volume = data.open_volume(folder)
    write_series(folder, values(height=8)[:1])
    with pytest.raises(VolumeError, match=r"1\.dcm contradicts .* it has changed since"):
        volume.read()


def test_a_tag_that_follows_the_pixels_is_refused(tmp_path):
    folder = write_series(tmp_path, values())
    path = folder / "2.dcm"
    path.write_bytes(path.read_bytes() + b"\x28\x00\x52\x10DS\x02\x0050")
    with pytest.raises(VolumeError, match=r"2\.dcm contradicts .* or has a tag twice"):
        read_series(folder)


def test_odd_values_warn_nobody(tmp_path):
    def edit(dataset, k):
        # More pixels than announced, and a name that is too long: pydicom warns of both.
        dataset.PixelData += bytes(10)
        dataset.SeriesInstanceUID = "1." * 40 + "1"

    assert read_series(write_series(tmp_path, values(), edit=edit)).values.shape == (6, 7, 9)


def test_importing_loads_no_library_of_a_format():
    code = (
        "import sys, cpic.cohorts; heavy = {'pydicom', 'pandas', 'scipy', 'sklearn', 'zarr'};"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
