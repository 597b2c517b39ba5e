"""The tabular features of OSIC patients, scaled by statistics of the training fold."""

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cpic._errors import CohortError
from cpic._files import write_json
from cpic._trust import parse_json, read_regular
from cpic.cohorts._osic import SEXES, SMOKING

if TYPE_CHECKING:
    from pandas import DataFrame

_PERCENTS = {"first": "first_percent", "visit": "percent"}


@dataclasses.dataclass(frozen=True)
class OsicTable:
    """Eight features of a sample: weeks, percent, first FVC, age, smoking (three), and sex.

    The first four are scaled to [0, 1] by their extrema over the training fold, so samples of other
    patients may lie outside; smoking is one-hot in the order "Ex-smoker", "Never smoked",
    "Currently smokes"; sex is 1 for "Male" and 0 for "Female".

    Attributes:
        percent: "first", the percent of the patient's baseline; or "visit", that of the sample's
            own visit, which equals the FVC to be predicted up to a factor of the patient, and is
            unknown before the visit.
        low: Minimum over the training fold of weeks, percent, first FVC and age.
        high: Maximum of these.

    Example:
        >>> cohort = read_osic("osic")  # doctest: +SKIP
        >>> train, validation = folds(cohort)[0]  # doctest: +SKIP
        >>> table = OsicTable.fit(cohort.subset(train).samples)  # doctest: +SKIP
        >>> table.transform(cohort.subset(validation).samples).shape[1]  # doctest: +SKIP
        8
    """

    percent: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        ends = [*self.low, *self.high]
        if (
            self.percent not in _PERCENTS
            or (len(self.low), len(self.high)) != (4, 4)
            or not all(map(math.isfinite, ends))
            or any(a > b for a, b in zip(self.low, self.high, strict=True))
        ):
            raise CohortError(
                "OsicTable needs percent 'first' or 'visit' and four finite minima below four "
                f"maxima, got {self.percent!r}, {self.low} and {self.high}; use OsicTable.fit."
            )

    @classmethod
    def fit(cls, samples: "DataFrame", *, percent: str = "first") -> "OsicTable":
        """Compute the extrema from the samples of a training fold only.

        Args:
            samples: Rows of `Cohort.samples`.
            percent: As above.

        Raises:
            CohortError: If there is no sample, a column is missing, or a value is not finite.
        """
        if percent not in _PERCENTS:
            raise CohortError(f"OsicTable.fit needs percent 'first' or 'visit', got {percent!r}.")
        if not len(samples):
            raise CohortError("OsicTable.fit needs the samples of the training fold, got none.")
        values = _numbers(samples, percent)
        return cls(percent, tuple(values.min(0).tolist()), tuple(values.max(0).tolist()))

    def transform(self, samples: "DataFrame") -> Tensor:
        """The features of samples of any fold.

        Args:
            samples: Rows of `Cohort.samples`.

        Returns:
            (n, 8) float64; a column that was constant over the training fold gives 0 there.

        Raises:
            CohortError: If a column is missing, a value is not finite, or a category is unknown.
        """
        low, high = np.array(self.low), np.array(self.high)
        width = np.where(high > low, high - low, 1.0)
        scaled = (_numbers(samples, self.percent) - low) / width
        smoking = _one_hot(samples, "smoking", SMOKING)
        male = _one_hot(samples, "sex", SEXES)[:, SEXES.index("Male"), None]
        return torch.from_numpy(np.concatenate([scaled, smoking, male], axis=1))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the table as JSON, atomically."""
        write_json(Path(path), dataclasses.asdict(self))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "OsicTable":
        """Read a table written by `save`.

        Raises:
            CohortError: If the file is missing or not a saved table.
        """
        try:
            saved = parse_json(read_regular(path))
            low, high = (tuple(float(v) for v in saved[key]) for key in ("low", "high"))
            return cls(str(saved["percent"]), low, high)
        except CohortError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CohortError(
                f"{path} cannot be read as a saved OsicTable ({type(error).__name__}); fit it "
                "again on the training fold."
            ) from error


def _column(samples: "DataFrame", name: str) -> np.ndarray:
    if name not in samples.columns:
        raise CohortError(
            f"OsicTable needs the column {name}, got {', '.join(map(str, samples.columns))}; pass "
            "samples of read_osic."
        )
    return samples[name].to_numpy()


def _numbers(samples: "DataFrame", percent: str) -> np.ndarray:
    """Weeks, percent, first FVC and age, (n, 4)."""
    names = ("weeks", _PERCENTS[percent], "first_fvc", "age")
    columns = []
    for name in names:
        try:
            values = _column(samples, name).astype(np.float64)
        except (ValueError, TypeError) as error:
            raise CohortError(f"OsicTable needs numbers in the column {name} ({error}).") from error
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise CohortError(
                f"OsicTable needs finite numbers in the column {name}, row {row} has "
                f"{values[row]}; leave such samples out."
            )
        columns.append(values)
    return np.stack(columns, axis=1)


def _one_hot(samples: "DataFrame", name: str, known: tuple[str, ...]) -> np.ndarray:
    """One-hot encoding, (n, len(known))."""
    found = _column(samples, name)
    hot = np.array([found == word for word in known], dtype=np.float64).T.reshape(-1, len(known))
    unseen = np.flatnonzero(hot.sum(1) == 0)
    if len(unseen):
        raise CohortError(
            f"OsicTable knows {', '.join(known)} in the column {name}, row {unseen[0]} has "
            f"{str(found[unseen[0]])[:60]!r}; correct it or leave the sample out."
        )
    return hot
