"""The tree of BraTS 2020: what is read, what is left out and why, what stops everything."""

import hashlib
import pickle

import nibabel
import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import CohortError, VolumeError
from cpic.cohorts import check_cohort, read_brats
from cpic.cohorts.synthetic import make_brats_like
from cpic.data import StackedVolume

TREE = "MICCAI_BraTS2020_TrainingData"
HEADER = "Brats20ID,Age,Survival_days,Extent_of_Resection"
SHAPE = (5, 6, 7)


def name(k):
    return f"BraTS20_Training_{k:03d}"


def scan(k, contrast, shape=SHAPE):
    rng = np.random.default_rng([k, len(contrast), ord(contrast[-1])])
    return rng.integers(0, 500, shape).astype(np.int16)


def make_tree(root, rows, *, ending=".nii", contrasts=("flair", "t1", "t1ce", "t2"), header=HEADER):
    """A tiny tree with a folder for patients 1 to 4 and a table of the given rows."""
    tree = root / TREE
    for k in range(1, 5):
        folder = tree / name(k)
        folder.mkdir(parents=True)
        for contrast in contrasts:
            image = nibabel.Nifti1Image(scan(k, contrast), np.eye(4))
            nibabel.save(image, folder / f"{name(k)}_{contrast}{ending}")
    write_table(tree, "\n".join([header, *rows]) + "\n")
    return tree


def write_table(tree, text, encoding="utf-8"):
    (tree / "survival_info.csv").write_bytes(text.encode(encoding))


ROWS = [f"{name(k)},{50 + k}.25,{100 * k},GTR" for k in (3, 1, 2, 4)]


def digest(root):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def real_like(tmp_path_factory):
    root = tmp_path_factory.mktemp("brats")
    make_brats_like(root, n_patients=3, shape=(24, 24, 24), seed=3)
    return root


def test_a_cohort_in_the_real_format_is_read(real_like, tmp_path):
    import pandas

    cohort = read_brats(real_like, contrasts=("t1", "flair"))
    truth = pandas.read_csv(real_like / "truth.csv", keep_default_na=False)
    truth = truth[truth["alive"].astype(str) == "False"]
    assert list(cohort.patients) == list(truth["Brats20ID"])
    assert list(cohort.samples["days"]) == list(truth["survival_days"].astype(float))
    assert list(cohort.samples["age"]) == list(truth["age"].astype(float))
    assert list(cohort.samples["resection"]) == list(truth["resection"])
    np.testing.assert_array_equal(cohort.samples["target"], cohort.samples["days"] / 1825)
    assert cohort.skipped == {
        name(2): "survival is 'ALIVE (361 days later)', a number of days is needed"
    }
    volume = cohort.volume(name(3), cache=tmp_path)
    path = real_like / TREE / name(3) / f"{name(3)}_flair.nii.gz"
    assert torch.equal(volume.read()[..., 1], data.open_volume(path, cache=tmp_path).read())


@pytest.mark.parametrize("above", ["", "..", "kaggle"])
def test_the_tree_is_found_from_above(tmp_path, above):
    inner = tmp_path / "BraTS2020_TrainingData" if above == "kaggle" else tmp_path
    tree = make_tree(inner, ROWS)
    root = {"": tree, "..": inner, "kaggle": tmp_path}[above]
    cohort = read_brats(root)
    assert cohort.root == root
    assert cohort.patients[name(1)] == {"t1": tree / name(1) / f"{name(1)}_t1.nii"}


def test_patients_come_in_the_order_of_the_table_and_others_do_not_count(tmp_path):
    cohort = read_brats(make_tree(tmp_path, ROWS[:3]))
    assert list(cohort.patients) == list(cohort.samples["patient"]) == [name(k) for k in (3, 1, 2)]
    assert cohort.skipped == {}
    assert list(cohort.samples["target"]) == [300 / 1825, 100 / 1825, 200 / 1825]


