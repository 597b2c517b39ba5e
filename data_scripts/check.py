"""Find missing or broken files in a downloaded cohort, patient by patient.

    python data_scripts/check.py ROOT --deep true

Like `cpic data check`, but on several processes or a Dask cluster. The exit code is 1 if there are
faults.
"""

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
    """Find missing or broken files in a downloaded cohort.

    Args:
        root: folder of the set.
        kind: which set; auto detects it from the table.
        deep: read every voxel, not only headers and sizes.
        json: file for a report as JSON.
        workers: processes; one per core by default, 0 runs in this one.
        scheduler: address of a Dask scheduler to use instead.
    """

    def lost(name: str, reason: str) -> PatientCheck:
        return PatientCheck(name, (f"not checked: {reason}",))

    with _engine.Engine(workers=workers, scheduler=scheduler) as engine:
        run = engine.runner(lost, desc="check")
        found = check_cohort(root, kind=kind, deep=deep, run=run, report=json or None)
    print(found)
    return int(not found.ok)


if __name__ == "__main__":
    _engine.call(main)
