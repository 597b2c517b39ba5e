"""Where NIfTI images lie: contrasts of a patient are brought to one orientation, or it is told."""

import itertools
import struct

import nibabel
import numpy as np
import pytest
import torch
from nibabel import orientations

from cpic import data
from cpic._errors import CohortError, VolumeError
from cpic.cohorts import check_cohort, prepare, read_brats
from cpic.cohorts._patient import check_patient
from tests.cohorts.test_brats import ROWS, make_tree, name

SHAPE = (5, 6, 7)
TILTED = np.array(
    [[0.98, -0.17, 0.05, -60], [0.17, 0.97, -0.17, 12], [-0.02, 0.18, 0.98, 7.5], [0, 0, 0, 1.0]]
)
ORIENTATIONS = [
    "".join(letters[k] for k, letters in zip(signs, axes, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for signs in itertools.product((0, 1), repeat=3)
]


def values(contrast):
    rng = np.random.default_rng(len(contrast))
    return rng.integers(1, 500, SHAPE).astype(np.int16)


def write(path, array, affine, *, qform=None, codes=(2, 1)):
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine if qform is None else qform, codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def stored_as(array, affine, orientation):
    """The same points in space, with axes that lead elsewhere."""
    start = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(start, orientations.axcodes2ornt(orientation))
    turned = orientations.apply_orientation(array, turn)
    return np.ascontiguousarray(turned), affine @ orientations.inv_ornt_aff(turn, array.shape)


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data", ROWS)


def put(tree, contrast, array, affine, **options):
    return write(tree / name(1) / f"{name(1)}_{contrast}.nii", array, affine, **options)


def files(tree):
    return read_brats(tree, contrasts=("t1", "flair")).files(name(1))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_volume_may_be_turned_without_being_read(tmp_path, orientation, generator):
    array, affine = stored_as(values("t1"), TILTED, orientation)
    path = write(tmp_path / "a.nii", array, affine)
    assert data.open_volume(path).place.orientation == orientation
    volume = data.NiftiVolume(path, orientation="RAS")
    assert (volume.shape, volume.place.orientation) == (SHAPE, "RAS")
    np.testing.assert_allclose(volume.place.affine, TILTED, atol=1e-4)
    assert torch.equal(volume.read(), torch.from_numpy(values("t1")))
    at = torch.randint(-1, 7, (20, 3), generator=generator)
    twin = data.ArrayVolume(values("t1"))
    assert torch.equal(volume.cubes(at, size=3), twin.cubes(at, size=3))
    assert torch.equal(volume.voxels(at), twin.voxels(at))


@pytest.mark.parametrize("affine", [np.eye(4), TILTED], ids=["straight", "tilted"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contrasts_of_a_patient_lie_on_each_other(tree, tmp_path, orientation, affine):
    put(tree, "t1", values("t1"), affine)
    put(tree, "flair", *stored_as(values("flair"), affine, orientation))
    cohort = read_brats(tree, contrasts=("t1", "flair")).subset([name(1)])
    twin = np.stack([values("t1"), values("flair")], -1)
    np.testing.assert_array_equal(cohort.volume(name(1)).read().numpy(), twin)
    prepared = prepare(cohort, cache=tmp_path / "cache", order=None, pad=False)
    np.testing.assert_array_equal(prepared.volume(name(1)).read().numpy(), twin)
    found = check_patient(name(1), files(tree))
    assert found.faults == ()
    said = (
        f"{name(1)}_flair.nii: its axes point to {orientation} and are reoriented to RAS, as those "
        f"of {name(1)}_t1.nii"
    )
    assert found.notes == ((said,) if orientation != "RAS" else ())
    assert prepared.notes == ({name(1): (said,)} if orientation != "RAS" else {})
    # A store that is there says the same.
    again = prepare(cohort, cache=tmp_path / "cache", order=None, pad=False)
    assert again.notes == prepared.notes


def moved(by):
    affine = np.eye(4)
    affine[:3, 3] = by
    return affine


def test_a_shift_is_told_by_check_and_prepare(tree, tmp_path):
    put(tree, "t1", values("t1"), np.eye(4))
    put(tree, "flair", values("flair"), moved((0, 3, 4)))
    (note,) = check_patient(name(1), files(tree)).notes
    assert note.startswith(f"{name(1)}_flair.nii: it does not lie on {name(1)}_t1.nii (middles 5.0")
    prepared = prepare(read_brats(tree, contrasts=("t1", "flair")), cache=tmp_path / "cache")
    assert prepared.notes == {name(1): (note,)}
    assert "does not lie on" in "\n".join(check_cohort(tree).notes)


@pytest.mark.parametrize(
    "affine",
    [np.diag([1, 1, 2.5, 1]), np.diag([0.5, 0.5, 0.5, 1]), TILTED, np.diag([-1, 1, 3.0, 1])],
    ids=["thick", "fine", "tilted", "mirrored and thick"],
)
def test_other_spacings_and_directions_are_refused(tree, tmp_path, affine):
    put(tree, "t1", values("t1"), np.eye(4))
    path = put(tree, "flair", values("flair"), affine)
    cohort = read_brats(tree, contrasts=("t1", "flair"))
    message = rf"{name(1)}_flair\.nii does not lie on .*_t1\.nii \(corners up to \d+\.\d voxels off"
    with pytest.raises(VolumeError, match=message):
        cohort.volume(name(1))
    prepared = prepare(cohort, cache=tmp_path / "cache")
    assert list(prepared.skipped) == [name(1)]
    assert prepared.skipped[name(1)].startswith(f"flair: {path} does not lie on")
    (fault,) = check_patient(name(1), files(tree)).faults
    assert str(path) in fault


def test_rounded_headers_are_no_difference(tree):
    put(tree, "t1", values("t1"), TILTED)
    put(tree, "flair", values("flair"), TILTED + np.random.default_rng(0).normal(0, 1e-3, (4, 4)))
    assert check_patient(name(1), files(tree)) == (name(1), (), SHAPE, ())


def test_without_any_place_in_both_nothing_is_said_and_in_one_it_is(tree):
    put(tree, "t1", values("t1"), np.eye(4), codes=(0, 0))
    put(tree, "flair", values("flair"), np.diag([-1.0, 1, 1, 1]), codes=(0, 0))
    assert check_patient(name(1), files(tree)).notes == ()
    put(tree, "flair", values("flair"), np.diag([-1.0, 1, 1, 1]))
    (note,) = check_patient(name(1), files(tree)).notes
    assert f"{name(1)}_t1.nii has no position in space" in note
    volume = read_brats(tree, contrasts=("t1", "flair")).volume(name(1))
    np.testing.assert_array_equal(volume.read()[..., 1].numpy(), values("flair"))


@pytest.mark.parametrize(
    ("qform", "disagree"),
    [(np.diag([-1.0, 1, 1, 1]), True), (moved((0, 0, 9)), True), (moved((0, 0, 0.2)), False)],
)
def test_two_statements_that_disagree_are_told(tmp_path, qform, disagree):
    path = write(tmp_path / "a.nii", values("t1"), np.eye(4), qform=qform)
    volume = data.open_volume(path)
    assert volume.place.orientation == "RAS"
    said = [note.startswith("its sform and qform disagree (") for note in volume.notes]
    assert said == [True] * disagree
    assert len(check_patient("P", {"t1": path}).notes) == disagree


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1])]
)
def test_an_affine_that_maps_nothing_is_told_and_not_followed(tmp_path, affine):
    raw = bytearray(nibabel.Nifti1Image(values("t1"), np.eye(4)).to_bytes())
    raw[252:256] = struct.pack("<2h", 0, 2)
    raw[280:328] = affine[:3].astype("<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    volume = data.open_volume(tmp_path / "a.nii")
    assert volume.place.orientation == ""
    assert volume.notes == ("its sform maps nothing into space",)
    assert torch.equal(volume.read(), torch.from_numpy(values("t1")))
    with pytest.raises(
        VolumeError, match=r"a\.nii does not say where .*cannot be reoriented to RAS"
    ):
        data.NiftiVolume(tmp_path / "a.nii", orientation="RAS")


@pytest.mark.parametrize("wrong", ["RA", "RAX", "RRS", "ras", "RASL"])
def test_an_orientation_needs_three_letters(tmp_path, wrong):
    path = write(tmp_path / "a.nii", values("t1"), np.eye(4))
    with pytest.raises(VolumeError, match=r"orientation needs .* such as 'RAS', got"):
        data.NiftiVolume(path, orientation=wrong)


def test_a_turned_volume_pickles_and_takes_a_frame(tmp_path):
    import pickle

    several = np.stack([values("t1"), values("flair")], -1)
    path = write(tmp_path / "a.nii", several[::-1], np.diag([-1.0, 1, 1, 1]))
    volume = data.NiftiVolume(path, frame=1, orientation="RAS")
    for one in (volume, pickle.loads(pickle.dumps(volume))):
        assert torch.equal(one.read(), torch.from_numpy(values("flair")))


@pytest.mark.parametrize(
    ("shape", "frame", "message"),
    [
        ((4, 5, 6, 3), None, r"shape \(4, 5, 6, 3\); pass frame= from 0 to 2"),
        ((4, 5, 6, 1, 3), None, r"shape \(4, 5, 6, 3\); pass frame= from 0 to 2"),
        ((4, 5, 6, 1, 1, 3), 3, r"got frame=3; pass frame= from 0 to 2"),
        ((4, 5, 6, 2, 3), 0, r"shape \(4, 5, 6, 2, 3\); save one image of it"),
    ],
)
def test_advice_about_images_in_one_file_can_be_followed(tmp_path, shape, frame, message):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = write(tmp_path / "P" / "P_t1.nii", array, np.eye(4))
    with pytest.raises(VolumeError, match=message):
        data.open_volume(path, frame=frame)
    if "frame=" in message:
        one = data.open_volume(path, frame=2).read().numpy()
        np.testing.assert_array_equal(one, array.reshape(4, 5, 6, 3)[..., 2])


def test_advice_of_a_cohort_names_no_option_that_it_lacks(tree, tmp_path):
    put(tree, "t1", np.ones((4, 5, 6, 3), np.int16), np.eye(4))
    cohort = read_brats(tree)
    with pytest.raises(
        VolumeError, match=r"save one image of it as a file of its own\.$"
    ) as caught:
        cohort.volume(name(1))
    reason = prepare(cohort, cache=tmp_path / "cache").skipped[name(1)]
    for said in (str(caught.value), reason, *check_patient(name(1), cohort.files(name(1))).faults):
        assert "frame=" not in said
    put(tree, "t1", np.full(SHAPE, np.nan, np.float32), np.eye(4))
    (fault,) = check_patient(name(1), cohort.files(name(1)), deep=True).faults
    assert "nan=" not in fault
    assert "replace them in the file" in fault
    # `prepare` has the option, so it is named there.
    assert "pass nan=0.0" in prepare(cohort, cache=tmp_path / "cache").skipped[name(1)]


def test_names_in_capitals_and_notes_of_a_mac(tmp_path):
    tree = make_tree(tmp_path / "data", ROWS, contrasts=("t1", "seg"))
    folder = tree / name(1)
    (folder / f"{name(1)}_t1.nii").rename(folder / f"{name(1).upper()}_T1.NII")
    (folder / f"{name(1)}_seg.nii").rename(folder / "W39_1998.09.19_Segm.NII")
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"Mac OS X")
    (folder / "W39_Segm.nii.txt").write_text("notes")
    found = read_brats(tree, contrasts=("t1", "seg")).files(name(1))
    assert [path.name for path in found.values()] == [
        f"{name(1).upper()}_T1.NII",
        "W39_1998.09.19_Segm.NII",
    ]
    assert check_cohort(tree, deep=True).faults.keys() == {name(k) for k in (1, 2, 3, 4)}


def test_a_scan_larger_than_memory_is_left_out_before_it_is_read(tree, tmp_path, monkeypatch):
    from tests.data.test_nifti_packed import sparse

    sparse(tree / name(1) / f"{name(1)}_t1.nii")
    prepared = prepare(read_brats(tree), cache=tmp_path / "cache")
    assert list(prepared.skipped) == [name(1)]
    assert "is too large to be converted, it needs 2,199,023,256,152" in prepared.skipped[name(1)]
    with pytest.raises(CohortError, match="too large to be converted"):
        prepare(read_brats(tree).subset([name(1)]), cache=tmp_path / "cache")
