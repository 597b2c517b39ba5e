"""Damaged images, features and annotations: a clear refusal, or what the bytes say; no hang."""

import logging

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as pillow

from cpic._errors import ImageError
from cpic.images import PatchSource, open_image, read_signs
from cpic.images.slides import open_features, read_annotation, read_scores
from tests.images import files
from tests.images.test_slides import OPEN, asap, points

N_FILES = 80
SHAPE = (40, 34)
# What fields of a TIFF are set to.
VALUES = (0, 1, 2, 3, 5, 7, 8, 16, 255, 256, 1000, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def tiff(*, bigtiff=False, **options):
    def write(path):
        values = files.pixels(shape=SHAPE)
        with tifffile.TiffWriter(path, bigtiff=bigtiff) as file:
            for step in (1, 2):
                file.write(values[::step, ::step], tile=(16, 16), photometric="rgb", metadata=None,
                           **options)  # fmt: skip

    return write  # fmt: skip


def hdf5(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("s")
        group.create_dataset("img", data=np.ones((30, 4), "float32"), chunks=(8, 4), compression=9)
        group["pos"], group.attrs["label"] = np.arange(30), 1


def picture(path):
    pillow.fromarray(files.pixels(shape=SHAPE)).save(path)


def scores(path):
    np.savez(path, values=np.ones(4), corners0=np.zeros((4, 2), int), size0=(4, 4), shape0=(9, 9))


def text(content):
    return lambda path: path.write_text(content)


def pixels(path):
    image = open_image(path)
    assert image.shape[0] * image.shape[1] < 2**34
    source = PatchSource(image, size=8)
    found = source.read(torch.arange(0, len(source), max(1, len(source) // 40)))
    assert found.shape[1:] == source.shape
    # Blank is the same, but for tiles that cannot be decoded.
    blank = PatchSource(open_image(path, faults="blank"), size=8)
    assert torch.equal(blank.read(torch.tensor([0])), found[:1])


def rows(path):
    for bag in open_features(path).values():
        bag.read(torch.arange(min(len(bag), 64)))


# Ending, what writes it, what reads it, and bytes in which damage is most likely.
KINDS = {
    "tiles": (".tif", tiff(), pixels, 900),
    "deflate": (".tif", tiff(compression="zlib"), pixels, 900),
    "jpeg tiles": (".tif", tiff(compression="jpeg"), pixels, 1500),
    "bigtiff": (".tif", tiff(bigtiff=True, compression="lzw"), pixels, 900),
    "strips": (".tif", lambda p: tifffile.imwrite(p, files.pixels(shape=SHAPE), rowsperstrip=8,
                                                  photometric="rgb"), pixels, 400),
    "png": (".png", picture, pixels, 60),
    "jpeg": (".jpg", picture, pixels, 700),
    "hdf5": (".hdf5", hdf5, rows, 4096),
    "xml": (".xml", text(asap(points(OPEN), points(OPEN))), read_annotation, 700),
    "signs": (".txt", text("a.jpg:VISIBLE, 9.5, 9, 1, 1, X, 70_SIGN;\nb.jpg:\n"), read_signs, 60),
    "scores": (".npz", scores, read_scores, 900),
}  # fmt: skip


def mutated(raw, rng, head):
    """One or two kinds of damage, mostly in the first bytes."""
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 3)):
        place = int(rng.integers(0, min(head, len(raw)) if rng.random() < 0.7 else len(raw)))
        kind = rng.integers(5)
        if kind == 0:
            raw[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            raw[place : place + 8] = rng.bytes(int(rng.integers(0, 16)))
        elif kind == 2:
            value = int(VALUES[rng.integers(len(VALUES))])
            raw[place : place + 4] = value.to_bytes(4, "little")
        elif kind == 3:
            del raw[max(1, place) :]
        else:
            other = int(rng.integers(0, len(raw)))
            raw[place : place + 12] = raw[other : other + 12]
        if len(raw) < 2:
            break
    return bytes(raw)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def refusal(read, path):
    """What the reader says; empty if it reads the file."""
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_sentence_or_read(tmp_path, kind):
    ending, write, read, head = KINDS[kind]
    intact = tmp_path / f"intact{ending}"
    write(intact)
    assert not refusal(read, intact)
    raw, done = intact.read_bytes(), 0
    for seed in range(N_FILES):
        path = tmp_path / f"{seed}{ending}"
        rng = np.random.default_rng([seed, *kind.encode()])
        path.write_bytes(mutated(raw, rng, head))
        before = path.read_bytes()
        said = refusal(read, path)
        assert not said or path.name in said or "features of " in said
        assert "\n" not in said
        assert path.read_bytes() == before
        done += not said
    # Both happen, or the damage would prove nothing.
    assert 0 < done < N_FILES


@pytest.mark.timeout(600)
def test_a_damaged_store_is_refused_in_one_sentence_or_read(tmp_path):
    intact = files.store(tmp_path / "a.zarr", np.ones((30, 4), "float32"), np.ones((30, 3), int))
    assert not refusal(rows, intact)
    parts, done = sorted(p for p in intact.rglob("*") if p.is_file()), 0
    for seed in range(2 * N_FILES):
        rng = np.random.default_rng(seed)
        part = parts[rng.integers(len(parts))]
        raw = part.read_bytes()
        part.write_bytes(mutated(raw, rng, 400))
        said = refusal(rows, intact)
        assert not said or "a.zarr" in said or "features of a" in said
        done += not said
        part.write_bytes(raw)
    assert 0 < done < 2 * N_FILES
