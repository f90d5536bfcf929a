"""diffusers as a witness: agreement where it is right, and the settings in which it is not.

Levels are taken from the diffusers scheduler itself (its timestep i is our level i + 1), so these tests
compare steps, not lists. Why we own this code is told in docs/decisions/0002-own-diffusion-core.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from neuromend.diffusion import samplers
from neuromend.diffusion.schedule import Schedule, Spacing

SCHEDULE = Schedule.linear()
SIGMA = 0.3
COMMON = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "sample",
}


def denoise(x: Tensor, t: int) -> Tensor:
    """The perfect denoiser for data N(0, 0.3^2)."""
    abar = SCHEDULE.abar[t].item()
    return abar**0.5 * SIGMA**2 / (abar * SIGMA**2 + 1 - abar) * x


def denoise_with_variance(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    return denoise(x, t), torch.sin(3 * x)


def normal() -> Tensor:
    return torch.randn(3, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def theirs(
    scheduler: object, x: Tensor, predict: Callable[[Tensor, int], Tensor], **options: object
) -> Tensor:
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(predict(x, t + 1), t, x, **options).prev_sample
    return x


def ours(scheduler: object, sampler: Callable[..., Tensor], x: Tensor, predict=denoise) -> Tensor:
    levels = [t + 1 for t in scheduler.timesteps.tolist()] + [0]
    generator = torch.Generator().manual_seed(1)
    return sampler(predict, x, levels, schedule=SCHEDULE, generator=generator)


@pytest.mark.parametrize("spacing", ["linspace", "leading"])
@pytest.mark.parametrize("steps", [7, 10, 60])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_ancestral_steps_agree(variance: str, steps: int, spacing: str) -> None:
    scheduler = DDPMScheduler(**COMMON, clip_sample=False, variance_type=variance, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    if variance == "learned_range":
        found = ours(scheduler, samplers.ddpm, normal(), denoise_with_variance)
        expected = theirs(
            scheduler, normal(), lambda x, t: torch.cat(denoise_with_variance(x, t), 1), generator=generator
        )
    else:
        found = ours(scheduler, partial(samplers.ddpm, variance=variance), normal())
        expected = theirs(scheduler, normal(), denoise, generator=generator)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("spacing", "steps"), [("leading", 7), ("leading", 50), ("trailing", 10), ("trailing", 50)]
)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_agree_where_the_gaps_are_even(eta: float, spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(**COMMON, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    found = ours(scheduler, partial(samplers.ddim, eta=eta), normal())
    expected = theirs(scheduler, normal(), denoise, eta=eta, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_multistep_solver_agrees(steps: int, spacing: str) -> None:
    scheduler = DPMSolverMultistepScheduler(
        **COMMON,
        final_sigmas_type="zero",
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    found = ours(scheduler, samplers.dpmpp_2m, normal())
    torch.testing.assert_close(found, theirs(scheduler, normal(), denoise), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 10, 60])
def test_levels_are_at_the_same_places(steps: int, spacing: Spacing) -> None:
    scheduler = DDPMScheduler(**COMMON, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    expected = [t + 1 for t in scheduler.timesteps.tolist()] + [0]
    if (steps, spacing) == (1, "linspace"):
        assert expected == [1, 0]  # a single step from the level with the least noise: of no use
        expected = [1000, 0]
    assert SCHEDULE.levels(steps, spacing) == expected


@pytest.mark.parametrize(
    ("spacing", "steps", "their_std", "our_std"),
    [("linspace", 300, 0.335, 0.295), ("linspace", 600, 0.484, 0.298), ("trailing", 600, 0.484, 0.297)],
)
def test_their_ddim_is_wrong_where_the_gaps_are_uneven(
    spacing: str, steps: int, their_std: float, our_std: float
) -> None:
    """It steps to t - T // steps instead of to the next timestep of its own list; the answer is 0.30."""
    scheduler = DDIMScheduler(**COMMON, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    one = torch.ones(1, dtype=torch.float64)  # eta = 0 is linear: the response to 1 is the output std
    assert theirs(scheduler, one, denoise).item() == pytest.approx(their_std, abs=5e-4)
    assert ours(scheduler, samplers.ddim, one).item() == pytest.approx(our_std, abs=5e-4)


def test_their_ancestral_sampler_ends_with_noise_under_trailing_spacing_and_large_variance() -> None:
    """It adds noise whenever the timestep is above 0, though the step leads to clean data."""
    scheduler = DDPMScheduler(
        **COMMON, clip_sample=False, variance_type="fixed_large", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    xt = torch.randn(3, 1, 20, 30, 40, generator=torch.Generator().manual_seed(0))
    their_std = theirs(scheduler, xt, denoise, generator=torch.Generator().manual_seed(1)).std().item()
    our_std = ours(scheduler, partial(samplers.ddpm, variance="fixed_large"), xt).std().item()
    added = 1 - SCHEDULE.abar[100].item()  # the variance of a large step from their last timestep, 99
    assert our_std == pytest.approx(0.277, abs=0.004)
    assert their_std == pytest.approx((our_std**2 + added) ** 0.5, rel=0.01)
    assert their_std > 0.42
