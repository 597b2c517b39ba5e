"""Damaged NIfTI files: a clear refusal, or what the bytes say; nothing else, and never a hang."""

import gzip
import hashlib
import io
import logging
import struct
import warnings
import zlib

import nibabel
import numpy as np
import pytest
import torch

from cpic._errors import VolumeError
from cpic.data import NiftiVolume

N_FILES = 100
SHAPE = (4, 5, 3)
KINDS = ["u1", "<i2", ">i2", "<f4", "<f8", "scaled", "nifti2", "extended", "frames"]
# Fields of the header that decide how voxels are read: offset, struct code, values that hurt.
FIELDS = {
    1: {
        "length": (0, "i", (0, 540, -1, 2**31 - 1)),
        "sizes": (40, "8h", None),
        "type": (70, "h", (0, 1, 2, 8, 16, 32, 64, 128, 256, 768, 1024, 1280, 1536, 2304, -1)),
        "bits": (72, "h", (0, 1, 7, 8, 32767, -8)),
        "offset": (108, "f", (0, 1, 351, 352.5, -1, 1e9, 1e38, float("nan"), float("inf"))),
        "slope": (112, "f", (0, -2, 1e-45, 3e38, float("nan"), float("inf"))),
        "inter": (116, "f", (0, -2, 1e-45, 3e38, float("nan"), float("-inf"))),
        "magic": (344, "4s", (b"ni1\0", b"n+1\0", b"n+2\0", b"\0" * 4, b"n+1 ")),
        "extension": (348, "4s", (b"\1\0\0\0", b"\0\1\0\0", b"\xff" * 4)),
    },
    2: {
        "length": (0, "i", (0, 348, -1, 2**31 - 1)),
        "magic": (4, "8s", (b"n+1\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n", b"n+2\0\n\n\x1a\n", b"\0" * 8)),
        "type": (12, "h", (0, 1, 2, 8, 16, 32, 64, 128, 256, 768, 1024, 1280, 1536, 2304, -1)),
        "bits": (14, "h", (0, 1, 7, 8, 32767, -8)),
        "sizes": (16, "8q", None),
        "offset": (168, "q", (0, 1, 543, -1, 2**40, 2**62, -(2**62))),
        "slope": (176, "d", (0, -2, 1e-320, 1e300, float("nan"), float("inf"))),
        "inter": (184, "d", (0, -2, 1e-320, 1e300, float("nan"), float("-inf"))),
    },
}
SIZES = (0, 1, 2, 3, 4, 5, 7, -1, -5, 100, 32767, -32768, 2**31, 2**40, 2**62)


def intact(kind):
    """The bytes of a valid file."""
    rng = np.random.default_rng(7)
    stored = {"scaled": "<i2", "nifti2": "<i4", "extended": "u1", "frames": "<i2"}.get(kind, kind)
    shape = (*SHAPE, 2) if kind == "frames" else SHAPE
    values = rng.integers(0, 200, shape).astype(stored)
    make = nibabel.Nifti2Image if kind == "nifti2" else nibabel.Nifti1Image
    header = make.header_class(endianness=">" if stored.startswith(">") else "<")
    header.set_data_dtype(values.dtype)
    image = make(values, np.eye(4), header)
    if kind == "scaled":
        image.header.set_slope_inter(0.25, -7)
    if kind == "extended":
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note" * 9))
    return image.to_bytes()


def hurt_field(raw, rng, kind):
    version = 2 if kind == "nifti2" else 1
    name = rng.choice(sorted(FIELDS[version]))
    offset, code, values = FIELDS[version][name]
    order = ">" if kind == ">i2" else "<"
    if values is not None:
        value = values[rng.integers(len(values))]
        return write(raw, offset, struct.pack(order + code, value))
    sizes = list(struct.unpack_from(order + code, raw, offset))
    limit = 2 ** (8 * struct.calcsize(code[1]) - 1)
    for _ in range(rng.integers(1, 4)):
        value = SIZES[rng.integers(len(SIZES))]
        sizes[rng.integers(0, 5)] = (value + limit) % (2 * limit) - limit
    return write(raw, offset, struct.pack(order + code, *sizes))


def hurt_bits(raw, rng, kind):
    raw = bytearray(raw)
    for place in rng.integers(
        0, len(raw) if rng.random() < 0.3 else min(352, len(raw)), rng.integers(1, 9)
    ):
        raw[place] ^= 1 << rng.integers(8)
    return bytes(raw)


def hurt_bytes(raw, rng, kind):
    start = int(rng.integers(0, 352 if rng.random() < 0.7 else len(raw)))
    return write(raw, start, rng.bytes(int(rng.integers(1, 40))))


