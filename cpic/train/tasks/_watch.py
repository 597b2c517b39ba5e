"""What runs on pictures log and draw: losses, progress, spectra of layers, sheets of images."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from cpic._files import replace_file
from cpic.images._sheet import png, spectra_sheet
from cpic.nn import spectral
from cpic.options import Run
from cpic.train.results._results import writing

Spectra = Mapping[str, Callable[[], dict[str, Tensor]]]


@dataclasses.dataclass(eq=False)
class Watch:
    """Write losses to the loggers, and pictures to the folder of a run as well.

    Args:
        folder: Folder of the pictures.
        log_every: Steps between losses.
        spectra_every: Steps between spectra.
        top: Singular values of a layer that are shown.
    """

    folder: Path
    log_every: int
    spectra_every: int
    top: int

    def __post_init__(self) -> None:
        self._began: tuple[int, float] | None = None

    def log(self, module: pl.LightningModule, values: Mapping[str, Any], *, done: int, of: int):
        """Log values, and the progress; functions are called only if it is time.

        Args:
            module: The task, with its loggers.
            values: Numbers, or functions that return them, by name.
            done: Steps so far.
            of: Steps in all.
        """
        if self._began is None:
            self._began = (done, time.monotonic())
        if done % self.log_every:
            return
        found: dict[str, Any] = {k: one() if callable(one) else one for k, one in values.items()}
        first, began = self._began
        if done > first:
            seconds = (time.monotonic() - began) / (done - first) * (of - done)
            found["progress/eta_hrs"] = seconds / 3600
        found["progress/pct_done"] = 100 * done / of
        for logger in module.loggers:
            logger.log_metrics(found, step=done)

    def draw(self, module: pl.LightningModule, spectra: Spectra, *, done: int) -> None:
        """Draw the spectra of networks, and log norms and stable ranks, if it is time."""
        if done % self.spectra_every:
            return
        for name, read in spectra.items():
            values = read()
            if not values:
                continue
            norms = {layer: float(one.max()) for layer, one in values.items()}
            ranks = {layer: float(spectral.stable_rank(one)) for layer, one in values.items()}
            found = {
                f"singular_values_stats/{name}_max_spectral_norm": max(norms.values()),
                f"singular_values_stats/{name}_max_stable_rank": max(ranks.values()),
                **{f"{name}_spectral_norm/{layer}": one for layer, one in norms.items()},
                **{f"{name}_stable_rank/{layer}": one for layer, one in ranks.items()},
            }
            for logger in module.loggers:
                logger.log_metrics(found, step=done)
            self.save(
                f"singular_values_{name}", spectra_sheet(list(values.values()), top=self.top), done
            )
            relative = [one / one.max().clamp_min(1e-12) for one in values.values()]
            self.save(
                f"singular_values_normalized_{name}", spectra_sheet(relative, top=self.top), done
            )

    def save(self, name: str, picture: Tensor, done: int) -> None:
        """Write a picture `(c, h, w)` of uint8 as `pictures/NAME_STEP.png`."""
        path = self.folder / "pictures" / f"{name}_{done:07}.png"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: file.write(png(picture)))


def folder_of(run: Run, name: str) -> Path:
    """The folder of a run."""
    return Path(run.results_folder) / (run.experiment_name or name)
