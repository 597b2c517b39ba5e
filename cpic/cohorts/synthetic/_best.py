"""The error that no model can beat, from what a generated cohort wrote down."""

import math
from pathlib import Path

import numpy as np

from cpic._errors import CohortError
from cpic.cohorts.synthetic import _store


def best_error(root: str | Path, *, age: bool = False) -> float:
    """Error in a generated cohort of a model that knows the rule its targets were made by.

    Args:
        root: folder given to `make_brats_like` or `make_osic_like`.
        age: (BraTS-like) the model is told the age too; by default it sees the scans only.

    Returns:
        BraTS-like: root mean square error in days over the patients whose survival is known, lower
        is better. OSIC-like: mean Laplace log likelihood over all visits of the readable patients,
        at the median without noise and the one best width, higher is better.

    Raises:
        CohortError: if root holds no finished cohort.

    Example:
        >>> best_error("brats")  # doctest: +SKIP
        66.4
    """
    import pandas

    root = Path(root)
    recipe = _store.read_recipe(root)
    if not (root / "truth.csv").is_file():
        raise CohortError(
            f"{root} holds a cohort that is not finished: call make_{recipe['kind']}_like with the "
            "same options to go on."
        )
    truth = pandas.read_csv(root / "truth.csv")
    if recipe["kind"] == "brats":
        truth = truth[~truth["alive"]]
        rule = truth["noise_free_days"] if age else truth["image_days"]
        return float(np.sqrt(np.mean((truth["survival_days"] - rule) ** 2)))
    truth = truth[truth["readable"]]
    miss = np.minimum(np.abs(truth["FVC"] - truth["noise_free_fvc"]), 1000)
    width = max(70.0, math.sqrt(2) * float(miss[truth["visit"] > 0].mean()))
    # The first visit is given, so nothing is lost there and the smallest width is the best.
    widths = np.where(truth["visit"] > 0, width, 70.0)
    return float(np.mean(-math.sqrt(2) * miss / widths - np.log(math.sqrt(2) * widths)))
