"""Convert a cohort once to chunked Zarr stores on one grid, and optionally upsample them.

    python data_scripts/prepare.py ROOT CACHE --shape [256,256,256]
    python data_scripts/prepare.py ROOT CACHE --shape [256,256,256] --upsample 2

Uses several processes or a Dask cluster. A killed run can be continued; existing stores of the same
files and options are kept. The exit code is 1 if a patient could not be converted.
"""

import functools
import time
from pathlib import Path
from typing import Literal

import _engine

from cpic._errors import CacheError, CohortError
from cpic._files import write_json
from cpic.cohorts import Cohort, Converted, Prepared, prepare, read_brats, read_osic
from cpic.cohorts._layout import find_kind
from cpic.data.resample import upsample


def main(
    root: str,
    cache: str,
    kind: Literal["auto", "brats", "osic"] = "auto",
    contrasts: tuple[str, ...] = ("t1",),
    shape: tuple[int, int, int] | None = None,
    order: int | None = 3,
    intensity: Literal["none", "minmax", "zscore"] = "none",
    pad: bool = True,
    chunks: tuple[int, int, int] = (32, 32, 32),
    nan: float | None = None,
    upsample: int = 1,
    json: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Convert a cohort once to chunked Zarr stores on one grid.

    Args:
        root: folder of the set; never written to.
        cache: folder for the stores, outside of root.
        kind: which set; auto detects it from the table.
        contrasts: channels, one or more of flair, t1, t1ce, t2 and seg (BraTS only).
        shape: grid all scans are resampled to; null keeps each scan's own.
        order: order of the splines, 3 as published; null pads with zeros instead.
        intensity: minmax to [0, 1], zscore over the nonzero voxels, or none.
        pad: pad with zeros at the end of each axis to the next power of two.
        chunks: sizes of a chunk in voxels, the unit of reading.
        nan: value to replace NaN and infinity with; null reports scans that have some.
        upsample: 2 also writes stores of twice the size along each axis, by splines.
        json: file for a report as JSON.
        workers: processes; one per core by default, 0 runs in this one.
        scheduler: address of a Dask scheduler to use instead.
    """
    if upsample < 1:
        raise CohortError(f"upsample needs a factor of at least 1, got {upsample}.")
    begin, cohort = time.perf_counter(), _read(root, kind, contrasts)
    with _engine.Engine(workers=workers, scheduler=scheduler) as engine:
        prepared = prepare(
            cohort,
            cache=cache,
            shape=shape,
            order=order,
            intensity=intensity,
            pad=pad,
            chunks=chunks,
            nan=nan,
            run=engine.runner(
                lambda name, reason: Converted(name, None, reason),
                fatal=(CacheError,),
                desc="convert",
            ),
        )
        seconds = dict(engine.seconds)
        tried = cohort.patients
        failed = {name: why for name, why in prepared.skipped.items() if name in tried}
        stores = dict(prepared.stores)
        if upsample > 1:
            large = _upsampled(prepared, Path(cache), upsample, order or 0, engine)
            failed |= large.failed
            stores = large.results
    sizes = {name: _n_bytes(store) for name, store in stores.items()}
    total = time.perf_counter() - begin
    left_out = {name: r for name, r in prepared.skipped.items() if name not in failed}
    print(
        f"{prepared.cohort.name}: {len(stores)} patients in {Path(cache)}, "
        f"{sum(sizes.values()) / 2**20:.1f} MiB, {total:.1f} s; {len(failed)} failed"
        + _engine.failure_table(failed)
    )
    if left_out:
        table = _engine.failure_table(left_out)
        print(f"{len(left_out)} skipped without a usable row and files{table}")
    for patient, notes in prepared.notes.items():
        print("\n".join(f"  (note) {patient}: {note}" for note in notes))
    if json:
        done = {
            name: {"store": str(store), "bytes": sizes[name], "seconds": seconds.get(name, 0.0)}
            for name, store in stores.items()
        }
        report = {"done": done, "failed": failed, "left_out": left_out, "seconds": total}
        report["notes"] = prepared.notes
        write_json(Path(json), report)
    return int(bool(failed))


def _read(root: str, kind: str, contrasts: tuple[str, ...]) -> Cohort:
    kind = find_kind(root) if kind == "auto" else kind
    if kind:
        return read_brats(root, contrasts=contrasts) if kind == "brats" else read_osic(root)
    raise CohortError(
        f"{root} holds neither survival_info.csv nor train.csv; check.py shows the trees that are "
        "expected."
    )


def _upsampled(
    prepared: Prepared, cache: Path, factor: int, order: int, engine: _engine.Engine
) -> _engine.Report:
    folder = cache / f"{prepared.cohort.name}-x{factor}-order{order}"
    paths = {name: folder / store.name for name, store in prepared.stores.items()}
    # A store appears under its name when it is complete.
    missing = {name: path for name, path in paths.items() if not path.exists()}
    job = functools.partial(upsample, factor=factor, order=order)
    work = {name: (prepared.volume(name), path) for name, path in missing.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report = engine.map(job, work, fatal=(OSError,), desc="up-sample")
    except OSError as error:
        raise CacheError(
            f"the cache {folder} cannot be written ({error.strerror or error}): free space "
            "there or allow writing; finished work is kept."
        ) from error
    report.results = {name: path for name, path in paths.items() if name not in report.failed}
    return report


def _n_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


if __name__ == "__main__":
    _engine.call(main)
