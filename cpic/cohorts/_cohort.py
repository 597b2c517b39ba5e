"""A cohort: patients with their files, and a table of training samples."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cpic._errors import CohortError, VolumeError
from cpic.data._open import open_volume, reader_of
from cpic.data._progress import Progress, shown
from cpic.data._stacked import StackedVolume
from cpic.data._volume import Volume, memory_bytes
from cpic.data.nifti._header import read_stored
from cpic.data.nifti._place import fit
from cpic.data.nifti._volume import NiftiVolume

if TYPE_CHECKING:
    from pandas import DataFrame

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """Patients, the paths of their scans, and a table of samples with targets.

    Attributes:
        name: Short name, used in folder names in a cache.
        root: Folder of the originals, never written to.
        contrasts: Names of the channels of a patient's volume, in order.
        patients: The files of each patient, `{patient: {contrast: path}}`; a path may be a folder.
        samples: One row per training sample, with at least the columns `patient` and `target`.
        skipped: Reasons for skipped patients and rows, `{patient: reason}`.

    Example:
        >>> cohort = read_brats("BraTS2020", contrasts=("t1", "flair"))  # doctest: +SKIP
        >>> cohort.volume("BraTS20_Training_001").channels  # doctest: +SKIP
        2
    """

    name: str
    root: Path
    contrasts: tuple[str, ...]
    patients: dict[str, dict[str, Path]]
    samples: "DataFrame"
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def files(self, patient: str) -> dict[str, Path]:
        """The files of a patient, in the order of `contrasts`.

        Raises:
            CohortError: If the patient is not in the cohort; the message has the reason.
        """
        if patient not in self.patients:
            reason = self.skipped.get(patient, "it is not in the table or the tree")
            raise CohortError(
                f"the cohort {self.name} has no patient {patient} ({reason}): choose one of its "
                f"{len(self.patients)} patients."
            )
        return {contrast: self.patients[patient][contrast] for contrast in self.contrasts}

    def volume(
        self, patient: str, *, cache: str | os.PathLike | None = None, nan: float | None = None
    ) -> Volume:
        """The original files of a patient, contrasts as channels, read at the requested positions.

        Args:
            patient: A key of `patients`.
            cache: Folder for decompressed `.nii.gz` files; None is the user's cache folder.
            nan: Value to replace NaN and infinity with; None rejects such voxels when they are
                read.

        Returns:
            A volume; for one contrast that of its file. Axes of further contrasts are permuted and
            reversed if their headers say that their directions differ from those of the first.

        Raises:
            CohortError: If the patient is not in the cohort.
            VolumeError: If a file cannot be read, or the shapes of the contrasts or the spacings
                of their voxels differ.
            CacheError: If the cache cannot be written.
        """
        parts: list[Volume] = []
        for path in self.files(patient).values():
            parts.append(open_scan(path, cache=cache, nan=nan, like=parts[0] if parts else None))
        return parts[0] if len(parts) == 1 else StackedVolume(parts)

    def subset(self, patients: Iterable[str], *, skipped: dict[str, str] | None = None) -> "Cohort":
        """The same cohort with some of its patients, in the original order.

        Args:
            patients: Patients to keep.
            skipped: Reasons to add for the others.

        Raises:
            CohortError: If a patient is not in the cohort.
        """
        keep = list(patients)
        for patient in keep:
            self.files(patient)
        return dataclasses.replace(
            self,
            patients={name: files for name, files in self.patients.items() if name in keep},
            samples=self.samples[self.samples["patient"].isin(keep)].reset_index(drop=True),
            skipped={**self.skipped, **(skipped or {})},
        )

    def __len__(self) -> int:
        return len(self.patients)

    def __repr__(self) -> str:
        return (
            f"Cohort({self.name}: {len(self.patients)} patients, {len(self.samples)} samples, "
            f"{'+'.join(self.contrasts)}, {len(self.skipped)} skipped)"
        )


def made(
    name: str,
    root: Path,
    tree: Path,
    contrasts: tuple[str, ...],
    patients: dict[str, dict[str, Path]],
    samples: list[dict[str, Any]],
    skipped: dict[str, str],
) -> Cohort:
    """Create a cohort from the patients found in a tree.

    Raises:
        CohortError: If there are none; the message has the reason for the first one.
    """
    import pandas

    if not patients:
        first, reason = next(iter(skipped.items()), ("its table", "it has no rows"))
        raise CohortError(
            f"no patient under {tree} can be used, the first is skipped because: {first}: "
            f"{reason}; check that the download is complete."
        )
    return Cohort(name, root, contrasts, patients, pandas.DataFrame(samples), skipped)


def over_patients(
    job: Callable[[str, dict[str, Path]], _T],
    patients: dict[str, dict[str, Path]],
    *,
    run: Callable[..., Iterable[_T]],
    progress: Progress,
    desc: str,
) -> list[_T]:
    """Apply a function to each patient and its files, in order, with a progress bar."""
    done = run(job, list(patients), list(patients.values()))
    return list(shown(progress, done, total=len(patients), desc=desc))


def open_scan(
    path: Path,
    *,
    cache: str | os.PathLike | None,
    nan: float | None,
    like: Volume | None = None,
) -> Volume:
    """Open one contrast, reoriented to the voxels of `like`, the first one.

    Raises:
        VolumeError: As `open_volume`, without advice about options that are not available here; or
            if its voxels do not coincide with those of the first.
    """
    options: dict[str, Any] = {"cache": cache} if reader_of(path) is NiftiVolume else {}
    try:
        volume = open_volume(path, nan=nan, **options)
    except VolumeError as error:
        raise VolumeError(error.plain) from error
    if isinstance(volume, NiftiVolume) and isinstance(like, NiftiVolume):
        found = fit(like, volume)
        if found.orientation:
            volume = NiftiVolume(path, nan=nan, orientation=found.orientation, **options)
        volume.notes += found.notes
    return volume


def check_fits(path: Path, before: str = "") -> None:
    """Reject a scan that does not fit into the memory of this machine, before reading it."""
    parts = path.iterdir() if path.is_dir() else [path]
    n_bytes = sum(part.stat().st_size for part in parts if part.is_file())
    if reader_of(path) is NiftiVolume:
        # A file that cannot be read is reported when it is opened.
        with contextlib.suppress(VolumeError):
            n_bytes = max(n_bytes, read_stored(path).needed)
    if n_bytes > memory_bytes():
        raise VolumeError(
            f"{before}{path} is too large to be converted, it needs {n_bytes:,} bytes of memory; "
            "check the file."
        )


def reason_of(error: VolumeError | OSError) -> str:
    """The reason why a scan cannot be used, for a report."""
    if isinstance(error, VolumeError):
        return error.plain
    return f"it cannot be read ({error.strerror or error})"


def named(patient: str, path: Path, notes: Iterable[str]) -> list[str]:
    """Notes on a file, with its name unless that of the patient identifies it."""
    return [note if path.name == patient else f"{path.name}: {note}" for note in notes]
