"""A lower bound on the error of any model, from the records of a generated cohort."""

import math
from pathlib import Path

import numpy as np

from cpic._errors import CohortError
from cpic.cohorts.synthetic import _store


def best_error(root: str | Path, *, age: bool = False) -> float:
    """Error of a model that knows the rule behind the targets of a generated cohort.

    Args:
        root: Folder given to `make_brats_like` or `make_osic_like`.
        age: (BraTS-like) the model also gets the age; by default it gets only the scans.

    Returns:
        BraTS-like: root mean square error in days over the patients with known survival, lower is
        better. OSIC-like: mean Laplace log likelihood over all visits of the readable patients, for
        the median without noise and the best constant width, higher is better.

    Raises:
        CohortError: If root holds no complete cohort.

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
    # The first visit is given, so its error is zero and the smallest width is the best.
    widths = np.where(truth["visit"] > 0, width, 70.0)
    return float(np.mean(-math.sqrt(2) * miss / widths - np.log(math.sqrt(2) * widths)))
