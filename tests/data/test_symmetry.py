"""The midsagittal plane: a reflection is its own inverse, and the plane of a tilted head is found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.data.symmetry import MAX_TILT, midsagittal_reflection, mirrored, reflection

SHAPE = (80, 96, 72)  # voxels of 2 mm


def points(shape: tuple[int, ...] = SHAPE) -> NDArray[np.float64]:
    """(3, N) voxel coordinates."""
    return np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij")).reshape(3, -1)


def head(plane: NDArray[np.float64], shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    """A head that is exactly symmetric at ``plane``: soft ellipsoid, dark ventricles, folds in brightness."""
    p = points(shape)
    total = np.zeros(p.shape[1])
    for q in (p, plane[:3, :3] @ p + plane[:3, 3:]):
        x, y, z = (q[i] - (n - 1) / 2 for i, n in enumerate(shape))
        radius = np.sqrt((x / 32) ** 2 + (y / 41) ** 2 + (z / 30) ** 2)
        tissue = 0.7 + 0.2 * np.sin(0.5 * x + 0.3 * y) * np.cos(0.4 * z + 0.2 * y)
        ventricle = np.exp(-(((x - 5) / 4) ** 2) - ((y + 4) / 12) ** 2 - ((z - 5) / 6) ** 2)
        total += (tissue - 0.5 * ventricle) / (1 + np.exp(40 * (radius - 1)))
    return (total / 2).reshape(shape).astype(np.float32)


def angle_and_distance(
    found: NDArray[np.float64], true: NDArray[np.float64], shape: tuple[int, ...] = SHAPE
) -> tuple[float, float]:
    """Degrees between two planes, and voxels between them at the centre of the volume."""
    normals = [np.linalg.eigh(np.eye(3) - m[:3, :3])[1][:, -1] for m in (found, true)]
    angle = np.degrees(np.arccos(min(1.0, abs(normals[0] @ normals[1]))))
    centre = (np.array(shape) - 1) / 2
    away = [(m[:3, :3] @ centre + m[:3, 3] - centre) @ normals[1] / 2 for m in (found, true)]
    return float(angle), float(abs(away[0] - away[1]))


@pytest.mark.parametrize(("offset", "yaw", "roll"), [(39.5, 0, 0), (30, 0.2, -0.1), (44.25, -0.3, 0.3)])
def test_a_reflection_is_its_own_inverse_and_keeps_lengths(offset: float, yaw: float, roll: float) -> None:
    matrix = reflection(offset, yaw, roll, SHAPE)
    np.testing.assert_allclose(matrix @ matrix, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(-1)
    on_plane = np.array([offset, (SHAPE[1] - 1) / 2, (SHAPE[2] - 1) / 2, 1])
    np.testing.assert_allclose(matrix @ on_plane, on_plane, atol=1e-12)


def test_an_untilted_reflection_swaps_left_and_right_voxels() -> None:
    matrix = reflection(39.5, 0, 0, SHAPE)
    np.testing.assert_allclose(matrix @ [0, 7, 9, 1], [79, 7, 9, 1])
    image = np.random.default_rng(0).random((8, 5, 6), np.float32)
    reflected, valid = mirrored(image, np.zeros(image.shape, bool), reflection(3.5, 0, 0, image.shape))
    assert valid.all()
    np.testing.assert_allclose(reflected, image[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("shift", "yaw", "roll"), [(0, 0, 0), (3, 0.1, 0), (-4, 0, -0.12), (2.5, -0.2, 0.1), (-2, 0.15, 0.2)]
)
def test_the_plane_of_a_tilted_head_is_found_in_spite_of_a_lesion(
    shift: float, yaw: float, roll: float
) -> None:
    """Within 1.5 degrees and 1 mm, for voxels of 2 mm."""
    plane = reflection((SHAPE[0] - 1) / 2 + shift, yaw, roll, SHAPE)
    image = head(plane)
    x, y, z = points()
    mask = ((x - 55) ** 2 + (y - 50) ** 2 + (z - 40) ** 2 < 12**2).reshape(SHAPE)
    image[mask] = 3.0
    angle, distance = angle_and_distance(midsagittal_reflection(image, mask), plane)
    assert angle < 1.5
    assert 2 * distance < 1.0


def test_what_the_mask_hides_does_not_move_the_plane() -> None:
    image = head(reflection(41.0, 0.1, 0.05, SHAPE))
    x, y, z = points()
    mask = ((x - 20) ** 2 + (y - 50) ** 2 + (z - 40) ** 2 < 14**2).reshape(SHAPE)
    planes = []
    for content in (0.0, 50.0, np.nan):
        dirty = image.copy()
        dirty[mask] = content
        planes.append(midsagittal_reflection(dirty, mask))
    assert np.array_equal(planes[0], planes[1])
    assert np.array_equal(planes[0], planes[2])


def test_brightness_and_size_of_the_voxels_do_not_move_the_plane() -> None:
    plane = reflection(41.0, 0.1, 0.05, SHAPE)
    image, nothing = head(plane), np.zeros(SHAPE, bool)
    found = midsagittal_reflection(image, nothing)
    np.testing.assert_allclose(midsagittal_reflection(64 * image, nothing), found, atol=1e-3)
    half = image[::2, ::2, ::2]
    coarse = midsagittal_reflection(half, nothing[::2, ::2, ::2])
    coarse[:3, 3] = 2 * coarse[:3, 3]
    angle, distance = angle_and_distance(coarse, found)
    assert angle < 1.5
    assert distance < 1.0


@pytest.mark.parametrize("image", [np.zeros((9, 11, 13)), -np.ones((9, 11, 13))])
def test_an_image_without_tissue_gives_the_middle_of_the_volume(image: NDArray[np.float64]) -> None:
    found = midsagittal_reflection(image.astype(np.float32), np.zeros(image.shape, bool))
    np.testing.assert_allclose(found, reflection(4.0, 0, 0, image.shape))


def test_a_mask_over_everything_gives_the_middle_of_the_volume() -> None:
    image = np.ones((9, 11, 13), np.float32)
    found = midsagittal_reflection(image, np.ones(image.shape, bool))
    np.testing.assert_allclose(found, reflection(4.0, 0, 0, image.shape))


def test_no_plane_is_tilted_beyond_what_a_head_in_a_scanner_can_be() -> None:
    rng = np.random.default_rng(2)
    found = midsagittal_reflection(rng.random((20, 24, 28), np.float32), np.zeros((20, 24, 28), bool))
    upright = reflection(9.5, 0, 0, (20, 24, 28))
    limit = np.degrees(np.arccos(np.cos(MAX_TILT) ** 2))
    assert angle_and_distance(found, upright, (20, 24, 28))[0] <= limit + 1e-6


def test_the_reflection_is_unknown_in_the_mask_on_the_other_side_and_outside() -> None:
    image = np.random.default_rng(0).random((10, 6, 7), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[2, 3, 4] = True  # would be shown at x = 10, outside
    reflected, valid = mirrored(image, mask, reflection(6.0, 0, 0, image.shape))  # x -> 12 - x
    expected = np.ones(image.shape, bool)
    expected[:3] = False  # shows what lies beyond x = 9
    assert np.array_equal(valid, expected)
    assert not reflected[~valid].any()
    mask[8, 3, 4] = True  # shown at x = 4
    _, valid = mirrored(image, mask, reflection(6.0, 0, 0, image.shape))
    assert not valid[4, 3, 4]
    assert valid.sum() == expected.sum() - 1


def test_a_reflection_between_voxels_is_unknown_if_any_of_them_is_hidden() -> None:
    image = np.random.default_rng(0).random((10, 6, 7), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[6, 3, 4] = True
    _, valid = mirrored(image, mask, reflection(5.25, 0, 0, image.shape))  # x -> 10.5 - x
    assert not valid[4, 3, 4]  # between 6 and 7
    assert not valid[5, 3, 4]  # between 5 and 6
    assert valid[3, 3, 4]
