"""Classical fills: the baselines that every network must beat, and where ours starts.

All take a normalised image and a mask, both (x, y, z), and return the image with only the masked
voxels changed. What stands inside the mask is never read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from neuromend.data.frame import bounding_box
from neuromend.data.symmetry import mirrored
from neuromend.methods.patchfill import patch_fill
from neuromend.methods.whitematter import white_matter_fill

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

RING_VOXELS = 3
"""Thickness of the ring whose mean fills a lesion."""


def ring_mean(image: Image, mask: Mask) -> Image:
    """Fill each 26-connected lesion with the mean of the known voxels up to 3 voxels around it."""
    filled = image.copy()
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        wide = tuple(
            slice(max(0, s.start - RING_VOXELS), min(n, s.stop + RING_VOXELS))
            for s, n in zip(box, image.shape, strict=True)
        )
        lesion = labels[wide] == label
        ring = ndimage.binary_dilation(lesion, iterations=RING_VOXELS) & ~mask[wide]
        filled[wide][lesion] = image[wide][ring].mean() if ring.any() else 0.0
    return filled


def harmonic(image: Image, mask: Mask, *, tolerance: float = 1e-3) -> Image:
    """Solve Laplace's equation inside the mask with the tissue around it as boundary values.

    Seven-point Laplacian; at the border of the volume the flux is zero. Solved by conjugate gradients
    from a pyramid start to a relative residual of ``tolerance`` (the error in brightness is then below
    the noise of a scan).
    """
    filled = np.where(mask, np.float32(0), image)
    if not mask.any():
        return filled
    spans = bounding_box(mask)
    box = tuple(
        slice(max(low - 1, 0), min(high + 1, n)) for (low, high), n in zip(spans, mask.shape, strict=True)
    )
    inner, hole = filled[box], mask[box]
    matrix, boundary, anchored = _laplacian(inner, hole)
    if not anchored:
        return filled
    start = _pyramid(inner, hole)[hole]
    solution, _ = cg(matrix, boundary, x0=start, rtol=tolerance, maxiter=600)
    inner[hole] = solution.astype(np.float32)
    filled[box] = inner
    return filled


def mirror(image: Image, mask: Mask) -> Image:
    """Fill with the opposite hemisphere, reflected at the estimated midsagittal plane.

    Where the reflection is not known (in the mask on both sides, or outside the volume) the harmonic
    fill stands in.
    """
    reflected, valid = mirrored(image, mask)
    filled = harmonic(image, mask)
    use = mask & valid
    filled[use] = reflected[use]
    return filled


def patch(image: Image, mask: Mask) -> Image:
    """Fill from the patches around that look most alike; the harmonic fill is the start."""
    return patch_fill(image, mask, harmonic(image, mask))


CLASSICAL: dict[str, Callable[[Image, Mask], Image]] = {
    "ring-mean": ring_mean,
    "harmonic": harmonic,
    "mirror": mirror,
    "patch": patch,
    "white-matter": white_matter_fill,
}
"""The classical fills by the name that ``--model`` takes."""


def _laplacian(image: Image, hole: Mask) -> tuple[sparse.csr_matrix, NDArray[np.float32], bool]:
    """The symmetric positive system (degree - adjacency) u = sum of known neighbours, over the hole.

    The rows are written down directly, columns ascending, which takes a third of the time of sorting them.
    """
    outside, known = -2, -1
    index = np.full([n + 2 for n in hole.shape], outside, np.int32)
    index[1:-1, 1:-1, 1:-1] = np.where(hole, np.int32(0), np.int32(known))
    flat, around = index.reshape(-1), np.pad(image, 1).reshape(-1)
    own = np.flatnonzero(flat == 0)
    count = own.size
    flat[own] = np.arange(count, dtype=np.int32)
    _, y, z = index.shape
    steps = (-y * z, -z, -1, 0, 1, z, y * z)
    beside = [flat.take(own + step) for step in steps]
    columns = np.stack(beside, axis=1)
    values = np.full(columns.shape, -1, np.float32)
    values[:, 3] = np.sum([row != outside for row in beside], axis=0, dtype=np.int8) - 1
    boundary = np.zeros(count, np.float32)
    anchored = False
    for side in (6, 0, 5, 1, 4, 2):
        rim = np.flatnonzero(beside[side] == known)
        boundary[rim] += around[own[rim] + steps[side]]
        anchored = anchored or rim.size > 0
    linked = columns >= 0
    links = np.sum([row >= 0 for row in beside], axis=0, dtype=np.int8)
    starts = np.concatenate(([0], np.cumsum(links))).astype(np.int32)
    matrix = sparse.csr_matrix((values[linked], columns[linked], starts), shape=(count, count))
    return matrix, boundary, anchored


def _pyramid(image: Image, hole: Mask) -> Image:
    """A smooth first guess: average known voxels into ever coarser grids until every cell knows one."""
    if not hole.any():
        return image
    if min(image.shape) <= 2:
        known = image[~hole]
        return np.where(hole, known.mean() if known.size else 0, image).astype(np.float32)
    pad = [(0, n % 2) for n in image.shape]
    weight = np.pad((~hole).astype(np.float32), pad)
    value = np.pad(np.where(hole, 0, image), pad)
    sum_w, sum_v = _pool(weight), _pool(value)
    coarse = _pyramid(np.asarray(sum_v / np.maximum(sum_w, 1), np.float32), sum_w == 0)
    fine = coarse.repeat(2, 2).repeat(2, 1).repeat(2, 0)[tuple(slice(n) for n in image.shape)]
    return np.where(hole, ndimage.uniform_filter(fine, 3, mode="nearest"), image).astype(np.float32)


def _pool(array: Image) -> Image:
    """Sums over blocks of 2x2x2 voxels; pairs first takes a tenth of the time of one sum over three axes."""
    pairs = array[..., ::2] + array[..., 1::2]
    first, second = pairs[::2], pairs[1::2]
    sums: Image = first[:, ::2] + first[:, 1::2] + second[:, ::2] + second[:, 1::2]
    return sums
