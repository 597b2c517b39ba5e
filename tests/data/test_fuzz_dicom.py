"""Mutated DICOM files: a `VolumeError`, or what a plain reading of the same bytes gives."""

import functools
import io
import shutil
import struct
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cpic._errors import VolumeError
from cpic.data.dicom._volume import read_series
from tests.data.test_dicom import remove, values, write_series

N_FILES = 3
SECONDS, PEAK_BYTES = 120, 24_000_000
BASES = ("plain", "unplaced", "padded", "packed", "implicit")


@functools.cache
def base(kind):
    """The files of a small series, as bytes."""
    from pydicom import dcmread, uid

    folder = Path(tempfile.mkdtemp())
    pixels = values(N_FILES, 6, 5, np.uint16 if kind == "padded" else np.int16)

    def edit(dataset, k):
        if kind == "unplaced":
            remove("ImagePositionPatient")(dataset, k)
        if kind == "padded":
            dataset.add_new("PixelPaddingValue", "US", 63536)

    write_series(folder, pixels, edit=edit)
    for path in folder.iterdir():
        dataset = dcmread(path)
        if kind == "packed":
            dataset.compress(uid.RLELossless)
            dataset.save_as(path)
        if kind == "implicit":
            meta = dataset.file_meta
            meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
            plain = type(dataset)(path, {}, dataset.preamble, meta, True, True)
            plain.update(dataset)
            plain.save_as(path, implicit_vr=True, little_endian=True)
    files = tuple(path.read_bytes() for path in sorted(folder.iterdir()))
    shutil.rmtree(folder)
    return files


def plainly(content):
    """Hounsfield units and place of one file, by the words of the standard."""
    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(io.BytesIO(content))
        raw = dataset.pixel_array
        hu = raw.astype(float) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        if dataset.get("PixelPaddingValue") not in (None, ""):
            ends = [int(dataset.PixelPaddingValue)]
            if dataset.get("PixelPaddingRangeLimit") not in (None, ""):
                ends.append(int(dataset.PixelPaddingRangeLimit))
            hu[(raw >= min(ends)) & (raw <= max(ends))] = -1000
        place = dataset.get("ImagePositionPatient") or None
        turn = dataset.get("ImageOrientationPatient") or None
        place, turn = (None if v is None else [float(x) for x in v] for v in (place, turn))
    return np.maximum(hu, -1000).astype(np.float32), place, turn


def attempt(contents):
    """Read a series of these files; True if there was an answer, which then is right."""
    folder = Path(tempfile.mkdtemp())
    try:
        for k, content in enumerate(contents):
            (folder / f"{k + 1}.dcm").write_bytes(content)
        tracemalloc.start()
        start = time.perf_counter()
        try:
            found = read_series(folder)
        except VolumeError as error:
            assert folder.name in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return False
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert time.perf_counter() - start < SECONDS
            assert peak < PEAK_BYTES
            assert [path.read_bytes() for path in sorted(folder.iterdir())] == list(contents)
        check(found, contents)
        return True
    finally:
        shutil.rmtree(folder)


def check(found, contents):
    report = found.report
    assert len(report.files) == len(found.values)
    assert {*report.files, *report.dropped} == {f"{k + 1}.dcm" for k in range(len(contents))}
    read = {f"{k + 1}.dcm": plainly(content) for k, content in enumerate(contents)}
    for name, plane in zip(report.files, found.values.numpy(), strict=True):
        assert np.array_equal(plane, read[name][0])
    for name, twin in report.dropped.items():
        assert np.array_equal(read[name][0], read[twin][0])
    if report.order == "position":
        turn = next((turn for _, _, turn in read.values() if turn), [1, 0, 0, 0, 1, 0])
        normal = np.cross(turn[:3], turn[3:])
        normal *= np.sign(normal[np.abs(normal).argmax()])
        assert (np.diff([normal @ read[name][1] for name in report.files]) > 0).all()


def elements(content):
    """The data elements of a file in explicit little endian: tag, kind, value."""
    at, parts = 132, []
    while at < len(content):
        tag, kind = content[at : at + 4], content[at + 4 : at + 6]
        long = kind in (b"OB", b"OW", b"UN", b"SQ", b"UT")
        length = struct.unpack_from("<I" if long else "<H", content, at + (8 if long else 6))[0]
        at += 12 if long else 8
        parts.append([tag, kind, content[at : at + length]])
        at += length
    return parts


def joined(parts):
    out = [bytes(128), b"DICM"]
    for tag, kind, value, *forged in parts:
        length = forged[0] if forged else len(value)
        long = kind in (b"OB", b"OW", b"UN", b"SQ", b"UT")
        form = "<2xI" if long else "<H"
        out.append(tag + kind + struct.pack(form, length % (2**32 if long else 2**16)) + value)
    return b"".join(out)


