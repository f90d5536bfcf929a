"""fastwdm3d: the published few-step wavelet diffusion (fastWDM3D, Durrer et al. 2025, arXiv 2507.13146).

Idea. On the variance-preserving schedule, cut into two big steps, and with an absolute error in image space, a
wavelet diffusion model needs two network evaluations instead of a thousand. It sees a 128^3 crop around the hole.

Input channels, in order (eight Haar bands each, divided by sqrt(8), so that they stay in [-1, 1]): the noisy image,
the voided image, the mask. All three are in [-1, 1] before the transform (intensity 0 and mask 0 become -1).

Network: ``networks/unet3d.py`` with residual blocks that change levels; at ``paper`` 65,525,320 parameters. It
predicts the clean bands (x0).

Target: mean absolute error over the crop plus mean absolute error inside the mask, both in image space.

Sampling. Ancestral steps with the large variance, at most ``levels`` of them. Each prediction goes back to the image,
is clamped to [-1, 1], gets known tissue put back outside the mask, and is transformed again.
``sampler="published"``: the clamp alone, and noise of std 1 in the bands, as the released code samples.

Differences from the published code: noise has the same scale in training and sampling (released: the bands' noise is
divided by sqrt(8) in training only, so that the network meets noise 2.8 times as strong as it has learned); known
tissue is kept at each step; holes that lie close share a crop, and one larger than a crop is filled from end to end
instead of being cut off (``methods/windows.py``); a volume smaller than a crop is not padded to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from neuromend.diffusion.process import add_noise, noise_like
from neuromend.diffusion.samplers import Denoise, OnStep, ddpm
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.contract import TURNED, Sides, check_volumes
from neuromend.methods.walking import hole_of, weighted_mean
from neuromend.networks.unet3d import UNet3D
from neuromend.wavelets import haar, inverse_haar

SHRINK = math.sqrt(8)
"""The network's bands are the orthonormal ones divided by this."""

BYTES_PER_CHANNEL, BYTES_PER_VOXEL = 16, 30
"""Peak memory of a sample: per voxel and channel of the finest level, and per voxel besides, with some margin."""


