"""Find scans in a folder of any structure."""

import collections
import logging
import os
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from cpic._errors import CohortError
from cpic.data._folder import looking
from cpic.train.prediction._folders import Folder, Place, stem_of, walk
from cpic.train.prediction._names import OTHER, Named, read_name
from cpic.train.prediction._naming import Scan, name_scans

_log = logging.getLogger(__name__)
# Number of names shown in a message.
_SHOWN = 5
_Value = TypeVar("_Value")
_Key = TypeVar("_Key", bound=Hashable)

Found = dict[str, dict[str, Path] | str]


class _Item(NamedTuple):
    """A file, or a folder of slices."""

    path: Path
    place: Place
    named: Named


def find_scans(folder: Path, contrasts: Sequence[str], tables: Collection[str] = ()) -> Found:
    """Find the patients of a folder with their files, or the reason why one cannot be read.

    A patient is a folder of `.dcm` files, a folder with one file per contrast (`*_t1.nii.gz`), a
    single file, or files `NAME_t1.nii.gz` in a shared folder, at any depth. The contrast is taken
    from the name; only if no name in the tree has one is the single file of a folder, or each of
    the files of a single folder, taken to be of the one contrast that is needed. Nothing is opened.
    Files that are not used are logged.

    Args:
        folder: Folder with any of these, at any depth.
        contrasts: Contrasts that a patient needs, in this order.
        tables: Names of patients in tables, which are used here too.

    Raises:
        CohortError: If there is no such folder, or no scan in it.
    """
    with looking(folder):
        is_folder, there = folder.is_dir(), folder.exists()
    if not is_folder:
        what = "it is a file, give the folder it is in" if there else "check the path"
        raise CohortError(f"there is no folder {folder}; {what}.")
    folders = list(walk(folder))
    items = [item for one in folders for item in _items(one, tuple(contrasts))]
    if not items:
        others = sorted(name for one in folders for name in one.others)
        raise CohortError(
            f"{folder} holds no scans: a prediction needs .nii or .nii.gz files, or folders of "
            f".dcm files, got {listed(others) if others else 'no file'}."
        )
    scans = [*_patients(items, tuple(contrasts)), *_empty(folders)]
    kept = _without_company(scans)
    names = name_scans(kept, folder, tables)
    used = {path for scan in kept for path in scan.paths}
    known = [*(item.path for item in items), *(path for scan in scans for path in scan.paths)]
    if spare := sorted({path.relative_to(folder).as_posix() for path in known if path not in used}):
        _log.info("%d files and folders are not used: %s", len(spare), listed(spare))
    return dict(sorted(zip(names, (scan.files for scan in kept), strict=True)))


def _items(one: Folder, contrasts: tuple[str, ...]) -> Iterator[_Item]:
    for path in one.scans:
        yield _Item(path, one.place, read_name(stem_of(path), contrasts))
    if one.slices:
        name = one.place[-1] if one.place else one.path.resolve().name
        named = read_name(name, contrasts)
        # A series named only by its contrast is one of the files of the folder it is in.
        yield _Item(one.path, one.place[:-1] if named.contrast else one.place, named)


def _patients(items: list[_Item], contrasts: tuple[str, ...]) -> Iterator[Scan]:
    """Scans, folder by folder."""
    labels = {OTHER, "seg"} - set(contrasts)

    def in_folders(contrast: Callable[[str], bool]) -> dict[Place, list[_Item]]:
        chosen = [item for item in items if contrast(item.named.contrast)]
        return _grouped(chosen, lambda item: item.place)

    silent = in_folders(lambda contrast: not contrast)
    aside = in_folders(lambda contrast: contrast in labels)
    told = in_folders(lambda contrast: contrast not in {"", *labels})
    for place, own in told.items():
        yield from _told(place, own, contrasts)
    for place in silent.keys() - told.keys():
        # Lungs have one kind of scan: names without it are not ambiguous because another one has
        # it.
        known = told if contrasts != ("ct",) else {place[:-1]} & told.keys()
        yield from _silent(place, silent[place], contrasts, sure=not known, only=len(silent) == 1)
    for place in aside.keys() - told.keys() - silent.keys():
        yield Scan(place, "", [i.path for i in aside[place]], _lacking(contrasts), apart=True)


