"""What the slice-wise methods share: axial slices out of a volume and back, the loss, and the walk from noise.

Slices are (S, 1, X, Y). Their axes run to the left and to the back, as in the arrays of the BraTS challenge on
which the published weights were trained (affine with -1, -1, 1), while volumes are RAS: both are reversed here
on the way in and on the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from neuromend.diffusion.process import add_noise, noise_like, x0_from_eps
from neuromend.diffusion.samplers import OnStep, ddim, ddpm, dpmpp_2m
from neuromend.diffusion.schedule import Schedule
from neuromend.diffusion.variational import variational_bound
from neuromend.methods.contract import TURNED, Sampler, Sides

SCHEDULE = Schedule.linear()
"""1000 levels, as published for all slice-wise methods."""

CLIP = (-1.0, 1.0)
"""Range of a predicted clean slice, as published (the data are in 0 to 1)."""

BATCH = 16
"""Slices that go through the network at once, in training and in sampling (as published)."""

PUBLISHED_STEPS = 1000
DEFAULT_STEPS = 25

BYTES_PER_CHANNEL = 88
"""Peak memory of a sample per pixel of a batch and channel at full resolution, with some margin."""

BYTES_PER_VOXEL = 60
"""What a sample needs per voxel besides, for the slices with a hole."""

WINDOW: Sides = (224, 224, 1 << 20)
"""Slices of the published training size; as many as there are."""

Predict = Callable[[Tensor, int], Tensor]
"""(xt, level) -> (S, 2, X, Y): noise and v of the variance."""


def memory_bytes(channels: int, sides: Sides) -> int:
    """Peak memory of a sample with a network of so many channels at full resolution; see the contract."""
    x, y, z = sides
    return x * y * (BYTES_PER_CHANNEL * channels * min(z, BATCH) + BYTES_PER_VOXEL * z)


def masked_slices(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Item and z, two (S,) tensors on the CPU, of every axial slice with mask voxels, in ascending order."""
    found = (mask > 0.5).any(dim=3).any(dim=2)[:, 0].cpu()
    item, z = found.nonzero(as_tuple=True)
    return item, z


def cut(volume: Tensor, item: Tensor, z: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) -> the slices, (S, 1, X, Y), in the published direction of the axes."""
    return volume[item, 0, :, :, z][:, None].flip(TURNED)


def put(volume: Tensor, slices: Tensor, item: Tensor, z: Tensor) -> None:
    """Write slices back to where :func:`cut` took them, in place."""
    volume[item, 0, :, :, z] = slices.flip(TURNED)[:, 0].to(volume.dtype)


def runs(item: Tensor, z: Tensor) -> list[range]:
    """Ranges of indices into the slices within which every slice is next to the one before, in the same scan.

    Slices of two separate lesions are in two ranges.
    """
    pairs = list(zip(item.tolist(), z.tolist(), strict=True))
    starts = [0] if pairs else []
    starts += [k for k, (a, b) in enumerate(pairwise(pairs), start=1) if b != (a[0], a[1] + 1)]
    return [range(a, b) for a, b in pairwise([*starts, len(pairs)])]


def random_levels(count: int, generator: Generator) -> Tensor:
    """(count,) levels from 1 to 1000, uniform, on the CPU (where the schedule is)."""
    return torch.randint(1, SCHEDULE.T + 1, (count,), generator=generator, device=generator.device).cpu()


def noise_loss(
    predict: Callable[[Tensor], Tensor], x0: Tensor, levels: Tensor, generator: Generator
) -> Tensor:
    """Mean over slices of the squared error of the noise and the variational bound, with weight 1 each.

    Args:
        predict: xt -> network output, (S, 2, X, Y).
        x0: (S, 1, X, Y) clean slices; all pixels count.
        levels: (S,) noise levels, on the CPU.
    """
    eps = noise_like(x0, generator)
    xt = add_noise(x0, eps, SCHEDULE.abar[levels])
    output = predict(xt).float()
    mse = (output[:, :1] - eps).square().flatten(1).mean(1)
    return (mse + variational_bound(output, x0, xt, levels, SCHEDULE)).mean()


def no_loss() -> Tensor:
    """The loss of a batch without a masked slice: nothing to learn, but training may go on."""
    return torch.zeros((), requires_grad=True)


def walk(
    predict: Predict,
    noise: Tensor,
    known: Tensor,
    hole: Tensor,
    *,
    sampler: Sampler,
    steps: int,
    generator: Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """From noise to clean slices, (S, 1, X, Y).

    Every sampler but "published" takes the known tissue as the clean image outside the hole, at every step, so
    that what is invented follows it.

    Args:
        noise: (S, 1, X, Y) the first state.
        known: (S, 1, X, Y) tissue outside the hole.
        hole: (S, 1, X, Y) bool.
    """
    if sampler == "published":
        levels = SCHEDULE.levels(steps, "linspace")
        return published_walk(predict, noise, levels, generator=generator, on_step=on_step)

    def denoise_with_variance(xt: Tensor, level: int) -> tuple[Tensor, Tensor]:
        x0, v = clean(predict, xt, level)
        return torch.where(hole, x0, known), v

    def denoise(xt: Tensor, level: int) -> Tensor:
        return denoise_with_variance(xt, level)[0]

    levels = SCHEDULE.levels(steps)
    if sampler == "ddpm":
        return ddpm(
            denoise_with_variance,
            noise,
            levels,
            schedule=SCHEDULE,
            generator=generator,
            on_step=on_step,
        )
    solver = ddim if sampler == "ddim" else dpmpp_2m
    return solver(denoise, noise, levels, schedule=SCHEDULE, generator=generator, on_step=on_step)


def clean(predict: Predict, xt: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """The clean slices that a predicted noise implies, clipped, and v of the variance: both (S, 1, X, Y)."""
    eps, v = predict(xt, level).float().chunk(2, dim=1)
    return x0_from_eps(xt, eps, SCHEDULE.abar[level]).clamp(*CLIP), v


def published_walk(
    predict: Predict,
    noise: Tensor,
    levels: list[int],
    *,
    generator: Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """Ancestral steps with the learned variance; at the last three the state becomes the clean prediction."""
    ancestral = max(len(levels) - 3, 1)
    count = len(levels) - 1

    def denoise(xt: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return clean(predict, xt, level)

    def progress(done: int, _: int) -> None:
        if on_step is not None:
            on_step(done, count)

    # A step straight to level 0 returns the clean prediction itself.
    x = ddpm(
        denoise,
        noise,
        [*levels[:ancestral], 0],
        schedule=SCHEDULE,
        generator=generator,
        on_step=progress,
    )
    for done, level in enumerate(levels[ancestral:-1], start=ancestral + 1):
        x, _ = denoise(x, level)
        progress(done, count)
    return x
