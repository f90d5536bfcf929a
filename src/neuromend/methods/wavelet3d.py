"""wavelet3d: diffusion of the Haar bands of the whole volume (WDM, Friedrich et al. 2024, arXiv 2402.19043).

Idea. One level of the orthonormal Haar transform turns a volume into eight bands of half its sides, without
loss; a network an eighth as large in memory then sees the whole brain at full resolution (as an inpainting
method: Durrer et al. 2024, arXiv 2403.14499).

Input channels, in order (eight bands each): the noisy image, the voided image, the mask. All three are in
[-1, 1] before the transform (intensity 0 and mask 0 become -1), and the lowest band is divided by 3.

Network: ``networks/unet3d.py`` with residual blocks that change levels; at ``paper`` 83,186,376 parameters.
It predicts the clean bands (x0). ``backbone="wavelet_unet"`` takes the authors' optional network, which
changes levels by the Haar transform (``networks/wavelet_unet.py``; 125,748,552 parameters).

Target: mean of the eight bands' mean squared errors over the whole volume, 1000 levels, linear schedule.
The noise is white in image space and its lowest band is not divided: variance 1 in every band.

Sampling. By default any number of DDIM steps. Each prediction goes back to the image, is clamped to [-1, 1],
gets known tissue put back outside the mask, and is transformed again. ``sampler="published"``: ancestral
steps with the large variance and the clamp alone (1000 steps are the published recipe).

Differences from the published code: known tissue is kept, at the latest at the end (the published code
returns the whole generated volume); what stands inside the mask is never read; every item of a batch is
trained on (the published loss sees the first only); the target outside the mask is the known image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from neuromend.diffusion.process import add_noise, noise_like
from neuromend.diffusion.samplers import Denoise, OnStep
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.contract import TURNED, Sampler, Sides, check_volumes
from neuromend.methods.walking import PUBLISHED_STEPS, hole_of, walk, weighted_mean
from neuromend.networks.unet3d import UNet3D
from neuromend.networks.wavelet_unet import WaveletUNet
from neuromend.wavelets import haar, inverse_haar

SCHEDULE = Schedule.linear()
"""1000 levels, noise variances 1e-4 to 0.02."""

LOWEST_SHRINK = 3.0
"""The lowest band of data is divided by this, so that it lies near [-1, 1] like the others."""

BYTES_PER_CHANNEL, BYTES_PER_VOXEL = {"unet": 12, "wavelet_unet": 20}, 30
"""Peak memory of a sample: per voxel and channel of the finest level, and per voxel besides, with some margin."""


@dataclass(frozen=True, slots=True)
class Wavelet3DConfig:
    """Size of the network and way of sampling.

    Attributes:
        backbone: the plain U-Net, which was published with weights, or the wavelet U-Net.
        width: channels at the finest level.
        multipliers: channels of each level in units of ``width``, finest first.
        blocks: residual blocks at each level on the way down.
        groups: of the group normalisations.
        sampler: how to walk from noise to tissue.
    """

    backbone: Literal["unet", "wavelet_unet"] = "unet"
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 4)
    blocks: int = 2
    groups: int = 32
    sampler: Sampler = "ddim"


PRESETS: dict[str, Wavelet3DConfig] = {
    "paper": Wavelet3DConfig(),
    "paper-wavelet-unet": Wavelet3DConfig(backbone="wavelet_unet"),
    "small": Wavelet3DConfig(width=32, multipliers=(1, 2, 2, 4), blocks=1, groups=16),
    "tiny": Wavelet3DConfig(width=8, multipliers=(1, 2), blocks=1, groups=2),
}


def to_bands(volume: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) in [-1, 1] -> (B, 8, X/2, Y/2, Z/2), the lowest band divided by 3."""
    bands = haar(volume)
    return torch.cat((bands[:, :1] / LOWEST_SHRINK, bands[:, 1:]), dim=1)


def from_bands(bands: Tensor) -> Tensor:
    """The inverse of ``to_bands``."""
    return inverse_haar(torch.cat((bands[:, :1] * LOWEST_SHRINK, bands[:, 1:]), dim=1))


class Wavelet3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Wavelet3DConfig]] = Wavelet3DConfig
    PRESETS: ClassVar[dict[str, Wavelet3DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = 50
    """Steps of one random sample; 1000 with the published sampler."""
    most_steps: int | None = SCHEDULE.T
    window: Sides | None = (256, 256, 256)
    """The published training size."""

    def __init__(self, config: Wavelet3DConfig) -> None:
        super().__init__()
        self.config = config
        size = {
            "width": config.width,
            "multipliers": config.multipliers,
            "blocks": config.blocks,
            "groups": config.groups,
        }
        if config.backbone == "unet":
            network: nn.Module = UNet3D(24, 8, **size, resampling="residual")  # type: ignore[arg-type]
        else:
            network = WaveletUNet(24, 8, **size)  # type: ignore[arg-type]
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.sampler == "published":
            self.default_steps = PUBLISHED_STEPS

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        levels = len(self.config.multipliers) - (self.config.backbone == "unet")
        return int(2 ** (levels + 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        each = BYTES_PER_CHANNEL[self.config.backbone]
        return (each * self.config.width + BYTES_PER_VOXEL) * prod(sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the clean bands over the whole volume, each case with weight 1.

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
        x0 = to_bands(2 * torch.where(hole, healthy, known) - 1)
        t = torch.randint(1, SCHEDULE.T + 1, (len(x0),), generator=generator, device=generator.device)
        noise = haar(noise_like(voided, generator))
        return weighted_mean(self.band_errors(x0, self.condition(known, hole), t, noise).mean(1), hole)

    def condition(self, known: Tensor, hole: Tensor) -> Tensor:
        """Bands of the voided image in [0, 1] and of the mask: (B, 1, X, Y, Z) -> (B, 16, X/2, Y/2, Z/2)."""
        return torch.cat((to_bands(2 * known - 1), to_bands(2 * hole.to(known) - 1)), dim=1)

    def band_errors(self, x0: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of each band predicted at levels ``t`` (B,): (B, 8)."""
        xt = add_noise(x0, noise, SCHEDULE.abar[t.cpu()])
        found: Tensor = self.network(torch.cat((xt, condition), dim=1), t.to(x0.device) - 1)
        return (found.float() - x0).square().flatten(2).mean(2)

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
        condition = self.condition(known, hole)
        keep = None if self.config.sampler == "published" else (2 * known - 1, hole)
        noise = noise_like(condition[:, :8], generator)
        bands = walk(
            self.config.sampler, self.denoiser(condition, keep), noise, steps,
            schedule=SCHEDULE, generator=generator, on_step=on_step,
        )  # fmt: skip
        filled = (from_bands(bands) + 1) / 2
        return torch.where(hole_of(mask), filled.flip(TURNED).to(voided.dtype), voided)

    def denoiser(self, condition: Tensor, keep: tuple[Tensor, Tensor] | None) -> Denoise:
        """The function from noisy bands and their level to clean bands, clamped in image space.

        Args:
            condition: (B, 16, X, Y, Z), from ``condition``.
            keep: the known image in [-1, 1] and the hole, to put known tissue back; None for the clamp alone.
        """

        def denoise(xt: Tensor, t: int) -> Tensor:
            index = torch.full((len(xt),), t - 1, device=xt.device)
            bands = self.network(torch.cat((xt, condition), dim=1), index).to(xt.dtype)
            image = from_bands(bands).clamp(-1, 1)
            return to_bands(image if keep is None else torch.where(keep[1], image, keep[0]))

        return denoise
