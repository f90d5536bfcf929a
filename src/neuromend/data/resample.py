"""One axis of the way between a scan's grid and the model's: interpolate (or copy), then crop or pad.

Interpolation is one-dimensional and applied axis by axis, as a table of places to read and their weights
(:class:`Taps`). Kernels are local, a few voxels wide, so that nothing inside a lesion mask can reach a
voxel away from it (a spline with a prefilter would smear every voxel over the whole axis).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

SAME_SPACING = 0.05  # an axis this close (relatively) to the wanted spacing is copied, not interpolated
HALO_VOXELS = 2  # model voxels kept around the focus, so that no interpolation runs out of the box


@dataclass(frozen=True, slots=True)
class Taps:
    """A one-dimensional interpolation: out[j] = sum over k of weights[k, j] * values[indices[k, j]].

    Args:
        indices: (taps, n), the places read.
        weights: (taps, n), adding up to 1 over the taps.
        core: the taps without which there is no value. If one of these is hidden (in the mask), the result
            is hidden; any other hidden tap is replaced by the core tap next to it, just as a place beyond
            the end of the volume is replaced by the last one within.
    """

    indices: Indices
    weights: Floats
    core: range

    @classmethod
    def cubic(cls, positions: Floats, count: int) -> Taps:
        """Catmull-Rom interpolation of ``count`` samples at ``positions`` (in samples; Keys 1981, a = -1/2).

        In the first and last interval, and beyond them, the line through the two samples at the end. Exact
        for straight lines everywhere, and four samples wide: a value never depends on anything farther.
        """
        base = np.clip(np.floor(positions), 0, max(count - 2, 0))
        t = positions - base
        inner = (base >= 1) & (base <= count - 3)
        weights = np.stack(
            [
                np.where(inner, ((-0.5 * t + 1) * t - 0.5) * t, 0),
                np.where(inner, (1.5 * t - 2.5) * t * t + 1, 1 - t),
                np.where(inner, ((-1.5 * t + 2) * t + 0.5) * t, t),
                np.where(inner, (0.5 * t - 0.5) * t * t, 0),
            ]
        )
        indices = base.astype(np.intp) + np.arange(-1, 3)[:, None]
        return cls(np.clip(indices, 0, count - 1), weights, core=range(1, 3))

    @classmethod
    def area(cls, positions: Floats, step: float, count: int) -> Taps:
        """Samples taken ``step`` > 1 apart without aliasing: a mean of the linear interpolation around each.

        A sample of width 1 must become one of width ``step``; variances of box filters add, so the mean is
        over sqrt(step^2 - 1). The weights are differences of the integral of the tent function.
        """

        def integral_of_tent(u: Floats) -> Floats:
            u = np.clip(u, -1, 1)
            return np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)

        width = math.sqrt(step**2 - 1)
        low, high = positions - width / 2, positions + width / 2
        taps = math.ceil(width) + 2
        indices = np.floor(low) + np.arange(taps)[:, None]
        weights = (integral_of_tent(high - indices) - integral_of_tent(low - indices)) / width
        return cls(np.clip(indices, 0, count - 1).astype(np.intp), weights, core=range(taps))

    def blend(self, values: NDArray[np.float32], hidden: Bools | None, dim: int) -> NDArray[np.float32]:
        """Interpolate ``values`` along axis ``dim``, reading no hidden voxel for a shown one."""
        along = tuple(-1 if axis == dim else 1 for axis in range(values.ndim))
        total: NDArray[np.float32] | None = None
        for k, (indices, weights) in enumerate(zip(self.indices, self.weights, strict=True)):
            part = values.take(indices, axis=dim)
            if hidden is not None and k not in self.core:
                next_core = self.core[0] if k < self.core[0] else self.core[-1]
                away = hidden.take(indices, axis=dim)
                np.copyto(part, values.take(self.indices[next_core], axis=dim), where=away)
            part *= weights.astype(np.float32).reshape(along)
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None  # there is at least one tap
        return total

    def spread(self, hidden: Bools, dim: int) -> Bools:
        """Which results along axis ``dim`` are hidden: those with a hidden voxel under a core tap."""
        along = tuple(-1 if axis == dim else 1 for axis in range(hidden.ndim))
        result: Bools | None = None
        for k in self.core:
            read = hidden.take(self.indices[k], axis=dim) & (self.weights[k] != 0).reshape(along)
            result = read if result is None else np.logical_or(result, read, out=result)
        assert result is not None  # there is at least one core tap
        return result


@dataclass(frozen=True, slots=True)
class Axis:
    """The map along one (reoriented) axis; the centres of both grids coincide before the crop.

    Args:
        scan_count: voxels of the scan.
        model_count: voxels of the model's box, a multiple of what the network needs.
        step: scan voxels per model voxel; exactly 1 where the axis is copied.
        origin: the scan coordinate (in scan voxels) of model voxel 0.
        first, stop: the model voxels ``first <= j < stop`` lie on the scan, the others are padding.
    """

    scan_count: int
    model_count: int
    step: float
    origin: float
    first: int
    stop: int

    @classmethod
    def of(
        cls,
        scan_count: int,
        scan_spacing_mm: float,
        spacing_mm: float,
        *,
        span: tuple[int, int],
        margin_mm: float,
        multiple: int,
    ) -> Axis:
        """The axis that keeps the scan voxels ``span[0] <= i < span[1]`` and ``margin_mm`` around them."""
        copied = abs(scan_spacing_mm / spacing_mm - 1) <= SAME_SPACING
        step = 1.0 if copied else spacing_mm / scan_spacing_mm
        # A thousandth of a voxel of rounding in the header must not add a whole voxel.
        whole = max(1, math.ceil(scan_count / step - 1e-3))
        start_of_whole = (scan_count - 1) / 2 - step * (whole - 1) / 2
        margin = margin_mm / (step * scan_spacing_mm) + HALO_VOXELS
        low = max(0, math.floor((span[0] - start_of_whole) / step - margin))
        high = min(whole, math.ceil((span[1] - 1 - start_of_whole) / step + margin) + 1)
        model_count = multiple * math.ceil((high - low) / multiple)
        if model_count <= whole:  # fill the box up with more of the scan, as evenly as its borders allow
            start = min(max(0, low - (model_count - (high - low)) // 2), whole - model_count)
        else:
            start = -((model_count - whole) // 2)
        first, stop = max(0, -start), min(model_count, whole - start)
        return cls(scan_count, model_count, step, start_of_whole + step * start, first, stop)

    @property
    def copied(self) -> bool:
        """Whether model voxels are scan voxels, so that nothing is interpolated."""
        return self.step == 1

    def to_model(self) -> tuple[slice, Taps | None]:
        """The scan voxels that are needed, and how model voxels first..stop are read from them.

        ``None`` where they are copied. Beyond the outermost scan voxel its own value is continued.
        """
        # Rounded, so that a model voxel that lies on a scan voxel does not read its neighbour by 1e-16.
        positions = np.round(self.origin + self.step * np.arange(self.first, self.stop), 9)
        if self.copied:
            return slice(int(positions[0]), int(positions[-1]) + 1), None
        if self.step > 1:
            taps = Taps.area(positions, self.step, self.scan_count)
        else:
            taps = Taps.cubic(np.clip(positions, 0, self.scan_count - 1), self.scan_count)
        lowest = int(taps.indices.min())
        needed = slice(lowest, int(taps.indices.max()) + 1)
        return needed, Taps(taps.indices - lowest, taps.weights, taps.core)

    def to_scan(self) -> Taps:
        """The inverse: how all ``scan_count`` scan voxels are read from model voxels, never from padding."""
        positions = self.position(np.arange(self.scan_count))
        if self.copied:
            whole = np.clip(positions.astype(np.intp), self.first, self.stop - 1)
            return Taps(whole[None], np.ones((1, self.scan_count)), core=range(1))
        taps = Taps.cubic(positions - self.first, self.stop - self.first)
        return Taps(taps.indices + self.first, taps.weights, taps.core)

    def position(self, scan_index: Indices) -> Floats:
        """The model coordinate of scan voxels."""
        return np.asarray((scan_index - self.origin) / self.step, dtype=np.float64)

    def holds(self, scan_index: Indices) -> Bools:
        """Whether scan voxels lie in the model's box."""
        position = self.position(scan_index)
        return (position > self.first - 0.51) & (position < self.stop - 0.49)
