"""Shapes of lesions to plant into healthy brains: tumour-like blobs, and real masks in MNI space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation


def random_blob(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    volume_ml: float,
    spacing_mm: float,
    *,
    roughness: float = 0.35,
) -> NDArray[np.bool_]:
    """A tumour-like blob: a randomly turned ellipsoid with a smooth random surface.

    Args:
        rng: source of randomness; the same state gives the same blob.
        shape: (x, y, z) of the array returned.
        centre: voxel coordinates of the blob's centre.
        volume_ml: volume, exact to the voxel (at least one is set) before it is cut at the border of the array.
            Specks that a rough surface splits off are dropped (on average 0.04 % of the volume at the default
            roughness, 1 % at 0.6).
        spacing_mm: edge of the (cubic) voxels.
        roughness: relative amplitude of the surface's bumps (0 = ellipsoid).

    Returns:
        bool array of ``shape``.
    """
    voxels = max(1, round(volume_ml * 1000 / spacing_mm**3))
    radius = (voxels * 3 / (4 * np.pi)) ** (1 / 3)
    axes = rng.uniform(0.7, 1.4, 3)
    axes /= axes.prod() ** (1 / 3)
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    half = int(np.ceil(radius * 2.1)) + 2
    offset = np.asarray(centre) - np.round(centre)
    along = (np.arange(-half, half + 1) - offset[:, None]).astype(np.float32)
    grid = np.empty((2 * half + 1,) * 3 + (3,), np.float32)
    grid[..., 0], grid[..., 1], grid[..., 2] = along[0][:, None, None], along[1][:, None], along[2]
    scaled = grid @ (turn / axes).astype(np.float32)
    np.square(scaled, out=scaled)
    ellipsoid = np.sqrt(scaled[..., 0] + scaled[..., 1] + scaled[..., 2])
    knots = int(rng.integers(5, 9))
    bumps = rng.standard_normal((knots, knots, knots)).astype(np.float32)
    bumps = ndimage.zoom(bumps, grid.shape[0] / knots, order=1, mode="nearest", grid_mode=True)[
        : grid.shape[0], : grid.shape[1], : grid.shape[2]
    ]
    distance = ellipsoid / radius + roughness * bumps
    chosen = distance <= np.partition(distance.reshape(-1), voxels - 1)[voxels - 1]
    labels, count = ndimage.label(chosen)
    if count > 1:  # keep one piece: the largest
        chosen = labels == 1 + int(np.argmax(np.bincount(labels.reshape(-1))[1:]))
    return _paste(chosen, np.round(centre).astype(int) - half, shape)


@dataclass(frozen=True, eq=False, slots=True)
class LesionShape:
    """A real lesion mask, cropped to its box.

    Attributes:
        voxels: bool (x, y, z).
        affine: voxel index of the crop -> MNI mm (RAS).
        volume_ml: its volume in MNI space.
    """

    voxels: NDArray[np.bool_]
    affine: NDArray[np.float64]
    volume_ml: float

    @classmethod
    def read(cls, path: Path) -> LesionShape:
        """Read a mask in MNI space; any value above 0 counts (raises ValueError if there is none)."""
        image = nib.load(path)
        mask = np.asanyarray(image.dataobj) > 0  # type: ignore[attr-defined]
        axes = range(mask.ndim)
        sides = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
        if not sides[0].size:
            raise ValueError(f"{path}: the mask is empty")
        box = tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
        affine = np.array(image.affine, np.float64)  # type: ignore[attr-defined]
        affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
        voxels = mask[box].copy()
        return cls(voxels, affine, float(voxels.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000))

    def placed(self, shape: tuple[int, int, int], to_mni: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The mask on another grid, by nearest neighbour.

        Args:
            shape: (x, y, z) of the grid.
            to_mni: (4, 4) voxel index of that grid -> MNI mm.
        """
        matrix = np.linalg.inv(self.affine) @ to_mni
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in self.voxels.shape], indexing="ij")).reshape(
            3, -1
        )
        back = np.linalg.inv(matrix)
        reach = back[:3, :3] @ corners + back[:3, 3:]
        lo = np.clip(np.floor(reach.min(1)).astype(int), 0, shape)
        hi = np.clip(np.ceil(reach.max(1)).astype(int) + 1, 0, shape)
        out = np.zeros(shape, bool)
        if (hi > lo).all():
            shifted = matrix[:3, :3] @ lo + matrix[:3, 3]
            size = tuple(int(n) for n in hi - lo)
            out[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] = (
                ndimage.affine_transform(self.voxels.astype(np.uint8), matrix[:3, :3], shifted, size, order=0)
                > 0
            )
        return out


def _paste(
    small: NDArray[np.bool_], corner: NDArray[np.int_], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Put a small array into an empty one, cutting what falls outside."""
    out = np.zeros(shape, bool)
    lo, hi = np.clip(corner, 0, shape), np.clip(corner + small.shape, 0, shape)
    if (hi > lo).all():
        inside = tuple(slice(a - c, b - c) for a, b, c in zip(lo, hi, corner, strict=True))
        out[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] = small[inside]
    return out
