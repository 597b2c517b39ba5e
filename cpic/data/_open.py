"""Select the reader by the extension of the name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpic._errors import VolumeError
from cpic.data._faults import reading
from cpic.data._mapped import MemmapVolume
from cpic.data._volume import Volume
from cpic.data.chunked._sources import is_zarr, shown
from cpic.data.chunked._zarr import ZarrVolume
from cpic.data.dicom._volume import DicomVolume
from cpic.data.nifti._volume import NiftiVolume

_READERS: dict[str, Callable[..., Volume]] = {
    ".nii": NiftiVolume,
    ".nii.gz": NiftiVolume,
    ".npy": MemmapVolume,
    ".raw": MemmapVolume,
    ".zarr": ZarrVolume,
}


def open_volume(path: str | os.PathLike, **options: Any) -> Volume:
    """Open a volume; only its header is read.

    Args:
        path: Ends in `.nii` or `.nii.gz` (`NiftiVolume`), `.npy` (mapped), `.raw` (mapped; requires
            `shape=` and `dtype=`, accepts `offset=` and `order="C"|"F"`), or `.zarr`; or is any
            address, a zip file that ends in `.zarr.zip` or `.ozx` or an array inside one, or a
            folder with Zarr metadata, such as a level of an OME-Zarr (`ZarrVolume`); or is a folder
            of DICOM slices named `.dcm` (`DicomVolume`).
        **options: Options of the reader; all take `nan=`, all but NIfTI and DICOM take `channels=`.

    Raises:
        VolumeError: If the path does not exist or its extension is unknown.

    Example:
        >>> open_volume("scan.nii.gz", cache="unpacked")  # doctest: +SKIP
    """
    with reading(path):
        reader = reader_of(path)
        there = "://" in str(path) or Path(path).exists() or is_zarr(path)
    if "://" in str(path) and reader is not ZarrVolume:
        raise VolumeError(
            f"{shown(path)} is an address, at which only Zarr stores are read; download the file "
            "and give its path."
        )
    if reader is None:
        raise VolumeError(
            f"open_volume knows folders of .dcm files and the endings {', '.join(_READERS)}, got "
            f"{path}; convert the file, or load it and pass the array to ArrayVolume. See "
            '"Reading out of core" in chapter 8 of the book.'
        )
    if not there:
        raise VolumeError(f"there is no file or folder {path}; check the path.")
    return reader(path, **options)


def reader_of(path: str | os.PathLike) -> Callable[..., Volume] | None:
    """The reader for a file or folder by its name, None if there is none."""
    name = str(path).rstrip("/").lower()
    reader = next((_READERS[end] for end in _READERS if name.endswith(end)), None)
    if reader is None and ("://" in name or is_zarr(path)):
        return ZarrVolume
    return DicomVolume if reader is None and Path(path).is_dir() else reader
