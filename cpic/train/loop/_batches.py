"""Batches of one fold of a cohort: volumes to read from, and the table of their samples.

A batch is a dictionary: `volumes`, one per distinct patient, their `names`, `rows` `(B,)`, the
index in `volumes` for each sample, `tabular` `(B, t)` or None, `target` `(B,)`, and `scale` `(B,)`,
the factor that converts a target to its unit (days, milliliters).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from cpic._errors import CohortError
from cpic.data import ArrayVolume, FlippedVolume, Volume
from cpic.train.loop._fold_data import Batch, FoldData
from cpic.train.loop._parts import Planned
from cpic.train.loop._plan import plan_flips
from cpic.train.loop._splits import Table, read_split

if TYPE_CHECKING:
    from pandas import DataFrame


class Scans(Protocol):
    """A source of volumes, such as `cpic.cohorts.Prepared`."""

    def volume(self, patient: str, /) -> Volume:
        """The scan of a patient; raises CohortError if there is none."""
        ...


class CohortData(FoldData):
    """Batches of one fold, in an order that depends only on seed and epoch.

    With several processes, each one gets its share of the patients of every batch.

    Args:
        prepared: Source of volumes: `prepared.volume(patient)`.
        samples: One row per sample, with at least the columns `patient` and `target`.
        fold: Training patients and validation patients.
        selection: Training patients who choose the best epoch, and are not trained on; if there
            are none, the validation patients choose it, and its error is optimistic.
        batch_size: Samples per batch, over all processes.
        tabular: Maps rows of `samples` to tabular features `(n, t)`. Fit it on the training
            fold, as `OsicTable.fit` does.
        scale: Factor that converts targets to their unit: a number, or the name of a column.
        min_patients: Distinct patients per training batch: at least the number of components, so
            that a basis can be computed from one batch.
        seed: Seed of the order.
        num_workers: Processes that prefetch batches if `read` is set; otherwise nothing is
            prefetched.
        drop_last: Drop the last, incomplete batch of a training epoch.
        read: Return whole volumes in memory, for networks that read every voxel.
        flips: Axes along which training scans may be mirrored, drawn anew in each epoch. A mirrored
            scan has its own name.

    Raises:
        CohortError: If a target is not finite, all targets are equal, a patient has no scan, has no
            sample, or is in both splits, or there are too few patients or samples for one batch.
        VolumeError: If an axis in `flips` does not exist.

    Example:
        >>> train, validation = folds(prepared.cohort)[0]  # doctest: +SKIP
        >>> data = CohortData(prepared, prepared.samples, fold=(train, validation),
        ...                   batch_size=21, scale=1825.0, min_patients=10)  # doctest: +SKIP
    """

    def __init__(
        self,
        prepared: Scans,
        samples: "DataFrame",
        *,
        fold: tuple[Sequence[str], Sequence[str]],
        selection: Sequence[str] = (),
        batch_size: int,
        tabular: "Callable[[DataFrame], Tensor] | None" = None,
        scale: str | float = 1.0,
        min_patients: int = 1,
        seed: int = 42,
        num_workers: int = 0,
        drop_last: bool = True,
        read: bool = False,
        flips: Sequence[int] = (),
    ):
        super().__init__(
            batch_size=batch_size,
            min_patients=min_patients,
            seed=seed,
            num_workers=num_workers,
            drop_last=drop_last,
        )
        self.read, self.flips = read, tuple(flips)
        both = sorted(set(fold[0]) & set(fold[1]))
        if both:
            raise CohortError(
                f"a fold needs each patient in one split only, got {len(both)} in both, the first "
                f"is {both[0]}; use cpic.cohorts.folds."
            )
        if others := sorted(set(selection) - set(fold[0])):
            raise CohortError(
                f"patients who choose the epoch must be training patients, got {len(others)} "
                f"others, the first is {others[0]}; use a part of the training fold."
            )
        parts = {
            "training": [patient for patient in fold[0] if patient not in set(selection)],
            "selection": list(selection),
            "validation": list(fold[1]),
        }
        tables = {
            split: read_split(samples, patients, split, tabular, scale)
            for split, patients in parts.items()
            if patients or split != "selection"
        }
        self.train, self.validation = tables["training"], tables["validation"]
        self.selection = tables.get("selection")
        self._check_batches()
        self.volumes: dict[str, Volume] = {}
        for patient in dict.fromkeys(name for table in self.tables for name in table.patients):
            try:
                self.volumes[patient] = prepared.volume(patient)
            except KeyError as error:
                raise CohortError(
                    f"patient {patient} has no scan; leave its samples out of the fold."
                ) from error
        FlippedVolume(next(iter(self.volumes.values())), axes=self.flips)  # raises for a wrong axis

    @property
    def altered(self) -> str:
        """The axes along which scans may be mirrored."""
        return "".join(map(str, self.flips))

    def loader(self, table: Table, plan: list[list[int]], *, epoch: int | None) -> "ScanLoader":
        """Batches of a table; scans are mirrored in training only."""
        flips: dict[str, tuple[int, ...]] = {}
        if epoch is not None:
            flips = plan_flips(table.patients, self.flips, seed=self.seed, epoch=epoch)
        return ScanLoader(
            table=table,
            plan=plan,
            seed=None,  # what is drawn, the flips, is planned
            num_workers=self.num_workers if self.read else 0,
            flips=flips,
            volumes=self.volumes,
            read=self.read,
        )

    def _check_batches(self) -> None:
        n_patients, target = len(set(self.train.patients)), self.train.target
        least = max(1, self.min_patients)
        faults = {
            f"a batch needs at least {least} samples, as many as the rank, got "
            f"batch_size={self.batch_size}; raise it or lower the rank.": self.batch_size < least,
            f"training needs at least {max(2, least)} patients in the training fold, got "
            f"{n_patients}; add patients, or lower the rank or `selection`.": n_patients
            < max(2, least),
            f"a batch of {self.batch_size} needs as many training samples, got {len(target)}; "
            "lower the batch size or `selection`.": self.n_batches == 0,
            f"training needs targets that differ, got {len(target)} times {target[0]:g}; there is "
            "nothing to learn.": bool((target == target[0]).all()),
        }
        for message, found in faults.items():
            if found:
                raise CohortError(message)


@dataclasses.dataclass(eq=False, kw_only=True)
class ScanLoader(Planned):
    """Batches by the indices of their samples."""

    flips: dict[str, tuple[int, ...]]
    volumes: dict[str, Volume]
    read: bool

    def __getitem__(self, indices: list[int]) -> Batch:
        table = self.table
        patients = [table.patients[k] for k in indices]
        distinct = list(dict.fromkeys(patients))
        names, volumes = zip(*map(self._seen, distinct), strict=True)
        return {
            "volumes": list(volumes),
            "rows": torch.tensor([distinct.index(patient) for patient in patients]),
            "tabular": None if table.tabular is None else table.tabular[indices],
            **self.rows(indices),
            "names": list(names),  # of volumes, instead of samples
        }

    def _seen(self, patient: str) -> tuple[str, Volume]:
        """A scan and its name; cached data of a scan does not apply to its mirror image."""
        name, volume = patient, self.volumes[patient]
        if axes := self.flips.get(patient):
            name, volume = f"{patient} {axes}", FlippedVolume(volume, axes=axes)
        if self.read:
            volume = ArrayVolume(volume.read(), channels=volume.channels)
        return name, volume