@pytest.mark.parametrize(
    ("first", "end", "encoding"),
    [
        ("\ufeff", "\n", "utf-8"),
        ("", "\r\n", "utf-8"),
        ("\ufeff", "\r\n", "utf-8"),
        ("", "\r", "utf-8"),
        ("", " \n", "utf-8"),
        ("", "\n\n", "utf-8"),
        ("", "\n,,,\n", "utf-8"),
    ],
)
def test_marks_line_ends_and_spaces_change_nothing(tmp_path, first, end, encoding):
    tree = make_tree(tmp_path, ROWS)
    plain = read_brats(tree).samples
    lines = [HEADER, *(row.replace(",", " , ") for row in ROWS)]
    write_table(tree, first + end.join(lines) + end, encoding)
    again = read_brats(tree)
    assert again.samples.equals(plain)
    assert again.skipped == {}


def test_columns_are_found_by_name(tmp_path):
    header = "Extent_of_Resection,note,BraTS20ID,survival_days,AGE"
    rows = [f'STR,"a, b",{name(1)},12.5,NA', f",,{name(2)},0,", f"NA,,{name(3)},7,60"]
    samples = read_brats(make_tree(tmp_path, rows, header=header)).samples
    assert list(samples["resection"]) == ["STR", "NA", "NA"]
    assert list(samples["days"]) == [12.5, 0, 7]
    np.testing.assert_array_equal(samples["age"], [np.nan, np.nan, 60])


@pytest.mark.parametrize(
    ("row", "who", "reason"),
    [
        (f"{name(1)},50,-3,GTR", name(1), "survival is '-3'"),
        (f"{name(1)},50,many,GTR", name(1), "survival is 'many'"),
        (f"{name(1)},50,,GTR", name(1), "survival is ''"),
        (f"{name(1)},50,nan,GTR", name(1), "survival is 'nan'"),
        (f"{name(1)},50,inf,GTR", name(1), "survival is 'inf'"),
        (f"{name(1)},50,1e3,GTR", name(1), "survival is '1e3'"),
        (f"{name(1)},50,99999,GTR", name(1), "survival is '99999'"),
        (f"{name(1)},50,\u0663,GTR", name(1), "survival is"),
        (f"{name(1)},old,300,GTR", name(1), "age is 'old'"),
        (f"{name(1)},-1,300,GTR", name(1), "age is '-1'"),
        (f"{name(1)},131,300,GTR", name(1), "age is '131'"),
        (f"{name(1)},50,300,ALL", name(1), "resection is 'ALL'"),
        (f"{name(1)},50,300", name(1), "cannot be used: it has 3 cells, not 4"),
        (f"{name(1)},50,3,00,GTR", name(1), "it has 5 cells, not 4"),
        (f"{name(2)},50,300,GTR", name(2), "2 rows in survival_info.csv, one is needed"),
        (f"{name(9)},50,300,GTR", name(9), "its folder is missing"),
        (",50,300,GTR", "a row without name", "cannot be the name"),
        ("../secret,50,300,GTR", "../secret", "cannot be the name"),
        (f"{name(2)}/.,50,300,GTR", f"{name(2)}/.", "cannot be the name"),
    ],
)
def test_a_bad_row_leaves_one_patient_out_and_says_why(tmp_path, row, who, reason):
    cohort = read_brats(make_tree(tmp_path, [*ROWS[2:], row]))
    assert list(cohort.skipped) == [who]
    assert reason in cohort.skipped[who]
    assert list(cohort.patients) == [p for p in (name(2), name(4)) if p != who]
    assert list(cohort.samples["patient"]) == list(cohort.patients)
    with pytest.raises(CohortError, match="has no patient"):
        cohort.volume(who)


