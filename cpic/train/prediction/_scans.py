"""Scans in a folder, whatever its tree."""

import collections
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cpic._errors import CohortError
from cpic.data._folder import looking
from cpic.train.prediction._contrasts import OTHER, Named, read_name
from cpic.train.prediction._folders import Folder, Place, one_file, stem_of, walk
from cpic.train.prediction._names import Whose, name_scans

_log = logging.getLogger(__name__)
# Names that a message shows.
_SHOWN = 5

Found = dict[str, dict[str, Path] | str]


class _Item(NamedTuple):
    """A file, or a folder of slices."""

    path: Path
    place: Place
    named: Named


class _Scan(NamedTuple):
    """The files of one person by contrast, or the reason why they are of no use.

    `apart` ones are of no person of their own where there are other scans of the person.
    """

    place: Place
    person: str
    paths: list[Path]
    files: dict[str, Path] | str
    apart: bool = False


def find_scans(folder: Path, contrasts: Sequence[str], tables: Collection[str] = ()) -> Found:
    """Patients of a folder with their files, or the reason why one cannot be read.

    A patient is a folder of `.dcm` files, a folder with one file a contrast (`*_t1.nii.gz`), or a
    file, or files `NAME_t1.nii.gz`, in a folder of many, at any depth. The contrast is that of the
    name; only where no name in the tree has one may the single file of a folder, or the files of a
    single folder, be of the one contrast that is needed. Nothing is opened. What is left out is
    logged.

    Args:
        folder: of any of these, at some depth.
        contrasts: what a patient needs, in this order.
        tables: names of patients in tables, by which they are called here too.

    Raises:
        CohortError: if there is no such folder, or no scan in it.
    """
    with looking(folder):
        is_folder, there = folder.is_dir(), folder.exists()
    if not is_folder:
        what = "it is a file, give the folder it is in" if there else "check the path"
        raise CohortError(f"there is no folder {folder}; {what}.")
    folders = list(walk(folder))
    items = [item for one in folders for item in _items(one, tuple(contrasts))]
    if not items:
        others = [name for one in folders for name in one.others]
        raise CohortError(
            f"{folder} holds no scans: a prediction needs .nii or .nii.gz files, or folders of "
            f".dcm files, got {_listed(others) if others else 'no file'}."
        )
    scans, spare = _persons(items, tuple(contrasts))
    kept, apart = _covered([*scans, *_without(folders, items)])
    spare += [path for scan in apart for path in scan.paths]
    whose = [Whose(s.place, s.person, s.paths[0].relative_to(folder).as_posix()) for s in kept]
    names = name_scans(whose, folder.resolve().name, tables)
    if spare:
        shown = _listed(path.relative_to(folder).as_posix() for path in spare)
        _log.info("%d files and folders are not needed: %s", len(spare), shown)
    return dict(sorted(zip(names, (scan.files for scan in kept), strict=True)))


def _items(one: Folder, contrasts: tuple[str, ...]) -> Iterator[_Item]:
    for path in one.scans:
        yield _Item(path, one.place, read_name(stem_of(path), contrasts))
    if one.slices:
        name = one.place[-1] if one.place else one.path.resolve().name
        named = read_name(name, contrasts)
        # A series that is called by its contrast alone is one of the files of the folder it is in.
        yield _Item(one.path, one.place[:-1] if named.contrast else one.place, named)


def _persons(items: list[_Item], contrasts: tuple[str, ...]) -> tuple[list[_Scan], list[Path]]:
    """Scans folder by folder, and files that no scan needs."""
    others = {OTHER, "seg"} - set(contrasts)
    dumb = _by_place(item for item in items if not item.named.contrast)
    aside = _by_place(item for item in items if item.named.contrast in others)
    told = _by_place(item for item in items if item.named.contrast not in {"", *others})
    scans = [scan for place, own in told.items() for scan in _told(place, own, contrasts)]
    for place, own in dumb.items():
        # A lung has one kind of scan: names without it are not in doubt because another has it.
        known = told if contrasts != ("ct",) else {place[:-1]} & set(told)
        if place not in told:
            scans += _dumb(place, own, contrasts, sure=not known, only=len(dumb) == 1)
    scans += [
        _Scan(place, "", [i.path for i in own], _lacking(contrasts), apart=True)
        for place, own in aside.items()
        if place not in told and place not in dumb
    ]
    used = {path for scan in scans for path in scan.paths}
    return scans, [item.path for item in items if item.path not in used]


def _by_place(items: Iterable[_Item]) -> dict[Place, list[_Item]]:
    found: dict[Place, list[_Item]] = {}
    for item in items:
        found.setdefault(item.place, []).append(item)
    return found


