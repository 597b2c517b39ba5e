"""Fill a folder patient by patient, so that a kill loses at most the current patient."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic._errors import CohortError
from cpic._files import write_json, write_text
from cpic.data._progress import Progress, shown

if TYPE_CHECKING:
    from pandas import DataFrame

RECIPE = "recipe.json"


def write_tables(root: Path, tables: "Mapping[str, DataFrame]", facts: dict[str, Any]) -> None:
    """Tables by their paths below root, and common facts as `truth.json`."""
    for name, table in tables.items():
        write_text(root / name, table.to_csv(index=False, lineterminator="\n"))
    write_json(root / "truth.json", facts)


def read_recipe(root: str | Path) -> dict[str, Any]:
    """The recipe of the cohort in `root`.

    Raises:
        CohortError: If there is no generated cohort.
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
    """Raise CohortError unless there is at least one patient and every size is large enough."""
    if n_patients < 1:
        raise CohortError(f"{name} needs n_patients of at least 1, got {n_patients}.")
    if len(shape) != 3 or any(n < low for n, low in zip(shape, least, strict=True)):
        raise CohortError(
            f"{name} needs three sizes of at least {'x'.join(map(str, least))}, got "
            f"{tuple(shape)}: what it draws is a few voxels wide."
        )


def _open(root: Path, recipe: dict[str, Any]) -> None:
    """Start a cohort, or continue one with the same recipe."""
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
    run: Callable[..., Iterable[dict[str, Any]]] = map,
) -> list[dict[str, Any]]:
    """Generate the missing patients; return the facts about all of them, in order.

    Args:
        root: Folder of the cohort.
        folder: Folder inside root, with one folder per patient.
        recipe: Everything except the number of patients that determines the content.
        names: Folder names of the patients.
        make: Writes patient k into an empty folder and returns its truth, which must be JSON.
        progress: Show a progress bar.
        run: Maps a function over numbers and names of the patients, in processes if they take what
            they are given.

    Raises:
        CohortError: If root has other content, or more patients.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    # If two processes use one folder, the second one waits, and then finds the work done.
    with FileLock(root / ".lock"):
        _open(root, recipe)
        truths = root / ".truth"
        folder.mkdir(parents=True, exist_ok=True)
        truths.mkdir(exist_ok=True)
        more = {p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."} - set(names)
        if more:
            raise CohortError(
                f"{root} holds {len(more)} patients more than the {len(names)} requested: request "
                "all of them, or choose an empty folder."
            )
        known = iter(run(partial(_fill_one, folder, truths, make), range(len(names)), names))
        return [next(known) for _ in shown(progress, names, total=len(names), desc=root.name)]


def _fill_one(
    folder: Path, truths: Path, make: Callable[[int, Path], dict[str, Any]], k: int, name: str
) -> dict[str, Any]:
    """Generate a patient unless it is there; return the facts about it."""
    from threadpoolctl import threadpool_limits

    note = truths / f"{name}.json"
    # The folder is renamed last, so its presence means that it is complete.
    if not (folder / name).is_dir():
        part = folder / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        # Small matrix products are slower on several threads, and sums depend on their number.
        with threadpool_limits(1):
            write_text(note, json.dumps(make(k, part)) + "\n")
        os.replace(part, folder / name)
    return json.loads(note.read_text(encoding="utf-8"))
