"""What a model has read and encoded."""

from typing import NamedTuple

from cpic.nn._entries import VolumeEntries


class Counts(NamedTuple):
    """Counts since `reset_counts`: volumes processed, entries requested, positions encoded."""

    volumes: int = 0
    asked: int = 0
    encoded: int = 0

    def plus(self, entries: VolumeEntries) -> "Counts":
        """With those of these entries added."""
        spent = len(entries.volumes), entries.asked, entries.encoded
        return Counts(*map(sum, zip(self, spent, strict=True)))