def mutate(contents, change, which):
    """Change one file, or, for `which` beyond the last, all of them."""
    return [change(c) if which in (k, N_FILES) else c for k, c in enumerate(contents)]


WHICH = st.integers(0, N_FILES)
FUZZ = settings(
    max_examples=300,
    # Shrinking takes minutes; a failing case is small enough as it is.
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
COUNTS = {}


def count(name, answered):
    seen = COUNTS.setdefault(name, [0, 0])
    seen[answered] += 1


@FUZZ
@given(
    kind=st.sampled_from(BASES),
    which=WHICH,
    flips=st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def flipped_bytes(kind, which, flips):
    def change(content):
        changed = bytearray(content)
        for share, in_header, value in flips:
            # Most bytes of a small file are the preamble; half of the flips avoid it.
            start = 128 if in_header else 0
            changed[start + int(share * (len(content) - start - 1))] = value
        return bytes(changed)

    count("flips", attempt(mutate(base(kind), change, which)))


@FUZZ
@given(
    kind=st.sampled_from(BASES),
    which=WHICH,
    how=st.sampled_from(["cut", "drop", "repeat", "insert", "zero", "swap"]),
    start=st.floats(0, 1),
    length=st.integers(1, 200),
    junk=st.binary(min_size=1, max_size=40),
)
def moved_bytes(kind, which, how, start, length, junk):
    def change(content):
        at = int(start * (len(content) - 1))
        part, rest = content[at : at + length], content[at + length :]
        return (
            content[:at]
            + {
                "cut": b"",
                "drop": rest,
                "repeat": part + part + rest,
                "insert": junk + part + rest,
                "zero": bytes(len(part)) + rest,
                "swap": rest + part,
            }[how]
        )

    count("moves", attempt(mutate(base(kind), change, which)))


NUMBERS = st.sampled_from(
    b"|0|-1|1e308|-1e39|nan|inf|1\\2|1\\2\\3|x|999999999999999999999999999999999999|1e999999999"
    b"|-40|-37.5|-35.004|0\\0\\-37.5|0\\0\\-37.501|0\\0\\1e300|1_000| 7 |0x10|\0|\\|\xd9\xa3"
    b"|1\\0\\0\\0\\1\\0|1\\0\\0\\0\\0\\1|0\\1\\0\\1\\0\\0".split(b"|")
)
WORDS = st.sampled_from([0, 1, 2, 5, 6, 7, 8, 12, 15, 16, 32, 64, 255, 4096, 32768, 65535]).map(
    lambda n: struct.pack("<H", n)
)
SYNTAXES = st.sampled_from(
    [".1", ".1.99", ".2", ".5", ".4.50", ".4.70", ".4.80", ".4.90", ".4.102", ".1.98", ".1.2.1.99"]
).map(lambda end: b"1.2.840.10008.1.2" + end.encode())
KINDS = st.sampled_from(b"US SS DS IS OB OW UN SQ UI LO CS UL FD FL AT XX \0\0".split(b" "))


@FUZZ
@given(
    which=WHICH,
    place=st.integers(0, 40),
    how=st.sampled_from(["value", "value", "value", "kind", "length", "delete", "twice", "last"]),
    value=st.one_of(NUMBERS, WORDS, SYNTAXES, st.binary(max_size=20)),
    kind=KINDS,
    length=st.sampled_from([0, 1, 3, 2**16 - 1, 2**31, 2**32 - 2, 2**32 - 1]),
)
def edited_tags(which, place, how, value, kind, length):
    def change(content):
        parts = elements(content)
        at = place % len(parts)
        tag, old_kind, old = parts[at]
        if how == "delete":
            del parts[at]
        elif how in ("twice", "last"):
            parts.insert(at if how == "twice" else len(parts), [tag, old_kind, value])
        else:
            parts[at] = {
                "value": [tag, old_kind, value],
                "kind": [tag, kind, old],
                "length": [tag, old_kind, old, length],
            }[how]
        return joined(parts)

    count("tags", attempt(mutate(base("plain"), change, which)))


def test_files_that_were_not_mutated_are_read():
    for kind in BASES:
        assert attempt(base(kind))
    assert joined(elements(base("plain")[0])) == base("plain")[0]


@pytest.mark.parametrize("fuzz", [flipped_bytes, moved_bytes, edited_tags])
def test_mutated_files_are_refused_or_read_right(fuzz):
    before = {name: sum(seen) for name, seen in COUNTS.items()}
    fuzz()
    name = {"flipped_bytes": "flips", "moved_bytes": "moves", "edited_tags": "tags"}[fuzz.__name__]
    refused, answered = COUNTS[name]
    assert refused + answered - before.get(name, 0) >= 250
    # Neither all refused nor all read: both outcomes were tested.
    assert min(refused, answered) >= 30
