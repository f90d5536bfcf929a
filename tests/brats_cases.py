"""Small case folders with the names of the BraTS inpainting challenge, all synthetic."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (20, 22, 24)
AFFINE = np.array([[-3.0, 0, 0, 10], [0, -3.0, 0, 239], [0, 0, 3.0, -5], [0, 0, 0, 1]])
IDS = ("BraTS-GLI-00003-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000")


def brain(seed: int = 0) -> NDArray[np.int16]:
    """A box of textured tissue, 300 to 1500, in air."""
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE, np.int16)
    inner = image[3:-3, 3:-3, 3:-3]
    inner[...] = 900 + 200 * rng.standard_normal(inner.shape).clip(-3, 3)
    return image


def hole() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[5:9, 6:11, 7:13] = True
    return mask


def tumour() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[13:16, 13:17, 14:19] = True
    return mask


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def add_case(truths: Path, name: str, seed: int = 0) -> NDArray[np.int16]:
    """Write t1n, t1n-voided, mask, mask-healthy and seg of one case; returns the true scan."""
    healthy, union = brain(seed), hole() | tumour()
    folder = truths / name
    save(folder / f"{name}-t1n.nii.gz", healthy)
    save(folder / f"{name}-t1n-voided.nii.gz", np.where(union, 0, healthy).astype(np.float32))
    save(folder / f"{name}-mask.nii.gz", union.astype(np.float32))
    save(folder / f"{name}-mask-healthy.nii.gz", hole().astype(np.uint8))
    save(folder / f"{name}-seg.nii.gz", tumour().astype(np.int16) * 3)
    return healthy


def add_prediction(predictions: Path, name: str, array: NDArray[np.generic], suffix: str = ".nii.gz") -> Path:
    return save(predictions / f"{name}-t1n-inference{suffix}", array)
