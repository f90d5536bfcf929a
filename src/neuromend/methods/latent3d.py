"""latent3d: diffusion in the latent space of a VQ-GAN (Durrer et al. 2024, arXiv 2403.14499).

Idea. An autoencoder shrinks the volume to a quarter of its side, 8 channels a voxel; the diffusion paints there,
which is cheap, and the decoder returns through a codebook (medical diffusion, Khader et al. 2023, arXiv
2211.03364). The autoencoder is trained first and is frozen here: its tensors are buffers, not parameters.

Input channels, in order (8 each): the latents of the voided image, the latents of the mask, the noisy latents.
Image and mask pass through the same encoder without quantisation. Intensities 0 to 1 become -1 to 1; latents are
scaled so that the smallest and the largest entry of the codebook become -1 and 1.

Network: ``networks/video_unet.py``, whose frames are the planes of the first (left-right) axis; at ``paper``
10,006,600 parameters, and 1,391,081 in the autoencoder (``networks/autoencoder.py``). Predicts x0, clipped to
[-1, 1].

Target: mean absolute error over all latents, 1000 levels, cosine schedule.

Sampling. By default any number of DPM-Solver++ steps; latents far from the hole are those of the known tissue at
every step; the decoded fill is shifted by the harmonic function that makes it meet the known tissue at the
border of the mask (Perez et al. 2003), so that there is no seam. ``sampler="published"``: ancestral steps with
the small variance (1000 are the published recipe), nothing known put back, each voxel repeated, no blending.

Differences from the published code: known tissue is kept; what stands inside the mask is never read; the scale
of intensities comes from outside and is undone exactly (published: each output is stretched to its own extremes);
at 2 mm a voxel belongs to the mask if any of its eight does (published: if the first does), and the fill is
interpolated, not repeated; the preset ``full`` works at 1 mm, with bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.diffusion.process import add_noise, noise_like
from neuromend.diffusion.samplers import OnStep
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.classical import harmonic
from neuromend.methods.contract import TURNED, Sampler, Sides, check_volumes
from neuromend.methods.walking import PUBLISHED_STEPS, hole_of, walk, weighted_mean
from neuromend.networks.autoencoder import VQGAN
from neuromend.networks.video_unet import VideoUNet

REACH = 2
"""Latents this near to the hole are painted too: the encoder sees 8 voxels and more around each of its cells."""

BYTES_PER_CHANNEL, BYTES_PER_VOXEL = 95, 100
"""Peak memory of a sample: per voxel and channel of the autoencoder, and per voxel besides, with some margin."""


@dataclass(frozen=True, slots=True)
class Latent3DConfig:
    """Size of the two networks and way of sampling.

    Attributes:
        width, levels, groups: of the autoencoder: channels at full resolution, halvings, normalisation groups.
        codes, code_width: how many codes, and channels of the latents.
        dim, dim_mults: of the denoiser: channels at the finest level (a multiple of 8), and their multiples.
        voxel_stride: every how many voxels the networks see; 2 works at 2 mm, as published.
        timesteps: levels of the cosine schedule.
        low_memory: bounded memory for full resolution, at the price of computing activations twice in training.
        sampler: how to walk from noise to latents.
    """

    width: int = 16
    levels: int = 2
    groups: int = 32
    codes: int = 16384
    code_width: int = 8
    dim: int = 32
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    voxel_stride: int = 2
    timesteps: int = 1000
    low_memory: bool = False
    sampler: Sampler = "dpmpp"


PRESETS: dict[str, Latent3DConfig] = {
    "paper": Latent3DConfig(),
    "full": Latent3DConfig(voxel_stride=1, low_memory=True),
    "small": Latent3DConfig(groups=16, codes=2048, dim=16, dim_mults=(1, 2, 4)),
    "tiny": Latent3DConfig(width=8, groups=8, codes=64, dim=16, dim_mults=(1, 2), voxel_stride=1),
}


class Latent3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[Latent3DConfig]] = Latent3DConfig
    PRESETS: ClassVar[dict[str, Latent3DConfig]] = PRESETS
    expected_steps: int | None = None
    default_steps: int = 20
    """Steps of one random sample; 1000 with the published sampler."""
    most_steps: int | None = 1000
    """One for each noise level: ``config.timesteps``."""
    window: Sides | None = (256, 256, 256)
    """The published training size."""

    def __init__(self, config: Latent3DConfig) -> None:
        super().__init__()
        self.config = config
        self.vqgan = VQGAN(
            config.width, config.levels, config.groups, config.codes, config.code_width,
            low_memory=config.low_memory,
        ).eval()  # fmt: skip
        _freeze(self.vqgan)
        self.denoise_fn = VideoUNet(
            3 * config.code_width, config.code_width, config.dim, config.dim_mults,
            low_memory=config.low_memory,
        )  # fmt: skip
        with torch.device("cpu"):  # levels are read in Python, also where only names and shapes are wanted
            self.schedule = Schedule.cosine(config.timesteps)
        self.most_steps = config.timesteps
        if config.sampler == "published":
            self.default_steps = PUBLISHED_STEPS

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(self.config.voxel_stride * self.vqgan.factor * self.denoise_fn.multiple)

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        seen = self.config.voxel_stride**3
        return prod(sides) * (BYTES_PER_VOXEL + BYTES_PER_CHANNEL * self.config.width // seen)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Mean absolute error of the predicted latents over the whole volume, each case with weight 1.

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
        stride = self.config.voxel_stride
        image, seen = self.shrink(known, hole)
        truth = torch.where(hole, healthy, known)[..., ::stride, ::stride, ::stride]
        target = self.encode(2 * truth - 1)
        t = torch.randint(
            1, self.schedule.T + 1, (len(voided),), generator=generator, device=generator.device
        )
        noise = noise_like(target, generator)
        condition = self.condition(2 * image - 1, 2 * seen - 1)
        return weighted_mean(self.latent_error(condition, target, t, noise), hole)

    def latent_error(self, condition: Tensor, target: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Absolute error of the latents predicted at levels ``t`` (B,), averaged over each volume: (B,)."""
        xt = add_noise(target, noise, self.schedule.abar[t.cpu()])
        x0: Tensor = self.denoise_fn(torch.cat((condition, xt), dim=1), t.to(target.device) - 1)
        return (x0.float() - target).abs().flatten(1).mean(1)

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
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is not 1 to T.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        hole = hole_of(mask.flip(TURNED))
        known = voided.flip(TURNED).masked_fill(hole, 0.0)
        image, seen = self.shrink(known, hole)
        condition = self.condition(2 * image - 1, 2 * seen - 1)
        latents = self.paint(condition, seen, steps=steps, generator=generator, on_step=on_step)
        painted = self.enlarge((self.decode(latents) + 1) / 2)
        if self.config.sampler != "published":
            painted = painted + _misfit(known - painted, hole)
        return torch.where(hole_of(mask), painted.flip(TURNED).to(voided.dtype), voided)

    def paint(
        self,
        condition: Tensor,
        seen: Tensor,
        *,
        steps: int,
        generator: torch.Generator,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """From noise to normalised latents.

        Args:
            condition: as :meth:`condition` returns it.
            seen: (B, 1, x, y, z) the mask at the networks' resolution, 0 or 1.
            steps: network evaluations.
            generator: source of the noise.
            on_step: told after each step.
        """
        known = condition[:, : self.config.code_width]
        free = F.max_pool3d(seen, self.vqgan.factor)
        free = F.max_pool3d(free, 2 * REACH + 1, stride=1, padding=REACH) > 0
        published = self.config.sampler == "published"

        def denoise(xt: Tensor, t: int) -> Tensor:
            index = torch.full((len(xt),), t - 1, device=xt.device)
            x0 = self.denoise_fn(torch.cat((condition, xt), dim=1), index).to(xt.dtype).clamp(-1, 1)
            return x0 if published else torch.where(free, x0, known)

        return walk(
            "ddpm" if published else self.config.sampler, denoise, noise_like(known, generator), steps,
            schedule=self.schedule, generator=generator, on_step=on_step,
        )  # fmt: skip

    @torch.no_grad()
    def encode(self, volume: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) in [-1, 1] -> latents in about [-1, 1], not quantised."""
        low, high = self._range()
        latents: Tensor = 2 * (self.vqgan.encode(volume).float() - low) / (high - low) - 1
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents in about [-1, 1] -> (B, 1, X, Y, Z) in about [-1, 1], through the nearest codes."""
        low, high = self._range()
        return self.vqgan.decode((latents + 1) / 2 * (high - low) + low).float()

    def condition(self, image: Tensor, mask: Tensor) -> Tensor:
        """Latents of the voided image and of the mask, both (B, 1, X, Y, Z) in [-1, 1], one after the other."""
        return torch.cat((self.encode(image), self.encode(mask)), dim=1)

    def shrink(self, known: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask at the resolution of the networks; the image is 0 where the mask is 1."""
        s = self.config.voxel_stride
        image, mask = known[..., ::s, ::s, ::s], hole.to(known)
        if self.config.sampler == "published":
            return image, mask[..., ::s, ::s, ::s]
        mask = F.max_pool3d(mask, s)
        return image * (1 - mask), mask

    def enlarge(self, volume: Tensor) -> Tensor:
        """Back to full resolution; the networks saw the first voxel of each ``voxel_stride`` along each axis."""
        s = self.config.voxel_stride
        if s == 1:
            return volume
        if self.config.sampler == "published":
            return F.interpolate(volume, scale_factor=float(s), mode="nearest")
        size = [(n - 1) * s + 1 for n in volume.shape[2:]]
        between = F.interpolate(volume, size=size, mode="trilinear", align_corners=True)
        return F.pad(between, (0, s - 1) * 3, mode="replicate")

    def _range(self) -> tuple[Tensor, Tensor]:
        codes = self.vqgan.codebook.embeddings
        return codes.amin(), codes.amax()


def _freeze(module: nn.Module) -> None:
    """Turn parameters into buffers of the same names: kept with the model, not trained with it."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())


def _misfit(difference: Tensor, hole: Tensor) -> Tensor:
    """``difference`` outside the hole, continued into it by the harmonic function with these boundary values."""
    filled = [
        torch.from_numpy(harmonic(d, h))
        for d, h in zip(difference[:, 0].float().cpu().numpy(), hole[:, 0].cpu().numpy(), strict=True)
    ]
    return torch.stack(filled)[:, None].to(difference)
