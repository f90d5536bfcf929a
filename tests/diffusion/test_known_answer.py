"""Samplers have a known answer: if clean data are N(0, 0.3^2), samples must be N(0, 0.3^2).

For such data the perfect denoiser is E[x_0 | x_t] = c x_t, so every sampler is linear in the noise it is
given and the standard deviation of its output follows from a recursion over the levels. That recursion is
written here a second time, from Gaussian conditioning and not from the samplers' formulas. Three checks:

1. a sampler's exact output std (its response to every single noise draw, summed in squares) is that of the
   recursion, for every sampler x schedule x spacing x step count;
2. the recursion comes as close to 0.30 as the stated discretisation loss allows, which shrinks with steps;
3. samples drawn with a real generator have that std within 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import count, pairwise

import pytest
import torch
from torch import Tensor

from neuromend.diffusion import samplers
from neuromend.diffusion.process import noise_like
from neuromend.diffusion.schedule import Schedule, Spacing

SIGMA = 0.3
STEPS = (1, 2, 5, 10, 25, 50, 100, 250, 1000)
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddpm fixed_small": samplers.ddpm,
    "ddpm fixed_large": partial(samplers.ddpm, variance="fixed_large"),
    "ddpm learned_range": samplers.ddpm,
    "ddim 0": samplers.ddim,
    "ddim 0.5": partial(samplers.ddim, eta=0.5),
    "ddim 1": partial(samplers.ddim, eta=1.0),
    "dpmpp_2m": samplers.dpmpp_2m,
}
SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": lambda steps: Schedule.linear(),
    "cosine": lambda steps: Schedule.cosine(),
    "variance_preserving": Schedule.variance_preserving,
}
# |std / 0.30 - 1| <= C / steps^order under trailing spacing. Ancestral steps of a fixed variance and DDIM are
# of first order, the multistep solver of second; the few tenths of a per mille that stay come from the last
# step, which returns the mean E[x_0 | x_1].
LOSS = {
    "ddpm fixed_small": (13, 1),
    "ddpm fixed_large": (3.5, 1),
    "ddpm learned_range": (3.5, 1),
    "ddim 0": (5, 1),
    "ddim 0.5": (7, 1),
    "ddim 1": (13, 1),
    "dpmpp_2m": (60, 2),
}
LAST_STEP = 7e-4


def shrinkage(abar: float) -> float:
    """The c of the perfect denoiser E[x_0 | x_t] = c x_t: covariance of (x_0, x_t) over variance of x_t."""
    return abar**0.5 * SIGMA**2 / (abar * SIGMA**2 + 1 - abar)


def perfect_denoiser(schedule: Schedule, levels: list[int], *, learned: bool) -> Callable[..., object]:
    """c x_t, and with ``learned`` also the v that names the true variance of x_s given x_t."""
    following = dict(pairwise(levels))

    def denoise(x: Tensor, t: int) -> Tensor | tuple[Tensor, Tensor]:
        abar_t, abar_s = schedule.abar[t].item(), schedule.abar[following[t]].item()
        x0 = shrinkage(abar_t) * x
        if not learned:
            return x0
        if abar_s == 1:
            return x0, torch.zeros_like(x)
        kept = abar_t / abar_s
        true = 1 / (1 / (abar_s * SIGMA**2 + 1 - abar_s) + kept / (1 - kept))
        small = 1 / (1 / (1 - abar_s) + kept / (1 - kept))
        return x0, torch.full_like(x, 2 * math.log(true / small) / math.log((1 - kept) / small) - 1)

    return denoise


def expected_std(name: str, schedule: Schedule, levels: list[int]) -> float:
    """The closed form, by recursion from std 1 at the first level."""
    abar = schedule.abar.tolist()
    if name == "dpmpp_2m":
        return abs(_multistep_gain([abar[t] for t in levels]))
    variance = 1.0
    for t, s in pairwise(levels):
        c = shrinkage(abar[t])
        if s == 0:
            variance *= c**2
            continue
        kept = abar[t] / abar[s]
        precision = 1 / (1 - abar[s]) + kept / (1 - kept)
        if name.startswith("ddpm") or name == "ddim 1":
            gain = (abar[s] ** 0.5 * c / (1 - abar[s]) + kept**0.5 / (1 - kept)) / precision
            true = 1 / (1 / (abar[s] * SIGMA**2 + 1 - abar[s]) + kept / (1 - kept))
            added = {"ddpm fixed_large": 1 - kept, "ddpm learned_range": true}.get(name, 1 / precision)
        else:
            added = float(name.split()[1]) ** 2 / precision
            eps = (1 - abar[t] ** 0.5 * c) / (1 - abar[t]) ** 0.5
            gain = abar[s] ** 0.5 * c + (1 - abar[s] - added) ** 0.5 * eps
        variance = gain**2 * variance + added
    return variance**0.5


def _multistep_gain(abar: list[float]) -> float:
    """x_0 / x_T of DPM-Solver++ 2M, in the variables y = x / sigma and alpha / sigma of its derivation."""
    x, before = 1.0, None
    for at, as_ in pairwise(abar):
        x0 = shrinkage(at) * x
        if as_ == 1:
            return x0
        ratio_t, ratio_s = (at / (1 - at)) ** 0.5, (as_ / (1 - as_)) ** 0.5
        target = x0
        if before is not None:
            last_x0, last_ratio = before
            slope = (x0 - last_x0) / math.log(ratio_t / last_ratio)
            target = x0 + slope * math.log(ratio_s / ratio_t) / 2  # the value half a step ahead
        before = x0, ratio_t
        y = x / (1 - at) ** 0.5 + (ratio_s - ratio_t) * target
        x = y * (1 - as_) ** 0.5
    raise AssertionError("levels did not end at 0")


def exact_std(name: str, schedule: Schedule, levels: list[int], monkeypatch: pytest.MonkeyPatch) -> float:
    """The sampler's own output std, without sampling: item k of the batch sees unit noise at draw k only."""
    basis = torch.eye(len(levels), dtype=torch.float64)[:, :, None]  # (draws, batch, 1)
    draws = count(1)
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: basis[next(draws)])
    denoise = perfect_denoiser(schedule, levels, learned=name == "ddpm learned_range")
    out = SAMPLERS[name](denoise, basis[0], levels, schedule=schedule, generator=torch.Generator())
    return out.square().sum().sqrt().item()


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_output_std_is_the_closed_form(
    name: str, kind: str, spacing: Spacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in STEPS:
        schedule = SCHEDULES[kind](steps)
        levels = schedule.levels(steps, spacing)
        found = exact_std(name, schedule, levels, monkeypatch)
        assert found == pytest.approx(expected_std(name, schedule, levels), rel=1e-9), steps


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_closed_form_tends_to_the_true_std(name: str, kind: str) -> None:
    factor, order = LOSS[name]
    for steps in STEPS:
        schedule = SCHEDULES[kind](steps)
        loss = abs(expected_std(name, schedule, schedule.levels(steps)) / SIGMA - 1)
        assert loss <= factor / steps**order + LAST_STEP, f"{steps} steps lose {loss:.2%}"


@pytest.mark.parametrize("spacing", ["linspace", "leading"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_ancestral_sampling_with_the_true_variance_has_no_discretisation_loss(
    kind: str, spacing: Spacing
) -> None:
    """Lists that end with 1, 0 leave only the loss of the last step, however few the steps."""
    schedule = SCHEDULES[kind](0)
    for steps in (10, 25, 100, 1000):
        found = expected_std("ddpm learned_range", schedule, schedule.levels(steps, spacing))
        assert found == pytest.approx(SIGMA, rel=LAST_STEP)


@pytest.mark.parametrize("steps", [4, 50])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_drawn_samples_have_the_expected_std(name: str, kind: str, steps: int) -> None:
    schedule = SCHEDULES[kind](steps)
    levels = schedule.levels(steps)
    generator = torch.Generator().manual_seed(1)
    denoise = perfect_denoiser(schedule, levels, learned=name == "ddpm learned_range")
    xt = noise_like(torch.empty(3, 1, 30, 40, 20), generator)
    out = SAMPLERS[name](denoise, xt, levels, schedule=schedule, generator=generator)
    assert out.std().item() == pytest.approx(expected_std(name, schedule, levels), rel=0.01)
    assert out.mean().item() == pytest.approx(0, abs=0.005)


def test_a_thousand_ancestral_steps_return_the_data() -> None:
    schedule = Schedule.linear()
    levels = schedule.levels(1000)
    generator = torch.Generator().manual_seed(1)
    denoise = perfect_denoiser(schedule, levels, learned=True)
    xt = noise_like(torch.empty(3, 1, 30, 40, 10), generator)
    out = samplers.ddpm(denoise, xt, levels, schedule=schedule, generator=generator)
    assert out.std().item() == pytest.approx(SIGMA, rel=0.01)


def test_stepping_to_the_numerical_neighbour_would_return_the_wrong_std() -> None:
    """Why samplers take a list: a step from t to t - 1, where the list says t - 10, leaves noise behind.

    This is what MONAI's DDPM scheduler does whenever it is asked for fewer steps than it was trained with.
    """
    abar = Schedule.linear().abar.tolist()

    def std_with_neighbour_steps(steps: int) -> float:
        variance = 1.0
        for t in range(1001 - 1000 // steps, 0, -1000 // steps):
            kept = abar[t] / abar[t - 1]
            x0_weight = abar[t - 1] ** 0.5 * (1 - kept) / (1 - abar[t])
            xt_weight = kept**0.5 * (1 - abar[t - 1]) / (1 - abar[t])
            added = (1 - abar[t - 1]) / (1 - abar[t]) * (1 - kept)
            variance = (x0_weight * shrinkage(abar[t]) + xt_weight) ** 2 * variance + added
        return variance**0.5

    assert std_with_neighbour_steps(1000) == pytest.approx(SIGMA, rel=0.02)
    assert std_with_neighbour_steps(100) == pytest.approx(0.80, abs=0.005)
