"""One-time conversion of a cohort to chunked stores on one grid."""

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cpic import _trust
from cpic._errors import CohortError, VolumeError
from cpic.cohorts import _cache
from cpic.cohorts._cohort import Cohort, check_fits, named, open_scan, over_patients, reason_of
from cpic.cohorts._conversion import Conversion, Intensity
from cpic.data._array import ArrayVolume
from cpic.data._folder import is_full, writing
from cpic.data._progress import Progress
from cpic.data._volume import Volume
from cpic.data.chunked._cache import ChunkCache
from cpic.data.chunked._save import save_zarr
from cpic.data.chunked._zarr import ZarrVolume

if TYPE_CHECKING:
    from pandas import DataFrame

# Chunks per shard along an axis: 128 voxels, 8 MiB of float32.
_SHARD = 4
# Contrasts with labels, which must not be interpolated or scaled.
_LABELS = ("seg",)


class Converted(NamedTuple):
    """The result for a patient: a store, or the reason why there is none; and notes."""

    patient: str
    store: Path | None
    reason: str = ""
    notes: tuple[str, ...] = ()


def prepare_patient(
    patient: str,
    files: dict[str, Path],
    *,
    conversion: Conversion,
    cache: str | os.PathLike,
    name: str = "cohort",
) -> Converted:
    """Convert one patient, as `prepare` does for each, in any process.

    Depends only on its arguments and the files, so it can run in workers. An existing store is used
    as it is. A file lock lets one process create a store while others wait for it; a store is put
    in place by one rename, and the remains of a killed process are removed by the next one.

    Args:
        patient: Part of the name of the store.
        files: Contrast to file, or folder, in the order of the channels.
        conversion: Preprocessing options.
        cache: Folder of all stores.
        name: Name of the cohort; a folder in `cache`.

    Returns:
        The store, with notes on oddities of the scans that could be read nevertheless, or the
        reason why this patient has none.

    Raises:
        CacheError: If the cache cannot be written, which would concern every other patient as well.
    """
    from filelock import FileLock

    cache = Path(cache)
    options = dataclasses.asdict(conversion)
    try:
        for contrast, path in files.items():
            check_fits(path, f"{contrast}: ")
        key = _cache.cache_key(files, options, memo=cache / ".hashes")
    except (VolumeError, OSError) as error:
        return Converted(patient, None, reason_of(error))
    store = cache / name / f"{patient}-{key}.zarr"
    if store.exists():
        return Converted(patient, store, notes=_notes_of(store))
    lock = FileLock(cache / ".locks" / f"{patient}-{key}.lock")
    with writing(cache):
        for folder in (store.parent, cache / ".locks"):
            folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if not store.exists():
            _convert(patient, files, conversion, store, cache)
        return Converted(patient, store, notes=_notes_of(store))
    except VolumeError as error:
        return Converted(patient, None, reason_of(error))
    finally:
        lock.release()


