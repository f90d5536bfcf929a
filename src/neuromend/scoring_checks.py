"""What makes a score meaningless is refused here; what only may is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from neuromend.data.mask_grid import SAME_GRID_MM, SAME_GRID_VOXELS
from neuromend.data.volume import Volume
from neuromend.errors import GeometryError, InputError
from neuromend.evaluate import EvaluationError
from neuromend.findings import Finding
from neuromend.metrics import Mask, intensity_limits
from neuromend.metrics import Volume as Voxels
from neuromend.pairing import Pair
from neuromend.sites import hole_site

OTHER_UNITS = 10.0
"""A fill brighter or darker than the truth by this factor is in other units rather than wrong."""


def check_grid(volume: Volume, truth: Volume, role: str) -> list[Finding]:
    """Refuse a volume on another grid than the truth's (MA-09, MA-10); report one that is slightly off."""
    why = "a score compares voxel with voxel, so all files of a case must lie on one grid"
    home = truth.path.name if truth.path else "the truth"
    if volume.shape != truth.shape:
        sizes = ["x".join(map(str, each.shape)) for each in (volume, truth)]
        raise GeometryError(
            "MA-09",
            f"{role}: {sizes[0]} voxels, expected {sizes[1]} as in {home}",
            why=why,
            fix="write it on the grid of the true scan",
            path=volume.path,
        )
    ends = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in truth.shape))])
    gap_mm = float(np.linalg.norm(ends @ (volume.affine - truth.affine)[:3].T, axis=1).max())
    if gap_mm > SAME_GRID_VOXELS * min(truth.spacing_mm):
        raise GeometryError(
            "MA-10",
            f"{role}: its affine puts a corner {gap_mm:.4g} mm from where {home} has it,"
            f" expected at most {SAME_GRID_VOXELS} voxel",
            why=why,
            fix="save a result with the affine of the scan; if only the header is wrong, copy the truth's: "
            "fslcpgeom TRUTH FILE",
            path=volume.path,
        )
    if gap_mm > SAME_GRID_MM:
        message = f"{role}: the affine differs from the truth's by {gap_mm:.3g} mm; compared voxel by voxel"
        return [Finding("MA-10", "warning", message)]
    return []


def check_hole(pair: Pair, hole: Mask) -> None:
    """Refuse an empty mask (MA-01)."""
    if not hole.any():
        raise InputError(
            "MA-01",
            "the mask is empty: 0 voxels are to be scored",
            why="every score is a mean over the voxels of the mask",
            fix="give the mask of the healthy tissue (the challenge: mask-healthy)",
            path=pair.mask,
        )


def check_finite(volume: Volume, hole: Mask, what: str) -> None:
    """Refuse voxels of the hole that are NaN or infinite (IN-15)."""
    broken = int(np.count_nonzero(~np.isfinite(volume.values[hole])))
    if broken:
        raise InputError(
            "IN-15",
            f"{what} has {broken} voxels in the mask that are not finite",
            why="one NaN makes every mean of the case NaN",
            fix="repair the file, or leave the case out",
            path=volume.path,
        )


def check_voided(pair: Pair, voided: Voxels, hole: Mask) -> None:
    """Refuse a voided scan that shows the hidden tissue (TR-12)."""
    shown = int(np.count_nonzero(voided[hole]))
    if shown:
        raise EvaluationError(
            "TR-12",
            f"the voided scan is not 0 in {shown} of {int(hole.sum())} voxels of the mask",
            why="the model was shown the tissue that it should invent, or this is the mask of another case",
            fix="check which scan the model was given; without a voided scan, the truth with the mask set to 0"
            " gives the limits of the scores",
            path=pair.voided,
        )


def check_range(pair: Pair, voided: Voxels) -> None:
    """Refuse a voided scan whose percentiles give no range to scale by (EV-07)."""
    low, high = intensity_limits(voided)
    if not high > low:
        raise InputError(
            "EV-07",
            f"the voided scan has no range: its 0.5 and 99.5 percentiles are {low:g} and {high:g}",
            why="the challenge scales intensities by these percentiles, background included",
            fix="check the scan: nearly all of it is background, or it has voxels that are not finite",
            path=pair.voided or pair.truth,
        )


def check_tumour(pair: Pair, tumour: Voxels, hole: Mask) -> None:
    """Refuse a mask that covers tissue of the tumour (TR-11)."""
    sick = int(np.count_nonzero(tumour[hole]))
    if sick:
        raise InputError(
            "TR-11",
            f"{sick} of {int(hole.sum())} voxels of the mask are tumour by the segmentation of the case",
            why="there the true scan shows the tumour, so a healthy fill would be scored as wrong",
            fix="give the mask of healthy tissue (mask-healthy), not the union mask",
            path=pair.mask,
        )


def site_in(pair: Pair, tissue: Volume, hole: Mask) -> str:
    """The site of the hole; a tissue map without a known class near it is refused (EV-08)."""
    site = hole_site(hole, np.rint(tissue.values), tissue.spacing_mm)
    if site is None:
        raise InputError(
            "EV-08",
            "the tissue map has none of the classes 1 to 7 and 9 near the hole",
            why="the site of the hole is read from it",
            fix="check the map; docs/how-to/evaluate.md lists the classes",
            path=pair.tissue,
        )
    return site


def doubts(prediction: Volume, truth: Volume, hole: Mask) -> Iterator[Finding]:
    """What is no error but casts doubt on a score."""
    filled, true = prediction.values[hole], truth.values[hole]
    if np.array_equal(filled, true):
        message = "the prediction equals the truth in every voxel of the mask; was the model shown it?"
        yield Finding("TR-12", "warning", message)
    beyond = int(np.count_nonzero(~np.isfinite(prediction.values)))
    if beyond:
        message = (
            f"{beyond} voxels outside the mask are not finite; the challenge's own package gives NaN here"
        )
        yield Finding("IN-15", "warning", message)
    bright, expected = (float(np.percentile(np.abs(values), 99)) for values in (filled, true))
    if bright * OTHER_UNITS < expected or bright > OTHER_UNITS * expected:
        message = f"the fill reaches {bright:.4g} and the truth {expected:.4g}; is the fill in other units?"
        yield Finding("EV-09", "warning", message)