@dataclass(frozen=True, slots=True)
class FastWDM3DConfig:
    """Size of the network, its noise levels and its crop.

    Attributes:
        width: channels at the finest level.
        multipliers: channels of each level in units of ``width``, finest first.
        blocks: residual blocks at each level on the way down.
        groups: of the group normalisations.
        levels: noise levels of the schedule: the most steps that sampling can take.
        crop: side of the crop in voxels, divisible by ``multiple``.
        sampler: noise as in training ("ddpm"), or as the released code samples ("published").
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 2, 4)
    blocks: int = 4
    groups: int = 32
    levels: int = 2
    crop: int = 128
    sampler: Literal["ddpm", "published"] = "ddpm"


PRESETS: dict[str, FastWDM3DConfig] = {
    "paper": FastWDM3DConfig(),
    "small": FastWDM3DConfig(width=32, multipliers=(1, 2, 2, 4), blocks=1, groups=16, crop=96),
    "tiny": FastWDM3DConfig(width=8, multipliers=(1, 2), blocks=1, groups=2, levels=4),
}


class FastWDM3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[FastWDM3DConfig]] = FastWDM3DConfig
    PRESETS: ClassVar[dict[str, FastWDM3DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = 2
    """Steps of one random sample: as many as ``config.levels``, which is also the most."""
    most_steps: int | None = 2

    def __init__(self, config: FastWDM3DConfig) -> None:
        super().__init__()
        self.config = config
        if config.crop % self.multiple:
            raise ValueError(f"crop must be divisible by {self.multiple}; found {config.crop}")
        self.default_steps = self.most_steps = config.levels
        network = UNet3D(
            24, 8, width=config.width, multipliers=config.multipliers, blocks=config.blocks,
            groups=config.groups, resampling="residual",
        )  # fmt: skip
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @cached_property
    def schedule(self) -> Schedule:
        """The few noise levels."""
        return Schedule.variance_preserving(self.config.levels)

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** len(self.config.multipliers))

    @property
    def window(self) -> Sides | None:
        """What the network is shown at once: the crop of its training."""
        return (self.config.crop, self.config.crop, self.config.crop)

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return (BYTES_PER_CHANNEL * self.config.width + BYTES_PER_VOXEL) * prod(sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Absolute error over a crop around each mask plus that inside the mask, each case with weight 1.

        Args:
            healthy, voided, mask: (B, 1, X, Y, Z); the mask is 1 where tissue is hidden.
            generator: source of the noise and of its levels.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        healthy, voided, mask = (volume.flip(TURNED) for volume in (healthy, voided, mask))
        healthy, voided, mask = self._around_the_mask(healthy, voided, mask)
        hole = hole_of(mask)
        known = voided.masked_fill(hole, 0.0)
        x0 = haar(2 * torch.where(hole, healthy, known) - 1)
        t = torch.randint(1, self.config.levels + 1, (len(x0),), generator=generator, device=generator.device)
        xt = add_noise(x0, haar(noise_like(voided, generator)), self.schedule.abar[t.cpu()])
        error = (self._predict(xt / SHRINK, self.condition(known, hole), t) - inverse_haar(x0)).abs()
        inside = (error * hole).flatten(1).sum(1) / hole.flatten(1).sum(1).clamp(min=1)
        return weighted_mean(error.flatten(1).mean(1) + inside, hole)

    def condition(self, known: Tensor, hole: Tensor) -> Tensor:
        """Bands of the voided image in [0, 1] and of the mask: (B, 1, X, Y, Z) -> (B, 16, X/2, Y/2, Z/2)."""
        return torch.cat((haar(2 * known - 1), haar(2 * hole.to(known) - 1)), dim=1) / SHRINK

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
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is not 1 to
                ``config.levels``.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        levels = self.schedule.levels(steps)
        # The state holds orthonormal bands, whose noise has variance 1, or what the network takes.
        gain = 1.0 if self.config.sampler == "published" else SHRINK

        known, hole = voided.flip(TURNED), hole_of(mask.flip(TURNED))
        known = known.masked_fill(hole, 0.0)
        state = ddpm(
            self.denoiser(known, hole, gain), noise_like(haar(known), generator), levels,
            schedule=self.schedule, generator=generator, on_step=on_step, variance="fixed_large",
        )  # fmt: skip
        filled = (inverse_haar(state * (SHRINK / gain)) + 1) / 2
        return torch.where(hole_of(mask), filled.flip(TURNED).to(voided.dtype), voided)

    def denoiser(self, known: Tensor, hole: Tensor, gain: float) -> Denoise:
        """The function from a noisy state and its level to the clean state, clamped in image space.

        Args:
            known: (B, 1, X, Y, Z) in [0, 1], 0 in the hole.
            hole: bool, the same shape.
            gain: the state divided by the network's bands.
        """
        condition = self.condition(known, hole)
        keep = self.config.sampler != "published"

        def denoise(xt: Tensor, level: int) -> Tensor:
            t = torch.full((len(xt),), level, device=xt.device)
            image = self._predict(xt / gain, condition, t).clamp(-1, 1)
            image = torch.where(hole, image, 2 * known - 1) if keep else image
            return haar(image) * (gain / SHRINK)

        return denoise

    def _predict(self, bands: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """The clean image in [-1, 1] and float32, from the network's bands at levels ``t`` (B,)."""
        found: Tensor = self.network(torch.cat((bands, condition), dim=1), t.to(bands.device) - 1)
        return inverse_haar(found.float() * SHRINK)

    def _around_the_mask(self, *volumes: Tensor) -> list[Tensor]:
        """Each item cut to the crop, with the centroid of its mask (the last volume) in the middle."""
        sides = [min(self.config.crop, n) for n in volumes[0].shape[2:]]
        boxes = []
        for mask in volumes[-1]:
            where = hole_of(mask[0]).nonzero().float()
            centre = where.mean(0).tolist() if len(where) else [n / 2 for n in mask.shape[1:]]
            corner = [
                min(max(round(c - s / 2), 0), n - s)
                for c, s, n in zip(centre, sides, mask.shape[1:], strict=True)
            ]
            boxes.append(tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True)))
        return [torch.stack([v[i, 0][box][None] for i, box in enumerate(boxes)]) for v in volumes]
