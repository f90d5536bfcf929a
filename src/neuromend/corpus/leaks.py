"""Is the same brain in the data set twice, under whatever name? Told by its content.

Every scan is reduced to a small volume that does not depend on how it was stored: axes in RAS, centred on the
brain, voxels of 6 mm, brightness and its slow changes removed. Copies correlate nearly perfectly, whether they
were re-oriented, cropped, padded, re-scaled, noisy or resampled, and so do two scans of one person on one scanner
once they are aligned; two persons do not (docs/how-to/prepare.md has the numbers). All pairs are one product of
matrices, and only those that it finds similar are aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

SAME_SCAN = 0.98
"""Correlation, after alignment, above which two scans are one brain."""

SAME_PERSON = 0.94
"""Correlation above which a pair deserves a look. Of the 19,110 pairs of the project's healthy scans, the four of one
person on one scanner reach 0.985 to 0.997, all others but one less than 0.92; among these is one person on two
scanners, who is not found (docs/how-to/prepare.md)."""

CANDIDATE = 0.85
"""Pairs that correlate by this as they lie are compared again after the best small rotation and shift."""

GRID_MM = 6.0
GRID_SHAPE = (30, 36, 30)
"""18 x 21.6 x 18 cm, more than any brain."""

SIGMA_MM = 4.0
"""A descriptor's voxel is a Gaussian mean of this width, so that noise and voxel size do not matter."""

WIDE_VOXELS = 2.0
"""The mean of a wider Gaussian (12 mm) is taken off: what remains are sulci and ventricles, which differ."""

TISSUE = 0.1
"""A voxel counts as tissue above this normalised intensity; the rest is air or noise in it."""

RADIANS_A_VOXEL = 0.08
"""A rotation that moves the rim of a brain (7 to 8 cm) by a voxel counts like a shift by a voxel."""

LEAST_COMMON = 0.3
"""Two brains are compared over what both show; less than this share of one tells nothing."""

ROWS_AT_ONCE = 512
"""Rows of the product that are in memory together."""


Brain = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Mean brightness and share of tissue, as :func:`low_resolution` returns them."""


@dataclass(frozen=True, slots=True)
class Twins:
    """Two cases (by their numbers) that look alike.

    Attributes:
        first, second: positions in the list of descriptors, first < second.
        correlation: of their descriptors.
        mirrored: True if they are alike after a reflection of one, left to right.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool


def low_resolution(
    healthy: NDArray[Any],
    spacing_mm: Sequence[float],
    stored_scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Brightness and share of tissue on a coarse grid around the middle of the brain.

    Args:
        healthy: (x, y, z) in RAS, 0 in air, ``stored_scale`` in bright tissue.
        spacing_mm: (3,) millimetres between voxels.

    Returns:
        The mean brightness of the tissue and the share of tissue, both (30, 36, 30), and the (4, 4) matrix from a
        voxel of ``healthy`` to a voxel of them.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    centre, darkest = _brain(healthy, spacing, stored_scale)
    is_tissue = healthy > darkest
    bright = np.where(is_tissue, healthy, 0).astype(np.float32) / np.float32(stored_scale)
    amount = _blurred(is_tissue.astype(np.float32), spacing, centre, GRID_SHAPE)
    total = _blurred(bright, spacing, centre, GRID_SHAPE)
    full = float(_kernel_sum(spacing))
    share = np.clip(amount / full, 0, 1)
    mean = np.where(share > 0.3, total / np.maximum(amount, 1e-6), 0).astype(np.float32)
    matrix = np.diag([*(spacing / GRID_MM), 1.0])
    matrix[:3, 3] = (np.array(GRID_SHAPE) - 1) / 2 - centre * spacing / GRID_MM
    return mean, share.astype(np.float32), matrix


def describe(mean: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float16]:
    """The descriptor (30, 36, 30) of what :func:`low_resolution` returns: mean 0 and length 1, 0 without tissue."""
    weight = np.where(share > 0.3, share, 0)
    wide = ndimage.gaussian_filter(mean * weight, WIDE_VOXELS)
    wide /= np.maximum(ndimage.gaussian_filter(weight, WIDE_VOXELS), 1e-3)
    inside = share > 0.5
    detail = np.where(inside, mean - wide, 0)
    if inside.any():
        detail[inside] -= detail[inside].mean()
    length = float(np.linalg.norm(detail))
    return (detail / length if length > 0 else detail).astype(np.float16)


def find_twins(descriptors: NDArray[np.float16], least: float = SAME_PERSON) -> list[Twins]:
    """Every pair whose descriptors correlate by ``least`` or more, most alike first.

    Args:
        descriptors: (n, 30, 36, 30).
        least: the smallest correlation that counts.
    """
    count = len(descriptors)
    flat = descriptors.reshape(count, -1).astype(np.float32)
    flipped = descriptors[:, ::-1].reshape(count, -1)
    found = []
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        for mirrored, part in ((False, flat[rows]), (True, flipped[rows].astype(np.float32))):
            alike = part @ flat.T
            for row, column in zip(*np.nonzero(alike >= least), strict=True):
                if start + row < column:
                    found.append(Twins(int(start + row), int(column), float(alike[row, column]), mirrored))
    return sorted(_best_of_each(found), key=lambda pair: -pair.correlation)


def aligned_correlation(fixed: Brain, moved: Brain) -> float:
    """The correlation of two brains after the best small rotation and shift, over what both show.

    Args:
        fixed, moved: mean and share of tissue of each, from :func:`low_resolution`.
    """
    one, other = (describe(*brain).astype(np.float32) for brain in (fixed, moved))
    inner, theirs = (ndimage.binary_erosion(share > 0.5).astype(np.float32) for _, share in (fixed, moved))
    coefficients = ndimage.spline_filter(other, 3, np.float32)
    middle = (np.array(GRID_SHAPE) - 1) / 2

    def unlike(p: NDArray[np.float64]) -> float:
        turn = Rotation.from_rotvec(p[3:] * RADIANS_A_VOXEL).as_matrix()
        offset = middle - turn @ middle + p[:3]
        both = ndimage.affine_transform(theirs, turn, offset, order=1) * inner > 0.5
        if np.count_nonzero(both) <= LEAST_COMMON * np.count_nonzero(inner):
            return 0.0
        there = ndimage.affine_transform(coefficients, turn, offset, order=3, prefilter=False)[both]
        here = one[both]
        here, there = here - here.mean(), there - there.mean()
        length = float(np.linalg.norm(here) * np.linalg.norm(there))
        return -float(here @ there) / length if length > 0 else 0.0

    simplex = np.array([[0.0] * 6, *np.eye(6).tolist()]) * 0.5
    found = optimize.minimize(
        unlike,
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 160, "xatol": 0.01, "fatol": 1e-4},
    )
    return -float(found.fun)


