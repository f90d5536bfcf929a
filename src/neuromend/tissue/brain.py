"""Which voxels are brain: those of a mask, or all that a skull-stripped scan still shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuromend.data.intensities import looks_skull_stripped
from neuromend.data.mask_grid import onto_image_grid
from neuromend.data.mask_values import binarise
from neuromend.data.volume import Volume, read_volume
from neuromend.errors import UsageError


def brain_of(scan: Volume, brain_mask: Path | None) -> NDArray[np.bool_]:
    """The brain of a scan, (x, y, z); voxels that are not finite are left out.

    Args:
        scan: the scan.
        brain_mask: a mask on its grid; None for a skull-stripped scan.

    Raises:
        UsageError: TI-03, a whole head without a mask.
        InputError, GeometryError: the mask is none, or lies on another grid (MA-04 to MA-12).
    """
    finite: NDArray[np.bool_] = np.isfinite(scan.values)
    if brain_mask is not None:
        masked: NDArray[np.bool_] = read_mask(brain_mask, scan) & finite
        return masked
    if looks_skull_stripped(scan):
        shown: NDArray[np.bool_] = (scan.values != 0) & finite
        return shown
    raise UsageError(
        "TI-03",
        f"{scan.path.name if scan.path else 'the scan'} shows a whole head, and there is no --brain-mask",
        why="skull, skin and eyes would be taken for tissue of the brain",
        fix="make one with a tool of your choice (mri_synthstrip, hd-bet, bet), then: --brain-mask brain.nii.gz",
    )


def read_mask(path: Path, scan: Volume) -> NDArray[np.bool_]:
    """A mask of 0 and one other value, on the grid of the scan (turned axes are brought along)."""
    drawn = read_volume(path)
    selected, _ = binarise(drawn, labels=None, threshold=None, invert=False)
    voxels, _ = onto_image_grid(selected, drawn, scan, resample=False)
    return voxels
