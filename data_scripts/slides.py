"""Slides of CAMELYON16, or of the same folders: from thresholds to features, and heat maps.

    python data_scripts/slides.py otsu DATA otsu.csv
    python data_scripts/slides.py foreground --train DATA otsu.csv TILES
    python data_scripts/slides.py pretrain DATA TILES/coords_train.csv MODEL
    python data_scripts/slides.py features --train DATA otsu.csv TILES/bounds_train.csv \
        TILES/coords_train.csv MODEL/latest.ckpt FEATURES
    python data_scripts/slides.py heatmap SCORES.npz MAP.png

A slide that fails is named at the end, and the others go on; a run that was killed is continued by
the same command. The exit code is 1 if a slide failed.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import _engine
import numpy as np
import torch

from cpic._errors import CacheError, ImageError
from cpic._files import replace_file
from cpic.images.slides import Slide, heat_map, read_scores, read_slides
from cpic.images.slides._jobs import (
    Encoder,
    encode_slide,
    read_rows,
    threshold_slide,
    tile_slide,
    tiles_of,
    write_rows,
)

_BOUNDS = ("level", "names", "start_id", "end_id")
_COORDS = ("id", "pos_id", "name", "x", "y")


def otsu(args: argparse.Namespace) -> int:
    """Write the threshold of every slide of both splits to DATA/FNAME."""
    slides = [
        *_slides(args.data, "train", may_lack=True),
        *_slides(args.data, "test", may_lack=True),
    ]
    out = args.data / args.fname
    parts = out.with_name(f"{out.stem}_parts") / f"level_{args.lvl}"
    job = functools.partial(threshold_slide, level=args.lvl, faults=args.faults, out=parts)
    report = _run(job, {slide.name: (slide,) for slide in slides}, args.n_worker, "otsu")
    rows = [report.results[slide.name] for slide in slides if slide.name in report.results]
    write_rows(out, rows, ("name", "level", "threshold", "foreground", "faults"))
    return _end(report, f"{len(rows)} thresholds at {out}")


def foreground(args: argparse.Namespace) -> int:
    """Write the tiles with tissue, or with tumor, of a split: OUT/bounds_SPLIT, OUT/coords_SPLIT.

    The ids of a slide go from start_id to end_id, both inclusive; a slide without foreground has an
    end_id below its start_id.
    """
    slides, limits = _slides(args.data, args.split), _thresholds(args)
    options = {"size": args.tile_size, "overlap": args.overlap, "level": args.lvl}
    name = f"tiles_{args.split}_{args.lvl}_{args.otsu_lvl}_{args.tile_size}_{args.overlap}"
    parts = args.out / f"{name}_{args.fg_perc_thresh:g}"
    work = {s.name: (s, limits[s.name]) for s in slides if s.name in limits}
    lacking = [s.name for s in slides if s.name not in limits]
    job = functools.partial(
        tile_slide, faults=args.faults, out=parts, min_foreground=args.fg_perc_thresh, **options
    )
    report = _run(job, work, args.n_worker, "foreground")
    report.failed |= {name: f"{args.otsu} has no threshold of it" for name in lacking}
    bounds, coords = [], []
    for slide in slides:
        tiles = report.results.get(slide.name)
        if tiles is None:
            continue
        start = len(coords)
        coords += [
            {"id": start + k, "pos_id": k, "name": slide.name, "x": tile["x"], "y": tile["y"]}
            for k, tile in enumerate(tiles)
        ]
        row = {"level": args.lvl, "names": slide.name, "start_id": start}
        bounds.append({**row, "end_id": len(coords) - 1})
    write_rows(args.out / f"bounds_{args.split}.csv", bounds, _BOUNDS)
    write_rows(args.out / f"coords_{args.split}.csv", coords, _COORDS)
    empty = [row["names"] for row in bounds if row["end_id"] < row["start_id"]]
    if empty:
        print(f"{len(empty)} slides without foreground: {', '.join(empty)}")
    return _end(report, f"{len(coords)} tiles of {len(bounds)} slides at {args.out}")


def features(args: argparse.Namespace) -> int:
    """Write the features of the tiles of a split, one Zarr store per slide."""
    _thresholds(args)
    slides = {slide.name: slide for slide in _slides(args.data, args.split)}
    tables = _tables(args.bounds, args.coords)
    strange = sorted(tables.keys() - slides.keys())
    if strange:
        raise ImageError(f"{args.coords} has tiles of {strange[0]}, which is not in {args.data}.")
    work = {name: (slides[name], *table) for name, table in tables.items() if table[0]}
    job = functools.partial(
        encode_slide,
        level=args.lvl,
        size=args.tile_size,
        arch=args.arch,
        weights=args.model,
        batch_size=args.batch_size,
        out=args.out,
        faults=args.faults,
    )
    report = _run(job, work, args.num_workers, "features")
    for name, faults in report.results.items():
        print("\n".join(f"  (note) {name}: {fault}" for fault in faults), end="\n" * bool(faults))
    return _end(report, f"features of {len(report.results)} slides at {args.out}")


def pretrain_encoder(args: argparse.Namespace) -> int:
    """Learn an encoder of tiles without labels (BYOL); the same command continues a run."""
    from cpic.train.pretrain import pretrain  # loads Lightning

    slides = {slide.name: slide for slide in _slides(args.data, "train")}
    tables = _tables(None, args.coords)
    sources = [
        tiles_of(
            slides[name], torch.tensor(at), level=args.lvl, size=args.tile_size, faults="blank"
        )
        for name, (at, _) in tables.items()
        if name in slides
    ]
    torch.manual_seed(args.seed)
    encoder = Encoder(args.arch)
    model = pretrain(
        sources,
        encoder,
        encoder.width,
        folder=args.out,
        num_epochs=args.epochs,
        batch_size=args.batch_size,
        num_examples=args.num_examples,
        warmup_epochs=min(10, max(0, args.epochs - 1)),
        ngpus=args.ngpus,
        workers=args.num_workers,
        seed=args.seed,
        size=args.crop,
        hidden=args.hidden,
    )
    print(f"loss {model.history[-1]['loss']:.4f} after {args.epochs} epochs, at {args.out}")
    return 0


def heatmap(args: argparse.Namespace) -> int:
    """Draw stored scores over their slide: white is the largest sum, black is none."""
    from PIL import Image

    found = heat_map(read_scores(args.scores), downsample=args.downsample)
    top = found.max().clamp(min=torch.finfo(found.dtype).tiny)
    pixels = (255 * found.clamp(min=0) / top).round().byte().numpy()
    replace_file(args.out, lambda file: Image.fromarray(pixels).save(file, "PNG"))
    replace_file(args.out.with_suffix(".npy"), lambda file: np.save(file, found.numpy()))
    print(f"{found.shape[0]}x{found.shape[1]} pixels at {args.out}, largest sum {top:.4g}")
    return 0


def _slides(root: Path, split: str, *, may_lack: bool = False) -> tuple[Slide, ...]:
    folder = root / ("training" if split == "train" else "testing")
    if may_lack and root.is_dir() and not folder.exists():
        return ()
    found = read_slides(root, split=split)
    if found.unused:
        first = found.unused[0].name
        print(f"  (note) {len(found.unused)} annotations belong to no slide, the first is {first}")
    return found.slides


def _thresholds(args: argparse.Namespace) -> dict[str, float]:
    path = args.otsu if args.otsu.is_absolute() or args.otsu.exists() else args.data / args.otsu
    rows = read_rows(path, ("name", "level", "threshold"))
    try:
        found = {r["name"]: float(r["threshold"]) for r in rows if int(r["level"]) == args.otsu_lvl}
    except ValueError as error:
        raise ImageError(f"{path} has a level or threshold that is no number ({error}).") from error
    if not found:
        raise ImageError(f"{path} has no threshold of level {args.otsu_lvl}.")
    return found


def _tables(bounds: Path | None, coords: Path) -> dict[str, tuple[list, list]]:
    """Corners (row, column) at level 0, and numbers of the tiles of each slide."""
    tables: dict[str, tuple[list, list]] = {}
    try:
        for row in read_rows(coords, _COORDS):
            at, numbers = tables.setdefault(row["name"], ([], []))
            at.append((int(row["y"]), int(row["x"])))
            numbers.append(int(row["pos_id"]))
        expected = read_rows(bounds, _BOUNDS) if bounds else []
        sizes = {r["names"]: int(r["end_id"]) - int(r["start_id"]) + 1 for r in expected}
    except ValueError as error:
        raise ImageError(f"{coords} or {bounds} has a cell that is no number ({error}).") from error
    wrong = [name for name, n in sizes.items() if n != len(tables.get(name, ([],))[0])]
    if wrong:
        raise ImageError(f"{bounds} and {coords} disagree about {wrong[0]}; write both again.")
    return tables


def _run(job: Any, work: dict[str, tuple], workers: int, desc: str) -> _engine.Report:
    with _engine.Engine(workers=workers, progress=sys.stderr.isatty()) as engine:
        return engine.map(job, work, fatal=(CacheError,), desc=desc)


def _end(report: _engine.Report, line: str) -> int:
    print(f"{line}; {len(report.failed)} failed" + _engine.failure_table(report.failed))
    return int(bool(report.failed))


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any, name: str, *, split: bool = False) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=function.__doc__.splitlines()[0])
        found.set_defaults(run=function)
        if split:
            which = found.add_mutually_exclusive_group(required=True)
            for one in ("train", "test"):
                which.add_argument(f"--{one}", dest="split", action="store_const", const=one)
        if name != "heatmap":
            found.add_argument(
                "--lvl", type=int, default=0, help="level of the slides that is read"
            )
        return found

    def faults(one: argparse.ArgumentParser) -> None:
        policies = ("raise", "skip", "blank")
        one.add_argument("--faults", choices=policies, default="raise", help="corrupt tiles")

    def paths(one: argparse.ArgumentParser, *names: str) -> None:
        for name in names:
            one.add_argument(name, type=Path, metavar=name.upper())

    one = command(otsu, "otsu")
    faults(one)
    one.add_argument("--n_worker", type=int, default=0, help="processes; 0 works in this one")
    paths(one, "data", "fname")
    one = command(foreground, "foreground", split=True)
    faults(one)
    one.add_argument("--otsu_lvl", type=int, default=0, help="level of the thresholds")
    one.add_argument("--tile_size", type=int, default=256)
    one.add_argument("--fg_perc_thresh", type=float, default=0.01, help="least share of foreground")
    one.add_argument("--overlap", type=int, default=0, help="pixels that neighbors share")
    one.add_argument("--n_worker", type=int, default=0, help="processes; 0 works in this one")
    paths(one, "data", "otsu", "out")
    one = command(features, "features", split=True)
    faults(one)
    one.add_argument("--otsu_lvl", type=int, default=0)
    one.add_argument("--tile_size", type=int, default=256)
    one.add_argument("--batch_size", type=int, default=128)
    one.add_argument(
        "--num_workers", type=int, default=0, help="slides at once; 0: in this process"
    )
    one.add_argument("--arch", default="resnet50")
    paths(one, "data", "otsu", "bounds", "coords", "model", "out")
    one = command(pretrain_encoder, "pretrain")
    for name, value in {
        "tile_size": 256,
        "batch_size": 64,
        "epochs": 1000,
        "crop": 224,
        "hidden": 4096,
    }.items():
        one.add_argument(f"--{name}", type=int, default=value)
    for name in ("ngpus", "num_workers", "seed"):
        one.add_argument(f"--{name}", type=int, default=0)
    one.add_argument("--num_examples", type=int, help="patches per epoch; all by default")
    one.add_argument("--arch", default="resnet50")
    paths(one, "data", "coords", "out")
    one = command(heatmap, "heatmap")
    one.add_argument("--downsample", type=int, default=32, help="level-0 pixels per pixel")
    paths(one, "scores", "out")
    return top


def main(words: list[str] | None = None) -> int:
    """Run a command."""
    args = parser().parse_args(words)
    try:
        return args.run(args)
    except (_engine.EngineError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
