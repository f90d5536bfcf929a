"""The midsagittal plane of a brain, and the image reflected at it.

Axes are RAS, so the plane is near x = const. It is found by maximising the correlation of the
image with its own reflection on a coarse grid, looking only at voxels outside the mask on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

COARSE_VOXELS = 40
"""The search runs on a grid whose longest side has about this many voxels."""

MAX_TILT = 0.35
"""Largest yaw or roll considered, in radians (20 degrees)."""


def mirrored(
    image: NDArray[np.float32], mask: NDArray[np.bool_], plane: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reflect an image at its midsagittal plane.

    Args:
        image: (x, y, z) in RAS order, isotropic; not read inside ``mask``.
        mask: (x, y, z) True where the image is unknown.
        plane: a 4x4 reflection in voxel coordinates; estimated if not given.

    Returns:
        The reflected image (0 where unknown) and where it is known.
    """
    matrix = midsagittal_reflection(image, mask) if plane is None else plane
    known = (~mask).astype(np.float32)
    weight = ndimage.affine_transform(known, matrix[:3, :3], matrix[:3, 3], order=1, cval=0.0)
    value = ndimage.affine_transform(
        np.where(mask, np.float32(0), image), matrix[:3, :3], matrix[:3, 3], order=1, cval=0.0
    )
    valid = weight > 0.999
    return np.where(valid, value, 0).astype(np.float32), valid


def midsagittal_reflection(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Estimate the reflection at the midsagittal plane, (4, 4) in voxel coordinates (its own inverse).

    Returns the reflection at the foreground's centre if nothing better is found (an empty image, say).
    """
    factor = max(1, round(max(image.shape) / COARSE_VOXELS))
    known = (~mask).astype(np.float32)
    weight = _shrink(known, factor)
    coarse = _shrink(np.where(mask, np.float32(0), image), factor) / np.maximum(weight, 0.25)
    usable = (weight > 0.5).astype(np.float32)
    bright = coarse * usable
    total = float(np.maximum(bright, 0).sum())
    if total <= 0:
        return reflection((image.shape[0] - 1) / 2, 0.0, 0.0, image.shape)
    grid = np.arange(coarse.shape[0], dtype=np.float64)
    centre = float((np.maximum(bright, 0).sum((1, 2)) * grid).sum() / total)

    def cost(parameters: NDArray[np.float64]) -> float:
        offset, yaw, roll = parameters
        if abs(yaw) > MAX_TILT or abs(roll) > MAX_TILT:
            return float(1.0 + abs(yaw) + abs(roll))
        matrix = reflection(offset, yaw, roll, coarse.shape)
        other = ndimage.affine_transform(bright, matrix[:3, :3], matrix[:3, 3], order=1)
        seen = ndimage.affine_transform(usable, matrix[:3, :3], matrix[:3, 3], order=1) * usable
        a, b = bright * (seen > 0.5), other * (seen > 0.5)
        return -float((a * b).sum()) / (float(np.sqrt((a * a).sum() * (b * b).sum())) + 1e-6)

    shifts = np.linspace(-4, 4, 9)
    best = min(shifts, key=lambda s: cost(np.array([centre + s, 0.0, 0.0])))
    simplex = np.array([[best, 0, 0], [best + 0.7, 0, 0], [best, 0.08, 0], [best, 0, 0.08]]) + np.array(
        [centre, 0, 0]
    )
    found = optimize.minimize(
        cost,
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 80, "xatol": 0.01, "fatol": 1e-5},
    )
    offset, yaw, roll = found.x
    return reflection(offset * factor + (factor - 1) / 2, float(yaw), float(roll), image.shape)


def reflection(offset: float, yaw: float, roll: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The reflection at a plane near x = ``offset`` (voxels, at the centre of y and z), tilted (radians)."""
    normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw), np.cos(yaw) * np.sin(roll)])
    point = np.array([offset, (shape[1] - 1) / 2, (shape[2] - 1) / 2])
    matrix = np.eye(4)
    matrix[:3, :3] -= 2 * np.outer(normal, normal)
    matrix[:3, 3] = 2 * normal * (normal @ point)
    return matrix


def _shrink(array: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Block means by an integer factor; the last incomplete blocks are padded with zeros."""
    pad = [(0, -n % factor) for n in array.shape]
    padded = np.pad(array, pad)
    x, y, z = (n // factor for n in padded.shape)
    means: NDArray[np.float32] = padded.reshape(x, factor, y, factor, z, factor).mean(
        (1, 3, 5), dtype=np.float32
    )
    return means
