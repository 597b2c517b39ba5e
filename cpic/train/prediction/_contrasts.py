"""Which contrast a scan is, by its name.

The names are those of BraTS 2020 and 2021 (`NAME_t1ce`), of BraTS since 2023 (`NAME-t1c`), of BIDS
(`sub-1_ce-gd_T1w`), and words that hospitals write between the others. Nothing is guessed from
voxels.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_WORDS = {
    "t1": ("t1", "t1w", "t1n"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post", "t1wce"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "t2flair"),
    "ct": ("ct",),
}
_LABELS = ("segm", "roi", "label", "labels")
# As in "dseg", "brainmask" or "lungmask".
_LABEL_ENDS = ("seg", "segmentation", "mask", "masks")
# Of the same persons in the same folders, and none of the above.
_OTHERS = (
    *("dwi", "dti", "adc", "fa", "md", "bold", "sbref", "epi", "asl", "cbf", "swi", "pd", "pdw"),
    *(
        "t2star",
        "t2starw",
        "t2s",
        "pet",
        "mra",
        "angio",
        "unit1",
        "inplanet2",
        "magnitude",
        "phase",
    ),
)
# Of a T1, that a contrast agent was given.
_AGENT = {"ce", "gd", "gad", "gadolinium", "post", "postcontrast", "contrast"}
_WITH_AGENT = re.compile(r"(?:^|_)ce-", re.IGNORECASE)
# Whose a scan is and when it was taken, in BIDS: "ses-post" and "ses-T2" are times.
_WHOSE = re.compile(r"(?:^|_)(?:sub|ses|run|task)-[a-z0-9]+", re.IGNORECASE)
# How a scan was taken, in BIDS: no part of whose it is.
_ENTITIES = re.compile(r"(?:^|_)(?:acq|ce|rec|desc|space)-[a-z0-9]+", re.IGNORECASE)
OTHER = "other"


class Named(NamedTuple):
    """What a name says.

    Attributes:
        contrast: one of those the model knows by this name, "seg", or "other" for something that
            is none of them; empty where the name does not say.
        person: the rest of the name.
    """

    contrast: str
    person: str


def read_name(stem: str, contrasts: Sequence[str]) -> Named:
    """Take the contrast out of the name of a file or folder.

    Args:
        stem: the name without the ending of a scan.
        contrasts: of a model; that of lungs knows no T1, which may be a time there.

    Example:
        >>> read_name("BraTS-GLI-00000-000-t1c", ["t1"])
        Named(contrast='t1ce', person='BraTS-GLI-00000-000')
        >>> read_name("sub-01_ce-gd_T1w", ["t1"])
        Named(contrast='t1ce', person='sub-01')
        >>> read_name("P7", ["ct"])
        Named(contrast='', person='P7')
    """
    plain = _ENTITIES.sub("", stem)
    parts = list(re.finditer(r"[^-_. ]+", plain))
    named = [part.span() for part in _WHOSE.finditer(plain)]
    words = [
        "" if any(a <= part.start() < b for a, b in named) else part.group().casefold()
        for part in parts
    ]
    meanings = [_meaning(word, contrasts) for word in words]
    agent = plain != stem and _WITH_AGENT.search(stem) is not None
    chosen = _agreed(set(meanings) - {""}, agent or not _AGENT.isdisjoint(words))
    if not chosen:
        return Named("", stem)
    taken = [
        bool(meaning) or (chosen == "t1ce" and word in _AGENT)
        for word, meaning in zip(words, meanings, strict=True)
    ]
    return Named(chosen, _without(plain, parts, taken))


def _meaning(word: str, contrasts: Sequence[str]) -> str:
    """The contrast that one word stands for, or nothing."""
    for contrast, words in _WORDS.items():
        if word in words:
            return contrast if contrast in contrasts or "ct" not in contrasts else ""
    if word in _LABELS or word.endswith(_LABEL_ENDS):
        return "seg"
    return OTHER if word in _OTHERS else ""


def _agreed(kinds: set[str], agent: bool) -> str:
    """What all words of a name say together; several contrasts are none that is known."""
    if "seg" in kinds:
        return "seg"
    if kinds == {"t2", "flair"}:
        return "flair"
    if kinds == {"t1"}:
        return "t1ce" if agent else "t1"
    return OTHER if len(kinds) > 1 else next(iter(kinds), "")


def _without(stem: str, parts: Sequence[re.Match], taken: Sequence[bool]) -> str:
    """A name without some of its words and the separators in front of them."""
    pieces, end = [], 0
    for part, drop in zip(parts, taken, strict=True):
        if drop:
            pieces.append(stem[end : max(part.start() - 1, end)])
            end = part.end()
    return "".join([*pieces, stem[end:]]).strip("-_. ")
