"""Scans in a folder, whatever its tree."""

from collections.abc import Sequence
from pathlib import Path

from cpic._errors import CohortError

_ENDINGS = (".nii.gz", ".nii")
# Levels of folders between the one given and the scans; published trees have at most three.
_DEPTH = 4

Found = dict[str, dict[str, Path] | str]


def find_scans(folder: Path, contrasts: Sequence[str]) -> Found:
    """Patients of a folder with their files, or the reason why one cannot be read.

    A patient is a folder of `.dcm` files, a folder with one file a contrast (`*_t1.nii.gz`), or a
    file, or files `NAME_t1.nii.gz`, in a folder of many. Nothing is opened.

    Args:
        folder: of any of these, at some depth.
        contrasts: what a patient needs, in this order.

    Raises:
        CohortError: if there is no such folder, or no scan in it.
    """
    if not folder.is_dir():
        raise CohortError(f"there is no folder {folder}; check the path.")
    found = _search(folder, tuple(contrasts), _DEPTH)
    if not found:
        raise CohortError(
            f"{folder} holds no scans: a prediction needs .nii or .nii.gz files, or folders of "
            ".dcm files."
        )
    return dict(sorted(found.items()))


def _search(folder: Path, contrasts: tuple[str, ...], depth: int) -> Found:
    if _holds_slices(folder):
        return {folder.name: _series(folder, contrasts)}
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name[0] != "."]
    found = _from_files([e for e in entries if e.is_file() and _stem(e)], contrasts)
    empty: Found = {}
    deeper: list[Path] = []
    for entry in entries:
        if not entry.is_dir():
            continue
        files = [e for e in sorted(entry.iterdir()) if e.is_file() and e.name[0] != "."]
        if _holds_slices(entry):
            found[entry.name] = _series(entry, contrasts)
        elif scans := [e for e in files if _stem(e)]:
            found.update(_patient(entry, scans, contrasts))
        elif any(e.is_dir() for e in entry.iterdir()):
            deeper.append(entry)
        else:
            empty[entry.name] = "its folder holds no scan"
    if found:
        return {**empty, **found}
    for entry in deeper if depth else ():
        found.update(_search(entry, contrasts, depth - 1))
    return found


def _patient(folder: Path, scans: list[Path], contrasts: tuple[str, ...]) -> Found:
    """A folder with files: of one patient, if each contrast is there at most once."""
    ends = {
        contrast: [scan for scan in scans if _stem(scan).lower().endswith(f"_{contrast}")]
        for contrast in contrasts
    }
    if not any(ends.values()):
        if len(contrasts) == 1 and len(scans) == 1:
            return {folder.name: {contrasts[0]: scans[0]}}
        return _from_files(scans, contrasts)
    if any(len({_stem(file) for file in files}) > 1 for files in ends.values()):
        return _from_files(scans, contrasts)
    return {folder.name: _complete({c: files[-1] for c, files in ends.items() if files}, contrasts)}


def _from_files(scans: list[Path], contrasts: tuple[str, ...]) -> Found:
    """Files of many patients, grouped by what stands in front of the contrast."""
    groups: dict[str, dict[str, Path]] = {}
    alone: dict[str, Path] = {}
    for scan in scans:
        stem = _stem(scan)
        contrast = next((c for c in contrasts if stem.lower().endswith(f"_{c}")), None)
        if contrast is None:
            alone[stem] = scan
        else:
            groups.setdefault(stem[: -len(contrast) - 1], {})[contrast] = scan
    found: Found = {name: _complete(files, contrasts) for name, files in groups.items()}
    if not groups and len(contrasts) == 1:
        found = {name: {contrasts[0]: path} for name, path in alone.items()}
    elif not groups:
        found = {name: f"the model needs {', '.join(contrasts)} of it" for name in alone}
    return found


def _complete(files: dict[str, Path], contrasts: tuple[str, ...]) -> dict[str, Path] | str:
    lacking = [contrast for contrast in contrasts if contrast not in files]
    if lacking:
        return f"{', '.join(lacking)} is missing"
    return {contrast: files[contrast] for contrast in contrasts}


def _series(folder: Path, contrasts: tuple[str, ...]) -> dict[str, Path] | str:
    if len(contrasts) != 1:
        return f"it is one series of slices, the model needs {', '.join(contrasts)}"
    return dict.fromkeys(contrasts, folder)


def _holds_slices(folder: Path) -> bool:
    return any(e.suffix.lower() == ".dcm" and e.name[0] != "." for e in folder.iterdir())


def _stem(path: Path) -> str:
    """The name without a scan's ending; empty for other files."""
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return ""
