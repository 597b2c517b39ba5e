"""Make images of megapixel MNIST: where digits and strokes lie, and what they look like.

Every image has its own random numbers, which depend on the seed, the split and its number only: a
smaller set is the beginning of a larger one.

References: {cite}`katharopoulos2019processing`, {cite}`bergner2023iterative`.
"""

import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpic._errors import ImageError
from cpic._files import replace_file, write_json
from cpic.images._load import load
from cpic.images._megapixel import STORED, MegapixelMNIST, load_megapixel_mnist

_STAMP, _SHARD, _TRIES = 28, 100, 10_000
_SPLITS = {"test": 0, "train": 1}


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a set of images depends on.

    Attributes:
        n_train: Images to train on, of 4000 digits.
        n_test: Images to test with, of 1000 others.
        width: Columns of pixels.
        height: Rows of pixels.
        noise: Whether there are strokes.
        n_noise: Strokes of an image, and different ones of a split.
        seed: Seed of everything.
    """

    n_train: int = 5000
    n_test: int = 1000
    width: int = 1500
    height: int = 1500
    noise: bool = True
    n_noise: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        least = 3 * _STAMP
        wrong = [
            name
            for name, low, high in (
                ("n_train", 1, 10**7),
                ("n_test", 1, 10**7),
                ("width", least, 65_000),
                ("height", least, 65_000),
                ("n_noise", 1, 10**6),
                ("seed", 0, 2**31),
            )
            if not low <= getattr(self, name) <= high
        ]
        if wrong:
            raise ImageError(
                f"megapixel MNIST needs at least one image a split, sides from {least} to 65000, "
                f"n_noise of at least 1 and a seed of at least 0; got {wrong[0]}="
                f"{getattr(self, wrong[0])}."
            )


def make_megapixel_mnist(
    out: str | os.PathLike, canvas: Canvas, *, workers: int = 0
) -> tuple[MegapixelMNIST, MegapixelMNIST]:
    """Make both splits in a folder, or go on where a killed call stopped.

    Strokes are drawn first and digits over them, with their black pixels, so that none is crossed
    out; no two digits overlap. Digits of the two splits are different ones. The same call writes
    the same bytes.

    Args:
        out: Folder for `parameters.json`, `train.npz` and `test.npz`.
        canvas: Numbers, sizes and seed.
        workers: Processes of Dask; 0 works in this one.

    Returns:
        The training and the test split.

    Raises:
        ImageError: If the folder holds other images, or digits do not fit on the canvas.

    Example:
        >>> canvas = Canvas(n_train=2, n_test=1, width=200, height=200)
        >>> make_megapixel_mnist("data/small", canvas)  # doctest: +SKIP
    """
    folder, wanted = Path(out), {"format": 1, **asdict(canvas)}
    parameters = folder / "parameters.json"
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder} is a file; choose a folder.")
    if parameters.exists():
        try:
            found = json.loads(parameters.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != wanted:
            raise ImageError(
                f"{folder} holds images of other parameters, {found}; choose another folder, or "
                "delete it."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ImageError(f"{folder} is not empty, and has no parameters.json; choose another one.")
    try:
        write_json(parameters, wanted)
        for split, n in (("train", canvas.n_train), ("test", canvas.n_test)):
            if not (folder / f"{split}.npz").exists():
                _make_split(folder, split, n, canvas, workers)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    except OSError as error:
        raise ImageError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder, or "
            "make room."
        ) from error
    return load_megapixel_mnist(folder), load_megapixel_mnist(folder, train=False)


def _make_split(folder: Path, split: str, n: int, canvas: Canvas, workers: int) -> None:
    """Shards of a few images, each complete or absent, and then one file."""
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    paths = [parts / f"{split}-{k:05d}.npz" for k in range(-(-n // _SHARD))]
    jobs = [
        (path, split, range(k * _SHARD, min((k + 1) * _SHARD, n)), canvas)
        for k, path in enumerate(paths)
        if not path.exists()
    ]
    if workers:
        import dask
        import dask.config

        tasks = [dask.delayed(_make_shard)(*job) for job in jobs]  # type: ignore[attr-defined]
        kind = dask.config.get("scheduler", "processes")
        dask.compute(*tasks, scheduler=kind, num_workers=workers)  # type: ignore[attr-defined]
    else:
        for job in jobs:
            _make_shard(*job)
    shards = [np.load(path, allow_pickle=False) for path in paths]
    joined = {name: np.concatenate([shard[name] for shard in shards]) for name in STORED[1:]}
    counts = np.concatenate([np.diff(shard["offsets"]) for shard in shards])
    offsets = np.concatenate([[0], counts.cumsum()])
    _save(folder / f"{split}.npz", {"offsets": offsets, **joined})


def _make_shard(path: Path, split: str, numbers: range, canvas: Canvas) -> None:
    pool = load("digits", train=split == "train")
    pixels, labels = pool.read(range(len(pool)))[:, 0].numpy(), pool.labels.numpy()
    strokes = make_strokes(canvas, split)
    found: dict[str, list[Any]] = {name: [] for name in STORED}
    for k in numbers:
        values, answers = _compose(pixels, labels, strokes, canvas, _source(canvas, split, 1, k))
        places = np.flatnonzero(values)
        found["offsets"].append(len(places))
        found["indices"].append(places.astype(np.uint32))
        found["values"].append(values.reshape(-1)[places])
        for name, answer in answers.items():
            found[name].append(answer)
    arrays = {name: np.stack(found[name]) for name in STORED[3:]}
    arrays |= {name: np.concatenate(found[name]) for name in ("indices", "values")}
    _save(path, {**arrays, "offsets": np.array([0, *found["offsets"]]).cumsum()})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays as they are: the bytes of compressed ones depend on a library."""
    text = io.BytesIO()
    chosen: dict[str, Any] = {name: arrays[name] for name in STORED}
    np.savez(text, **chosen)
    replace_file(path, lambda file: file.write(text.getbuffer()))