def hurt_length(raw, rng, kind):
    cut = int(rng.integers(0, len(raw) + 1))
    return [raw[:cut], raw[:cut] + raw[cut + 7 :], raw + rng.bytes(50), raw[:cut] + raw][
        rng.integers(4)
    ]


def hurt_swap(raw, rng, kind):
    """Two pieces change places: fields with the values of others."""
    a, b = sorted(rng.integers(0, 348, 2).tolist())
    n = min(int(rng.integers(1, 30)), b - a)
    return raw[:a] + raw[b : b + n] + raw[a + n : b] + raw[a : a + n] + raw[b + n :]


HURTS = [hurt_field, hurt_field, hurt_field, hurt_bits, hurt_bytes, hurt_length, hurt_swap]


def write(raw, start, piece):
    return raw[:start] + piece + raw[start + len(piece) :]


def mutated(kind, seed):
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    raw = intact(kind)
    for _ in range(rng.integers(1, 3)):
        if len(raw) < 400:
            break
        raw = HURTS[rng.integers(len(HURTS))](raw, rng, kind)
    return raw


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def expected(path, frame):
    """What another reader of the format makes of the file, in double precision."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        whole = np.asanyarray(nibabel.load(path).dataobj)
    while whole.ndim > 3 and whole.shape[-1] == 1:
        whole = whole[..., 0]
    return whole if frame is None or whole.ndim < 4 else whole[..., frame]


def agree(volume, twin):
    """The answer for every voxel, single ones included, is that of the twin."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(twin.astype(torch.empty(0, dtype=volume.dtype).numpy().dtype)).all()
    if not finite:
        with pytest.raises(VolumeError, match=r"(NaN|infinite) voxels"):
            volume.read()
        return
    values = volume.read()
    assert tuple(values.shape) == twin.shape == volume.shape
    assert values.dtype == volume.dtype
    with np.errstate(over="ignore"):
        twin = twin.astype(values.numpy().dtype)
    np.testing.assert_allclose(values.numpy(), twin, rtol=1e-5)
    last = torch.tensor(volume.shape)[None] - 1
    assert torch.equal(volume.voxels(last), values[tuple(last[0])][None])


def check(path, frame=None, **options):
    """True if the file was read, and rightly."""
    before = path.read_bytes()
    try:
        volume = NiftiVolume(path, frame=frame, **options)
    except VolumeError as error:
        refusal = str(error)
    else:
        refusal = ""
        agree(volume, expected(path, frame))
    assert path.read_bytes() == before
    assert not refusal or path.name in refusal
    return not refusal


@pytest.mark.parametrize("kind", KINDS)
def test_the_intact_file_is_read(kind, tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(intact(kind))
    assert check(path, frame=1 if kind == "frames" else None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_or_read_as_it_is(kind, tmp_path):
    read = 0
    for seed in range(N_FILES):
        path = tmp_path / f"{seed}.nii"
        path.write_bytes(mutated(kind, seed))
        read += check(path, frame=1 if kind == "frames" else None)
    # Both happen, or the damage would prove nothing.
    assert 0.1 * N_FILES < read < 0.9 * N_FILES


@pytest.mark.timeout(600)
def test_a_damaged_gz_is_refused_or_read_as_it_is(tmp_path):
    cache, read = tmp_path / "cache", 0
    for seed in range(N_FILES):
        rng = np.random.default_rng(seed)
        inside = mutated("<i2", seed) if seed % 3 == 0 else intact("<i2")
        packed = gzip.compress(inside, mtime=0)
        if seed % 3:
            packed = (hurt_bits if seed % 3 == 1 else hurt_length)(packed, rng, None)
        path = tmp_path / f"{seed}.nii.gz"
        path.write_bytes(packed)
        try:
            gzip.GzipFile(fileobj=io.BytesIO(packed)).read()
            whole = True
        except (OSError, EOFError, zlib.error):
            whole = False
        done = check(path, cache=cache)
        assert whole or not done
        read += done
    assert 0.1 * N_FILES < read < 0.9 * N_FILES
    for file in cache.iterdir():
        assert file.suffix == ".nii"
    names = {hashlib.sha256(p.read_bytes()).hexdigest()[:32] for p in tmp_path.glob("*.gz")}
    assert {file.stem for file in cache.iterdir()} <= names


@pytest.mark.parametrize("hurt", [(108, struct.pack("<f", 0)), (344, b"ni1\0")])
def test_voxels_said_to_be_inside_the_header_are_refused(tmp_path, hurt):
    path = tmp_path / "scan.nii"
    path.write_bytes(write(write(intact("<i2"), 108, struct.pack("<f", 0)), *hurt))
    with pytest.raises(VolumeError, match=r"scan.nii is not a NIfTI file with header and voxels"):
        NiftiVolume(path)
