"""A small synthetic head and masks for it, shared by the tests of the mask modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromend.data.masks import LesionMask, MaskOptions, prepare_mask
from neuromend.data.volume import Volume, volume_from_image

SHAPE = (44, 48, 40)
AFFINE = np.array([[2.0, 0, 0, -43.0], [0, 1.8, 0, -42.0], [0, 0, 2.2, -44.0], [0, 0, 0, 1.0]])
CENTRE = (22, 24, 20)


def volume(values: ArrayLike, affine: ArrayLike = AFFINE, name: str = "lesion.nii.gz") -> Volume:
    """A volume as the reader would give it for a file of this name."""
    array = np.asarray(values)
    if array.dtype in (np.dtype(bool), np.dtype(np.int64)):
        array = array.astype(np.int16)
    return replace(volume_from_image(nib.Nifti1Image(array, np.asarray(affine))), path=Path(name))


def distance_mm(centre: tuple[float, ...], radii_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """How far each voxel is from a voxel, in radii of an ellipsoid."""
    index = np.indices(SHAPE, dtype=np.float64)
    apart = (index - np.reshape(centre, (3, 1, 1, 1))) * np.reshape((2.0, 1.8, 2.2), (3, 1, 1, 1))
    return np.asarray(np.sqrt(((apart / np.reshape(radii_mm, (3, 1, 1, 1))) ** 2).sum(axis=0)))


def ball(centre: tuple[float, ...] = (27, 26, 22), radius_mm: float = 9.0) -> NDArray[np.bool_]:
    """A lesion."""
    return np.asarray(distance_mm(centre, (radius_mm,) * 3) <= 1)


def brain_voxels() -> NDArray[np.bool_]:
    """An ellipsoid with room around it on all sides."""
    return np.asarray(distance_mm(CENTRE, (34.0, 36.0, 33.0)) <= 1)


def stripped(seed: int = 1, name: str = "scan.nii.gz", **voided: Any) -> Volume:
    """A skull-stripped scan: exact zeros around the brain, and in ``voided`` if given."""
    rng = np.random.default_rng(seed)
    values = np.where(brain_voxels(), rng.uniform(60, 140, SHAPE), 0.0).astype(np.float32)
    if "at" in voided:
        values[voided["at"]] = voided.get("to", 0.0)
    return volume(values, name=name)


def whole_head(seed: int = 1, at: NDArray[np.bool_] | None = None) -> Volume:
    """A scan with noise in air, a bright scalp, a dark skull and a brain with dark ventricles."""
    rng = np.random.default_rng(seed)
    radius = distance_mm(CENTRE, (34.0, 36.0, 33.0))
    values = np.abs(rng.normal(0, 5, SHAPE))
    for outer, mean in ((1.1, 180), (1.03, 12), (0.95, 100), (0.25, 25)):
        values = np.where(radius <= outer, rng.normal(mean, 8, SHAPE), values)
    if at is not None:
        values[at] = 0
    return volume(values.astype(np.float32), name="scan.nii.gz")


def prepare(mask: Volume, image: Volume | None = None, **options: Any) -> LesionMask:
    """``prepare_mask`` with options as keywords, on the stripped scan by default."""
    return prepare_mask(mask, stripped() if image is None else image, MaskOptions(**options))


def levels(result: LesionMask) -> dict[str, str]:
    """Code -> level of the findings that are no pass."""
    return {finding.code: finding.level for finding in result.findings if finding.level != "pass"}


def message(result: LesionMask, code: str) -> str:
    """The text of the finding with this code."""
    return next(finding.message for finding in result.findings if finding.code == code)
