"""full3d: the memory-efficient 3-D diffusion of Durrer et al. 2024 (arXiv 2403.14499), on the whole volume.

Idea. One network sees the whole brain at full resolution and removes the noise from it; averaged skips and
the absence of attention keep it within one GPU (the full-resolution form of PatchDDM, arXiv 2303.15288).

Input channels, in order: the voided image, the mask (1 where tissue is to be invented), the noisy image.
Intensities as given, background 0 and bright tissue 1: the published ones are min-max scaled to [0, 1].

Network: ``networks/unet3d.py`` with strided convolutions; at ``paper`` 24,256,384 parameters, group
normalisation of one channel a group at the finest level. It predicts the noise; the image that follows is
clipped to [-1, 1].

Target: mean squared error of the noise over the whole volume, 1000 levels, linear schedule.

Sampling. By default any number of DDIM steps, and known tissue is put back into every prediction, so that
the state stays on the known image outside the mask. ``sampler="published"``: ancestral steps with the
large variance, all of the volume generated, levels spread evenly (1000 steps are the published recipe).

Differences from the published code: known tissue is kept, at the latest at the end (the published code
returns the whole generated volume); what stands inside the mask is never read; volumes need not be 256^3,
only divisible by ``multiple``; the target outside the mask is the known image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuromend.diffusion.process import add_noise, noise_like, x0_from_eps
from neuromend.diffusion.samplers import Denoise, OnStep
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.contract import TURNED, Sampler, Sides, check_volumes
from neuromend.methods.walking import PUBLISHED_STEPS, hole_of, walk, weighted_mean
from neuromend.networks.unet3d import UNet3D

SCHEDULE = Schedule.linear()
"""1000 levels, noise variances 1e-4 to 0.02."""

BYTES_PER_CHANNEL = 82
"""Peak memory of a sample per voxel and channel of the finest level, with some margin."""


@dataclass(frozen=True, slots=True)
class Full3DConfig:
    """Size of the network and way of sampling.

    Attributes:
        width: channels at the finest level.
        multipliers: channels of each level in units of ``width``, finest first.
        blocks: residual blocks at each level on the way down.
        groups: of the group normalisations.
        sampler: how to walk from noise to tissue.
    """

    width: int = 29
    multipliers: tuple[int, ...] = (1, 3, 4, 4, 4, 4, 4)
    blocks: int = 2
    groups: int = 29
    sampler: Sampler = "ddim"


PRESETS: dict[str, Full3DConfig] = {
    "paper": Full3DConfig(),
    "small": Full3DConfig(width=16, multipliers=(1, 2, 4, 4, 4), blocks=1, groups=8),
    "tiny": Full3DConfig(width=8, multipliers=(1, 2), blocks=1, groups=2),
}


class Full3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Full3DConfig]] = Full3DConfig
    PRESETS: ClassVar[dict[str, Full3DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = 50
    """Steps of one random sample; 1000 with the published sampler."""
    most_steps: int | None = SCHEDULE.T
    window: Sides | None = (256, 256, 256)
    """The published training size."""

    def __init__(self, config: Full3DConfig) -> None:
        super().__init__()
        self.config = config
        network = UNet3D(
            3, 1, width=config.width, multipliers=config.multipliers, blocks=config.blocks,
            groups=config.groups, resampling="conv",
        )  # fmt: skip
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.sampler == "published":
            self.default_steps = PUBLISHED_STEPS

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** (len(self.config.multipliers) - 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return BYTES_PER_CHANNEL * self.config.width * prod(sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise over the whole volume, each case with weight 1.

        Args:
            healthy, voided, mask: (B, 1, X, Y, Z); the mask is 1 where tissue is hidden.
            generator: source of the noise and of its levels.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        healthy, voided, mask = (volume.flip(TURNED) for volume in (healthy, voided, mask))
        hole = hole_of(mask)
        known = voided.masked_fill(hole, 0.0)
        t = torch.randint(1, SCHEDULE.T + 1, (len(voided),), generator=generator, device=generator.device)
        noise = noise_like(voided, generator)
        return weighted_mean(self.noise_error(torch.where(hole, healthy, known), known, hole, t, noise), hole)

    def noise_error(self, x0: Tensor, known: Tensor, hole: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the noise predicted at levels ``t`` (B,), averaged over each volume: (B,)."""
        xt = add_noise(x0, noise, SCHEDULE.abar[t.cpu()])
        eps: Tensor = self.network(torch.cat((known, hole.to(known), xt), dim=1), t.to(known.device) - 1)
        return (eps.float() - noise).square().flatten(1).mean(1)

    @torch.inference_mode()
    def sample(
        self,
        voided: Tensor,
        mask: Tensor,
        *,
        steps: int,
        generator: torch.Generator,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Fill the mask; (B, 1, X, Y, Z) like ``voided``, which comes back unchanged outside the mask.

        Raises:
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is not 1 to 1000.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        hole = hole_of(mask.flip(TURNED))
        known = voided.flip(TURNED).masked_fill(hole, 0.0)
        filled = walk(
            self.config.sampler, self.denoiser(known, hole), noise_like(voided, generator), steps,
            schedule=SCHEDULE, generator=generator, on_step=on_step,
        )  # fmt: skip
        return torch.where(hole_of(mask), filled.flip(TURNED).to(voided.dtype), voided)

    def denoiser(self, known: Tensor, hole: Tensor) -> Denoise:
        """The function from a noisy state and its level to the clean image."""
        condition = torch.cat((known, hole.to(known)), dim=1)
        abar = SCHEDULE.abar.tolist()
        keep = self.config.sampler != "published"

        def denoise(xt: Tensor, t: int) -> Tensor:
            index = torch.full((len(xt),), t - 1, device=xt.device)
            eps = self.network(torch.cat((condition, xt), dim=1), index)
            x0 = x0_from_eps(xt, eps.to(xt.dtype), abar[t]).clamp(-1, 1)
            return torch.where(hole, x0, known) if keep else x0

        return denoise
