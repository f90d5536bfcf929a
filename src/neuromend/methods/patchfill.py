"""Patch-based fill: every lesion voxel becomes a mean of known voxels whose surroundings look alike.

Idea: Prados et al. 2016, NeuroImage 139: 376-384 (NiftySeg's ``seg_FillLesions``), after the non-local means.
From the rim inwards, the patch around a voxel is compared with patches around known voxels of a search
window, and the voxel takes the weighted mean of the centres of the best. This is done on a pyramid: the
coarsest grid starts from a smooth fill, every finer one from the coarser result, which counts little in the
comparison until it is replaced.

Differences from the paper: one contrast; search windows belong to blocks of voxels instead of single ones,
so that the comparisons of a block are two matrix products; only patches without any lesion voxel are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]

RADIUS = 2
"""Patches have 5 x 5 x 5 voxels on every level."""

LEVELS = 3
"""Grids of the pyramid at most: full, half and quarter resolution."""

SEARCH = 16
"""Voxels around a block in which patches are looked for; doubled until there are ``FEWEST``."""

FEWEST, MOST = 200, 3000
"""Patches that one block is compared with; of more, a fixed random choice is taken."""

BEST = 8
"""Patches whose centres are averaged."""

BLOCK = 8
"""Edge of the blocks whose voxels share a search window."""

TRUST_GUESS, TRUST_FILLED = 0.1, 0.5
"""What a voxel of the coarser level, and one filled on this level, count in a comparison (known: 1)."""


def patch_fill(image: Image, mask: Mask, start: Image) -> Image:
    """Fill the mask from patches around it.

    Args:
        image: (x, y, z) normalised; not read inside the mask.
        mask: (x, y, z) True where tissue is to be invented.
        start: (x, y, z) a smooth fill, for what no patch is found for and for the coarsest grid.

    Returns:
        (x, y, z) float32, equal to ``image`` outside the mask.
    """
    known = np.where(mask, np.float32(0), image)
    if not mask.any():
        return known
    box = _around(mask, 2 * (SEARCH + RADIUS) * 2 ** (LEVELS - 1))
    levels = [(np.where(mask[box], start[box], known[box]).astype(np.float32), mask[box])]
    while len(levels) < LEVELS and min(levels[-1][0].shape) >= 4 * (2 * RADIUS + 1):
        levels.append(_halved(*levels[-1]))
    values, hole = levels.pop()
    values = _fill_level(values, hole)
    for finer, hole in reversed(levels):
        values = _fill_level(np.where(hole, _doubled(values, finer.shape), finer), hole)
    filled = known
    filled[box][mask[box]] = values[mask[box]]
    return filled


def _fill_level(values: Image, hole: Mask) -> Image:
    """Fill the hole of one grid, whose voxels hold a guess, shell by shell from the rim inwards."""
    padded = np.pad(values, RADIUS, mode="edge")
    trust = np.pad(np.where(hole, np.float32(TRUST_GUESS), np.float32(1)), RADIUS)
    # A patch may be copied if it lies in the grid and holds no voxel of the hole.
    source = ndimage.binary_erosion(np.pad(~hole, RADIUS), np.ones((2 * RADIUS + 1,) * 3, bool))
    if not source.any():
        return values
    depth = np.pad(ndimage.distance_transform_cdt(np.pad(hole, 1), "chessboard"), RADIUS - 1)
    offsets = _patch_offsets(padded.shape)
    flat, flat_trust = padded.reshape(-1), trust.reshape(-1)
    for shell in range(1, int(depth.max()) + 1):
        found: list[tuple[Indices, Image]] = []
        for block in _blocks(np.argwhere(depth == shell)):
            targets = np.ravel_multi_index(tuple(block.T), padded.shape)
            candidates = _candidates(source, block)
            found.append((targets, _best_mean(flat, flat_trust, targets, candidates, offsets)))
        for targets, new in found:
            flat[targets] = new
            flat_trust[targets] = TRUST_FILLED
    inner = (slice(RADIUS, -RADIUS),) * 3
    return padded[inner]


def _best_mean(
    flat: Image, trust: Image, targets: Indices, candidates: Indices, offsets: Indices
) -> NDArray[np.float32]:
    """The mean of the centres of the patches that look most like each target's, weighted by likeness."""
    here = flat[targets[:, None] + offsets]
    weight = trust[targets[:, None] + offsets]
    weight /= weight.sum(axis=1, keepdims=True)
    there = flat[candidates[:, None] + offsets]
    # sum_p w (here - there)^2 for all pairs, as two matrix products
    distance = (
        (weight * here**2).sum(axis=1)[:, None] + weight @ (there**2).T - 2 * ((weight * here) @ there.T)
    )
    count = min(BEST, len(candidates))
    best = np.argpartition(distance, count - 1, axis=1)[:, :count]
    near = np.maximum(np.take_along_axis(distance, best, axis=1), 0)
    # Non-local means, its bandwidth the mean distance of the best (Buades et al. 2005).
    likeness = np.exp(-near / (near.mean(axis=1, keepdims=True) + 1e-6))
    mean: NDArray[np.float32] = (likeness * flat[candidates[best]]).sum(axis=1) / likeness.sum(axis=1)
    return mean


def _candidates(source: Mask, block: NDArray[np.intp]) -> Indices:
    """Flat indices of the centres of the patches that a block of voxels is compared with."""
    reach = SEARCH
    while True:
        low = np.maximum(block.min(0) - reach, 0)
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, block.max(0) + reach + 1, strict=True))
        centres = np.argwhere(source[window])
        if len(centres) >= FEWEST or reach >= max(source.shape):
            break
        reach *= 2
    if len(centres) > MOST:
        centres = centres[np.random.default_rng(0).choice(len(centres), MOST, replace=False, shuffle=False)]
    flat: Indices = np.ravel_multi_index(tuple((centres + low).T), source.shape)
    return flat


def _blocks(points: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The points (n, 3), grouped by the block of the grid that they lie in."""
    _, group = np.unique(points // BLOCK, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    yield from np.split(points[order], np.flatnonzero(np.diff(group[order])) + 1)


def _patch_offsets(shape: tuple[int, ...]) -> Indices:
    """Flat offsets of the voxels of a patch from its centre, in a grid of this shape."""
    steps = np.arange(-RADIUS, RADIUS + 1)
    x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
    offsets: Indices = ((x * shape[1] + y) * shape[2] + z).reshape(-1)
    return offsets


def _halved(values: Image, hole: Mask) -> tuple[Image, Mask]:
    """Half the resolution: a cell is known if half of its voxels are, and is then the mean of those."""
    pad = [(0, n % 2) for n in values.shape]
    values = np.pad(values, pad, mode="edge")
    known = np.pad(~hole, pad, mode="edge").astype(np.float32)
    cells = tuple(m for n in values.shape for m in (n // 2, 2))

    def total(array: Image) -> Image:
        return np.asarray(array.reshape(cells).sum((1, 3, 5)), np.float32)

    share = total(known)
    mean = np.where(share >= 4, total(values * known) / np.maximum(share, 1), total(values) / 8)
    return mean.astype(np.float32), share < 4


def _doubled(values: Image, shape: tuple[int, ...]) -> Image:
    """Twice the resolution, linear between the centres of the cells, cut to ``shape``."""
    doubled: Image = ndimage.zoom(values, 2, order=1, mode="nearest", grid_mode=True)
    return doubled[tuple(slice(n) for n in shape)]


def _around(mask: Mask, margin: int) -> Any:
    """The box of the mask, widened by ``margin`` voxels and cut at the volume."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
