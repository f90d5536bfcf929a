"""The way from a scan's grid to the model's grid and back, each step with its inverse beside it.

The model sees axes in the order and direction nearest to right-anterior-superior (RAS), cubic voxels, and a
box whose sides are multiples of what the network needs. Nothing is ever rotated: an oblique scan keeps its
angles, and an axis whose spacing already fits is copied, not interpolated.

Two steps lead there, and both are plain index arithmetic that is easy to undo:

    Reorient   permute and flip the axes;
    Axis       along one axis: resample (or copy), then crop or pad to the model's box.

Only the voxels asked for are brought back (:meth:`Frame.to_scan`); no other voxel is touched.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromend.data.resample import Axis, Bools, Floats, Indices, Taps

AnyScalar = TypeVar("AnyScalar", bound=np.generic)
FloatScalar = TypeVar("FloatScalar", np.float32, np.float64)

FINEST_MM, COARSEST_MM = 1.0, 2.0  # the spacings of the scans that the default model learns from
POINTS_AT_ONCE = 2**14  # scan voxels brought back together: a few MB of intermediate values


def working_spacing_mm(scan_spacing_mm: ArrayLike) -> float:
    """The model's voxel size for a scan: its finest spacing, but within 1-2 mm."""
    return float(np.clip(np.min(scan_spacing_mm), FINEST_MM, COARSEST_MM))


