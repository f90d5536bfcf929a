"""Leave small pieces out of a mask, where the user asks for it: noise of a segmentation is often single voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.frame import bounding_box
from neuromend.data.mask_values import voxel_ml
from neuromend.errors import InputError
from neuromend.findings import Finding

if TYPE_CHECKING:
    from neuromend.data.volume import Volume


def leave_out_specks(
    voxels: NDArray[np.bool_], mask: Volume, image: Volume, *, min_size_ml: float, allow_empty: bool
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Drop the 26-connected pieces of a mask that are smaller than a volume, and say how much that is.

    Args:
        voxels: (x, y, z) lesion voxels on the image's grid; not empty.
        mask: the file to name.
        image: gives the size of a voxel.
        min_size_ml: pieces of exactly this volume stay.
        allow_empty: nothing need be left.

    Returns:
        The mask without them, and a note where there were any (MA-15).

    Raises:
        InputError: MA-01, nothing is left.
    """
    box = tuple(slice(*span) for span in bounding_box(voxels))
    labels, count = ndimage.label(voxels[box], np.ones((3, 3, 3), dtype=np.bool_))
    sizes_ml = np.bincount(labels.reshape(-1), minlength=count + 1) * voxel_ml(image.affine)
    # A float rounding of the voxel volume must not drop the pieces of exactly this size.
    small = sizes_ml < min_size_ml * (1 - 1e-6)
    small[0] = False
    dropped = int(np.count_nonzero(small))
    if dropped == 0:
        return voxels, []
    if dropped == count and not allow_empty:
        raise _nothing_left(mask, float(sizes_ml[1:].max()), min_size_ml)
    message = (
        f"{dropped:,} of {count:,} pieces of the mask are smaller than {min_size_ml:g} ml (--min-size-ml)"
        f" and were left out, {sizes_ml[small].sum():.3g} ml in all"
    )
    kept = voxels.copy(order="K")
    kept[box] &= ~small[labels]
    return kept, [Finding("MA-15", "note", message)]


def _nothing_left(mask: Volume, largest_ml: float, min_size_ml: float) -> InputError:
    return InputError(
        "MA-01",
        f"every piece of the mask is smaller than --min-size-ml {min_size_ml:g}; the largest has"
        f" {largest_ml:.3g} ml",
        why="without a lesion there is nothing to fill",
        fix=f"lower it below {largest_ml:.3g}, or --allow-empty to copy the scan unchanged",
        path=mask.path,
    )
