"""Filling in windows: every voxel of the hole once, nothing else, and no window larger than allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuromend.diffusion.samplers import OnStep
from neuromend.methods.windows import fill_in_windows, plan_windows


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    grid = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt((grid**2).sum(0)) < radius


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 29)] * 3, st.floats(1.0, 14.0)), min_size=1, max_size=5))
def test_every_voxel_of_the_hole_is_kept_once(balls: list[tuple[int, int, int, float]]) -> None:
    shape = (30, 34, 38)
    hole = np.any([ball(shape, (x, y, z), r) for x, y, z, r in balls], axis=0)
    kept = np.zeros(shape, int)
    for window in plan_windows(hole, (16, 12, 20)):
        assert window.keep.shape == (16, 12, 20)
        kept[window.box] += window.keep
    assert np.array_equal(kept, hole)


def test_a_volume_no_larger_than_a_window_is_filled_at_once() -> None:
    hole = ball((6, 8, 10), (3, 4, 5), 2.5)
    (window,) = plan_windows(hole, (6, 8, 10))
    assert window.corner == (0, 0, 0)
    assert np.array_equal(window.keep, hole)


def test_holes_that_lie_close_share_a_window_and_distant_ones_do_not() -> None:
    shape = (40, 44, 48)
    near = ball(shape, (8, 8, 8), 2.5) | ball(shape, (14, 8, 8), 2.5)
    far = near | ball(shape, (34, 38, 42), 2.5)
    assert len(plan_windows(near, (16, 16, 16))) == 1
    assert len(plan_windows(far, (16, 16, 16))) == 2


def test_a_window_shows_context_around_a_hole_that_goes_on() -> None:
    """The end of a window is not painted for good where the hole goes on: the next window sees further."""
    hole = np.zeros((60, 20, 22), bool)
    hole[4:56, 8:12, 9:13] = True
    windows = plan_windows(hole, (16, 16, 16))
    first = np.argwhere(windows[0].keep)[:, 0]
    assert windows[0].corner[0] == 2, "some tissue before the hole"
    assert first.max() == 16 - 2 - 1, "an eighth of the window is left to the next one"


def test_later_windows_see_what_earlier_ones_painted() -> None:
    hole = torch.zeros(2, 1, 60, 20, 22, dtype=torch.bool)
    hole[0, :, 4:56, 8:12, 9:13] = True
    hole[1, :, 8:12, 8:12, 9:13] = True
    voided = torch.where(hole, torch.full(hole.shape, float("nan")), torch.full(hole.shape, 0.5))
    seen: list[tuple[Tensor, Tensor]] = []
    told: list[tuple[int, int]] = []

    def paint(known: Tensor, open_hole: Tensor, on_step: OnStep | None) -> Tensor:
        assert known.shape == open_hole.shape == (2, 1, 16, 16, 16)
        seen.append((known.clone(), open_hole.clone()))
        if on_step is not None:
            on_step(1, 1)
        return torch.full_like(known, float(len(seen)))

    filled = fill_in_windows(paint, voided, hole, (16, 16, 16), lambda done, of: told.append((done, of)))
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[~hole], voided[~hole])
    assert (filled[0, 0, 10, 10, 10], filled[1, 0, 10, 10, 10]) == (1.0, 1.0)
    assert (seen[1][0][0] == 1.0).any(), "the first window's paint is known tissue in the second"
    assert not (seen[1][0][0] == 1.0)[seen[1][1][0]].any()
    assert not seen[1][1][1].any(), "an item without another window has nothing left to fill"
    assert told == [(k + 1, len(seen)) for k in range(len(seen))]


@pytest.mark.parametrize("shape", [(6, 8, 10), (32, 8, 10)])
def test_an_empty_hole_paints_nothing(shape: tuple[int, int, int]) -> None:
    volume = torch.rand(1, 1, *shape)
    hole = torch.zeros(1, 1, *shape, dtype=torch.bool)
    assert torch.equal(fill_in_windows(lambda known, *_: known + 1, volume, hole, (16, 16, 16)), volume)
