"""The arrays of a case and what its row says of them: turned to RAS, cropped to the head, stored as whole numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.corpus import leaks
from neuromend.corpus.cache import DESCRIPTOR, HEALTHY, LESION, MASK_PREFIX, TISSUE, Matrix
from neuromend.corpus.layouts import Source
from neuromend.data.frame import Reorient, bounding_box
from neuromend.data.head import find_head
from neuromend.data.intensities import check_intensities, looks_skull_stripped
from neuromend.data.intensity import IntensityScale
from neuromend.data.masks import MaskOptions, prepare_mask
from neuromend.data.symmetry import midsagittal_reflection
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import InputError
from neuromend.findings import Finding

MARGIN_VOXELS = 2
"""Air kept around the head, so that it ends inside the array."""

BRIGHTEST = 8.0
"""Brighter voxels than this many times bright tissue (spikes, vessels with a coil near) are stored as this."""

SAME_GRID_VOXELS = 0.5
"""A tissue map whose corners are farther from the scan's than this is of another grid."""

Arrays = dict[str, NDArray[Any]]
Facts = dict[str, Any]
Bools = NDArray[np.bool_]


def arrays_of(source: Source, scan: Volume) -> tuple[Arrays, Facts, list[Finding]]:
    """The arrays of a case, the fields of its row that describe them, and what was noticed.

    Raises:
        InputError, GeometryError: one of the case's other files is damaged, or does not fit the scan.
    """
    return _labels(source, scan) if source.kind == "labels" else _scan(source, scan)


def _scan(source: Source, scan: Volume) -> tuple[Arrays, Facts, list[Finding]]:
    """The arrays of a scan, what the row says of them, and what was noticed."""
    findings: list[Finding] = []
    lesion = _mask(source.lesion, scan, findings, MaskOptions(labels="all", allow_empty=True))
    masks = {name: _mask(path, scan, findings, MaskOptions()) for name, path in source.masks}
    for name, hole in masks.items():
        refuse_overlap(source, name, hole, lesion)
    sick = np.zeros(scan.shape, np.bool_) if lesion is None else lesion
    findings += check_intensities(scan, sick)
    tissue = None if source.tissue is None else _tissue(source.tissue, scan)
    scale = IntensityScale.estimate(scan.values, ~sick)
    turn = Reorient.of(scan.affine)
    stripped = looks_skull_stripped(scan, sick)
    inside = _head(scan, stripped=stripped)
    for mask in (lesion, *masks.values()):
        inside = inside if mask is None else inside | mask
    box = _box(turn, inside)
    stored, stored_scale = quantise(turn.to_model(scan.values)[box], scale, stripped=stripped)
    arrays: Arrays = {HEALTHY: stored}
    if lesion is not None:
        arrays[LESION] = turn.to_model(lesion)[box]
    arrays |= {
        MASK_PREFIX + name: turn.to_model(mask)[box] for name, mask in masks.items() if mask is not None
    }
    if tissue is not None:
        arrays[TISSUE] = turn.to_model(tissue)[box]
    facts = _facts(source, scan, turn, box, stored, stored_scale)
    facts |= {"intensity_low": scale.low, "intensity_high": scale.high}
    arrays[DESCRIPTOR] = facts.pop(DESCRIPTOR)
    return arrays, facts, findings


def _labels(source: Source, scan: Volume) -> tuple[Arrays, Facts, list[Finding]]:
    """A map of tissue classes, stored as it is."""
    classes = _classes(scan)
    turn = Reorient.of(scan.affine)
    box = _box(turn, classes > 0)
    stored = turn.to_model(classes)[box]
    facts = _facts(source, scan, turn, box, stored, 1.0)
    facts |= {"intensity_low": 0.0, "intensity_high": 1.0}
    return {HEALTHY: stored, DESCRIPTOR: facts.pop(DESCRIPTOR)}, facts, []


