"""Small pieces of a mask are left out only where the user asks for it, and never in silence (MA-15)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.errors import InputError

from .mask_phantom import AFFINE, SHAPE, levels, message, prepare, volume

VOXEL_ML = 2.0 * 1.8 * 2.2 / 1000


def drawn() -> NDArray[np.uint8]:
    """A lesion of 60 voxels, a piece of 3 that touch at their corners only, and two single voxels."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:23, 22:26, 15:20] = 1
    mask[30, 20, 20] = mask[31, 21, 21] = mask[32, 22, 22] = 1
    mask[14, 24, 20] = mask[26, 34, 24] = 1
    return mask


def test_nothing_is_left_out_unless_asked() -> None:
    result = prepare(volume(drawn()))
    assert (result.components, int(result.voxels.sum())) == (4, 65)


@pytest.mark.parametrize(
    ("voxels", "components", "left"), [(1, 4, 65), (1.5, 2, 63), (3, 2, 63), (3.5, 1, 60)]
)
def test_pieces_smaller_than_the_size_are_left_out(voxels: float, components: int, left: int) -> None:
    """Pieces of exactly this size stay, whatever the rounding of the affine in the file."""
    result = prepare(volume(drawn(), AFFINE.astype(np.float32)), min_size_ml=voxels * VOXEL_ML)
    assert (result.components, int(result.voxels.sum())) == (components, left)


def test_what_is_left_out_is_counted() -> None:
    result = prepare(volume(drawn()), min_size_ml=0.03)
    assert levels(result) == {"MA-15": "note"}
    expected = "3 of 4 pieces of the mask are smaller than 0.03 ml (--min-size-ml) and were left out, 0.0396 ml in all"
    assert message(result, "MA-15") == expected


def test_nothing_is_said_where_nothing_is_left_out() -> None:
    mask = drawn()
    mask[25:] = mask[:15] = 0
    assert levels(prepare(volume(mask), min_size_ml=0.03)) == {}


def test_a_mask_of_which_nothing_is_left_is_empty() -> None:
    with pytest.raises(InputError, match=r"the largest has 0\.475 ml") as caught:
        prepare(volume(drawn()), min_size_ml=1.0)
    assert (caught.value.code, caught.value.exit_status) == ("MA-01", 65)
    assert "--min-size-ml 1" in caught.value.what
    assert "lower it below 0.475" in caught.value.fix


def test_nothing_need_be_left_where_an_empty_mask_is_allowed() -> None:
    result = prepare(volume(drawn()), min_size_ml=1.0, allow_empty=True)
    assert not result.voxels.any()
    assert levels(result) == {"MA-15": "note", "MA-01": "warning"}


@pytest.mark.parametrize("options", [{"dilate_mm": 4.0}, {}])
def test_pieces_are_measured_before_they_are_dilated(options: dict[str, Any]) -> None:
    assert prepare(volume(drawn()), min_size_ml=0.03, **options).components == 1