@dataclass(frozen=True, slots=True)
class Reorient:
    """Permute and flip the axes of a scan to the nearest RAS.

    Args:
        order: model axis ``c`` runs along scan axis ``order[c]``.
        flips: whether model axis ``c`` runs against it.
    """

    order: tuple[int, ...]
    flips: tuple[bool, ...]

    @classmethod
    def of(cls, affine: Floats) -> Reorient:
        """The one of the 48 permutations and flips that comes nearest to RAS (largest trace).

        Ties, as in a scan turned by exactly 45 degrees, are settled by the turned axes themselves, so that
        the outcome does not depend on the order in which the voxels are stored.
        """
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)

        def nearness(candidate: Reorient) -> tuple[float, tuple[float, ...]]:
            turned = np.round(directions[:, candidate.order] * candidate.signs, 6)
            return round(float(np.trace(turned)), 5), tuple(turned.ravel().tolist())

        candidates = itertools.product(
            itertools.permutations(range(3)), itertools.product((False, True), repeat=3)
        )
        return max((cls(order, flips) for order, flips in candidates), key=nearness)

    @property
    def signs(self) -> NDArray[np.int_]:
        """+1 or -1 for each model axis."""
        return np.where(self.flips, -1, 1)

    @property
    def codes(self) -> str:
        """Where the scan's own axes point, for example ``"LPS"``."""
        away = (("RAS", "LPI")[flip][c] for c, flip in enumerate(self.flips))
        letters = dict(zip(self.order, away, strict=True))
        return letters[0] + letters[1] + letters[2]

    def to_model(self, volume: NDArray[AnyScalar]) -> NDArray[AnyScalar]:
        """The volume with its axes in model order: a view, (X, Y, Z)."""
        return volume.transpose(self.order)[tuple(slice(None, None, sign) for sign in self.signs)]

    def found_at(self, points: tuple[Indices, ...], shape: tuple[int, ...]) -> tuple[Indices, ...]:
        """Where in the reoriented volume the scan voxels ``points`` are: the inverse reads them there."""
        return tuple(
            shape[axis] - 1 - points[axis] if flip else points[axis]
            for axis, flip in zip(self.order, self.flips, strict=True)
        )

    def scan_of_model(self, shape: tuple[int, ...]) -> Floats:
        """The (4, 4) matrix from an index of the reoriented volume to an index of the scan of ``shape``."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for c, (axis, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            matrix[axis, c] = -1 if flip else 1
            matrix[axis, 3] = shape[axis] - 1 if flip else 0
        return matrix


@dataclass(frozen=True, eq=False)
class Frame:
    """The recorded way from one scan's grid to the model's grid and back.

    Args:
        scan_shape: voxels of the scan.
        scan_affine: (4, 4), scan index to RAS mm.
        reorient: the first step.
        axes: the second step, along each axis of the reoriented scan.
    """

    scan_shape: tuple[int, ...]
    scan_affine: Floats
    reorient: Reorient
    axes: tuple[Axis, ...]

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        affine: ArrayLike,
        *,
        spacing_mm: float | None = None,
        focus: Bools | None = None,
        margin_mm: float = 4.0,
        multiple: int = 16,
    ) -> Frame:
        """The frame for a scan.

        Args:
            shape: (x, y, z) of the scan.
            affine: (4, 4), scan index to RAS mm; it alone gives spacing and orientation.
            spacing_mm: the model's voxel size; by default :func:`working_spacing_mm` of the scan.
            focus: bool, the scan's shape: what the model must see, foreground or mask. Its bounding box and
                ``margin_mm`` around it are kept. ``None`` (or nothing True) keeps all.
            margin_mm: millimetres of the scan kept around the focus.
            multiple: each side of the model's box is a multiple of this many voxels.
        """
        affine = np.array(affine, dtype=np.float64)
        shape = tuple(int(count) for count in shape)
        reorient = Reorient.of(affine)
        scan_spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing_mm is None:
            spacing_mm = working_spacing_mm(scan_spacing)
        spans = bounding_box(focus) if focus is not None and focus.any() else tuple((0, n) for n in shape)
        axes = []
        for axis, flip in zip(reorient.order, reorient.flips, strict=True):
            low, high = spans[axis]
            span = (shape[axis] - high, shape[axis] - low) if flip else (low, high)
            spacing = float(scan_spacing[axis])
            axes.append(
                Axis.of(shape[axis], spacing, spacing_mm, span=span, margin_mm=margin_mm, multiple=multiple)
            )
        return cls(shape, affine, reorient, tuple(axes))

    @property
    def model_shape(self) -> tuple[int, ...]:
        """(X, Y, Z) of the model's box."""
        return tuple(axis.model_count for axis in self.axes)

    @property
    def model_affine(self) -> Floats:
        """(4, 4), model index to RAS mm of the scan."""
        resample = np.diag([*(axis.step for axis in self.axes), 1.0])
        resample[:3, 3] = [axis.origin for axis in self.axes]
        return self.scan_affine @ self.reorient.scan_of_model(self.scan_shape) @ resample

    @property
    def model_spacing_mm(self) -> tuple[float, ...]:
        """Millimetres between model voxels along X, Y, Z (a copied axis keeps the scan's own)."""
        return tuple(np.linalg.norm(self.model_affine[:3, :3], axis=0).tolist())

    def to_model(
        self, values: NDArray[Any], *, mask: Bools | None = None, fill: float = 0.0
    ) -> NDArray[np.float32]:
        """The scan on the model's grid.

        Args:
            values: (x, y, z), the scan; finite outside the mask, and within the range of float32.
            mask: bool, (x, y, z): voxels whose values must not matter. They are never read, and all of
                :meth:`mask_to_model` of it holds ``fill`` in the result.
            fill: the value of padding and of the hidden voxels.

        Returns:
            (X, Y, Z), float32.
        """
        where, steps = self._plan()
        source = self.reorient.to_model(values)[where]
        hidden = None if mask is None else self.reorient.to_model(mask)[where]
        block = np.full(source.shape, fill, dtype=np.float32)
        np.copyto(block, source, where=True if hidden is None else ~hidden, casting="same_kind")
        for dim, taps in enumerate(steps):
            if taps is not None:
                block = taps.blend(block, hidden, dim)
                hidden = None if hidden is None else taps.spread(hidden, dim)
        if hidden is not None:
            block[hidden] = fill
        return self._pad(block, fill)

    def mask_to_model(self, mask: Bools) -> Bools:
        """The mask on the model's grid, (X, Y, Z): every voxel whose value would need an in-mask scan voxel.

        Raises:
            ValueError: the mask leaves the model's box (the frame was made with a focus that lacks it).
        """
        if mask.any():
            self._require(tuple(np.array((low, high - 1)) for low, high in bounding_box(mask)))
        where, steps = self._plan()
        hidden = self.reorient.to_model(mask)[where]
        for dim, taps in enumerate(steps):
            hidden = hidden if taps is None else taps.spread(hidden, dim)
        return self._pad(hidden, False)

    def continue_holes(self, voided: NDArray[np.float32], hidden: Bools) -> None:
        """Where the mask touches the border of the scan, let scan and mask go on in the padding beyond.

        Otherwise the air of the padding, which nobody has seen, would pass for known and darken the fill.

        Args:
            voided: (X, Y, Z) from :meth:`to_model`, changed in place.
            hidden: (X, Y, Z) from :meth:`mask_to_model`, changed in place.
        """
        for dim, axis in enumerate(self.axes):
            for edge, beyond in ((axis.first, slice(0, axis.first)), (axis.stop - 1, slice(axis.stop, None))):
                if hidden.take(edge, dim).any():
                    for volume in (voided, hidden):
                        volume.swapaxes(0, dim)[beyond] = volume.swapaxes(0, dim)[edge]

    def to_scan(self, model_values: NDArray[FloatScalar], at: Bools) -> NDArray[FloatScalar]:
        """The inverse of :meth:`to_model`, evaluated only at the scan voxels ``at``.

        Args:
            model_values: (X, Y, Z).
            at: bool, the scan's shape.

        Returns:
            (count,), in the order of ``scan[at]``; copies along the axes that were copied, cubic
            interpolation (weights in float64) along the others.

        Raises:
            ValueError: ``at`` leaves the model's box.
        """
        points = np.nonzero(at)
        self._require(points)
        found = self.reorient.found_at(points, self.scan_shape)
        taps = [axis.to_scan() for axis in self.axes]
        result = np.empty(len(found[0]), dtype=model_values.dtype)
        for start in range(0, len(result), POINTS_AT_ONCE):
            part = slice(start, start + POINTS_AT_ONCE)
            i, j, k = (tap.indices[:, where[part]] for tap, where in zip(taps, found, strict=True))
            u, v, w = (tap.weights[:, where[part]] for tap, where in zip(taps, found, strict=True))
            read = model_values[i[:, None, None], j[None, :, None], k[None, None, :]]  # (taps x 3, points)
            along_x = ((read * w).sum(axis=2) * v).sum(axis=1)
            result[part] = (along_x * u).sum(axis=0)
        return result

    def describe(self) -> dict[str, Any]:
        """The frame in plain values, for the sidecar."""
        turned = self.model_affine[:3, :3] / np.array(self.model_spacing_mm)
        return {
            "scan_shape": list(self.scan_shape),
            "scan_axes": self.reorient.codes,
            "scan_spacing_mm": np.linalg.norm(self.scan_affine[:3, :3], axis=0).tolist(),
            "oblique_degrees": float(np.degrees(np.arccos(np.clip(turned.diagonal().min(), -1, 1)))),
            "model_shape": list(self.model_shape),
            "model_spacing_mm": list(self.model_spacing_mm),
            "model_affine": self.model_affine.tolist(),
            "interpolated_axes": "".join(
                name for name, axis in zip("XYZ", self.axes, strict=True) if not axis.copied
            ),
        }

    def _plan(self) -> tuple[tuple[slice, ...], list[Taps | None]]:
        """The part of the reoriented scan that is needed, and the interpolation along each axis."""
        plans = [axis.to_model() for axis in self.axes]
        return tuple(needed for needed, _ in plans), [taps for _, taps in plans]

    def _pad(self, block: NDArray[AnyScalar], fill: float) -> NDArray[AnyScalar]:
        """The block of model voxels that lie on the scan, inside the whole box."""
        box = np.full(self.model_shape, fill, dtype=block.dtype)
        box[tuple(slice(axis.first, axis.stop) for axis in self.axes)] = block
        return box

    def _require(self, points: tuple[Indices, ...]) -> None:
        """Refuse scan voxels that are not in the model's box."""
        found = self.reorient.found_at(points, self.scan_shape)
        if not all(axis.holds(index).all() for axis, index in zip(self.axes, found, strict=True)):
            raise ValueError(
                "some voxels lie outside the model's box: the focus of the frame must hold them all"
            )


def bounding_box(mask: Bools) -> tuple[tuple[int, int], ...]:
    """The smallest box that holds every True voxel: (first, one past the last) along each axis."""
    box = []
    for axis in range(mask.ndim):
        (places,) = np.nonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append((int(places[0]), int(places[-1]) + 1))
    return tuple(box)
