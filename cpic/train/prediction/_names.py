"""What the scans of a folder are called: short names, one of each scan."""

import collections
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

Place = tuple[str, ...]


class Whose(NamedTuple):
    """What is known of whose a scan is.

    Attributes:
        place: folders on the way to it, and its own name where it shares the folder.
        person: what its files are called besides their contrast.
        file: its path in the folder; no other scan has it.
    """

    place: Place
    person: str
    file: str


def name_scans(scans: Sequence[Whose], root: str, tables: Collection[str]) -> list[str]:
    """A name for each scan, all of them different.

    A person of a table is called so there; who has several scans gets `PERSON/PLACE`. Others have
    the name of the folder that their files are named after, or else the folders on the way, less
    what all have in common.

    Args:
        scans: of all persons.
        root: name of the folder that was searched.
        tables: names of persons in tables.
    """
    ways = collections.Counter(word for scan in scans for word in {*scan.place})
    trimmed = _trimmed([scan.place for scan in scans])
    choices = [
        _choices(scan, _in_tables(scan, root, tables), "/".join(short) or root, ways)
        for scan, short in zip(scans, trimmed, strict=True)
    ]
    while True:
        counts = collections.Counter(choice[0] for choice in choices)
        twice = [choice for choice in choices if counts[choice[0]] > 1 and len(choice) > 1]
        if not twice:
            return [choice[0] for choice in choices]
        for choice in twice:
            del choice[0]


def _choices(scan: Whose, told: str, short: str, ways: Mapping[str, int]) -> list[str]:
    """Names of a scan, the best first, the last one its own whatever others are called."""
    if told:
        # What follows on the slash is not looked up in tables.
        below = scan.place[scan.place.index(told) + 1 :] if told in scan.place else ()
        return [told, "/".join((told, *below)), f"{told}/{short}", f"{told}/{scan.file}"]
    return [scan.person, short, scan.file] if ways[scan.person] == 1 else [short, scan.file]


def _in_tables(scan: Whose, root: str, tables: Collection[str]) -> str:
    """The person of the tables whose name is on the way, the nearest to the scan."""
    # In BIDS the person is the first part of the name of a file.
    subject = scan.person.partition("_")[0] if scan.person.startswith("sub-") else ""
    words = (scan.person, subject, *reversed(scan.place), root)
    return next((word for word in words if word and word in tables), "")


def _trimmed(places: Sequence[Place]) -> list[Place]:
    """Places without the folders at both ends that all share; at least one stays."""
    left = list(places)
    if len(left) < 2:
        return left
    for end in (0, -1):
        while min(map(len, left)) > 1 and len({place[end] for place in left}) == 1:
            left = [place[1:] if end == 0 else place[:-1] for place in left]
    return left
