"""The samples of one split of a fold, checked, and the patients who choose the epoch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cpic._errors import CohortError

if TYPE_CHECKING:
    from pandas import DataFrame


class Table(NamedTuple):
    """Samples of one split: patients, targets `(n,)`, scales `(n,)`, tabular features `(n, t)`."""

    patients: list[str]
    target: Tensor
    scale: Tensor
    tabular: Tensor | None


def split_selection(
    patients: Sequence[str], share: float, *, generator: torch.Generator
) -> tuple[list[str], list[str]]:
    """Divide training patients into those to train on and those who choose the best epoch.

    The latter are drawn at random, since the folds are not stratified either.

    Args:
        patients: Training patients of a fold.
        share: Share of them that choose, at least one patient; with 0 nobody does.
        generator: Random number generator.

    Returns:
        Both parts, in the order of the patients.

    Example:
        >>> split_selection(["a", "b", "c"], 0.0, generator=torch.Generator())
        (['a', 'b', 'c'], [])
    """
    n = min(max(1, round(share * len(patients))), len(patients) - 1) if share else 0
    drawn = torch.randperm(len(patients), generator=generator)[:n].tolist()
    chosen = {patients[k] for k in drawn}
    return [p for p in patients if p not in chosen], [p for p in patients if p in chosen]


def read_split(
    samples: "DataFrame",
    patients: list[str],
    split: str,
    tabular: "Callable[[DataFrame], Tensor] | None",
    scale: str | float,
) -> Table:
    """Select and check the samples of some patients."""
    rows: Any = samples[samples["patient"].isin(patients)]
    names = rows["patient"].tolist()
    missing = sorted(set(patients) - set(names))
    if missing or not names:
        raise CohortError(
            f"each {split} patient needs a sample, got {len(missing)} of {len(patients)} without, "
            f"the first is {missing[0] if missing else 'nobody'}; leave them out of the fold."
        )
    target = _column(rows, "target")
    scales = _column(rows, scale) if isinstance(scale, str) else torch.full_like(target, scale)
    features = None if tabular is None else torch.as_tensor(tabular(rows))
    if features is not None and (features.ndim != 2 or len(features) != len(names)):
        raise CohortError(
            f"tabular features need shape ({len(names)}, t), got {tuple(features.shape)}; return "
            "one row for each sample."
        )
    for what, tensor in {"target": target, "scale": scales, "tabular": features}.items():
        bad = [] if tensor is None else (~tensor.isfinite()).nonzero()[:, 0].unique().tolist()
        if bad:
            raise CohortError(
                f"training needs finite numbers, got a {what} that is not in {len(bad)} {split} "
                f"samples, the first of {names[bad[0]]}; leave these samples out."
            )
    return Table(names, target, scales, features)


def _column(rows: Any, name: str) -> Tensor:
    if name not in rows:
        raise CohortError(
            f"samples need the column {name}, got {', '.join(map(str, rows))}; rename it."
        )
    return torch.tensor(rows[name].to_numpy(dtype="float64"))
