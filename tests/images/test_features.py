"""Features of slides: written once, read by index from both formats."""

import h5py
import numpy as np
import pytest
import torch

from cpic._errors import CacheError, ImageError
from cpic.images import ArrayImage, PatchSource, open_image
from cpic.images.slides import extract_features, open_features
from tests.images import files


def encode(patches):
    return patches.float().flatten(1)[:, ::50]


def source(**options):
    return PatchSource(ArrayImage(files.pixels()), size=20, **options)


def test_features_are_those_of_the_encoder_in_any_order(tmp_path):
    patches = source()
    positions = torch.arange(len(patches)) * 2
    extract_features(patches, encode, tmp_path / "f" / "a.zarr", label=1, batch_size=7,
                     positions=positions, attributes={"arch": "none"})  # fmt: skip
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["a.zarr"]
    ((name, bag),) = open_features(tmp_path / "f").items()
    assert (name, bag.name, bag.label, len(bag), bag.width) == ("a", "a", 1, 48, 24)
    assert torch.equal(bag.positions, positions)
    assert torch.equal(bag.corners0, patches.corners)
    assert bag.attributes["arch"] == "none"
    assert bag.attributes["size0"] == [20, 20]
    order = torch.tensor([47, 3, 3, 0, 11])
    assert torch.equal(bag.read(order), encode(patches.read(order)))
    assert bag.read(order[:0]).shape == (0, 24)
    for wrong in ([48], [-1], [[0]]):
        with pytest.raises(ImageError, match="from 0 to 47"):
            bag.read(torch.tensor(wrong))


def test_a_finished_store_is_kept_and_a_killed_run_leaves_none(tmp_path):
    path = tmp_path / "a.zarr"

    def dies(patches):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(source(), dies, path, label=0)
    assert list(tmp_path.iterdir()) == []
    extract_features(source(), encode, path, label=0)
    assert extract_features(source(), dies, path, label=0) == []


def test_patches_on_a_corrupt_tile_are_left_out(tmp_path):
    files.tiff(tmp_path / "a.tif", files.pixels(), photometric="rgb", compression="zlib")
    files.damaged(tmp_path / "a.tif", 5)
    patches = PatchSource(open_image(tmp_path / "a.tif", faults="skip"), size=20)
    notes = extract_features(patches, encode, tmp_path / "a.zarr", label=0, batch_size=5)
    assert len(notes) == 1
    assert notes[0].startswith("tile (1, 1): ")
    bag = open_features(tmp_path / "a.zarr")["a"]
    gone = set(range(len(patches))) - set(bag.positions.tolist())
    assert gone == set(patches.skipped.tolist())
    assert 0 < len(gone) < len(patches)
    assert torch.equal(bag.corners0, patches.corners[bag.positions])
    assert torch.equal(bag.read(torch.arange(len(bag))), encode(patches.read(bag.positions)))
    assert bag.attributes["faults"] == notes


def test_what_cannot_be_extracted_is_one_sentence(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(ImageError, match="a label 0 or 1, got 2"):
        extract_features(source(), encode, path, label=2)
    with pytest.raises(ImageError, match="the features of patch 2 are not finite"):
        extract_features(
            source(), lambda x: encode(x) / (torch.arange(len(x)) != 2)[:, None], path, label=0
        )
    with pytest.raises(ImageError, match=r"needs to return \(48, F\), got \(48, 3, 20, 20\)"):
        extract_features(source(), lambda x: x, path, label=0)
    with pytest.raises(ImageError, match="writes shape0, size0 itself"):
        extract_features(
            source(), encode, path, label=0, attributes={"size0": 1, "shape0": 1, "mine": 1}
        )
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="folder of features"):
        extract_features(source(), encode, tmp_path / "file" / "a.zarr", label=0)


def hdf5(path, *, img=None, pos=None, label=1, name="s"):
    values = np.arange(60, dtype="float32").reshape(20, 3) if img is None else img
    with h5py.File(path, "a") as file:
        group = file.create_group(name)
        group.create_dataset("img", data=values, compression="gzip", compression_opts=9)
        group["pos"] = np.arange(len(values)) if pos is None else pos
        if label is not None:
            group.attrs["label"] = label
    return values