def _facts(
    source: Source,
    scan: Volume,
    turn: Reorient,
    box: tuple[slice, ...],
    stored: NDArray[Any],
    stored_scale: float,
) -> Facts:
    """Where the cached array lies, its reflection, and its descriptors."""
    shift = np.eye(4)
    shift[:3, 3] = [part.start for part in box]
    affine = scan.affine @ turn.scan_of_model(scan.shape) @ shift
    spacing = tuple(float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
    mean, share, to_low = leaks.low_resolution(stored, spacing, stored_scale)
    to_mni = None if source.mni is None else np.linalg.inv(_matrix(source.mni)) @ affine
    if to_mni is None:
        low = midsagittal_reflection(mean, np.zeros(mean.shape, np.bool_))
        mirror = np.linalg.inv(to_low) @ low @ to_low
    else:
        mirror = np.linalg.inv(to_mni) @ np.diag([-1.0, 1, 1, 1]) @ to_mni
    return {
        "shape": stored.shape,
        "spacing_mm": spacing,
        "affine": _plain(affine),
        "stored_scale": stored_scale,
        "mirror": _plain(mirror),
        "to_mni": None if to_mni is None else _plain(to_mni),
        DESCRIPTOR: np.stack([mean, share]).astype(np.float16),
    }


def quantise(
    values: NDArray[np.floating[Any]], scale: IntensityScale, *, stripped: bool
) -> tuple[NDArray[np.unsignedinteger[Any]], float]:
    """Intensities as whole numbers: 0 in air, the second result in bright tissue.

    Whole numbers from 0 to 255 whose air is 0 stay as they are, in a byte; all else gets two bytes, steps of
    less than a four-thousandth of bright tissue. In a stripped scan nothing but air is 0.
    """
    is_bytes = scale.low == 0 and values.min() >= 0 and values.max() <= 255 and not np.any(values % 1)
    if is_bytes:
        return values.astype(np.uint8), float(scale.high)
    normal = np.clip(scale.normalise(values), 0, BRIGHTEST)
    stored_scale = float(np.floor(65535 / max(float(normal.max()), 1.0)))
    stored = np.rint(normal * np.float32(stored_scale))
    if stripped:
        air = 0.0 if scale.background is None else scale.background
        stored = np.where((values != air) & np.isfinite(values), np.maximum(stored, 1), stored)
    return np.minimum(stored, 65535).astype(np.uint16), stored_scale


def refuse_overlap(source: Source, name: str, hole: Bools | None, lesion: Bools | None) -> None:
    """Refuse a hole whose tissue is diseased.

    Raises:
        InputError: TR-11.
    """
    common = 0 if hole is None or lesion is None else int(np.count_nonzero(hole & lesion))
    if common:
        raise InputError(
            "TR-11",
            f"the mask '{name}' of healthy tissue covers {common:,} voxels of the lesion, expected none",
            why="the network would learn to paint tumour",
            fix="repair the mask, or leave it out: holes are then drawn outside the lesion",
            path=dict(source.masks)[name],
        )


def _mask(path: Path | None, scan: Volume, findings: list[Finding], options: MaskOptions) -> Bools | None:
    if path is None:
        return None
    mask = prepare_mask(read_volume(path), scan, options)
    findings += [replace(f, message=f"{path.name}: {f.message}") for f in mask.findings if f.level != "pass"]
    return mask.voxels


def _tissue(path: Path, scan: Volume) -> NDArray[np.uint8]:
    tissue = read_volume(path)
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*scan.shape, 1]
    apart = np.abs(np.linalg.inv(scan.affine) @ tissue.affine @ corners.T - corners.T).max()
    if tissue.shape != scan.shape or apart > SAME_GRID_VOXELS:
        raise InputError(
            "MA-09",
            f"the tissue map has another grid: {tissue.shape} voxels, its corners up to {apart:.3g} voxels away;"
            f" expected the scan's {scan.shape}",
            why="its classes would be read from other places of the brain",
            fix="bring it to the grid of the scan with nearest neighbour (mri_vol2vol --nearest)",
            path=path,
        )
    return _classes(tissue)


def _classes(labels: Volume) -> NDArray[np.uint8]:
    values = labels.values
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or np.any(values % 1):
        raise InputError(
            "MA-06",
            f"values from {values.min():g} to {values.max():g} are no tissue classes; expected whole numbers"
            " from 0 to 255",
            why="a class is a whole number; other values come from interpolating labels",
            fix="resample label maps with nearest neighbour",
            path=labels.path,
        )
    return np.asarray(values, np.uint8)


def _box(turn: Reorient, inside: Bools) -> tuple[slice, ...]:
    """The part of the reoriented scan that holds all that is True, with a margin; everything where nothing is."""
    turned = turn.to_model(inside)
    spans = bounding_box(turned) if inside.any() else tuple((0, n) for n in turned.shape)
    return tuple(
        slice(max(low - MARGIN_VOXELS, 0), min(high + MARGIN_VOXELS, size))
        for (low, high), size in zip(spans, turned.shape, strict=True)
    )


def _head(scan: Volume, *, stripped: bool) -> Bools:
    """What must be cached: the tissue of a stripped scan, of others the box around the head."""
    if stripped:
        return np.asarray(scan.values != 0)
    head = find_head(scan, np.zeros(scan.shape, np.bool_))
    return np.zeros(scan.shape, np.bool_) if head is None else head.box(scan.shape)


def _matrix(path: Path) -> NDArray[np.float64]:
    try:
        matrix = np.loadtxt(path, dtype=np.float64, ndmin=2)
        is_affine = matrix.shape == (4, 4) and abs(np.linalg.det(matrix)) > 1e-6
    except (OSError, ValueError, UnicodeDecodeError):
        is_affine = False
    if not is_affine:
        raise InputError(
            "TR-06",
            "expected a 4x4 matrix, MNI152 mm to the scan's mm, four numbers a line",
            why="lesions of the atlas are planted by it",
            fix="write it as text, or leave the column mni empty",
            path=path,
        )
    return matrix


def _plain(matrix: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(float(number) for number in line) for line in matrix)