def _convert(
    patient: str, files: dict[str, Path], conversion: Conversion, store: Path, cache: Path
) -> None:
    """Create the store; raise VolumeError for a fault of the files, CacheError for the cache."""
    # With the lock held, no other process uses this name.
    for left in store.parent.glob(f".{store.name}-*{_cache.PART}"):
        shutil.rmtree(left, ignore_errors=True)
    with writing(cache):
        scratch = Path(tempfile.mkdtemp(_cache.PART, f".{store.name}-", store.parent))
    try:
        volume, attributes = _read(patient, files, conversion, scratch)
    except OSError as error:
        if is_full(error):
            with writing(cache):
                raise
        raise VolumeError(reason_of(error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    chunks = tuple(min(c, n) for c, n in zip(conversion.chunks, volume.shape, strict=True))
    shards = tuple(
        c * min(_SHARD, math.ceil(n / c)) for c, n in zip(chunks, volume.shape, strict=True)
    )
    with writing(cache):
        try:
            save_zarr(volume, store, chunks=chunks, shards=shards, attributes=attributes)
        except VolumeError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise


def _read(
    patient: str, files: dict[str, Path], conversion: Conversion, scratch: Path
) -> tuple[ArrayVolume, dict[str, Any]]:
    """The converted contrasts of a patient, and the attributes of the store."""
    channels: list[np.ndarray] = []
    attributes: dict[str, Any] = {"notes": []}
    first: Volume | None = None
    for contrast, path in files.items():
        labels = contrast in _LABELS
        try:
            volume = open_scan(path, cache=scratch, nan=conversion.nan, like=first)
            first = first or volume
            values = volume.read().numpy()
            if volume.shape != first.shape:
                shapes = sorted({first.shape, volume.shape})
                raise VolumeError(f"shapes differ, {shapes}; one is needed.")
            channels.append(conversion.apply(values, labels=labels))
        except VolumeError as error:
            raise VolumeError(f"{contrast}: {error}") from error
        odd: list[str] = list(getattr(volume, "notes", ()))
        if not labels and values.min() == values.max():
            attributes.setdefault("constant", []).append(contrast)
            odd.append(f"every voxel is {values.min():g}")
        attributes["notes"] += named(patient, path, odd)
        attributes.setdefault("true_shape", list(values.shape))
    if conversion.shape and conversion.order is not None:
        attributes["true_shape"] = list(conversion.shape)
    stacked = channels[0] if len(channels) == 1 else np.stack(channels, -1)
    return ArrayVolume(stacked, channels=len(channels)), attributes


def _notes_of(store: Path) -> tuple[str, ...]:
    """The notes recorded when the store was created; none if they cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return tuple(
            _trust.parse_json(_trust.read_regular(store / "zarr.json"))["attributes"]["notes"]
        )
    return ()


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A converted cohort; cubes are read from its stores.

    Attributes:
        cohort: The patients that could be converted, and their samples.
        conversion: Preprocessing options.
        stores: The Zarr folder of each patient.
        notes: Oddities of the scans of a patient that could be read nevertheless: gaps between
            slices, several series in a folder, contrasts that were reoriented or are shifted.
        cache: Holds decoded chunks of all patients, see `hold`; None decodes them in each call.
    """

    cohort: Cohort
    conversion: Conversion
    stores: dict[str, Path]
    cache: ChunkCache | None = None
    notes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def patients(self) -> list[str]:
        """Names of the patients, in the order of the cohort."""
        return list(self.stores)

    @property
    def samples(self) -> "DataFrame":
        """One row per training sample, of the converted patients only."""
        return self.cohort.samples

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons for skipped patients: faults of the tables and of the scans."""
        return self.cohort.skipped

    def volume(self, patient: str) -> ZarrVolume:
        """The converted scan, contrasts as channels.

        Its `attributes["true_shape"]` are the sizes without zero padding; `attributes["constant"]`,
        if present, lists the contrasts whose voxels had a single value.

        Raises:
            CohortError: If there is no such patient; the message has the reason.
        """
        self.cohort.files(patient)
        channels = len(self.cohort.contrasts)
        return ZarrVolume(self.stores[patient], channels=channels, cache=self.cache)

    def hold(self, limit_bytes: int) -> "Prepared":
        """The same cohort, with a bounded cache of decoded chunks in memory, for repeated reads."""
        return dataclasses.replace(self, cache=ChunkCache(limit_bytes))

    def in_memory(self, patient: str) -> ArrayVolume:
        """The converted scan, read as a whole, for cohorts that fit into memory."""
        return ArrayVolume(self.volume(patient).read(), channels=len(self.cohort.contrasts))


def prepare(
    cohort: Cohort,
    *,
    cache: str | os.PathLike,
    shape: tuple[int, ...] | None = None,
    order: int | None = 3,
    intensity: Intensity = "none",
    pad: bool = True,
    chunks: tuple[int, ...] = (32, 32, 32),
    nan: float | None = None,
    progress: Progress = False,
    run: Callable[..., Iterable[Converted]] = map,
) -> Prepared:
    """Convert a cohort once, patient by patient, to sharded Zarr v3 stores of float32.

    Stores are named by the content of the files and all options, so a changed file or another
    resolution never reuses an old store; existing stores are not converted again, and a killed run
    can be continued. One patient at a time is held in memory.

    Args:
        cohort: The cohort to convert.
        cache: Folder for the stores, outside the data folder; may be shared by cohorts.
        shape: As in `Conversion`.
        order: As in `Conversion`.
        intensity: As in `Conversion`.
        pad: As in `Conversion`.
        chunks: As in `Conversion`.
        nan: As in `Conversion`.
        progress: Show a progress bar; or a callable that wraps the patients, such as `tqdm.tqdm`.
        run: Maps a function over patients and files; use `Executor.map` for several processes.

    Returns:
        The stores; patients that cannot be converted are in `skipped` with the reason.

    Raises:
        CohortError: If an option is invalid, or no patient can be converted.
        CacheError: If the cache is full, read-only, or inside the data folder.

    Example:
        >>> brats = read_brats("BraTS2020")  # doctest: +SKIP
        >>> prepared = prepare(brats, cache="cache", shape=(256, 256, 256))  # doctest: +SKIP
        >>> prepared.volume(prepared.patients[0])  # doctest: +SKIP
        ZarrVolume(256x256x256, float32)
    """
    conversion = Conversion(shape, order, intensity, pad, chunks, nan)
    cache = Path(cache)
    _cache.check_outside(cache, cohort.root)
    job = functools.partial(prepare_patient, conversion=conversion, cache=cache, name=cohort.name)
    files = {name: cohort.files(name) for name in cohort.patients}
    results = over_patients(job, files, run=run, progress=progress, desc=cohort.name)
    done = {converted.patient: converted for converted in results}
    stores = {name: store for name in files if (store := done[name].store) is not None}
    faults = {name: done[name].reason for name in files if name not in stores}
    if not stores:
        name, reason = next(iter(faults.items()), ("the cohort", "it has no patient"))
        raise CohortError(
            f"none of the {len(files)} patients of {cohort.name} can be converted, the first "
            f"because: {name}: {reason}"
        )
    notes = {name: done[name].notes for name in stores if done[name].notes}
    return Prepared(cohort.subset(stores, skipped=faults), conversion, stores, notes=notes)
