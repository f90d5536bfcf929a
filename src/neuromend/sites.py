"""Where in the brain a hole lies, from a map of tissue classes.

White matter deep inside is easy to invent, a cortex or the border of a ventricle is not; so scores are shown
by site. The site of a hole is the anatomy at its innermost voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from neuromend.metrics import Mask, bounding_box

# Classes of a tissue map: 1 ventricle, 2 cortical grey matter, 3 cerebral white matter, 4 deep grey matter, 5
# and 6 grey and white matter of the cerebellum, 7 brainstem, 9 white-matter hypointensity. What none names
# (0 background, 8 unlabelled) takes the nearest site.
SITES: dict[str, tuple[int, ...]] = {
    "cortex": (2,),
    "white-matter": (3, 9),
    "deep-grey": (4,),
    "ventricle-border": (1,),
    "cerebellum": (5, 6),
    "brainstem": (7,),
}
VENTRICLE_BORDER_MM = 3.0  # white matter and deep grey this near to a ventricle belong to its border
REACH_MM = 20.0  # how far from a hole its site is looked for


def site_map(tissue: npt.NDArray[Any], spacing_mm: float | Sequence[float]) -> npt.NDArray[np.int_]:
    """The index into ``SITES`` at every voxel (x, y, z) of a tissue map, also outside the brain.

    Args:
        tissue: (x, y, z), classes as in ``SITES``; at least one voxel must have one of them.
        spacing_mm: voxel size, one for all axes or one an axis.
    """
    sampling = np.broadcast_to(spacing_mm, 3)
    sites = np.full(tissue.shape, -1)
    for index, classes in enumerate(SITES.values()):
        sites[np.isin(tissue, classes)] = index
    names = list(SITES)
    if (tissue == 1).any():
        near = distance_transform_edt(tissue != 1, sampling=sampling) <= VENTRICLE_BORDER_MM
        soft = (sites == names.index("white-matter")) | (sites == names.index("deep-grey"))
        sites[near & soft] = names.index("ventricle-border")
    nearest = distance_transform_edt(
        sites < 0, sampling=sampling, return_distances=False, return_indices=True
    )
    found: npt.NDArray[np.int_] = sites[tuple(nearest)]
    return found


def site_of(mask: Mask, sites: npt.NDArray[np.int_], spacing_mm: float | Sequence[float] = 1.0) -> str:
    """The site at the innermost voxel of a hole (the first in memory, of equals)."""
    box = bounding_box(mask, (0, 0, 0))
    depth = distance_transform_edt(np.pad(mask[box], 1), sampling=np.broadcast_to(spacing_mm, 3))
    depth = depth[1:-1, 1:-1, 1:-1]
    return list(SITES)[int(sites[box].reshape(-1)[int(np.argmax(depth))])]


def hole_site(mask: Mask, tissue: npt.NDArray[Any], spacing_mm: Sequence[float]) -> str | None:
    """``site_of`` from a map of the surroundings only, which is many times faster.

    Args:
        mask: (x, y, z), True in the hole, not empty.
        tissue: (x, y, z), classes as in ``SITES``.
        spacing_mm: voxel size along the three axes.

    Returns:
        A key of ``SITES``; None where no class is found within ``REACH_MM`` of the hole's box.
    """
    box = bounding_box(mask, [int(np.ceil(REACH_MM / edge)) for edge in spacing_mm])
    around = tissue[box]
    if not np.isin(around, [label for classes in SITES.values() for label in classes]).any():
        return None
    return site_of(mask[box], site_map(around, spacing_mm), spacing_mm)
