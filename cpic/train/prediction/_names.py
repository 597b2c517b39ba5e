"""Contrast and patient from the name of a scan.

The conventions are those of BraTS 2020 and 2021 (`NAME_t1ce`), of BraTS since 2023 (`NAME-t1c`),
of BIDS (`sub-1_ce-gd_T1w`), and words that hospitals use within names. Nothing is inferred from
voxels.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

OTHER = "other"
# Meanings of words in names; the last ones occur for the same patients in the same folders.
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
# Words that mark a T1 scan as taken with a contrast agent.
_AGENT = {"ce", "gd", "gad", "gadolinium", "post", "postcontrast", "contrast"}
# BIDS entities that describe the acquisition, not the patient.
_ENTITIES = re.compile(r"(?:^|_)(acq|ce|rec|desc|space)-[a-z0-9]+", re.IGNORECASE)
# A word and the character before it; or a BIDS entity of patient or session, since "ses-post" and
# "ses-T2" are times.
_PARTS = re.compile(
    r"(?:^|_)(?:sub|ses|run|task)-[a-z0-9]+|[-_. ]?(?P<word>[^-_. ]+)", re.IGNORECASE
)


class Named(NamedTuple):
    """The content of a name.

    Attributes:
        contrast: One of the contrasts of the model, "seg", or "other" for a known word that is none
            of them; empty if the name has no such word.
        patient: The remaining part of the name.
    """

    contrast: str
    patient: str


def read_name(stem: str, contrasts: Sequence[str]) -> Named:
    """Split the contrast off the name of a file or folder.

    Args:
        stem: The name without the extension of a scan.
        contrasts: Contrasts of the model; a model of lungs knows no T1, which may be a time there.

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
    """The contrast that a word stands for, or an empty string."""
    meaning = "seg" if word.endswith(_LABEL_ENDS) else _WORDS.get(word, "")
    known = "ct" not in contrasts or meaning in (*contrasts, "seg", OTHER)
    return meaning if known else ""


def _agreed(kinds: set[str], agent: bool) -> str:
    """The contrast that all words of a name agree on; several different contrasts are "other"."""
    if "seg" in kinds:
        return "seg"
    if kinds == {"t2", "flair"}:
        return "flair"
    if kinds == {"t1"}:
        return "t1ce" if agent else "t1"
    return OTHER if len(kinds) > 1 else next(iter(kinds), "")
