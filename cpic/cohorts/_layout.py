"""Folders and tables of the sets as published, and their location on disk."""

import dataclasses
import os
from pathlib import Path

from cpic._errors import CohortError
from cpic.data._folder import looking


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a published set.

    Attributes:
        title: Name in reports.
        table: File with one row per patient or visit.
        folders: Possible locations of the table below the given folder.
        hints: Patterns of files that only this set has below that folder.
        needs: Requirement of the reader, for messages.
        files: The tree, for reports.
    """

    title: str
    table: str
    folders: tuple[str, ...]
    hints: tuple[str, ...]
    needs: str
    files: str

    def find(self, root: Path) -> Path:
        """The folder with the table.

        Raises:
            CohortError: If it is missing or cannot be read.
        """
        with looking(root):
            for place in (root / folder for folder in self.folders):
                if (place / self.table).is_file():
                    return place
            lacks = f"lacks {self.table}" if root.is_dir() else "is not a folder"
        raise CohortError(f"{root} {lacks}: {self.needs}.")

    def is_at(self, root: Path) -> bool:
        """Whether the set, complete or not, is there."""
        tables = (root / folder / self.table for folder in self.folders)
        return any(map(Path.is_file, tables)) or any(
            next(root.glob(hint), None) for hint in self.hints
        )


_BRATS = "MICCAI_BraTS2020_TrainingData"
_OSIC = "osic-pulmonary-fibrosis-progression"
BRATS = Layout(
    title="BraTS 2020",
    table="survival_info.csv",
    # The set is also distributed in a folder of the same name without the prefix.
    folders=("", _BRATS, f"BraTS2020_TrainingData/{_BRATS}"),
    hints=("BraTS20_*", f"{_BRATS}/", f"BraTS2020_TrainingData/{_BRATS}/"),
    needs=f"read_brats needs {_BRATS} with survival_info.csv and "
    "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz, or its parent folder",
    files="""\
MICCAI_BraTS2020_TrainingData/
    survival_info.csv           Brats20ID,Age,Survival_days,Extent_of_Resection
    BraTS20_Training_001/
        BraTS20_Training_001_flair.nii.gz   (or .nii, here and below)
        BraTS20_Training_001_t1.nii.gz
        BraTS20_Training_001_t1ce.nii.gz
        BraTS20_Training_001_t2.nii.gz
        BraTS20_Training_001_seg.nii.gz
    BraTS20_Training_002/
        ...""",
)
OSIC = Layout(
    title="OSIC",
    table="train.csv",
    folders=("", _OSIC),
    hints=("train/", f"{_OSIC}/train/"),
    needs="read_osic needs the folder with train.csv and train/<patient>/<n>.dcm, or its parent "
    f"folder, {_OSIC}",
    files="""\
osic-pulmonary-fibrosis-progression/
    train.csv                   Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus
    train/
        ID00007637202177411956430/
            1.dcm
            2.dcm
            ...
        ID00009637202177434476278/
            ...""",
)
LAYOUTS = {"brats": BRATS, "osic": OSIC}


def find_kind(root: str | os.PathLike) -> str:
    """Detect the set under `root`: "brats", "osic", or "" for neither."""
    root = Path(root)
    kinds = [kind for kind in ("osic", "brats") if root.is_dir() and LAYOUTS[kind].is_at(root)]
    return kinds[0] if kinds else ""
