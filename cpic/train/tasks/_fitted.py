"""Baselines that an expert tries in a minute: features without parameters, and a linear model.

The model is solved for in closed form, by ridge regression whose penalty is chosen by
cross-validation within the training fold. There are no epochs, so nobody needs to choose one.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cpic.data import Volume
from cpic.nn.baselines import block_means, histogram_features
from cpic.options._kinds import Count, Whole
from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpoints import write_checkpoint
from cpic.train.loop._distributed import is_first
from cpic.train.loop._fit import prepare_folder
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, peak_bytes, plain, write_rows, writing
from cpic.train.tasks._dense import read_dense

if TYPE_CHECKING:
    import numpy as np

# From hardly any penalty to the mean, for inputs of unit spread.
_ALPHAS = [10.0 ** (k / 2) for k in range(-4, 15)]
_INNER_FOLDS = 5


def nothing(volume: Volume) -> Tensor:
    """No features: the linear model is a constant."""
    return torch.zeros(0)


def blocks(volume: Volume, *, n_blocks: Count = 8) -> Tensor:
    """Means over `n_blocks` blocks along each axis, of all voxels."""
    values = read_dense(volume, volume.shape, torch.empty(0))
    return block_means(values[None], n_blocks=n_blocks)[0]


def random_voxels(
    volume: Volume, *, n_voxels: Count = 2000, n_bins: Count = 32, draw: Whole = 0
) -> Tensor:
    """The histogram of `n_voxels` random voxels, which are the same in all volumes."""
    chosen = _drawn(volume.shape, n_voxels, draw)
    values = volume.voxels(chosen).reshape(len(chosen), -1).T
    return n_bins * histogram_features(values[None].float(), n_bins=n_bins)[0]


@functools.lru_cache(maxsize=1)
def _drawn(shape: tuple[int, ...], count: int, draw: int) -> Tensor:
    """Different random positions, drawn once for all volumes: a permutation of all is large."""
    generator = torch.Generator().manual_seed(draw)
    chosen = torch.randperm(math.prod(shape), generator=generator)[:count]
    return torch.stack(torch.unravel_index(chosen, shape), -1)


FEATURES: dict[str, Callable[..., Tensor]] = {
    "mean": nothing,
    "blocks": blocks,
    "random_voxels": random_voxels,
}


class Fitted(nn.Module):
    """A linear model of fixed features, with the interface of C-PIC.

    Args:
        features: Maps a volume to features `(f,)`.
        n_features: f.
        n_outputs: Outputs per sample.
        n_tabular: Tabular features, which are appended.
        products: Also append the products of the features and the first tabular one, the week, so
            that a scan can determine a slope.
    """

    def __init__(
        self,
        features: Callable[[Volume], Tensor],
        n_features: int,
        n_outputs: int,
        *,
        n_tabular: int = 0,
        products: bool = False,
    ):
        super().__init__()
        self.features, self.products = features, products
        n_inputs = n_features * (1 + products) + n_tabular
        # Zeros, since a layer without inputs cannot be drawn.
        self.weight = nn.Parameter(torch.zeros(n_outputs, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(
        self,
        volumes: Sequence[Volume],
        names: Sequence[str],
        *,
        rows: Tensor | None = None,
        tabular: Tensor | None = None,
    ) -> Tensor:
        """Predictions `(B, n_outputs)` for B samples of K volumes."""
        return self.inputs(volumes, rows=rows, tabular=tabular) @ self.weight.T + self.bias

    def inputs(
        self, volumes: Sequence[Volume], *, rows: Tensor | None, tabular: Tensor | None
    ) -> Tensor:
        """Inputs of the linear model `(B, n_inputs)`."""
        found = torch.stack([self.features(volume) for volume in volumes]).to(self.weight)
        found = found if rows is None else found[rows]
        if tabular is None or not self.weight.shape[1]:
            return found
        products = [found * tabular[:, :1]] if self.products else []
        return torch.cat([found, tabular.to(found), *products], 1)


def fit_closed_form(
    module: Task,
    data: CohortData,
    *,
    folder: Path,
    fold: int,
    config: dict[str, Any],
    resume: bool = False,
) -> FoldResult:
    """Solve for the linear model of one fold, and validate it.

    Writes `latest.ckpt` and `best.ckpt`, which are equal, `metrics.csv` of one row, and
    `config.yaml`. Needs scikit-learn.

    Args:
        module: A task whose model is `Fitted`.
        data: Samples of the fold.
        folder: Folder for all files.
        fold: Index of the fold, for the result.
        config: Settings of the run, saved in checkpoints.
        resume: Replace the checkpoints that are there.

    Raises:
        ValueError: If the folder holds a run that is not to be resumed.
    """
    prepare_folder(folder, plain(config), resume=resume)
    start, model = time.monotonic(), module.model
    assert isinstance(model, Fitted)
    volumes = data.volumes.values()
    before = sum(volume.ledger.voxels for volume in volumes)
    alpha = _solve(module, model, data)
    module.metrics = _validated(module, data)
    read = sum(volume.ledger.voxels for volume in volumes) - before
    row = {
        "epoch": 0,
        "step": 1,
        **{f"val_{name}": value for name, value in module.metrics.items()},
        "alpha": alpha,
        "voxels_per_sample": read / len(volumes),
    }
    latest, best = folder / "latest.ckpt", folder / "best.ckpt"
    if is_first():
        state = {"cpic": version("cpic"), "config": plain(config), "model": model.state_dict()}
        with writing(folder):
            write_rows(folder / "metrics.csv", [row])
            write_checkpoint(best, state)
            write_checkpoint(latest, state)
    constant = module.mean_error(data.train, data.validation)
    seconds = time.monotonic() - start
    metrics = {**module.metrics, "mean_error": constant, "alpha": alpha}
    return FoldResult(fold, metrics, 1, seconds, seconds, peak_bytes(), latest, best)


def _solve(module: Task, model: Fitted, data: CohortData) -> float:
    """Set weights and bias; return the penalty, 0 for a constant."""
    table = data.train
    if not model.weight.shape[1]:
        with torch.no_grad():
            model.bias.copy_(module.constant(table.target)[0])
        return 0.0
    places = {name: k for k, name in enumerate(dict.fromkeys(table.patients))}
    rows = torch.tensor([places[patient] for patient in table.patients])
    with torch.no_grad():
        inputs = model.inputs(
            [data.volumes[name] for name in places], rows=rows, tabular=table.tabular
        )
    x, y = inputs.double().numpy(), table.target.double().numpy()
    weight, bias, alpha, residuals = _ridge(x, y, rows.numpy())
    # Quantiles are at fixed distances from the prediction: those of held-out residuals.
    levels = getattr(module, "quantiles", None)
    shifts = torch.zeros(1) if levels is None else residuals.quantile(residuals.new_tensor(levels))
    with torch.no_grad():
        model.weight.copy_(weight.expand_as(model.weight))
        model.bias.copy_(bias + shifts)
    return alpha


def _ridge(
    x: "np.ndarray", y: "np.ndarray", groups: "np.ndarray"
) -> tuple[Tensor, Tensor, float, Tensor]:
    """Weights, bias and penalty of ridge regression, and residuals of held-out groups."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_folds = min(_INNER_FOLDS, len(set(groups.tolist())))
    splits = list(GroupKFold(n_folds).split(x, y, groups))
    scaler: Any = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    scoring = "neg_mean_squared_error"
    found: Any = RidgeCV(_ALPHAS, cv=splits, scoring=scoring).fit(scaled, y)
    again = make_pipeline(StandardScaler(), Ridge(found.alpha_))
    residuals = torch.from_numpy(y - cross_val_predict(again, x, y, cv=splits))
    weight = torch.from_numpy(found.coef_ / scaler.scale_)
    bias = torch.tensor(float(found.intercept_)) - weight @ torch.from_numpy(scaler.mean_)
    return weight, bias, float(found.alpha_), residuals


@torch.no_grad()
def _validated(module: Task, data: CohortData) -> dict[str, float]:
    """Metrics of the validation fold."""
    meters = module.new_meters()
    loader: Any = data.val_dataloader()
    for batch in loader[0] if isinstance(loader, list) else loader:
        predictions = module(batch)
        target, scale = (batch[key].to(predictions) for key in ("target", "scale"))
        module.score(meters, predictions, target, scale)
    return module.values(meters)
