"""Names for the scans of a folder: short and unique."""

import collections
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from cpic.train.prediction._folders import Place


class Scan(NamedTuple):
    """The files of one patient by contrast, or the reason why they cannot be used.

    Attributes:
        place: Folders that lead to it, and its own name if it shares the folder.
        patient: Common part of the names of its files, without the contrast.
        paths: Its files.
        files: These by contrast, or the reason.
        apart: Not a patient of its own if the patient has other scans.
    """

    place: Place
    patient: str
    paths: list[Path]
    files: dict[str, Path] | str
    apart: bool = False


def name_scans(scans: Sequence[Scan], folder: Path, tables: Collection[str]) -> list[str]:
    """Give each scan a unique name.

    A patient of a table has the name in the table; with several scans, each is `PATIENT/PLACE`.
    Others have the name of the folder that their files are named after, or else the folders that
    lead to them, without those common to all.

    Args:
        scans: Scans of all patients.
        folder: Root of the search.
        tables: Names of patients in tables.
    """
    root = folder.resolve().name
    ways = collections.Counter(word for scan in scans for word in {*scan.place})
    # Candidates for each scan, the best first; the last one is unique in any case.
    choices = []
    for scan, place in zip(scans, _trimmed(scans), strict=True):
        own = ["/".join(place) or root, scan.paths[0].relative_to(folder).as_posix()]
        if told := _in_tables(scan, root, tables):
            # The part after the slash is not looked up in tables.
            below = scan.place[scan.place.index(told) + 1 :] if told in scan.place else ()
            own = [told, "/".join((told, *below)), *(f"{told}/{name}" for name in own)]
        elif ways[scan.patient] == 1:
            own = [scan.patient, *own]
        choices.append(own)
    while True:
        counts = collections.Counter(choice[0] for choice in choices)
        twice = [choice for choice in choices if counts[choice[0]] > 1 and len(choice) > 1]
        if not twice:
            return [choice[0] for choice in choices]
        for choice in twice:
            del choice[0]


def _in_tables(scan: Scan, root: str, tables: Collection[str]) -> str:
    """The patient of the tables named on the path of a scan, closest to the scan."""
    # In BIDS the patient is the first part of the name of a file.
    subject = scan.patient.partition("_")[0] if scan.patient.startswith("sub-") else ""
    words = (scan.patient, subject, *reversed(scan.place), root)
    return next((word for word in words if word and word in tables), "")


def _trimmed(scans: Sequence[Scan]) -> list[Place]:
    """Paths without leading and trailing folders that all share; at least one folder remains.

    A folder that files are named after remains, too: HGG/P1 and LGG/P1 do not become HGG and LGG.
    """
    left = [scan.place for scan in scans]
    if len(left) < 2:
        return left
    patients = {scan.patient for scan in scans}
    for end in (0, -1):
        while min(map(len, left)) > 1 and len(shared := {place[end] for place in left}) == 1:
            if shared <= patients:
                break
            left = [place[1:] if end == 0 else place[:-1] for place in left]
    return left
