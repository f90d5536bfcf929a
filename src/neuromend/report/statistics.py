"""Numbers that tell whether a fill resembles its surroundings: intensity, gradient, seam, histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromend.report.case import Box, Lesion, ReportCase

RING_MM = 5.0
"""Width of the ring of measured tissue that a fill is compared with: cortex (2-4 mm) and what borders it."""

BINS = 32


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of some voxels, in the scan's units; NaN where there are none."""

    mean: float
    deviation: float


@dataclass(frozen=True, eq=False)
class LesionStatistics:
    """A lesion and its fill against the ring of tissue around it.

    Args:
        inside_before: intensities of the lesion as it was read.
        inside_after: intensities of the fill.
        ring: intensities of the ring outside (every mask voxel and the background left out).
        gradient_before, gradient_after, gradient_ring: mean absolute difference of face neighbours, both
            inside the lesion (before, after) or both in the ring: the texture's strength.
        seam: mean absolute difference across the boundary of the fill, divided by `gradient_ring`: 1 where
            the boundary is as smooth as the tissue around, above 2 where a seam is likely to be visible.
        edges: the histograms' bin edges, `BINS` + 1.
        histograms: voxels per bin, normalised to sum 1: ring, lesion before, fill.
    """

    inside_before: Spread
    inside_after: Spread
    ring: Spread
    gradient_before: float
    gradient_after: float
    gradient_ring: float
    seam: float
    edges: NDArray[np.float64]
    histograms: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def lesion_statistics(case: ReportCase, lesion: Lesion, window: tuple[float, float]) -> LesionStatistics:
    """Compare the fill of one lesion with the tissue around it.

    Args:
        case: the filled scan.
        lesion: which lesion; other lesions that reach into its box count as mask, not as ring.
        window: the range of the histograms; values beyond it fall into the first or last bin.
    """
    reach = [max(1, round(RING_MM / spacing)) for spacing in case.spacing_mm]
    box = _grown(lesion.box, reach, case.mask.shape)
    before = case.before[box].astype(np.float64)
    after = case.after[box].astype(np.float64)
    mask = case.mask[box]
    finite = np.isfinite(before)
    background = before == case.background
    inner = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(lesion.box, box, strict=True))
    inside = np.zeros_like(mask)
    inside[inner] = mask[inner]
    ring = _dilated(inside, reach) & ~mask & finite & ~background

    gradient_ring = _mean_step(after, ring, ring)
    across = _mean_step(after, inside, ring)
    low, high = window
    edges = np.linspace(low, high, BINS + 1)
    return LesionStatistics(
        inside_before=_spread(before[inside & finite]),
        inside_after=_spread(after[inside]),
        ring=_spread(before[ring]),
        gradient_before=_mean_step(before, inside & finite, inside & finite),
        gradient_after=_mean_step(after, inside, inside),
        gradient_ring=gradient_ring,
        seam=across / gradient_ring if gradient_ring > 0 else float("nan"),
        edges=edges,
        histograms=(
            _histogram(before[ring], edges),
            _histogram(before[inside & finite], edges),
            _histogram(after[inside], edges),
        ),
    )


def _grown(box: Box, reach: list[int], shape: tuple[int, ...]) -> Box:
    """A box wider by `reach` voxels on every side, within the volume."""
    sides = [
        slice(max(0, side.start - more), min(length, side.stop + more))
        for side, more, length in zip(box, reach, shape, strict=True)
    ]
    return sides[0], sides[1], sides[2]


def _dilated(mask: NDArray[np.bool_], reach: list[int]) -> NDArray[np.bool_]:
    """The mask grown by `reach` voxels along every axis (a box: separable, hence fast)."""
    grown = mask
    for axis, steps in enumerate(reach):
        moved = np.moveaxis(grown, axis, 0)
        result = moved.copy()
        for step in range(1, min(steps, len(moved) - 1) + 1):
            result[step:] |= moved[:-step]
            result[:-step] |= moved[step:]
        grown = np.moveaxis(result, 0, axis)
    return grown


def _mean_step(values: NDArray[np.float64], one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Mean absolute difference of face neighbours of which one lies in `one`, the other in `other`."""
    total, count = 0.0, 0
    for axis in range(3):
        image = np.moveaxis(values, axis, 0)
        first, second = np.moveaxis(one, axis, 0), np.moveaxis(other, axis, 0)
        pairs = (first[1:] & second[:-1]) | (second[1:] & first[:-1])
        total += float(np.abs(image[1:][pairs] - image[:-1][pairs]).sum())
        count += int(pairs.sum())
    return total / count if count else float("nan")


def _spread(values: NDArray[np.float64]) -> Spread:
    if not values.size:
        return Spread(float("nan"), float("nan"))
    return Spread(float(values.mean()), float(values.std()))


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0]
    return counts / max(1, int(counts.sum()))
