"""Synthetic brains whose folds differ by seed, and the files that they may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SHAPE = (40, 48, 42)
MM = 4.0


def brain(seed: int) -> NDArray[np.int16]:
    """A stripped brain on a grid of 4 mm: an ellipsoid of 16 x 19 x 17 cm with folds of about 2 cm, 0 around it."""
    rng = np.random.default_rng(seed)
    folds = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.2)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.85
    return np.where(inside, np.clip(600 + 200 * folds / folds.std(), 100, 1200), 0).astype(np.int16)


def ball(centre: tuple[int, int, int], radius: float) -> NDArray[np.uint8]:
    """A mask on the same grid."""
    grid = np.indices(SHAPE) - np.array(centre)[:, None, None, None]
    return ((grid**2).sum(axis=0) <= radius**2).astype(np.uint8)


def affine(mm: float = MM) -> NDArray[np.float64]:
    """RAS, the origin near the middle."""
    matrix = np.diag([mm, mm, mm, 1.0])
    matrix[:3, 3] = [-80, -96, -84]
    return matrix


def save(path: Path, voxels: NDArray[Any], matrix: NDArray[np.float64] | None = None) -> Path:
    """Write a NIfTI file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine() if matrix is None else matrix), path)
    return path


def brats_case(folder: Path, name: str, seed: int, *, healthy: bool = True, lesion: bool = True) -> Path:
    """A case of the challenge: t1n, and if wanted its masks."""
    case = folder / name
    save(case / f"{name}-t1n.nii.gz", brain(seed))
    if healthy:
        save(case / f"{name}-mask-healthy.nii.gz", ball((12, 24, 20), 3))
    if lesion:
        save(case / f"{name}-mask-unhealthy.nii.gz", ball((28, 24, 20), 4))
    return case
