"""Intensity normalisation, estimated outside the mask only (so that the fill is blind to the lesion).

A scan is mapped linearly so that its background is about 0 and its bright tissue about 1. The map is
shift- and scale-invariant, it never clips, and it is undone exactly (up to rounding) after sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLE = 2_000_000
"""Percentiles are taken on at most about this many voxels, evenly strided."""

LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.5
FOREGROUND_FRACTION = 0.1
"""A voxel is foreground if it lies above this fraction of the full robust range."""


CONSTANT_AIR_SHARE = 0.3
"""A scan with a larger share of exactly equal voxels counts as skull-stripped."""

DARKER_SHARE = 0.02
"""Share of voxels darker than the air above which air is not the dark end (less is noise or ringing)."""


@dataclass(frozen=True, slots=True)
class IntensityScale:
    """The linear map between a scan's own units and the model's: ``(value - low) / (high - low)``.

    Attributes:
        low, high: what becomes 0 and 1.
        background: the exact value of the air of a skull-stripped scan whose air is not its darkest value
            (z-scored scans: air is 0, dark tissue below it); it becomes 0 too. None for all others.
    """

    low: float
    high: float
    background: float | None = None

    @classmethod
    def estimate(cls, values: NDArray[np.floating], known: NDArray[np.bool_]) -> IntensityScale:
        """Estimate the map from the finite voxels where ``known`` is True.

        Args:
            values: (x, y, z) intensities in the scan's units.
            known: (x, y, z) True where a voxel may be looked at (outside the lesion mask).

        Returns:
            ``low`` = 0.1 percentile of all known voxels; ``high`` = 99.5 percentile of the foreground
            (known voxels above a tenth of the range from ``low`` to the 99.9 percentile).
            A constant image gives ``high = low + 1``.
        """
        flat, seen = values.reshape(-1), known.reshape(-1)
        stride = max(1, flat.size // MAX_SAMPLE)
        sample = flat[::stride][seen[::stride]].astype(np.float64)
        sample = sample[np.isfinite(sample)]
        if sample.size < 1000:  # a tiny volume or a huge mask: look at every known voxel
            sample = flat[seen].astype(np.float64)
            sample = sample[np.isfinite(sample)]
        if sample.size == 0:
            return cls(0.0, 1.0)
        air = _constant_air(values, known, sample)
        if air is not None:
            sample = sample[sample != air]
        low, top = np.percentile(sample, [LOW_PERCENTILE, 99.9])
        foreground = sample[sample > low + FOREGROUND_FRACTION * (top - low)]
        high = np.percentile(foreground, HIGH_PERCENTILE) if foreground.size else top
        if not high > low:
            return cls(float(low), float(low) + 1.0, air)
        return cls(float(low), float(high), air)

    def normalise(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scan units -> model units, computed in float64.

        Voxels that are not finite, or are beyond float32, become 0 (background).
        """
        with np.errstate(over="ignore"):
            scaled = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        usable = np.abs(scaled) < np.finfo(np.float32).max  # False for NaN
        if self.background is not None:
            usable &= values != self.background
        return np.where(usable, scaled, 0.0).astype(np.float32)

    def restore(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Model units -> scan units, in float64 (the inverse of :meth:`normalise`)."""
        return np.asarray(values, np.float64) * (self.high - self.low) + self.low


def _constant_air(
    values: NDArray[np.floating], known: NDArray[np.bool_], sample: NDArray[np.float64]
) -> float | None:
    """The one value of the air, if much of the scan has exactly it, the corners too, and tissue is darker."""
    corners = tuple(slice(None, None, max(1, n - 1)) for n in values.shape)
    found = np.unique(values[corners][known[corners]])
    if found.size != 1 or not np.isfinite(found[0]):
        return None
    air = float(found[0])
    is_common = np.mean(sample == air) > CONSTANT_AIR_SHARE
    return air if is_common and np.mean(sample < air) > DARKER_SHARE else None
