"""Schedules against their published values, and the lists of levels."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from neuromend.diffusion.schedule import Schedule, Spacing

SPACINGS: tuple[Spacing, ...] = ("trailing", "linspace", "leading")


@pytest.mark.parametrize(
    "schedule",
    [Schedule.linear(), Schedule.linear(100), Schedule.cosine(50), Schedule.variance_preserving(3)],
)
def test_level_zero_is_clean_and_noise_only_grows(schedule: Schedule) -> None:
    assert schedule.abar[0] == 1
    assert schedule.abar.dtype == torch.float64
    assert schedule.abar.shape == (schedule.T + 1,)
    assert (schedule.abar.diff() < 0).all()


def test_linear_schedule_has_the_published_variances() -> None:
    betas = Schedule.linear().betas
    torch.testing.assert_close(
        betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_linear_schedule_ends_with_the_same_noise_at_any_length() -> None:
    for T in (100, 250, 4000):
        assert Schedule.linear(T).abar[-1].log() == pytest.approx(math.log(4e-5), rel=0.1)


def test_cosine_schedule_follows_its_formula_and_is_clipped() -> None:
    schedule = Schedule.cosine(1000)
    assert schedule.betas[0] == pytest.approx(4.128422369831242e-05, rel=1e-6)  # published, in float32
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 400)]
    assert schedule.abar[400] == pytest.approx(f[1] / f[0], rel=1e-9)
    assert schedule.betas[-1] == pytest.approx(0.9999)


# The values of the released few-step model, as alpha-bar from level 1 to T.
VARIANCE_PRESERVING = {
    2: (0.078676, 4.3e-5),
    4: (0.521745, 0.078676, 0.003429, 4.3e-5),
    8: (0.843555, 0.521745, 0.236611, 0.078676, 0.019181, 0.003429, 0.000449, 4.3e-5),
}


@pytest.mark.parametrize("T", VARIANCE_PRESERVING)
def test_variance_preserving_schedule_has_the_published_values(T: int) -> None:
    expected = torch.tensor((1.0, *VARIANCE_PRESERVING[T]), dtype=torch.float64)
    torch.testing.assert_close(Schedule.variance_preserving(T).abar, expected, atol=6e-7, rtol=0)


def test_betas_and_abar_say_the_same() -> None:
    betas = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    torch.testing.assert_close(Schedule.from_betas(betas).betas, betas)


@pytest.mark.parametrize(
    "abar", [[0.9, 0.5], [1.0], [1.0, 0.5, 0.5], [1.0, 0.0], [1.0, float("nan")], [[1.0, 0.5]]], ids=str
)
def test_a_sequence_that_is_no_schedule_is_refused(abar: list[float]) -> None:
    with pytest.raises(ValueError, match="abar must"):
        Schedule(torch.tensor(abar, dtype=torch.float64))


def test_single_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found torch\.float32"):
        Schedule(torch.tensor([1.0, 0.5]))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [1, 2, 7, 1000])
def test_levels_fall_strictly_to_zero_for_every_step_count(spacing: Spacing, T: int) -> None:
    schedule = Schedule.variance_preserving(T)
    for steps in range(1, T + 1):
        levels = schedule.levels(steps, spacing)
        assert len(levels) == steps + 1
        assert levels[-1] == 0
        assert all(s < t for t, s in pairwise(levels))
        assert levels[0] <= T
        if spacing != "leading":
            assert levels[0] == T


def test_levels_have_the_published_positions() -> None:
    schedule = Schedule.linear()
    assert schedule.levels(4) == [1000, 750, 500, 250, 0]
    assert schedule.levels(7) == [1000, 857, 714, 571, 429, 286, 143, 0]
    # the published respacing to 10 steps is 999, 888, ..., 111, 0 in its own numbers, which are ours - 1
    assert schedule.levels(10, "linspace") == [i + 1 for i in range(999, -1, -111)] + [0]
    assert schedule.levels(3, "leading") == [667, 334, 1, 0]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 1000, .* found {steps}"):
        Schedule.linear().levels(steps)


def test_unknown_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="found 'karras'"):
        Schedule.linear().levels(10, "karras")  # type: ignore[arg-type]
