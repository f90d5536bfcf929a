"""Where white-matter lesions can lie: the white matter, divided by what is near.

The sites are those of the criteria for multiple sclerosis (Filippi et al. 2016, Lancet Neurol. 15: 292-303):
periventricular, juxtacortical, infratentorial; what is none of them is deep white matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

SITES = ("periventricular", "juxtacortical", "infratentorial", "deep")

PERIVENTRICULAR_MM, JUXTACORTICAL_MM = 3.0, 2.0
"""A lesion that comes this near to a ventricle, or else to the cortex, belongs there."""

VENTRICLE_DEPTH_MM = 22.0
"""Where three tissues are all that is known: fluid this far inside the brain is a ventricle, not a sulcus."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What the placing of lesions must know of a brain.

    Attributes:
        white: (x, y, z) True in white matter, with brainstem and cerebellum.
        infratentorial: (x, y, z) True below the tentorium; meaningful in the brain.
        to_ventricle_mm, to_cortex_mm: (x, y, z) distances.
        spacing_mm: voxel size along the three axes.
    """

    white: Mask
    infratentorial: Mask
    to_ventricle_mm: NDArray[np.float32]
    to_cortex_mm: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of_map(cls, tissue: NDArray[Any], spacing_mm: Sequence[float]) -> Anatomy:
        """From a map of classes as ``neuromend.sites`` lists them.

        Args:
            tissue: (x, y, z): 1 ventricle, 2 cortex, 3 and 9 white matter, 4 deep grey matter, 5 and 6 grey and white
                matter of the cerebellum, 7 brainstem.
            spacing_mm: voxel size along the three axes.
        """
        known = (tissue > 0) & (tissue != 8)
        nearest = ndimage.distance_transform_edt(
            ~known, sampling=spacing_mm, return_distances=False, return_indices=True
        )
        below = np.isin(tissue, (5, 6, 7))[tuple(nearest)]
        white = np.isin(tissue, (3, 6, 7, 9))
        return cls._with(white, below, tissue == 1, tissue == 2, spacing_mm)

    @classmethod
    def of_tissues(cls, labels: NDArray[Any], affine: NDArray[np.float64], plane: Sequence[float]) -> Anatomy:
        """From three tissues: 1 fluid, 2 grey matter, 3 white matter. Coarser than ``of_map``.

        Args:
            labels: (x, y, z) from ``neuromend.tissue.segment``.
            affine: (4, 4), voxel index to RAS mm.
            plane: (c, y, z): a place is infratentorial where c + y * Y + z * Z > 0, with Y and Z the place in the box
                of the brain, 0 to 1 from back to front and from bottom to top.
        """
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        brain = labels > 0
        depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
        ventricle = (labels == 1) & (depth >= VENTRICLE_DEPTH_MM)
        places = np.argwhere(brain) @ affine[1:3, :3].T + affine[1:3, 3]
        low, high = places.min(axis=0), places.max(axis=0)
        place = (places - low) / np.maximum(high - low, 1e-6)
        below = np.zeros(labels.shape, bool)
        below[brain] = plane[0] + place @ np.asarray(plane[1:]) > 0
        cortex = (labels == 2) & ~below & (depth <= VENTRICLE_DEPTH_MM)
        return cls._with(labels == 3, below, ventricle, cortex, spacing)

    @classmethod
    def _with(
        cls, white: Mask, below: Mask, ventricle: Mask, cortex: Mask, spacing_mm: Sequence[float]
    ) -> Anatomy:
        x, y, z = (float(edge) for edge in spacing_mm)
        return cls(white, below, _distance(ventricle, (x, y, z)), _distance(cortex, (x, y, z)), (x, y, z))

    def site_of(self, lesion: Mask | tuple[NDArray[np.intp], ...]) -> str:
        """The site of a lesion, as a mask or as indices: by most of it, then by its nearest voxel."""
        if np.mean(self.infratentorial[lesion]) > 0.5:
            return "infratentorial"
        if self.to_ventricle_mm[lesion].min() <= PERIVENTRICULAR_MM:
            return "periventricular"
        return "juxtacortical" if self.to_cortex_mm[lesion].min() <= JUXTACORTICAL_MM else "deep"

    def room(self, site: str) -> tuple[Mask, Mask]:
        """Where a lesion of a site may begin, and where it may spread to; both (x, y, z)."""
        near_ventricle = self.to_ventricle_mm <= PERIVENTRICULAR_MM
        near_cortex = self.to_cortex_mm <= JUXTACORTICAL_MM
        above = self.white & ~self.infratentorial
        if site == "infratentorial":
            whole = self.white & self.infratentorial
            return whole, whole
        if site == "periventricular":
            return above & near_ventricle, above
        if site == "juxtacortical":
            return above & near_cortex & ~near_ventricle, above & ~near_ventricle
        return above & ~near_cortex & ~near_ventricle, above & ~near_cortex & ~near_ventricle


def _distance(target: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Millimetres to the nearest voxel of the target; far, where there is none."""
    if not target.any():
        return np.full(target.shape, 1e3, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~target, sampling=spacing_mm), np.float32)
