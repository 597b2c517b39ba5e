"""Synthetic slides go from thresholds to features and heat maps, and faults are named."""

import shutil

import make_slides
import numpy as np
import pytest
import slides
import tifffile
import torch
from PIL import Image

from cpic._vision import torchvision
from cpic.images import open_image
from cpic.images.slides import (
    Scores,
    open_features,
    read_annotation,
    read_scores,
    read_slides,
    save_scores,
)
from tests.images import files

EDGE, TILE = 700, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two slides for training and two for testing, their thresholds, tiles, and an encoder."""
    root = tmp_path_factory.mktemp("slides")
    make_slides.main(str(root / "data"), n_train=2, n_test=2, edge=EDGE)
    assert run(root, "otsu", "{data}", "otsu.csv") == 0
    assert tile(root) == 0
    torch.manual_seed(0)
    network = torchvision().models.resnet18(weights=None)
    torch.save(network.state_dict(), root / "net.pt")
    return root


@pytest.fixture
def copy(made, tmp_path):
    """A copy to break."""
    return shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("features"))


def run(root, *words):
    places = {name.split(".")[0]: root / name for name in ("data", "tiles", "net.pt", "features")}
    return slides.main([word.format(**places) for word in words])


def tile(root, split="train"):
    words = ["foreground", f"--{split}", "--tile_size", f"{TILE}"]
    return run(root, *words, "{data}", "otsu.csv", "{tiles}")


def features(root, split="train", out="{features}"):
    tables = [f"{{tiles}}/{name}_{split}.csv" for name in ("bounds", "coords")]
    words = ["features", f"--{split}", "--tile_size", f"{TILE}", "--arch", "resnet18"]
    return run(root, *words, "{data}", "otsu.csv", *tables, "{net}", out)


def rows(path):
    lines = path.read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


def test_synthetic_slides_have_the_published_folders(made):
    found = read_slides(made / "data").slides
    assert [(s.name, s.label) for s in found] == [("normal_001", 0), ("tumor_001", 1)]
    test = read_slides(made / "data", split="test").slides
    assert [(s.name, s.label) for s in test] == [("test_001", 0), ("test_002", 1)]
    image = open_image(found[1].path)
    assert (image.shape, image.tile, image.mpp) == ((EDGE, EDGE), (256, 256), 0.25)
    mask = read_annotation(found[1].annotation).mask((0, 0), size=(EDGE, EDGE))
    assert 0.005 < mask.mean() < 0.3
    before = found[0].path.stat().st_mtime_ns
    make_slides.main(str(made / "data"), n_train=2, n_test=2, edge=EDGE)
    assert found[0].path.stat().st_mtime_ns == before


def test_tables_have_the_published_columns_and_tiles_with_tumor(made):
    found = rows(made / "data" / "otsu.csv")
    assert [row["name"] for row in found] == ["normal_001", "tumor_001", "test_001", "test_002"]
    assert all(5 < float(row["threshold"]) < 80 for row in found)
    bounds, coords = (rows(made / "tiles" / f"{name}_train.csv") for name in ("bounds", "coords"))
    assert [row["names"] for row in bounds] == ["normal_001", "tumor_001"]
    assert int(bounds[1]["start_id"]) == int(bounds[0]["end_id"]) + 1
    assert int(bounds[1]["end_id"]) == len(coords) - 1
    assert [int(row["id"]) for row in coords] == list(range(len(coords)))
    tumor = [row for row in coords if row["name"] == "tumor_001"]
    assert [int(row["pos_id"]) for row in tumor] == list(range(len(tumor)))
    # A tile with a pixel of a tumor is there, whatever it shows.
    slide = read_slides(made / "data").slides[1]
    mask = read_annotation(slide.annotation).mask((0, 0), size=(EDGE, EDGE))
    corners = {(int(row["y"]), int(row["x"])) for row in tumor}
    touched = np.argwhere(mask) // TILE * TILE
    assert set(map(tuple, touched.tolist())) <= corners


def test_features_are_those_of_the_network_and_kept(made, capsys):
    assert features(made) == 0
    bags = open_features(made / "features")
    assert [(bag.name, bag.label, bag.width) for bag in bags.values()] == [
        ("normal_001", 0, 512), ("tumor_001", 1, 512)]  # fmt: skip
    bag = bags["tumor_001"]
    network = torchvision().models.resnet18(weights=None)
    network.load_state_dict(torch.load(made / "net.pt", weights_only=True))
    network.fc = torch.nn.Identity()
    image = open_image(read_slides(made / "data").slides[1].path)
    pixels = image.read(bag.corners0[3:4], size=(TILE, TILE))
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    with torch.no_grad():
        expected = network.eval()((pixels / 255 - mean) / std)
    torch.testing.assert_close(bag.read(torch.tensor([3])), expected, rtol=1e-4, atol=1e-4)
    store = made / "features" / "tumor_001.zarr" / "zarr.json"
    before = store.stat().st_mtime_ns
    assert features(made) == 0
    assert store.stat().st_mtime_ns == before


def test_scores_become_a_picture_in_coordinates_of_the_slide(made, tmp_path, capsys):
    corners = torch.tensor([[0, 0], [64, 32]])
    scores = Scores(torch.tensor([2.0, 1.0]), corners, (64, 64), (EDGE, EDGE))
    save_scores(tmp_path / "s.npz", scores)
    assert run(made, "heatmap", "--downsample", "32", f"{tmp_path}/s.npz", f"{tmp_path}/m.png") == 0
    picture = np.asarray(Image.open(tmp_path / "m.png"))
    assert picture.shape == (22, 22)
    assert (picture[:2, :2] == 255).all()
    assert (picture[2:4, 1:3] == 128).all()
    assert (picture > 0).sum() == 8
    assert np.load(tmp_path / "m.npy").sum() == 12


def test_a_slide_that_fails_is_named_and_the_others_go_on(copy, capsys):
    path = copy / "data" / "training" / "normal" / "normal_001.tif"
    with tifffile.TiffFile(path) as file:
        n = len(file.pages[0].dataoffsets)
    files.damaged(path, n - 1)
    shutil.rmtree(copy / "data" / "otsu_parts")
    assert run(copy, "otsu", "{data}", "otsu.csv") == 1
    said = capsys.readouterr().out
    assert "3 thresholds" in said
    assert "normal_001" in said
    assert "cannot be decoded at tile (2, 2)" in said
    names = [row["name"] for row in rows(copy / "data" / "otsu.csv")]
    assert names == ["tumor_001", "test_001", "test_002"]
    assert tile(copy) == 1
    assert "has no threshold of it" in capsys.readouterr().out
    assert run(copy, "otsu", "--faults", "skip", "{data}", "otsu.csv") == 0
    assert rows(copy / "data" / "otsu.csv")[0]["faults"] == "1"


def test_a_slide_without_foreground_has_no_tiles_of_another(copy, capsys):
    path = copy / "data" / "training" / "normal" / "normal_001.tif"
    path.unlink()
    make_slides.write_slide(path, np.full((600, 600, 3), 240, np.uint8))
    shutil.rmtree(copy / "data" / "otsu_parts")
    shutil.rmtree(copy / "tiles")
    assert run(copy, "otsu", "{data}", "otsu.csv") == 0
    assert tile(copy) == 0
    assert "1 slides without foreground: normal_001" in capsys.readouterr().out
    bounds = rows(copy / "tiles" / "bounds_train.csv")
    assert (bounds[0]["start_id"], bounds[0]["end_id"], bounds[1]["start_id"]) == ("0", "-1", "0")
    assert features(copy) == 0
    assert list(open_features(copy / "features")) == ["tumor_001"]


def test_a_classifier_is_trained_stopped_and_resumed_and_its_scores_drawn(copy, stopped):
    assert tile(copy, "test") == 0
    for split in ("train", "test"):
        assert features(copy, split, f"{copy}/bags/{split}") == 0
    bags = {split: open_features(copy / "bags" / split) for split in ("train", "test")}
    assert len({len(bag) for bag in bags["train"].values()}) == 2  # a batch of different sizes
    words = ["ips", "--dataset", "camelyon", f"--root={copy / 'bags'}", "--encoder", "projector"]
    words += ["--width", "8", "--heads", "2", "--m", "4", "--i", "7", "--batch_size", "2"]
    words += ["--selection", "0", "--num_epochs", "3", "--write_scores", "true"]
    facts = stopped(words, at=2)
    assert facts["mean"]["metastases_auc"] in (0, 0.5, 1)
    assert facts["images"] == {"train": 2, "test": 2, "selection": 0}
    folder = copy.parent / "whole" / "scores"
    assert sorted(path.stem for path in folder.iterdir()) == ["test_001", "test_002"]
    for name, bag in bags["test"].items():
        scores = read_scores(folder / f"{name}.npz")
        assert torch.equal(scores.corners0, bag.corners0)
        assert (scores.size0, scores.shape0) == ((TILE, TILE), (EDGE, EDGE))
        assert scores.values.sum() == pytest.approx(1, abs=1e-5)
        again = read_scores(copy.parent / "part" / "scores" / f"{name}.npz")
        assert torch.equal(again.values, scores.values)
    drawn = ["heatmap", "--downsample", f"{TILE}", f"{folder}/test_002.npz", f"{copy}/map.png"]
    assert run(copy, *drawn) == 0
    tiles = len(bags["test"]["test_002"])
    assert (np.load(copy / "map.npy") > 0).sum() == tiles


@pytest.mark.slow
def test_pretraining_continues_and_its_encoder_gives_features(copy, capsys):
    words = ["pretrain", "--arch", "resnet18", "--tile_size", "64", "--crop", "32"]
    words += ["--batch_size", "4", "--num_examples", "4", "--hidden", "16"]
    words += ["{data}", "{tiles}/coords_train.csv", f"{copy}/byol"]
    assert run(copy, *words[:1], "--epochs", "1", *words[1:]) == 0
    assert "after 1 epochs" in capsys.readouterr().out
    (copy / "net.pt").unlink()
    (copy / "byol" / "latest.ckpt").rename(copy / "net.pt")
    assert features(copy) == 0


COORDS, OTSU = "id,pos_id,name,x,y\n", "name,level,threshold\n"
# File, what is written to it (None: it is removed), and the sentence.
WRONG = {
    "no tables": ("tiles/coords_train.csv", None, "coords_train.csv cannot be read"),
    "tables disagree": ("tiles/coords_train.csv", f"{COORDS}0,0,tumor_001,0,0\n", "disagree about"),
    "no number": ("tiles/coords_train.csv", f"{COORDS}0,0,tumor_001,a,0\n", "that is no number"),
    "no column": ("tiles/bounds_train.csv", "a\n1\n", "needs the columns"),
    "slide is gone": ("data/training/normal/normal_001.tif", None, "tiles of normal_001"),
    "no thresholds": ("data/otsu.csv", OTSU, "no threshold of"),
    "bad threshold": ("data/otsu.csv", f"{OTSU}a,0,x\n", "is no number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(copy, case):
    name, content, sentence = WRONG[case]
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(content)
    with pytest.raises(SystemExit, match=sentence):
        features(copy)


def test_weights_of_another_network_are_refused(copy, capsys):
    torch.save({"weight": torch.zeros(2)}, copy / "net.pt")
    assert features(copy) == 1
    assert "has no weights of this network" in capsys.readouterr().out


def test_features_of_other_settings_are_not_taken_for_these(copy, capsys):
    assert features(copy) == 0
    state = torch.load(copy / "net.pt", weights_only=True)
    torch.save({name: 2 * value for name, value in state.items()}, copy / "net.pt")
    assert features(copy) == 1
    assert "was extracted with other weights" in capsys.readouterr().out


def test_a_missing_argument_is_said(copy):
    with pytest.raises(SystemExit, match="2"):
        run(copy, "otsu", "{data}")
