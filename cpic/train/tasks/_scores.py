"""Write the scores of all patches of images, from which their heat maps are drawn."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpic._errors import ImageError
from cpic.images.slides import FeatureBag, Scores, save_scores
from cpic.nn.ips import PatchClassifier, select
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.tasks._bag_readers import Altered
from cpic.train.tasks._bags import Labeled


def check_places(model: nn.Module, test: Labeled) -> None:
    """Raise unless scores of all patches of these images can be written.

    Args:
        model: The classifier.
        test: Images to test with.

    Raises:
        ImageError: If its pooling does not rank patches, or features do not say where they lie.
    """
    if not isinstance(model, PatchClassifier):
        raise ImageError(
            "write_scores needs a method whose pooling ranks patches, which ats and dps have not; "
            "leave it out, or choose another method."
        )
    bags: list[Any] = [test.bag(k, None) for k in range(len(test))] if test.grid is None else []
    if any(bag.corners0 is None for bag in bags):
        raise ImageError(
            "write_scores needs features with the places of patches, as data_scripts/slides.py "
            "writes them; leave it out."
        )


def write_scores(model: nn.Module, best: Path, test: Labeled, folder: Path, *, i: int) -> None:
    """Write `NAME.npz` of each image: the weights of all its patches in the pooling.

    Args:
        model: The classifier; it gets the weights of the checkpoint.
        best: Checkpoint.
        test: Images, opened one at a time.
        folder: Where to write.
        i: Patches that are encoded at once.

    Raises:
        ImageError: If an image cannot be read, or features do not say how large a patch is.
    """
    assert isinstance(model, PatchClassifier)
    model.load_state_dict(read_checkpoint(best)["model"])
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(len(test)):
        bag = test.bag(k, None)
        # A single patch is chosen without scores; it has all the weight.
        found = select([bag], model.encoder, model.pool, m=1, i=i).all_scores
        values = torch.ones(1) if found is None else found[0].cpu()
        name, scores = _placed(values, bag, k)
        save_scores(folder / f"{name}.npz", scores)


def _placed(values: Tensor, bag: Any, k: int) -> tuple[str, Scores]:
    """Name of an image, and its scores with the places of the patches at level 0."""
    if not isinstance(bag, FeatureBag):
        source = bag.source if isinstance(bag, Altered) else bag
        place = source.corners0, source.size0, source.image.levels[0]
        return f"test_{k:05d}", Scores(values, *place)
    assert bag.corners0 is not None
    try:
        (h, w), (height, width) = (bag.attributes[name] for name in ("size0", "shape0"))
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"features of {bag.name} need size0 and shape0 ({error}).") from error
    sizes = (int(h), int(w)), (int(height), int(width))
    return bag.name, Scores(values, bag.corners0, *sizes)
