"""The classical fills: known answers, the maximum principle, and that what the mask hides is never read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from neuromend.data.symmetry import reflection
from neuromend.methods.classical import CLASSICAL, RING_VOXELS, Image, Mask, harmonic, mirror, ring_mean

SHAPE = (17, 19, 23)


def grid(shape: tuple[int, int, int] = SHAPE) -> list[np.ndarray]:
    """x, y, z of every voxel, counted from the middle."""
    return np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")


def ball(
    radius: float, centre: tuple[float, float, float] = (0, 0, 0), shape: tuple[int, int, int] = SHAPE
) -> Mask:
    squares = [(axis - c) ** 2 for axis, c in zip(grid(shape), centre, strict=True)]
    return sum(squares) <= radius**2


def noise_image(shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Image:
    return np.random.default_rng(seed).random(shape, np.float32)


def laplacian(values: np.ndarray) -> np.ndarray:
    """The seven-point Laplacian with no flux through the border of the volume."""
    wide = np.pad(np.asarray(values, np.float64), 1, mode="edge")
    return (
        sum(np.roll(wide, step, axis) for axis in range(3) for step in (-1, 1))[1:-1, 1:-1, 1:-1] - 6 * values
    )


# All of them


@pytest.mark.parametrize("name", CLASSICAL)
def test_only_voxels_of_the_mask_change_and_the_input_is_left_alone(name: str) -> None:
    image, mask = noise_image(), ball(4, (2, -1, 3))
    before = image.copy()
    filled = CLASSICAL[name](image, mask)
    assert filled.dtype == np.float32
    assert np.array_equal(filled[~mask], image[~mask])
    assert np.isfinite(filled).all()
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", CLASSICAL)
def test_what_the_mask_hides_is_never_read(name: str) -> None:
    image, mask = noise_image(), ball(4, (2, -1, 3))
    fills = []
    for content in (0.0, np.nan, 1e9):
        hidden = image.copy()
        hidden[mask] = content
        fills.append(CLASSICAL[name](hidden, mask))
    assert np.array_equal(fills[0], fills[1])
    assert np.array_equal(fills[0], fills[2])


@pytest.mark.parametrize("name", CLASSICAL)
def test_an_empty_mask_changes_nothing(name: str) -> None:
    image = noise_image()
    assert np.array_equal(CLASSICAL[name](image, np.zeros(SHAPE, bool)), image)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_mask_over_everything_gives_background(name: str) -> None:
    assert not CLASSICAL[name](noise_image(), np.ones(SHAPE, bool)).any()


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_constant_image_is_filled_with_its_constant(name: str) -> None:
    for mask in (ball(5), ball(3, (-7, 8, 10)), ball(0, (2, 3, 4))):
        np.testing.assert_allclose(CLASSICAL[name](np.full(SHAPE, 0.6, np.float32), mask), 0.6, rtol=1e-5)


# Mean of a ring


def test_a_ring_is_three_voxels_thick() -> None:
    image, mask = np.zeros(SHAPE, np.float32), ball(0)
    distance = sum(np.abs(axis) for axis in grid())  # in steps from voxel to voxel
    image[(distance <= RING_VOXELS) & ~mask] = 1.0
    assert ring_mean(image, mask)[mask] == 1.0
    image[distance == RING_VOXELS + 1] = 9.0
    assert ring_mean(image, mask)[mask] == 1.0
    image[distance == RING_VOXELS] = 5.0
    inner, outer = ((distance < RING_VOXELS) & ~mask).sum(), (distance == RING_VOXELS).sum()
    assert ring_mean(image, mask)[mask] == pytest.approx((inner + 5 * outer) / (inner + outer))


def test_each_lesion_has_its_own_ring_without_the_other_lesions() -> None:
    image, left, right = np.zeros(SHAPE, np.float32), ball(1, (-5, 0, 0)), ball(1, (5, 0, 0))
    image[: SHAPE[0] // 2] = 5.0
    image[SHAPE[0] // 2 + 1 :] = 9.0
    near = ball(0, (2, 0, 0))
    filled = ring_mean(image, left | right)
    assert set(filled[left]) == {5.0}
    assert set(filled[right]) == {9.0}
    hidden = np.where(near, np.float32(-100), image)  # a third lesion in the way is not tissue
    again = ring_mean(hidden, left | right | near)
    assert again[right] == pytest.approx(9.0)


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    image, mask = noise_image(), np.zeros(SHAPE, bool)
    mask[5, 5, 5] = mask[6, 6, 6] = True
    filled = ring_mean(image, mask)
    assert filled[5, 5, 5] == filled[6, 6, 6]


# Harmonic fill


@pytest.mark.parametrize("mask", [ball(6), ball(5, (-6, 7, 9)), ball(2) | ball(3, (5, 5, -7))])
def test_the_fill_satisfies_the_laplace_equation(mask: Mask) -> None:
    """The residual is below the tolerance, relative to what the boundary puts in."""
    image = noise_image()
    filled = harmonic(image, mask)
    drive = laplacian(np.where(mask, 0, image))[mask]
    assert np.linalg.norm(laplacian(filled)[mask]) < 1.5e-3 * np.linalg.norm(drive)
    sharp = harmonic(image, mask, tolerance=1e-6)
    assert np.abs(laplacian(sharp)[mask]).max() < 2e-5


@pytest.mark.parametrize("mask", [ball(6), ball(0), ball(3, (4, 0, 0)) | ball(4, (-3, 4, -5))])
def test_a_linear_image_is_restored_exactly(mask: Mask) -> None:
    x, y, z = grid()
    image = (0.5 + 0.02 * x - 0.01 * y + 0.015 * z).astype(np.float32)
    np.testing.assert_allclose(harmonic(image, mask, tolerance=1e-6), image, atol=2e-6)
    np.testing.assert_allclose(harmonic(image, mask), image, atol=4e-3)  # the default stops earlier


@pytest.mark.parametrize("name", ["xx-yy", "xyz", "xxx-3xyy"])
def test_harmonic_polynomials_up_to_degree_three_are_restored_exactly(name: str) -> None:
    """The second difference errs by the fourth derivative, which they have not."""
    x, y, z = (axis / 10 for axis in grid())
    image = {"xx-yy": x * x - y * y, "xyz": x * y * z, "xxx-3xyy": x**3 - 3 * x * y * y}[name]
    filled = harmonic(image.astype(np.float32), ball(6), tolerance=1e-6)
    np.testing.assert_allclose(filled, image, atol=5e-6)


def test_a_harmonic_wave_is_restored_up_to_the_discretisation_error() -> None:
    """u = exp(kx) sin(ky): the scheme leaves (2 cosh k + 2 cos k - 4) u, and a ball adds at most a factor R^2/6."""
    k, radius = 0.25, 6.0
    x, y, _ = grid()
    image = np.exp(k * x) * np.sin(k * y)
    mask = ball(radius)
    bound = (2 * np.cosh(k) + 2 * np.cos(k) - 4) * np.abs(image[mask]).max() * (radius + 1) ** 2 / 6
    error = np.abs(harmonic(image.astype(np.float32), mask, tolerance=1e-6) - image)[mask].max()
    assert 1e-5 < error < bound


def test_the_fill_stays_between_the_extremes_of_its_boundary() -> None:
    image, mask = noise_image(), ball(6, (1, -2, 3))
    rim = ndimage.binary_dilation(mask) & ~mask
    filled = harmonic(image, mask)[mask]
    assert image[rim].min() - 1e-3 <= filled.min()
    assert filled.max() <= image[rim].max() + 1e-3


def test_nothing_flows_through_the_border_of_the_volume() -> None:
    """A hole that reaches three walls: without a gradient across them the answer does not know the walls."""
    _, y, _ = grid()
    image = (0.5 + 0.03 * y).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[:6, 4:12, :] = True
    np.testing.assert_allclose(harmonic(image, mask, tolerance=1e-6), image, atol=3e-6)
    slab = np.zeros(SHAPE, bool)
    slab[:5] = True  # only the plane behind it is known
    stripes = np.zeros(SHAPE, np.float32)
    stripes[5] = 0.7
    np.testing.assert_allclose(harmonic(stripes, slab, tolerance=1e-6)[:5], 0.7, atol=1e-5)


def test_lesions_are_filled_independently_of_each_other() -> None:
    image, one, two = noise_image(), ball(3, (-4, 0, 0)), ball(2, (4, 3, 5))
    both = harmonic(image, one | two, tolerance=1e-6)
    for mask in (one, two):
        np.testing.assert_allclose(both[mask], harmonic(image, mask, tolerance=1e-6)[mask], atol=5e-6)


def test_a_single_voxel_becomes_the_mean_of_its_six_neighbours() -> None:
    image, mask = noise_image(), ball(0)
    x, y, z = (n // 2 for n in SHAPE)
    six = [image[x - 1, y, z], image[x + 1, y, z], image[x, y - 1, z], image[x, y + 1, z], image[x, y, z - 1],
           image[x, y, z + 1]]  # fmt: skip
    assert harmonic(image, mask)[x, y, z] == pytest.approx(np.mean(six), rel=1e-5)


# Mirror


def brain(shape: tuple[int, int, int], plane: np.ndarray) -> Image:
    """A brain-like phantom that is symmetric at a plane: what it is at p, it is at the reflection of p."""

    def field(p: np.ndarray) -> np.ndarray:
        x, y, z = (p[i] - (n - 1) / 2 for i, n in enumerate(shape))
        inside = (x / (0.4 * shape[0])) ** 2 + (y / (0.45 * shape[1])) ** 2 + (z / (0.4 * shape[2])) ** 2
        soft = 1 / (1 + np.exp(12 * (inside - 1)))
        return soft * (0.7 + 0.25 * np.sin(0.31 * x + 0.2 * y) * np.cos(0.27 * z + 0.11 * y))

    points = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij"))
    flat = points.reshape(3, -1)
    other = plane[:3, :3] @ flat + plane[:3, 3:]
    return (0.5 * (field(flat) + field(other))).reshape(shape).astype(np.float32)


def test_a_symmetric_brain_is_restored_from_its_other_half() -> None:
    shape = (41, 47, 37)
    plane = reflection(20.0, 0.0, 0.0, shape)
    truth = brain(shape, plane)
    mask = ball(6, (9, 2, -1), shape)
    filled = mirror(np.where(mask, np.float32(5), truth), mask)
    error = np.sqrt(np.mean((filled - truth)[mask] ** 2))
    assert error < 0.02
    assert error < 0.5 * np.sqrt(np.mean((harmonic(truth, mask) - truth)[mask] ** 2))


def test_where_the_other_half_is_hidden_too_the_harmonic_fill_stands_in() -> None:
    shape = (41, 47, 37)
    truth = brain(shape, reflection(20.0, 0.0, 0.0, shape))
    mask = ball(5, (9, 2, -1), shape) | ball(5, (-9, 2, -1), shape)
    core = ball(2, (9, 2, -1), shape)
    assert np.array_equal(mirror(truth, mask)[core], harmonic(truth, mask)[core])
