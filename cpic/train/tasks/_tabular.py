"""Tabular inputs of a head besides the scan."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cpic.cohorts import OsicTable
from cpic.options._groups import Task

if TYPE_CHECKING:
    from pandas import DataFrame

Kind = Literal["weeks", "osic", "brats"]
_WIDTHS = {"weeks": 1, "osic": 8, "brats": 5}
_RESECTIONS = ("GTR", "STR", "NA")


@dataclasses.dataclass(frozen=True)
class Table:
    """Tabular features, scaled by statistics of the training fold.

    Attributes:
        kind: "weeks", only the normalized week; "osic", all eight features of `OsicTable`; "brats",
            age in standard deviations from its mean (0 if unknown), an indicator of unknown age,
            and the extent of resection, one-hot in three columns.
        low: Minima of an `OsicTable`, or the mean age.
        high: Maxima of an `OsicTable`, or the standard deviation of the age.
    """

    kind: Kind
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return _WIDTHS[self.kind]

    def __call__(self, samples: "DataFrame") -> Tensor:
        """Features of samples, (n, width) float64."""
        if self.kind == "brats":
            return self._brats(samples)
        if self.kind == "weeks":
            weeks = torch.tensor(samples["weeks"].to_numpy(dtype=float))
            return ((weeks - self.low[0]) / ((self.high[0] - self.low[0]) or 1.0))[:, None]
        return OsicTable("first", self.low, self.high).transform(samples)

    def _brats(self, samples: "DataFrame") -> Tensor:
        age = torch.tensor(samples["age"].to_numpy(dtype=float))
        unknown = age.isnan()
        scaled = torch.where(unknown, 0.0, (age - self.low[0]) / self.high[0])
        resection = list(samples["resection"])
        hot = torch.tensor([[one == known for known in _RESECTIONS] for one in resection])
        return torch.cat([scaled[:, None], unknown[:, None], hot.reshape(len(age), 3)], 1)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types, for a checkpoint."""
        return {"kind": self.kind, "low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Table":
        """Rebuild from the output of `to_json`."""
        return cls(saved["kind"], tuple(saved["low"]), tuple(saved["high"]))


def fit_table(task: Task, samples: "DataFrame", *, extra: bool) -> Table | None:
    """Fit the table of a task; None if the head gets only the scan.

    Args:
        task: "brats" or "osic".
        samples: Samples of the training fold.
        extra: Use all data of a patient, not only the week.
    """
    if task == "osic":
        fitted = OsicTable.fit(samples)
        return Table("osic" if extra else "weeks", fitted.low, fitted.high)
    if not extra:
        return None
    ages = torch.tensor(samples["age"].to_numpy(dtype=float))
    ages = ages[~ages.isnan()]
    mean, spread = (float(ages.mean()), float(ages.std(correction=0))) if len(ages) else (0.0, 0.0)
    return Table("brats", (mean,), (spread or 1.0,))