def _told(place: Place, items: list[_Item], contrasts: tuple[str, ...]) -> Iterator[_Scan]:
    """The persons of one folder whose names say contrasts."""
    groups: dict[str, dict[str, list[Path]]] = {}
    for item in items:
        group = groups.setdefault(item.named.person, {})
        group.setdefault(item.named.contrast, []).append(item.path)
    served = [person for person, group in groups.items() if not group.keys().isdisjoint(contrasts)]
    for person, group in groups.items():
        behind = (other[len(person) :] for other in served if other.startswith(person))
        if person not in served and any(not rest[:1].isalnum() for rest in behind):
            # More scans of somebody whose name has a number of the run behind it.
            continue
        own = (*place, person) if person and (len(groups) > 1 or not place) else place
        needed = {contrast: group[contrast] for contrast in contrasts if contrast in group}
        paths = [path for files in (needed or group).values() for path in files]
        yield _Scan(own, person, paths, _complete(needed, contrasts), apart=not needed)


def _complete(found: dict[str, list[Path]], contrasts: tuple[str, ...]) -> dict[str, Path] | str:
    if lacking := [contrast for contrast in contrasts if contrast not in found]:
        return _lacking(lacking)
    files = {}
    for contrast in contrasts:
        path = one_file(found[contrast])
        if path is None:
            names = ", ".join(sorted(path.name for path in found[contrast])[:_SHOWN])
            return f"several of its files are {contrast}: {names}; keep one"
        if not (path.is_file() or path.is_dir()):
            return f"{path.name} is no file, or a link to none"
        files[contrast] = path
    return files


def _dumb(
    place: Place, items: list[_Item], contrasts: tuple[str, ...], *, sure: bool, only: bool
) -> Iterator[_Scan]:
    """What is in one folder whose names say no contrast."""
    paths = [item.path for item in items]
    stems = [item.named.person for item in items]
    if len(contrasts) == 1 and sure and (len(items) == 1 or (only and not _alike(stems))):
        for path, stem in zip(paths, stems, strict=True):
            inside = path.is_dir() or (place and len(items) == 1)
            own = place if inside else (*place, stem)
            yield _Scan(
                own,
                "" if path.is_dir() else stem,
                [path],
                _complete({contrasts[0]: [path]}, contrasts),
            )
        return
    wanted, (example, *_) = ", ".join(contrasts), contrasts
    if all(path.is_dir() for path in paths) and len(contrasts) > 1:
        reason = f"it is one series of slices, the model needs {wanted}"
    else:
        names = ", ".join(path.name for path in paths[:_SHOWN])
        reason = f"which file is {wanted} is not known ({names}); end its name in _{example}"
    yield _Scan(place, "", paths, reason, apart=True)


def _alike(stems: Sequence[str]) -> bool:
    """Whether names look like several scans of one person: NAME_a, NAME_b, and not numbered."""
    ends: dict[str, set[str]] = collections.defaultdict(set)
    for stem in stems:
        start = max(stem.rfind(sign) for sign in "-_. ")
        if start > 0:
            ends[stem[:start]].add(stem[start + 1 :])
    several = [end for end in ends.values() if len(end) > 1]
    numbered = all(word.isdigit() for end in several for word in end)
    return not numbered or len({word for end in several for word in end}) < sum(map(len, several))


def _without(folders: list[Folder], items: list[_Item]) -> Iterator[_Scan]:
    """The topmost folders without any scan in or below them."""
    series = {one.place for one in folders if one.slices}
    filled = {one.place for one in folders if one.scans} | series
    filled = {place[:k] for place in filled for k in range(len(place) + 1)}
    for one in folders:
        below = any(one.place[:k] in series for k in range(len(one.place)))
        if one.fault:
            yield _Scan(one.place, "", [one.path], one.fault)
        elif one.place not in filled and one.place[:-1] in filled and not below:
            others = f" ({', '.join(one.others[:_SHOWN])})" if one.others else ""
            reason = f"its folder holds no scan{others}"
            yield _Scan(one.place, "", [one.path], reason, apart=True)


def _covered(scans: list[_Scan]) -> tuple[list[_Scan], list[_Scan]]:
    """Scans of persons, and those beside them that are of nobody else."""
    places = {scan.place for scan in scans if not scan.apart}
    branches: dict[Place, set[str]] = collections.defaultdict(set)
    for place in places:
        for k, name in enumerate(place):
            branches[place[:k]].add(name)

    def covered(place: Place) -> bool:
        for k in reversed(range(len(place))):
            if place[:k] in places:
                return True
            if place[:k] in branches:
                # The folder of one scan, if it is itself one of several.
                above = (len(branches[place[:j]]) for j in range(k))
                return len(branches[place[:k]]) == 1 and max(above, default=0) > 1
        return False

    apart = [scan for scan in scans if scan.apart and covered(scan.place)]
    return [scan for scan in scans if scan not in apart], apart


def _lacking(contrasts: Iterable[str]) -> str:
    return f"{', '.join(contrasts)} is missing"


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    return ", ".join(every[:_SHOWN]) + f" and {len(every) - _SHOWN} more" * (len(every) > _SHOWN)
