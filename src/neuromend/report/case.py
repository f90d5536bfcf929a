"""What a report is made of: one filled scan, and the lesions found in its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.findings import Finding

Box = tuple[slice, slice, slice]
Volume = NDArray[Any]

SHOWN_LESIONS = 6
"""Lesions drawn in a report, largest first; the rest are counted. Six keep the page under 5 MB."""

CORNERS = np.ones((3, 3, 3), dtype=bool)
"""Voxels that touch by a face, an edge or a corner belong together."""

ROUNDING = 1e-5
"""Relative difference that two ways of computing the same intensity in single precision may leave."""


@dataclass(frozen=True)
class Lesion:
    """One 26-connected component of the mask (or what a given box holds).

    Args:
        number: 1 for the largest.
        box: the voxels that bound it, as slices of the scan's array.
        voxels: how many voxels it has.
        volume_ml: its volume.
        centre: the voxel (i, j, k) of the lesion nearest its centre of mass, so that the three
            planes through it always cut the lesion, however bent it is.
        centre_mm: the same point in world coordinates (R, A, S positive).
    """

    number: int
    box: Box
    voxels: int
    volume_ml: float
    centre: tuple[int, int, int]
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ReportCase:
    """The only input of the picture and the page; arrays are (x, y, z) on the scan's own grid.

    Args:
        title: what to call the case, usually the scan's file name. Any text: it is escaped.
        before: the scan as read, in its own units; not-finite values are drawn black.
        after: the scan with the mask filled, in the same units.
        mask: True where tissue was invented.
        affine: 4x4, voxel to world millimetres (RAS+).
        uncertainty: voxel-wise standard deviation over the samples, in the scan's units, or None.
        samples: the single samples, each like `after`; may be empty.
        findings: the checks; shown with warnings first, then notes, then what passed.
        record: the JSON sidecar. Shown in full; these fields are also worded where they exist:
            ``version``, ``command``, ``method``, ``model`` (a name, or a mapping with
            ``name``, ``version``, ``sha256``, ``licence``), ``seed``, ``steps``, ``device``,
            ``outside_mask`` (a mapping with ``identical``, ``voxels``, ``sha256``), ``errors`` (a list).
        boxes: bounding boxes of all 26-connected components, largest first, where the caller knows them.
        methods: a paragraph for the methods section of a paper.

    Raises:
        ValueError: if the arrays do not share one three-dimensional grid.
    """

    title: str
    before: Volume
    after: Volume
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    uncertainty: Volume | None = None
    samples: tuple[Volume, ...] = ()
    findings: Sequence[Finding] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    boxes: Sequence[Box] | None = None
    methods: str = "not recorded"

    def __post_init__(self) -> None:
        others = [self.after, self.mask, *self.samples]
        if self.uncertainty is not None:
            others.append(self.uncertainty)
        shapes = {array.shape for array in others} | {self.before.shape}
        if len(shapes) != 1 or self.before.ndim != 3:
            raise ValueError(f"a report needs arrays on one 3-D grid, found shapes {sorted(shapes)}")
        if self.mask.dtype != np.bool_:
            raise ValueError(f"the mask of a report must be boolean, found {self.mask.dtype}")

    @cached_property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along the array's axes."""
        columns = np.asarray(self.affine, dtype=np.float64)[:3, :3]
        sizes: NDArray[np.float64] = np.sqrt((columns**2).sum(axis=0))
        return sizes

    @cached_property
    def mask_box(self) -> Box | None:
        """The smallest box that holds the whole mask; None where the mask is empty."""
        return bounding_box(self.mask)

    @cached_property
    def _components(self) -> tuple[tuple[Lesion, ...], int]:
        return _find_lesions(self)

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions to draw: largest first, at most `SHOWN_LESIONS`."""
        return self._components[0]

    @property
    def lesion_count(self) -> int:
        """How many lesions there are, drawn or not."""
        return self._components[1]

    @cached_property
    def background(self) -> float:
        """The one value of all corners (a stripped scan); else the lowest finite value, a stray voxel's.

        The background of a stripped scan need not be its lowest value: interpolation leaves darker voxels.
        """
        corners = np.unique(self.before[tuple(slice(None, None, max(1, n - 1)) for n in self.before.shape)])
        if corners.size == 1 and np.isfinite(corners[0]):
            return float(corners[0])
        lowest = float(self.before.min())
        if np.isfinite(lowest):
            return lowest
        finite = self.before[np.isfinite(self.before)]
        return float(finite.min()) if finite.size else lowest

    @cached_property
    def volume_ml(self) -> float:
        """Volume of the whole mask."""
        return int(self.mask.sum()) * self.voxel_ml

    @cached_property
    def voxel_ml(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(np.asarray(self.affine, dtype=np.float64)[:3, :3]))) / 1000

    @cached_property
    def changed_outside(self) -> int:
        """Voxels outside the mask that differ between `before` and `after` by more than rounding.

        Both arrays were computed from stored values, so `ROUNDING` of the largest value is no change; whether
        the file is identical bit for bit is for the record to say. NaN equals NaN.
        """
        differs = (self.before != self.after) & ~self.mask
        before = self.before[differs].astype(np.float64)
        after = self.after[differs].astype(np.float64)
        tolerance = ROUNDING * float(np.max(np.abs(before), where=np.isfinite(before), initial=0.0))
        return int((~(np.abs(after - before) <= tolerance) & ~(np.isnan(before) & np.isnan(after))).sum())


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every True voxel of a 3-D mask; None if there is none."""
    sides = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not occupied.size:
            return None
        sides.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return sides[0], sides[1], sides[2]