def _grouped(values: Iterable[_Value], key: Callable[[_Value], _Key]) -> dict[_Key, list[_Value]]:
    groups: dict[_Key, list[_Value]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def _told(place: Place, items: list[_Item], contrasts: tuple[str, ...]) -> Iterator[Scan]:
    """The patients of a folder whose file names have contrasts."""
    groups = {
        patient: _grouped(own, lambda item: item.named.contrast)
        for patient, own in _grouped(items, lambda item: item.named.patient).items()
    }
    served = [name for name, group in groups.items() if not group.keys().isdisjoint(contrasts)]
    for patient, group in groups.items():
        behind = (other[len(patient) :] for other in served if other.startswith(patient))
        if patient not in served and any(not rest[:1].isalnum() for rest in behind):
            # More scans of a patient, with the number of the run appended to the name.
            continue
        own = (*place, patient) if patient and (len(groups) > 1 or not place) else place
        needed = {c: [item.path for item in group[c]] for c in contrasts if c in group}
        paths = [item.path for kind in needed or group for item in group[kind]]
        yield Scan(own, patient, paths, _complete(needed, contrasts), apart=not needed)


def _complete(found: dict[str, list[Path]], contrasts: tuple[str, ...]) -> dict[str, Path] | str:
    if lacking := [contrast for contrast in contrasts if contrast not in found]:
        return _lacking(lacking)
    files = {}
    for contrast in contrasts:
        paths = found[contrast]
        if len({os.path.normcase(path.parent / stem_of(path)) for path in paths}) > 1:
            names = ", ".join(sorted(path.name for path in paths)[:_SHOWN])
            return f"several of its files are {contrast}: {names}; keep one"
        # The same file twice: use the uncompressed one.
        path = min(paths, key=lambda path: path.name.lower().endswith(".gz"))
        if not (path.is_file() or path.is_dir()):
            return f"{path.name} is not a file, or a broken link"
        files[contrast] = path
    return files


def _silent(
    place: Place, items: list[_Item], contrasts: tuple[str, ...], *, sure: bool, only: bool
) -> Iterator[Scan]:
    """The scans of a folder whose file names have no contrast."""
    paths = [item.path for item in items]
    alone = len(items) == 1
    if len(contrasts) == 1 and sure and (alone or (only and not _alike(items))):
        for path, item in zip(paths, items, strict=True):
            patient = "" if path.is_dir() else item.named.patient
            inside = path.is_dir() or (place and alone)
            files = _complete({contrasts[0]: [path]}, contrasts)
            yield Scan(place if inside else (*place, patient), patient, [path], files)
        return
    wanted, (example, *_) = ", ".join(contrasts), contrasts
    if all(path.is_dir() for path in paths) and len(contrasts) > 1:
        reason = f"it is one series of slices, the model needs {wanted}"
    else:
        names = ", ".join(path.name for path in paths[:_SHOWN])
        reason = f"which file is {wanted} is not known ({names}); end its name in _{example}"
    yield Scan(place, "", paths, reason, apart=True)


def _alike(items: Sequence[_Item]) -> bool:
    """Whether names look like scans of one patient: NAME_a, NAME_b, and not numbered."""
    ends: dict[str, set[str]] = collections.defaultdict(set)
    for item in items:
        if found := re.fullmatch(r"(.+)[-_. ](.*)", item.named.patient, re.DOTALL):
            ends[found[1]].add(found[2])
    several = [end for own in ends.values() if len(own) > 1 for end in own]
    return not all(map(str.isdigit, several)) or len(set(several)) < len(several)


def _empty(folders: list[Folder]) -> Iterator[Scan]:
    """The topmost folders with no scan in or below them."""
    series = {one.place for one in folders if one.slices}
    filled = {one.place for one in folders if one.scans} | series
    filled = {place[:k] for place in filled for k in range(len(place) + 1)}
    for one in folders:
        below = any(one.place[:k] in series for k in range(len(one.place)))
        if one.fault:
            yield Scan(one.place, "", [one.path], one.fault)
        elif one.place not in filled and one.place[:-1] in filled and not below:
            others = f" ({', '.join(one.others[:_SHOWN])})" if one.others else ""
            yield Scan(one.place, "", [one.path], f"its folder holds no scan{others}", apart=True)


def _without_company(scans: list[Scan]) -> list[Scan]:
    """Scans of patients, without those next to them that belong to the same patients."""
    places = {scan.place for scan in scans if not scan.apart}
    steps = {(place[:k], place[k]) for place in places for k in range(len(place))}
    branches = collections.Counter(place for place, _ in steps)

    def covered(place: Place) -> bool:
        for k in reversed(range(len(place))):
            if place[:k] in places:
                return True
            if place[:k] in branches:
                # The folder of one scan, if it is itself one of several.
                above = (branches[place[:j]] for j in range(k))
                return branches[place[:k]] == 1 and max(above, default=0) > 1
        return False

    return [scan for scan in scans if not (scan.apart and covered(scan.place))]


def _lacking(contrasts: Iterable[str]) -> str:
    return f"{', '.join(contrasts)} is missing"


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
    return ", ".join(names[:_SHOWN]) + more
