"""slice2d: every axial slice by itself, with a two-dimensional diffusion model.

Paper: Durrer et al. 2024, "Denoising Diffusion Models for Inpainting of Healthy Brain Tissue" (arXiv 2402.17307),
compared with the other methods in arXiv 2403.14499 (2-D slice-wise). Idea: a lesion is hidden in each slice
that it touches; a network that sees the rest of the slice removes noise from it.

Input channels, in order: the voided slice b, the mask m, the noisy slice x_t. Intensities in 0 to 1.

Network: the ADM U-Net (``networks/unet.py``), 113.7 M parameters at ``paper``. Target: the noise eps, and v of
the variance (learned range). Loss over the whole slice: mean square of eps plus the variational bound.

Sampling: DDIM by default, any number of steps; the clean image outside the mask is the known tissue at each
step. ``sampler="published"`` is the recipe of the authors: 1000 ancestral steps, clean slices clipped to [-1, 1],
the state replaced by the clean prediction at the last three.

Differences from the published code: known tissue is kept; the variational bound is computed against the clean
slice (the released code overwrites it with the noisy one before, so that its variance is trained on the wrong
bound); few-step samplers work (the released loop is fixed at 1000); a batch may hold several scans.
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
from neuromend.networks.unet import UNet2D


@dataclass(frozen=True, slots=True)
class Slice2DConfig:
    """Architecture and sampler.

    Attributes:
        model_channels: channels at full resolution, a multiple of 32.
        channel_mult: width of each level relative to that; each level halves the sides.
        num_res_blocks: residual blocks a level.
        attention_resolutions: factors of down-sampling at which the network attends.
        sampler: "ddim", "dpmpp", "ddpm" or "published".
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    sampler: Sampler = "ddim"


PRESETS: dict[str, Slice2DConfig] = {
    "paper": Slice2DConfig(),
    "small": Slice2DConfig(
        model_channels=64, channel_mult=(1, 2, 2, 4), num_res_blocks=1, attention_resolutions=(8,)
    ),
    "tiny": Slice2DConfig(
        model_channels=64, channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(2,)
    ),
}


class Slice2D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Slice2DConfig]] = Slice2DConfig
    PRESETS: ClassVar[dict[str, Slice2DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = axial.DEFAULT_STEPS
    most_steps: int | None = axial.SCHEDULE.T
    window: Sides | None = axial.WINDOW

    def __init__(self, config: Slice2DConfig) -> None:
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
        )

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** (len(self.config.channel_mult) - 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return axial.memory_bytes(self.config.model_channels, sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """Noise and variance loss of up to 16 masked slices of the batch, drawn at random.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        item, z = axial.masked_slices(mask)
        if len(z) == 0:
            return axial.no_loss()
        chosen = torch.randperm(len(z), generator=generator, device=generator.device).cpu()[: axial.BATCH]
        item, z = item[chosen], z[chosen]
        hole = axial.cut(mask, item, z) > 0.5
        known = axial.cut(voided, item, z).masked_fill(hole, 0)
        x0 = torch.where(hole, axial.cut(healthy, item, z), known)
        levels = axial.random_levels(len(z), generator)
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

        def predict(xt: Tensor, level: int) -> Tensor:
            stack = torch.cat([known, hole.to(xt), xt], dim=1)
            timesteps = torch.full((len(xt),), level - 1, device=xt.device)
            parts = [slice(start, start + axial.BATCH) for start in range(0, len(xt), axial.BATCH)]
            return torch.cat([self.network(stack[part], timesteps[part]) for part in parts])

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
