"""Options of models that choose patches of images."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cpic.options._groups import Group, Run, Training
from cpic.options._kinds import Bound, Count, NotNegative, Size, Text, Whole, Width

Rate = Annotated[float, Bound("a number from 0 to below 1", lambda x: 0 <= x < 1)]
Stages = Annotated[int, Bound("1, 2, 3 or 4", lambda n: 1 <= n <= 4)]
Channels = Annotated[int, Bound("a whole number between 1 and 65536", lambda n: 1 <= n <= 2**16)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(Group):
    """Images and their patches.

    Attributes:
        root: Folder of the images or features. Without it, "mnist" is made in the cache.
        cache: Folder for images that are made; the user's cache folder by default.
        train_file: Features to train on, for "camelyon": a folder of stores or an HDF5 file in
            `root`.
        test_file: Features to test with.
        images: Use only the first so many images to train on; of "mnist" without root, the number
            to make, with a fifth as many to test.
        canvas: Height and width of images that are made or enlarged.
        strokes: Strokes of images that are made.
        patch: Edge of a patch.
        stride: Distance between patches; null is the edge.
        eager: Read all patches of a batch in advance; false cuts them when they are looked at, so
            that memory does not grow with their number.
        together: Images whose patches are looked through at once; null is the batch, and 1 needs
            the least memory of a device.
        tasks: Names of the tasks to train on; null is all of the data set.
    """

    root: Text | Path | None = None
    cache: Text | Path | None = None
    train_file: Text | None = None
    test_file: Text | None = None
    images: Count | None = None
    canvas: tuple[Size, Size] = (1500, 1500)
    strokes: Count = 50
    patch: Count | None = None
    stride: Count | None = None
    eager: bool = False
    together: Count | None = None
    tasks: tuple[Text, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selector(Group):
    """What chooses patches, encodes them and pools them.

    Attributes:
        method: "ips", iterative patch selection; "random"; "all", every patch with attention-based
            pooling; "cross", a map of the logits rebuilt from a part of them; "ats" and "dps",
            which look at a small view.
        m: Patches that are chosen.
        i: Patches that are looked at together; null is `m`.
        by: "exact", the same patches for any `i`, or "official", as published.
        shuffle: Random order in which ties are resolved in training, and for "official" patches
            looked at: one for a "batch", one for an "instance", or "none".
        encoder: "resnet18" or "resnet50"; "conv", a small one; or "projector", for features.
        pretrained: Start from weights for ImageNet, which torchvision downloads once.
        in_channels: Channels of a patch, or width of features; null takes them from the data, and
            any other number must be that.
        stages: Stages of a residual network, 2 or 4 as published.
        norm: "group" or "running", alike when a patch is chosen and when it is trained on; or
            "batch", as published.
        layers: "svdp" or "sttp" makes the weights of the encoder from frames and spectra of at most
            `rank`, see `cpic.nn.spectral`; "plain" leaves them.
        rank: Of these weights.
        width: Width of an embedding; null is that of a residual network, else 128.
        heads: Heads of the pooling.
        key_width: Width of a key; null is `width / heads`.
        value_width: Width of a value; null is `width / heads`.
        inner: Width of its hidden layer; null is four times the width.
        dropout: Of its branches.
        attention_dropout: Of its weights.
        places: Positions of patches: "none", "index" in row-major order, as published, or "grid",
            row and column.
        view: Edge of the small view, for "ats" and "dps".
    """

    method: Literal["ips", "random", "all", "cross", "ats", "dps"] = "ips"
    m: Count = 100
    i: Count | None = None
    by: Literal["exact", "official"] = "exact"
    shuffle: Literal["batch", "instance", "none"] = "batch"
    encoder: Literal["resnet18", "resnet50", "conv", "projector"] = "resnet18"
    pretrained: bool = False
    in_channels: Channels | None = None
    stages: Stages = 2
    norm: Literal["group", "running", "batch"] = "group"
    layers: Literal["plain", "svdp", "sttp"] = "plain"
    rank: Count = 64
    width: Width | None = None
    heads: Count = 8
    key_width: Width | None = None
    value_width: Width | None = None
    inner: Count | None = None
    dropout: Rate = 0.1
    attention_dropout: Rate = 0.1
    places: Literal["none", "index", "grid"] = "none"
    view: Count = 180


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchTraining(Training):
    """How the weights are optimized.

    Attributes:
        batch_size: Images per step, over all processes.
        warmup: Epochs in which the learning rate rises, step by step; it then falls along half a
            cosine to a thousandth, as published, whatever `schedule` says. Null leaves it to that.
    """

    warmup: NotNegative | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchRun(Run):
    """Where a run computes, what it writes and when it stops.

    Attributes:
        track_efficiency: Write the time of a step and the peak memory to `efficiency.json`.
        track_epoch: Epoch whose steps are timed, without the first and the last one.
        write_scores: After training, write the scores of all patches of each test image to
            `scores/NAME.npz`; `data_scripts/slides.py heatmap` draws them.
    """

    track_efficiency: bool = False
    track_epoch: Whole = 0
    write_scores: bool = False
