"""Compare generated with real images: by features of a small classifier, or by torch-fidelity.

References: {cite}`heusel2017gans`, {cite}`binkowski2018demystifying`.
"""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.images import PixelImages
from cpic.nn.baselines import SmallResNet
from cpic.nn.metrics import frechet_distance, kernel_distance
from cpic.options._names import check_name
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._fit import fit_fold
from cpic.train.loop._resuming import load_weights
from cpic.train.loop._step_data import StepData
from cpic.train.tasks._classification import PictureClassification
from cpic.train.tasks._classifier import moments

_log = logging.getLogger(__name__)
_STEPS, _BATCH, _DEPTH, _CHUNK = 400, 64, 8, 500
_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
_KEPT = ("inception_score_mean", "inception_score_std", "frechet_inception_distance")
_KEPT += ("kernel_inception_distance_mean", "kernel_inception_distance_std")
_KEPT += ("perceptual_path_length_mean", "perceptual_path_length_std")


class Judge(Protocol):
    """What compares generated images with real ones.

    Attributes:
        leading: The metric that selects the best generator.
        higher: Whether a higher value of it is better.
        facts: What it does, for the summary.
    """

    leading: str
    higher: bool
    facts: dict[str, Any]

    def read(self, pixels: Tensor) -> Tensor:
        """What is kept of generated images `(k, c, h, w)` of uint8."""
        ...

    def compare(self, kept: Sequence[Tensor]) -> dict[str, float]:
        """Metrics of all generated images; `error` is better if it is lower."""
        ...


class FeatureJudge:
    """Frechet and kernel distance of features of a small classifier.

    The classifier is trained on the training pictures, with labels. Its distances can be compared
    with each other only: they are not FID and KID, which are defined by other features.

    Args:
        network: The classifier.
        mean: Of the channels, of pixels in [0, 1].
        spread: Standard deviations of the channels.
        real: Pixels `(n, c, h, w)` of the real images.
        accuracy: Of the classifier on the test pictures.
        seed: Seed of the subsets of the kernel distance.
    """

    higher = False

    def __init__(
        self,
        network: SmallResNet,
        mean: Sequence[float],
        spread: Sequence[float],
        real: Tensor,
        *,
        accuracy: float,
        seed: int,
        leading: str = "distance",
    ):
        check_name(leading, ("distance", "kernel_distance"), where="leading_metric")
        self.network, self.leading, self.seed = network.eval().requires_grad_(False), leading, seed
        self.mean, self.spread = (torch.tensor(one).view(-1, 1, 1) for one in (mean, spread))
        self.real = torch.cat([self.read(part) for part in real.split(_CHUNK)])
        self.facts = {
            "metrics": "distances of features of a small classifier of the same pictures; not FID",
            "features": f"residual network of depth {_DEPTH}, {self.real.shape[1]} features",
            "features_accuracy": accuracy,
            "features_side": real.shape[-1],
            "real_images": len(real),
        }

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Tensor:
        """Features `(k, d)`, on the CPU."""
        self.network.to(pixels.device)
        mean, spread = self.mean.to(pixels.device), self.spread.to(pixels.device)
        return self.network.features((pixels.float() / 255 - mean) / spread).cpu()

    def compare(self, kept: Sequence[Tensor]) -> dict[str, float]:
        """`distance`, `kernel_distance` and `error`."""
        found = torch.cat(list(kept))
        draw = torch.Generator().manual_seed(self.seed)
        size = min(1000, len(found), len(self.real))
        kernel = kernel_distance(found, self.real, generator=draw, n_subsets=10, subset_size=size)
        values = {
            "distance": float(frechet_distance(found, self.real)),
            "kernel_distance": float(kernel.mean),
        }
        return {**values, "error": values["distance"]}