def _best_of_each(found: list[Twins]) -> list[Twins]:
    """One entry a pair: the better of as it is and mirrored."""
    best: dict[tuple[int, int], Twins] = {}
    for pair in found:
        known = best.get((pair.first, pair.second))
        if known is None or pair.correlation > known.correlation:
            best[pair.first, pair.second] = pair
    return list(best.values())


def _brain(
    healthy: NDArray[Any], spacing: NDArray[np.float64], stored_scale: float
) -> tuple[NDArray[np.float64], float]:
    """The middle of the brain in voxels, and the stored value above which a voxel is tissue and not noise."""
    step = np.maximum(np.rint(3.0 / spacing), 1).astype(int)
    thin = healthy[tuple(slice(None, None, int(n)) for n in step)]
    whole = tuple(int(np.ceil(n * d / GRID_MM)) for n, d in zip(thin.shape, step * spacing, strict=True))
    middle = (np.array(thin.shape) - 1) / 2
    share = _blurred((thin > TISSUE * stored_scale).astype(np.float32), step * spacing, middle, whole)
    brain = _solid(share > 0.5 * max(float(share.max()), 1e-6))
    if not brain.any():
        return middle * step, TISSUE * stored_scale
    weight = (share - np.median(share[~brain]) if not brain.all() else share) * brain
    inside = np.array([np.vdot(index, weight) for index in np.indices(whole)]) / weight.sum()
    centre = middle + (inside - (np.array(whole) - 1) / 2) * GRID_MM / (step * spacing)
    rim = np.ones(thin.shape, np.bool_)
    rim[1:-1, 1:-1, 1:-1] = False
    noise = float(np.quantile(thin[rim], 0.98))
    return centre * step, max(TISSUE * stored_scale, min(noise, 2 * TISSUE * stored_scale))


def _blurred(
    volume: NDArray[np.float32], spacing: NDArray[np.float64], centre: NDArray[Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Gaussian sums on a grid of 6 mm whose middle lies on voxel ``centre``, one axis after the other."""
    out = volume
    for axis in (2, 1, 0):
        position = (np.arange(volume.shape[axis]) - centre[axis]) * spacing[axis]
        grid = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * GRID_MM
        kernel = np.exp(-0.5 * ((position[:, None] - grid) / SIGMA_MM) ** 2).astype(np.float32)
        out = np.moveaxis(np.tensordot(out, kernel, (axis, 0)), -1, axis)
    return out


def _kernel_sum(spacing: NDArray[np.float64]) -> float:
    """What :func:`_blurred` gives where everything is 1."""
    return float(np.prod(np.sqrt(2 * np.pi) * SIGMA_MM / spacing))


def _solid(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a region."""
    labels, count = ndimage.label(region)
    if count < 2:
        return region
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == int(np.argmax(sizes))
    return largest
