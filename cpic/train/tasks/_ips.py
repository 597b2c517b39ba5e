"""Classify images by few of their patches."""

from typing import TYPE_CHECKING, Literal

from cpic.options import Patches, PatchRun, PatchTraining, Selector, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult

# What the keys of the published files are called here.
_PUBLISHED = {
    "n_epoch": "num_epochs",
    "n_epoch_warmup": "warmup",
    "B": "batch_size",
    "B_seq": "together",
    "wd": "weight_decay",
    "data_dir": "root",
    "train_fname": "train_file",
    "test_fname": "test_file",
    "n_worker": "num_workers",
    "enc_type": "encoder",
    "n_chan_in": "in_channels",
    "n_res_blocks": "stages",
    "shuffle_style": "shuffle",
    "M": "m",
    "I": "i",
    "patch_size": "patch",
    "patch_stride": "stride",
    "H": "heads",
    "D": "width",
    "D_k": "key_width",
    "D_v": "value_width",
    "D_inner": "inner",
    "attn_dropout": "attention_dropout",
}


@command("train on few patches of large images", **_PUBLISHED)
def ips(  # noqa: D417
    dataset: Literal["mnist", "traffic", "camelyon"] = "mnist",
    *,
    data: Patches = Patches(),
    model: Selector = Selector(),
    optimization: PatchTraining = PatchTraining(batch_size=16, optimizer="adamw"),
    run: PatchRun = PatchRun(),
) -> "list[FoldResult]":
    """Train a classifier of images by few of their patches {cite}`bergner2023iterative`.

    "mnist" is megapixel MNIST with four tasks, made in the cache unless it is in `root`; "traffic"
    are the Swedish traffic signs, and "camelyon" are features of slides, both in `root`.

    Keys of the published configuration files are accepted under their names. Without successor are
    `n_class`, `n_token` and `N`, which follow from the data; `is_image`, for which `encoder` is
    "projector"; `use_pos`, for which `places` is "index"; `eps`, since losses are made of logits;
    and `pin_memory`.

    Args:
        dataset: The images and their tasks.

    Returns:
        One result; its metrics have `NAME_accuracy` (`NAME_auc`) and `NAME_chance` by task, the
        latter of the best constant answer, and `accuracy` and `chance`, their means.

    Raises:
        ValueError: If an option, the images or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.ips("mnist", root="data/megapixel_mnist", m=100)  # doctest: +SKIP
    """
    from cpic.train.tasks._ips_run import train_on_bags

    return train_on_bags(dataset, data, model, optimization, run)
