"""Train on cohorts, pictures and bags of patches: batches, losses, faults, checkpoints, results.

Options are available without importing torch or Lightning, which are loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cpic.train.prediction._command import predict
from cpic.train.tasks import TASKS, baseline, brats, gan, gcp, imgcls, ips, osic

if TYPE_CHECKING:
    from cpic.train.loop._bag_data import BagData, LabeledBags
    from cpic.train.loop._batches import CohortData
    from cpic.train.loop._checkpoints import read_checkpoint
    from cpic.train.loop._fit import fit_fold
    from cpic.train.loop._image_data import ImageData
    from cpic.train.results._results import FoldResult
    from cpic.train.tasks._dense import HistogramLinear, dense
    from cpic.train.tasks._patches import PatchTask
    from cpic.train.tasks._tasks import Classification, Quantiles, Regression

__all__ = [
    "BagData",
    "Classification",
    "CohortData",
    "FoldResult",
    "HistogramLinear",
    "ImageData",
    "LabeledBags",
    "PatchTask",
    "Quantiles",
    "Regression",
    "baseline",
    "brats",
    "dense",
    "fit_fold",
    "gan",
    "gcp",
    "imgcls",
    "ips",
    "osic",
    "predict",
    "read_checkpoint",
]
COMMANDS = {**TASKS, "predict": predict}
_HOMES = {
    "BagData": "loop._bag_data",
    "LabeledBags": "loop._bag_data",
    "PatchTask": "tasks._patches",
    "Classification": "tasks._tasks",
    "CohortData": "loop._batches",
    "FoldResult": "results._results",
    "HistogramLinear": "tasks._dense",
    "Quantiles": "tasks._tasks",
    "Regression": "tasks._tasks",
    "ImageData": "loop._image_data",
    "dense": "tasks._dense",
    "fit_fold": "loop._fit",
    "read_checkpoint": "loop._checkpoints",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
