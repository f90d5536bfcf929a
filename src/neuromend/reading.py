"""The first step of the main job: read a scan and its lesion mask, and list all that was noticed about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuromend.data.header import TOLERANCE_MM
from neuromend.data.intensities import check_intensities, looks_skull_stripped
from neuromend.data.masks import LesionMask, MaskOptions, prepare_mask
from neuromend.data.trained_range import check_trained_range
from neuromend.data.volume import MAX_VOXELS, Volume, read_volume, volume_from_image
from neuromend.errors import GeometryError
from neuromend.findings import Finding
from neuromend.manifest import TrainedRange

Source = Any
"""A path (str or Path) or a nibabel image."""

ASSUMED_ORIENTATION = "RAS"
"""For files that tell nothing: how the NIfTI standard (nifti1.h, method 1) reads their axes."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How the scan is to be read: the arguments of ``fill`` with the same names."""

    volume: int | None = None
    assume_orientation: str | None = None
    max_voxels: int = MAX_VOXELS
    modality: str | None = None


def load_pair(
    image: Source, mask: Source, options: MaskOptions, reading: ReadOptions
) -> tuple[Volume, LesionMask, Volume]:
    """Read the scan and the mask; the mask comes back on the scan's grid, and as it was read.

    Two files that both tell nothing about their axes are accepted, with a warning, if they have one shape and
    voxel size: then every voxel of the mask is a voxel of the scan, wherever that is (IN-22).

    Raises:
        NeuromendError: a file cannot be read, the mask is none, or the two do not belong together.
    """
    try:
        scan, drawn = _read(image, reading.volume, reading), _read(mask, None, reading)
    except GeometryError as refusal:
        if refusal.code != "IN-22" or reading.assume_orientation is not None:
            raise
        scan, drawn = _read_without_world(image, mask, reading, refusal)
    # What both files have in common is said once; the rest says whose it is.
    noticed = [noted for noted in drawn.findings if noted not in scan.findings]
    drawn = replace(drawn, findings=tuple(replace(f, message=f"mask: {f.message}") for f in noticed))
    return scan, prepare_mask(drawn, scan, options), drawn


def findings_of(
    scan: Volume, lesion: LesionMask, *, modality: str | None, trained: TrainedRange | None
) -> list[Finding]:
    """Everything that was noticed about a pair.

    Args:
        scan, lesion: from ``load_pair``.
        modality: the contrast that the user states.
        trained: what the model was trained on; None where there is no model to compare with.

    Raises:
        InputError: IN-15 or IN-16, there is no image around the lesion.
    """
    hole = lesion.voxels
    if trained is None:
        return [*scan.findings, *check_intensities(scan, hole, modality=modality), *lesion.findings]
    return [
        *scan.findings,
        *check_intensities(scan, hole, modality=modality, trained=trained.modalities),
        *check_trained_range(scan, trained, skull_stripped=looks_skull_stripped(scan, hole)),
        *lesion.findings,
    ]


def _read(source: Source, volume: int | None, reading: ReadOptions) -> Volume:
    if isinstance(source, str | Path):
        return read_volume(
            source,
            max_voxels=reading.max_voxels,
            volume_index=volume,
            assume_orientation=reading.assume_orientation,
        )
    return volume_from_image(source, volume_index=volume, assume_orientation=reading.assume_orientation)


def _read_without_world(
    image: Source, mask: Source, reading: ReadOptions, refusal: GeometryError
) -> tuple[Volume, Volume]:
    """Read a pair of which one file at least was refused because it does not tell where its axes point to."""
    assumed = replace(reading, assume_orientation=ASSUMED_ORIENTATION)
    scan, drawn = _read(image, reading.volume, assumed), _read(mask, None, assumed)
    if scan.has_world or drawn.has_world or scan.shape != drawn.shape:
        return scan, drawn  # refused where the grids are compared, with what to do about it
    if not np.allclose(scan.spacing_mm, drawn.spacing_mm, rtol=0, atol=TOLERANCE_MM):
        raise refusal
    message = (
        "The scan does not say where its axes point to, nor does the mask, which has its shape and voxel size."
        f" {ASSUMED_ORIENTATION} was assumed: left and right CANNOT BE KNOWN, and the letters in the picture"
        " and the report may be wrong. If you know, say so, for example: --assume-orientation LAS"
    )
    return replace(scan, findings=(*scan.findings, Finding("IN-22", "warning", message))), drawn
