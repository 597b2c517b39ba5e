"""The samples of one split of a fold, checked."""

from collections.abc import Callable
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