def _find_lesions(case: ReportCase) -> tuple[tuple[Lesion, ...], int]:
    if case.mask_box is None:
        return (), 0
    if case.boxes is None:
        parts, count = _components_of(case.mask, case.mask_box)
    else:
        count = len(case.boxes)
        parts = [(box, _component_that_fills(case.mask[box])) for box in case.boxes[:SHOWN_LESIONS]]
    return tuple(_describe(case, number, *part) for number, part in enumerate(parts, start=1)), count


def _components_of(mask: NDArray[np.bool_], box: Box) -> tuple[list[tuple[Box, NDArray[np.bool_]]], int]:
    """The largest 26-connected components, each as its box and its own voxels there, and how many exist."""
    labels, count = ndimage.label(mask[box], structure=CORNERS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:SHOWN_LESIONS]
    found = ndimage.find_objects(labels)
    parts = []
    for index in largest:
        inner = found[index]
        outer = [slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True)]
        parts.append(((outer[0], outer[1], outer[2]), labels[inner] == index + 1))
    return parts, int(count)


def _component_that_fills(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The component whose bounding box is the whole array; pieces of neighbours that reach in are left out."""
    labels, count = ndimage.label(mask, structure=CORNERS)
    if count == 1:
        return mask
    whole = tuple(slice(0, length) for length in mask.shape)
    sizes = np.bincount(labels.ravel())[1:]
    found = ndimage.find_objects(labels)
    best = max(range(count), key=lambda index: (found[index] == whole, sizes[index]))
    component: NDArray[np.bool_] = labels == best + 1
    return component


def _describe(case: ReportCase, number: int, box: Box, part: NDArray[np.bool_]) -> Lesion:
    where = np.argwhere(part)
    offset = (where - where.mean(axis=0)) * case.spacing_mm
    nearest = where[np.argmin((offset**2).sum(axis=1))] + [side.start for side in box]
    world = case.affine[:3, :3] @ nearest + case.affine[:3, 3]
    return Lesion(
        number=number,
        box=box,
        voxels=len(where),
        volume_ml=len(where) * case.voxel_ml,
        centre=(int(nearest[0]), int(nearest[1]), int(nearest[2])),
        centre_mm=(float(world[0]), float(world[1]), float(world[2])),
    )
