"""Where the head (or the skull-stripped brain) is, told from the voxels outside a mask only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from neuromend.data.volume import Volume

COARSE_MM = 3.0  # the head is found on every n-th voxel, about this far apart
CLOSING_MM = 6.0  # sulci and gaps narrower than twice this belong to the head
# With fewer than a fifth of other voxels among it, scattered noise cannot join into a large piece (site
# percolation on a cubic lattice: 0.31), so "differs from the background value" is a sound rule for the head.
BACKGROUND_SHARE = 0.8

# 49 axes, both ways: enough planes that the polytope around a head is within a few mm of its convex hull.
_DIRECTIONS = np.array([d for d in product(range(-2, 3), repeat=3) if gcd(*d) == 1], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Head:
    """What the voxels outside the mask tell about where the head (or the stripped brain) is.

    Args:
        step: (3,) the coarse grid holds every ``step``-th voxel.
        tissue: coarse (x, y, z), True in the head, closed and with its holes filled.
        known: coarse (x, y, z), True where the mask hides nothing.
        directions: (n, 3) unit vectors, in mm along the voxel axes.
        reach_mm: (n,) how far the head goes along each direction, with one coarse voxel to spare.
        spacing_mm: (3,) of the image.
    """

    step: NDArray[np.int_]
    tissue: NDArray[np.bool_]
    known: NDArray[np.bool_]
    directions: NDArray[np.float64]
    reach_mm: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]

    @property
    def volume_ml(self) -> float:
        """Volume of the head outside the mask."""
        return float(np.count_nonzero(self.tissue & self.known) * np.prod(self.step * self.spacing_mm) / 1000)

    def box(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """(x, y, z) bool of ``shape``: the box that holds the head, on the image's own grid."""
        inside = np.zeros(shape, dtype=np.bool_)
        low, high = np.argwhere(self.tissue).min(axis=0), np.argwhere(self.tissue).max(axis=0)
        start, stop = low * self.step, (high + 1) * self.step
        inside[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))] = True
        return inside

    def surrounds(self, points: NDArray[np.int_], hidden_mm: float) -> NDArray[np.bool_]:
        """Whether voxels (n, 3) lie inside the convex outline of the head.

        Args:
            points: voxel indices.
            hidden_mm: half the width of what the mask hides around these points. Where it hides a cap of the
                head, the outline is flat, and the cap rises above it as on a sphere of the head's volume.
        """
        voxels = np.count_nonzero(self.tissue | ~self.known)
        radius = np.cbrt(voxels * np.prod(self.step * self.spacing_mm) * 3 / (4 * np.pi))
        rise = radius - np.sqrt(np.maximum(radius**2 - hidden_mm**2, 0.0))
        along = (points * self.spacing_mm) @ self.directions.T
        inside: NDArray[np.bool_] = np.all(along <= self.reach_mm + rise, axis=1)
        return inside

    def share_of_known(self, points: NDArray[np.int_]) -> float:
        """Share of voxels (n, 3) in the head, of those the mask does not hide; 1 if it hides them all."""
        index = np.rint(points / self.step).astype(np.intp)
        index = np.clip(index, 0, np.array(self.tissue.shape) - 1)
        known = self.known[tuple(index.T)]
        return float(self.tissue[tuple(index.T)][known].mean()) if known.any() else 1.0


def find_head(image: Volume, hidden: NDArray[np.bool_]) -> Head | None:
    """Find the head from the voxels outside ``hidden``; None where nothing stands out from the background.

    Skull-stripped scans have one exact background value, and the head is what differs from it. Otherwise
    Otsu's threshold (doi 10.1109/TSMC.1979.4310076) parts head and air. The largest piece is kept.
    """
    spacing = np.asarray(image.spacing_mm, dtype=np.float64)
    step = np.maximum(np.rint(COARSE_MM / spacing).astype(int), 1)
    coarse = tuple(slice(None, None, int(n)) for n in step)
    values = np.asarray(image.values[coarse], dtype=np.float64)
    unhidden = ~hidden[coarse]
    foreground = _foreground(values, unhidden & np.isfinite(values))
    tissue = _largest_piece(foreground, ~unhidden)
    if not tissue.any():
        return None
    margin = max(1, round(CLOSING_MM / float((step * spacing).min())))
    # Without the rim a closing would erode what touches the border of the volume.
    padded = ndimage.binary_closing(np.pad(tissue, margin), iterations=margin)
    tissue = _without_holes(padded[(slice(margin, -margin),) * 3] | tissue)
    directions = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
    places = np.argwhere(tissue & unhidden) * (step * spacing)
    reach = (places @ directions.T).max(axis=0) + float((step * spacing).max())
    return Head(step, tissue, unhidden, directions, reach, spacing)


def _without_holes(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(np.pad(~tissue, 1, constant_values=True))
    # The air around the padded volume comes first, so every other piece of background is a hole.
    filled: NDArray[np.bool_] = labels[1:-1, 1:-1, 1:-1] != 1
    return filled


def _foreground(values: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The usable coarse voxels that stand out from the background."""
    rim = np.ones(values.shape, dtype=np.bool_)
    rim[1:-1, 1:-1, 1:-1] = False
    found, counts = np.unique(values[rim & usable], return_counts=True)
    if counts.size and counts.max() >= BACKGROUND_SHARE * counts.sum():
        stands_out: NDArray[np.bool_] = values != float(found[np.argmax(counts)])
        return usable & stands_out
    if not usable.any():
        return usable
    return usable & (values > _otsu(values[usable]))


def _otsu(values: NDArray[np.float64]) -> float:
    """Otsu's threshold; the brightest half per cent counts as equally bright."""
    top = float(np.quantile(values, 0.995))
    counts, edges = np.histogram(np.minimum(values, top), bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(counts * centres)[:-1]
    above, sum_above = values.size - below, np.sum(counts * centres) - sum_below
    difference = sum_below / np.maximum(below, 1) - sum_above / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * difference**2))])


def _largest_piece(foreground: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # What the mask hides joins pieces: a hidden lesion may cut the brain in two.
    labels, _ = ndimage.label(foreground | hidden)
    sizes = np.bincount(labels[foreground], minlength=1)
    largest: NDArray[np.bool_] = foreground & (labels == int(np.argmax(sizes)))
    return largest