def test_a_missing_contrast_leaves_the_patient_out_only_if_asked_for(tmp_path):
    tree = make_tree(tmp_path, ROWS)
    (tree / name(1) / f"{name(1)}_t2.nii").unlink()
    assert read_brats(tree, contrasts=("t1", "flair")).skipped == {}
    cohort = read_brats(tree, contrasts=("t1", "t2"))
    assert cohort.skipped == {name(1): f"{name(1)}_t2.nii.gz is missing"}
    assert name(1) not in set(cohort.samples["patient"])


def test_the_labels_with_another_name_are_found(tmp_path):
    tree = make_tree(tmp_path, ROWS, contrasts=("t1", "seg"))
    (tree / name(3) / f"{name(3)}_seg.nii").rename(tree / name(3) / "W39_1998.09.19_Segm.nii")
    cohort = read_brats(tree, contrasts=("t1", "seg"))
    assert cohort.patients[name(3)]["seg"].name == "W39_1998.09.19_Segm.nii"
    assert cohort.skipped == {}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("contrasts", [("t1",), ("t2", "flair", "t1ce")])
def test_contrasts_are_channels_in_the_order_asked_for(tmp_path, ending, contrasts):
    tree = make_tree(tmp_path / "data", ROWS, ending=ending)
    before = digest(tree)
    volume = read_brats(tree, contrasts=contrasts).volume(name(2), cache=tmp_path / "cache")
    assert volume.channels == len(contrasts)
    for channel, contrast in enumerate(contrasts):
        whole = volume.read().reshape(*SHAPE, -1)[..., channel]
        assert torch.equal(whole, torch.from_numpy(scan(2, contrast)))
    assert digest(tree) == before


def test_one_contrast_may_be_a_string(tmp_path):
    assert read_brats(make_tree(tmp_path, ROWS), contrasts="t1ce").contrasts == ("t1ce",)


