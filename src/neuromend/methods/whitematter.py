"""White-matter fill: random draws from the normal distribution of the white matter around each lesion.

Idea: Battaglini et al. 2012, Hum. Brain Mapp. 33: 2062-2071 (FSL's ``lesion_filling``), made for small
lesions in white matter, which then no longer look like grey matter to a segmentation. A lesion in any other
tissue is filled with white matter all the same.

Differences from the paper: white matter is not segmented but recognised by its brightness in a T1-weighted
scan, so no second image is needed; the border is smoothed by mixing with the known neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

RING_VOXELS = 8
"""How far around a lesion white matter is looked for."""

WIDE_VOXELS = 40
"""How far around all lesions the brightness of the three tissues is learnt."""

FEWEST = 50
"""White-matter voxels in the ring below which the white matter of the wide box is taken."""

AIR = 0.1
"""Normalised brightness below which a voxel is air."""

SEED = 20120901
"""Of the draws: the same case gets the same fill."""


def white_matter_fill(image: Image, mask: Mask) -> Image:
    """Fill each 26-connected lesion with white matter like that around it.

    Args:
        image: (x, y, z) T1-weighted, normalised: air about 0, bright tissue about 1; not read inside the mask.
        mask: (x, y, z) True where tissue is to be invented.

    Returns:
        (x, y, z) float32, equal to ``image`` outside the mask.
    """
    filled = np.where(mask, np.float32(0), image)
    if not mask.any():
        return filled
    rng = np.random.default_rng(SEED)
    (whole,) = ndimage.find_objects(mask.astype(np.uint8))
    wide = _widened(whole, WIDE_VOXELS)
    low, high = _white_matter_range(filled[wide][~mask[wide]])
    everywhere = _white_matter_of(filled[wide], ~mask[wide], low, high)
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        near = _widened(box, RING_VOXELS)
        lesion = labels[near] == label
        ring = ndimage.binary_dilation(lesion, iterations=RING_VOXELS) & ~mask[near]
        local = _white_matter_of(filled[near], ring, low, high)
        white = local if local.size >= FEWEST else everywhere
        if white.size:
            filled[near][lesion] = rng.normal(white.mean(), white.std(), int(lesion.sum()))
    return _soften(filled, mask)


def _white_matter_range(known: NDArray[np.float32]) -> tuple[float, float]:
    """The brightness of white matter: the brightest of three tissues, without what is far brighter (fat).

    Fat is what lies beyond Tukey's fence (1977); the tissues are found by k-means in one dimension (Lloyd 1982),
    from the quantiles of a brain.
    """
    tissue = np.sort(known[known > AIR].astype(np.float64))
    if not tissue.size:
        return 0.0, 0.0
    quarter, three_quarters = np.quantile(tissue, [0.25, 0.75])
    tissue = tissue[tissue <= three_quarters + 1.5 * (three_quarters - quarter)]
    tissue = tissue[:: max(1, tissue.size // 100_000)]
    centres = np.quantile(tissue, [0.1, 0.45, 0.85])
    for _ in range(50):
        borders = np.searchsorted(tissue, (centres[1:] + centres[:-1]) / 2)
        parts = np.split(tissue, borders)
        moved = np.array([p.mean() if p.size else c for p, c in zip(parts, centres, strict=True)])
        if np.abs(moved - centres).max() < 1e-4:
            break
        centres = moved
    bright = parts[2] if parts[2].size else tissue
    middle = float(np.median(bright))
    spread = 1.4826 * float(np.median(np.abs(bright - middle)))  # of a normal distribution
    return max(float(bright[0]), middle - 3 * spread), middle + 3 * spread


def _white_matter_of(image: Image, where: Mask, low: float, high: float) -> NDArray[np.float32]:
    """The values of the voxels that are white matter by their brightness."""
    values: NDArray[np.float32] = image[where & (image > AIR) & (image >= low) & (image <= high)]
    return values


def _soften(filled: Image, mask: Mask) -> Image:
    """Half of every voxel at the rim becomes the mean of the known voxels that touch it."""
    known = (~mask).astype(np.float32)
    share = ndimage.uniform_filter(known, 3, mode="nearest")
    mean = ndimage.uniform_filter(filled * known, 3, mode="nearest") / np.maximum(share, 1e-3)
    rim = mask & (share > 1 / 54)  # at least one of the 27 is known; rounding leaves a little everywhere
    filled[rim] = (filled[rim] + mean[rim]) / 2
    return filled


def _widened(box: tuple[slice, ...], margin: int) -> tuple[slice, ...]:
    """The box with a margin, cut at the start of the volume (numpy cuts at the end)."""
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
