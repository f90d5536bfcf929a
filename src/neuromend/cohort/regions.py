"""Volumes of regions over the samples of a fill: how far the numbers of a study depend on what was painted.

The segmentations are the user's own (FastSurfer, FreeSurfer, SynthSeg ... run on each sample), found by a pattern.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuromend.cohort.bids_names import parse_name
from neuromend.cohort.bids_tables import inherited, read_table
from neuromend.data.volume import read_volume
from neuromend.errors import InputError, MissingInputError, UsageError

FIELDS = ("id", "participant", "session", "sample")
"""What may stand in braces in a pattern."""

CENTRAL_PERCENT = 95.0
"""The interval holds this share of the samples; with few samples it is nearly their range."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A region's volume in ml: the mean over ``count`` samples, and the interval that holds the central 95 % of them
    (None with fewer than two)."""

    mean: float
    low: float | None
    high: float | None
    count: int


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that cannot name one file a case.

    Raises:
        UsageError: BD-07, it lacks ``{id}`` (or ``{participant}``), or has other words in braces.
    """
    words = re.findall(r"\{([^}]*)\}", pattern)
    wrong = [word for word in words if word not in FIELDS]
    if wrong or not {"id", "participant"} & set(words):
        what = f"{{{wrong[0]}}} is not known" if wrong else "it has neither {id} nor {participant}"
        raise UsageError(
            "BD-07",
            f"--segmentations '{pattern}': {what}; expected of {', '.join(f'{{{name}}}' for name in FIELDS)}",
            why="it names the segmentation of each case, or of each of its samples",
            fix="--segmentations 'fastsurfer/{id}_sample{sample}/mri/aseg.mgz'",
        )


def find_segmentations(pattern: str, id_: str, samples: int) -> list[Path]:
    """The segmentations of a case, of each sample in order, or the one of the filled scan without ``{sample}``.

    Args:
        pattern: a path with words of ``FIELDS`` in braces, and with wildcards if wanted.
        id_: of the case: ``sub-01_ses-2`` gives participant 01 and session 2, any other id only ``{id}``.
        samples: how many there are.

    Returns:
        The files; none where not a single one is there.

    Raises:
        InputError: BD-08, several files for one sample.
        MissingInputError: BD-08, some samples have a segmentation and others do not.
    """
    numbers = range(1, samples + 1) if "{sample}" in pattern else range(1)
    found = {number: _one(pattern, id_, number) for number in numbers}
    lacking = [number for number, path in found.items() if path is None]
    if lacking and len(lacking) < len(found):
        raise MissingInputError(
            "BD-08",
            f"case {id_}: no segmentation of sample {lacking[0]}, but of {len(found) - len(lacking)} others",
            why="a mean over some of the samples would be another number",
            fix="segment the other samples too",
            path=_filled_in(pattern, id_, lacking[0]),
        )
    return [path for path in found.values() if path is not None]


def region_intervals(paths: Sequence[Path], names: Mapping[int, str] | None = None) -> dict[str, Interval]:
    """Mean and interval of each region's volume.

    Args:
        paths: a segmentation a sample; a region that one of them lacks has no volume there.
        names: of the labels; else from the table beside the first file (``*_dseg.tsv``), else ``label17``.
    """
    known = names or _names_beside(paths[0])
    volumes = [label_volumes(path) for path in paths]
    labels = sorted(set().union(*volumes))
    return {
        known.get(label, f"label{label}"): summarise([volume.get(label, 0.0) for volume in volumes])
        for label in labels
    }


def summarise(values: Sequence[float]) -> Interval:
    """Mean and central interval of one number over the samples."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None, len(values))
    tail = (100 - CENTRAL_PERCENT) / 2
    low, high = np.percentile(values, (tail, 100 - tail))
    return Interval(mean, float(low), float(high), len(values))


def label_volumes(path: Path) -> dict[int, float]:
    """Volume in ml of every label but 0.

    Raises:
        InputError: BD-08, the voxels are no whole numbers; as ``read_volume``.
    """
    volume = read_volume(path)
    labels, counts = np.unique(volume.values, return_counts=True)
    if not np.all(np.isfinite(labels)) or np.any(labels != np.rint(labels)):
        raise InputError(
            "BD-08",
            "this is no segmentation: its voxels are not whole numbers",
            why="a region is where the label is",
            fix="give the label map, not a probability or the scan",
            path=path,
        )
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    return {int(label): int(count) * voxel_ml for label, count in zip(labels, counts, strict=True) if label}


def read_names(path: Path) -> dict[int, str]:
    """Names of labels: a BIDS table (columns ``index`` and ``name``), or a colour table of FreeSurfer.

    Raises:
        InputError: BD-05, it is neither.
    """
    rows = read_table(path)
    if rows and {"index", "name"} <= rows[0].keys():
        pairs = [(row["index"] or "", row["name"] or "") for row in rows]
    else:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        pairs = [(words[0], words[1]) for words in lines if len(words) >= 2 and words[0].isdigit()]
    try:
        names = {
            int(index): "".join(re.findall(r"[A-Za-z0-9-]+", name.replace(" ", "-"))) for index, name in pairs
        }
    except ValueError as error:
        raise _no_names(path, str(error)) from error
    if not names:
        raise _no_names(path, "no line names a label")
    return names


def _no_names(path: Path, what: str) -> InputError:
    return InputError(
        "BD-05",
        f"no table of labels: {what}",
        why="it names the regions of the segmentations",
        fix="give a table with tabs and the columns index and name, or FreeSurferColorLUT.txt",
        path=path,
    )


def _names_beside(path: Path) -> dict[int, str]:
    name = parse_name(path.name)
    folder = path.parent
    tables = inherited(folder, name, folder, ".tsv") if name is not None else []
    return read_names(tables[0]) if tables else {}


def _filled_in(pattern: str, id_: str, sample: int, *, literal: bool = True) -> str:
    """The pattern with its words filled in; not ``literal``: what is filled in holds no wildcards."""
    name = parse_name(f"{id_}_T1w.nii")
    entities = name.entities if name is not None else {}
    words = {
        "id": id_,
        "participant": entities.get("sub", id_),
        "session": entities.get("ses", ""),
        "sample": f"{sample:02d}",
    }
    if not literal:
        words = {name: glob.escape(word) for name, word in words.items()}
    return re.sub(r"\{(\w+)\}", lambda match: words[match.group(1)], pattern)


def _one(pattern: str, id_: str, sample: int) -> Path | None:
    """The one file of a sample; None where there is none."""
    wanted = _filled_in(pattern, id_, sample)
    if Path(wanted).is_file():
        return Path(wanted)
    paths = sorted(glob.glob(_filled_in(pattern, id_, sample, literal=False)))
    if len(paths) > 1:
        raise InputError(
            "BD-08",
            f"case {id_}: {len(paths)} files match the pattern, expected one: {paths[0]}, {paths[1]}",
            why="which of them is meant cannot be known",
            fix="make --segmentations narrower",
            path=wanted,
        )
    return Path(paths[0]) if paths else None
