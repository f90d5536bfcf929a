"""A small brain of three tissues, with a bias field and noise, whose labels are known."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (40, 46, 34)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
BRIGHTNESS = {0: 0.0, 1: 150.0, 2: 500.0, 3: 850.0}


def labels() -> NDArray[np.uint8]:
    """Fluid outside and in the middle, grey matter, white matter; 0 in the corners."""
    half = (np.array(SHAPE) - 1) / 2
    r = np.linalg.norm((np.indices(SHAPE).transpose(1, 2, 3, 0) - half) / half, axis=-1)
    found = np.zeros(SHAPE, np.uint8)
    for outer, label in ((0.9, 1), (0.85, 2), (0.7, 3), (0.15, 1)):
        found[r < outer] = label
    return found


def scan(*, bias: float = 0.0, noise: float = 20.0) -> NDArray[np.float32]:
    """The T1-weighted scan of the labels; ``bias`` is the shading from left to right."""
    truth = labels()
    rng = np.random.default_rng(3)
    values = np.vectorize(BRIGHTNESS.get)(truth) + rng.normal(0, noise, SHAPE)
    field = np.exp(np.linspace(-bias, bias, SHAPE[0]))[:, None, None]
    return np.where(truth > 0, np.maximum(values * field, 1), 0).astype(np.float32)


def image(values: NDArray[Any]) -> Any:
    """A NIfTI image of these values."""
    return nib.Nifti1Image(values, AFFINE)
