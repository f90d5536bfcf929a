"""The white-matter fill: the distribution of the white matter around, whatever tissue the hole is in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from neuromend.methods.whitematter import white_matter_fill

SHAPE = (44, 52, 40)
WHITE, GREY, FLUID, SD = 0.8, 0.55, 0.25, 0.03


def distance() -> np.ndarray:
    grid = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
    return np.sqrt(sum(axis**2 for axis in grid))


def brain() -> np.ndarray:
    """Shells in air: fluid in the middle, then white and grey matter, with noise in the tissue."""
    r = distance()
    image = np.select([r < 5, r < 14, r < 19], [FLUID, WHITE, GREY], 0.0)
    noise = np.random.default_rng(1).normal(0, SD, SHAPE)
    return np.where(image > 0, image + noise, 0).astype(np.float32)


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.meshgrid(*[np.arange(n) - c for n, c in zip(SHAPE, centre, strict=True)], indexing="ij")
    return sum(axis**2 for axis in grid) <= radius**2


IN_WHITE, IN_GREY, IN_FLUID = ball((32, 26, 20), 3), ball((39, 26, 20), 2.5), ball((22, 26, 20), 3)


@pytest.mark.parametrize("mask", [IN_WHITE, IN_GREY, IN_FLUID], ids=["white", "grey", "fluid"])
def test_the_inside_has_the_mean_and_the_deviation_of_white_matter(mask: np.ndarray) -> None:
    filled = white_matter_fill(brain(), mask)
    inner = ndimage.binary_erosion(mask, np.ones((3, 3, 3)))
    assert filled[inner].mean() == pytest.approx(WHITE, abs=0.03)
    assert filled[mask].std() > SD / 2


def test_the_rim_is_between_white_matter_and_its_neighbours() -> None:
    image = brain()
    filled = white_matter_fill(image, IN_GREY)
    assert GREY - 0.1 < filled[IN_GREY].mean() < WHITE


def test_fat_is_not_taken_for_white_matter() -> None:
    image = brain()
    r = distance()
    image[(r > 21) & (r < 21.6)] = 1.6  # skin: twice as bright as white matter, a tenth of the tissue
    filled = white_matter_fill(image, IN_WHITE)
    assert filled[IN_WHITE].mean() == pytest.approx(WHITE, abs=0.05)


def test_what_the_mask_hides_changes_nothing() -> None:
    image, mask = brain(), IN_WHITE | IN_GREY
    hidden = np.where(mask, np.float32(np.nan), image)
    assert np.array_equal(white_matter_fill(image, mask), white_matter_fill(hidden, mask))


def test_outside_the_mask_nothing_changes_and_the_input_is_left_alone() -> None:
    image = brain()
    before = image.copy()
    filled = white_matter_fill(image, IN_WHITE)
    assert filled.dtype == np.float32
    assert np.array_equal(filled[~IN_WHITE], image[~IN_WHITE])
    assert np.array_equal(image, before)


def test_the_same_case_gets_the_same_fill() -> None:
    assert np.array_equal(white_matter_fill(brain(), IN_WHITE), white_matter_fill(brain(), IN_WHITE))


def test_a_lesion_far_from_white_matter_takes_that_of_the_wide_surroundings() -> None:
    mask = ball((42, 50, 38), 1.5)  # in the air of a corner
    filled = white_matter_fill(brain(), mask)
    assert filled[mask].max() > WHITE / 4


def test_a_volume_without_tissue_is_filled_with_air() -> None:
    mask = IN_WHITE
    filled = white_matter_fill(np.zeros(SHAPE, np.float32), mask)
    assert not filled.any()


def test_an_empty_mask_changes_nothing() -> None:
    image = brain()
    assert np.array_equal(white_matter_fill(image, np.zeros(SHAPE, bool)), image)
