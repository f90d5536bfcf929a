"""Where in a brain a training case lies: its grid, its brain voxels, and the reflection at the midsagittal plane.

A place is a 4x4 matrix: voxel of the case -> voxel of the cached scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neuromend.corpus.cache import CachedCase
from neuromend.corpus.recipe import Crop
from neuromend.corpus.shapes import approximate_mni
from neuromend.data.frame import working_spacing_mm
from neuromend.data.symmetry import reflection

Matrix = NDArray[np.float64]
Size = tuple[int, int, int]

COARSE_MM = 3.0
"""The outline of a brain is kept on every n-th voxel, about this far apart."""

STRIPPED_SHARE = 0.2
"""A scan of which more than this share is exactly 0 is skull-stripped."""

AIR = 0.12
"""In a scan with its skull, darker voxels (of 0 air .. 1 bright tissue) are air, bone or fluid."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A cached case and what drawing from it needs to know, found out once.

    Attributes:
        case: the memory-mapped arrays.
        spacing_mm: (3,) of the cached grid.
        working_mm: edge of the cubic voxels on which this scan would be filled.
        mirror: (4, 4) cached voxel -> cached voxel, the reflection at the midsagittal plane.
        step: every so-many-th voxel is in ``outline``.
        outline: coarse (x, y, z), True in the brain (in the head, where the scan has a skull and no tissue map).
        stripped: the scan is 0 outside the brain.
    """

    case: CachedCase
    spacing_mm: NDArray[np.float64]
    working_mm: float
    mirror: Matrix
    step: NDArray[np.int_]
    outline: NDArray[np.bool_]
    stripped: bool

    @classmethod
    def of(cls, case: CachedCase) -> Brain:
        """Look at every n-th voxel of a case."""
        row = case.row
        spacing = np.array(row.spacing_mm)
        step = np.maximum(np.rint(COARSE_MM / spacing).astype(int), 1)
        coarse = tuple(slice(None, None, int(n)) for n in step)
        values = np.asarray(case.healthy[coarse])
        stripped = row.kind == "labels" or float(np.mean(values == 0)) > STRIPPED_SHARE
        if stripped:
            outline = values > 0
        elif case.tissue is not None:
            outline = np.asarray(case.tissue[coarse]) > 0
        else:
            head = ndimage.binary_closing(np.pad(values > AIR * row.stored_scale, 2), iterations=2)
            outline = ndimage.binary_fill_holes(head)[2:-2, 2:-2, 2:-2]
        if row.mirror is not None:
            mirror = np.array(row.mirror)
        else:
            places = np.argwhere(outline)
            middle = (places[:, 0].mean() if len(places) else (outline.shape[0] - 1) / 2) * step[0]
            mirror = reflection(float(middle), 0.0, 0.0, row.shape)
        return cls(case, spacing, working_spacing_mm(spacing), mirror, step, outline, stripped)

    @cached_property
    def to_mni(self) -> Matrix:
        """Cached voxel -> MNI152 mm: as the cache tells, else approximately, from the brain's own axes."""
        if self.case.row.to_mni is not None:
            return np.array(self.case.row.to_mni)
        points = np.argwhere(self.outline) * self.step
        return approximate_mni(points.astype(np.float64), self.spacing_mm, self.mirror)

    def random_voxel(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """A voxel of the brain, evenly drawn from the coarse outline (the middle of the scan if there is none)."""
        places = np.flatnonzero(self.outline)
        if not len(places):
            return np.array(self.outline.shape) * self.step / 2
        place = np.unravel_index(int(places[rng.integers(len(places))]), self.outline.shape)
        return np.asarray(np.array(place) * self.step + rng.uniform(-0.5, 0.5, 3) * self.step)

    def inside(self, image: NDArray[np.floating[Any]], place: Matrix) -> NDArray[np.bool_]:
        """True in the brain on the grid of ``image`` (x, y, z), which lies at ``place``."""
        if self.stripped:
            return image > 0
        coarse = np.diag([*(1 / self.step), 1.0]) @ place
        return sampled(self.outline.view(np.uint8), coarse, image.shape, order=0) > 0


def crop_size(crop: Crop, brain: Brain, spacing_mm: float, volume_ml: float, multiple: int) -> Size:
    """Sides of a case in voxels, divisible by ``multiple``."""
    if crop == "whole":
        sides = tuple(
            np.ceil(np.array(brain.case.row.shape) * brain.spacing_mm / spacing_mm - 1e-6).astype(int)
        )
    elif crop == "hole":
        sides = room_for_hole(spacing_mm, volume_ml)
    else:
        sides = crop
    x, y, z = (int(-(-side // multiple) * multiple) for side in sides)
    return x, y, z


def room_for_hole(spacing_mm: float, volume_ml: float) -> Size:
    """The whole brain where voxels are large, else room around the hole."""
    if spacing_mm > 1.5:
        return (80, 96, 80) if spacing_mm > 1.8 else (96, 112, 96)
    return (80, 80, 80) if volume_ml < 4 else (96, 96, 96) if volume_ml < 25 else (112, 112, 112)


def place_crop(
    rng: np.random.Generator,
    brain: Brain,
    size: Size,
    spacing_mm: float,
    centre: NDArray[np.float64] | None,
    *,
    jitter: float,
    turned: bool,
) -> Matrix:
    """The place of a crop around ``centre`` (a cached voxel; None for the middle of the scan), give or take ``jitter``.

    Not ``turned``, on cubic voxels of the cached size, a crop is shifted by whole voxels: no interpolation.
    """
    middle = np.array(brain.case.row.shape) / 2 if centre is None else centre
    extent = np.array(size)
    shift = rng.uniform(-jitter, jitter, 3) * extent
    place = np.eye(4)
    if not turned:
        place[:3, :3] = np.diag(spacing_mm / brain.spacing_mm)
        if np.allclose(place[:3, :3], np.eye(3), atol=0.02):
            place[:3, :3] = np.eye(3)
        corner = middle - place[:3, :3] @ (extent / 2 - shift)
        place[:3, 3] = np.round(corner)
        return place
    turn = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
    zoom = np.exp(rng.normal(0, 0.06, 3)) * spacing_mm
    place[:3, :3] = (turn * zoom) / brain.spacing_mm[:, None]
    place[:3, 3] = middle - place[:3, :3] @ (extent / 2 - shift)
    return place


def reflection_in(rng: np.random.Generator, brain: Brain, place: Matrix, *, jitter: bool) -> Matrix:
    """The reflection at the midsagittal plane in voxels of the crop; moved a little, as if it were estimated."""
    mirror = brain.mirror
    if jitter:
        noisy = np.eye(4)
        noisy[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        middle = np.array(brain.case.row.shape) / 2
        noisy[:3, 3] = middle - noisy[:3, :3] @ middle + rng.normal(0, 0.7, 3) / brain.spacing_mm
        mirror = mirror @ noisy
    return np.asarray(np.linalg.inv(place) @ mirror @ place)


def window_with_reflection(
    size: Size, reflect: Matrix, place: Matrix, shape: tuple[int, ...]
) -> tuple[NDArray[np.int_], Size]:
    """Corner and sides, in voxels of the crop, of a box that holds the crop and all that its reflection shows.

    What lies outside the cached scan of ``shape`` is left out, but never a part of the crop.
    """
    low, high = _box_of(reflect, np.zeros(3), np.array(size) - 1)
    scan_low, scan_high = _box_of(np.linalg.inv(place), np.zeros(3), np.array(shape) - 1)
    first = np.floor(np.minimum(np.maximum(low, scan_low), 0)).astype(int)
    last = np.ceil(np.maximum(np.minimum(high, scan_high), np.array(size) - 1)).astype(int)
    x, y, z = (int(n) for n in last - first + 1)
    return first, (x, y, z)


def moved(matrix: Matrix, corner: NDArray[np.int_]) -> Matrix:
    """A place whose voxel 0 is the voxel ``corner`` of ``matrix``."""
    shifted = matrix.copy()
    shifted[:3, 3] += matrix[:3, :3] @ corner
    return shifted


def sampled(
    source: NDArray[Any], place: Matrix, size: tuple[int, ...], *, order: int = 1, smooth: bool = False
) -> NDArray[Any]:
    """A part of an array on another grid, 0 outside it: copied where only shifted by whole voxels, else interpolated.

    Args:
        source: (x, y, z); only the part that is needed is read.
        place: (4, 4) voxel of the result -> voxel of the source.
        size: of the result.
        order: 0 for the nearest voxel (the type of ``source`` is kept), 1 for linear interpolation (float32).
        smooth: blur before coarser voxels are taken, against aliasing.

    Returns:
        (x, y, z) of ``size``, float32 or, with ``order`` 0, of the source's type.
    """
    dtype = np.dtype(np.float32) if order else source.dtype
    out = np.zeros(size, dtype)
    low, high = _box_of(place, np.zeros(3), np.array(size) - 1)
    low = np.clip(np.floor(low).astype(int) - 2, 0, source.shape)
    high = np.clip(np.ceil(high).astype(int) + 3, 0, source.shape)
    if (high <= low).any():
        return out
    if np.array_equal(place[:3, :3], np.eye(3)) and not np.any(place[:3, 3] % 1):
        corner = place[:3, 3].astype(int)
        low, high = np.clip(corner, 0, source.shape), np.clip(corner + size, 0, source.shape)
        if (high > low).all():
            here = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
            out[here] = source[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        return out
    part = np.asarray(source[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    zoom = np.linalg.norm(place[:3, :3], axis=0)
    if smooth and zoom.max() > 1.25:
        part = ndimage.gaussian_filter(part.astype(np.float32), 0.35 * float(zoom.mean()), truncate=3.0)
    offset = place[:3, 3] - low
    if order:
        return interpolated(part.astype(np.float32, copy=False), place[:3, :3], offset, size)
    # "grid-constant": a nearest voxel reaches half a voxel outwards.
    return ndimage.affine_transform(part, place[:3, :3], offset, size, order=0, mode="grid-constant")


def interpolated(
    source: NDArray[np.float32], matrix: Matrix, offset: NDArray[np.floating[Any]], size: tuple[int, ...]
) -> NDArray[np.float32]:
    """Linear interpolation of a volume at ``matrix`` @ voxel + ``offset``, with zeros around the volume.

    ``scipy.ndimage.affine_transform`` takes one and a half times as long, which counts here. (It ends
    sharply at the outermost voxels; here they fade out over one voxel.)
    """
    steps = 2 / np.maximum(np.array(source.shape) - 1, 1)
    grid = torch.empty((3, *size))  # each coordinate by itself: written at thrice the pace
    along = [torch.arange(n, dtype=torch.float32) for n in size]
    for channel, axis in enumerate((2, 1, 0)):  # grid_sample wants the last axis first, from -1 to 1
        x, y, z = (along[a] * float(matrix[axis, a] * steps[axis]) for a in range(3))
        x += float(offset[axis] * steps[axis] - 1)
        torch.add(x[:, None, None] + y[:, None], z, out=grid[channel])
    volume = torch.from_numpy(np.ascontiguousarray(source))[None, None]
    found = torch.nn.functional.grid_sample(volume, grid.movedim(0, -1)[None], align_corners=True)
    values: NDArray[np.float32] = found[0, 0].numpy()
    return values


def _box_of(
    matrix: NDArray[np.floating[Any]], low: NDArray[np.float64], high: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The box around the image of a box under an affine map."""
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    reach = matrix[:3, :3] @ corners + matrix[:3, 3:]
    return reach.min(1), reach.max(1)