def _source(canvas: Canvas, split: str, *what: int) -> np.random.Generator:
    return np.random.default_rng([canvas.seed, _SPLITS[split], *what])


def make_strokes(canvas: Canvas, split: str) -> np.ndarray:
    """The strokes of a split, `(n_noise, 28, 28)` uint8: two lines from corners, some mirrored."""
    draw, n = _source(canvas, split, 0), canvas.n_noise
    x = np.arange(2 * _STAMP) / 2
    y = x * np.tan(draw.random((n, 1)) * np.pi / 2.5)
    stroke, point = np.nonzero(y < _STAMP)
    lines = np.zeros((n, _STAMP, _STAMP), bool)
    lines[stroke, y[stroke, point].astype(int), x[point].astype(int)] = True
    others = lines[draw.permutation(n)]
    for axis in (1, 2):
        mirrored = draw.random(n) < 0.33
        others[mirrored] = np.flip(others[mirrored], axis)
    gray = draw.uniform(0.8, 1, (n, _STAMP, _STAMP))
    return ((lines | others) * gray * 255).astype(np.uint8)


def _compose(
    pixels: np.ndarray,
    labels: np.ndarray,
    strokes: np.ndarray,
    canvas: Canvas,
    draw: np.random.Generator,
) -> tuple[np.ndarray, dict[str, Any]]:
    """One image, and the answers to the four questions."""
    target = int(draw.integers(10))
    same, other = np.flatnonzero(labels == target), np.flatnonzero(labels != target)
    chosen = np.concatenate([draw.choice(same, 3), draw.choice(other, 2)])
    digits, corners = labels[chosen], _corners(canvas, draw)
    values = np.zeros((canvas.height, canvas.width), np.uint8)
    if canvas.noise:
        room = np.array([canvas.height, canvas.width]) - 2 * _STAMP
        at = (draw.random((canvas.n_noise, 2)) ** 2 * room + _STAMP).astype(int)
        for (row, column), kind in zip(at, draw.integers(len(strokes), size=len(at)), strict=True):
            window = values[row : row + _STAMP, column : column + _STAMP]
            np.maximum(window, strokes[kind], out=window)
    for (row, column), k in zip(corners, chosen, strict=True):
        values[row : row + _STAMP, column : column + _STAMP] = pixels[k]
    multi = np.zeros(10, np.uint8)
    multi[digits] = 1
    top = digits[corners[:, 0].argmin()]
    answers = {"majority": target, "max": digits.max(), "top": top}
    return values, {**{k: np.uint8(v) for k, v in answers.items()}, "multi": multi}


def _corners(canvas: Canvas, draw: np.random.Generator) -> np.ndarray:
    """Corners of five digits that do not overlap, denser at the top left."""
    room = np.array([canvas.height, canvas.width]) - _STAMP
    found = np.empty((0, 2), int)
    for _ in range(_TRIES):
        corner = np.round(draw.random(2) ** 2 * room).astype(int)
        if not (np.abs(found - corner) < _STAMP).all(1).any():
            found = np.concatenate([found, corner[None]])
        if len(found) == 5:
            return found
    raise ImageError(
        f"five digits did not fit on {canvas.height} x {canvas.width} pixels; make it larger."
    )
