"""fastwavelet3d: a few-step diffusion of the residual against the harmonic fill, in wavelet space.

Idea. The harmonic fill is already right about the slow part of the tissue. The network learns what it
misses: x0 = (healthy - harmonic) / ``residual_scale``, which is zero outside the mask, so known tissue is
never generated and the state is diffused inside the mask only. Two levels of the orthonormal Haar
transform, the second applied to every band of the first, turn each volume into 64 bands on a grid of a
quarter of its sides: the lossless down-sampling of wavelet diffusion (Friedrich et al. 2024, arXiv
2402.19043; few steps as in Durrer et al. 2025, arXiv 2507.13146) taken one level further, because dense
convolutions on few voxels with many channels are what CPUs do fastest.

Input channels, in order (64 Haar bands each): the image with the harmonic fill in the mask; the same image
reflected at the midsagittal plane (what the opposite hemisphere looks like at this place); the mask; the
noisy residual, multiplied by sqrt(abar) (the best linear estimate of x0 if its variance is 1), so that at
the highest noise level the network sees practically nothing of it.

Network: a residual U-Net of dense 3x3x3 convolutions on the quarter-size grid (``networks/fast_unet3d.py``),
conditioned on the log signal-to-noise ratio. Predicts x0; no clipping (the space is unbounded).

Sampling. With one step the answer is E[x0 | scan, mask]: the expected fill, with the lowest error. With 2 to
8 steps of ancestral sampling on the variance-preserving schedule the same network gives diverse samples.

Differences from the published few-step model: residual against a harmonic fill instead of the whole image;
noise only in the mask, with the same scale in training and sampling (the released code trains with noise of
std 0.35 and samples with std 1); the whole brain and its mirror image as context instead of a 128^3 box;
14.7 M parameters instead of 65.5 M.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from neuromend.data.symmetry import midsagittal_reflection
from neuromend.diffusion.samplers import ddpm
from neuromend.diffusion.schedule import Schedule
from neuromend.methods.classical import harmonic
from neuromend.methods.contract import Sides, check_volumes
from neuromend.networks.fast_unet3d import FastUNet3D
from neuromend.wavelets import haar, inverse_haar

BETA_MIN, BETA_MAX = 0.1, 20.0
"""The variance-preserving schedule: log abar(t) = -(bmin t + (bmax - bmin) t^2 / 2) (Song et al. 2021, eq. 33)."""

BYTES_PER_VOXEL = 170
"""Peak memory of a sample, with some margin."""


@dataclass(frozen=True, slots=True)
class FastWavelet3DConfig:
    """Architecture and scale of the residual.

    Attributes:
        widths: channels at each level of the U-Net (grid of 4, 8, 16 voxels), finest first.
        blocks: residual blocks at each level.
        embedding: width of the noise-level embedding.
        residual_scale: standard deviation of (healthy - harmonic) in normalised intensity, over the masks
            of training cases (training/measure_residual.py, first 40 cases: 0.110 where each case counts the
            same, 0.108 where each voxel does).
        expected_fraction: share of the training cases at the highest noise level, that is for the expected fill.
    """

    widths: tuple[int, ...] = (128, 160, 192)
    blocks: tuple[int, ...] = (2, 2, 2)
    embedding: int = 128
    residual_scale: float = 0.12
    expected_fraction: float = 0.75


PRESETS: dict[str, FastWavelet3DConfig] = {
    "default": FastWavelet3DConfig(),
    "small": FastWavelet3DConfig(widths=(64, 96, 128), blocks=(1, 1, 2)),
    "tiny": FastWavelet3DConfig(widths=(8, 12), blocks=(1, 1), embedding=16),
}


@dataclass(frozen=True, eq=False, slots=True)
class Condition:
    """What the network is told, besides the mask: two volumes of shape (B, 1, X, Y, Z)."""

    base: Tensor
    mirror: Tensor


class FastWavelet3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[FastWavelet3DConfig]] = FastWavelet3DConfig
    PRESETS: ClassVar[dict[str, FastWavelet3DConfig]] = PRESETS
    expected_steps: int | None = 1
    """With this number of steps ``sample`` returns the expected fill."""

    default_steps: int = 4
    """Steps of one random sample."""
    most_steps: int | None = None
    """Any number: the schedule is cut into as many levels."""
    window: Sides | None = None
    """Any volume is filled at once."""

    def __init__(self, config: FastWavelet3DConfig) -> None:
        super().__init__()
        self.config = config
        network = FastUNet3D(4 * 64, 64, config.widths, config.blocks, config.embedding)
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._last: tuple[Tensor, Tensor, Condition] | None = None

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(4 * 2 ** (len(self.config.widths) - 1))

    def condition(self, voided: Tensor, mask: Tensor) -> Condition:
        """Harmonic fill and its reflection, computed on the CPU from the voxels outside the mask."""
        base, mirror = [], []
        for image, hole in zip(voided[:, 0].cpu().numpy(), mask[:, 0].cpu().numpy() > 0.5, strict=True):
            fill = harmonic(image.astype(np.float32), hole)
            matrix = midsagittal_reflection(fill, hole)
            reflected = ndimage.affine_transform(fill, matrix[:3, :3], matrix[:3, 3], order=1, cval=0.0)
            base.append(torch.from_numpy(fill))
            mirror.append(torch.from_numpy(reflected.astype(np.float32)))
        return Condition(
            torch.stack(base)[:, None].to(voided.device), torch.stack(mirror)[:, None].to(voided.device)
        )

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return BYTES_PER_VOXEL * prod(sides)

    def loss(
        self,
        healthy: Tensor,
        voided: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        condition: Condition | None = None,
    ) -> Tensor:
        """Mean squared error of x0 inside the mask, each case with weight 1.

        Args:
            healthy, voided, mask: (B, 1, X, Y, Z); the mask is 1 where tissue is hidden.
            generator: source of the noise and of its levels.
            condition: what :meth:`condition` returns, if the data loader has computed it already.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        condition = condition or self.condition(voided, mask)
        mask = (mask > 0.5).to(healthy.dtype)
        x0 = mask * (healthy - condition.base) / self.config.residual_scale
        abar = self._random_abar(len(x0), generator).to(x0)[:, None, None, None, None]
        noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0)
        xt = mask * (abar.sqrt() * x0 + (1 - abar).sqrt() * noise)
        error = mask * (self._predict(xt, abar.flatten(), mask, condition) - x0)
        per_case = error.square().sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4)).clamp(min=1)
        return per_case.mean()

    @torch.inference_mode()
    def sample(
        self,
        voided: Tensor,
        mask: Tensor,
        *,
        steps: int,
        generator: torch.Generator,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Fill the mask; (B, 1, X, Y, Z) like ``voided``. One step gives the expected fill, more give a sample.

        Raises:
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is below 1.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        condition = self._condition_of_scan(voided, mask)
        mask = (mask > 0.5).to(voided.dtype)
        schedule = Schedule.variance_preserving(steps, BETA_MIN, BETA_MAX)

        def denoise(xt: Tensor, level: int) -> Tensor:
            abar = schedule.abar[level].to(xt).expand(len(xt))
            return mask * self._predict(mask * xt, abar, mask, condition)

        noise = torch.randn(voided.shape, generator=generator, device=generator.device).to(voided)
        x0 = ddpm(
            denoise, noise, schedule.levels(steps), schedule=schedule, generator=generator, on_step=on_step
        )
        return condition.base + self.config.residual_scale * mask * x0

    def _condition_of_scan(self, voided: Tensor, mask: Tensor) -> Condition:
        """The condition; kept for the next sample of the same scan, since it takes as long as a step or two."""
        if self._last is not None:
            pairs = zip(self._last[:2], (mask, voided), strict=True)
            if all(a.device == b.device and torch.equal(a, b) for a, b in pairs):
                return self._last[2]
        self._last = None
        condition = self.condition(voided, mask)
        self._last = (mask.clone(), voided.clone(), condition)
        return condition

    def _predict(self, xt: Tensor, abar: Tensor, mask: Tensor, condition: Condition) -> Tensor:
        """The network: noisy residual (B, 1, X, Y, Z) -> x0 of the same shape, in image space."""
        estimate = abar.sqrt()[:, None, None, None, None] * xt
        stack = torch.cat([haar(haar(v)) for v in (condition.base, condition.mirror, mask, estimate)], dim=1)
        log_snr = torch.log(abar / (1 - abar)).clamp(-10, 10)
        return inverse_haar(inverse_haar(self.network(stack, log_snr).float()))

    def _random_abar(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels for training: ``expected_fraction`` at t = 1, the rest uniform in t."""
        draw = torch.rand(2, count, generator=generator, device=generator.device)
        t = torch.where(draw[0] < self.config.expected_fraction, 1.0, 0.02 + 0.98 * draw[1])
        return torch.exp(-(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t * t / 2))
