"""Put the lesion back into a segmentation that was made on a filled scan.

FreeSurfer and its kin label the invented tissue like any other. For volumes, and for honesty, the lesion's voxels get a
label of their own; every other voxel of the segmentation stays as it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuromend.data.atomic import OutputSet
from neuromend.data.mask_grid import check_pair, onto_image_grid
from neuromend.data.mask_values import Labels, binarise, empty_mask, voxel_ml
from neuromend.data.outputs import check_output
from neuromend.data.splice import check_suffix, files_of, splice, verify_header_half, verify_identical_outside
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError
from neuromend.findings import Finding

LESION_LABEL = 99
"""By default; aseg and aparc of FreeSurfer do not use it."""


@dataclass(frozen=True, eq=False)
class Relabelled:
    """What was done.

    Attributes:
        outputs: the files written (two for a pair).
        label: of the lesion's voxels.
        volume_ml: of the lesion in the segmentation.
        replaced: millilitres that the lesion took from each label of the segmentation, largest first.
        findings: what was noticed on the way.
    """

    outputs: tuple[Path, ...]
    label: int
    volume_ml: float
    replaced: dict[int, float]
    findings: tuple[Finding, ...]


def relabel(
    segmentation: str | Path,
    mask: str | Path,
    out: str | Path,
    *,
    label: int = LESION_LABEL,
    labels: Sequence[int] | Literal["all"] | None = None,
    threshold: float | None = None,
    resample_mask: bool = False,
    force_pair: bool = False,
    overwrite: bool = False,
) -> Relabelled:
    """Give the voxels of the lesion their own label.

    Args:
        segmentation: a label map, NIfTI or MGH, on any grid.
        mask: the lesion mask that was filled.
        out: the file to write, of the segmentation's format.
        label: of the lesion.
        labels, threshold: how to read the mask, as for ``fill``.
        resample_mask: accept a mask on another grid (FreeSurfer's conformed space): nearest neighbour in world space.
        force_pair: accept file names of different subjects.
        overwrite: replace output that is there.

    Raises:
        InputError: RL-01 the segmentation is no label map, RL-02 its type cannot hold the label, RL-03 the label means
            something else in it; MA-01 to MA-07, MA-17, MA-18 for the mask.
        GeometryError: MA-09, MA-10, MA-12 or IN-22, the grids do not fit.
        OutputError, OutputPermissionError, StorageError: nothing half-written is left.
    """
    drawn, target = read_volume(mask), Path(out).expanduser().absolute()
    chosen: Labels = labels if labels is None or labels == "all" else tuple(int(n) for n in labels)
    seg = read_volume(segmentation)
    check_suffix(seg, target)
    findings = [*check_output(target, [segmentation, mask], overwrite=overwrite, needed_bytes=seg.raw.size)]
    findings += check_pair(drawn, seg, force_pair=force_pair)
    selected, noted = binarise(drawn, labels=chosen, threshold=threshold, invert=False)
    findings += noted
    if not selected.any():
        raise empty_mask(drawn, labels=chosen, threshold=threshold, invert=False)
    lesion, noted = onto_image_grid(selected, drawn, seg, resample=resample_mask)
    findings += noted
    _check_labels(seg, lesion, label)

    spliced = splice(seg, np.full(seg.shape, float(label)), lesion)
    *header, (voxels, payload) = files_of(spliced, target)  # the header half of a pair, if it is one
    with OutputSet() as outputs:
        for path, half in header:
            outputs.add(path, half, verify=lambda written: verify_header_half(seg, written))
        outputs.add(voxels, payload, verify=lambda written: verify_identical_outside(seg, written, lesion))
        outputs.publish()
    unit = voxel_ml(seg.affine)
    taken, counts = np.unique(seg.values[lesion].astype(np.int64), return_counts=True)
    order = np.argsort(-counts)
    replaced = {int(taken[i]): float(counts[i] * unit) for i in order if taken[i] != label}
    volume = float(np.count_nonzero(lesion) * unit)
    return Relabelled((*(path for path, _ in header), voxels), label, volume, replaced, tuple(findings))


def _check_labels(seg: Volume, lesion: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], label: int) -> None:
    """The segmentation holds whole numbers, can hold the label, and does not use it for something else."""
    fraction = ~np.isfinite(seg.values) | (seg.values != np.rint(seg.values))
    if fraction.any():
        raise InputError(
            "RL-01",
            f"{np.count_nonzero(fraction):,} voxels are no whole numbers; expected a label map",
            why="a lesion label has no meaning among intensities or probabilities",
            fix="give the segmentation (aseg.mgz, aparc+aseg.mgz, a dseg file), not the scan",
            path=seg.path,
        )
    stored = (label - seg.inter) / seg.slope
    kind: np.dtype[Any] = seg.stored_dtype
    whole = kind.kind in "iu"
    most = int(np.iinfo(kind).max) if whole else int(2 ** (np.finfo(kind).nmant + 1))
    if label < 1 or stored > most or (whole and stored != round(stored)):
        raise InputError(
            "RL-02",
            f"label {label} cannot be stored as {kind.name}; expected a whole number from 1 to {most}",
            why="the output keeps the segmentation's own type, so that no other voxel changes",
            fix="choose a smaller number with --label, or convert the segmentation first (mri_convert -odt int)",
            path=seg.path,
        )
    used = int(np.count_nonzero((seg.values == label) & ~lesion))
    if used:
        free = next(n for n in range(1, 10_000) if not (seg.values == n).any())
        raise InputError(
            "RL-03",
            f"label {label} is used already, by {used:,} voxels outside the mask",
            why="lesion and that structure could not be told apart afterwards",
            fix=f"choose a free number: --label {free}",
            path=seg.path,
        )
