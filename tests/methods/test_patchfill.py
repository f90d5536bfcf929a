"""The patch-based fill: it repeats what repeats around the hole, and copies real values only."""

from __future__ import annotations

import numpy as np
import pytest

from neuromend.methods import patchfill
from neuromend.methods.classical import CLASSICAL, harmonic
from neuromend.methods.patchfill import patch_fill

SHAPE = (37, 41, 33)


def stripes() -> np.ndarray:
    """Waves along x and y: what a mean or a smooth fill cannot continue, and patches can."""
    x, y, _ = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    return (0.5 + 0.25 * np.sin(2 * np.pi * x / 6) + 0.25 * np.cos(2 * np.pi * y / 8)).astype(np.float32)


def ball(radius: float, centre: tuple[int, int, int] = (18, 20, 16)) -> np.ndarray:
    grid = np.meshgrid(*[np.arange(n) - c for n, c in zip(SHAPE, centre, strict=True)], indexing="ij")
    return sum(axis**2 for axis in grid) <= radius**2


def test_a_pattern_is_continued_through_the_hole() -> None:
    image, mask = stripes(), ball(6)
    smooth = harmonic(image, mask)
    error = np.abs(patch_fill(image, mask, smooth) - image)[mask].mean()
    assert error < 0.1 * np.abs(smooth - image)[mask].mean()


def test_the_fill_stays_within_the_values_around() -> None:
    image = np.random.default_rng(3).uniform(0.2, 0.7, SHAPE).astype(np.float32)
    mask = ball(5)
    filled = patch_fill(image, mask, harmonic(image, mask))
    assert image.min() <= filled[mask].min()
    assert filled[mask].max() <= image.max()


def test_what_the_mask_hides_changes_nothing() -> None:
    image, mask = stripes(), ball(6) | ball(2, (5, 6, 7))
    hidden = np.where(mask, np.float32(np.nan), image)
    assert np.array_equal(CLASSICAL["patch"](image, mask), CLASSICAL["patch"](hidden, mask))


def test_outside_the_mask_nothing_changes_and_the_input_is_left_alone() -> None:
    image, mask = stripes(), ball(6)
    before = image.copy()
    filled = patch_fill(image, mask, harmonic(image, mask))
    assert filled.dtype == np.float32
    assert np.array_equal(filled[~mask], image[~mask])
    assert np.array_equal(image, before)


@pytest.mark.parametrize("corner", [(0, 0, 0), (36, 40, 32), (0, 20, 32)])
def test_a_hole_at_the_border_of_the_volume_is_filled_with_real_values(corner: tuple[int, int, int]) -> None:
    image, mask = stripes(), ball(5, corner)
    filled = patch_fill(image, mask, harmonic(image, mask))
    assert np.abs(filled - image)[mask].mean() < 0.1


def test_where_no_whole_patch_is_known_the_start_stays() -> None:
    image = np.random.default_rng(0).random((7, 8, 9), np.float32)
    mask = np.zeros(image.shape, bool)
    mask[1::3, 1::3, 1::3] = True
    start = harmonic(image, mask)
    assert np.array_equal(patch_fill(image, mask, start), start)


def test_an_empty_mask_changes_nothing() -> None:
    image = stripes()
    assert np.array_equal(patch_fill(image, np.zeros(SHAPE, bool), image), image)


def test_the_search_widens_until_there_are_patches_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchfill, "SEARCH", 1)
    image, mask = stripes(), ball(7)
    filled = patch_fill(image, mask, harmonic(image, mask))
    assert np.abs(filled - image)[mask].mean() < 0.1


def test_many_small_lesions_far_apart_are_all_filled() -> None:
    image = stripes()
    mask = np.zeros(SHAPE, bool)
    mask[4::9, 4::9, 4::9] = True
    filled = CLASSICAL["patch"](image, mask)
    assert np.abs(filled - image)[mask].max() < 0.1