class FidelityJudge:
    """Inception score, FID and KID of torch-fidelity.

    Args:
        real: Pixels `(n, c, h, w)` of the real images, of the size of the generated ones.
        options: Options of `torch_fidelity.calculate_metrics`.
        leading: Metric that selects the best generator.
        on_gpu: Whether features are computed on a GPU.
    """

    def __init__(self, real: Tensor, options: Mapping[str, Any], leading: str, *, on_gpu: bool):
        chosen = {"isc": True, "fid": True, "kid": True, **options}
        if chosen.pop("ppl", False):
            raise ValueError("fidelity.ppl is not supported here; set it to false.")
        self.options: dict[str, Any] = {"verbose": False, "cuda": on_gpu, **chosen}
        check_name(leading, _KEPT, where="leading_metric")
        self.leading, self.higher = leading, leading.startswith("inception")
        self.real = _Pixels(real)
        self.facts = {
            "metrics": "Inception score, FID and KID of torch-fidelity",
            "features": "InceptionV3 of torch-fidelity, resized by it to 299",
            "features_side": real.shape[-1],
            "real_images": len(real),
        }

    def read(self, pixels: Tensor) -> Tensor:
        """The images, on the CPU."""
        return pixels.cpu()

    def compare(self, kept: Sequence[Tensor]) -> dict[str, float]:
        """Metrics by their names in torch-fidelity, and `error`."""
        import torch_fidelity  # type: ignore[import-not-found]

        made = _Pixels(torch.cat(list(kept)))
        found = torch_fidelity.calculate_metrics(input1=made, input2=self.real, **self.options)
        values = {name: float(found[name]) for name in _KEPT if name in found}
        sign = -1.0 if self.higher else 1.0
        return {**values, "error": sign * values[self.leading]}


class _Pixels(torch.utils.data.Dataset):
    """Pictures of three channels."""

    def __init__(self, pixels: Tensor):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, k: int) -> Tensor:
        return self.pixels[k].expand(3, -1, -1)


def find_weights(options: Mapping[str, Any]) -> Path:
    """The weights that torch-fidelity needs, which are never downloaded here.

    Raises:
        ImportError: If torch-fidelity is not installed.
        ValueError: If there are no weights.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ImportError(
            "metrics=fidelity needs torch-fidelity; run `pip install torch-fidelity`, or choose "
            "metrics=features."
        )
    given = options.get("feature_extractor_weights_path")
    path = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"metrics=fidelity needs the weights {_WEIGHTS} of torch-fidelity, which are not at "
            f"{path} and are not downloaded; give their path as "
            "fidelity.feature_extractor_weights_path, or choose metrics=features."
        )
    return path


def fidelity_wanted(metrics: str, options: Mapping[str, Any]) -> bool:
    """Whether torch-fidelity judges: if it is requested, or if it can.

    Raises:
        ImportError: If it is requested and not installed.
        ValueError: If it is requested and has no weights.
    """
    if metrics == "features":
        return False
    try:
        find_weights(options)
    except (ImportError, ValueError) as error:
        if metrics == "fidelity":
            raise
        _log.info("images are compared by features of a small classifier: %s", error)
        return False
    return True


def train_judge(
    pair: tuple[PixelImages, PixelImages],
    real: Tensor,
    *,
    folder: Path,
    seed: int,
    resume: bool,
    leading: str = "distance",
) -> FeatureJudge:
    """Train the small classifier, or load it if a run that is resumed has trained it.

    Args:
        pair: Training and test pictures.
        real: Pixels of the images that generated ones are compared with.
        folder: Folder of its checkpoints.
        seed: Seed of weights and order.
        resume: Whether a run is resumed.
        leading: Metric that selects the best generator.

    Raises:
        ImageError: If the pictures have one class only.
    """
    train, test = pair
    if len(train.labels.unique()) < 2:
        raise ImageError(
            "metrics=features needs training pictures of several classes, to train a classifier, "
            "got one; choose another data set, or metrics=fidelity."
        )
    with torch.random.fork_rng(()):
        torch.manual_seed(seed)
        network = SmallResNet(len(train.classes), in_channels=train.shape[0], depth=_DEPTH)
    mean, spread = moments(train)
    task = PictureClassification(
        network,
        mean=mean,
        spread=spread,
        augment="shift",
        seed=seed,
        num_steps=_STEPS,
        optimizer="adam",
        lr=2e-3,
        schedule="linear",
        weight_decay=0.0,
    )
    size = min(_BATCH, len(train))
    batches = StepData(
        train, test, num_steps=_STEPS, steps_per_epoch=_STEPS, batch_size=size, seed=seed
    )
    result = fit_fold(
        task, batches, folder=folder, num_epochs=1, clip=None, resume=resume, seed=seed
    )
    load_weights(network, read_checkpoint(result.latest), result.latest)
    accuracy = result.metrics["accuracy"]
    _log.info("features: a classifier with an accuracy of %.3f", accuracy)
    return FeatureJudge(network, mean, spread, real, accuracy=accuracy, seed=seed, leading=leading)
