"""The samples of one side of a fold, checked."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cpic._errors import CohortError

if TYPE_CHECKING:
    from pandas import DataFrame


class Table(NamedTuple):
    """Samples of one side of a fold: patients, targets `(n,)`, scales `(n,)`, tabular `(n, t)`."""

    patients: list[str]
    target: Tensor
    scale: Tensor
    tabular: Tensor | None


def read_side(
    samples: "DataFrame",
    patients: list[str],
    side: str,
    tabular: "Callable[[DataFrame], Tensor] | None",
    scale: str | float,
) -> Table:
    """The samples of some patients, checked."""
    rows: Any = samples[samples["patient"].isin(patients)]
    names = rows["patient"].tolist()
    if not names or set(names) != set(patients):
        missing = sorted(set(patients) - set(names))
        raise CohortError(
            f"each {side} patient needs a sample, got {len(missing)} of {len(patients)} without, "
            f"the first is {missing[0] if missing else 'nobody'}; leave them out of the fold."
        )
    columns = ["target", *([scale] if isinstance(scale, str) else [])]
    missing = [column for column in columns if column not in rows]
    if missing:
        raise CohortError(
            f"samples need the column {missing[0]}, got {', '.join(map(str, rows))}; rename it."
        )
    values = [torch.tensor(rows[column].to_numpy(dtype="float64")) for column in columns]
    if not isinstance(scale, str):
        values.append(torch.full((len(names),), float(scale), dtype=torch.float64))
    made = None if tabular is None else torch.as_tensor(tabular(rows))
    if made is not None and (made.ndim != 2 or len(made) != len(names)):
        raise CohortError(
            f"tabular features need shape ({len(names)}, t), got {tuple(made.shape)}; return one "
            "row for each sample."
        )
    checked = {"target": values[0], "scale": values[1], "tabular": made}
    for what, tensor in checked.items():
        bad = [] if tensor is None else (~tensor.isfinite()).nonzero()[:, 0].unique().tolist()
        if bad:
            raise CohortError(
                f"training needs finite numbers, got a {what} that is not in {len(bad)} {side} "
                f"samples, the first of {names[bad[0]]}; leave these samples out."
            )
    return Table(names, values[0], values[1], made)
