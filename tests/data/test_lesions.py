"""Planted lesions: their volume, their place, and that a shape lands where its affine says."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.data.lesions import LesionShape, random_blob

GRID = (41, 47, 53)
MIDDLE = (20.0, 23.0, 26.0)


def blob(seed: int, volume_ml: float, spacing_mm: float = 1.0, **options: float) -> NDArray[np.bool_]:
    return random_blob(np.random.default_rng(seed), GRID, MIDDLE, volume_ml, spacing_mm, **options)


def asymmetric_shape(affine: NDArray[np.float64]) -> LesionShape:
    """An L with a dot, 3 x 5 x 4 voxels: no rotation or flip brings it onto itself."""
    voxels = np.zeros((3, 5, 4), bool)
    voxels[0, :, 0] = voxels[:, 0, 0] = voxels[1, 3, 2] = voxels[2, 4, 3] = True
    return LesionShape(voxels, affine, float(voxels.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000))


# Random blobs


@pytest.mark.parametrize(("volume_ml", "spacing_mm"), [(0.05, 1.0), (1.0, 1.0), (7.5, 1.3), (20.0, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_a_smooth_blob_has_the_wanted_volume_to_the_voxel(
    volume_ml: float, spacing_mm: float, seed: int
) -> None:
    found = blob(seed, volume_ml, spacing_mm, roughness=0.1)
    assert found.sum() == round(volume_ml * 1000 / spacing_mm**3)


def test_a_rough_blob_loses_little_and_is_one_piece() -> None:
    for seed in range(12):
        found = blob(seed, 3.0, roughness=0.6)
        assert ndimage.label(found)[1] == 1
        assert 2400 <= found.sum() <= 3000


def test_a_blob_of_hardly_any_volume_is_one_voxel_at_its_centre() -> None:
    found = blob(0, 1e-6, roughness=0.0)
    assert np.argwhere(found).tolist() == [[20, 23, 26]]


def test_the_same_state_gives_the_same_blob_and_another_another() -> None:
    assert np.array_equal(blob(3, 2.0), blob(3, 2.0))
    assert not np.array_equal(blob(3, 2.0), blob(4, 2.0))


def test_a_blob_lies_around_its_centre() -> None:
    offset = np.mean([np.argwhere(blob(seed, 4.0, roughness=0.1)).mean(0) for seed in range(12)], axis=0)
    assert np.abs(offset - MIDDLE).max() < 1.0


def test_an_unrough_blob_is_an_ellipsoid_with_axes_in_the_stated_range() -> None:
    """Semi-axes within 0.7 to 1.4 of each other's measure, so at most twice as long as wide."""
    for seed in range(6):
        where = np.argwhere(blob(seed, 8.0, roughness=0.0)).astype(float)
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(where.T)))
        assert spread[-1] / spread[0] <= 2.05


def test_a_blob_at_the_border_is_cut_and_one_outside_is_gone() -> None:
    def at(*centre: float) -> NDArray[np.bool_]:
        return random_blob(np.random.default_rng(5), GRID, centre, 4.0, 1.0)

    whole, cut = at(20, 23, 26), at(0, 23, 26)
    assert np.array_equal(cut[:20], whole[20:40])
    assert 0 < cut.sum() < whole.sum()
    assert not at(-60, 23, 26).any()
    assert not at(20, 23, 130).any()


# Real shapes


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_a_shape_comes_back_from_every_orientation(
    order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    """A grid whose axes run along MNI's in any of the 48 ways shows the shape, turned, and nothing else."""
    shape = asymmetric_shape(nib.affines.from_matvec(np.diag([2.0, 2, 2]), [-10, 6, 4]))
    upright = np.zeros((9, 11, 13), bool)
    upright[2:5, 3:8, 4:8] = shape.voxels
    to_mni = shape.affine @ nib.affines.from_matvec(np.eye(3), [-2, -3, -4])
    turned, affine = upright.transpose(order), to_mni[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip < 0:
            turned = np.flip(turned, axis)
            affine = affine @ _flipped(axis, turned.shape[axis])
    assert np.array_equal(shape.placed(turned.shape, affine), turned)


def _flipped(axis: int, count: int) -> NDArray[np.float64]:
    """Voxel index along a flipped axis -> along the original one."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, count - 1
    return matrix


def test_a_shape_on_a_coarser_grid_keeps_its_volume() -> None:
    x, y, z = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    ball = LesionShape(x * x + y * y + z * z < 15**2, np.diag([1.0, 1, 1, 1]), 14.1)
    to_mni = nib.affines.from_matvec(np.diag([1.7, 1.7, 1.7]), [-3, -2, -1])
    placed = ball.placed((27, 28, 29), to_mni)
    assert placed.sum() * 1.7**3 / 1000 == pytest.approx(ball.voxels.sum() / 1000, rel=0.03)
    centre = to_mni[:3, :3] @ np.argwhere(placed).mean(0) + to_mni[:3, 3]
    np.testing.assert_allclose(centre, 19.5, atol=0.3)


def test_a_shape_across_the_border_is_cut_and_one_outside_is_gone() -> None:
    shape = asymmetric_shape(np.eye(4))
    cut = shape.placed((3, 5, 2), np.eye(4))
    assert np.array_equal(cut, shape.voxels[:, :, :2])
    away = nib.affines.from_matvec(np.eye(3), [50, 0, 0])
    assert not shape.placed((6, 7, 8), away).any()


def test_a_mask_is_read_with_its_box_its_place_and_its_volume(tmp_path: Path) -> None:
    values = np.zeros((12, 13, 14), np.float32)
    values[4:7, 5:9, 6:11] = 0.5
    values[4, 5, 6] = 0
    affine = nib.affines.from_matvec(np.diag([-2.0, 2, 3]), [90, -126, -72])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "lesion.nii.gz")
    shape = LesionShape.read(tmp_path / "lesion.nii.gz")
    assert shape.voxels.shape == (3, 4, 5)
    assert shape.voxels.sum() == 59
    assert shape.volume_ml == pytest.approx(59 * 12 / 1000)
    np.testing.assert_allclose(shape.affine @ [0, 0, 0, 1], affine @ [4, 5, 6, 1])
    assert np.array_equal(shape.placed(values.shape, affine), values > 0)


def test_an_empty_mask_is_refused_by_name(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "sub-07_lesion.nii.gz")
    with pytest.raises(ValueError, match=r"sub-07_lesion.nii.gz: the mask is empty"):
        LesionShape.read(tmp_path / "sub-07_lesion.nii.gz")
