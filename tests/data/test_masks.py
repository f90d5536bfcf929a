"""The mask that is filled: its lesions, volume and hash, dilation, and options that make no sense."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from neuromend.data.masks import MaskOptions, find_lesions
from neuromend.data.volume import read_volume
from neuromend.errors import InputError, UsageError

from .mask_phantom import AFFINE, SHAPE, ball, levels, message, prepare, stripped, volume

LESION = ball()
UNIT_ML = 2.0 * 1.8 * 2.2 / 1000


def test_the_mask_knows_its_volume_and_hash() -> None:
    result = prepare(volume(LESION))
    assert result.voxels.dtype == np.bool_
    assert np.array_equal(result.voxels, LESION)
    assert result.volume_ml == pytest.approx(LESION.sum() * UNIT_ML)
    stored = nib.Nifti1Image(LESION.astype(np.uint8), AFFINE).to_bytes()[352:]
    assert result.sha256_voxels == hashlib.sha256(stored).hexdigest()


def test_the_hash_does_not_depend_on_how_the_mask_was_stored() -> None:
    masks = (volume(LESION), volume(LESION.astype(np.float32) * 255), volume(LESION * 3))
    assert len({prepare(mask).sha256_voxels for mask in masks}) == 1


def test_lesions_come_largest_first_with_box_volume_and_centre() -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[10:12, 20:23, 15:19] = True
    drawn[12, 23, 19] = True  # touches the first by a corner
    drawn[30:35, 18:24, 20:24] = True
    result = prepare(volume(drawn))
    assert result.components == 2
    first, second = result.boxes
    assert first.slices == (slice(30, 35), slice(18, 24), slice(20, 24))
    assert second.slices == (slice(10, 13), slice(20, 24), slice(15, 20))
    assert first.volume_ml == pytest.approx(120 * UNIT_ML)
    assert second.volume_ml == pytest.approx(25 * UNIT_ML)
    assert first.centre_mm == pytest.approx(tuple(nib.affines.apply_affine(AFFINE, (32, 20.5, 21.5))))


def test_lesions_of_equal_size_keep_the_order_of_the_scan() -> None:
    drawn = np.zeros((9, 10, 11), bool)
    drawn[1, 2, 3] = drawn[5, 6, 7] = drawn[8, 0, 10] = True
    assert [box.slices[0].start for box in find_lesions(drawn, np.eye(4))] == [1, 5, 8]


@pytest.mark.parametrize("dilate_mm", [1.9, 2.0, 4.5, 7.3])
def test_dilation_is_in_millimetres_on_an_anisotropic_grid(dilate_mm: float) -> None:
    drawn = LESION.copy()
    drawn[12, 20:22, 15] = True
    result = prepare(volume(drawn), dilate_mm=dilate_mm)
    distance = ndimage.distance_transform_edt(~drawn, sampling=(2.0, 1.8, 2.2))
    assert np.array_equal(result.voxels, distance <= dilate_mm + 1e-4)
    added = int(result.voxels.sum() - drawn.sum())
    assert added > 0
    said = message(result, "MA-20")
    assert (
        said == f"the mask was dilated by {dilate_mm:g} mm: {added:,} voxels ({added * UNIT_ML:.3g} ml) added"
    )


def test_dilation_of_less_than_a_voxel_adds_nothing_and_says_so() -> None:
    result = prepare(volume(LESION), dilate_mm=1.7)
    assert np.array_equal(result.voxels, LESION)
    assert "0 voxels (0 ml) added" in message(result, "MA-20")


def test_dilation_stops_at_the_border_of_the_volume() -> None:
    image = volume(np.roll(stripped().values, 4, 0), name="scan.nii.gz")
    drawn = ball((39, 24, 20), 6.0)
    assert not drawn[-1].any()
    result = prepare(volume(drawn), image, dilate_mm=5)
    assert result.voxels.shape == SHAPE
    assert result.voxels[-1].any()
    assert not result.voxels[0].any()
    assert levels(result)["MA-14"] == "warning"


def test_dilation_joins_lesions() -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[20, 22:26, 20] = drawn[24, 22:26, 20] = True
    assert prepare(volume(drawn)).components == 2
    assert prepare(volume(drawn), dilate_mm=4).components == 1


def test_the_mask_file_and_the_scan_are_left_alone() -> None:
    mask, image = volume(LESION), stripped()
    before = mask.values.copy(), image.values.copy()
    prepare(mask, image, dilate_mm=4)
    assert np.array_equal(mask.values, before[0])
    assert np.array_equal(image.values, before[1])


def test_what_the_reader_noticed_about_the_mask_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "lesion.nii"
    nib.save(nib.Nifti1Image(LESION.astype(np.uint8), AFFINE), path)
    path.write_bytes(path.read_bytes() + b"more")
    assert prepare(read_volume(path)).findings[0].code == "IN-04"


def test_a_truncated_mask_is_refused_before_it_becomes_a_smaller_lesion(tmp_path: Path) -> None:
    """MA-19: as IN-02 and IN-09, by the reader."""
    path = tmp_path / "lesion.nii.gz"
    nib.save(nib.Nifti1Image(LESION.astype(np.uint8), AFFINE), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(InputError) as caught:
        prepare(read_volume(path))
    assert caught.value.code in ("IN-02", "IN-03", "IN-09")
    assert caught.value.exit_status == 65


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"threshold": 0.0}, "MA-04", "--threshold is 0; expected a number above 0"),
        ({"threshold": float("nan")}, "MA-04", "--threshold is nan"),
        ({"labels": ()}, "MA-06", "--labels is empty"),
        ({"labels": (1, 0)}, "MA-06", "--labels is 1,0; expected whole numbers above 0"),
        ({"labels": (1,), "threshold": 0.5}, "MA-06", "--labels and --threshold were both given"),
        ({"dilate_mm": -1.0}, "MA-20", "--dilate-mm is -1"),
        ({"dilate_mm": float("inf")}, "MA-20", "--dilate-mm is inf"),
        ({"min_size_ml": -0.1}, "MA-15", "--min-size-ml is -0.1"),
        ({"min_size_ml": float("nan")}, "MA-15", "--min-size-ml is nan"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        MaskOptions(**options)
    assert (caught.value.code, caught.value.exit_status) == (code, 2)
