"""Other scanners: what may change in an image, and what may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from neuromend.corpus.appearance import _to_power, as_another_scanner, between, enlarged, painted, smooth
from neuromend.corpus.recipe import Recipe

SHAPE = (30, 36, 33)
PLAIN = Recipe().plain()


def phantom() -> np.ndarray:
    grid = np.linalg.norm((np.moveaxis(np.indices(SHAPE), 0, -1) - [15, 18, 16]) / [11, 14, 12], axis=-1)
    tissue = 0.6 + 0.3 * np.sin(np.indices(SHAPE)[1] / 3)
    return np.where(grid < 1, tissue, 0).astype(np.float32)


def changed(seed: int = 0, **shares: Any) -> tuple[np.ndarray, np.ndarray]:
    return as_another_scanner(np.random.default_rng(seed), phantom(), replace(PLAIN, **shares), stripped=True)


def test_a_plain_recipe_changes_nothing() -> None:
    clean, seen = changed()
    assert seen is clean
    assert np.array_equal(clean, phantom())


@pytest.mark.parametrize("share", ["bias", "thick_slices", "blur", "skull", "noise"])
def test_each_change_changes_and_stays_finite(share: str) -> None:
    clean, seen = changed(3, **{share: 1.0})
    assert seen.dtype == np.float32
    assert np.isfinite(seen).all()
    assert not np.array_equal(seen, phantom())
    assert (np.array_equal(clean, phantom())) == (share == "noise")


def test_contrast_keeps_the_outline_and_the_order() -> None:
    image = phantom()
    image[15, 18, 16] = 1e-5
    image[0, 0, 0] = -0.1
    for gamma in (0.6, 1.0, 1.7):
        other = _to_power(image, gamma)
        assert np.array_equal(other > 0, image > 0)
        np.testing.assert_allclose(other, np.maximum(image, 0) ** gamma, atol=0.01)


def test_contrast_does_not_depend_on_other_voxels() -> None:
    """The brightest voxel may be hidden later; it must not tell of itself anywhere else."""
    image = phantom()
    brighter = image.copy()
    brighter[15, 18, 16] = 2.5
    one, other = _to_power(image, 1.2), _to_power(brighter, 1.2)
    assert np.count_nonzero(one != other) == 1


def test_a_skull_surrounds_the_brain_and_leaves_it_alone() -> None:
    clean, _ = changed(1, skull=1.0)
    inside = phantom() > 0
    assert np.array_equal(clean[inside], phantom()[inside])
    rim = ndimage.binary_dilation(inside, iterations=2) & ~inside
    assert (clean[rim] > 0).mean() > 0.9


def test_a_scan_with_its_skull_gets_no_other() -> None:
    recipe = replace(PLAIN, skull=1.0)
    clean, _ = as_another_scanner(np.random.default_rng(1), phantom(), recipe, stripped=False)
    assert np.array_equal(clean, phantom())


def test_smooth_noise_is_a_linearly_enlarged_grid() -> None:
    coarse = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    fine = enlarged(coarse, (10, 9, 11))
    assert fine.shape == (10, 9, 11)
    np.testing.assert_allclose(fine[::3, ::2, ::5], coarse, atol=1e-6)
    np.testing.assert_allclose(fine[1, 0, 0], coarse[0, 0, 0] * 2 / 3 + coarse[1, 0, 0] / 3, atol=1e-6)
    noise = smooth(np.random.default_rng(0), (40, 50, 60), (12, 13, 14))
    assert 0.4 < noise.std() < 1.1


def test_places_beyond_the_ends_take_the_value_there() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(between(array, 2, np.array([-1.0, 0.5, 9.0]))[0, 0], [0, 0.5, 3])
    assert between(array[:1], 0, np.array([0.0, 0.7])).shape == (2, 3, 4)


def test_a_map_of_classes_becomes_an_image_with_its_outline() -> None:
    classes = (phantom() * 12).astype(np.uint8)
    image = painted(np.random.default_rng(2), classes)
    assert image.dtype == np.float32
    assert np.array_equal(image > 0, classes > 0)
    means = [image[classes == c].mean() for c in np.unique(classes[classes > 0])]
    assert len({round(float(m), 3) for m in means}) == len(means)
