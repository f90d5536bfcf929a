"""File names of BIDS: ``sub-01_ses-2_run-1_T1w.nii.gz`` taken apart, and what a name says about a lesion mask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

IMAGES = (".nii.gz", ".nii")

MASK_SUFFIXES = ("mask", "roi", "dseg")
"""What a lesion mask may end in: a mask, the older name of one (fMRIPrep's ``label-lesion_roi``), a label map."""

LESION_WORDS = frozenset({"lesion", "lesions", "l", "tumor", "tumour", "t1lesion"})
"""Labels and descriptions of lesion masks in use: BIDS derivatives (lesion, its abbreviation L, tumor), fMRIPrep,
ATLAS (``desc-T1lesion``); compared without case."""

LESION_INDEX = 7
"""The lesion in the generic table of tissue classes (BIDS derivatives, "Segmentations"), column ``mapping``."""

OWN_SPACES = frozenset({"t1w", "orig", "scanner"})
"""Values of ``space-`` that mean the grid of the T1-weighted scan itself."""

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_SAYS_WHAT = frozenset({"label", "desc", "seg", "atlas", "space"})
"""Entities that say what a mask shows, not which scan it was drawn on (``space`` is compared by itself)."""


@dataclass(frozen=True, slots=True)
class BidsName:
    """A name in parts: ``entities`` in their order, ``suffix`` (``T1w``) and ``extension`` (``.nii.gz``)."""

    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def stem(self) -> str:
        """The entities alone: ``sub-01_ses-2_run-1``, unique among the T1-weighted scans of a dataset."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())


def parse_name(name: str) -> BidsName | None:
    """Take a file name apart; None if it is none of BIDS."""
    base, dot, rest = name.partition(".")
    *pairs, suffix = base.split("_")
    found = [_ENTITY.fullmatch(pair) for pair in pairs]
    if not dot or not suffix.isalnum() or not all(found):
        return None
    entities = {match.group(1): match.group(2) for match in found if match is not None}
    return BidsName(entities, suffix, dot + rest) if len(entities) == len(pairs) else None


def is_scan(name: BidsName) -> bool:
    """Whether it is a raw T1-weighted scan; derivatives have a description or a label, phase images are none."""
    return (
        name.suffix == "T1w"
        and name.extension in IMAGES
        and "sub" in name.entities
        and not {"desc", "label"} & name.entities.keys()
        and name.entities.get("part", "mag") == "mag"
    )


def is_mask_like(name: BidsName) -> bool:
    """Whether it may be a lesion mask, by its ending."""
    return name.suffix in MASK_SUFFIXES and name.extension in IMAGES


def says_lesion(name: BidsName) -> bool:
    """Whether the label or the description of a mask names a lesion."""
    said = (name.entities.get("label", ""), name.entities.get("desc", ""))
    return any(word.casefold() in LESION_WORDS for word in said)


def same_space(scan: BidsName, mask: BidsName) -> bool:
    """Whether both names promise one grid."""
    ours, theirs = scan.entities.get("space"), mask.entities.get("space")
    if ours is not None:
        return theirs in (None, ours)
    return theirs is None or theirs.casefold() in OWN_SPACES


def fits(scan: BidsName, mask: BidsName) -> bool:
    """Whether a mask may have been drawn on this scan: no entity of it says another scan.

    What the scan's name says and the mask's does not is no contradiction.
    """
    which = {key: value for key, value in mask.entities.items() if key not in _SAYS_WHAT}
    if which.get("mod") == "T1w":
        del which["mod"]
    return all(_equal(scan.entities.get(key), value) for key, value in which.items())


def _equal(ours: str | None, theirs: str) -> bool:
    """Equal labels; an index may have leading zeros (``run-1``, ``run-01``)."""
    if ours is None:
        return False
    if ours.isdigit() and theirs.isdigit():
        return int(ours) == int(theirs)
    return ours == theirs
