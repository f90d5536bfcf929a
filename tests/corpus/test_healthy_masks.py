"""Healthy masks: each property that the challenge's paper states, for random brains, lesions and shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuromend.corpus import healthy_masks
from neuromend.corpus.healthy_masks import (
    DISTANCE_MM,
    GROWN_MM,
    LEAST_BRAIN_SHARE,
    LEAST_ML,
    Matching,
    PoolShape,
    ShapePool,
    brain_of,
    case_seed,
    draw_healthy_mask,
    pieces_of,
    turned,
)
from neuromend.corpus.shapes import ShapeBook
from neuromend.data.lesions import LesionShape
from neuromend.errors import InputError

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
SHAPE, SPACING = (58, 66, 54), (2.0, 1.5, 2.5)
ONE_MM = (1.0, 1.0, 1.0)


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius_mm: float, spacing: Spacing) -> Mask:
    grid = np.indices(shape).reshape(3, -1).T
    far = np.linalg.norm((grid - centre) * spacing, axis=1)
    return (far <= radius_mm).reshape(shape)


BRAIN = ball(SHAPE, (28, 32, 27), 48.0, SPACING)
L_SHAPE = np.zeros((9, 12, 5), bool)
L_SHAPE[:, :3] = L_SHAPE[:2] = True
POOL = ShapePool.of([PoolShape(0.01 * (n + 1), L_SHAPE[:, : 4 + n]) for n in range(8)])


def lesion_at(voxel: tuple[int, int, int], radius_mm: float) -> Mask:
    return BRAIN & ball(SHAPE, voxel, radius_mm, SPACING)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(16, 40), st.integers(16, 48), st.integers(16, 38)),
    st.floats(0, 20),
    st.sampled_from(["inverse", "random"]),
)
def test_a_healthy_mask_keeps_its_distance_and_lies_in_the_brain(
    seed: int, voxel: tuple[int, int, int], radius_mm: float, matching: Matching
) -> None:
    lesion = lesion_at(voxel, radius_mm)
    rng = np.random.default_rng(seed)
    mask = draw_healthy_mask(rng, BRAIN, lesion, SPACING, POOL, matching=matching)
    assert mask.any()
    assert not (mask & lesion).any()  # TR-11
    unhealthy = lesion | (ndimage.distance_transform_edt(~lesion, sampling=SPACING) < GROWN_MM)
    distance = ndimage.distance_transform_edt(~unhealthy, sampling=SPACING)
    assert distance[mask].min() >= DISTANCE_MM
    assert (mask & BRAIN).sum() / mask.sum() >= LEAST_BRAIN_SHARE


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_the_same_seed_gives_the_same_mask(seed: int) -> None:
    lesion = lesion_at((20, 30, 25), 12.0)
    first, again, other = (
        draw_healthy_mask(np.random.default_rng(s), BRAIN, lesion, SPACING, POOL)
        for s in (seed, seed, seed + 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_small_lesion_gets_a_large_mask_and_the_other_way_round() -> None:
    pool = ShapePool.of(PoolShape((n + 1) / 1000, np.ones((1 + n, 1, 1), bool)) for n in range(100))
    rng = np.random.default_rng(0)
    ranks = {
        share: [round(1000 * pool.draw(rng, share, "inverse").share) - 1 for _ in range(300)]
        for share in (0.0, 0.02, 0.05, 0.2)
    }
    # Shares of 0, 0.02, 0.05 and 0.2 have the ranks 0, 19, 49 and 100 of 0..99: mirrored 99, 80, 50 and 0.
    for share, wanted in ((0.0, 99), (0.02, 80), (0.05, 50), (0.2, 0)):
        low, high = max(wanted - 5, 0), min(wanted + 5, 99)
        assert low <= min(ranks[share]) <= low + 1, share  # the whole window of a tenth of the pool, no more
        assert high - 1 <= max(ranks[share]) <= high, share


def test_as_released_the_size_does_not_depend_on_the_lesion() -> None:
    pool = ShapePool.of(PoolShape((n + 1) / 1000, np.ones((1 + n, 1, 1), bool)) for n in range(10))
    for share in (0.0, 0.2):
        rng = np.random.default_rng(0)
        drawn = {pool.draw(rng, share, "random").share for _ in range(200)}
        assert len(drawn) == 10


def test_shapes_are_mirrored_and_turned_but_never_resized() -> None:
    mirrored = turned(L_SHAPE, ONE_MM, ONE_MM, np.array([True, False, False]), np.zeros(2))
    assert np.array_equal(mirrored, L_SHAPE[::-1])
    quarter = turned(L_SHAPE, ONE_MM, ONE_MM, np.zeros(3, bool), np.array([np.pi / 2, 0]))
    assert quarter.shape == (12, 9, 5)
    assert np.array_equal(quarter, np.rot90(L_SHAPE, 1, (0, 1)))
    second = turned(L_SHAPE, ONE_MM, ONE_MM, np.zeros(3, bool), np.array([0, np.pi / 2]))
    assert second.shape == (9, 5, 12)
    solid = ball((31, 29, 27), (15, 14, 13), 11.0, ONE_MM)
    rng = np.random.default_rng(3)
    for _ in range(5):
        other = turned(solid, ONE_MM, SPACING, rng.random(3) < 0.5, rng.uniform(0, 7, 2))
        assert other.sum() * np.prod(SPACING) == pytest.approx(solid.sum(), rel=0.06)


def test_every_orientation_comes_up() -> None:
    flag = np.zeros((6, 4, 2), bool)
    flag[0] = flag[:, 0] = flag[:, :, 0] = True
    pool = ShapePool.of([PoolShape(0.01, flag)])
    empty = np.zeros(SHAPE, bool)
    rng = np.random.default_rng(0)
    masks = [draw_healthy_mask(rng, BRAIN, empty, ONE_MM, pool) for _ in range(25)]
    found = {mask[ndimage.find_objects(mask.astype(np.uint8))[0]].tobytes() for mask in masks}
    assert len(found) > 15


def test_a_shape_of_half_a_voxel_is_still_a_voxel() -> None:
    tiny = turned(np.ones((1, 1, 1), bool), (0.2,) * 3, (3.0,) * 3, np.zeros(3, bool), np.array([0.3, 0.1]))
    assert tiny.shape == (1, 1, 1)
    assert tiny.all()


def test_the_pool_of_the_challenge_holds_the_large_pieces_of_every_lesion() -> None:
    lesion = np.zeros((40, 44, 48), bool)
    lesion[2:12, 3:13, 4:14] = True
    lesion[5, 6, 7] = False  # a hole is filled
    lesion[20:32, 20:30, 20:30] = True
    lesion[36, 40, 44] = True  # too small
    brain = np.ones(lesion.shape, bool)
    pieces = pieces_of(lesion, brain, ONE_MM)
    assert sorted(int(p.voxels.sum()) for p in pieces if p.voxels is not None) == [1000, 1200]
    assert {p.share for p in pieces} == {2200 / lesion.size}
    halved = pieces_of(lesion, brain, (0.5, 1.0, 1.0))
    assert not halved  # half the volume: below LEAST_ML
    assert LEAST_ML == 0.8


def test_lesions_of_other_diseases_and_blobs_make_pools_too() -> None:
    shapes = tuple(
        LesionShape(np.ones((n, 10, 10), bool), np.diag([1.0, 1, 2, 1]), 0.2 * n) for n in (2, 9, 30)
    )
    pool = ShapePool.of_book(ShapeBook((shapes,), (1.0,)))
    assert [shape.spacing_mm for shape in pool.shapes] == [(1.0, 1.0, 2.0)] * 2  # 0.4 ml is too small
    blobs = ShapePool.of_blobs()
    for index in (0, 100, 150):
        shape = blobs.shapes[index]
        voxels, _ = shape.drawn(np.random.default_rng(1))
        assert voxels.sum() / 1000 == pytest.approx(shape.share * healthy_masks.TYPICAL_BRAIN_ML, rel=0.1)


def test_the_brain_is_the_largest_piece_with_its_holes_filled() -> None:
    values = np.where(BRAIN, np.float32(3), np.float32(0))
    values[28, 32, 27] = 0
    values[0, 0, 0] = 5
    values[1, 1, 1] = np.nan
    assert np.array_equal(brain_of(values), BRAIN)
    assert not brain_of(np.zeros(SHAPE, np.float32)).any()


def test_a_case_has_its_own_randomness() -> None:
    draws = {case_seed(seed, case).integers(2**62) for seed in (0, 1) for case in ("a", "b")}
    assert len(draws) == 4
    assert case_seed(0, "a").integers(2**62) == case_seed(0, "a").integers(2**62)


def test_a_brain_that_is_all_lesion_is_refused() -> None:
    with pytest.raises(InputError, match="all of this brain is lesion") as caught:
        draw_healthy_mask(np.random.default_rng(0), BRAIN, BRAIN, SPACING, POOL)
    assert (caught.value.code, caught.value.exit_status) == ("TR-34", 65)


def test_a_brain_in_which_nothing_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthy_masks, "TRIES", 3)
    huge = ShapePool.of([PoolShape(0.5, np.ones((200, 200, 200), bool))])
    with pytest.raises(InputError, match="3 shapes and places were tried") as caught:
        draw_healthy_mask(np.random.default_rng(0), BRAIN, np.zeros(SHAPE, bool), SPACING, huge)
    assert caught.value.code == "TR-34"


def test_a_pool_without_shapes_is_refused() -> None:
    with pytest.raises(InputError, match="no lesion has a piece") as caught:
        ShapePool.of(pieces_of(np.zeros(SHAPE, bool), BRAIN, SPACING))
    assert (caught.value.code, caught.value.exit_status) == ("TR-34", 65)
