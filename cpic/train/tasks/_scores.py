"""Write the scores of all patches of slides, from which their heat maps are drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cpic._errors import ImageError
from cpic.images.slides import FeatureBag, Scores, save_scores
from cpic.nn.ips import PatchClassifier, select
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.tasks._bags import Labeled


def slides_of(test: Labeled) -> list[Any]:
    """Features of slides that say where their patches lie.

    Args:
        test: Images to test with.

    Raises:
        ImageError: If they are other images, or features without places.
    """
    bags = [test.bag(k, None) for k in range(len(test))] if test.grid is None else [None]
    if any(getattr(bag, "corners0", None) is None for bag in bags):
        raise ImageError(
            "write_scores needs features with the places of patches, as data_scripts/slides.py "
            "writes them; leave it out."
        )
    return bags


def write_scores(
    model: PatchClassifier, best: Path, bags: Sequence[FeatureBag], folder: Path, *, i: int
) -> None:
    """Write `NAME.npz` of each slide: the weights of all its patches in the pooling.

    Args:
        model: The classifier; it gets the weights of the checkpoint.
        best: Checkpoint.
        bags: Features of the slides.
        folder: Where to write.
        i: Patches that are encoded at once.

    Raises:
        ImageError: If a slide cannot be read, or its store does not say how large a patch is.
    """
    model.load_state_dict(read_checkpoint(best)["model"])
    folder.mkdir(parents=True, exist_ok=True)
    for bag in bags:
        # A single patch is chosen without scores; it has all the weight.
        found = select([bag], model.encoder, model.pool, m=1, i=i).all_scores
        values = torch.ones(1) if found is None else found[0].cpu()
        assert bag.corners0 is not None
        try:
            (h, w), (height, width) = (bag.attributes[name] for name in ("size0", "shape0"))
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"features of {bag.name} need size0 and shape0 ({error}).") from error
        place = (int(h), int(w)), (int(height), int(width))
        save_scores(folder / f"{bag.name}.npz", Scores(values, bag.corners0, *place))