def test_contrasts_of_different_shapes_do_not_stack(tmp_path):
    tree = make_tree(tmp_path, ROWS)
    image = nibabel.Nifti1Image(scan(1, "t2", (5, 6, 8)), np.eye(4))
    nibabel.save(image, tree / name(1) / f"{name(1)}_t2.nii")
    cohort = read_brats(tree, contrasts=("t1", "t2"))
    with pytest.raises(VolumeError, match=r"one shape, got \[\(5, 6, 7\), \(5, 6, 8\)\]"):
        cohort.volume(name(1))
    with pytest.raises(VolumeError, match="one shape, got none"):
        StackedVolume([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("Brats20ID,Age,Survival_days\nx,1,2\n", "needs each of the columns"),
        (f"{HEADER},Age\n", "once, got .*Age"),
        (HEADER.replace(",", ";") + "\n", "needs each of the columns"),
        (HEADER + "\n", "no patient under .* no row"),
        (f"{HEADER}\n{name(1)},1,dead,GTR\n", f"no patient under .* {name(1)}: survival"),
        (f'{HEADER}\n{name(1)},"1,2,GTR\n', "cannot be read as a table"),
        (f'{HEADER}\n{name(1)},"1\n{name(2)},2",3,GTR\n', "inside a cell of line [23]"),
        (f"{HEADER}\n{name(1)},1,2\0,GTR\n", "inside a cell of line [23]"),
        (f"{HEADER}\n{name(1)},{'1' * 200_000},2,GTR\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_trusted_stops(tmp_path, text, message):
    tree = make_tree(tmp_path, ROWS)
    write_table(tree, text)
    with pytest.raises(CohortError, match=message):
        read_brats(tree)


def test_other_encodings_and_huge_tables_are_refused(tmp_path, monkeypatch):
    tree = make_tree(tmp_path, ROWS)
    write_table(tree, "\n".join([HEADER, *ROWS]), "utf-16")
    with pytest.raises(CohortError, match="comma-separated UTF-8"):
        read_brats(tree)
    monkeypatch.setattr("cpic.cohorts._table._MOST_BYTES", 50)
    with pytest.raises(CohortError, match="too many for this table"):
        read_brats(tree)


@pytest.mark.parametrize("contrasts", [(), ("t3",), ("t1", "t1"), "T1", (1,)])
def test_unknown_contrasts_are_refused(tmp_path, contrasts):
    with pytest.raises(CohortError, match="each once, out of flair, t1, t1ce, t2, seg"):
        read_brats(tmp_path, contrasts=contrasts)


def test_a_folder_that_is_none_or_lacks_the_table_is_named(tmp_path):
    with pytest.raises(CohortError, match=r"no is not a folder: .*BraTS20_Training_001"):
        read_brats(tmp_path / "no")
    with pytest.raises(CohortError, match=r"lacks survival_info.csv: "):
        read_brats(tmp_path)


def test_a_subset_keeps_the_order_and_the_reasons(tmp_path):
    cohort = read_brats(make_tree(tmp_path, [*ROWS, f"{name(7)},1,2,GTR"]))
    part = cohort.subset([name(2), name(3)], skipped={name(1): "x"})
    assert list(part.patients) == list(part.samples["patient"]) == [name(3), name(2)]
    assert part.skipped == {name(7): "its folder is missing", name(1): "x"}
    assert len(cohort) == 4
    with pytest.raises(CohortError, match=f"no patient {name(7)} .its folder is missing"):
        cohort.subset([name(7)])


def test_a_cohort_pickles(tmp_path):
    cohort = read_brats(make_tree(tmp_path, ROWS))
    copy = pickle.loads(pickle.dumps(cohort))
    assert copy.patients == cohort.patients
    assert copy.samples.equals(cohort.samples)
    assert repr(copy) == "Cohort(brats2020: 4 patients, 4 samples, t1, 0 skipped)"


class TestStackedVolume:
    @pytest.fixture
    def pair(self, tmp_path):
        arrays = [scan(k, "t1", (9, 8, 10)) for k in range(2)]
        path = data.save_zarr(arrays[1].astype(np.float32), tmp_path / "v", chunks=(4, 4, 4))
        two = data.ArrayVolume(np.stack([arrays[0], arrays[0] + 1], -1), channels=2)
        parts = [data.ArrayVolume(arrays[0]), data.ZarrVolume(path), two]
        dense = np.stack([*arrays, arrays[0], arrays[0] + 1], -1).astype(np.float32)
        return StackedVolume(parts), data.ArrayVolume(dense, channels=4)

    def test_equals_the_dense_twin(self, pair, generator):
        volume, twin = pair
        centers = torch.randint(-4, 13, (40, 3), generator=generator)
        assert isinstance(volume, data.Volume)
        assert (volume.shape, volume.channels, volume.dtype) == ((9, 8, 10), 4, torch.float32)
        for size in (1, 3, 7):
            assert torch.equal(volume.cubes(centers, size=size), twin.cubes(centers, size=size))
        assert torch.equal(volume.voxels(centers), twin.voxels(centers))
        assert torch.equal(volume.read(), twin.read())
        assert torch.equal(pickle.loads(pickle.dumps(volume)).voxels(centers), twin.voxels(centers))

    def test_counts_positions_once_and_the_bytes_of_all_parts(self, pair, generator):
        volume, twin = pair
        centers = torch.randint(0, 8, (40, 3), generator=generator)
        for reader in pair:
            reader.cubes(centers, size=3)
            reader.read()
        assert (volume.ledger.asked, volume.ledger.voxels) == (
            twin.ledger.asked,
            twin.ledger.voxels,
        )
        assert volume.ledger.bytes == sum(part.ledger.bytes for part in volume.parts)
        assert volume.ledger.chunks == volume.parts[1].ledger.chunks > 0


def test_a_folder_that_the_system_refuses_is_one_sentence():
    with pytest.raises(
        CohortError, match=r"cannot be read .*; check the path and your permissions"
    ):
        read_brats("a" * 300)
    for kind in ("auto", "brats"):
        (fault,) = check_cohort("a" * 300, kind=kind).general
        assert "cannot be read" in fault
