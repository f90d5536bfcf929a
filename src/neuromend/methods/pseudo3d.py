"""pseudo3d: stacks of axial slices, coupled by convolutions along the slice axis.

Paper: Durrer et al. 2024, "Denoising Diffusion Models for 3D Healthy Brain Tissue Inpainting" (arXiv 2403.14499),
where it is the best of six methods. Idea: a two-dimensional network whose residual blocks also convolve along
the slices, so that neighbours agree at the cost of a slice-wise model.

Input channels, in order: the voided slice b, the mask m, the noisy slice x_t; up to 16 slices a stack.
Intensities in 0 to 1.

Network: the ADM U-Net with a convolution of width 3 along the stack behind both convolutions of each residual
block (``networks/unet.py``), 137.5 M parameters at ``paper``. Target: the noise eps, and v of the variance
(learned range). Loss over the whole slice: mean square of eps plus the variational bound.

Sampling: DDIM by default, any number of steps; the clean image outside the mask is the known tissue at each
step. Stacks overlap by half, and at each step their predictions are averaged with weights that fall towards
the ends of a stack, so there is no seam. ``sampler="published"`` is the recipe of the authors: stacks of 16 masked
slices without overlap, 1000 ancestral steps, clean slices clipped to [-1, 1], the state replaced by the clean
prediction at the last three.

Differences from the published code: known tissue is kept; stacks overlap; slices of two lesions that are apart
are never neighbours in a stack; one noise level a stack in training, as in sampling (published: one a slice);
the variational bound is computed against the clean slice (the released code overwrites it with the noisy one
before); few-step samplers work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from neuromend.diffusion.process import noise_like
from neuromend.diffusion.samplers import OnStep
from neuromend.methods import axial
from neuromend.methods.contract import Sampler, Sides, check_volumes
from neuromend.networks.unet import STACK, UNet2D


@dataclass(frozen=True, slots=True)
class Pseudo3DConfig:
    """Architecture and sampler.

    Attributes:
        model_channels: channels at full resolution, a multiple of 32.
        channel_mult: width of each level relative to that; each level halves the sides.
        num_res_blocks: residual blocks a level.
        attention_resolutions: factors of down-sampling at which the network attends within a slice.
        sampler: "ddim", "dpmpp", "ddpm" or "published".
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    sampler: Sampler = "ddim"


PRESETS: dict[str, Pseudo3DConfig] = {
    "paper": Pseudo3DConfig(),
    "small": Pseudo3DConfig(
        model_channels=64, channel_mult=(1, 2, 2, 4), num_res_blocks=1, attention_resolutions=(8,)
    ),
    "tiny": Pseudo3DConfig(
        model_channels=64, channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(2,)
    ),
}


class Pseudo3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Pseudo3DConfig]] = Pseudo3DConfig
    PRESETS: ClassVar[dict[str, Pseudo3DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = axial.DEFAULT_STEPS
    most_steps: int | None = axial.SCHEDULE.T
    window: Sides | None = axial.WINDOW

    def __init__(self, config: Pseudo3DConfig) -> None:
        super().__init__()
        self.config = config
        if config.sampler == "published":
            self.default_steps = axial.PUBLISHED_STEPS
        self.network = UNet2D(
            3,
            2,
            config.model_channels,
            config.channel_mult,
            config.num_res_blocks,
            config.attention_resolutions,
            pseudo_3d=True,
        )

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** (len(self.config.channel_mult) - 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return axial.memory_bytes(self.config.model_channels, sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """Noise and variance loss of one stack of masked slices, drawn at random from the batch.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        item, z = axial.masked_slices(mask)
        if len(z) == 0:
            return axial.no_loss()
        stacks = overlapping_stacks(axial.runs(item, z))
        number = torch.randint(len(stacks), (), generator=generator, device=generator.device)
        chosen = list(stacks[int(number)])
        item, z = item[chosen], z[chosen]
        hole = axial.cut(mask, item, z) > 0.5
        known = axial.cut(voided, item, z).masked_fill(hole, 0)
        x0 = torch.where(hole, axial.cut(healthy, item, z), known)
        levels = axial.random_levels(1, generator).expand(len(z))
        timesteps = (levels - 1).to(x0.device)

        def predict(xt: Tensor) -> Tensor:
            result: Tensor = self.network(torch.cat([known, hole.to(xt), xt], dim=1), timesteps)
            return result

        return axial.noise_loss(predict, x0, levels, generator)

    @torch.inference_mode()
    def sample(
        self,
        voided: Tensor,
        mask: Tensor,
        *,
        steps: int,
        generator: Generator,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Fill the mask; (B, 1, X, Y, Z) like ``voided``.

        Raises:
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is below 1.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        item, z = axial.masked_slices(mask)
        if len(z) == 0:
            return voided.clone()
        hole = axial.cut(mask, item, z) > 0.5
        known = axial.cut(voided, item, z).masked_fill(hole, 0)
        noise = axial.cut(noise_like(voided, generator), item, z)
        published = self.config.sampler == "published"
        stacks = published_stacks(item) if published else overlapping_stacks(axial.runs(item, z))
        weights = [tent(len(stack)).to(voided.device) for stack in stacks]

        def predict(xt: Tensor, level: int) -> Tensor:
            total, sum_of_weights = (
                torch.zeros_like(xt).repeat(1, 2, 1, 1),
                torch.zeros_like(xt[:, :, :1, :1]),
            )
            for stack, weight in zip(stacks, weights, strict=True):
                part = slice(stack.start, stack.stop)
                timesteps = torch.full((len(stack),), level - 1, device=xt.device)
                inputs = torch.cat([known[part], hole[part].to(xt), xt[part]], dim=1)
                total[part] += weight * self.network(inputs, timesteps)
                sum_of_weights[part] += weight
            return total / sum_of_weights

        filled = axial.walk(
            predict,
            noise,
            known,
            hole,
            sampler=self.config.sampler,
            steps=steps,
            generator=generator,
            on_step=on_step,
        )
        result = voided.clone()
        axial.put(result, torch.where(hole, filled, axial.cut(voided, item, z)), item, z)
        return result


def overlapping_stacks(runs: list[range]) -> list[range]:
    """Cut runs of neighbouring slices into stacks of at most 16, each overlapping the next by half or more."""
    stacks = []
    for run in runs:
        last = max(run.start, run.stop - STACK)
        starts = [*range(run.start, last, STACK // 2), last]
        stacks += [range(start, min(start + STACK, run.stop)) for start in starts]
    return stacks


def published_stacks(item: Tensor) -> list[range]:
    """Stacks of 16 masked slices of one scan in ascending order, the last one shorter, gaps ignored."""
    counts = torch.bincount(item).tolist()
    stacks, first = [], 0
    for count in counts:
        stacks += [
            range(start, min(start + STACK, first + count)) for start in range(first, first + count, STACK)
        ]
        first += count
    return stacks


def tent(depth: int) -> Tensor:
    """Weights of the slices of a stack, (depth, 1, 1, 1): 1 in the middle, falling linearly to the ends."""
    place = torch.arange(1, depth + 1)
    height = torch.minimum(place, depth + 1 - place) / ((depth + 1) / 2)
    return height.reshape(-1, 1, 1, 1)
