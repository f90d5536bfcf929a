"""How white-matter lesions look in a T1-weighted scan: darker than white matter, some as dark as fluid.

Only voxels of the mask change, so that the healthy scan stays the truth everywhere; at the border they are partly
lesion and partly what was there (partial volume).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.lesions.simulate import Lesions
from neuromend.lesions.statistics import LesionStatistics, draw

BORDER_MM = 1.0
"""Depth at which a lesion is all lesion."""


def paint_lesions(
    values: NDArray[np.floating[Any]],
    lesions: Lesions,
    tissues: NDArray[np.integer[Any]],
    statistics: LesionStatistics,
    spacing_mm: tuple[float, float, float],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """The scan with the lesions painted in.

    Args:
        values: (x, y, z) the healthy T1-weighted scan.
        lesions: where they are.
        tissues: (x, y, z) 1 fluid, 2 grey matter, 3 white matter: their brightness is measured here.
        statistics: ``darkness`` says how dark.
        spacing_mm: voxel size along the three axes.
        seed: of the darkness of each lesion and of the noise.

    Returns:
        (x, y, z) float64, equal to ``values`` outside the lesions.
    """
    rng = np.random.default_rng([seed % 2**63, 20261])
    painted = np.array(values, np.float64)
    healthy = tissues * (lesions.map == 0)
    fluid, grey, white = (float(np.median(values[healthy == label])) for label in (1, 2, 3))
    low, high = sorted((fluid, white))
    noise = _noise(values, healthy == 3)
    for lesion, box in zip(lesions.placed, ndimage.find_objects(lesions.map), strict=True):
        wide = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        own = lesions.map[wide] == lesion.number
        depth = ndimage.distance_transform_edt(np.pad(own, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
        share = np.clip(depth / (BORDER_MM + float(np.mean(spacing_mm)) / 2), 0, 1)[own]
        target = np.clip(white + draw(statistics.darkness, rng) * (grey - white), low, high)
        there = painted[wide][own]
        grain = rng.normal(0, noise, len(there))
        painted[wide][own] = (1 - share) * there + share * (target + grain)
    return painted


def _noise(values: NDArray[np.floating[Any]], white: NDArray[np.bool_]) -> float:
    """The standard deviation of noise: from differences of white-matter neighbours, robust to edges."""
    pair = white[1:] & white[:-1]
    steps = np.abs(np.asarray(values[1:], np.float64) - values[:-1])[pair]
    return float(np.median(steps)) / (0.6745 * 2**0.5) if steps.size else 0.0
