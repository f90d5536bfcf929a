"""unet3d: a regression U-Net, the baseline that every diffusion method must justify itself against.

Idea. A plain 3-D U-Net predicts the tissue in one pass, with no noise and no steps. Such networks won the BraTS
inpainting challenge of 2024 (Zhang et al., arXiv 2507.18126): whatever samples is measured against this.

Input channels, in order: the voided image, the mask (1 where tissue is to be invented); intensities as given.

Network: ``networks/plain_unet3d.py``, in the manner of nnU-Net. It predicts the image; nothing is clipped.

Target: mean absolute error inside the mask plus ``ssim_weight`` times 1 - SSIM there (the reconstruction
terms of the challenge's baseline; SSIM of Wang et al. 2004 with a 7^3 box, known tissue on both sides of the
border). Every training call mirrors the batch along a random choice of axes, as nnU-Net does.

Sampling. One step is the expected fill. More steps average as many passes over randomly chosen mirror images;
the spread between such averages is test-time-augmentation uncertainty (Wang et al. 2019, arXiv 1807.07356),
how far the network disagrees with itself, and not a set of possible anatomies.

Differences from the published code: the winners released none. Depth, widths, losses and mirroring are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuromend.diffusion.samplers import OnStep
from neuromend.methods.contract import Sides, check_volumes
from neuromend.methods.walking import hole_of, weighted_mean
from neuromend.networks.plain_unet3d import PlainUNet3D

MIRRORS = [
    [axis for axis, on in zip((2, 3, 4), choice, strict=True) if on] for choice in product((0, 1), repeat=3)
]
"""The eight ways to mirror a volume; the first leaves it alone."""

SSIM_WINDOW = 7
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Wang et al. 2004, with a data range of 1."""

BYTES_PER_CHANNEL = 50
"""Peak memory of a sample per voxel and channel of the finest level, with some margin."""


@dataclass(frozen=True, slots=True)
class UNet3DConfig:
    """Size of the network and weight of the structural term.

    Attributes:
        widths: channels at each level, finest first.
        ssim_weight: of 1 - SSIM, beside the absolute error with weight 1.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    ssim_weight: float = 0.1


PRESETS: dict[str, UNet3DConfig] = {
    "paper": UNet3DConfig(),
    "small": UNet3DConfig(widths=(16, 32, 64, 128)),
    "tiny": UNet3DConfig(widths=(8, 12)),
}


class RegressionUNet3D(nn.Module):
    """See the module's docstring. Tensors are (B, 1, X, Y, Z) in RAS, sides divisible by ``multiple``."""

    Config: ClassVar[type[UNet3DConfig]] = UNet3DConfig
    PRESETS: ClassVar[dict[str, UNet3DConfig]] = PRESETS
    expected_steps: int | None = 1
    """One pass over the volume as it is."""

    default_steps: int = 2
    """Mirrored passes averaged in one random sample."""
    most_steps: int | None = None
    window: Sides | None = None
    """Any volume is filled at once."""
    samples_are_anatomies: bool = False
    """They are averages of mirrored passes; a benchmark leaves them out."""

    def __init__(self, config: UNet3DConfig) -> None:
        super().__init__()
        self.config = config
        network = PlainUNet3D(2, 1, config.widths)
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def multiple(self) -> int:
        """The sides of a volume must be divisible by this."""
        return int(2 ** (len(self.config.widths) - 1))

    def memory_bytes(self, sides: Sides) -> int:
        """Peak memory of a sample; see the contract."""
        return BYTES_PER_CHANNEL * self.config.widths[0] * prod(sides)

    def loss(self, healthy: Tensor, voided: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Absolute error and structural error inside the mask, each case with weight 1.

        Args:
            healthy, voided, mask: (B, 1, X, Y, Z); the mask is 1 where tissue is hidden.
            generator: chooses the axes along which the batch is mirrored.

        Raises:
            ValueError: the shapes differ, or a side is not divisible by ``multiple``.
        """
        check_volumes(self.multiple, voided, mask, healthy=healthy)
        hole = hole_of(mask)
        known = voided.masked_fill(hole, 0.0)
        choice = int(torch.randint(len(MIRRORS), (1,), generator=generator, device=generator.device))
        truth = torch.where(hole, healthy, known)
        filled = torch.where(hole, self.predict(known, hole, MIRRORS[choice]), known)
        voxels = hole.flatten(1).sum(1).clamp(min=1)
        absolute = (filled - truth).abs().flatten(1).sum(1) / voxels
        structure = ((1 - ssim_map(filled, truth)) * hole).flatten(1).sum(1) / voxels
        return weighted_mean(absolute + self.config.ssim_weight * structure, hole)

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

        One step is the expected fill; more average that many mirrored passes, chosen by ``generator``.

        Raises:
            ValueError: the shapes differ, a side is not divisible by ``multiple``, or ``steps`` is below 1.
        """
        check_volumes(self.multiple, voided, mask, steps=steps)
        hole = hole_of(mask)
        known = voided.masked_fill(hole, 0.0)
        order = torch.randperm(len(MIRRORS), generator=generator, device=generator.device).tolist()
        total = torch.zeros_like(known)
        for step in range(steps):
            choice = 0 if steps == 1 else order[step % len(order)]
            total += self.predict(known, hole, MIRRORS[choice])
            if on_step is not None:
                on_step(step + 1, steps)
        return torch.where(hole, total / steps, voided)

    def predict(self, known: Tensor, hole: Tensor, mirror: list[int]) -> Tensor:
        """The network's image in float32, computed on the mirror image and mirrored back."""
        found: Tensor = self.network(torch.cat((known, hole.to(known)), dim=1).flip(mirror))
        return found.flip(mirror).to(known.dtype)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity at every voxel of two images (B, 1, X, Y, Z) with data range 1 (Wang et al. 2004)."""

    window = min(SSIM_WINDOW, (min(a.shape[2:]) - 1) | 1)  # odd, and no larger than the volume

    def mean(x: Tensor) -> Tensor:
        # One axis after the other: the same mean from 3 x 7 voxels instead of 7^3, a third of a step's time.
        for axis in range(3):
            size = [window if other == axis else 1 for other in range(3)]
            x = F.avg_pool3d(x, size, stride=1, padding=[n // 2 for n in size], count_include_pad=False)
        return x

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variance_a + variance_b + SSIM_C2)
