"""Holes of training cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from neuromend.corpus.holes import LARGEST_SHARE, LEAST_VOXELS, draw_holes, scattered, usable
from neuromend.corpus.recipe import Recipe

SHAPE = (40, 48, 44)
ONE = Recipe(scattered=0.0, beyond_brain=0.0)


def inside() -> NDArray[np.bool_]:
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.linalg.norm((grid - [20, 24, 22]) / [18, 22, 20], axis=-1) < 1


def drawn(
    seed: int, recipe: Recipe = ONE, volume_ml: float = 20.0, **more: object
) -> NDArray[np.bool_] | None:
    options = {"planted": None, "diseased": None, "around_centre": False, **more}
    return draw_holes(
        np.random.default_rng(seed), inside(), options.pop("planted"), spacing_mm=2.0, volume_ml=volume_ml,  # type: ignore[arg-type]
        recipe=recipe, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_large_hole_has_about_the_volume_that_was_wanted() -> None:
    volumes = [
        mask.sum() * 8 / 1000
        for mask in (drawn(seed, around_centre=True) for seed in range(8))
        if mask is not None
    ]
    assert np.median(volumes) == pytest.approx(20, rel=0.1)


def test_holes_end_with_the_brain_unless_told_otherwise() -> None:
    for seed in range(6):
        mask = drawn(seed)
        assert mask is None or not (mask & ~inside()).any()
    beyond = [drawn(seed, replace(ONE, beyond_brain=1.0)) for seed in range(20)]
    assert any((mask & ~inside()).any() for mask in beyond if mask is not None)


def test_a_planted_shape_is_part_of_the_hole() -> None:
    planted = np.zeros(SHAPE, bool)
    planted[10:14, 20:24, 20:24] = True
    mask = drawn(0, volume_ml=0.5, planted=planted)
    assert mask is not None
    assert mask[planted].all()
    alone = drawn(0, volume_ml=50.0, planted=planted)
    assert alone is not None
    assert np.array_equal(alone, planted)


def test_diseased_tissue_is_cut_off() -> None:
    diseased = np.zeros(SHAPE, bool)
    diseased[:20] = True
    for seed in range(6):
        mask = drawn(seed, replace(ONE, scattered=1.0, beyond_brain=1.0), diseased=diseased)
        assert mask is None or not (mask & diseased).any()


def test_scattered_holes_hide_a_tenth_to_a_third() -> None:
    shares = [scattered(np.random.default_rng(seed), SHAPE, 2.0).mean() for seed in range(12)]
    assert 0.08 < min(shares) < max(shares) < 0.33


def test_too_little_and_too_much_is_of_no_use() -> None:
    brain = inside()
    few = np.zeros(SHAPE, bool)
    few.ravel()[np.flatnonzero(brain)[: LEAST_VOXELS - 1]] = True
    assert usable(few.copy(), brain, None, beyond_brain=False) is None
    most = np.zeros(SHAPE, bool)
    most.ravel()[np.flatnonzero(brain)[: int((LARGEST_SHARE + 0.01) * brain.sum())]] = True
    assert usable(most.copy(), brain, None, beyond_brain=False) is None
    assert draw_holes(
        np.random.default_rng(0), np.zeros(SHAPE, bool), None, diseased=None, spacing_mm=1.0, volume_ml=1.0,
        around_centre=False, recipe=ONE,
    ) is None  # fmt: skip
