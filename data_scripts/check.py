"""Name what is missing or broken in a downloaded cohort, patient by patient.

    python data_scripts/check.py ROOT --deep true

The same as `cpic data check`, on several processes or a Dask cluster. Leaves with 1 if there are
faults.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import _engine

from cpic.cohorts import check_cohort
from cpic.cohorts._patient import PatientCheck


def main(
    root: str,
    kind: Literal["auto", "brats", "osic"] = "auto",
    deep: bool = False,
    json: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Name what is missing or broken in a downloaded cohort.

    Args:
        root: folder of the set.
        kind: which set; auto tells by the table that is there.
        deep: read every voxel, not headers and sizes only.
        json: file for a report in JSON.
        workers: processes; one a core by default, 0 works inside this one.
        scheduler: address of a Dask scheduler to use instead.
    """

    def run(
        job: Callable, names: Iterable[str], files: Iterable[dict[str, Path]]
    ) -> Iterator[PatientCheck]:
        patients = {name: (name, parts) for name, parts in zip(names, files, strict=True)}
        with _engine.Engine(workers=workers, scheduler=scheduler) as engine:
            report = engine.map(job, patients, desc="check")
        for name in patients:
            if name in report.failed:
                yield PatientCheck(name, (f"not checked: {report.failed[name]}",))
            else:
                yield report.results[name]

    found = check_cohort(root, kind=kind, deep=deep, run=run, report=json or None)
    print(found)
    return int(not found.ok)


if __name__ == "__main__":
    _engine.call(main)
