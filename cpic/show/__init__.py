"""Draw volumes, trains and budgets, and show pictures behind sliders that work without a kernel."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpic.show._anatomy import positions, slices, triplet
    from cpic.show._charts import error_curve, spectra
    from cpic.show._cost import budget, train_to_scale
    from cpic.show._explore import explore
    from cpic.show._rivals import rivals
    from cpic.show._training import gradient_flow, training_curves

__all__ = [
    "budget",
    "error_curve",
    "explore",
    "gradient_flow",
    "positions",
    "rivals",
    "slices",
    "spectra",
    "train_to_scale",
    "training_curves",
    "triplet",
]

_HOMES = ("_explore", "_anatomy", "_charts", "_cost", "_rivals", "_training")


def __getattr__(name: str):
    # Matplotlib takes most of a second to import; it is imported only if a figure is requested.
    if name in __all__:
        homes = (importlib.import_module(f"cpic.show.{home}") for home in _HOMES)
        return next(getattr(home, name) for home in homes if hasattr(home, name))
    raise AttributeError(f"module 'cpic.show' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
