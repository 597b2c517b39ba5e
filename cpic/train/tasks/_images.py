"""Train on pictures: one split, a summary, and the frequency of the commonest class as baseline."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cpic.options import Run, Training
from cpic.train.loop._distributed import launched, rank_and_size
from cpic.train.loop._fit import Callback, fit_fold
from cpic.train.loop._fold_data import Batch, FoldData
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, write_summary
from cpic.train.tasks._code import keep_code
from cpic.train.tasks._folder import check_folder, usable
from cpic.train.tasks._tasks import Classification

_log = logging.getLogger(__name__)


class ImageClassification(Classification):
    """Cross-entropy of `model(images)`, logits `(B, q)`; its metrics also have `chance`.

    Args:
        model: Called with images `(B, c, h, w)`.
        **options: As in `Classification`.
    """

    def forward(self, batch: Batch) -> Tensor:
        """Logits `(B, q)`; those of several views `(B, v, c, h, w)` of a picture are averaged."""
        images = batch["images"].to(next(self.model.parameters()).dtype)
        if images.ndim == 4:
            return self.model(images)
        return self.model(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1)


def fit(
    module: Task, data: FoldData, folder: Path, *, optimization: Training, run: Run, **more: Any
) -> FoldResult:
    """`fit_fold` with the options of a command.

    Args:
        module: Task.
        data: Batches.
        folder: Folder of the fold.
        optimization: Number of epochs, clipping and patience.
        run: Where it runs and what it writes.
        **more: Further options of `fit_fold`.

    Raises:
        ValueError: If an option or the folder is invalid.
    """
    return fit_fold(
        module,
        data,
        folder=folder,
        num_epochs=optimization.num_epochs,
        clip=optimization.clip,
        patience=optimization.patience,
        resume=run.resume,
        ngpus=usable(run.ngpus),
        num_nodes=run.num_nodes,
        max_minutes=run.max_minutes,
        max_faults=run.max_faults,
        save_every=run.save_every,
        progress=run.progress,
        wandb=run.wandb,
        seed=run.seed,
        **more,
    )


def train_on_images(
    name: str,
    module: Task,
    data: FoldData,
    *,
    optimization: Training,
    run: Run,
    config: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    further: Callable[[FoldResult], Mapping[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
    code: bool = False,
) -> list[FoldResult]:
    """Train on one split, and write `summary.json` beside the folder of the run.

    Args:
        name: Folder of the run, unless one is chosen.
        module: Task.
        data: Batches.
        optimization: Number of epochs, clipping and patience.
        run: Where it runs and what it writes.
        config: Settings of the run, saved in checkpoints and compared on resuming.
        facts: Further content of the summary.
        further: Computes further metrics from the result.
        callbacks: As in `fit_fold`.
        code: Keep the code in `source.zip`, and refuse to resume with another one.

    Returns:
        The result, as the only fold. With a task that classifies, `chance` is the frequency of the
        commonest class of the training part in the validation part.

    Raises:
        ValueError: If an option or a folder is invalid.
    """
    launched(run.num_nodes)
    folder = Path(run.results_folder) / (run.experiment_name or name)
    check_folder(folder, ["fold_0"], resume=run.resume)
    if code:
        keep_code(folder)
    result = fit(
        module,
        data,
        folder / "fold_0",
        optimization=optimization,
        run=run,
        config=dict(config),
        callbacks=callbacks,
    )
    if "accuracy" in result.metrics:
        chance = 1 - result.metrics["mean_error"]
        result = dataclasses.replace(result, metrics={**result.metrics, "chance": chance})
    if further is not None:
        result = dataclasses.replace(result, metrics={**result.metrics, **further(result)})
    if rank_and_size()[0] == 0:
        summary = {**config, **(facts or {}), "task": name}
        _log.info("summary: %s", write_summary(folder, [result], summary))
    return [result]
