"""Filling a folder patient by patient, so that a kill loses at most the patient being written."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic._errors import CohortError
from cpic._files import replace_file, write_json
from cpic.data._progress import Progress, shown

if TYPE_CHECKING:
    from pandas import DataFrame

RECIPE = "recipe.json"


def write_text(path: Path, text: str) -> None:
    """The whole file or none of it."""
    replace_file(path, lambda file: file.write(text.encode("utf-8")))


def write_tables(root: Path, tables: "Mapping[str, DataFrame]", facts: dict[str, Any]) -> None:
    """Tables by their paths below root, and what all patients share as `truth.json`."""
    for name, table in tables.items():
        write_text(root / name, table.to_csv(index=False, lineterminator="\n"))
    write_json(root / "truth.json", facts)


def read_recipe(root: str | Path) -> dict[str, Any]:
    """What the cohort in `root` was made from.

    Raises:
        CohortError: if there is no generated cohort.
    """
    path = Path(root) / RECIPE
    if not path.is_file():
        raise CohortError(
            f"{Path(root)} holds no generated cohort ({RECIPE} is missing): make one with "
            "make_brats_like or make_osic_like."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def check_request(
    name: str, n_patients: int, shape: tuple[int, ...], least: tuple[int, ...]
) -> None:
    """Raises CohortError unless there is a patient and every size is at least the least."""
    if n_patients < 1:
        raise CohortError(f"{name} needs n_patients of at least 1, got {n_patients}.")
    if len(shape) != 3 or any(n < low for n, low in zip(shape, least, strict=True)):
        raise CohortError(
            f"{name} needs three sizes of at least {'x'.join(map(str, least))}, got "
            f"{tuple(shape)}: what it draws is a few voxels wide."
        )


def _open(root: Path, recipe: dict[str, Any]) -> None:
    """Start a cohort, or go on with one of the same recipe."""
    root.mkdir(parents=True, exist_ok=True)
    if (root / RECIPE).is_file():
        found = read_recipe(root)
        if found != recipe:
            differ = [k for k in recipe if found.get(k) != recipe[k]] or sorted(set(found))
            raise CohortError(
                f"{root} holds a cohort made with another {', '.join(differ)}: choose an empty "
                "folder, or ask for the same."
            )
        return
    others = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")]
    if others:
        raise CohortError(
            f"{root} holds other files ({sorted(others)[0]}): choose an empty folder for a "
            "generated cohort."
        )
    write_json(root / RECIPE, recipe)


def fill(
    root: Path,
    folder: Path,
    recipe: dict[str, Any],
    names: list[str],
    make: Callable[[int, Path], dict[str, Any]],
    *,
    progress: Progress = False,
) -> list[dict[str, Any]]:
    """Make the patients that are not there yet; what is known of all of them, in order.

    Args:
        root: of the cohort.
        folder: inside root, gets one folder a patient.
        recipe: everything but the number of patients that decides on the content.
        names: of the patients' folders.
        make: writes patient k into an empty folder and returns its truth, which must be JSON.
        progress: show a bar.

    Raises:
        CohortError: if root holds something else, or more patients.
    """
    from filelock import FileLock
    from threadpoolctl import threadpool_limits

    root.mkdir(parents=True, exist_ok=True)
    # Two processes on one folder: the second waits, and then finds the work done.
    # Small matrix products are slower on several threads, and their sums depend on how many.
    with FileLock(root / ".lock"), threadpool_limits(1):
        _open(root, recipe)
        truths = root / ".truth"
        folder.mkdir(parents=True, exist_ok=True)
        truths.mkdir(exist_ok=True)
        more = {p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."} - set(names)
        if more:
            raise CohortError(
                f"{root} holds {len(more)} patients more than the {len(names)} asked for: ask for "
                "all of them, or choose an empty folder."
            )
        known = []
        for k, name in enumerate(shown(progress, names, total=len(names), desc=root.name)):
            note = truths / f"{name}.json"
            # The folder appears last and whole, so its presence means that all is written.
            if not (folder / name).is_dir():
                part = folder / f".{name}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                write_text(note, json.dumps(make(k, part)) + "\n")
                os.replace(part, folder / name)
            known.append(json.loads(note.read_text(encoding="utf-8")))
    return known
