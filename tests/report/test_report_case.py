"""What the report finds in its input."""

from __future__ import annotations

import numpy as np
import pytest

from neuromend.report.case import SHOWN_LESIONS

from .report_cases import case


def test_components_that_touch_only_at_a_corner_are_one_lesion() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[3, 4, 5] = mask[4, 5, 6] = True
    mask[10:13, 10:12, 10] = True
    made = case(mask=mask)
    assert made.lesion_count == 2
    assert [lesion.voxels for lesion in made.lesions] == [6, 2]
    assert made.lesions[0].box == (slice(10, 13), slice(10, 12), slice(10, 11))
    assert made.lesions[1].volume_ml == pytest.approx(2 * 8 / 1000)


def test_the_centre_is_a_voxel_of_the_lesion_even_if_it_is_bent() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[5, 5:20, 10] = mask[5:20, 5, 10] = mask[20, 5:20, 10] = True
    (lesion,) = case(mask=mask).lesions
    assert mask[lesion.centre]


def test_the_centre_in_millimetres_follows_the_affine() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[3, 7, 11] = True
    made = case(mask=mask, codes="PSR", spacing_mm=(1.0, 2.0, 3.0))
    (lesion,) = made.lesions
    assert lesion.centre_mm == pytest.approx(tuple((made.affine @ [3, 7, 11, 1])[:3]))


def test_only_the_largest_lesions_are_described_and_all_are_counted() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[::6, ::6, ::3] = True
    mask[1, 0, 0] = True
    made = case(mask=mask)
    assert made.lesion_count == 4 * 5 * 9
    assert len(made.lesions) == SHOWN_LESIONS
    assert [lesion.number for lesion in made.lesions] == list(range(1, SHOWN_LESIONS + 1))
    assert made.lesions[0].voxels == 2


def test_given_boxes_describe_the_same_lesions_as_a_search() -> None:
    mask = np.zeros((24, 30, 26), dtype=bool)
    mask[2:9, 3, 4] = mask[2, 3:9, 4] = True  # bent: the next lesion lies in its box
    mask[6:9, 6:9, 4] = True
    mask[15, 15, 15] = True
    searched = case(mask=mask)
    given = case(mask=mask, boxes=[lesion.box for lesion in searched.lesions])
    assert [lesion.voxels for lesion in searched.lesions] == [12, 9, 1]
    assert given.lesions == searched.lesions
    assert given.lesion_count == searched.lesion_count == 3


def test_changes_outside_the_mask_are_counted_and_nan_equals_nan() -> None:
    made = case()
    before, after = made.before.copy(), made.after.copy()
    before[0, 0, 0] = after[0, 0, 0] = np.nan
    assert case(before=before, after=after).changed_outside == 0
    after[0, 0, 1] += 1
    after[0, 0, 2] = np.nan
    after[0, 0, 3] = np.inf
    assert case(before=before, after=after).changed_outside == 3


def test_rounding_in_single_precision_is_no_change() -> None:
    stored = np.random.default_rng(3).integers(0, 4000, (24, 30, 26)).astype(np.float32)
    before = stored.astype(np.float64) * 0.0123 + 4.56
    assert (before != stored * np.float32(0.0123) + np.float32(4.56)).any()
    after = (stored * np.float32(0.0123) + np.float32(4.56)).astype(np.float64)
    assert case(before=before, after=after).changed_outside == 0


def test_arrays_on_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="one 3-D grid"):
        case(after=np.zeros((24, 30, 27), dtype=np.float32))
    with pytest.raises(ValueError, match="one 3-D grid"):
        case(uncertainty=np.zeros((24, 26, 30), dtype=np.float32))
    with pytest.raises(ValueError, match="boolean"):
        case(mask=np.zeros((24, 30, 26), dtype=np.uint8))
