"""What the name of a scan says: its contrast, and whose it is.

The names are those of BraTS 2020 and 2021 (`NAME_t1ce`), of BraTS since 2023 (`NAME-t1c`), of BIDS
(`sub-1_ce-gd_T1w`), and words that hospitals write between the others. Nothing is guessed from
voxels.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

OTHER = "other"
# What a word of a name stands for; the last ones are of the same patients in the same folders.
_MEANINGS = {
    "t1": "t1 t1w t1n",
    "t1ce": "t1ce t1c t1gd t1post t1wce",
    "t2": "t2 t2w",
    "flair": "flair t2f t2flair",
    "ct": "ct",
    "seg": "segm roi label labels",
    OTHER: "dwi dti adc fa md bold sbref epi asl cbf swi pd pdw t2star t2starw t2s pet mra angio "
    "unit1 inplanet2 magnitude phase",
}
_WORDS = {word: meaning for meaning, words in _MEANINGS.items() for word in words.split()}
# As in "dseg", "brainmask" or "lungmask".
_LABEL_ENDS = ("seg", "segmentation", "mask", "masks")
# Of a T1, that a contrast agent was given.
_AGENT = {"ce", "gd", "gad", "gadolinium", "post", "postcontrast", "contrast"}
# How a scan was taken, in BIDS: no part of whose it is.
_ENTITIES = re.compile(r"(?:^|_)(acq|ce|rec|desc|space)-[a-z0-9]+", re.IGNORECASE)
# A word and the sign in front of it; or whose a scan is and when it was taken, in BIDS: "ses-post"
# and "ses-T2" are times.
_PARTS = re.compile(
    r"(?:^|_)(?:sub|ses|run|task)-[a-z0-9]+|[-_. ]?(?P<word>[^-_. ]+)", re.IGNORECASE
)


class Named(NamedTuple):
    """What a name says.

    Attributes:
        contrast: one of those the model knows by this name, "seg", or "other" for something that
            is none of them; empty where the name does not say.
        patient: the rest of the name.
    """

    contrast: str
    patient: str


def read_name(stem: str, contrasts: Sequence[str]) -> Named:
    """Take the contrast out of the name of a file or folder.

    Args:
        stem: the name without the ending of a scan.
        contrasts: of a model; that of lungs knows no T1, which may be a time there.

    Example:
        >>> read_name("BraTS-GLI-00000-000-t1c", ["t1"])
        Named(contrast='t1ce', patient='BraTS-GLI-00000-000')
        >>> read_name("sub-01_ce-gd_T1w", ["t1"])
        Named(contrast='t1ce', patient='sub-01')
        >>> read_name("P7", ["ct"])
        Named(contrast='', patient='P7')
    """
    plain = _ENTITIES.sub("", stem)
    words = {(part["word"] or "").casefold() for part in _PARTS.finditer(plain)}
    meanings = {_meaning(word, contrasts) for word in words} - {""}
    agent = "ce" in map(str.casefold, _ENTITIES.findall(stem)) or not words.isdisjoint(_AGENT)
    contrast = _agreed(meanings, agent)
    if not contrast:
        return Named("", stem)

    def kept(part: re.Match) -> str:
        word = (part["word"] or "").casefold()
        said = _meaning(word, contrasts) or (contrast == "t1ce" and word in _AGENT)
        return "" if said else part.group()

    return Named(contrast, _PARTS.sub(kept, plain).strip("-_. "))


def _meaning(word: str, contrasts: Sequence[str]) -> str:
    """The contrast that one word stands for, or nothing."""
    meaning = "seg" if word.endswith(_LABEL_ENDS) else _WORDS.get(word, "")
    known = "ct" not in contrasts or meaning in (*contrasts, "seg", OTHER)
    return meaning if known else ""


def _agreed(kinds: set[str], agent: bool) -> str:
    """What all words of a name say together; several contrasts are none that is known."""
    if "seg" in kinds:
        return "seg"
    if kinds == {"t2", "flair"}:
        return "flair"
    if kinds == {"t1"}:
        return "t1ce" if agent else "t1"
    return OTHER if len(kinds) > 1 else next(iter(kinds), "")