def test_hdf5_of_the_published_code_is_read(tmp_path):
    values = hdf5(tmp_path / "a.hdf5")
    hdf5(tmp_path / "a.hdf5", label=np.int64(0), name="b", img=values.astype("float64"))
    bags = open_features(tmp_path / "a.hdf5")
    assert [(name, bag.label) for name, bag in bags.items()] == [("b", 0), ("s", 1)]
    for order in (torch.tensor([19, 0, 0]), torch.tensor([7, 3, 3, 5]), torch.arange(20)):
        assert torch.equal(bags["s"].read(order), torch.from_numpy(values)[order])
    assert bags["b"].read(order).dtype == torch.float32


def without(key):
    def write(path):
        hdf5(path)
        with h5py.File(path, "a") as file:
            del file["s"][key]

    return write  # fmt: skip


def linked(path):
    hdf5(path)
    with h5py.File(path, "a") as file:
        del file["s"]["img"]
        file["s"]["img"] = h5py.ExternalLink("/etc/other.hdf5", "img")


NAN = np.full((20, 3), np.nan, "float32")
FEATURES = {
    "no label": (lambda p: hdf5(p, label=None), "a label 0 or 1, got None"),
    "label 2": (lambda p: hdf5(p, label=2), "a label 0 or 1, got 2"),
    "label half": (lambda p: hdf5(p, label=0.5), "a label 0 or 1, got 0.5"),
    "no img": (without("img"), "lacks the data set img of s"),
    "no pos": (without("pos"), "lacks the data set pos of s"),
    "other file": (linked, "lacks the data set img of s"),
    "pos too long": (lambda p: hdf5(p, pos=np.arange(9)), r"needs img \(n, F\) and pos \(n,\)"),
    "whole numbers": (lambda p: hdf5(p, img=np.zeros((20, 3), int)), r"needs img \(n, F\)"),
    "three axes": (lambda p: hdf5(p, img=np.zeros((20, 3, 1))), r"needs img \(n, F\)"),
    "no hdf5": (lambda p: p.write_bytes(b"no" * 99), "not a readable HDF5 file"),
    "empty": (lambda p: h5py.File(p, "w").close(), "has no features of any slide"),
    "nan": (lambda p: hdf5(p, img=NAN), "features of s are NaN or infinite, first at 0"),
}
PLACES = np.zeros((8, 3), "int64")
STORES = {
    "label 3": (dict(label=3), "a label 0 or 1, got 3"),
    "label true": (dict(label=True), "a label 0 or 1, got True"),
    "places": (dict(places=PLACES[:5]), r"needs img \(n, F\) and places \(n, 3\)"),
    "places of two": (dict(places=PLACES[:, :2]), r"needs img \(n, F\) and places \(n, 3\)"),
    "whole numbers": (dict(features=np.zeros((8, 2), "int32")), "pixels of int32"),
    "nan": (dict(features=NAN[:8]), "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("case", FEATURES)
def test_bad_hdf5_is_one_sentence(tmp_path, case):
    write, sentence = FEATURES[case]
    write(tmp_path / "a.hdf5")
    with pytest.raises(ImageError, match=sentence):
        open_features(tmp_path / "a.hdf5")["s"].read(torch.arange(20))


@pytest.mark.parametrize("case", STORES)
def test_a_bad_store_is_one_sentence(tmp_path, case):
    options, sentence = STORES[case]
    options = {"features": np.ones((8, 3), "float32"), "places": PLACES, **options}
    files.store(tmp_path / "a.zarr", **options)
    with pytest.raises(ImageError, match=sentence):
        open_features(tmp_path)["a"].read(torch.arange(8))


@pytest.mark.parametrize("lost", ["img", "places", "zarr.json"])
def test_a_store_that_lacks_a_part_is_one_sentence(tmp_path, lost):
    path = files.store(tmp_path / "a.zarr", np.ones((8, 3), "float32"), PLACES)
    (path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match=r"a.zarr"):
        open_features(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        open_features(tmp_path / "none")
