"""Cuts through a scan of any orientation and spacing, as square pictures with isotropic pixels.

The array's axes are permuted and flipped (never interpolated) to the nearest of R, A, S, so the letters
at the picture's edges follow from the affine. Display is in the neurological convention: the patient's
left is on the left of the picture; in sagittal cuts posterior is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromend.report.case import Lesion, ReportCase, Volume, bounding_box

CONVENTION = "Neurological convention: the patient's left is on the left of the picture."

LARGEST_PICTURE = 320
"""Pixels along a side at most; a 1 mm head (about 220 mm) is shown voxel by voxel, a finer one is reduced."""

HEAD_MARGIN = 1.06
"""Side of the whole-head view relative to the largest extent of the head."""


@dataclass(frozen=True)
class Plane:
    """One of the three orthogonal cuts, in R, A, S axes (0, 1, 2).

    Args:
        name: what radiologists call it.
        normal: the axis the cut is orthogonal to.
        across: the axis that runs from left to right in the picture.
        up: the axis that runs from bottom to top.
        letters: the directions at the left, right, top and bottom edge.
    """

    name: str
    normal: int
    across: int
    up: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane("axial", normal=2, across=0, up=1, letters=("L", "R", "A", "P")),
    Plane("coronal", normal=1, across=0, up=2, letters=("L", "R", "S", "I")),
    Plane("sagittal", normal=0, across=1, up=2, letters=("P", "A", "S", "I")),
)


@dataclass(frozen=True)
class View:
    """A square window on one cut.

    Args:
        plane: which cut.
        position: index of the cut along the plane's normal, in display voxels.
        centre: middle of the window (across, up), in display voxels.
        side_mm: edge of the window.
        pixels: edge of the picture; always even.
        spacing_mm: voxel size (across, up).
    """

    plane: Plane
    position: int
    centre: tuple[float, float]
    side_mm: float
    pixels: int
    spacing_mm: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Display:
    """The scan's geometry as it is shown, and the grey window shared by all its pictures.

    Args:
        case: the filled scan.
        largest: pixels along a side of a picture at most; even.
    """

    case: ReportCase
    largest: int = LARGEST_PICTURE

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """Unit vectors: column a is where array axis a points, in R, A, S."""
        return np.asarray(self.case.affine, dtype=np.float64)[:3, :3] / self.case.spacing_mm

    @cached_property
    def _sources(self) -> tuple[int, int, int]:
        """Which array axis is shown as R, as A and as S: the assignment that is nearest altogether."""
        nearness = np.abs(self._directions)
        return max(permutations(range(3), 3), key=lambda axes: sum(nearness[range(3), axes]))

    @cached_property
    def _flipped(self) -> tuple[bool, ...]:
        """Whether the array axis shown as R, as A and as S runs the other way."""
        return tuple(bool(self._directions[shown, axis] < 0) for shown, axis in enumerate(self._sources))

    @cached_property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel size along the display axes R, A, S."""
        return self.case.spacing_mm[list(self._sources)]

    @cached_property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the grid and the scanner axis that names it."""
        nearest = np.abs(self._directions[range(3), self._sources])
        return float(np.degrees(np.arccos(np.clip(nearest, 0.0, 1.0)).max()))

    @cached_property
    def window(self) -> tuple[float, float]:
        """Values shown black and white: percentiles 1 and 99.5 of the scan outside the mask.

        Inside values play no part, so a bright lesion (or a bad fill) cannot darken the picture. The upper
        percentile is that of the voxels above the lower one, because most of a stripped scan is background.
        """
        step = max(1, round((self.case.before.size / 300_000) ** (1 / 3)))
        thinned = (slice(None, None, step),) * 3
        values = self.case.before[thinned].astype(np.float64)
        inside = self.case.mask[thinned]
        outside = values[~inside & np.isfinite(values)]
        if not outside.size:
            outside = np.zeros(1)
        low = float(np.percentile(outside, 1.0))
        above = outside[outside > low]
        high = float(np.percentile(above, 99.5)) if above.size else low + 1.0
        return low, high

    @cached_property
    def uncertainty_limit(self) -> float:
        """Upper end of the uncertainty's colours, the same for all lesions; the lower end is 0."""
        return _limit(self.case.uncertainty, self.case.mask)

    @cached_property
    def difference_limit(self) -> float:
        """End of the difference's colours on both sides of 0, the same for all lesions."""
        if self.case.mask_box is None:
            return 1.0
        after, before = self.case.after[self.case.mask_box], self.case.before[self.case.mask_box]
        return _limit(
            after.astype(np.float64) - before.astype(np.float64), self.case.mask[self.case.mask_box]
        )

    @cached_property
    def head_box(self) -> NDArray[np.float64]:
        """(3, 2) first and last display voxel of head and mask; head: above a tenth of the grey window."""
        low, high = self.window
        visible = (self.shown(self.case.before) > low + 0.1 * (high - low)) | self.shown(self.case.mask)
        box = bounding_box(visible)
        if box is None:
            return np.array([(0, length - 1) for length in visible.shape], dtype=np.float64)
        return np.array([(side.start, side.stop - 1) for side in box], dtype=np.float64)

    @cached_property
    def head_side_mm(self) -> float:
        """Edge of the square window that shows any cut of the whole head."""
        extents = (self.head_box[:, 1] - self.head_box[:, 0] + 1) * self.spacing_mm
        return float(extents.max()) * HEAD_MARGIN

    def shown(self, volume: Volume) -> Volume:
        """A view of the array with its axes along R, A, S (no copy, no interpolation)."""
        flips = tuple(axis for axis, flipped in enumerate(self._flipped) if flipped)
        return np.flip(np.transpose(volume, self._sources), axis=flips)

    def to_display(self, voxel: tuple[int, int, int]) -> tuple[int, int, int]:
        """The display voxel that shows the given voxel of the scan's array."""
        shape = self.case.before.shape
        right, anterior, superior = (
            shape[axis] - 1 - voxel[axis] if flipped else voxel[axis]
            for axis, flipped in zip(self._sources, self._flipped, strict=True)
        )
        return right, anterior, superior

    def head_view(self, plane: Plane, voxel: tuple[int, int, int]) -> View:
        """The whole head, cut at a voxel of the scan's array."""
        return self._view(plane, voxel, self.head_box.mean(axis=1), self.head_side_mm)

    def lesion_view(self, plane: Plane, lesion: Lesion, *, times: float, at_least: float) -> View:
        """A closer look: `times` the lesion's largest extent, between `at_least` and 1 of the head's side."""
        corners = np.array(
            [
                self.to_display((lesion.box[0].start, lesion.box[1].start, lesion.box[2].start)),
                self.to_display((lesion.box[0].stop - 1, lesion.box[1].stop - 1, lesion.box[2].stop - 1)),
            ],
            dtype=np.float64,
        )
        extent = float(((np.abs(corners[1] - corners[0]) + 1) * self.spacing_mm).max())
        side = float(np.clip(times * extent, at_least * self.head_side_mm, self.head_side_mm))
        centre = self._kept_on_head(corners.mean(axis=0), side)
        return self._view(plane, lesion.centre, centre, side)

    def _kept_on_head(self, centre: NDArray[np.float64], side_mm: float) -> NDArray[np.float64]:
        """Move a window that hangs out back over the head; where it is wider than the head, centre it."""
        reach = side_mm / self.spacing_mm / 2
        first, last = self.head_box[:, 0] - 2, self.head_box[:, 1] + 2
        kept = np.clip(centre, first + reach, np.maximum(last - reach, first + reach))
        middle = (first + last) / 2
        return np.where(last - first < 2 * reach, middle, kept)

    def _view(
        self, plane: Plane, voxel: tuple[int, int, int], centre: NDArray[np.float64], side_mm: float
    ) -> View:
        finest = float(self.spacing_mm.min())
        pixels = 2 * int(np.clip(np.ceil(side_mm / finest / 2), 8, self.largest // 2))
        # Half-integer centres put the pixels of an even picture exactly on the voxels of an isotropic scan.
        across, up = (float(np.floor(centre[axis]) + 0.5) for axis in (plane.across, plane.up))
        reduced = pixels == self.largest
        return View(
            plane=plane,
            position=self.to_display(voxel)[plane.normal],
            centre=(across, up),
            side_mm=side_mm if reduced else pixels * finest,
            pixels=pixels,
            spacing_mm=(float(self.spacing_mm[plane.across]), float(self.spacing_mm[plane.up])),
        )

    def cut(self, volume: Volume, view: View) -> NDArray[np.float32]:
        """The volume's values in a view: (pixels, pixels), row 0 at the top, NaN outside the grid.

        Linear between voxels, and exact where pixels fall on voxels.
        """
        with np.errstate(over="ignore"):
            slab = self._slab(volume, view).astype(np.float32)
        slab[~np.isfinite(slab)] = np.nan
        for axis in (0, 1):
            slab = _resample_linear(slab, _places(view, axis), axis)
        return np.ascontiguousarray(slab.T[::-1])

    def cut_mask(self, mask: NDArray[np.bool_], view: View) -> NDArray[np.bool_]:
        """Like `cut`, for a mask: the value of the nearest voxel, False outside the grid."""
        slab = self._slab(mask, view)
        for axis in (0, 1):
            nearest = np.rint(_places(view, axis)).astype(int)
            valid = (nearest >= 0) & (nearest < slab.shape[axis])
            slab = np.take(slab, np.where(valid, nearest, 0), axis=axis)
            slab = slab & (valid[:, None] if axis == 0 else valid[None, :])
        return np.ascontiguousarray(slab.T[::-1])

    def grey(self, volume: Volume, view: View) -> NDArray[np.uint8]:
        """The volume in a view, as 8-bit grey in the shared window; what is not finite is black."""
        low, high = self.window
        scaled = (self.cut(volume, view) - np.float32(low)) * np.float32(255.0 / (high - low))
        limited = np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 255.0)
        pixels: NDArray[np.uint8] = np.rint(limited).astype(np.uint8)
        return pixels

    def _slab(self, volume: Volume, view: View) -> NDArray[Any]:
        """The cut at its own resolution: (across, up)."""
        where: list[Any] = [slice(None)] * 3
        where[view.plane.normal] = view.position
        slab: NDArray[Any] = self.shown(volume)[tuple(where)]
        return slab


def _places(view: View, axis: int) -> NDArray[np.float64]:
    """Where the pixels of one side of a view (0 across, 1 up) lie, in display voxels."""
    offsets = (np.arange(view.pixels) - (view.pixels - 1) / 2) * (view.side_mm / view.pixels)
    places = view.centre[axis] + offsets / view.spacing_mm[axis]
    snapped: NDArray[np.float64] = np.where(np.abs(places - np.rint(places)) < 1e-3, np.rint(places), places)
    return snapped


def _limit(volume: Volume | None, mask: NDArray[np.bool_]) -> float:
    """Percentile 99 of the absolute values inside a mask; 1 where there are none or all are 0."""
    if volume is None:
        return 1.0
    inside = volume[mask]
    values = np.abs(inside[np.isfinite(inside)])
    limit = float(np.percentile(values, 99)) if values.size else 0.0
    return limit or 1.0


def _resample_linear(
    slab: NDArray[np.float32], places: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    """Values at fractional places along one axis of a 2-D array; NaN more than half a voxel outside."""
    length = slab.shape[axis]
    inside = np.clip(places, 0, length - 1)
    lower = np.floor(inside).astype(int)
    upper = np.minimum(lower + 1, length - 1)
    share = (inside - lower).astype(np.float32)
    outside = (places < -0.5) | (places > length - 0.5)
    if axis == 0:
        share, outside = share[:, None], outside[:, None]
    first, second = np.take(slab, lower, axis=axis), np.take(slab, upper, axis=axis)
    # A plain weighted sum would spread a NaN to the pixel that sits exactly on its good neighbour.
    mixed = np.where(share == 0, first, first * (1 - share) + second * share)
    return np.where(outside, np.float32(np.nan), mixed).astype(np.float32)
