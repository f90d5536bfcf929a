"""What the diffusion methods on whole volumes share around their networks: the hole, the walk, the mean."""

from __future__ import annotations

from torch import Generator, Tensor

from neuromend.diffusion.samplers import Denoise, OnStep, ddim, ddpm, dpmpp_2m
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.contract import Sampler

PUBLISHED_STEPS = 1000
"""The published methods visit every level."""

SAMPLERS = {"ddim": ddim, "dpmpp": dpmpp_2m, "ddpm": ddpm}
"""Samplers that take any number of steps, by the name that a config gives them."""


def hole_of(mask: Tensor) -> Tensor:
    """Where tissue is to be invented, as bool."""
    return mask > 0.5


def weighted_mean(per_case: Tensor, hole: Tensor) -> Tensor:
    """The mean loss over a batch (B,); a case with nothing to fill (B, 1, X, Y, Z) has weight 0."""
    return (per_case * hole.flatten(1).any(1)).mean()


def walk(
    sampler: Sampler,
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    *,
    schedule: Schedule,
    generator: Generator,
    on_step: OnStep | None,
) -> Tensor:
    """From noise (B, ...) to clean data in ``steps`` network evaluations.

    ``"published"`` is ancestral sampling with the large variance over evenly spread levels.

    Raises:
        ValueError: if ``steps`` is outside 1 to T.
    """
    if sampler == "published":
        levels = schedule.levels(steps, "linspace")
        return ddpm(
            denoise, noise, levels,
            schedule=schedule, generator=generator, on_step=on_step, variance="fixed_large",
        )  # fmt: skip
    return SAMPLERS[sampler](
        denoise, noise, schedule.levels(steps), schedule=schedule, generator=generator, on_step=on_step
    )
